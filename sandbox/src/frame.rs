//! Messages on the socket between a host and a worker: a prefix, then a frame of the contract.

use std::io::{self, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use bytes::{Buf as _, BufMut as _};
use quadriga_abi::{Bytes, Envelope, Error, FrameError, Kind};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendFlags, recv, sendmsg};

/// Bytes before each frame: its length, its flags and its parent, little-endian.
const PREFIX: usize = 16;

/// Bytes that a frame may have beside its payload: ids, names and a trace.
const HEADER: usize = 16 << 10;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// A frame up to here is copied out of the buffer, so that what holds on to it holds little.
const SMALL: usize = 16 << 10;

/// A stream comes with the call.
pub(crate) const INPUT: u32 = 1;

/// The items of the call are wanted while it runs.
pub(crate) const OUTPUT: u32 = 2;

/// The ids of calls that guests make have this bit, those of calls to them have not.
pub(crate) const FROM_GUEST: u64 = 1 << 63;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) envelope: Envelope,
    /// [`INPUT`] and [`OUTPUT`].
    pub(crate) flags: u32,
    /// The call on whose behalf a guest calls; 0 for none.
    pub(crate) parent: u64,
}

/// Why no further frame can be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    #[error("the connection failed: {0}")]
    Connection(#[from] io::Error),
    #[error("a frame of {length} bytes, where {most} are the most")]
    TooLarge { length: usize, most: usize },
    #[error("a frame that cannot be read: {0}")]
    Malformed(#[from] FrameError),
    #[error("the connection ended within a frame")]
    CutOff,
}

impl Frame {
    pub(crate) fn new(kind: Kind, id: u64, payload: impl Into<Bytes>) -> Self {
        Envelope::new(kind, id, payload).into()
    }

    /// The answer to a call, with the kind of a good one.
    pub(crate) fn answer(kind: Kind, id: u64, result: Result<Bytes, Error>) -> Self {
        match result {
            Ok(reply) => Self::new(kind, id, reply),
            Err(error) => Self::new(Kind::Error, id, error.to_bytes()),
        }
    }

    /// All of it but its payload.
    pub(crate) fn head(&self) -> Vec<u8> {
        let mut head = Vec::with_capacity(256);
        head.put_bytes(0, PREFIX);
        self.envelope.encode_header(&mut head);
        let length = head.len() - PREFIX + self.envelope.payload.len();
        let mut prefix = &mut head[..PREFIX];
        // What is longer is refused by who reads, and never sent by who checks its messages.
        prefix.put_u32_le(u32::try_from(length).unwrap_or(u32::MAX));
        prefix.put_u32_le(self.flags);
        prefix.put_u64_le(self.parent);
        head
    }
}

impl From<Envelope> for Frame {
    fn from(envelope: Envelope) -> Self {
        Self { envelope, flags: 0, parent: 0 }
    }
}

/// Writes what the socket takes of two pieces, and says how much that was.
pub(crate) fn write(socket: &OwnedFd, head: &[u8], payload: &[u8], flags: SendFlags) -> io::Result<usize> {
    let pieces = [IoSlice::new(head), IoSlice::new(payload)];
    loop {
        match sendmsg(socket, &pieces, &mut SendAncillaryBuffer::default(), flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(written) => return Ok(written),
        }
    }
}

/// Reads frames, and nothing of one that is too large.
pub(crate) struct Reader {
    socket: Arc<OwnedFd>,
    /// What was read and not yet taken: from `taken` on. Never grows.
    buffer: Vec<u8>,
    taken: usize,
    /// The most bytes that a payload may have.
    pub(crate) most: usize,
}

struct Prefix {
    length: usize,
    flags: u32,
    parent: u64,
}

impl Reader {
    pub(crate) fn new(socket: Arc<OwnedFd>, most: usize) -> Self {
        Self { socket, buffer: Vec::with_capacity(CHUNK), taken: 0, most }
    }

    /// Waits for the next frame; `None` at the end of the connection.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, Broken> {
        while self.buffer.len() - self.taken < PREFIX {
            if !self.fill()? {
                let whole = self.buffer.len() == self.taken;
                return if whole { Ok(None) } else { Err(Broken::CutOff) };
            }
        }
        let prefix = self.prefix()?;
        let bytes =
            if prefix.length <= SMALL { self.small(prefix.length)? } else { self.large(prefix.length)? };
        let envelope = Envelope::decode(bytes)?;
        Ok(Some(Frame { envelope, flags: prefix.flags, parent: prefix.parent }))
    }

    fn prefix(&mut self) -> Result<Prefix, Broken> {
        let mut bytes = &self.buffer[self.taken..];
        let length = bytes.get_u32_le() as usize;
        let most = self.most.saturating_add(HEADER);
        if length > most {
            return Err(Broken::TooLarge { length, most });
        }
        self.taken += PREFIX;
        Ok(Prefix { length, flags: bytes.get_u32_le(), parent: bytes.get_u64_le() })
    }

    fn small(&mut self, length: usize) -> Result<Bytes, Broken> {
        while self.buffer.len() - self.taken < length {
            if !self.fill()? {
                return Err(Broken::CutOff);
            }
        }
        let bytes = Bytes::copy_from_slice(&self.buffer[self.taken..][..length]);
        self.taken += length;
        Ok(bytes)
    }

    /// Reads to where the frame stays, so that it is copied once.
    fn large(&mut self, length: usize) -> Result<Bytes, Broken> {
        let mut bytes = Vec::with_capacity(length);
        let there = &self.buffer[self.taken..];
        let there = &there[..there.len().min(length)];
        bytes.extend_from_slice(there);
        self.taken += there.len();
        while bytes.len() < length {
            if receive(&self.socket, &mut bytes)? == 0 {
                return Err(Broken::CutOff);
            }
        }
        // An allocation may be larger than was asked for, and then takes some of what follows.
        if bytes.len() > length {
            self.buffer.clear();
            self.taken = 0;
            self.buffer.extend_from_slice(&bytes[length..]);
            bytes.truncate(length);
        }
        Ok(bytes.into())
    }

    /// Reads some more; false at the end of the connection.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        receive(&self.socket, &mut self.buffer).map(|read| read > 0)
    }
}

/// Reads into the room that is left.
fn receive(socket: &OwnedFd, bytes: &mut Vec<u8>) -> io::Result<usize> {
    loop {
        match recv(socket, spare_capacity(bytes), RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(0),
            Err(error) => return Err(error.into()),
            Ok((read, _)) => return Ok(read),
        }
    }
}

#[cfg(test)]
mod tests;
