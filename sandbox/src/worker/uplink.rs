//! The host as a worker sees it: where its guest's calls go.

use std::collections::HashMap;
use std::future::Future;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak, mpsc};
use std::task::{Context, Poll};
use std::time::Instant;

use parking_lot::Mutex;
use quadriga_abi::permission::{Access, Permissions};
use quadriga_abi::{Bytes, Envelope, Error, ErrorCode, ExtensionId, Kind, Target};
use quadriga_core::{
    BoxFuture, CallContext, Connection, Counter, Feed, Input, Items, LogLevel, Outcome, Uplink,
};
use rustix::net::SendFlags;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::pool;
use super::server::End;
use crate::claims::{GATHER, Gathered};
use crate::confine::sys;
use crate::frame::{FROM_GUEST, Frame, INPUT, OUTPUT, write};
use crate::shared::Lender;
use crate::streams::{Sink, Streams, Wire};

/// The connection to the host.
pub(super) struct Host {
    this: Weak<Self>,
    socket: Arc<OwnedFd>,
    lender: Lender,
    /// Held while a frame is written. The host always reads, so nobody waits for long.
    writing: Mutex<()>,
    /// The calls of the guest that have no answer yet.
    asked: Mutex<HashMap<u64, oneshot::Sender<Result<Bytes, Error>>>>,
    next: AtomicU64,
    pub(super) streams: Streams,
    /// The calls to the guest that are under way: true for those whose caller has gone.
    pub(super) calls: Mutex<HashMap<u64, Running>>,
    /// What the extension may do at this moment.
    pub(super) permissions: Mutex<Permissions>,
    /// Set before the extension is loaded.
    pub(super) executor: OnceLock<Handle>,
    events: mpsc::Sender<End>,
    /// What the guest tried, for the host.
    gathered: Gathered,
}

/// A call to the guest.
#[derive(Default)]
pub(super) struct Running {
    pub(super) streams: Option<Box<quadriga_core::Streams>>,
    pub(super) deadline: Option<Instant>,
    pub(super) cancelled: bool,
}

impl Host {
    pub(super) fn new(socket: Arc<OwnedFd>, events: mpsc::Sender<End>) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            socket,
            lender: Lender::default(),
            writing: Mutex::new(()),
            asked: Mutex::default(),
            next: AtomicU64::new(FROM_GUEST | 1),
            streams: Streams::default(),
            calls: Mutex::default(),
            permissions: Mutex::default(),
            executor: OnceLock::new(),
            events,
            gathered: Gathered::default(),
        })
    }

    /// Ends the process, in its own time.
    pub(super) fn end(&self, end: End) {
        // The main thread may be on its way already.
        let _ = self.events.send(end);
    }

    /// Takes the answer to a call of the guest. Nobody may wait for it any more.
    pub(super) fn answered(&self, id: u64, result: Result<Bytes, Error>) {
        let asked = self.asked.lock().remove(&id);
        self.streams.finish(id, result.as_ref().map(drop).map_err(Error::clone));
        self.streams.remove(id);
        if let Some(asked) = asked {
            let _ = asked.send(result);
        }
    }

    pub(super) fn wire(&self) -> Weak<dyn Wire> {
        let wire: Weak<Self> = self.this.clone();
        wire
    }

    /// Sends a call of the guest to another extension.
    fn ask_for(
        &self,
        id: u64,
        flags: u32,
        parent: u64,
        extension: &str,
        method: &str,
        arguments: Bytes,
    ) -> Asking {
        let mut envelope = Envelope::new(Kind::HostCall, id, arguments);
        match ExtensionId::new(extension) {
            Ok(extension) => {
                envelope.target = Some(Arc::new(Target { extension, method: method.into() }));
            }
            // No extension has such a name, but it is the host who says so.
            Err(_) => envelope.payload = rmp_serde::to_vec(&(extension, method)).unwrap_or_default().into(),
        }
        self.ask(id, flags, parent, envelope)
    }

    /// Sends what the guest asks of the host, under an id that has been taken for it.
    pub(super) fn ask(&self, id: u64, flags: u32, parent: u64, envelope: Envelope) -> Asking {
        let (answer, answered) = oneshot::channel();
        self.asked.lock().insert(id, answer);
        self.send(&Frame { envelope, flags, parent });
        Asking { host: self.this.clone(), id, answered, done: false }
    }

    /// Tells the host what the guest tried, as far as it was not told.
    pub(super) fn tell(&self) {
        self.gathered.tell(|claims| self.send(&Frame::new(Kind::Event, 0, claims)));
    }

    /// Has the host told soon. Each answer tells it too.
    fn tell_later(&self) {
        if let Some(executor) = self.executor.get()
            && self.gathered.is_due()
        {
            let host = self.this.clone();
            executor.spawn(async move {
                tokio::time::sleep(GATHER).await;
                if let Some(host) = host.upgrade() {
                    host.gathered.told();
                    host.tell();
                }
            });
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }
}

