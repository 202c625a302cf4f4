//! What the kernel asks the supervisor about before it refuses it to a worker: the system calls that
//! nobody makes by mistake. The answer is always no. So the supervisor knows of each attempt, by its
//! own eyes, whatever the worker has become.
//!
//! Who asks waits for the answer: an attempt takes some microseconds longer, and cannot be made more
//! often than it is answered.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

use libc::c_long;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{sys, syscalls};

/// An attempt to make a system call that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The name of the call, and what tells most about it: `socket (family 17)`.
    pub what: String,
    /// It would have started a program or a process.
    pub is_spawn: bool,
}

/// Whether a worker asks.
pub(crate) enum Asked {
    /// It waits for an answer to the question of this number.
    For(Refusal, u64),
    /// Who asked has gone in the meantime.
    Gone,
    Nothing,
    /// All that could ask have ended.
    End,
}

/// Whether it is what [`Entered::watch`](super::Entered::watch) gives, rather than any file.
pub(crate) fn is_watch(file: &OwnedFd) -> bool {
    let link = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
    link.is_ok_and(|link| link.as_os_str() == "anon_inode:seccomp notify")
}

/// What a worker asks for, if it asks for something. Does not wait.
///
/// # Errors
/// If it cannot be looked at.
pub(crate) fn next(watch: &OwnedFd) -> io::Result<Asked> {
    let mut waiting = [PollFd::new(watch, PollFlags::IN)];
    poll(&mut waiting, Some(&Timespec::default()))?;
    let seen = waiting[0].revents();
    if !seen.contains(PollFlags::IN) {
        return Ok(if seen.is_empty() { Asked::Nothing } else { Asked::End });
    }
    let Ok(question) = sys::take_question(watch) else { return Ok(Asked::Gone) };
    let call = c_long::from(question.data.nr);
    Ok(Asked::For(describe(call, question.data.args), question.id))
}

/// Says no to it.
pub(crate) fn refuse(watch: &OwnedFd, question: u64) {
    // Who asked may have been ended just now.
    let _ = sys::answer_no(watch, question);
}

fn describe(call: c_long, [first, second, ..]: [u64; 6]) -> Refusal {
    let name = syscalls::name(call).map_or_else(|| format!("number {call}"), str::to_owned);
    let apart = call == libc::SYS_clone && super::seccomp::is_apart(first);
    let what = match call {
        libc::SYS_socket => format!("{name} (family {})", first as u32),
        libc::SYS_kill | libc::SYS_tkill => format!("{name} (signal {})", second as u32),
        libc::SYS_ioctl => format!("{name} (request {:#x})", second as u32),
        libc::SYS_clone if apart => format!("{name} (flags {:#x})", first as u32),
        _ => name,
    };
    let is_spawn = match call {
        libc::SYS_execve | libc::SYS_execveat => true,
        libc::SYS_clone => !apart,
        #[cfg(target_arch = "x86_64")]
        libc::SYS_fork | libc::SYS_vfork => true,
        _ => false,
    };
    Refusal { what, is_spawn }
}
