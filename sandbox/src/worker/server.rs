//! Runs the calls that the host sends.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};
use std::time::Instant;

use parking_lot::Mutex;
use quadriga_abi::limits::{Limits, Span};
use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{Call, Instance, Outcome, Output, Streams};
use tokio::runtime::Handle;

use super::cpu::Guard;
use super::uplink::{Host, Running};
use crate::frame::{FROM_GUEST, Frame, INPUT};
use crate::streams::{Sink, Wire as _};

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The host asked for it.
    Dismissed,
    /// The host is gone.
    Lost,
}

/// The extension, and the way to its host.
pub(super) struct Server {
    pub(super) host: Arc<Host>,
    pub(super) executor: Handle,
    loaded: OnceLock<Loaded>,
    /// The most bytes of a result.
    most: u64,
    /// Ends calls that use up their processor time, where the engine does not.
    guard: Option<Arc<Guard>>,
}

struct Loaded {
    instance: Arc<dyn Instance>,
    /// The methods' places in the description.
    methods: HashMap<String, (usize, bool)>,
}

/// Something to be done on a thread that may block.
pub(super) struct Work {
    call: Call,
    /// The guest will wait for what others have to read.
    pub(super) waits: bool,
}

impl Server {
    pub(super) fn new(host: Arc<Host>, executor: Handle, most: u64, guard: Option<Arc<Guard>>) -> Self {
        Self { host, executor, loaded: OnceLock::new(), most, guard }
    }

    /// Takes calls for an extension from now on.
    pub(super) fn serve(&self, instance: Arc<dyn Instance>) {
        let methods = instance.describe().methods.iter().enumerate();
        let methods = methods.map(|(place, method)| (method.name.clone(), (place, method.streams))).collect();
        let _ = self.loaded.set(Loaded { instance, methods });
    }

    pub(super) fn instance(&self) -> Option<&Arc<dyn Instance>> {
        self.loaded.get().map(|loaded| &loaded.instance)
    }

    /// Does what a frame asks for, or returns it if that may take its time.
    pub(super) fn take(&self, frame: Frame) -> Option<Work> {
        let envelope = &frame.envelope;
        let id = envelope.id;
        match envelope.kind {
            Kind::Call | Kind::Event | Kind::Hook => return self.prepare(frame),
            Kind::Cancel => self.cancel(id),
            Kind::HostReply => self.host.answered(id, Ok(frame.envelope.payload)),
            Kind::Error if id & FROM_GUEST != 0 => {
                self.host.answered(id, Err(Error::from_bytes(&envelope.payload)));
            }
            Kind::StreamData | Kind::StreamAck | Kind::StreamEnd => {
                // The host keeps to the contract.
                let _ = self.host.streams.take(&frame);
            }
            Kind::Permissions => self.permit(&envelope.payload),
            Kind::Ping => self.show_life(id),
            Kind::Limits => self.limit(&envelope.payload),
            Kind::Shutdown => self.host.end(End::Dismissed),
            _ => {}
        }
        None
    }

    fn prepare(&self, frame: Frame) -> Option<Work> {
        let Frame { envelope, flags, .. } = frame;
        let id = envelope.id;
        let name = envelope.target.as_ref().map_or("", |target| &*target.method);
        let Some(&(method, emits)) = self.loaded.get().and_then(|loaded| loaded.methods.get(name)) else {
            let error = Error::new(ErrorCode::UnknownMethod, format!("there is no method {name:?}"));
            self.host.send(&Frame::answer(Kind::Reply, id, Err(error)));
            return None;
        };
        let output = emits.then(|| Output::remote(self.host.streams.outgoing(self.host.wire(), id)));
        let waits = flags & INPUT != 0;
        let input = waits.then(|| {
            let (feed, input) = quadriga_core::Feed::new();
            self.host.streams.receive(self.host.wire(), id, Sink::Feed(Mutex::new(Some(feed))));
            input
        });
        let streams = (output.is_some() || input.is_some()).then(|| Box::new(Streams { output, input }));
        let running = Running { streams: streams.clone(), deadline: envelope.deadline, cancelled: false };
        self.host.calls.lock().insert(id, running);
        Some(Work { call: Call::remote(method, envelope, streams), waits })
    }

