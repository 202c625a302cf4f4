//! The same component through wasmtime alone, for benchmarks to compare with.

use std::path::Path;

use wasmtime::component::{Component, Linker, ResourceTable, TypedFunc};
use wasmtime::{Engine, Error, Result, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use crate::bindings::quadriga::extension::types;

type Call = TypedFunc<(String, Vec<u8>), (std::result::Result<Vec<u8>, types::Error>,)>;

/// The relay guest's `echo`, called as wasmtime's documentation calls a component.
pub struct Echo {
    store: Store<System>,
    call: Call,
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
    /// Loads the component of a package's folder.
    ///
    /// # Errors
    /// If there is none, or it is no extension.
    pub fn load(package: &Path) -> Result<Self> {
        let entry = std::fs::read_dir(package)?
            .filter_map(|file| Some(file.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "wasm"))
            .ok_or_else(|| Error::msg("the package has no component"))?;
        let engine = Engine::default();
        let component = Component::from_file(&engine, entry)?;
        let mut linker = Linker::new(&engine);
        wasmtime_wasi::p2::add_to_linker_sync(&mut linker)?;
        linker.define_unknown_imports_as_traps(&component)?;
        let mut store = Store::new(&engine, System::default());
        let instance = linker.instantiate(&mut store, &component)?;
        let missing = || Error::msg("the component is no extension");
        let guest = instance
            .get_export_index(&mut store, None, "quadriga:extension/guest@0.1.0")
            .ok_or_else(missing)?;
        let call = instance.get_export_index(&mut store, Some(&guest), "call").ok_or_else(missing)?;
        let call = instance.get_typed_func(&mut store, call)?;
        Ok(Self { store, call })
    }

    /// Calls `echo` with encoded arguments.
    ///
    /// # Errors
    /// If it traps or fails.
    pub fn call(&mut self, arguments: &[u8]) -> Result<Vec<u8>> {
        let arguments = ("echo".to_owned(), arguments.to_vec());
        let (reply,) = self.call.call(&mut self.store, arguments)?;
        reply.map_err(|error| Error::msg(error.message))
    }
}
