//! One worker process, from its start to its hello.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use quadriga_abi::limits::{ByteSize, Limits, Span};
use quadriga_abi::{Error, ErrorCode, Kind};
use quadriga_core::{Bridge, Unit};

use crate::confine::Net;
use crate::frame::Frame;
use crate::jail::Jail;
use crate::job::{Greeting, Hello as _, Job};
use crate::link::{Link, Loaded};
use crate::nursery::{self, Begun};
use crate::output::Printed;
use crate::program;
use crate::runtime::Origin;

/// How long a worker may take to say why its load failed, once it is out of time.
const GRACE: Duration = Duration::from_millis(750);

/// The most bytes of a message where the dispatcher does not say it.
const MESSAGE: u64 = 128 << 20;

/// A worker process. Ended when dropped.
pub(crate) struct Worker {
    pub(crate) link: Arc<Link>,
    /// Its hello, until it has come.
    loaded: Mutex<Option<Loaded>>,
    _printed: Printed,
}

impl Worker {
    /// Starts one, and tells it nothing yet.
    pub(crate) async fn start(
        origin: &Origin,
        jail: &Jail,
        unit: &Unit,
        bridge: &Bridge,
        ends_busy_calls: bool,
    ) -> Result<Self, Error> {
        let program = program::find(origin.program.as_deref())?;
        let kind = origin.forks.then_some(&origin.kind);
        let Begun { child, socket, pipes } = nursery::start(&program, kind, jail.doors()).await?;
        jail.hold(&child)?;
        let most = unit.limits.message_size.map_or(MESSAGE, |ByteSize(most)| most.max(MESSAGE));
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let cgroup = jail.cgroup.clone();
        let (link, loaded) =
            Link::start(bridge.clone(), Arc::clone(&child), cgroup, socket, most, ends_busy_calls)?;
        link.proxied.store(jail.plan.net == Net::Proxy, Ordering::Release);
        let _printed = Printed::read(bridge, pipes).map_err(|error| {
            child.kill();
            Error::new(ErrorCode::LoadFailed, format!("what the worker prints cannot be read: {error}"))
        })?;
        Ok(Self { link, loaded: Mutex::new(Some(loaded)), _printed })
    }

    /// Has limits kept to that are about its calls and its engine.
    pub(crate) fn limit(&self, limits: &Limits) {
        if let Some(Span(limit)) = limits.cpu_time {
            self.link.limit_cpu(limit);
        }
        if limits.cpu_time.is_some() || limits.memory.is_some() {
            self.link.limit(limits);
        }
    }

    /// Gives it the extension to load, and waits until it has.
    pub(crate) async fn load(&self, unit: &Unit, bridge: &Bridge, jail: &Jail) -> Result<Greeting, Error> {
        let job = Job::new(unit, bridge, jail.plan.clone())?;
        let mut hello = Frame::new(Kind::Hello, 0, job.to_bytes()?);
        hello.envelope.deadline = Some(unit.deadline);
        let prepared = unit.prepared.as_ref().map(|file| file.try_clone()).transpose();
        let prepared = prepared.map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("what was prepared cannot be handed over: {error}"))
        })?;
        self.link.send_with(&hello, prepared.map(Into::into));
        let gone = || Error::new(ErrorCode::LoadFailed, "the worker is gone");
        let loaded = self.loaded.lock().take().ok_or_else(gone)?;
        match tokio::time::timeout_at((unit.deadline + GRACE).into(), loaded).await {
            Ok(greeting) => greeting.map_err(|_| gone())?,
            Err(_) => Err(late()),
        }
    }
}

pub(crate) fn late() -> Error {
    let message = "the worker did not load the extension in time";
    Error::new(ErrorCode::DeadlineExceeded, message).with_hint("raise [limits] load-timeout")
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.link.kill();
    }
}
