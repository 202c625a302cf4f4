//! The host's end of the connection to a worker.

mod answer;
mod connect;
mod cpu;
mod freeze;
mod host_call;
mod outbox;
mod read;

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use quadriga_abi::limits::Limits;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{BoxFuture, Bridge, Call, CallContext, Outcome};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::AbortHandle;

use crate::claims::Allowance;
use crate::confine::Cgroup;
use crate::frame::{Frame, INPUT, Reader};
use crate::job::Greeting;
use crate::nursery::Child;
use crate::proxy;
use crate::sentry;
use crate::streams::{Sink, Streams, Wire};
use answer::Answer;
use cpu::{Backstop, Timed};
use outbox::Outbox;
use read::Reading;

/// How long a call may go on after its end was asked for, before its worker is ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// A worker, its calls and those of its extension.
pub(crate) struct Link {
    /// The host as the extension sees it: it checks the permissions.
    bridge: Bridge,
    handle: Handle,
    child: Arc<Child>,
    cgroup: Option<Arc<Cgroup>>,
    outbox: Outbox,
    reading: Reading,
    /// What the worker has not answered, also where nobody waits any more.
    calls: Mutex<HashMap<u64, Asked>>,
    /// Calls that it was chosen for and does not know yet.
    pub(crate) coming: AtomicUsize,
    /// The calls of the extension to others, each with what ends it once it is on its way.
    host_calls: Mutex<HashMap<u64, Option<AbortHandle>>>,
    streams: Streams,
    /// What it may have recorded of what it says that its guest tried.
    allowance: Allowance,
    backstop: Backstop,
    /// Its engine itself ends calls that use up their processor time.
    ends_busy_calls: bool,
    /// Waits for the hello.
    loading: Mutex<Option<oneshot::Sender<Result<Greeting, Error>>>>,
    /// It was told to hand over a socket, on which to serve its way to the network.
    pub(crate) proxied: AtomicBool,
    /// Serves that.
    proxy: Mutex<Option<AbortHandle>>,
    /// Says no to what the kernel asks about the worker.
    sentry: Mutex<Option<AbortHandle>>,
    /// That is there.
    guarded: AtomicBool,
    /// Why it is gone.
    fate: OnceLock<Error>,
    /// The fate, once the process is gone.
    over: watch::Sender<Option<Error>>,
    /// The host has asked it to end.
    dismissed: AtomicBool,
    /// It stands still.
    frozen: watch::Sender<bool>,
    /// By its cgroup.
    in_freezer: AtomicBool,
    /// Who waits for a sign of life.
    pings: Mutex<HashMap<u64, oneshot::Sender<()>>>,
}

/// The hello of a worker, or why there is none.
pub(crate) type Loaded = oneshot::Receiver<Result<Greeting, Error>>;

/// A call to the worker.
struct Asked {
    reply: oneshot::Sender<Result<Bytes, Error>>,
    context: CallContext,
    timed: Timed,
    /// Sends the stream among its arguments.
    pump: Option<AbortHandle>,
    /// The item that its caller did not take.
    refused: Option<Error>,
}

impl Link {
    /// Reads what the worker sends, on a thread of its own. The receiver gets its hello.
    pub(crate) fn start(
        bridge: Bridge,
        child: Arc<Child>,
        cgroup: Option<Arc<Cgroup>>,
        socket: Arc<OwnedFd>,
        most: usize,
        ends_busy_calls: bool,
    ) -> Result<(Arc<Self>, Loaded), Error> {
        let (loading, loaded) = oneshot::channel();
        let name = format!("worker {}", bridge.extension());
        let link = Arc::new(Self {
            bridge,
            handle: Handle::current(),
            child,
            cgroup,
            outbox: Outbox::new(Arc::clone(&socket)),
            reading: Reading::new(Reader::new(socket, most)),
            calls: Mutex::default(),
            coming: AtomicUsize::new(0),
            host_calls: Mutex::default(),
            streams: Streams::default(),
            allowance: Allowance::default(),
            backstop: Backstop::default(),
            ends_busy_calls,
            loading: Mutex::new(Some(loading)),
            proxied: AtomicBool::new(false),
            proxy: Mutex::default(),
            sentry: Mutex::default(),
            guarded: AtomicBool::new(false),
            fate: OnceLock::new(),
            over: watch::Sender::new(None),
            dismissed: AtomicBool::new(false),
            frozen: watch::Sender::new(false),
            in_freezer: AtomicBool::new(false),
            pings: Mutex::default(),
        });
        let [serving, watching] = [Arc::downgrade(&link), Arc::downgrade(&link)];
        let mut reader = link.reading.reader.lock();
        reader.listener = Some(Box::new(move |listener| {
            if let Some(link) = serving.upgrade() {
                link.serve_network(listener);
            }
        }));
        reader.watch = Some(Box::new(move |watch| {
            if let Some(link) = watching.upgrade() {
                link.watch(watch);
            }
        }));
        drop(reader);
        let reading = Arc::clone(&link);
        std::thread::Builder::new().name(name).spawn(move || reading.read()).map_err(|error| {
            link.child.kill();
            Error::new(ErrorCode::LoadFailed, format!("no thread for the worker: {error}"))
        })?;
        Ok((link, loaded))
    }

