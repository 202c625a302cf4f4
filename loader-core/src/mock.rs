use std::sync::Arc;

use quadriga_abi::limits::Limit;
use quadriga_abi::{Description, Error, ErrorCode, Isolation, Method, RuntimeKind};

use crate::{BoxFuture, Bridge, Call, Instance, Outcome, Runtime, Support, Unit, Usage};

type Behaviour = Arc<dyn Fn(&Bridge, Call) -> Outcome + Send + Sync>;
type OnLoad = Arc<dyn Fn(&Unit) -> Result<(), Error> + Send + Sync>;
type OnInterrupt = Arc<dyn Fn(u64) + Send + Sync>;

/// A runtime of kind `mock` whose guests are Rust closures: for tests of hosts and of the
/// dispatcher itself, without an engine.
#[derive(Clone)]
pub struct MockRuntime {
    description: Description,
    behaviours: Vec<Behaviour>,
    blocks: bool,
    on_load: OnLoad,
    on_interrupt: OnInterrupt,
}

struct MockInstance {
    runtime: MockRuntime,
    bridge: Bridge,
}

impl MockRuntime {
    /// Guests that export nothing.
    pub fn new() -> Self {
        Self {
            description: Description::new("mock", Vec::new()),
            behaviours: Vec::new(),
            blocks: true,
            on_load: Arc::new(|_| Ok(())),
            on_interrupt: Arc::new(|_| ()),
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
        Support { isolation: Isolation::InProcess, limits: &[Limit::CallTimeout], permissions: &[] }
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            (self.on_load)(&unit)?;
            let instance: Arc<dyn Instance> = Arc::new(MockInstance { runtime: self.clone(), bridge });
            Ok(instance)
        })
    }
}

impl Instance for MockInstance {
    fn describe(&self) -> &Description {
        &self.runtime.description
    }

    fn call(&self, call: Call) -> Outcome {
        match self.runtime.behaviours.get(call.method) {
            Some(behaviour) => behaviour(&self.bridge, call),
            None => Error::new(ErrorCode::Internal, "no such method").into(),
        }
    }

    fn blocks(&self) -> bool {
        self.runtime.blocks
    }

    fn interrupt(&self, call: u64) {
        (self.runtime.on_interrupt)(call);
    }

    fn usage(&self) -> Usage {
        Usage { memory: None, instances: 1 }
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}
