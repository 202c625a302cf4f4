//! What a process is to its parent, its session and its user.

use std::fs;
use std::io;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal};
use rustix::thread::{Gid, Uid};

use super::report::{Outcome, failed};
use super::{Error, Plan, RunAs};

/// `/proc/self/stat`.
pub(crate) struct Stat(String);

impl Stat {
    /// The field with the number that proc(5) gives it, from 3 on.
    pub(super) fn number(&self, field: usize) -> io::Result<usize> {
        // The second field is a name in parentheses that may hold anything.
        let rest = self.0.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace()
            .nth(field - 3)
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| io::Error::other(format!("/proc/self/stat has no number {field}")))
    }
}

pub(super) fn stat() -> io::Result<Stat> {
    fs::read_to_string("/proc/self/stat").map(Stat)
}

pub(crate) fn threads() -> Result<usize, Error> {
    stat().and_then(|stat| stat.number(20)).map_err(Error::Proc)
}

pub(crate) fn new_session() -> io::Result<Outcome> {
    match rustix::process::setsid() {
        Ok(_) => Outcome::reached(),
        // Started as the leader of a session.
        Err(Errno::PERM) if rustix::process::getsid(None)? == rustix::process::getpid() => Outcome::reached(),
        Err(error) => Err(failed("setsid, in a process that leads a group")(error)),
    }
}

pub(super) fn become_user(user: RunAs) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
    rustix::thread::set_thread_groups(&[gid]).map_err(failed("setgroups"))?;
    rustix::thread::set_thread_res_gid(gid, gid, gid).map_err(failed("setresgid"))?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).map_err(failed("setresuid"))?;
    // Without this, /proc/self would still belong to root.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
    Ok(())
}

pub(super) fn no_new_privileges() -> io::Result<Outcome> {
    rustix::thread::set_no_new_privs(true)?;
    Outcome::reached()
}

/// Has the kernel end this process when its parent ends, which has to be `parent` still.
pub(super) fn die_with(parent: u32) -> io::Result<Outcome> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    let is = rustix::process::getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    if i64::from(is) != i64::from(parent) {
        return Err(io::Error::other(format!("the parent is {is} and not {parent}")));
    }
    Outcome::reached()
}

pub(super) fn change_folder(plan: &Plan) -> io::Result<()> {
    rustix::process::chdir(plan.folder()).map_err(io::Error::from)
}

/// The pid of this process in its own namespace.
pub(super) fn pid() -> u32 {
    Pid::as_raw(Some(rustix::process::getpid())) as u32
}
