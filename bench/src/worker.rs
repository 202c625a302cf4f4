//! A worker process against the least that a process can cost: the same bytes there and back
//! through a Unix socket.

use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use quadriga::abi::{Bytes, Isolation};
use quadriga::{Dispatcher, Grant, LoadOptions, Policy};

/// The argument with which this program sends back what it reads, in pieces of so many bytes.
pub(crate) const ECHO: &str = "echo";

/// A process that sends back what it gets.
pub(crate) struct Echo {
    socket: Option<UnixStream>,
    child: Child,
    message: Vec<u8>,
    back: Vec<u8>,
}

impl Echo {
    pub(crate) fn start(size: usize) -> Result<Self> {
        let (socket, theirs) = UnixStream::pair()?;
        let child = Command::new(std::env::current_exe()?)
            .args([ECHO, &size.to_string()])
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .spawn()?;
        Ok(Self { socket: Some(socket), child, message: vec![7; size], back: vec![0; size] })
    }

    pub(crate) fn there_and_back(&mut self) {
        let sent = self
            .socket
            .as_mut()
            .map(|socket| socket.write_all(&self.message).and_then(|()| socket.read_exact(&mut self.back)));
        assert!(matches!(sent, Some(Ok(()))) && self.back == self.message, "the process does not echo");
    }
}

impl Drop for Echo {
    fn drop(&mut self) {
        // The end of its input is the end of the process.
        self.socket = None;
        let _ = self.child.wait();
    }
}

/// The body of such a process.
pub(crate) fn echo(size: &str) -> Result<()> {
    let mut socket = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    let mut message = vec![0; size.parse().context("the size of a message")?];
    while socket.read_exact(&mut message).is_ok() {
        socket.write_all(&message)?;
    }
    Ok(())
}

/// A host whose worker program is this one, with the native relay in a worker.
pub(crate) fn host(guests: &std::path::Path) -> Result<Dispatcher> {
    let policy = Policy { minimum_isolation: Isolation::Process, ..Policy::default() };
    let host = quadriga::builder_with_worker(std::env::current_exe()?).policy(policy).build()?;
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    quadriga::block_on(host.load(guests.join("native"), options)).context("loading native in a worker")?;
    Ok(host)
}

/// Loads an extension into a worker process, again and again.
pub(crate) struct Starts {
    host: Dispatcher,
    folder: std::path::PathBuf,
}

impl Starts {
    pub(crate) fn new(folder: std::path::PathBuf) -> Result<Self> {
        let policy = Policy { minimum_isolation: Isolation::Process, ..Policy::default() };
        let host = quadriga::builder_with_worker(std::env::current_exe()?).policy(policy).build()?;
        Ok(Self { host, folder })
    }

    /// One load, which begins with the start of a worker and ends with its hello, and the unload.
    pub(crate) fn one(&self) {
        let options = LoadOptions {
            grant: Grant::Requested,
            isolation: Some(Isolation::Process),
            ..LoadOptions::default()
        };
        let there_and_back = async {
            let id = self.host.load(self.folder.clone(), options).await?;
            self.host.unload(id.as_str()).await
        };
        let done = quadriga::block_on(there_and_back);
        assert!(done.is_ok(), "{}: {done:?}", self.folder.display());
    }
}

/// One argument that takes as many bytes as the socket's message.
pub(crate) fn arguments(size: usize) -> Result<Bytes> {
    let mut bytes = vec![0x91];
    match u8::try_from(size - 3) {
        Ok(length) => bytes.extend([0xc4, length]),
        Err(_) => {
            bytes.push(0xc6);
            bytes.extend(u32::try_from(size - 6)?.to_be_bytes());
        }
    }
    bytes.resize(size, 7);
    Ok(bytes.into())
}