    pub(crate) fn call(self: &Arc<Self>, mut call: Call) -> Outcome {
        let (id, context) = (call.envelope.id, call.context());
        let mut flags = 0;
        let mut pump = None;
        if let Some(streams) = call.streams.take() {
            if let Some(output) = streams.output {
                self.streams.receive(self.wire(), id, Sink::Output(output));
            }
            if let Some(input) = streams.input {
                flags = INPUT;
                let outgoing = self.streams.outgoing(self.wire(), id);
                pump = Some((outgoing, input));
            }
        }
        let (reply, answered) = oneshot::channel();
        let asked = Asked { reply, context, timed: self.backstop.begin(), pump: None, refused: None };
        self.calls.lock().insert(id, asked);
        // What it is told of comes after this, or it has answered for this call already.
        if let Some(fate) = self.fate.get() {
            self.forget(id);
            return fate.clone().into();
        }
        let sent = call.envelope.payload.len();
        self.send(&Frame { envelope: call.envelope, flags, parent: 0 });
        if let Some((outgoing, input)) = pump {
            let pump = self.handle.spawn(outgoing.pump(input)).abort_handle();
            match self.calls.lock().get_mut(&id) {
                Some(asked) => asked.pump = Some(pump),
                None => pump.abort(),
            }
        }
        Outcome::Pending(Box::pin(Answer::new(Arc::clone(self), answered, sent)))
    }

