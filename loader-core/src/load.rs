use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use quadriga_abi::limits::{ByteSize, Limits, Span};
use quadriga_abi::manifest::{Check, Manifest};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, Isolation, Target};

use crate::config::{Configuration, Origin, Settings};
use crate::contract::{Checks, Needs, still_fits};
use crate::dispatcher::{Core, lock};
use crate::fit::fits_host;
use crate::limits::Caps;
use crate::manifest::{check_description, entry, read_manifest};
use crate::metrics::Counters;
use crate::recycle::check_recycling;
use crate::route::{CLOSED, Gate, Routes, Slot, Source, Watcher};
use crate::service::not_a_service;
use crate::state::Hold;
use crate::supervise::Renewal;
use crate::ward::{Reach, Ward};
use crate::{Bridge, Grant, Instance, Recycle, Runtime, State, Supervision, Support, Unit};

/// How long a runtime may take to report a load that is over time.
const GRACE: Duration = Duration::from_secs(1);

/// What a host says about one load.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// What the extension may do.
    pub grant: Grant,
    /// Settings over the manifest's defaults, by name. They have to fit its schema.
    pub config: Settings,
    /// The weakest isolation for this load, if it is to be stronger than manifest and policy say.
    /// A reload keeps to it.
    pub isolation: Option<Isolation>,
    /// What becomes of it when its instance ends; `None` leaves it to the policy.
    pub supervision: Option<Supervision>,
    /// When its workers are replaced by fresh ones; `None` leaves it to the policy.
    pub recycle: Option<Recycle>,
    /// Loads its code only when it is first called: then that call waits, and has the error if it does not
    /// load. Of no effect on an extension that has to be there, as it answers hooks, listens to events, adds
    /// to an API or has `[health]`.
    pub lazy: bool,
}

/// All that can be said of an extension before its code is loaded.
pub(crate) struct Examined {
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) root: PathBuf,
    entry: PathBuf,
    config: Bytes,
    pub(crate) reach: Arc<Reach>,
    pub(crate) limits: Limits,
    pub(crate) permissions: Permissions,
    pub(crate) needs: Needs,
}

/// Keeps an id for one load.
pub(crate) struct Reservation {
    core: Arc<Core>,
    pub(crate) id: ExtensionId,
}

impl Core {
    pub(crate) async fn load(
        self: &Arc<Self>,
        folder: PathBuf,
        options: LoadOptions,
    ) -> Result<ExtensionId, Error> {
        let core = Arc::clone(self);
        self.on_executor(async move {
            let (root, manifest) = read_manifest(&folder)?;
            let reserved = core.reserve(&manifest.extension.id)?;
            if core.routes.load().contains_key(&reserved.id) {
                return Err(taken(&reserved.id));
            }
            not_a_service(&reserved.id, ErrorCode::InvalidManifest)?;
            let ward = Ward::new(reserved.id.clone(), options.grant.clone(), false, &core.trail);
            let slot = match core.lay_down(&root, &manifest, &options, &ward)? {
                Some(asleep) => asleep,
                None => core.instantiate(root, manifest, options, ward).await?,
            };
            core.insert(&slot);
            Ok(reserved.id.clone())
        })
        .await
    }

    /// Puts the next generation in the place of the present one: with the manifest on disk
    /// (`anew`), or the one it was loaded with.
    pub(crate) async fn renew_now(self: &Arc<Self>, extension: &str, anew: bool) -> Result<(), Error> {
        let (core, extension) = (Arc::clone(self), extension.to_owned());
        self.on_executor(async move { core.renew(&extension, anew, Renewal::Asked, None).await }).await
    }

