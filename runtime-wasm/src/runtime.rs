use std::fs::File;
use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quadriga_abi::{Error, ErrorCode, Isolation, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, CallContext, Instance, Runtime, Support, Unit};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::code::{self, Code, Compiled};
use crate::guest::Guest;
use crate::instance::WasmInstance;
use crate::limits::{Clock, Hub, Memory};
use crate::pool::{Given, Pool};
use crate::wasi;
use crate::{cache, config, entry};

/// Runs WebAssembly components.
#[derive(Default)]
pub struct WasmRuntime {
    shared: Arc<Shared>,
}

/// What all extensions of one runtime share. The engine is there from the first load on.
#[derive(Default)]
struct Shared {
    engine: OnceLock<Result<(Engine, Linker<Guest>), Error>>,
    code: Code,
    clock: Clock,
    /// The process ends with what it loads.
    for_one: bool,
}

impl WasmRuntime {
    /// A runtime that takes up no resources until it loads something. What it compiles it keeps on
    /// disk, in `quadriga` below the user's cache folder (`$XDG_CACHE_HOME` or `~/.cache`), unless
    /// somebody else may write there.
    pub fn new() -> Self {
        Self::default()
    }

    /// A runtime for a process that loads one extension. It keeps nothing on disk.
    pub fn for_one() -> Self {
        Self { shared: Arc::new(Shared { for_one: true, ..Shared::default() }) }
    }
}

impl Shared {
    fn engine(&self) -> Result<&(Engine, Linker<Guest>), Error> {
        let start = || config::engine(if self.for_one { None } else { cache::open() }, self.for_one);
        self.engine.get_or_init(start).as_ref().map_err(Error::clone)
    }

    /// What is to be instantiated: what the host of this process compiled, if it did.
    fn compiled(&self, unit: &Unit) -> Result<Arc<Compiled>, Error> {
        let (engine, linker) = self.engine()?;
        match unit.prepared.as_deref().and_then(|file| code::import(engine, file)) {
            Some(component) => {
                Ok(Arc::new(Compiled::new(entry::link(engine, linker, &unit.entry, &component)?)))
            }
            None => self.code.open(engine, linker, &unit.entry),
        }
    }
}

impl Runtime for WasmRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("webassembly")
    }

    fn engine(&self) -> String {
        "Wasmtime 48.0.8".to_owned()
    }

    fn is_concurrent(&self) -> bool {
        true
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::InProcess, limits: config::LIMITS, permissions: wasi::PERMISSIONS }
    }

    fn prepare(&self, unit: &Unit) -> BoxFuture<'_, Result<Option<Arc<File>>, Error>> {
        let (shared, entry) = (Arc::clone(&self.shared), unit.entry.clone());
        let compile = move || {
            let (engine, linker) = shared.engine()?;
            shared.code.export(engine, linker, &entry)
        };
        Box::pin(async { tokio::task::spawn_blocking(compile).await.unwrap_or_else(|_| Err(stopped())) })
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move {
            let deadline = unit.deadline;
            let loading = load(shared, unit, bridge);
            tokio::time::timeout_at(deadline.into(), loading).await.unwrap_or_else(|_| {
                let message = "the load took longer than it was given";
                Err(Error::new(ErrorCode::DeadlineExceeded, message).with_hint("raise [limits] load-timeout"))
            })
        })
    }
}

async fn load(shared: Arc<Shared>, unit: Unit, bridge: Bridge) -> Result<Arc<dyn Instance>, Error> {
    let context = CallContext { deadline: Some(unit.deadline), ..CallContext::default() };
    let compiled = tokio::task::spawn_blocking(move || compile(&shared, &unit, bridge));
    let pool = Arc::new(compiled.await.unwrap_or_else(|_| Err(stopped()))?);
    let description = pool.describe(context).await?;
    Ok(Arc::new(WasmInstance { description, pool }))
}

fn stopped() -> Error {
    Error::new(ErrorCode::Internal, "the compiler stopped")
}

fn compile(shared: &Shared, unit: &Unit, bridge: Bridge) -> Result<Pool, Error> {
    let code = shared.compiled(unit)?;
    let no_thread = |error| Error::new(ErrorCode::Internal, format!("no thread for the clock: {error}"));
    let kept = unit.manifest.runtime.concurrency.map_or(1, |n| usize::from(n.get()));
    let pool = Pool {
        _ticking: shared.clock.start(code.pre.engine()).map_err(no_thread)?,
        code,
        hub: Arc::new(Hub::new(bridge, Handle::current())),
        given: Mutex::new(Given::new(&unit.permissions, &unit.root)?),
        memory: Memory::new(),
        kept,
        places: Arc::new(Semaphore::new(kept)),
        idle: Mutex::default(),
    };
    pool.limit(&unit.limits);
    Ok(pool)
}
