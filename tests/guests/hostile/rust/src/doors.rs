//! The kernel's doors, as compiled code finds them.

#![expect(unsafe_code, reason = "system calls, which are the attack")]

use std::fs::File;
use std::io::{Error, ErrorKind, Result, Write};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd as _;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::ptr;

use libc::{c_int, c_long};
use rustix::fs::{MemfdFlags, memfd_create};
use rustix::net::{AddressFamily, SocketType, socket};
use rustix::process::{Pid, Signal, getpid, kill_process};

pub(crate) fn connect_abstract(name: &str) -> Result<String> {
    use std::os::linux::net::SocketAddrExt;
    let address = SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address).map(|_| "connected".to_owned())
}

/// Raw, packet and netlink sockets.
pub(crate) fn special_socket(family: u16, kind: u32) -> Result<String> {
    socket(AddressFamily::from_raw(family), SocketType::from_raw(kind), None)?;
    Ok("a socket".to_owned())
}

pub(crate) fn send_signal(pid: i32) -> Result<String> {
    let pid = Pid::from_raw(pid).ok_or(Error::from(ErrorKind::InvalidInput))?;
    kill_process(pid, Signal::TERM)?;
    Ok("sent".to_owned())
}

/// Signal 0 only asks whether one could be sent.
pub(crate) fn signal_parent() -> Result<String> {
    // SAFETY: both take numbers.
    checked(unsafe { libc::kill(libc::getppid(), 0) }.into())
}

pub(crate) fn send_itself(signal: Signal) -> Result<String> {
    kill_process(getpid(), signal)?;
    Ok("still here".to_owned())
}

pub(crate) fn grow_memfd(mebibytes: usize) -> Result<String> {
    let mut file = File::from(memfd_create("hostile", MemfdFlags::CLOEXEC)?);
    for _ in 0..mebibytes.min(2048) {
        file.write_all(&[1; 1 << 20])?;
    }
    Ok(format!("{mebibytes} MiB"))
}

pub(crate) fn grow_mmap(mebibytes: usize) -> Result<String> {
    for _ in 0..mebibytes.min(2048) {
        // SAFETY: a new mapping of that size, which is written to and kept.
        unsafe {
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            let block = libc::mmap(ptr::null_mut(), 1 << 20, access, kind, -1, 0);
            if block == libc::MAP_FAILED {
                return Err(Error::last_os_error());
            }
            ptr::write_bytes(block.cast::<u8>(), 1, 1 << 20);
        }
    }
    Ok(format!("{mebibytes} MiB"))
}

/// Starts processes that each sleep for two seconds.
pub(crate) fn forks(most: usize) -> Result<String> {
    for _ in 0..most.min(64) {
        // SAFETY: the child only sleeps and exits.
        if checked_number(unsafe { libc::fork() }.into())? == 0 {
            // SAFETY: both take numbers.
            unsafe {
                libc::sleep(2);
                libc::_exit(0);
            }
        }
    }
    Ok(format!("{most} processes"))
}

pub(crate) fn crash() {
    // SAFETY: it is not. That is the attack.
    unsafe { ptr::null_mut::<u8>().write_volatile(1) };
}

pub(crate) fn raise_limit() -> Result<String> {
    let limit = libc::rlimit { rlim_cur: 1 << 20, rlim_max: 1 << 20 };
    // SAFETY: the limit lives through the call.
    checked(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) }.into())
}

/// `TIOCSTI`, on whatever terminal there is.
pub(crate) fn type_into_terminal() -> Result<String> {
    // SAFETY: the byte lives through the call.
    checked(unsafe { libc::ioctl(0, libc::TIOCSTI, c"x".as_ptr()) }.into())
}

