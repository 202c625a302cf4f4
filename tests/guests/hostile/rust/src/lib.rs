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
    use std::time::{Duration, Instant};
    use std::{env, fs, hint, thread};

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

    pub fn open_files(most: usize) -> String {
        let mut held = Vec::new();
        for _ in 0..most.min(20_000) {
            match File::open("/dev/null") {
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
    pub fn chroot() -> String {
        attempt(|| Ok(rustix::process::chroot("/").map(|()| "a new root".to_owned())?))
    }

    #[cfg(unix)]
    pub fn mount() -> String {
        attempt(crate::doors::mount)
    }

    fn attempt(attack: impl FnOnce() -> std::io::Result<String>) -> String {
        match attack() {
            Ok(what) => format!("done: {what}"),
            Err(error) => format!("denied: {error}"),
        }
    }
}