    /// Runs a call until it is over, or waits where that needs no thread.
    pub(super) fn run(self: &Arc<Self>, work: Work) {
        let Some(loaded) = self.loaded.get() else { return };
        let mut answer = Answer { server: Arc::clone(self), id: work.call.envelope.id, given: false };
        let guard = self.guard.as_ref().filter(|guard| guard.begin(answer.id));
        let begin = || loaded.instance.call(work.call);
        let outcome = catch_unwind(AssertUnwindSafe(begin))
            .unwrap_or_else(|_| Error::new(ErrorCode::Internal, "the runtime panicked").into());
        if let Some(guard) = guard {
            guard.end(answer.id);
        }
        match outcome {
            Outcome::Ready(result) => answer.give(result),
            Outcome::Pending(call) => {
                self.executor.spawn(async move {
                    let result = call.await;
                    answer.give(result);
                });
            }
        }
    }

    /// Refuses a call that no thread is left for.
    pub(super) fn refuse(self: &Arc<Self>, work: &Work) {
        let error = Error::new(ErrorCode::Overloaded, "no thread is free for the call");
        Answer { server: Arc::clone(self), id: work.call.envelope.id, given: false }.give(Err(error));
    }

    /// Answers that it is alive once its extension has.
    fn show_life(&self, id: u64) {
        let (host, instance) = (Arc::clone(&self.host), self.instance().cloned());
        self.executor.spawn(async move {
            if let Some(instance) = instance
                && instance.ping().await.is_err()
            {
                return;
            }
            host.send(&Frame::new(Kind::Ping, id, Bytes::new()));
        });
    }

    fn permit(&self, permissions: &[u8]) {
        // The host keeps to the contract.
        let Ok(permissions) = rmp_serde::from_slice(permissions) else { return };
        *self.host.permissions.lock() = permissions;
        if let Some(instance) = self.instance() {
            instance.permissions_changed(&self.host.permissions.lock().clone());
        }
    }

    fn limit(&self, limits: &[u8]) {
        // The host keeps to the contract.
        let Ok(limits) = rmp_serde::from_slice::<Limits>(limits) else { return };
        if let (Some(guard), Some(Span(limit))) = (&self.guard, limits.cpu_time) {
            guard.set(limit);
        }
        if let Some(instance) = self.instance() {
            // What the engine cannot change is held by what is around the process.
            let _ = instance.set_limits(&limits);
        }
    }

    fn cancel(&self, id: u64) {
        let (streams, late) = match self.host.calls.lock().get_mut(&id) {
            Some(running) => {
                running.cancelled = true;
                let late = running.deadline.is_some_and(|deadline| deadline <= Instant::now());
                (running.streams.clone(), late)
            }
            None => return,
        };
        let why = match late {
            true => Error::new(ErrorCode::DeadlineExceeded, "the call took longer than it was given"),
            false => Error::new(ErrorCode::Cancelled, "the caller gave up"),
        };
        if let Some(instance) = self.instance() {
            instance.interrupt(id);
        }
        if let Some(streams) = streams {
            streams.cut(&why);
        }
    }

    fn checked(&self, result: Result<Bytes, Error>) -> Result<Bytes, Error> {
        match result {
            Ok(reply) if reply.len() as u64 > self.most => {
                let message = format!("the result has {} bytes; it may have {}", reply.len(), self.most);
                let error = Error::new(ErrorCode::MessageTooLarge, message);
                Err(error.with_hint("raise [limits] message-size"))
            }
            result => result,
        }
    }
}

/// The duty to answer a call, whatever happens.
struct Answer {
    server: Arc<Server>,
    id: u64,
    given: bool,
}

impl Answer {
    fn give(&mut self, result: Result<Bytes, Error>) {
        self.given = true;
        let host = &self.server.host;
        // The guard may have answered it.
        let Some(running) = host.calls.lock().remove(&self.id) else { return };
        if let Some(streams) = running.streams {
            streams.cut(&Error::new(ErrorCode::Cancelled, "the call is over"));
        }
        host.streams.remove(self.id);
        host.tell();
        host.send(&Frame::answer(Kind::Reply, self.id, self.server.checked(result)));
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if !self.given {
            self.give(Err(Error::new(ErrorCode::Internal, "the runtime panicked")));
        }
    }
}
