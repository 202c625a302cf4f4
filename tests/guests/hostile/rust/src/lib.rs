//! Attacks on the host, each bounded: so many bytes, threads or seconds, then it stops.
//!
//! A method returns `done` with what it got, or `denied` with what it was told. Targets are
//! canaries: files, sockets and processes that the test planted and names in the arguments.

#[cfg(unix)]
mod doors;

#[quadriga_sdk::extension]
mod hostile {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream, ToSocketAddrs};
    use std::path::Path;
    use std::time::{Duration, Instant, SystemTime};
    use std::{env, fs, hint, thread};

    use quadriga_sdk::host;

    const SECONDS: u64 = 20;

    pub fn ping() -> &'static str {
        "pong"
    }

    // What takes too much

    pub fn spin() -> &'static str {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(SECONDS) {
            hint::spin_loop();
        }
        "done: the time was up"
    }

    struct Clingy;

    impl Drop for Clingy {
        fn drop(&mut self) {
            spin();
        }
    }

    pub fn spin_in_drop() -> &'static str {
        drop(Clingy);
        "done: it went"
    }

    pub fn never_reply() -> &'static str {
        thread::sleep(Duration::from_secs(SECONDS));
        "done: late"
    }

    pub fn grow_heap(mebibytes: usize) -> String {
        let mut held = Vec::new();
        for _ in 0..mebibytes.min(2048) {
            held.push(hint::black_box(vec![1_u8; 1 << 20]));
        }
        format!("done: {} MiB", held.len())
    }

    pub fn overflow_stack() -> String {
        fn deeper(n: u64) -> u64 {
            if n == u64::MAX { 0 } else { hint::black_box(deeper(hint::black_box(n + 1))) + 1 }
        }
        format!("done: {}", deeper(0))
    }

    #[expect(clippy::print_stdout, reason = "that is the attack")]
    pub fn flood_output(mebibytes: usize) -> String {
        let line = "x".repeat(1023);
        for _ in 0..mebibytes.min(64) * 1024 {
            println!("{line}");
        }
        format!("done: {mebibytes} MiB")
    }

    pub fn open_files(path: &str, most: usize) -> String {
        let mut held = Vec::new();
        for _ in 0..most.min(20_000) {
            match File::open(path) {
                Ok(file) => held.push(file),
                Err(error) => return format!("denied: {error} after {}", held.len()),
            }
        }
        format!("done: {} files", held.len())
    }

    pub fn fill_disk(path: &str, mebibytes: usize) -> String {
        let name = Path::new(path).join("hostile-filling");
        let fill = || {
            let mut file = File::create(&name)?;
            (0..mebibytes.min(512)).try_for_each(|_| file.write_all(&[1; 1 << 20]))?;
            Ok(format!("{mebibytes} MiB"))
        };
        let filled = attempt(fill);
        // What is left of the attempt goes; it may never have been there.
        let _ = fs::remove_file(name);
        filled
    }

    pub fn threads(most: usize) -> String {
        let mut held = Vec::new();
        for _ in 0..most.min(4000) {
            match thread::Builder::new().spawn(|| thread::sleep(Duration::from_secs(1))) {
                Ok(thread) => held.push(thread),
                Err(error) => return format!("denied: {error} after {}", held.len()),
            }
        }
        format!("done: {} threads", held.len())
    }

    // What is none of its business

    pub fn read_file(path: &str) -> String {
        let read = || {
            let mut text = String::new();
            File::open(path)?.take(64).read_to_string(&mut text)?;
            Ok(text)
        };
        attempt(read)
    }

    pub fn read_environment(name: &str) -> String {
        env::var(name).map_or_else(|error| format!("denied: {error}"), |value| format!("done: {value}"))
    }

    pub fn write_file(path: &str) -> String {
        attempt(|| fs::write(path, "hostile").map(|()| path.to_owned()))
    }

    pub fn remove_file(path: &str) -> String {
        attempt(|| fs::remove_file(path).map(|()| path.to_owned()))
    }

    pub fn write_by_hard_link(scratch: &str, path: &str) -> String {
        let link = Path::new(scratch).join("hardlink");
        attempt(|| {
            fs::hard_link(path, &link)?;
            fs::write(&link, "hostile").map(|()| path.to_owned())
        })
    }

    pub fn read_by_dots(inside: &str, path: &str) -> String {
        read_file(&format!("{inside}{}{path}", "/..".repeat(20)))
    }

    pub fn list_folder(path: &str) -> String {
        attempt(|| fs::read_dir(path).map(|entries| format!("{} names", entries.count())))
    }

    pub fn move_out(from: &str, to: &str) -> String {
        attempt(|| fs::rename(from, to).map(|()| to.to_owned()))
    }

    /// Looks for steps finer than a millisecond, which is what is granted unless more is.
    pub fn fine_clock() -> String {
        let wall = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let begun = Instant::now();
        let finest = |clock: &dyn Fn() -> Duration| {
            let read: Vec<Duration> = (0..20_000).map(|_| clock()).collect();
            read.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).filter(|step| !step.is_zero()).min()
        };
        let steps = [finest(&wall), finest(&|| begun.elapsed())];
        let fine = steps.into_iter().flatten().any(|step| step < Duration::from_millis(1));
        format!("{}: {steps:?}", if fine { "done" } else { "denied" })
    }

    /// Calls an extension that it may not call, so often.
    pub fn call_others(extension: &str, times: usize) -> String {
        let call = || host::call::<i64>(extension, "add", (2, 3));
        let refused = (0..times.min(5000)).filter(|_| call().is_err()).count();
        if refused == times { format!("denied: {refused} times") } else { format!("done: all but {refused}") }
    }

    pub fn connect(port: u16) -> String {
        attempt(|| TcpStream::connect(("127.0.0.1", port)).map(|_| "connected".to_owned()))
    }

    pub fn listen() -> String {
        attempt(|| TcpListener::bind("127.0.0.1:0").map(|_| "listens".to_owned()))
    }

    pub fn resolve(name: &str) -> String {
        attempt(|| (name, 80).to_socket_addrs().map(|found| format!("{}", found.count())))
    }

    // Its own process

    pub fn panic() -> String {
        panic!("on purpose")
    }

    pub fn exit() -> String {
        std::process::exit(0)
    }

    pub fn abort() -> String {
        std::process::abort()
    }

    // What only a process has

    #[cfg(unix)]
    pub fn write_by_symlink(scratch: &str, path: &str) -> String {
        let link = Path::new(scratch).join("symlink");
        attempt(|| {
            std::os::unix::fs::symlink(path, &link)?;
            fs::write(&link, "hostile").map(|()| path.to_owned())
        })
    }

    #[cfg(unix)]
    pub fn connect_unix(path: &str) -> String {
        attempt(|| std::os::unix::net::UnixStream::connect(path).map(|_| "connected".to_owned()))
    }

    #[cfg(unix)]
    pub fn connect_abstract(name: &str) -> String {
        attempt(|| crate::doors::connect_abstract(name))
    }

    #[cfg(unix)]
    pub fn special_socket(family: u16, kind: u32) -> String {
        attempt(|| crate::doors::special_socket(family, kind))
    }

    #[cfg(unix)]
    pub fn send_signal(pid: i32) -> String {
        attempt(|| crate::doors::send_signal(pid))
    }

    #[cfg(unix)]
    pub fn kill_itself() -> String {
        attempt(|| crate::doors::send_itself(rustix::process::Signal::KILL))
    }

    #[cfg(unix)]
    pub fn stop_itself() -> String {
        attempt(|| crate::doors::send_itself(rustix::process::Signal::STOP))
    }

    #[cfg(unix)]
    pub fn read_memory(pid: i32) -> String {
        attempt(|| File::open(format!("/proc/{pid}/mem")).map(|_| "open".to_owned()))
    }

    #[cfg(unix)]
    pub fn grow_memfd(mebibytes: usize) -> String {
        attempt(|| crate::doors::grow_memfd(mebibytes))
    }

    #[cfg(unix)]
    pub fn run_program(path: &str) -> String {
        attempt(|| {
            let output = std::process::Command::new(path).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).chars().take(32).collect())
        })
    }

    #[cfg(unix)]
    pub fn run_from_memory(path: &str) -> String {
        attempt(|| crate::doors::run_from_memory(path))
    }

    /// Gives a file of its own the right to run as its owner, and runs it.
    #[cfg(unix)]
    pub fn make_setuid(folder: &str) -> String {
        use std::os::unix::fs::PermissionsExt as _;
        let program = Path::new(folder).join("setuid");
        attempt(|| {
            fs::write(&program, "#!/bin/sh\nid -u\n")?;
            fs::set_permissions(&program, fs::Permissions::from_mode(0o4755))?;
            let output = std::process::Command::new(&program).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        })
    }

    #[cfg(unix)]
    pub fn door(name: &str, pid: i32) -> String {
        attempt(|| crate::doors::door(name, pid))
    }

    /// Tries one so often.
    #[cfg(unix)]
    pub fn doors(name: &str, times: usize) -> String {
        let refused = (0..times.min(5000)).filter(|_| crate::doors::door(name, 0).is_err()).count();
        if refused == times { format!("denied: {refused} times") } else { format!("done: all but {refused}") }
    }

    #[cfg(unix)]
    pub fn forks(most: usize) -> String {
        attempt(|| crate::doors::forks(most))
    }

    #[cfg(unix)]
    pub fn grow_mmap(mebibytes: usize) -> String {
        attempt(|| crate::doors::grow_mmap(mebibytes))
    }

    #[cfg(unix)]
    pub fn crash() -> String {
        crate::doors::crash();
        "done: still here".to_owned()
    }

    #[cfg(unix)]
    pub fn signal_parent() -> String {
        attempt(crate::doors::signal_parent)
    }

    #[cfg(unix)]
    pub fn raise_limit() -> String {
        attempt(crate::doors::raise_limit)
    }

    #[cfg(unix)]
    pub fn type_into_terminal() -> String {
        attempt(crate::doors::type_into_terminal)
    }

    #[cfg(unix)]
    pub fn read_parents_environment(name: &str) -> String {
        let parent = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
        attempt(|| {
            let all = fs::read(format!("/proc/{parent}/environ"))?;
            Ok(format!("{}", String::from_utf8_lossy(&all).contains(name)))
        })
    }

    /// Goes on in a thread when its call is over.
    pub fn spin_in_thread() -> String {
        attempt(|| thread::Builder::new().spawn(spin).map(|_| "left one behind".to_owned()))
    }

    #[cfg(unix)]
    pub fn send_raw(frame: Vec<u8>, times: usize) -> String {
        attempt(|| crate::doors::send_raw(&frame, times))
    }

    #[cfg(unix)]
    pub fn shut_socket() -> String {
        let shut = attempt(crate::doors::shut_socket);
        thread::sleep(Duration::from_secs(2));
        shut
    }

    fn attempt(attack: impl FnOnce() -> std::io::Result<String>) -> String {
        match attack() {
            Ok(what) => format!("done: {what}"),
            Err(error) => format!("denied: {error}"),
        }
    }
}
