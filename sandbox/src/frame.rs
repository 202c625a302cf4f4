//! Messages on the socket between a host and a worker: a prefix, then a frame of the contract.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use bytes::{Buf as _, BufMut as _};
use quadriga_abi::{Bytes, Envelope, Error, FrameError, Kind};
use rustix::cmsg_space;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};

use crate::shared::{Borrower, Lender, Lent};
use crate::spin::Spin;

/// Bytes before each frame: its length, its flags and its parent, little-endian.
const PREFIX: usize = 16;

/// Bytes that a frame may have beside its payload: ids, names and a trace.
const HEADER: usize = 16 << 10;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

/// How many bytes of a connection go into a frame: less than what goes by shared memory.
pub(crate) const CHUNK_OF_CONNECTION: usize = 16 << 10;

/// How many files are taken before their frames are looked at.
const FILES: usize = 16;

/// A stream comes with the call.
pub(crate) const INPUT: u32 = 1;

/// The items of the call are wanted while it runs.
pub(crate) const OUTPUT: u32 = 2;

/// The payload lies in shared memory, and is a reference to it. Never seen outside of here and of
/// who sends.
pub(crate) const LENT: u32 = 4;

/// A connection of the guest to a host of the network: the payload says to which.
pub(crate) const NET: u32 = 8;

/// The worker's listening socket comes with it, and nothing else. Never seen outside of here and of
/// who sends.
pub(crate) const LISTENER: u32 = 16;

/// What the kernel asks about the worker comes with it, and nothing else. Never seen outside of here
/// and of who sends.
pub(crate) const WATCH: u32 = 32;

/// What a process is to do is to become a program; what that reads comes with it. Never seen outside of
/// here and of who starts programs.
pub(crate) const PROGRAM: u32 = 64;

/// The ids of calls that guests make have this bit, those of calls to them have not.
pub(crate) const FROM_GUEST: u64 = 1 << 63;

/// One message.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Frame {
    pub(crate) envelope: Envelope,
    /// [`INPUT`], [`OUTPUT`] and [`NET`].
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
    #[error("a payload in shared memory that cannot be had: {0}")]
    Shared(String),
    #[error("{0} files, where {FILES} are the most that wait for their frames")]
    Files(usize),
    #[error("a file to serve that nobody waits for, or none")]
    Handed,
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

/// A frame ready to be written.
pub(crate) struct Packed {
    pub(crate) head: Vec<u8>,
    pub(crate) payload: Bytes,
    /// Goes with its first byte.
    pub(crate) file: Option<Arc<OwnedFd>>,
}

impl Frame {
    /// Lays a large payload down, and encodes the rest.
    pub(crate) fn pack(&self, lender: &Lender) -> Packed {
        let Some(Lent { reference, file }) = lender.lend(&self.envelope.payload) else {
            return Packed { head: self.head(), payload: self.envelope.payload.clone(), file: None };
        };
        let envelope = Envelope { payload: reference, ..self.envelope.clone() };
        let lent = Self { envelope, flags: self.flags | LENT, parent: self.parent };
        Packed { head: lent.head(), payload: lent.envelope.payload, file }
    }
}

impl From<Envelope> for Frame {
    fn from(envelope: Envelope) -> Self {
        Self { envelope, flags: 0, parent: 0 }
    }
}

/// Writes what the socket takes of two pieces, and says how much that was. A file goes with the first
/// byte.
pub(crate) fn write(
    socket: &OwnedFd,
    pieces: [&[u8]; 2],
    file: Option<BorrowedFd<'_>>,
    flags: SendFlags,
) -> io::Result<usize> {
    let pieces = pieces.map(IoSlice::new);
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let files = file.map(|file| [file]);
    if let Some(files) = &files {
        control.push(SendAncillaryMessage::ScmRights(files));
    }
    loop {
        match sendmsg(socket, &pieces, &mut control, flags | SendFlags::NOSIGNAL) {
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
            Ok(written) => return Ok(written),
        }
    }
}

/// Reads frames, and nothing of one that is too large.
pub(crate) struct Reader {
    socket: Arc<OwnedFd>,
    buffer: Box<[u8]>,
    /// What of the buffer was read and not yet taken.
    unread: Range<usize>,
    /// The frame whose prefix has been taken, as far as it is there.
    begun: Option<(Prefix, Vec<u8>)>,
    /// Where large payloads are.
    borrower: Borrower,
    /// Whether to look before sleeping.
    spin: Spin,
    /// Takes a listening socket, if one is awaited.
    pub(crate) listener: Option<TakeFile>,
    /// Takes what the kernel asks at, if that is awaited.
    pub(crate) watch: Option<TakeFile>,
    /// The most bytes that a payload may have.
    pub(crate) most: usize,
}

/// What a file that a worker hands over is given to.
pub(crate) type TakeFile = Box<dyn FnOnce(OwnedFd) + Send>;

/// What a look at the connection gives.
pub(crate) enum Next {
    Frame(Frame),
    /// Nothing more for now; never where one waits.
    Nothing,
    /// The end of the connection.
    End,
}

#[derive(Clone, Copy)]
struct Prefix {
    length: usize,
    flags: u32,
    parent: u64,
}

impl Reader {
    pub(crate) fn new(socket: Arc<OwnedFd>, most: usize) -> Self {
        let buffer = vec![0; CHUNK].into_boxed_slice();
        Self {
            socket,
            buffer,
            unread: 0..0,
            begun: None,
            borrower: Borrower::default(),
            spin: Spin::default(),
            listener: None,
            watch: None,
            most,
        }
    }

