//! Limits of each process.

use std::fs;
use std::io;

use rustix::process::{Resource, Rlimit};

use super::report::{Outcome, failed};
use super::{ProcessLimits, sys};

/// Too short for a core in a file, and what tells the kernel to give none to a program either, which it
/// would with a limit of 0.
pub(super) const NO_CORE: u64 = 1;

pub(super) fn set(limits: &ProcessLimits) -> io::Result<Outcome> {
    // One second more, so that the signal which says why comes first.
    let cpu = limits.cpu_seconds.map(|seconds| (seconds, seconds.saturating_add(1)));
    let same = |limit: Option<u64>| limit.map(|limit| (limit, limit));
    let all = [
        ("core", Resource::Core, Some((NO_CORE, NO_CORE))),
        ("open files", Resource::Nofile, same(limits.open_files)),
        ("processes", Resource::Nproc, same(limits.processes)),
        ("file size", Resource::Fsize, same(limits.file_size)),
        ("processor time", Resource::Cpu, cpu),
        ("data", Resource::Data, same(limits.data)),
        ("address space", Resource::As, same(limits.address_space)),
    ];
    for (name, resource, limit) in all {
        if let Some((soft, hard)) = limit {
            lower(resource, soft, hard).map_err(failed(name))?;
        }
    }
    if limits.file_size.is_some() {
        // So that the write fails and not the process.
        sys::ignore_signal(libc::SIGXFSZ);
    }
    Outcome::reached()
}

/// Sets a limit, which stays where it is lower already.
fn lower(resource: Resource, soft: u64, hard: u64) -> rustix::io::Result<()> {
    let ceiling = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let limit = Rlimit { current: Some(soft.min(ceiling)), maximum: Some(hard.min(ceiling)) };
    rustix::process::setrlimit(resource, limit)
}

/// The kernel doesn't count the processes of the machine's root. To be asked while `/proc` is there.
pub(super) fn check(limits: &ProcessLimits) -> io::Result<()> {
    if limits.processes.is_some() && is_root_outside() {
        return Err(io::Error::other("a limit of processes doesn't bind root: use the pids cgroup"));
    }
    Ok(())
}

/// Whether this process is root outside of its user namespace too.
fn is_root_outside() -> bool {
    let uid = rustix::process::getuid().as_raw();
    let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let outside = map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().filter_map(|number| number.parse::<u32>().ok());
        let (inside, outside, count) = (numbers.next()?, numbers.next()?, numbers.next()?);
        (inside..inside.saturating_add(count)).contains(&uid).then(|| outside + (uid - inside))
    });
    outside.unwrap_or(uid) == 0
}
