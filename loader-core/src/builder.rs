use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use arc_swap::ArcSwap;
use quadriga_abi::permission::is_plain_name;
use quadriga_abi::{Error, ErrorCode};
use secrecy::SecretString;
use tokio::sync::{Semaphore, broadcast};

use crate::api::Apis;
use crate::call_id::CallIds;
use crate::deadline::Deadlines;
use crate::dispatcher::{Core, Runtimes};
use crate::event::Bus;
use crate::hook::Hooks;
use crate::net::check_certificates;
use crate::service::{Calls, Data, Events, HookService, Kv, Process, Secrets, Services};
use crate::{
    DataSource, Dispatcher, EventStore, KvStore, Launcher, MemoryKv, MemoryPool, Policy, Runtime, Service,
};

/// Threads for calls that an event loop makes to guests that block. A call beyond them is refused
/// rather than queued: the threads may all be waiting for it.
const DETACHED_CALLS: usize = 480;

/// Alerts that a subscriber may be behind before it misses the oldest.
const ALERTS: usize = 256;

/// Puts a [`Dispatcher`] together.
#[derive(Default)]
pub struct Builder {
    runtimes: Runtimes,
    policy: Policy,
    services: Services,
    kv: Option<Arc<dyn KvStore>>,
    secrets: Secrets,
    data: Data,
    launcher: Option<Arc<dyn Launcher>>,
    events: OnceLock<Arc<dyn EventStore>>,
}

impl Builder {
    /// Adds a runtime. There may be several of one kind, which isolate differently far; a later one
    /// of the same kind and isolation takes its place.
    pub fn runtime(mut self, runtime: impl Runtime) -> Self {
        let level = |runtime: &dyn Runtime| runtime.support().isolation;
        let (ours, levels) = (level(&runtime), self.runtimes.entry(runtime.kind()).or_default());
        levels.retain(|other| level(&**other) != ours);
        let place = levels.partition_point(|other| level(&**other) < ours);
        levels.insert(place, Arc::new(runtime));
        self
    }

    /// Sets what the host demands of every extension.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// Keeps what extensions put into the key-value store in a store of the host's, beyond their
    /// unload; and, for the owner `quadriga.schedule`, when their jobs were due last. Otherwise it is kept in
    /// the home that the host starts or is attached to or, if there is none, in memory as long as they are
    /// loaded. [`Policy::kv`] bounds it.
    pub fn kv(mut self, store: impl KvStore + 'static) -> Self {
        self.kv = Some(Arc::new(store));
        self
    }

    /// Keeps the events of subscriptions that want each at least once, so that they outlast the host. A home has
    /// such a store, and gives it to a host that has none when it is attached. Without one, extensions that
    /// want that are not loaded, unless [`EventQuota::in_memory`](crate::EventQuota::in_memory) says so.
    pub fn event_store(mut self, store: impl EventStore) -> Self {
        self.events = OnceLock::from(Arc::new(store) as Arc<dyn EventStore>);
        self
    }

    /// Gives extensions the secrets that they are granted, by name: `None` for one that the host does
    /// not have. It is asked at each read, on threads where it may wait. What it fails with the
    /// extension gets as it is, so it must not say the secret.
    ///
    /// ```
    /// use quadriga_core::{Dispatcher, SecretString};
    /// let builder = Dispatcher::builder().secrets(|name| match name {
    ///     "token" => Ok(std::env::var("APP_TOKEN").ok().map(SecretString::from)),
    ///     _ => Ok(None),
    /// });
    /// ```
    pub fn secrets(
        mut self,
        find: impl Fn(&str) -> Result<Option<SecretString>, Error> + Send + Sync + 'static,
    ) -> Self {
        self.secrets = Secrets { find: Some(Arc::new(find)) };
        self
    }

    /// Lets extensions query data of the host under this name, of which each sees the fields that it is granted.
    /// A later one of the same name takes its place.
    pub fn source(mut self, name: &str, source: impl DataSource) -> Self {
        self.data.sources.insert(name.to_owned(), Arc::new(source));
        self
    }

