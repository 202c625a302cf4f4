use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::{Either, select};
use quadriga_abi::limits::{Limit, Limits};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Description, Error, ErrorCode, Isolation, Method, RuntimeKind};
use tokio::sync::watch;

use crate::{BoxFuture, Bridge, Call, Instance, Language, Outcome, Pause, Runtime, Support, Unit, Usage};

type Behaviour = Arc<dyn Fn(&Bridge, Call) -> Outcome + Send + Sync>;
type Condition = Arc<dyn Fn() -> bool + Send + Sync>;
type OnLoad = Arc<dyn Fn(&Unit) -> Result<(), Error> + Send + Sync>;
type OnInterrupt = Arc<dyn Fn(u64) + Send + Sync>;
type OnPermissions = Arc<dyn Fn(&Permissions) -> bool + Send + Sync>;
type Memory = Arc<dyn Fn(&str) -> u64 + Send + Sync>;
type OnPause = Arc<dyn Fn(bool) -> Result<Pause, Error> + Send + Sync>;
type OnPing = Arc<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;
type OnLimits = Arc<dyn Fn(&Limits) -> Result<(), Error> + Send + Sync>;

/// A runtime of kind `mock` whose guests are Rust closures: for tests of hosts and of the
/// dispatcher itself, without an engine.
#[derive(Clone)]
pub struct MockRuntime {
    description: Description,
    behaviours: Vec<Behaviour>,
    /// By method: whether it ends the instance.
    crashes: HashMap<usize, Condition>,
    blocks: bool,
    limits: &'static [Limit],
    permissions: &'static [&'static str],
    languages: &'static [Language],
    memory: Option<Memory>,
    on_load: OnLoad,
    on_interrupt: OnInterrupt,
    on_permissions: OnPermissions,
    on_limits: Option<OnLimits>,
    on_pause: Option<OnPause>,
    on_ping: OnPing,
}

struct MockInstance {
    runtime: MockRuntime,
    bridge: Bridge,
    crashed: AtomicBool,
    /// Why it ended, once it has.
    end: watch::Sender<Option<Error>>,
}

impl MockRuntime {
    /// Guests that export nothing.
    pub fn new() -> Self {
        Self {
            description: Description::new("mock", Vec::new()),
            behaviours: Vec::new(),
            crashes: HashMap::new(),
            blocks: true,
            limits: &[Limit::CallTimeout],
            permissions: &[],
            languages: &[],
            memory: None,
            on_load: Arc::new(|_| Ok(())),
            on_interrupt: Arc::new(|_| ()),
            on_permissions: Arc::new(|_| true),
            on_limits: None,
            on_pause: None,
            on_ping: Arc::new(|| Box::pin(std::future::ready(Ok(())))),
        }
    }

    /// Lets every guest export a method.
    pub fn method(
        mut self,
        name: &str,
        behaviour: impl Fn(&Bridge, Call) -> Outcome + Send + Sync + 'static,
    ) -> Self {
        self.description.methods.push(Method::named(name));
        self.behaviours.push(Arc::new(behaviour));
        self
    }

    /// Lets every guest export a method that returns its arguments.
    pub fn echo(self, name: &str) -> Self {
        self.method(name, |_, call| Outcome::Ready(Ok(call.envelope.payload)))
    }

    /// Lets every guest export a method that ends its instance: this call and all in flight get
    /// `extension_crashed`.
    pub fn crash(self, name: &str) -> Self {
        self.crash_if(name, || true)
    }

    /// The same where a condition holds; otherwise the method returns its arguments.
    pub fn crash_if(mut self, name: &str, condition: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.crashes.insert(self.behaviours.len(), Arc::new(condition));
        self.echo(name)
    }

    /// The limits that it enforces, beside those of the dispatcher; `call-timeout` if this is not
    /// called.
    pub fn limits(mut self, limits: &'static [Limit]) -> Self {
        self.limits = limits;
        self
    }

