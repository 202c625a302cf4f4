//! The descriptors that a worker was started with.

use std::io;
use std::os::fd::{AsRawFd, IntoRawFd};

use rustix::fs::{Mode, OFlags};

use super::report::{Outcome, failed};
use super::sys;

/// Closes all descriptors but these, and puts `/dev/null` in the place of missing standard ones, so
/// that no other file takes it.
pub(crate) fn close_all_but(keep: &[i32]) -> io::Result<Outcome> {
    let mut keep: Vec<u32> = keep.iter().filter_map(|fd| u32::try_from(*fd).ok()).collect();
    keep.sort_unstable();
    keep.dedup();
    let mut first = 0;
    for fd in keep {
        if fd > first {
            sys::close_range(first, fd - 1)?;
        }
        first = fd + 1;
    }
    sys::close_range(first, u32::MAX)?;
    loop {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(failed("/dev/null"))?;
        if null.as_raw_fd() > 2 {
            return Outcome::reached();
        }
        // Stays open as one of the standard descriptors, for programs that are started too.
        rustix::io::fcntl_setfd(&null, rustix::io::FdFlags::empty())?;
        let _ = null.into_raw_fd();
    }
}
