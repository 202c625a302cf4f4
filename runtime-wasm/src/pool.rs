//! The instances of one extension.

use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use quadriga_abi::limits::{ByteSize, Limits, Span};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Description, Error, ExtensionId};
use quadriga_core::{Call, CallContext, Usage};
use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime_wasi_http::WasiHttpCtx;

use crate::code::Compiled;
use crate::convert;
use crate::error::{Scene, ended};
use crate::guest::{Guest, Live};
use crate::host_call::{Desk, serve};
use crate::limits::{CpuTime, Hub, Memory, NOTHING, Share, Ticking, Watch};
use crate::output::Output;
use crate::wasi::Grants;

/// How many of the host's things, such as open files, one instance may hold.
const HANDLES: usize = 4096;

/// Keeps instances for the next call, and makes more when calls need them.
///
/// A guest's globals live as long as its instance: calls that must see each other's state need
/// `concurrency = 1`, and even then a call that comes back to the extension while another is
/// running there finds a further instance. One that trapped is gone, with its state.
pub(crate) struct Pool {
    pub(crate) code: Arc<Compiled>,
    pub(crate) hub: Arc<Hub>,
    pub(crate) given: Mutex<Given>,
    pub(crate) memory: Arc<Memory>,
    /// How many instances are kept.
    pub(crate) kept: usize,
    /// A place for each call by the host, and each event, that may run at once.
    pub(crate) places: Arc<Semaphore>,
    pub(crate) idle: Mutex<Vec<Live>>,
    pub(crate) _ticking: Arc<Ticking>,
}

/// What instances are given from now on.
pub(crate) struct Given {
    permissions: Permissions,
    root: PathBuf,
    grants: Arc<Grants>,
    /// How often it changed.
    number: u64,
}

impl Given {
    pub(crate) fn new(permissions: &Permissions, root: &Path) -> Result<Self, Error> {
        let grants = Arc::new(Grants::new(permissions, root)?);
        Ok(Self { permissions: permissions.clone(), root: root.to_owned(), grants, number: 0 })
    }

    fn look(&self) -> (Arc<Grants>, u64) {
        (Arc::clone(&self.grants), if self.grants.is_empty() { NOTHING } else { self.number })
    }
}

impl Pool {
    /// Asks a first instance what the extension is, and keeps it.
    pub(crate) async fn describe(&self, context: CallContext) -> Result<Description, Error> {
        let mut time = CpuTime::new(None);
        let mut live = self.start(context, &mut time).await?;
        let watch = self.watch(context, live.given());
        let Live { store, exports, desk } = &mut live;
        let guest = exports.quadriga_extension_guest();
        let description = serve(pin!(guest.call_describe(store)), desk, &watch, &mut time).await?;
        convert::description(self.settle(live, description)?)
    }

    /// Runs one call in an instance that is free, or in a new one.
    pub(crate) async fn call(&self, call: &mut Call) -> Result<Bytes, Error> {
        let context = call.context();
        let mut time = CpuTime::new(self.hub.cpu_time());
        let idle = self.idle.lock().pop();
        let mut live = match idle {
            Some(live) => live,
            // Boxed: it is large, and rarely there.
            None => Box::pin(self.start(context, &mut time)).await?,
        };
        let watch = self.watch(context, live.given());
        let Live { store, exports, desk } = &mut live;
        store.data_mut().begin(context, call.streams.take());
        let guest = exports.quadriga_extension_guest();
        let (name, arguments) = (call.name(), &call.envelope.payload);
        let reply = serve(pin!(guest.call_call(store, name, arguments)), desk, &watch, &mut time).await?;
        self.settle(live, reply)?.map(Bytes::from).map_err(convert::error_from_guest)
    }

    /// A further instance.
    async fn start(&self, context: CallContext, time: &mut CpuTime) -> Result<Live, Error> {
        let desk = Arc::default();
        let (grants, given) = self.given.lock().look();
        let watch = self.watch(context, given);
        serve(pin!(self.instantiate(&desk, &watch, &grants)), &desk, &watch, time).await?
    }