impl Wire for Host {
    fn send(&self, frame: &Frame) {
        let packed = frame.pack(&self.lender);
        if packed.file.is_some() {
            sys::keep_freed_memory();
        }
        let (mut head, mut payload) = (&packed.head[..], &packed.payload[..]);
        let mut file = packed.file.as_deref().map(AsFd::as_fd);
        let _one = self.writing.lock();
        while !(head.is_empty() && payload.is_empty()) {
            let Ok(written) = write(&self.socket, [head, payload], file.take(), SendFlags::empty()) else {
                return self.end(End::Lost);
            };
            let of_head = written.min(head.len());
            head = &head[of_head..];
            payload = &payload[written - of_head..];
        }
    }

    fn waits(&self) {
        pool::step_aside();
    }
}

impl Uplink for Host {
    fn call(&self, parent: &CallContext, extension: &str, method: &str, arguments: Bytes) -> Outcome {
        Outcome::Pending(self.call_detached(parent, extension, method, arguments))
    }

    fn call_detached(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        Box::pin(self.ask_for(self.id(), 0, parent.id, extension, method, arguments))
    }

    fn start(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
        input: Option<Input>,
        stream: bool,
    ) -> Items {
        let id = self.id();
        let mut flags = 0;
        let items = stream.then(|| {
            flags |= OUTPUT;
            let (feed, items) = Feed::new();
            self.streams.receive(self.wire(), id, Sink::Feed(Mutex::new(Some(feed))));
            items
        });
        let pump = input.map(|input| {
            flags |= INPUT;
            self.streams.outgoing(self.wire(), id).pump(input)
        });
        let call = self.ask_for(id, flags, parent.id, extension, method, arguments);
        if let (Some(pump), Some(executor)) = (pump, self.executor.get()) {
            executor.spawn(pump);
        }
        Items::new(items, Box::pin(call), !stream)
    }

    fn log(&self, parent: &CallContext, level: LogLevel, message: &str) {
        let line = rmp_serde::to_vec(&(level as u8, message)).unwrap_or_default();
        self.send(&Frame::new(Kind::Log, parent.id, line));
    }

    fn cancelled(&self, call: u64) -> bool {
        call != 0 && self.calls.lock().get(&call).is_none_or(|running| running.cancelled)
    }

    fn connect(
        &self,
        parent: &CallContext,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, Error>> {
        self.open(parent, host, port)
    }

    /// For the runtime's own sake: it is the layers around this process that hold the extension.
    fn check(&self, call: u64, access: &Access<'_>) -> Result<(), Error> {
        let permissions = self.permissions.lock().clone();
        let allowed = match *access {
            Access::Subprocess(program) => quadriga_core::may_start(&permissions, program),
            _ => permissions.allows(access),
        };
        self.claim(call, access, allowed);
        if allowed {
            return Ok(());
        }
        let error = Error::new(ErrorCode::PermissionDenied, format!("the extension may not {access}"));
        Err(error.with_hint(format!("ask for it in the manifest, [permissions] {}", access.request())))
    }

    fn claim(&self, call: u64, access: &Access<'_>, allowed: bool) {
        self.gathered.check(call, access, allowed);
        self.tell_later();
    }

    fn report(&self, counter: Counter, amount: u64) {
        // The others the host sees itself.
        if counter == Counter::Spawns {
            self.gathered.spawns(amount);
            self.tell_later();
        }
    }
}

/// A call of the guest that is under way. Dropped, it is given up.
pub(super) struct Asking {
    host: Weak<Host>,
    id: u64,
    answered: oneshot::Receiver<Result<Bytes, Error>>,
    done: bool,
}

impl Future for Asking {
    type Output = Result<Bytes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answered = {
            // A thread that blocks on it has no budget to give back.
            let mut answered = std::pin::pin!(tokio::task::unconstrained(&mut self.answered));
            answered.as_mut().poll(context)
        };
        match answered {
            Poll::Ready(answered) => {
                self.done = true;
                let gone = |_| Err(Error::new(ErrorCode::ExtensionStopped, "the host is gone"));
                Poll::Ready(answered.unwrap_or_else(gone))
            }
            Poll::Pending => {
                pool::step_aside();
                Poll::Pending
            }
        }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        if let Some(host) = self.host.upgrade().filter(|_| !self.done) {
            host.asked.lock().remove(&self.id);
            host.streams.remove(self.id);
            host.send(&Frame::new(Kind::Cancel, self.id, Bytes::new()));
        }
    }
}