    /// The same on our own executor, for other reasons, and with other settings if there are any.
    pub(crate) async fn renew(
        self: &Arc<Self>,
        extension: &str,
        anew: bool,
        how: Renewal,
        config: Option<Settings>,
    ) -> Result<(), Error> {
        let old = self.route(extension)?;
        let reserved = self.reserve(&old.id)?;
        let old = self.route(extension)?;
        if how.generation().is_some_and(|generation| generation != old.generation) {
            return Ok(());
        }
        let Some(source) = &old.source else {
            let message = format!("{extension} is part of the host and cannot be reloaded");
            return Err(Error::new(ErrorCode::Unsupported, message));
        };
        let (root, manifest) = match anew {
            true => read_manifest(&source.root)?,
            false => (source.root.clone(), Arc::clone(&source.manifest)),
        };
        if manifest.extension.id != old.id {
            let message = format!("the manifest now says {}, not {extension}", manifest.extension.id);
            return Err(Error::new(ErrorCode::InvalidManifest, message));
        }
        let ward = Arc::clone(&old.reach.ward);
        let mut options = source.options.clone();
        options.config = config.unwrap_or(options.config);
        let new = self.instantiate(root, manifest, options, ward).await?;
        // One that stands still is asked for its state all the same.
        let paused = old.go_on(&mut lock(&old.pause));
        let held = match self.succeed(&old, &new, &self.routes.load_full()).await {
            Ok(held) => held,
            Err(error) => {
                if paused {
                    old.stand_still(&mut lock(&old.pause));
                }
                new.instance.shutdown().await;
                return Err(error);
            }
        };
        let replaced = self.replace(&new, how);
        if replaced {
            // Before who waits goes on: nobody changes the state that was handed over.
            old.gate.bar(CLOSED);
        }
        drop(held);
        if !replaced {
            new.instance.shutdown().await;
        } else if matches!(how, Renewal::Beside { .. }) {
            // No call is lost for it, however long it takes. Holds nothing but what it waits for.
            self.executor().spawn(retire(old, Duration::MAX));
        } else {
            if old.ended.load(Ordering::Relaxed) {
                // There is nothing to wait for that an operator would have to wait for too.
                drop(reserved);
            }
            retire(old, self.policy.drain_timeout).await;
        }
        Ok(())
    }

    /// Makes sure that a generation can take the place of another among those of some routes, and hands the
    /// state over.
    pub(crate) async fn succeed(
        self: &Arc<Self>,
        old: &Arc<Slot>,
        new: &Arc<Slot>,
        routes: &Routes,
    ) -> Result<Option<Hold>, Error> {
        still_fits(new, routes)?;
        let is_sound = old.reach.ward.standing.state() != State::Quarantined;
        if !is_sound || old.ended.load(Ordering::Relaxed) {
            return Ok(None);
        }
        self.hand_over(old, new, Instant::now() + self.policy.load_timeout).await
    }

    pub(crate) async fn unload(self: &Arc<Self>, extension: &str) -> Result<(), Error> {
        let (core, extension) = (Arc::clone(self), extension.to_owned());
        self.on_executor(async move {
            let slot = core.route(&extension)?;
            let _reserved = core.reserve(&slot.id)?;
            core.remove(slot).await;
            Ok(())
        })
        .await
    }

    /// Takes an extension out of the routes and ends it, for who has reserved its id.
    pub(crate) async fn remove(&self, slot: Arc<Slot>) {
        self.routes.rcu(|routes| {
            let mut routes = (**routes).clone();
            routes.remove(&slot.id);
            routes
        });
        self.bus.forget(&slot.reach.ward);
        self.hooks.forget(&slot.reach.ward);
        self.apis.forget(&slot);
        retire(slot, self.policy.drain_timeout).await;
    }

