use std::sync::{Arc, Weak};

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};
use tracing::Level;

use crate::call::CallOptions;
use crate::dispatcher::Core;
use crate::{BoxFuture, CallContext, Input, Items, Outcome};

/// The host as one extension sees it: what its runtime calls on its behalf. Cheap to clone.
#[derive(Clone)]
pub struct Bridge {
    inner: Arc<Inner>,
}

struct Inner {
    extension: ExtensionId,
    link: Link,
    config: Bytes,
}

/// Where it leads.
enum Link {
    /// To the dispatcher of this process.
    Core(Weak<Core>, Box<Permissions>),
    /// To one in another process, which checks the permissions itself.
    Remote(Arc<dyn Uplink>),
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
}

/// The way that a call takes.
enum Way<'a> {
    Core(Arc<Core>),
    Remote(&'a dyn Uplink),
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
        permissions: Permissions,
        config: Bytes,
    ) -> Self {
        Self { inner: Arc::new(Inner { extension, link: Link::Core(core, Box::new(permissions)), config }) }
    }

    /// A bridge to a dispatcher in another process.
    pub fn remote(extension: ExtensionId, config: Bytes, uplink: Arc<dyn Uplink>) -> Self {
        Self { inner: Arc::new(Inner { extension, link: Link::Remote(uplink), config }) }
    }

    /// The extension it speaks for.
    pub fn extension(&self) -> &ExtensionId {
        &self.inner.extension
    }

    /// Calls another extension from within the call `parent`. May run the callee on the calling
    /// thread: for engines whose guests own the thread that they run on.
    pub fn call(&self, parent: &CallContext, extension: &str, method: &str, arguments: Bytes) -> Outcome {
        match self.way(extension, method) {
            Ok(Way::Core(core)) => core.call(extension, method, arguments, self.options(parent)),
            Ok(Way::Remote(uplink)) => uplink.call(parent, extension, method, arguments),
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
        match self.way(extension, method) {
            Ok(Way::Core(core)) => core.call_detached(extension, method, arguments, self.options(parent)),
            Ok(Way::Remote(uplink)) => uplink.call_detached(parent, extension, method, arguments),
            Err(error) => Box::pin(async move { Err(error) }),
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
        match self.way(extension, method) {
            Ok(Way::Remote(uplink)) => uplink.start(parent, extension, method, arguments, input, stream),
            Ok(Way::Core(core)) => {
                let options = CallOptions { input, ..self.options(parent) };
                core.start(extension, method, arguments, options, stream)
            }
            Err(error) => Items::new(None, Box::pin(std::future::ready(Err(error))), true),
        }
    }

    /// Writes a line to the host's log.
    pub fn log(&self, parent: &CallContext, level: LogLevel, message: &str) {
        if let Link::Remote(uplink) = &self.inner.link {
            return uplink.log(parent, level, message);
        }
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

    /// The extension's settings: a MessagePack map.
    pub fn config(&self) -> Bytes {
        self.inner.config.clone()
    }

    /// Whether the caller of a call no longer waits.
    pub fn cancelled(&self, call: &CallContext) -> bool {
        call.deadline.is_some_and(|deadline| deadline <= std::time::Instant::now())
            || match &self.inner.link {
                Link::Core(core, _) => core.upgrade().is_none_or(|core| core.given_up.contains(call.id)),
                Link::Remote(uplink) => uplink.cancelled(call.id),
            }
    }

    /// Checks the permission before anything else, so that a denial tells nothing about the target.
    fn way(&self, extension: &str, method: &str) -> Result<Way<'_>, Error> {
        let (core, permissions) = match &self.inner.link {
            Link::Core(core, permissions) => (core, permissions),
            Link::Remote(uplink) => return Ok(Way::Remote(&**uplink)),
        };
        if !permissions.call.iter().any(|pattern| pattern.allows(extension, method)) {
            let id = &self.inner.extension;
            return Err(Error::new(
                ErrorCode::PermissionDenied,
                format!("{id} may not call {extension}/{method}"),
            )
            .with_hint(format!(
                "ask for it in the manifest, [permissions] call = [\"{extension}/{method}\"], and have the host grant it"
            )));
        }
        let stopped = || Error::new(ErrorCode::ExtensionStopped, "the host is shutting down");
        core.upgrade().map(Way::Core).ok_or_else(stopped)
    }

    fn options(&self, parent: &CallContext) -> CallOptions {
        CallOptions {
            deadline: parent.deadline,
            trace: parent.trace,
            source: Some(self.inner.extension.clone()),
            depth: parent.depth + 1,
            parent: parent.span,
            ..CallOptions::default()
        }
    }
}