    async fn instantiate(
        &self,
        desk: &Arc<Desk>,
        watch: &Watch<&Hub>,
        grants: &Grants,
    ) -> Result<Live, Error> {
        let output = Output::new(&self.hub);
        output.begin(watch.context);
        let share = Share::new(Arc::clone(&self.memory));
        let wasi = grants.context(&output).map_err(|error| self.ended(&error, "", None))?;
        let watch = Watch { hub: Arc::clone(&self.hub), context: watch.context, given: watch.given };
        let mut table = ResourceTable::new();
        table.set_max_capacity(HANDLES);
        let http = WasiHttpCtx::new();
        let desk = Arc::clone(desk);
        let guest = Guest {
            watch,
            desk: Arc::clone(&desk),
            stopping: None,
            streams: None,
            share,
            output,
            wasi,
            http,
            table,
        };
        let mut store = guest.into_store(self.code.pre.engine());
        match self.code.pre.instantiate_async(&mut store).await {
            Ok(exports) => Ok(Live { store, exports, desk }),
            Err(error) => Err(self.trapped(store.data(), &error)),
        }
    }

    /// Keeps an instance that did its work; drops one that trapped.
    fn settle<T>(&self, live: Live, result: wasmtime::Result<T>) -> Result<T, Error> {
        match result {
            Ok(value) => {
                live.store.data().output.finish();
                let mut idle = self.idle.lock();
                let may_stay = self.hub.lets(live.given()) && !self.hub.unloaded();
                if idle.len() < self.kept && may_stay {
                    idle.push(live);
                }
                Ok(value)
            }
            Err(error) => Err(self.trapped(live.store.data(), &error)),
        }
    }

    /// Puts the limits into effect that are declared.
    pub(crate) fn limit(&self, limits: &Limits) {
        if let Some(Span(most)) = limits.cpu_time {
            self.hub.set_cpu_time(most);
        }
        if let Some(ByteSize(most)) = limits.memory {
            self.memory.set_limit(most);
        }
    }

    fn trapped(&self, guest: &Guest, error: &wasmtime::Error) -> Error {
        let over_memory = guest.share.refused.then(|| guest.share.limit());
        self.ended(error, &guest.output.finish(), over_memory)
    }

    fn ended(&self, error: &wasmtime::Error, stderr: &str, over_memory: Option<usize>) -> Error {
        ended(error, &Scene { extension: self.id(), stderr, over_memory })
    }

    fn id(&self) -> &ExtensionId {
        self.hub.bridge.extension()
    }

    pub(crate) fn watch(&self, context: CallContext, given: u64) -> Watch<&Hub> {
        Watch { hub: &self.hub, context, given }
    }

    /// Gives instances this from now on. Those that were given more end at once, with the calls that
    /// run in them. Whether that holds already: an instance that is there is given nothing more.
    pub(crate) fn permit(&self, permissions: &Permissions) -> bool {
        let of_the_system = |all: &Permissions| Permissions {
            fs: all.fs.clone(),
            env: all.env.clone(),
            clock: all.clock,
            ..Permissions::default()
        };
        let mut given = self.given.lock();
        let (before, now) = (of_the_system(&given.permissions), of_the_system(permissions));
        let (lost, gained) = (!before.beyond(&now).is_empty(), !now.beyond(&before).is_empty());
        let Ok(grants) = Grants::new(permissions, &given.root) else { return false };
        given.grants = Arc::new(grants);
        given.permissions = permissions.clone();
        given.number += 1;
        if !lost {
            return !gained;
        }
        let stopped = self.hub.revoke(given.number);
        self.idle.lock().retain(|live| self.hub.lets(live.given()));
        stopped && !gained
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage {
            memory: Some(self.memory.used() as u64),
            instances: self.memory.instances.load(Ordering::Relaxed),
            ..Usage::default()
        }
    }
}
