//! The same component through wasmtime alone, for benchmarks to compare with.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use wasmtime::component::{Component, InstancePre, Linker, ResourceTable, TypedFunc};
use wasmtime::{Engine, Error, InstanceAllocationStrategy, PoolingAllocationConfig, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::quadriga::extension::types;

type Call = TypedFunc<(String, Vec<u8>), (std::result::Result<Vec<u8>, types::Error>,)>;

/// The relay guest's `echo`, called as wasmtime's documentation calls a component.
pub struct Echo {
    store: Store<System>,
    call: Call,
    pre: InstancePre<System>,
}

#[derive(Default)]
struct System {
    wasi: WasiCtx,
    table: ResourceTable,
}

impl WasiView for System {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl Echo {
    /// Loads the component of a package's folder, for an engine that can interrupt it, or cannot.
    ///
    /// # Errors
    /// If there is none, or it is no extension.
    pub fn load(package: &Path, interruptible: bool) -> Result<Self> {
        let entry = std::fs::read_dir(package)?
            .filter_map(|file| Some(file.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .ok_or_else(|| Error::msg("the package has no component"))?;
        let mut config = wasmtime::Config::new();
        config.epoch_interruption(interruptible);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(PoolingAllocationConfig::new()));
        let engine = Engine::new(&config)?;
        let component = Component::from_file(&engine, entry)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        linker.define_unknown_imports_as_traps(&component)?;
        let pre = linker.instantiate_pre(&component)?;
        let (store, call) = start(&pre)?;
        Ok(Self { store, call, pre })
    }

    /// Calls `echo` in an instance that is made for it.
    ///
    /// # Errors
    /// If there is no room, or the call fails.
    pub fn call_new(&self, arguments: &[u8]) -> Result<Vec<u8>> {
        let (mut store, call) = start(&self.pre)?;
        echo(&mut store, &call, arguments)
    }

    /// Calls `echo` with encoded arguments.
    ///
    /// # Errors
    /// If it traps or fails.
    pub fn call(&mut self, arguments: &[u8]) -> Result<Vec<u8>> {
        echo(&mut self.store, &self.call, arguments)
    }

    /// The same on a stack of the guest's own, which is what lets a guest wait without its thread.
    ///
    /// # Errors
    /// If it traps or fails.
    pub fn call_on_stack(&mut self, arguments: &[u8]) -> Result<Vec<u8>> {
        let call = pin!(self.call.call_async(&mut self.store, named(arguments)));
        match call.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(reply) => answer(reply?),
            Poll::Pending => Err(Error::msg("an echo waits for nothing")),
        }
    }
}

fn start(pre: &InstancePre<System>) -> Result<(Store<System>, Call)> {
    let mut store = Store::new(pre.engine(), System::default());
    // Further than any clock gets; without effect where the engine cannot interrupt.
    store.set_epoch_deadline(u64::from(u32::MAX));
    let instance = pre.instantiate(&mut store)?;
    let missing = || Error::msg("the component is no extension");
    let guest =
        instance.get_export_index(&mut store, None, "quadriga:extension/guest@0.1.0").ok_or_else(missing)?;
    let call = instance.get_export_index(&mut store, Some(&guest), "call").ok_or_else(missing)?;
    let call = instance.get_typed_func(&mut store, call)?;
    Ok((store, call))
}

fn echo(store: &mut Store<System>, call: &Call, arguments: &[u8]) -> Result<Vec<u8>> {
    answer(call.call(store, named(arguments))?)
}

fn named(arguments: &[u8]) -> (String, Vec<u8>) {
    ("echo".to_owned(), arguments.to_vec())
}

fn answer((reply,): (std::result::Result<Vec<u8>, types::Error>,)) -> Result<Vec<u8>> {
    reply.map_err(|error| Error::msg(error.message))
}
