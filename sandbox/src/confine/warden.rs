//! Life in a PID namespace.
//!
//! The process that the supervisor started can't enter a PID namespace, only its children can. So it
//! stays outside as the warden. Its child is the init of the namespace, which reaps orphans and whose
//! end is the end of all in there. The worker is the child of that one: an init would ignore the
//! signals by which a process ends itself, such as that of `abort`.

use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::PipeFlags;
use rustix::process::{Pid, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use rustix::thread::UnshareFlags;

use super::report::{Outcome, failed};
use super::rlimit::NO_CORE;
use super::{Plan, caps, namespace, sys};

/// Returns in the worker; the calling process and its child stay behind and never return.
pub(super) fn enter(plan: &Plan) -> io::Result<Outcome> {
    if !namespace::wants_pids(plan) {
        return Outcome::not_asked();
    }
    sys::unshare(UnshareFlags::NEWPID).map_err(failed("unshare"))?;
    let (status, report) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
    if let Some(init) = sys::fork().map_err(failed("fork"))? {
        drop(report);
        guard(init, status);
    }
    drop(status);
    live_with_warden(&report)?;
    if let Some(worker) = sys::fork().map_err(failed("fork"))? {
        reap(worker, report);
    }
    Outcome::reached()
}

/// The kernel ends the init when the warden ends, unless that was before it could be asked to.
fn live_with_warden(report: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut poll = [PollFd::new(report, PollFlags::empty())];
    rustix::event::poll(&mut poll, Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
    if poll[0].revents().contains(PollFlags::ERR) {
        sys::exit_now(1);
    }
    Ok(())
}

/// Waits outside, and ends as the worker ended.
fn guard(init: Pid, status: OwnedFd) -> ! {
    keep_only(&status);
    let mut word = [0; 4];
    let worker = File::from(status).read_exact(&mut word).ok().map(|()| i32::from_ne_bytes(word));
    let init = loop {
        match rustix::process::waitpid(Some(init), WaitOptions::empty()) {
            Err(rustix::io::Errno::INTR) => {}
            ended => break ended.ok().flatten().map(|(_, status)| status),
        }
    };
    match worker.or(init.map(WaitStatus::as_raw)) {
        Some(status) if libc::WIFSIGNALED(status) => {
            let none = Rlimit { current: Some(NO_CORE), maximum: Some(NO_CORE) };
            let _ = rustix::process::setrlimit(Resource::Core, none);
            sys::die_by(libc::WTERMSIG(status))
        }
        Some(status) => sys::exit_now(libc::WEXITSTATUS(status)),
        None => sys::exit_now(1),
    }
}

/// Waits inside for every process without a parent, until the worker ends.
fn reap(worker: Pid, report: OwnedFd) -> ! {
    keep_only(&report);
    loop {
        match rustix::process::waitpid(None, WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == worker => {
                let _ = File::from(report).write_all(&status.as_raw().to_ne_bytes());
                sys::exit_now(0);
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => sys::exit_now(1),
        }
    }
}

/// What a process that only waits can do without. The supervisor has to see the worker's socket
/// close when the worker ends, so nobody else may hold it.
fn keep_only(fd: &OwnedFd) {
    let fd = fd.as_raw_fd() as u32;
    let closed = if fd == 0 { Ok(()) } else { sys::close_range(0, fd - 1) };
    if closed.and_then(|()| sys::close_range(fd + 1, u32::MAX)).and_then(|()| caps::drop_all()).is_err() {
        sys::exit_now(1);
    }
}