    /// Reads large payloads where they lie: only for who trusts the other side.
    pub(crate) fn trusting(socket: Arc<OwnedFd>, most: usize) -> Self {
        Self { borrower: Borrower::trusting(), ..Self::new(socket, most) }
    }

    /// Takes the first file that came with a frame and that no payload is in.
    pub(crate) fn take_file(&mut self) -> Option<OwnedFd> {
        self.borrower.files.pop_front()
    }

    /// Waits for the next frame.
    pub(crate) fn next(&mut self) -> Result<Next, Broken> {
        self.read(RecvFlags::empty(), false, |_| Ok(()))
    }

    /// The same, where it may come at once: looks for it before it sleeps.
    pub(crate) fn next_soon(&mut self) -> Result<Next, Broken> {
        self.read(RecvFlags::empty(), true, |_| Ok(()))
    }

    /// Waits for the next frame no longer than that, and looks for it before it sleeps.
    pub(crate) fn next_until(&mut self, until: Instant) -> Result<Next, Broken> {
        self.read(RecvFlags::DONTWAIT, true, |socket| {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).unwrap_or_default();
            poll(&mut [PollFd::new(socket, PollFlags::IN)], Some(&left)).map(drop)
        })
    }

    fn read(
        &mut self,
        flags: RecvFlags,
        mut soon: bool,
        wait: impl Fn(&OwnedFd) -> Result<(), Errno>,
    ) -> Result<Next, Broken> {
        loop {
            if let Some(frame) = self.whole()? {
                return Ok(Next::Frame(frame));
            }
            let read = match if std::mem::take(&mut soon) { self.look() } else { None } {
                Some(read) => read,
                None => {
                    wait(&self.socket).map_err(io::Error::from)?;
                    self.fill(flags)
                }
            };
            // Nobody sends more than one with a frame, and few at all.
            if self.borrower.files.len() > FILES {
                return Err(Broken::Files(self.borrower.files.len()));
            }
            match read {
                Ok(0) if self.begun.is_none() && self.unread.is_empty() => return Ok(Next::End),
                Ok(0) => return Err(Broken::CutOff),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Next::Nothing),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads what comes within a moment, if that is likely.
    fn look(&mut self) -> Option<io::Result<usize>> {
        let mut spin = std::mem::take(&mut self.spin);
        let read = spin.look(|| match self.fill(RecvFlags::DONTWAIT) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            read => Some(read),
        });
        self.spin = spin;
        read
    }

    /// The next frame, if all of it has been read.
    fn whole(&mut self) -> Result<Option<Frame>, Broken> {
        let (prefix, mut bytes) = match self.begun.take() {
            Some(begun) => begun,
            None if self.unread.len() < PREFIX => return Ok(None),
            None => {
                let prefix = self.prefix()?;
                (prefix, Vec::with_capacity(prefix.length))
            }
        };
        let there = self.unread.len().min(prefix.length - bytes.len());
        bytes.extend_from_slice(&self.buffer[self.unread.start..][..there]);
        self.unread.start += there;
        if bytes.len() < prefix.length {
            self.begun = Some((prefix, bytes));
            return Ok(None);
        }
        let mut envelope = Envelope::decode(bytes.into())?;
        let awaited = match prefix.flags & (LISTENER | WATCH) {
            0 => None,
            LISTENER => Some(self.listener.take()),
            _ => Some(self.watch.take()),
        };
        if let Some(awaited) = awaited {
            let (take, file) = awaited.zip(self.borrower.files.pop_front()).ok_or(Broken::Handed)?;
            take(file);
            return self.whole();
        }
        if prefix.flags & LENT != 0 {
            envelope.payload = self.borrower.take(&envelope.payload, self.most).map_err(Broken::Shared)?;
        }
        Ok(Some(Frame { envelope, flags: prefix.flags & !LENT, parent: prefix.parent }))
    }

    fn prefix(&mut self) -> Result<Prefix, Broken> {
        let mut bytes = &self.buffer[self.unread.clone()];
        let length = bytes.get_u32_le() as usize;
        let most = self.most.saturating_add(HEADER);
        if length > most {
            return Err(Broken::TooLarge { length, most });
        }
        self.unread.start += PREFIX;
        Ok(Prefix { length, flags: bytes.get_u32_le(), parent: bytes.get_u64_le() })
    }

    /// Reads some more, and says how much.
    fn fill(&mut self, flags: RecvFlags) -> io::Result<usize> {
        self.buffer.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(FILES + 1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            let mut room = [IoSliceMut::new(&mut self.buffer[self.unread.end..])];
            match recvmsg(&self.socket, &mut room, &mut control, flags | RecvFlags::CMSG_CLOEXEC) {
                Err(Errno::INTR) => {}
                Err(Errno::CONNRESET) => return Ok(0),
                Err(error) => return Err(error.into()),
                Ok(received) => break received.bytes,
            }
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(files) = message {
                self.borrower.files.extend(files);
            }
        }
        self.unread.end += read;
        Ok(read)
    }
}

/// The payloads of the frames in some bytes, up to what is none.
pub(crate) fn all(words: &[u8], most: usize) -> Vec<Bytes> {
    let pair = rustix::net::socketpair(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    );
    let Ok((ours, theirs)) = pair else { return Vec::new() };
    let mut reader = Reader::new(Arc::new(theirs), most);
    let mut payloads = Vec::new();
    // In pieces that the socket takes without a reader.
    for piece in words.chunks(CHUNK) {
        if !write(&ours, [piece, &[]], None, SendFlags::empty()).is_ok_and(|sent| sent == piece.len()) {
            break;
        }
        while let Ok(Next::Frame(frame)) = reader.next_until(Instant::now()) {
            payloads.push(frame.envelope.payload);
        }
    }
    payloads
}

#[cfg(test)]
mod tests;
