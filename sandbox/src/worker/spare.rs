//! A child that its zygote has forked ahead of the order that it is for.
//!
//! It has its engine rehearse a start, which is what a start mostly waits for, and waits. It is told
//! of no extension, holds nothing of any, and is not confined yet: with its order it becomes a worker
//! like one that was forked for it, and goes through all that such a one does.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use quadriga_core::Warm;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, socketpair};
use rustix::process::{Pid, Signal, set_parent_process_death_signal};

use crate::zygote::{Order, SOCKET, receive, send};

/// What it is called while it waits, for whoever looks at the processes of a machine.
const NAME: &CStr = c"quadriga-spare";

/// Such a child, as its zygote holds it.
pub(super) struct Spare {
    pub(super) child: Pid,
    pub(super) socket: OwnedFd,
}

impl Spare {
    /// The zygote's end and the child's.
    pub(super) fn connection() -> io::Result<(OwnedFd, OwnedFd)> {
        Ok(socketpair(AddressFamily::UNIX, SOCKET, SocketFlags::CLOEXEC, None)?)
    }

    /// Gives it an order, which it may take a moment to come to.
    pub(super) fn send(&self, number: u64, files: &[OwnedFd]) -> io::Result<()> {
        let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
        send(&self.socket, &Order::Start(number), &files, SendFlags::DONTWAIT)
    }
}

/// Has this process be called what a spare is, so that its child is from the start. Returns what it
/// was called.
pub(super) fn rename() -> io::Result<CString> {
    let name = rustix::thread::name()?;
    rustix::thread::set_name(NAME)?;
    Ok(name)
}

/// Is such a child, until its order comes, and is called `name` from then on. `None` if its zygote is
/// gone.
pub(super) fn wait(
    orders: &OwnedFd,
    name: &CStr,
    engine: Option<&mut (dyn Warm + 'static)>,
) -> io::Result<Option<(u64, Vec<OwnedFd>)>> {
    set_parent_process_death_signal(Some(Signal::KILL))?;
    if let Some(engine) = engine {
        engine.rehearse();
    }
    let order = receive(orders, RecvFlags::empty())?;
    rustix::thread::set_name(name)?;
    match order {
        Some((Order::Start(number), files)) => Ok(Some((number, files))),
        _ => Ok(None),
    }
}
