//! Enters a plan, tries things and says what happened. The tests of confinement run it.

#![expect(unsafe_code, reason = "tries system calls that are to be denied")]

mod action;
mod groups_of;
mod supervise;

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};
use std::{env, ptr, thread};

use quadriga_sandbox::confine;

use self::action::{Action, Entered, NOTHING_TO_DO, Outcome, Request};

fn main() {
    let Ok(request) = serde_json::from_reader::<_, Request>(io::stdin().lock()) else {
        std::process::exit(NOTHING_TO_DO);
    };
    let mut listening = None;
    let entered = match &request.plan {
        None => Ok(None),
        Some(plan) => confine::enter_with(plan).map_err(|error| error.to_string()).map(|entered| {
            // Stays open, as if somebody were about to accept on it.
            listening = entered.proxy;
            Some(entered.report)
        }),
    };
    let failed = entered.is_err();
    say(&Entered(entered));
    if failed {
        return;
    }
    for action in &request.actions {
        say(&attempt(action).map_err(|error| error.raw_os_error().unwrap_or(-1)) as &Outcome);
    }
    drop(listening);
}

fn say(what: &impl serde::Serialize) {
    let mut text = serde_json::to_vec(what).expect("plain data");
    text.push(b'\n');
    let _ = io::stdout().write_all(&text);
    let _ = io::stdout().flush();
}