    /// Has programs run for the extensions that are granted some. Without, nobody has that done, and
    /// extensions that ask for it are only loaded where they could start programs by themselves.
    pub fn launcher(mut self, launcher: impl Launcher) -> Self {
        self.launcher = Some(Arc::new(launcher));
        self
    }

    /// Adds a service that extensions call as `quadriga.NAME`, with a name as in the id of an
    /// extension. A later one of the same name takes its place, and that of the dispatcher's own.
    pub fn service(mut self, name: &str, service: impl Service) -> Self {
        self.services.insert(name.to_owned(), Arc::new(service));
        self
    }

    /// Starts the dispatcher's threads.
    ///
    /// # Errors
    /// If the system gives no threads, the policy's certificates cannot be read, or a source of data has a name
    /// that no permission can have.
    pub fn build(self) -> std::io::Result<Dispatcher> {
        let invalid = |error| std::io::Error::new(std::io::ErrorKind::InvalidInput, error);
        check_certificates(&self.policy.trusted_certificates).map_err(invalid)?;
        if let Some(name) = self.data.sources.keys().find(|name| !is_plain_name(name)) {
            return Err(invalid(Error::new(
                ErrorCode::InvalidArguments,
                format!("{name:?} is no name of a source of data: 1 to 128 bytes, no blanks, *, : or ,"),
            )));
        }
        let executor = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .max_blocking_threads(DETACHED_CALLS + 32)
            .thread_name("quadriga")
            // What a thread keeps for `arc-swap` is made under the lock of the system's loader, which
            // a library may hold for as long as it likes: so before anything is loaded.
            .on_thread_start(|| drop(ArcSwap::from_pointee(()).load()))
            .enable_all()
            .build()?;
        let handle = executor.handle().clone();
        if let Some(total) = self.policy.total_memory {
            let pool = MemoryPool::new(total.most);
            self.runtimes.values().flatten().for_each(|runtime| runtime.share_memory(&pool));
            self.launcher.iter().for_each(|launcher| launcher.share_memory(&pool));
        }
        let mut services = self.services;
        let (secrets, data) = (self.secrets, self.data);
        let launches = self.launcher.is_some() || services.contains_key("process");
        let process = Process { launcher: self.launcher };
        services.entry("kv".to_owned()).or_insert_with(|| Arc::new(Kv::Own));
        services.entry("store".to_owned()).or_insert_with(|| Arc::new(Kv::Shared));
        services.entry("data".to_owned()).or_insert_with(|| Arc::new(data));
        services.entry("process".to_owned()).or_insert_with(|| Arc::new(process));
        services.entry("calls".to_owned()).or_insert_with(|| Arc::new(Calls));
        services.entry("events".to_owned()).or_insert_with(|| Arc::new(Events));
        services.entry("hooks".to_owned()).or_insert_with(|| Arc::new(HookService));
        services.entry("secrets".to_owned()).or_insert_with(|| Arc::new(secrets));
        let core = Core {
            runtimes: self.runtimes,
            policy: self.policy,
            services,
            kv: self.kv.map_or_else(OnceLock::new, OnceLock::from),
            shared: MemoryKv::default(),
            launches,
            bus: Bus::default(),
            events: self.events,
            hooks: Hooks::default(),
            apis: Apis::default(),
            deadlines: Deadlines::start(&handle),
            routes: ArcSwap::default(),
            loading: Mutex::default(),
            generations: AtomicU64::new(1),
            call_ids: CallIds::new(),
            given_up: Arc::default(),
            rules: Arc::default(),
            trail: Arc::default(),
            alerts: broadcast::Sender::new(ALERTS),
            detached: Arc::new(Semaphore::new(DETACHED_CALLS)),
            executor: Some(executor),
            handle,
        };
        let core = Arc::new(core);
        core.monitor();
        Ok(Dispatcher { core })
    }
}