    /// Asks the worker to end a call. If it does not soon, it is ended itself.
    pub(crate) fn interrupt(self: &Arc<Self>, id: u64) {
        if !self.calls.lock().contains_key(&id) {
            return;
        }
        self.send(&Frame::new(Kind::Cancel, id, Bytes::new()));
        let (link, mut frozen) = (Arc::downgrade(self), self.frozen.subscribe());
        self.handle.spawn(async move {
            // What stands still cannot answer: its time begins when it goes on.
            loop {
                if frozen.wait_for(|frozen| !frozen).await.is_err() {
                    return;
                }
                match tokio::time::timeout(PATIENCE, frozen.wait_for(|frozen| *frozen)).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(_)) => return,
                    Err(_) => break,
                }
            }
            if let Some(link) = link.upgrade()
                && link.calls.lock().contains_key(&id)
            {
                link.end(Error::new(
                    ErrorCode::ExtensionCrashed,
                    format!(
                        "its worker was ended: a call went on for {} s after it had to end",
                        PATIENCE.as_secs()
                    ),
                ));
            }
        });
    }

    /// Tells the worker what its extension may do from now on. Calls are checked on this side.
    pub(crate) fn permit(&self, permissions: &Permissions) {
        let permissions = rmp_serde::to_vec_named(permissions).unwrap_or_default();
        self.send(&Frame::new(Kind::Permissions, 0, permissions));
    }

    /// Lets the extension at the network, as far as its bridge does.
    fn serve_network(&self, listener: OwnedFd) {
        if !self.proxied.load(Ordering::Acquire) {
            return self.end(self.broke("a listening socket, for which it was not asked"));
        }
        match proxy::serve(listener, self.bridge.clone(), &self.handle) {
            Ok(proxy) => {
                *self.proxy.lock() = Some(proxy);
                // Whoever ended the worker meanwhile has not seen it.
                if self.fate.get().is_some() {
                    self.stop_serving();
                }
            }
            Err(error) => {
                let message = format!("its worker has no network: {error}");
                self.end(Error::new(ErrorCode::LoadFailed, message));
            }
        }
    }

    /// Answers what the kernel asks about the worker.
    fn watch(&self, watch: OwnedFd) {
        match sentry::serve(watch, self.bridge.clone(), &self.handle) {
            Ok(sentry) => {
                *self.sentry.lock() = Some(sentry);
                self.guarded.store(true, Ordering::Release);
                // Whoever ended the worker meanwhile has not seen it.
                if self.fate.get().is_some() {
                    self.stop_serving();
                }
            }
            Err(error) => self.end(self.broke(&format!("a watch that cannot be used: {error}"))),
        }
    }

    fn stop_serving(&self) {
        for task in [&self.proxy, &self.sentry] {
            if let Some(task) = task.lock().take() {
                task.abort();
            }
        }
    }

    /// Tells the worker what its extension may use up from now on, as far as its engine sees to that.
    pub(crate) fn limit(&self, limits: &Limits) {
        let limits = rmp_serde::to_vec_named(limits).unwrap_or_default();
        self.send(&Frame::new(Kind::Limits, 0, limits));
    }

    /// Asks the worker to finish and go, and sees to it that it does.
    pub(crate) async fn shutdown(&self, patience: Duration) {
        self.dismissed.store(true, Ordering::Release);
        self.send(&Frame::new(Kind::Shutdown, 0, Bytes::new()));
        if tokio::time::timeout(patience, self.over()).await.is_err() {
            self.strike();
            let _ = tokio::time::timeout(patience, self.over()).await;
        }
    }

    /// Ends the worker at once.
    pub(crate) fn kill(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.strike();
    }

    /// Waits until the worker is gone, and returns why.
    pub(crate) fn over(&self) -> BoxFuture<'static, Error> {
        let mut over = self.over.subscribe();
        Box::pin(async move {
            let fate = over.wait_for(Option::is_some).await.ok().and_then(|fate| fate.clone());
            fate.unwrap_or_else(|| Error::new(ErrorCode::ExtensionCrashed, "the worker is gone"))
        })
    }

    /// How many calls it has not answered.
    pub(crate) fn busy(&self) -> usize {
        self.calls.lock().len() + self.coming.load(Ordering::Relaxed)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.pid
    }

    pub(crate) fn is_over(&self) -> bool {
        self.fate.get().is_some()
    }

    /// What a call answers that finds the worker gone.
    fn gone(&self) -> Error {
        let unknown = || Error::new(ErrorCode::ExtensionCrashed, "the worker is gone");
        self.fate.get().cloned().unwrap_or_else(unknown)
    }

    fn wire(self: &Arc<Self>) -> Weak<dyn Wire> {
        let wire: Weak<Self> = Arc::downgrade(self);
        wire
    }

    fn forget(&self, id: u64) -> Option<Asked> {
        let asked = self.calls.lock().remove(&id)?;
        self.backstop.end(&asked.timed);
        self.streams.remove(id);
        if let Some(pump) = &asked.pump {
            pump.abort();
        }
        Some(asked)
    }

    /// Ends the worker, for this reason unless there was one already.
    pub(crate) fn end(&self, why: Error) {
        self.die(why);
        self.strike();
    }

    /// Fails everything that is under way, and all that is to come.
    fn die(&self, why: Error) {
        if self.fate.set(why).is_err() {
            return;
        }
        let why = self.gone();
        self.stop_serving();
        if let Some(loading) = self.loading.lock().take() {
            let _ = loading.send(Err(why.clone()));
        }
        let calls = std::mem::take(&mut *self.calls.lock());
        for asked in calls.into_values() {
            if let Some(pump) = asked.pump {
                pump.abort();
            }
            // Its caller may have gone.
            let _ = asked.reply.send(Err(why.clone()));
        }
        for call in std::mem::take(&mut *self.host_calls.lock()).into_values().flatten() {
            call.abort();
        }
        self.pings.lock().clear();
        self.streams.clear(&why);
        self.backstop.over();
    }
}

impl Wire for Link {
    fn send(&self, frame: &Frame) {
        self.send_with(frame, None);
    }
}

impl Link {
    /// Sends a frame, and a file along with it.
    pub(crate) fn send_with(&self, frame: &Frame, file: Option<OwnedFd>) {
        if self.fate.get().is_some() {
            return;
        }
        match self.outbox.send(frame, file, &self.handle) {
            Ok(()) => {}
            // Its end is noticed where its answers are read.
            Err(outbox::Failed::Connection) => {}
            Err(outbox::Failed::Backlog) => self.end(Error::new(
                ErrorCode::ExtensionCrashed,
                "its worker was ended: it no longer reads what it is sent",
            )),
        }
    }
}

#[cfg(test)]
mod tests;
