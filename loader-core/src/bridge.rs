use std::sync::{Arc, Weak};

use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::{Access, AccessKind};
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};
use tracing::Level;

use crate::call::CallOptions;
use crate::dispatcher::Core;
use crate::net::{Connection, Insecure, Trust, Wanted};
use crate::route::Slot;
use crate::service::service_name;
use crate::ward::{Counter, Link, Passage, Reach};
use crate::{BoxFuture, CallContext, Input, Items, Outcome};

/// The host as one extension sees it: what its runtime calls on its behalf. Cheap to clone.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

struct Inner {
    extension: ExtensionId,
    host: Host,
    config: Bytes,
    trust: Trust,
}

/// Where the dispatcher is.
enum Host {
    /// In this process.
    Here(Weak<Core>, Arc<Reach>),
    /// In another one, which checks the permissions itself.
    Elsewhere(Arc<dyn Uplink>),
}

/// The way from a bridge to a dispatcher in another process: what a worker process implements.
///
/// It does what the methods of [`Bridge`] of the same names say. The other side checks the
/// permissions, and knows by the id of the parent which deadline, depth and trace hold.
pub trait Uplink: Send + Sync + 'static {
    /// Calls another extension from within the call `parent`. May wait on the calling thread.
    fn call(&self, parent: &CallContext, extension: &str, method: &str, arguments: Bytes) -> Outcome;

    /// Calls another extension and never waits on the calling thread.
    fn call_detached(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Error>>;

    /// Calls another extension with streams, made with [`Items::new`].
    fn start(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
        input: Option<Input>,
        stream: bool,
    ) -> Items;

    /// Writes a line to the host's log.
    fn log(&self, parent: &CallContext, level: LogLevel, message: &str);

    /// Whether the caller of a call, by its id, has gone.
    fn cancelled(&self, call: u64) -> bool;

    /// Connects to a host of the network.
    fn connect(
        &self,
        parent: &CallContext,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, Error>>;

    /// Whether the extension may do something at this moment, in the course of a call, by its id.
    ///
    /// # Errors
    /// `permission_denied`.
    fn check(&self, call: u64, access: &Access<'_>) -> Result<(), Error>;

    /// Tells the host of an access that somebody else let pass or not.
    fn claim(&self, call: u64, access: &Access<'_>, allowed: bool);

    /// Tells the host what was counted. What goes through it, it counts itself.
    fn report(&self, counter: Counter, amount: u64);
}

/// The way that a call takes.
enum Way<'a> {
    Here(Arc<Core>, Arc<Link>, Arc<Slot>),
    /// To a service of the host, by its name.
    Service(Arc<Core>, &'a str),
    Elsewhere(&'a dyn Uplink),
}

/// How much a line of the log matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl Bridge {
    pub(crate) fn new(
        extension: ExtensionId,
        core: Weak<Core>,
        reach: Arc<Reach>,
        config: Bytes,
        trusted: Bytes,
    ) -> Self {
        let (host, trust) = (Host::Here(core, reach), Trust::new(trusted));
        Self { inner: Arc::new(Inner { extension, host, config, trust }) }
    }

    /// A bridge to a dispatcher in another process, with what that one's bridge has as
    /// [`config`](Self::config) and [`trusted_certificates`](Self::trusted_certificates).
    pub fn remote(extension: ExtensionId, config: Bytes, trusted: Bytes, uplink: Arc<dyn Uplink>) -> Self {
        let (host, trust) = (Host::Elsewhere(uplink), Trust::new(trusted));
        Self { inner: Arc::new(Inner { extension, host, config, trust }) }
    }

    /// The extension it speaks for.
    pub fn extension(&self) -> &ExtensionId {
        &self.inner.extension
    }

    /// Calls another extension, or a service of the host, from within the call `parent`. May run the
    /// callee on the calling thread: for engines whose guests own the thread that they run on.
    pub fn call(&self, parent: &CallContext, extension: &str, method: &str, arguments: Bytes) -> Outcome {
        if let Host::Here(core, reach) = &self.inner.host
            && let Some(core) = core.upgrade()
        {
            let view = reach.view();
            if let Some((link, to)) = reach.way(&view, extension, method) {
                return core.call(link, to, method, arguments, self.options(parent));
            }
        }
        match self.way(parent, extension, method) {
            Ok(Way::Here(core, link, to)) => core.call(&link, to, method, arguments, self.options(parent)),
            Ok(Way::Service(core, service)) => core.serve(self, parent, service, method, arguments),
            Ok(Way::Elsewhere(uplink)) => uplink.call(parent, extension, method, arguments),
            Err(error) => error.into(),
        }
    }

    /// Calls another extension without ever running it on the calling thread: for engines with an
    /// event loop.
    pub fn call_detached(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        match self.way(parent, extension, method) {
            Ok(Way::Here(core, link, to)) => {
                core.call_detached(&link, to, method, arguments, self.options(parent))
            }
            Ok(Way::Service(core, service)) => {
                Box::pin(core.serve(self, parent, service, method, arguments).result())
            }
            Ok(Way::Elsewhere(uplink)) => uplink.call_detached(parent, extension, method, arguments),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Calls another extension with a stream among the arguments, or to read its items while it
    /// runs (`stream`; otherwise the result is the one item). Never runs it on the calling thread.
    pub fn start(
        &self,
        parent: &CallContext,
        extension: &str,
        method: &str,
        arguments: Bytes,
        input: Option<Input>,
        stream: bool,
    ) -> Items {
        match self.way(parent, extension, method) {
            Ok(Way::Elsewhere(uplink)) => uplink.start(parent, extension, method, arguments, input, stream),
            Ok(Way::Here(core, link, to)) => {
                let options = CallOptions { input, ..self.options(parent) };
                core.start(Some((&link, to)), extension, method, arguments, options, stream)
            }
            Ok(Way::Service(core, service)) => {
                let outcome = match input {
                    None => core.serve(self, parent, service, method, arguments),
                    Some(_) => {
                        let message = format!("{extension} is a service of the host, and takes no stream");
                        Error::new(ErrorCode::InvalidArguments, message).into()
                    }
                };
                Items::new(None, Box::pin(outcome.result()), true)
            }
            Err(error) => Items::new(None, Box::pin(std::future::ready(Err(error))), true),
        }
    }

    /// Writes a line to the host's log. What goes beyond the extension's output rate is dropped and
    /// counted, and the log says so once.
    pub fn log(&self, parent: &CallContext, level: LogLevel, message: &str) {
        let reach = match &self.inner.host {
            Host::Here(_, reach) => reach,
            Host::Elsewhere(uplink) => return uplink.log(parent, level, message),
        };
        self.report(Counter::LogLines, 1);
        match reach.spout.pass(message.len()) {
            Passage::Passes => {}
            Passage::PassesAfter(lost) => {
                let lost = format!("{} lines of output were dropped: {} bytes", lost.lines, lost.bytes);
                self.write(parent, LogLevel::Warn, &lost);
            }
            Passage::Dropped { first } => {
                self.report(Counter::OutputDropped, message.len() as u64);
                if let Some(rate) = first {
                    let rate = ByteSize(rate);
                    let over = format!("it prints more than its {rate} per second: the rest is dropped");
                    self.write(parent, LogLevel::Warn, &over);
                }
                return;
            }
        }
        self.write(parent, level, message);
    }

    fn write(&self, parent: &CallContext, level: LogLevel, message: &str) {
        let (extension, call, span) = (self.inner.extension.as_str(), parent.id, parent.span.id());
        macro_rules! write {
            ($level:expr) => {
                tracing::event!(target: "quadriga::guest", parent: span, $level, extension, call, "{message}")
            };
        }
        match level {
            LogLevel::Trace => write!(Level::TRACE),
            LogLevel::Debug => write!(Level::DEBUG),
            LogLevel::Info => write!(Level::INFO),
            LogLevel::Warn => write!(Level::WARN),
            LogLevel::Error => write!(Level::ERROR),
        }
    }

    /// Counts something on the extension's behalf, which the host's alerts may look at.
    pub fn report(&self, counter: Counter, amount: u64) {
        match &self.inner.host {
            Host::Here(_, reach) => reach.meter.add(counter, amount),
            Host::Elsewhere(uplink) => uplink.report(counter, amount),
        }
    }

    /// Records an access that the extension tried and that somebody else let pass or not, such as
    /// the kernel or its worker. It stands as their word beside what the host itself decided.
    pub fn claim(&self, call: &CallContext, access: &Access<'_>, allowed: bool) {
        match &self.inner.host {
            Host::Here(_, reach) => reach.claimed(call.id, access, allowed),
            Host::Elsewhere(uplink) => uplink.claim(call.id, access, allowed),
        }
    }

    /// Counts accesses of a kind like those of [`Bridge::claim`], without a record of each. Only in
    /// the host's process.
    pub fn claim_more(&self, kind: AccessKind, allowed: u64, denied: u64) {
        if let Host::Here(_, reach) = &self.inner.host {
            reach.claimed_more(kind, allowed, denied);
        }
    }

    /// Records a system call that the kernel refused to the extension's process, by its name, as
    /// whoever runs it has seen. Only in the host's process.
    pub fn refused(&self, call: &str) {
        if let Host::Here(_, reach) = &self.inner.host {
            reach.refused(call);
        }
    }

    /// Whether the extension is in a worker process, so that its host is another.
    pub fn is_remote(&self) -> bool {
        matches!(self.inner.host, Host::Elsewhere(_))
    }

    /// The extension's settings: a MessagePack map.
    pub fn config(&self) -> Bytes {
        self.inner.config.clone()
    }

    /// Whether the caller of a call no longer waits.
    pub fn cancelled(&self, call: &CallContext) -> bool {
        call.deadline.is_some_and(|deadline| deadline <= std::time::Instant::now())
            || match &self.inner.host {
                Host::Here(core, _) => core.upgrade().is_none_or(|core| core.given_up.contains(call.id)),
                Host::Elsewhere(uplink) => uplink.cancelled(call.id),
            }
    }

    /// Whether the extension may do something at this moment, in the course of a call. Whoever does
    /// it on its behalf asks here, each time and just before.
    ///
    /// # Errors
    /// `permission_denied`, with what to do about it.
    pub fn check(&self, call: &CallContext, access: &Access<'_>) -> Result<(), Error> {
        match &self.inner.host {
            Host::Here(_, reach) => reach.check(call.id, access),
            Host::Elsewhere(uplink) => uplink.check(call.id, access),
        }
    }

    /// Connects to a host of the network, by its name or address as the extension gave it, if that
    /// was granted. The name is resolved here; where it leads to what is not public, that has to be
    /// granted as such, or the policy to allow it. The connection is cut when the permission is
    /// revoked.
    pub fn connect(
        &self,
        parent: &CallContext,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, Error>> {
        let (core, reach) = match &self.inner.host {
            Host::Here(core, reach) => (core.upgrade(), Arc::clone(reach)),
            Host::Elsewhere(uplink) => return uplink.connect(parent, host, port),
        };
        let Some(core) = core else {
            let stopped = Error::new(ErrorCode::ExtensionStopped, "the host is shutting down");
            return Box::pin(std::future::ready(Err(stopped)));
        };
        let (private, idle) = (core.policy.private_networks, core.policy.connection_idle);
        Wanted { reach, call: parent.id, host: host.to_owned(), port, private, idle }.connect(&core.handle)
    }

    /// Speaks TLS on a connection to this host, whose certificate must be for the name or address that
    /// the extension gave. Its end is here: whatever reads from it later does that work. Needs a tokio
    /// runtime with a timer.
    ///
    /// # Errors
    /// What is wrong about the certificate or the server, or why the connection was cut.
    pub fn secure(
        &self,
        connection: Connection,
        host: &str,
        port: u16,
    ) -> BoxFuture<'static, Result<Connection, Insecure>> {
        let (inner, host) = (Arc::clone(&self.inner), host.to_owned());
        Box::pin(async move { inner.trust.secure(connection, &host, port).await })
    }

    /// The certificates in PEM that TLS believes beside Mozilla's list.
    pub fn trusted_certificates(&self) -> Bytes {
        self.inner.trust.added.clone()
    }

    /// Checks the permission before anything else, so that a denial tells nothing about the target.
    fn way<'a>(&'a self, parent: &CallContext, extension: &'a str, method: &str) -> Result<Way<'a>, Error> {
        let (core, reach) = match &self.inner.host {
            Host::Here(core, reach) => (core.upgrade(), reach),
            Host::Elsewhere(uplink) => return Ok(Way::Elsewhere(&**uplink)),
        };
        let stopped = || Error::new(ErrorCode::ExtensionStopped, "the host is shutting down");
        let find = || core.as_ref().ok_or_else(stopped)?.route(extension);
        let known = reach.way(&reach.view(), extension, method).map(|(link, to)| (Arc::clone(link), to));
        let (link, to) = match known {
            Some(way) => way,
            None if let Some(service) = service_name(extension) => {
                return Ok(Way::Service(core.ok_or_else(stopped)?, service));
            }
            None => reach.find_way(parent.id, extension, method, find)?,
        };
        Ok(Way::Here(core.ok_or_else(stopped)?, link, to))
    }

    /// What it may do, where the dispatcher is in this process.
    pub(crate) fn reach(&self) -> Option<&Reach> {
        match &self.inner.host {
            Host::Here(_, reach) => Some(reach),
            Host::Elsewhere(_) => None,
        }
    }

    /// The dispatcher and what is known of the extension there.
    ///
    /// # Errors
    /// If the dispatcher is going away, or in another process.
    pub(crate) fn here(&self) -> Result<(Arc<Core>, &Arc<Reach>), Error> {
        let Host::Here(core, reach) = &self.inner.host else {
            return Err(Error::new(ErrorCode::Internal, "the extension is in another process"));
        };
        let stopped = || Error::new(ErrorCode::ExtensionStopped, "the host is shutting down");
        Ok((core.upgrade().ok_or_else(stopped)?, reach))
    }

    fn options(&self, parent: &CallContext) -> CallOptions {
        CallOptions {
            deadline: parent.deadline,
            trace: parent.trace,
            source: Some(self.inner.extension.clone()),
            depth: parent.depth + 1,
            parent: parent.span,
            hooks: parent.hooks,
            ..CallOptions::default()
        }
    }
}
