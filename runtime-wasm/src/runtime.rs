use std::sync::{Arc, OnceLock};

use parking_lot::Mutex;
use quadriga_abi::{Error, ErrorCode, Isolation, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, CallContext, Instance, Runtime, Support, Unit};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Linker;

use crate::guest::Guest;
use crate::instance::WasmInstance;
use crate::limits::{Clock, Hub, Memory};
use crate::pool::{Given, Pool};
use crate::wasi;
use crate::{config, entry};

/// Runs WebAssembly components.
#[derive(Default)]
pub struct WasmRuntime {
    shared: Arc<Shared>,
}

/// What all extensions of one runtime share. The engine is there from the first load on.
#[derive(Default)]
struct Shared {
    engine: OnceLock<Result<(Engine, Linker<Guest>), Error>>,
    clock: Clock,
}

impl WasmRuntime {
    /// A runtime that takes up no resources until it loads something.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Runtime for WasmRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("webassembly")
    }

    fn engine(&self) -> String {
        "Wasmtime 48.0.8".to_owned()
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::InProcess, limits: config::LIMITS, permissions: wasi::PERMISSIONS }
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
    let stopped = |_| Err(Error::new(ErrorCode::Internal, "the compiler stopped"));
    let pool = Arc::new(compiled.await.unwrap_or_else(stopped)?);
    let description = pool.describe(context).await?;
    Ok(Arc::new(WasmInstance { description, pool }))
}

fn compile(shared: &Shared, unit: &Unit, bridge: Bridge) -> Result<Pool, Error> {
    let (engine, linker) = shared.engine.get_or_init(config::engine).as_ref().map_err(Error::clone)?;
    let pre = entry::open(engine, linker, &unit.entry)?;
    let no_thread = |error| Error::new(ErrorCode::Internal, format!("no thread for the clock: {error}"));
    let kept = unit.manifest.runtime.concurrency.map_or(1, |n| usize::from(n.get()));
    let pool = Pool {
        pre,
        hub: Arc::new(Hub::new(bridge, Handle::current())),
        given: Mutex::new(Given::new(&unit.permissions, &unit.root)?),
        memory: Memory::new(),
        kept,
        places: Arc::new(Semaphore::new(kept)),
        idle: Mutex::default(),
        _ticking: shared.clock.start(engine).map_err(no_thread)?,
    };
    pool.limit(&unit.limits);
    Ok(pool)
}