fn attempt(action: &Action) -> io::Result<String> {
    match action {
        Action::Read(path) => fs::read_to_string(path),
        Action::List(path) => list(path),
        Action::ReadLink(path) => Ok(fs::read_link(path)?.display().to_string()),
        Action::Write(path) => fs::write(path, "written").map(done),
        Action::WriteBySymlink(folder, target) => {
            let link = folder.join("symlink");
            let _ = fs::remove_file(&link);
            symlink(target, &link)?;
            OpenOptions::new().write(true).open(link)?.write_all(b"x").map(done)
        }
        Action::WriteByHardLink(folder, target) => {
            let link = folder.join("hard-link");
            let _ = fs::remove_file(&link);
            fs::hard_link(target, &link)?;
            OpenOptions::new().write(true).open(link)?.write_all(b"x").map(done)
        }
        Action::Truncate(path) => {
            let path = c_path(path);
            // SAFETY: the path lives through the call.
            check(unsafe { libc::truncate(path.as_ptr(), 3) }.into())
        }
        Action::Chmod(path) => fs::set_permissions(path, fs::Permissions::from_mode(0o700)).map(done),
        Action::Touch(path) => {
            let path = c_path(path);
            // SAFETY: the path lives through the call; no times mean the present.
            check(unsafe { libc::utimensat(libc::AT_FDCWD, path.as_ptr(), ptr::null(), 0) }.into())
        }
        Action::Watch(path) => {
            let path = c_path(path);
            // SAFETY: the path lives through the call.
            let fd = unsafe { libc::inotify_init1(0) };
            check(fd.into())?;
            // SAFETY: as above.
            check(unsafe { libc::inotify_add_watch(fd, path.as_ptr(), libc::IN_ALL_EVENTS) }.into())
        }
        Action::Work(folder) => work(folder),
        Action::Copy(from, to) => fs::copy(from, to).map(done),
        Action::Env(name) => env::var(name).map_err(|_| io::ErrorKind::NotFound.into()),
        Action::FirstEnv(text) => {
            let found =
                fs::read("/proc/self/environ")?.windows(text.len()).any(|part| part == text.as_bytes());
            if found { Ok(done(())) } else { Err(io::ErrorKind::NotFound.into()) }
        }
        Action::Ptrace(pid) => call(libc::SYS_ptrace, &[libc::PTRACE_SEIZE.into(), (*pid).into(), 0, 0]),
        Action::Memory(pid) => File::open(format!("/proc/{pid}/mem")).map(done),
        Action::Signal(pid, signal) => call(libc::SYS_kill, &[(*pid).into(), *signal as u64]),
        Action::Own(pid) => {
            let (read, _write) = io::pipe()?;
            call(libc::SYS_fcntl, &[read.as_raw_fd() as u64, libc::F_SETOWN as u64, (*pid).into()])
        }
        Action::Tcp(address) => TcpStream::connect(address).map(done),
        Action::ListenTcp => TcpListener::bind("127.0.0.1:0").map(done),
        Action::Udp => UdpSocket::bind("127.0.0.1:0").map(done),
        Action::Resolve(name) => (name.as_str(), 80).to_socket_addrs().map(done),
        Action::Unix(path) => UnixStream::connect(path).map(done),
        Action::Abstract(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?).map(done),
        Action::DatagramPair(path) => {
            let (one, _other) = std::os::unix::net::UnixDatagram::pair()?;
            one.send_to(b"x", path).map(done)
        }
        Action::StreamPair => {
            let (mut one, mut other) = UnixStream::pair()?;
            one.write_all(b"x")?;
            other.read_exact(&mut [0]).map(done)
        }
        Action::Call(number, arguments) => call(*number, arguments),
        Action::TypeInto(fd) => {
            let letter = b"x".as_ptr() as u64;
            call(libc::SYS_ioctl, &[*fd as u64, libc::TIOCSTI, letter])
        }
        Action::Fork => fork(|| ()).map(done),
        Action::ForkMany(most) => Ok(count(*most, || fork(|| thread::sleep(Duration::from_secs(1))))),
        Action::Daemon => fork(|| {
            // SAFETY: takes nothing.
            unsafe { libc::setsid() };
            thread::sleep(Duration::from_secs(3600));
        })
        .map(done),
        Action::Exec(program, arguments) => {
            let output = Command::new(program).args(arguments).output()?;
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        }
        Action::ExecFromMemory(program) => exec_from_memory(program),
        Action::Threads(count) => {
            let threads: Vec<_> = (0..*count).map(|n| thread::spawn(move || n)).collect();
            let sum: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
            Ok(sum.to_string())
        }
        Action::ThreadsMany(most) => {
            // For longer than it takes to make them all, on a slow machine too.
            let sleep = || thread::Builder::new().spawn(|| thread::sleep(Duration::from_secs(60)));
            Ok(count(*most, || sleep().map(drop)))
        }
        Action::OpenMany(most) => {
            let mut open = Vec::new();
            Ok(count(*most, || File::open("/dev/null").map(|file| open.push(file))))
        }
        Action::WriteBytes(path, bytes) => fs::write(path, vec![1; *bytes]).map(done),
        Action::FilesMany(folder, most) => {
            let file = |n: usize| folder.join(format!("one-of-many-{n}"));
            let mut made = 0;
            let text = count(*most, || File::create_new(file(made)).map(|_| made += 1));
            (0..made).try_for_each(|n| fs::remove_file(file(n)))?;
            Ok(text)
        }
        Action::Allocate(bytes) => {
            let memory = vec![1_u8; *bytes];
            Ok(std::hint::black_box(&memory).iter().map(|byte| u64::from(*byte)).sum::<u64>().to_string())
        }
        Action::Hold(bytes) => Ok(std::hint::black_box(vec![1_u8; *bytes].leak()).len().to_string()),
        Action::Reserve(bytes) => map(*bytes, libc::PROT_NONE, None).map(done),
        Action::MapExecutable => map(4096, libc::PROT_READ | libc::PROT_EXEC, None).map(done),
        Action::MapFile(path) => {
            map(4096, libc::PROT_READ | libc::PROT_EXEC, Some(&File::open(path)?)).map(done)
        }
        Action::ProtectExecutable => {
            let page = map(4096, libc::PROT_READ | libc::PROT_WRITE, None)?;
            // SAFETY: nothing else is in this page.
            check(unsafe { libc::mprotect(page, 4096, libc::PROT_READ | libc::PROT_EXEC) }.into())
        }
        Action::Clocks => {
            let (start, now) = (Instant::now(), SystemTime::now());
            thread::sleep(Duration::from_millis(2));
            let passed = start.elapsed() >= Duration::from_millis(2);
            Ok((passed && now.elapsed().is_ok()).to_string())
        }
        Action::Abort => std::process::abort(),
        Action::Exit(code) => std::process::exit(*code),
        Action::Spin => loop {
            std::hint::spin_loop();
        },
        Action::Sleep => loop {
            thread::sleep(Duration::from_secs(60));
        },
        Action::Supervise(work) => supervise::start(work),
        Action::Cycles(count, work) => supervise::cycles(*count, work),
        Action::Abandon(work) => supervise::abandon(work),
        Action::Probe => Ok(serde_json::to_string(&confine::probe())?),
    }
}