pub(crate) fn run_from_memory(path: &str) -> Result<String> {
    use std::os::fd::AsRawFd as _;
    let mut file = File::from(memfd_create("program", MemfdFlags::empty())?);
    file.write_all(&std::fs::read(path)?)?;
    std::process::Command::new(format!("/proc/self/fd/{}", file.as_raw_fd())).output()?;
    Ok("ran".to_owned())
}

/// A system call that no extension has any business with. Anything but a refusal counts as let in:
/// what it is called with would do little then.
pub(crate) fn door(name: &str, pid: i32) -> Result<String> {
    let zeros = [0_u8; 128];
    let zeros = zeros.as_ptr() as c_long;
    let apart = c_long::from(libc::CLONE_NEWUSER);
    let (number, [a, b, c, d, e]): (c_long, [c_long; 5]) = match name {
        "io_uring_setup" => (libc::SYS_io_uring_setup, [8, zeros, 0, 0, 0]),
        "unshare" => (libc::SYS_unshare, [apart, 0, 0, 0, 0]),
        "clone" => (libc::SYS_clone, [apart | c_long::from(libc::SIGCHLD), 0, 0, 0, 0]),
        "setns" => (libc::SYS_setns, [-1, apart, 0, 0, 0]),
        "keyctl" => (libc::SYS_keyctl, [0, -3, 1, 0, 0]),
        "bpf" => (libc::SYS_bpf, [0, zeros, 128, 0, 0]),
        "perf_event_open" => (libc::SYS_perf_event_open, [zeros, 0, -1, -1, 0]),
        "userfaultfd" => (libc::SYS_userfaultfd, [0; 5]),
        "mount" => (libc::SYS_mount, [zeros, zeros, zeros, 0, 0]),
        "chroot" => (libc::SYS_chroot, [c"/".as_ptr() as c_long, 0, 0, 0, 0]),
        "setuid" => (libc::SYS_setuid, [0; 5]),
        // PTRACE_ATTACH; the tracer's end detaches.
        "ptrace" => (libc::SYS_ptrace, [16, pid.into(), 0, 0, 0]),
        "process_vm_readv" => (libc::SYS_process_vm_readv, [pid.into(), 0, 0, 0, 0]),
        _ => return Err(ErrorKind::NotFound.into()),
    };
    // SAFETY: what pointers there are lead to zeros of 128 bytes, or to text.
    let result = unsafe { libc::syscall(number, a, b, c, d, e) };
    if result == 0 && name == "clone" {
        // SAFETY: the child, which ends.
        unsafe { libc::_exit(0) };
    }
    match checked(result) {
        Err(error) if !matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
            Ok(format!("as far as {error}"))
        }
        other => other,
    }
}

/// The first socket of this process: that to its host.
fn host_socket() -> Result<ManuallyDrop<UnixStream>> {
    let is_socket = |file: &c_int| {
        let link = std::fs::read_link(format!("/proc/self/fd/{file}"));
        link.is_ok_and(|link| link.to_string_lossy().starts_with("socket:"))
    };
    let file = (3..64).find(is_socket).ok_or(Error::from(ErrorKind::NotFound))?;
    // SAFETY: it is open, and never closed by this.
    Ok(ManuallyDrop::new(unsafe { UnixStream::from_raw_fd(file) }))
}

/// Writes past the runtime, straight to the host.
pub(crate) fn send_raw(bytes: &[u8], times: usize) -> Result<String> {
    let mut host = host_socket()?;
    for _ in 0..times.min(1000) {
        host.write_all(bytes)?;
    }
    Ok(format!("{} bytes", bytes.len()))
}

/// Closes the half by which the host would be answered.
pub(crate) fn shut_socket() -> Result<String> {
    host_socket()?.shutdown(std::net::Shutdown::Write)?;
    Ok("shut".to_owned())
}

fn checked(result: c_long) -> Result<String> {
    checked_number(result).map(|result| result.to_string())
}

fn checked_number(result: c_long) -> Result<c_long> {
    if result < 0 { Err(Error::last_os_error()) } else { Ok(result) }
}
