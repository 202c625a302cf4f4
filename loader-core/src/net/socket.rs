//! One open connection: counted, cut when its permission goes, closed when nothing moves.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use quadriga_abi::{Error, ErrorCode};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::Place;
use crate::ward::Counter;

/// What the extension's record of open connections and their user share.
pub(super) struct Wire {
    pub(super) host: String,
    pub(super) port: u16,
    stream: TcpStream,
    /// Why the host closed it.
    cut: OnceLock<Error>,
    opened: Instant,
    /// Milliseconds after it was opened at which something moved last.
    moved: AtomicU64,
}

/// The user's end.
pub(super) struct Socket {
    wire: Arc<Wire>,
    place: Place,
    /// How long nothing may move.
    patience: Duration,
    idle: Pin<Box<Sleep>>,
}

impl Wire {
    pub(super) fn new(host: String, port: u16, stream: TcpStream) -> Self {
        let (cut, opened, moved) = (OnceLock::new(), Instant::now(), AtomicU64::new(0));
        Self { host, port, stream, cut, opened, moved }
    }

    /// Closes it under its user, who is told why.
    pub(super) fn cut(&self, why: Error) {
        let _ = self.cut.set(why);
        // Wakes who waits for it. It may be closed already.
        let _ = SockRef::from(&self.stream).shutdown(std::net::Shutdown::Both);
    }

    fn moved(&self) {
        let now = u64::try_from(self.opened.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.moved.store(now, Relaxed);
    }

    fn check(&self) -> io::Result<()> {
        match self.cut.get() {
            Some(why) => Err(super::io_error(why.clone())),
            None => Ok(()),
        }
    }
}

impl Socket {
    /// To be made in the context of the executor that drives it.
    pub(super) fn new(wire: Arc<Wire>, place: Place, patience: Duration) -> Self {
        Self { wire, place, patience, idle: Box::pin(tokio::time::sleep(patience)) }
    }

    /// Closes it if it has been idle for too long; otherwise the task is woken when it may have been.
    fn look_idle(&mut self, context: &mut Context<'_>) {
        while self.idle.as_mut().poll(context).is_ready() {
            let moved = Duration::from_millis(self.wire.moved.load(Relaxed));
            let until = self.wire.opened + moved + self.patience;
            if until <= Instant::now() {
                let message = format!("nothing moved on the connection for {} ms", self.patience.as_millis());
                return self.wire.cut(Error::new(ErrorCode::ConnectionFailed, message));
            }
            self.idle.as_mut().reset(until.into());
        }
    }

    /// Does something with the stream as soon as it can be done.
    fn drive<T>(
        &mut self,
        context: &mut Context<'_>,
        ready: impl Fn(&TcpStream, &mut Context<'_>) -> Poll<io::Result<()>>,
        mut work: impl FnMut(&TcpStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            self.look_idle(context);
            self.wire.check()?;
            ready!(ready(&self.wire.stream, context))?;
            match work(&self.wire.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    // What ends in this moment ends because of that.
                    self.wire.check()?;
                    self.wire.moved();
                    return Poll::Ready(done);
                }
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let room = buffer.initialize_unfilled();
        let read = self.drive(context, TcpStream::poll_read_ready, |stream| stream.try_read(room));
        let read = ready!(read)?;
        self.place.count(Counter::Ingress, read);
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = self.drive(context, TcpStream::poll_write_ready, |stream| stream.try_write(bytes));
        let written = ready!(written)?;
        self.place.count(Counter::Egress, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match SockRef::from(&self.wire.stream).shutdown(std::net::Shutdown::Write) {
            // The other side was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            done => Poll::Ready(done),
        }
    }
}