fn done<T>(_: T) -> String {
    String::new()
}

fn list(path: &Path) -> io::Result<String> {
    let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names.join(" "))
}

fn work(folder: &Path) -> io::Result<String> {
    let (inner, file) = (folder.join("a"), folder.join("a/one"));
    fs::create_dir(&inner)?;
    fs::write(&file, "text")?;
    OpenOptions::new().append(true).open(&file)?.write_all(b" and more")?;
    File::options().write(true).open(&file)?.set_len(4)?;
    fs::write(folder.join("a/two"), fs::read(&file)?)?;
    fs::rename(folder.join("a/two"), folder.join("three"))?;
    let text = fs::read_to_string(folder.join("three"))?;
    fs::remove_file(folder.join("three"))?;
    fs::remove_dir_all(inner)?;
    Ok(text)
}

fn fork(child: impl FnOnce()) -> io::Result<()> {
    // SAFETY: the probe has one thread where this is tried.
    match unsafe { libc::fork() } {
        0 => {
            child();
            // SAFETY: ends the child.
            unsafe { libc::_exit(0) }
        }
        pid => check(pid.into()).map(drop),
    }
}

/// How often something works before it fails.
fn count(most: usize, mut what: impl FnMut() -> io::Result<()>) -> String {
    (0..most).take_while(|_| what().is_ok()).count().to_string()
}

fn exec_from_memory(program: &Path) -> io::Result<String> {
    // SAFETY: the name lives through the call.
    let fd = unsafe { libc::memfd_create(c"program".as_ptr(), 0) };
    check(fd.into())?;
    // SAFETY: just made, and owned by nobody else.
    let mut file = unsafe { File::from_raw_fd(fd) };
    io::copy(&mut File::open(program)?, &mut file)?;
    Err(Command::new(format!("/proc/self/fd/{fd}")).exec())
}

fn map(bytes: usize, protection: i32, file: Option<&File>) -> io::Result<*mut libc::c_void> {
    let (kind, fd) = file.map_or((libc::MAP_ANONYMOUS, -1), |file| (0, file.as_raw_fd()));
    // SAFETY: a new mapping at any address.
    let page = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, libc::MAP_PRIVATE | kind, fd, 0) };
    if page == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(page) }
}

fn c_path(path: &Path) -> CString {
    CString::new(path.to_str().expect("a plain path")).expect("a plain path")
}

fn call(number: i64, arguments: &[u64]) -> io::Result<String> {
    let argument = |n: usize| arguments.get(n).copied().unwrap_or(0);
    let (a, b, c, d, e) = (argument(0), argument(1), argument(2), argument(3), argument(4));
    // SAFETY: none, if it were allowed; pointers are null, except to what lives through the call.
    check(unsafe { libc::syscall(number, a, b, c, d, e, argument(5)) })
}

fn check(result: i64) -> io::Result<String> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result.to_string()) }
}

/// A standard descriptor to hand on.
pub(crate) fn borrowed(fd: i32) -> BorrowedFd<'static> {
    // SAFETY: the standard descriptors stay open.
    unsafe { BorrowedFd::borrow_raw(fd) }
}
