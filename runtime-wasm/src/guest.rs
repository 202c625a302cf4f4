//! What one store holds, and how a call runs in it.

use std::sync::Arc;
use std::time::Instant;

use quadriga_core::{CallContext, Streams};
use wasmtime::component::ResourceTable;
use wasmtime::{Store, UpdateDeadline};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use crate::bindings::Extension;
use crate::config::GRACE;
use crate::host_call::Desk;
use crate::limits::{Share, Stop, Watch};
use crate::output::Output;

/// The data of one store.
pub(crate) struct Guest {
    pub(crate) watch: Watch,
    pub(crate) desk: Arc<Desk>,
    /// Since when the call must end.
    pub(crate) stopping: Option<Instant>,
    /// Those of the call that runs.
    pub(crate) streams: Option<Box<Streams>>,
    pub(crate) share: Share,
    pub(crate) output: Arc<Output>,
    pub(crate) wasi: WasiCtx,
    pub(crate) http: WasiHttpCtx,
    pub(crate) table: ResourceTable,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// An instance that can take a call.
pub(crate) struct Live {
    pub(crate) store: Store<Guest>,
    pub(crate) exports: Extension,
    /// That of the guest in the store.
    pub(crate) desk: Arc<Desk>,
}

impl Live {
    /// What it was given: see [`Watch::given`].
    pub(crate) fn given(&self) -> u64 {
        self.store.data().watch.given
    }
}

impl Guest {
    /// Puts the guest into a store that asks it, at each tick, whether to go on.
    pub(crate) fn into_store(self, engine: &wasmtime::Engine) -> Store<Self> {
        let mut store = Store::new(engine, self);
        store.limiter(|guest| &mut guest.share);
        store.epoch_deadline_callback(|mut store| {
            let guest = store.data_mut();
            if let Some(stop) = guest.watch.stop() {
                let since = *guest.stopping.get_or_insert_with(Instant::now);
                if since.elapsed() >= GRACE || stop == Stop::Revoked {
                    return Err(stop.into());
                }
            }
            Ok(UpdateDeadline::Yield(1))
        });
        store
    }

    /// What happens from now on belongs to another call.
    pub(crate) fn begin(&mut self, context: CallContext, streams: Option<Box<Streams>>) {
        self.watch.context = context;
        self.stopping = None;
        self.streams = streams;
        self.share.refused = false;
        self.output.begin(context);
    }
}
