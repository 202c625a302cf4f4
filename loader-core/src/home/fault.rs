//! Places at which a test kills the process, and what it need not wait for.

#[cfg(test)]
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};

/// Whether files are on the disk before a row names them. This crate's own tests do not wait for that: a
/// killed process loses nothing that it had written.
pub(crate) const SYNC: bool = cfg!(not(test));

/// How many places are still passed; 0 for all of them.
#[cfg(test)]
static LEFT: AtomicU32 = AtomicU32::new(0);

/// Has the process killed at the place that is passed as the `count`th from now on.
#[cfg(test)]
pub(crate) fn die_at(count: u32) {
    LEFT.store(count, SeqCst);
}

/// Such a place. Nothing outside of this crate's own tests.
#[cfg(not(test))]
#[inline]
pub(crate) fn point(_: &str) {}

#[cfg(test)]
pub(crate) fn point(name: &str) {
    let left = LEFT.load(SeqCst);
    if left == 0 {
        return;
    }
    LEFT.store(left - 1, SeqCst);
    if left == 1 {
        eprintln!("killed {name}");
        let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        unreachable!("it goes on after {killed:?}");
    }
}
