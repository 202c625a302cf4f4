//! System calls that no crate of ours offers, and the few that are unsafe in any.
//!
//! All of it runs in a process with one thread, except [`fork`] in `probe`.

#![expect(unsafe_code, reason = "calls of libc and the kernel")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::net::{AddressFamily, SocketType};
use rustix::process::Pid;
use rustix::thread::UnshareFlags;
use seccompiler::sock_filter;

/// Forks. `None` is the child.
pub(crate) fn fork() -> io::Result<Option<Pid>> {
    // SAFETY: callers have one thread, or do in the child only what `probe` says.
    let pid = check(unsafe { libc::fork() }.into())?;
    Ok(Pid::from_raw(pid as i32))
}

/// Ends the process at once, without destructors and handlers of exit.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: takes nothing and doesn't return.
    unsafe { libc::_exit(code) }
}

/// Writes what the C library has of output that was not written yet.
pub(crate) fn flush_output() {
    // SAFETY: all streams, each of which is locked for it.
    unsafe { libc::fflush(ptr::null_mut()) };
}

/// Ends the process by the signal, or by `_exit` if that doesn't.
pub(super) fn die_by(signal: i32) -> ! {
    default_signal(signal);
    let _ = release_signal(signal);
    // SAFETY: takes a number.
    unsafe { libc::raise(signal) };
    exit_now(128 + signal)
}

/// Has a signal wait, instead of doing what it does, and returns a descriptor that can be read when
/// one waits.
pub(crate) fn hold_signal(signal: i32) -> io::Result<OwnedFd> {
    let set = only(signal);
    // SAFETY: the set is initialised, and lives through both calls; the descriptor is new.
    unsafe {
        check(libc::sigprocmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()).into())?;
        let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK).into())?;
        Ok(OwnedFd::from_raw_fd(fd as i32))
    }
}

/// Undoes [`hold_signal`].
pub(crate) fn release_signal(signal: i32) -> io::Result<()> {
    let set = only(signal);
    // SAFETY: the set is initialised, and lives through the call.
    check(unsafe { libc::sigprocmask(libc::SIG_UNBLOCK, &raw const set, ptr::null_mut()) }.into()).map(drop)
}

fn only(signal: i32) -> libc::sigset_t {
    // SAFETY: the set is initialised by the first call, and the other takes it and a number.
    unsafe {
        let mut set = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, signal);
        set
    }
}

fn default_signal(signal: i32) {
    // SAFETY: the default action needs no handler.
    unsafe { libc::signal(signal, libc::SIG_DFL) };
}

pub(super) fn ignore_signal(signal: i32) {
    // SAFETY: to ignore a signal needs no handler.
    unsafe { libc::signal(signal, libc::SIG_IGN) };
}

/// Closes the descriptors from `first` to `last`.
pub(super) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: the callers own all descriptors of a process that has only just started.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

pub(super) fn unshare(flags: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors, the only concern, are not unshared.
    unsafe { rustix::thread::unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// Sets attributes (`MOUNT_ATTR_*`) of the mount that `mount` is the root of, and of those below it.
pub(super) fn mount_setattr(mount: BorrowedFd<'_>, set: u64, recursive: bool) -> io::Result<()> {
    let attr = libc::mount_attr { attr_set: set, attr_clr: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path and the attributes live through the call, and the size is that of the latter.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
}

/// Turns the loopback interface on.
pub(super) fn raise_loopback() -> io::Result<()> {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    // SAFETY: an interface request is plain data, for which zeros are fine.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, letter) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *letter as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request lives through the call, which reads its name and flags.
    let raised = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    check(raised.into()).map(drop)
}

/// Empties the environment and overwrites the memory between `start` and `end`, where the kernel put
/// it when the program was started.
pub(super) fn wipe_environment(start: usize, end: usize) {
    // SAFETY: one thread. The range is the kernel's own word for where the strings lie, which is
    // writable stack; after `clearenv` nothing refers to them.
    unsafe {
        libc::clearenv();
        ptr::write_bytes(start as *mut u8, 0, end.saturating_sub(start));
    }
}

pub(super) fn set_variable(name: &CStr, value: &CStr) -> io::Result<()> {
    // SAFETY: one thread, and libc copies both strings.
    check(unsafe { libc::setenv(name.as_ptr(), value.as_ptr(), 1) }.into()).map(drop)
}

/// Installs a seccomp filter for this thread and those that it starts. With `log`, the kernel logs
/// the calls that it denies.
pub(super) fn install_filter(program: &[sock_filter], log: bool) -> io::Result<()> {
    seccomp(program, if log { libc::SECCOMP_FILTER_FLAG_LOG } else { 0 }).map(drop)
}

/// The same for a filter whose questions are read from the descriptor.
pub(super) fn install_watch(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let flags = libc::SECCOMP_FILTER_FLAG_LOG | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    let fd = seccomp(program, flags)?;
    // SAFETY: the descriptor is new.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

fn seccomp(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<i64> {
    let program = libc::sock_fprog {
        len: u16::try_from(program.len()).map_err(io::Error::other)?,
        filter: program.as_ptr().cast_mut().cast(),
    };
    // SAFETY: the kernel copies the program, of the length said; the instructions of both crates have
    // the layout that the kernel defines.
    check(unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    })
}

/// Takes a question that waits; fails if who asked is gone.
pub(super) fn take_question(watch: &OwnedFd) -> io::Result<libc::seccomp_notif> {
    // SAFETY: plain data, for which zeros are fine, and which the kernel wants to find.
    let mut question: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    const TAKE: Opcode = opcode::read_write::<libc::seccomp_notif>(b'!', 0);
    // SAFETY: this operation writes a question, which lives through the call.
    unsafe { ioctl(watch, Updater::<TAKE, _>::new(&mut question)) }?;
    Ok(question)
}

/// Answers a question: the call fails with `EPERM`.
pub(super) fn answer_no(watch: &OwnedFd, id: u64) -> io::Result<()> {
    let mut answer = libc::seccomp_notif_resp { id, val: 0, error: -libc::EPERM, flags: 0 };
    const ANSWER: Opcode = opcode::read_write::<libc::seccomp_notif_resp>(b'!', 1);
    // SAFETY: this operation reads an answer, which lives through the call.
    unsafe { ioctl(watch, Updater::<ANSWER, _>::new(&mut answer)) }.map_err(io::Error::from)
}

fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Has the allocator keep memory that is freed, up to some MiB. For a worker that gets or sends large
/// payloads: new memory from the kernel costs more than what is done with it. No other should, as
/// what lies between memory in use is then not given back at all.
pub(crate) fn keep_freed_memory() {
    #[cfg(target_env = "gnu")]
    // SAFETY: sets two numbers of the allocator, which it takes or leaves.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, 4 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 8 << 20);
    }
}
