//! What a host and its zygotes say to each other. A zygote is a process of the worker program that
//! has done what every worker of a kind begins with, and becomes the next worker by forking.
//!
//! The socket between the two keeps messages apart, which is how the program tells that it is to
//! be a zygote and no worker.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};

use quadriga_abi::{Error, RuntimeKind};
use rustix::cmsg_space;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketType, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Keeps messages apart.
pub(crate) const SOCKET: SocketType = SocketType::SEQPACKET;

/// The most bytes of a message.
const MOST: usize = 16 << 10;

/// The most files of a message: those of an order.
const FILES: usize = 3 + DOORS;

/// The files of a worker's cgroups: one for each controller at most.
pub(crate) const DOORS: usize = 5;

/// What a host asks for.
#[derive(Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first: to be made ready for workers of this kind.
    Warm(RuntimeKind),
    /// A worker. With it come its connection, its standard output and its standard error, and the
    /// files by which it moves itself into its cgroups.
    Start(u64),
}

/// What a zygote says.
#[derive(Serialize, Deserialize)]
pub(crate) enum Report {
    /// It takes orders now.
    Ready,
    /// It cannot be made ready, and ends.
    Unfit(Error),
    /// The worker of an order is there: what it says itself, once it has tried to move into its
    /// cgroups. With it comes a descriptor of the process.
    Started(u64, u32),
    /// There is none.
    Refused(u64, String),
    /// The worker has ended, with this status of wait(2).
    Exited(u64, i32),
}

/// Sends a message. With `DONTWAIT` among the flags it may fail with `WouldBlock`.
pub(crate) fn send<T: Serialize>(
    socket: &OwnedFd,
    message: &T,
    files: &[BorrowedFd<'_>],
    flags: SendFlags,
) -> io::Result<()> {
    let bytes = rmp_serde::to_vec(message).map_err(io::Error::other)?;
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !files.is_empty() {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    loop {
        match sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            sent => return sent.map(drop).map_err(io::Error::from),
        }
    }
}

/// Takes a message with its files; `None` at the end of the connection.
pub(crate) fn receive<T: DeserializeOwned>(
    socket: &OwnedFd,
    flags: RecvFlags,
) -> io::Result<Option<(T, Vec<OwnedFd>)>> {
    let mut bytes = vec![0; MOST];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let length = loop {
        let mut room = [IoSliceMut::new(&mut bytes)];
        match recvmsg(socket, &mut room, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(None),
            received => break received?.bytes,
        }
    };
    let mut files = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(some) = message {
            files.extend(some);
        }
    }
    if length == 0 {
        return Ok(None);
    }
    let message = rmp_serde::from_slice(&bytes[..length]).map_err(io::Error::other)?;
    Ok(Some((message, files)))
}
