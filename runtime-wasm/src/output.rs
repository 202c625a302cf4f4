//! What guests print: lines of the host's log.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use parking_lot::Mutex;
use quadriga_core::{CallContext, LogLevel};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamResult};

use crate::limits::Hub;

/// A longer line is cut into pieces.
const LINE: usize = 8 << 10;

/// How much of what a guest printed to stderr goes into the error when it traps.
const TAIL: usize = 4 << 10;

/// Where one instance prints to.
pub(crate) struct Output {
    hub: Arc<Hub>,
    /// The call that prints.
    call: Mutex<CallContext>,
    /// Whether anything was printed, so that calls that print nothing need no lock.
    printed: AtomicBool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    tail: String,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Stream {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) fn new(hub: &Arc<Hub>) -> Arc<Self> {
        Arc::new(Self {
            hub: Arc::clone(hub),
            call: Mutex::default(),
            printed: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// What is printed from now on belongs to another call.
    pub(crate) fn begin(&self, call: CallContext) {
        *self.call.lock() = call;
    }

    /// Logs what stands there without a line's end, and returns the last of stderr.
    pub(crate) fn finish(&self) -> String {
        // Looked at first: it mostly stays as it is.
        if !self.printed.load(Ordering::Relaxed) {
            return String::new();
        }
        self.printed.store(false, Ordering::Relaxed);
        let mut state = self.state.lock();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let line = std::mem::take(state.pending(stream));
            self.line(&mut state, stream, &line);
        }
        std::mem::take(&mut state.tail)
    }

    fn write(&self, stream: Stream, mut bytes: &[u8]) {
        self.printed.store(true, Ordering::Relaxed);
        let mut state = self.state.lock();
        while let Some(end) = bytes.iter().position(|&byte| byte == b'\n') {
            let mut line = std::mem::take(state.pending(stream));
            line.extend_from_slice(&bytes[..end]);
            self.line(&mut state, stream, &line);
            bytes = &bytes[end + 1..];
        }
        state.pending(stream).extend_from_slice(bytes);
        while state.pending(stream).len() >= LINE {
            let rest = state.pending(stream).split_off(LINE);
            let line = std::mem::replace(state.pending(stream), rest);
            self.line(&mut state, stream, &line);
        }
    }

    fn line(&self, state: &mut State, stream: Stream, line: &[u8]) {
        let line = String::from_utf8_lossy(line);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        let level = match stream {
            Stream::Stdout => LogLevel::Info,
            Stream::Stderr => LogLevel::Warn,
        };
        let context = *self.call.lock();
        self.hub.bridge.log(&context, level, line);
        if let Stream::Stderr = stream {
            state.tail.push_str(line);
            state.tail.push('\n');
            if let Some(over) = state.tail.len().checked_sub(TAIL) {
                let start = state.tail.ceil_char_boundary(over);
                state.tail.drain(..start);
            }
        }
    }
}

impl State {
    fn pending(&mut self, stream: Stream) -> &mut Vec<u8> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }
}

/// One end of an [`Output`].
#[derive(Clone)]
pub(crate) struct Pipe {
    output: Arc<Output>,
    stream: Stream,
}

impl Pipe {
    pub(crate) fn new(output: &Arc<Output>, stream: Stream) -> Self {
        Self { output: Arc::clone(output), stream }
    }
}

impl IsTerminal for Pipe {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for Pipe {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for Pipe {
    async fn ready(&mut self) {}
}

impl OutputStream for Pipe {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.output.write(self.stream, &bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(64 << 10)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        self.output.write(self.stream, bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