    /// The permissions that it mediates, by their names in the manifest.
    pub fn mediates(mut self, permissions: &'static [&'static str]) -> Self {
        self.permissions = permissions;
        self
    }

    /// The languages that it runs as they are.
    pub fn languages(mut self, languages: &'static [Language]) -> Self {
        self.languages = languages;
        self
    }

    /// The bytes of memory that every guest says it uses.
    pub fn memory(self, bytes: Arc<AtomicU64>) -> Self {
        self.memory_by(move |_| bytes.load(Ordering::Relaxed))
    }

    /// The same by the id of the guest.
    pub fn memory_by(mut self, bytes: impl Fn(&str) -> u64 + Send + Sync + 'static) -> Self {
        self.memory = Some(Arc::new(bytes));
        self
    }

    /// Runs at each change of a guest's permissions, and says whether it holds at once, as it does
    /// if this is not called.
    pub fn on_permissions(mut self, hook: impl Fn(&Permissions) -> bool + Send + Sync + 'static) -> Self {
        self.on_permissions = Arc::new(hook);
        self
    }

    /// Takes changes of limits, which are refused if this is not called.
    pub fn on_limits(mut self, hook: impl Fn(&Limits) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        self.on_limits = Some(Arc::new(hook));
        self
    }

    /// Takes pauses (true) and their ends, which are refused if this is not called.
    pub fn on_pause(mut self, hook: impl Fn(bool) -> Result<Pause, Error> + Send + Sync + 'static) -> Self {
        self.on_pause = Some(Arc::new(hook));
        self
    }

    /// Answers when a guest is asked for a sign of life; it gives one if this is not called.
    pub fn on_ping(
        mut self,
        hook: impl Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync + 'static,
    ) -> Self {
        self.on_ping = Arc::new(hook);
        self
    }

    /// Whether the guests may run on the thread of their caller.
    pub fn blocking(mut self, blocks: bool) -> Self {
        self.blocks = blocks;
        self
    }

    /// What a guest says of itself, with the methods so far.
    pub fn describe(mut self, change: impl FnOnce(&mut Description)) -> Self {
        change(&mut self.description);
        self
    }

    /// Runs at each load, and may fail it.
    pub fn on_load(mut self, hook: impl Fn(&Unit) -> Result<(), Error> + Send + Sync + 'static) -> Self {
        self.on_load = Arc::new(hook);
        self
    }

    /// Runs at each interrupt, with the id of the call.
    pub fn on_interrupt(mut self, hook: impl Fn(u64) + Send + Sync + 'static) -> Self {
        self.on_interrupt = Arc::new(hook);
        self
    }
}

impl Default for MockRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for MockRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("mock")
    }

    fn support(&self) -> Support {
        let (limits, permissions) = (self.limits, self.permissions);
        Support { isolation: Isolation::InProcess, limits, permissions }
    }

    fn languages(&self) -> &'static [Language] {
        self.languages
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            (self.on_load)(&unit)?;
            let (runtime, crashed, end) = (self.clone(), AtomicBool::new(false), watch::Sender::new(None));
            let instance: Arc<dyn Instance> = Arc::new(MockInstance { runtime, bridge, crashed, end });
            Ok(instance)
        })
    }
}

impl Instance for MockInstance {
    fn describe(&self) -> &Description {
        &self.runtime.description
    }

    fn call(&self, call: Call) -> Outcome {
        if self.crashed.load(Ordering::Acquire) {
            return crashed().into();
        }
        if self.runtime.crashes.get(&call.method).is_some_and(|condition| condition()) {
            self.crashed.store(true, Ordering::Release);
            self.end.send_replace(Some(crashed()));
            return crashed().into();
        }
        let outcome = match self.runtime.behaviours.get(call.method) {
            Some(behaviour) => behaviour(&self.bridge, call),
            None => Error::new(ErrorCode::Internal, "no such method").into(),
        };
        match outcome {
            Outcome::Pending(call) if !self.runtime.crashes.is_empty() => {
                let end = ended(&self.end);
                Outcome::Pending(Box::pin(async move {
                    match select(call, end).await {
                        Either::Left((result, _)) => result,
                        Either::Right((error, _)) => Err(error),
                    }
                }))
            }
            outcome => outcome,
        }
    }

    fn blocks(&self) -> bool {
        self.runtime.blocks
    }

    fn interrupt(&self, call: u64) {
        (self.runtime.on_interrupt)(call);
    }

    fn usage(&self) -> Usage {
        let memory = self.runtime.memory.as_ref().map(|bytes| bytes(self.bridge.extension().as_str()));
        Usage { memory, instances: 1, ..Usage::default() }
    }

    fn permissions_changed(&self, permissions: &Permissions) -> bool {
        (self.runtime.on_permissions)(permissions)
    }

    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        match &self.runtime.on_limits {
            Some(hook) => hook(limits),
            None => Err(Error::new(ErrorCode::Unsupported, "this mock takes no limits")),
        }
    }

    fn pause(&self) -> Result<Pause, Error> {
        match &self.runtime.on_pause {
            Some(hook) => hook(true),
            None => Err(Error::new(ErrorCode::Unsupported, "this mock goes on")),
        }
    }

    fn resume(&self) -> Result<(), Error> {
        self.runtime.on_pause.as_ref().map_or(Ok(()), |hook| hook(false).map(drop))
    }

    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        (self.runtime.on_ping)()
    }

    fn ended(&self) -> Option<BoxFuture<'static, Error>> {
        Some(ended(&self.end))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

fn crashed() -> Error {
    Error::new(ErrorCode::ExtensionCrashed, "the mock was told to crash")
}

/// Resolves when the instance has ended, and not when it is dropped.
fn ended(end: &watch::Sender<Option<Error>>) -> BoxFuture<'static, Error> {
    let mut end = end.subscribe();
    Box::pin(async move {
        match end.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            _ => std::future::pending().await,
        }
    })
}
