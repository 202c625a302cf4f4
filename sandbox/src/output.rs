//! What a worker prints, rather than logs: lines of the host's log.

use std::io;
use std::os::fd::OwnedFd;

use quadriga_core::{Bridge, CallContext, LogLevel};
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::task::AbortHandle;

use crate::nursery::Pipes;

/// A longer line is cut into pieces.
const LINE: usize = 8 << 10;

/// Reads both pipes of a worker until their end, or until this is dropped.
pub(crate) struct Printed([AbortHandle; 2]);

impl Printed {
    /// Must be called on a tokio runtime.
    pub(crate) fn read(bridge: &Bridge, pipes: Pipes) -> io::Result<Self> {
        let start = |fd: OwnedFd, level| {
            let (pipe, bridge) = (Receiver::from_owned_fd(fd)?, bridge.clone());
            io::Result::Ok(tokio::spawn(read(pipe, bridge, level)).abort_handle())
        };
        Ok(Self([start(pipes.stdout, LogLevel::Info)?, start(pipes.stderr, LogLevel::Warn)?]))
    }
}

impl Drop for Printed {
    fn drop(&mut self) {
        for reading in &self.0 {
            reading.abort();
        }
    }
}

async fn read(mut pipe: Receiver, bridge: Bridge, level: LogLevel) {
    let log = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if !line.is_empty() {
            bridge.log(&CallContext::default(), level, line);
        }
    };
    let mut text = Vec::with_capacity(LINE);
    while let Ok(1..) = pipe.read_buf(&mut text).await {
        let mut rest = &text[..];
        while let Some(end) = rest.iter().position(|&byte| byte == b'\n') {
            log(&rest[..end]);
            rest = &rest[end + 1..];
        }
        if rest.len() >= LINE {
            log(rest);
            rest = &[];
        }
        let kept = text.len() - rest.len();
        text.drain(..kept);
    }
    log(&text);
}