    /// Runs work on our own executor, and ends it if the caller goes away.
    pub(crate) async fn on_executor<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Error>> + Send + 'static,
    ) -> Result<T, Error> {
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn_on(work, self.executor());
        let stopped = |_| Err(Error::new(ErrorCode::Internal, "the work panicked"));
        match tasks.join_next().await {
            Some(result) => result.unwrap_or_else(stopped),
            None => Err(Error::new(ErrorCode::Internal, "the work went missing")),
        }
    }

    pub(crate) fn reserve(self: &Arc<Self>, id: &ExtensionId) -> Result<Reservation, Error> {
        if lock(&self.loading).insert(id.clone()) {
            Ok(Reservation { core: Arc::clone(self), id: id.clone() })
        } else {
            let message = format!("{id} is being loaded or unloaded at this moment");
            Err(Error::new(ErrorCode::AlreadyLoaded, message))
        }
    }

    pub(crate) fn insert(self: &Arc<Self>, slot: &Arc<Slot>) {
        self.routes.rcu(|routes| {
            let mut routes = (**routes).clone();
            routes.insert(slot.id.clone(), Arc::clone(slot));
            routes
        });
        self.published(slot);
    }

    /// What follows for a generation once calls go to it.
    pub(crate) fn published(self: &Arc<Self>, slot: &Arc<Slot>) {
        self.declare(slot);
        self.hooks.declare(slot);
        self.apis.declare(slot);
        self.watch(slot);
        self.recycle(slot);
        self.check_health(slot);
        self.schedule(slot);
    }

    /// Checks a manifest against this host, loads its entry, and checks what came of it.
    pub(crate) async fn instantiate(
        self: &Arc<Self>,
        root: PathBuf,
        manifest: Arc<Manifest>,
        options: LoadOptions,
        ward: Arc<Ward>,
    ) -> Result<Arc<Slot>, Error> {
        self.instantiate_among(root, manifest, options, ward, None, &self.routes.load_full()).await
    }

    /// The same with a grant that holds from the moment on at which calls go to it, and with what it needs
    /// to be found in some routes.
    pub(crate) async fn instantiate_among(
        self: &Arc<Self>,
        root: PathBuf,
        manifest: Arc<Manifest>,
        options: LoadOptions,
        ward: Arc<Ward>,
        grant: Option<Grant>,
        routes: &Routes,
    ) -> Result<Arc<Slot>, Error> {
        let started = Instant::now();
        let id = manifest.extension.id.clone();
        self.check_total(Some(&id), None)?;
        self.apis.claim(&manifest)?;
        let examined = self.examine(root, &manifest, &options, &ward, grant, routes)?;
        let Examined { runtime, root, entry, config, reach, mut limits, permissions, needs } = examined;
        let timeout = limits.load_timeout.map_or(self.policy.load_timeout, |Span(timeout)| timeout);
        let deadline = started + timeout;
        let trusted = Bytes::from(self.policy.trusted_certificates.clone());
        let bridge = Bridge::new(id.clone(), self.weak(), Arc::clone(&reach), config, trusted);
        // A runtime in another process bounds what it reads.
        limits.message_size.get_or_insert(ByteSize(self.policy.message_size));
        let unit = Unit {
            manifest: Arc::clone(&manifest),
            root: root.clone(),
            entry,
            limits: limits.clone(),
            permissions: permissions.clone(),
            deadline,
            prepared: None,
        };
        reach.begins(&unit, runtime.support().isolation);
        let loading = tokio::time::timeout_at((deadline + GRACE).into(), runtime.load(unit, bridge));
        let late = || {
            let message = format!("{id} did not load within {} ms", timeout.as_millis());
            Err(Error::new(ErrorCode::DeadlineExceeded, message).with_hint("raise [limits] load-timeout"))
        };
        let instance = match loading.await.unwrap_or_else(|_| late()) {
            // The same whether or not the runtime could be interrupted.
            Ok(loaded) if Instant::now() > deadline => {
                loaded.shutdown().await;
                late()
            }
            loaded => loaded,
        };
        let instance = instance.map_err(|error| error.in_extension(id.as_str()))?;
        let support = runtime.support();
        let attached = self.check_total(Some(&id), Some(&*instance));
        let attached = attached.and_then(|()| reach.attach(&instance, support.isolation, &permissions));
        let checked =
            attached.and_then(|()| check_description(&manifest, instance.describe())).and_then(|()| {
                let version = manifest.extension.version.0.clone();
                let source = Source { root, manifest: Arc::clone(&manifest), options, needs };
                let shared = Arc::clone(&instance);
                self.slot(reach, runtime.kind(), version, support, shared, limits, Some(source), started)
            });
        if checked.is_err() {
            instance.shutdown().await;
        }
        checked
    }

    /// Finds out what of a manifest holds here, without running any of the extension's code.
    pub(crate) fn examine(
        self: &Arc<Self>,
        root: PathBuf,
        manifest: &Manifest,
        options: &LoadOptions,
        ward: &Arc<Ward>,
        grant: Option<Grant>,
        routes: &Routes,
    ) -> Result<Examined, Error> {
        let levels = self.levels(manifest)?;
        let limits = manifest.limits.overlaid(&ward.limits()).at_most(&self.policy.limits);
        let reach = self.reach(ward, Some(root.clone()), manifest.permissions.clone(), grant);
        reach.limit_output(&limits);
        let permissions = Permissions::clone(&reach.permissions());
        fits_host(manifest)?;
        for subscription in manifest.events.values() {
            self.can_keep(&manifest.extension.id, subscription.retry().ok().flatten())?;
        }
        let runtime = self.choose(levels, manifest, options.isolation, &limits, &permissions)?;
        let runtime = Arc::clone(runtime);
        check_recycling(options, &runtime.support())?;
        let needs = Needs::read(&root, manifest)?;
        needs.check(routes)?;
        let entry = entry(&root, manifest)?;
        let layers = [(Origin::RunTime, options.config.clone())];
        let config = Configuration::resolve(manifest, layers)?.to_bytes()?;
        Ok(Examined { runtime, root, entry, config, reach, limits, permissions, needs })
    }

    #[expect(clippy::too_many_arguments, reason = "it only fills a struct")]
    pub(crate) fn slot(
        &self,
        reach: Arc<Reach>,
        kind: quadriga_abi::RuntimeKind,
        version: semver::Version,
        support: Support,
        instance: Arc<dyn Instance>,
        limits: Limits,
        source: Option<Source>,
        started: Instant,
    ) -> Result<Arc<Slot>, Error> {
        let id = reach.ward.id.clone();
        let mut methods = HashMap::default();
        for (place, method) in instance.describe().methods.iter().enumerate() {
            let name: Arc<str> = Arc::from(method.name.as_str());
            let target = Target { extension: id.clone(), method: Arc::clone(&name) };
            if methods.insert(name, (Arc::new(target), place)).is_some() {
                let message = format!("{id} describes the method {:?} twice", method.name);
                return Err(Error::new(ErrorCode::ProtocolViolation, message));
            }
        }
        let check = source.as_ref().map_or(Check::None, |source| source.manifest.contract.check);
        let checks = Checks::new(check.or(self.policy.check), &instance.describe().methods)
            .map_err(|error| error.in_extension(id.as_str()))?
            .map(Arc::new);
        let idempotent =
            source.as_ref().map(|source| source.idempotent(instance.describe())).unwrap_or_default();
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let (gate, load_time) = (Gate::default(), started.elapsed());
        let counters = Counters::new(instance.describe().methods.len());
        Ok(Arc::new(Slot {
            id,
            kind,
            version,
            isolation: support.isolation,
            generation,
            load_time,
            begun: Instant::now(),
            instance,
            methods,
            checks,
            caps: Caps::new(&limits, &self.policy),
            support,
            limits,
            idempotent,
            api: None,
            source,
            gate,
            counters,
            given_up: Arc::clone(&self.given_up),
            reach,
            ended: AtomicBool::new(false),
            shut: AtomicBool::new(false),
            pause: Mutex::default(),
            weakened: AtomicBool::new(false),
            watcher: Watcher::default(),
            checked: Mutex::default(),
            checker: Watcher::default(),
            clock: Watcher::default(),
            sleep: None,
        }))
    }

    pub(crate) fn reach(
        &self,
        ward: &Arc<Ward>,
        root: Option<PathBuf>,
        request: Permissions,
        grant: Option<Grant>,
    ) -> Arc<Reach> {
        ward.reach(root, request, self.policy.permissions.clone(), Arc::clone(&self.rules), grant)
    }

    fn weak(self: &Arc<Self>) -> Weak<Self> {
        Arc::downgrade(self)
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.core.apis.settle(&self.id);
        lock(&self.core.loading).remove(&self.id);
    }
}

/// Lets a generation finish its calls, as long as that may take, and ends it.
pub(crate) async fn retire(slot: Arc<Slot>, patience: Duration) {
    // What stands still could not end.
    slot.go_on(&mut lock(&slot.pause));
    slot.gate.drain(patience).await;
    slot.shut_down().await;
}

pub(crate) fn taken(id: &ExtensionId) -> Error {
    let error = Error::new(ErrorCode::AlreadyLoaded, format!("{id} is loaded already"));
    error.with_hint("reload it, or unload it first")
}
