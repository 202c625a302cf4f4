//! Several extensions change together: what is new is loaded beside what runs, and takes its place only once
//! all of it is ready.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};

use crate::dispatcher::{Core, lock};
use crate::health::PATIENCE;
use crate::load::{Reservation, retire};
use crate::manifest::read_manifest;
use crate::policy::unmediated;
use crate::route::{CLOSED, Routes, Slot};
use crate::service::not_a_service;
use crate::state::Hold;
use crate::supervise::AGAIN;
use crate::ward::{Effect, Ward};
use crate::{Grant, LoadOptions};

/// What becomes of one extension.
#[derive(Debug)]
pub(crate) enum Change {
    /// It is loaded from a folder, in the place of what runs under its id.
    Load { id: ExtensionId, folder: PathBuf, options: LoadOptions },
    /// What runs is loaded once more with other settings, if it takes them.
    Configure { id: ExtensionId, options: LoadOptions },
    /// What runs is granted this instead.
    Grant { id: ExtensionId, grant: Permissions },
    /// It is unloaded, if it is loaded.
    Unload(ExtensionId),
}

/// Changes that can still be left: dropped, it leaves everything as it was.
pub(crate) struct Switch {
    core: Arc<Core>,
    reserved: Vec<Reservation>,
    /// Each with the one whose place it takes.
    new: Vec<(Arc<Slot>, Option<Arc<Slot>>)>,
    /// Those that stand still otherwise.
    paused: Vec<Arc<Slot>>,
    grants: Vec<(Arc<Slot>, Permissions)>,
    gone: Vec<Arc<Slot>>,
    holds: Vec<Hold>,
}

impl Change {
    fn id(&self) -> &ExtensionId {
        match self {
            Self::Load { id, .. }
            | Self::Configure { id, .. }
            | Self::Grant { id, .. }
            | Self::Unload(id) => id,
        }
    }
}

impl Core {
    /// The folder that an extension was loaded from.
    pub(crate) fn folder_of(&self, id: &ExtensionId) -> Option<PathBuf> {
        let slot = self.routes.load().get(id).cloned()?;
        slot.source.as_ref().map(|source| source.root.clone())
    }

    /// Gets changes ready: loads what is new, in this order, makes sure that it is alive and that those that
    /// need it can go on with it, and hands it the state. From then on calls of the host wait where there is
    /// state.
    pub(crate) async fn prepare(self: &Arc<Self>, changes: Vec<Change>) -> Result<Switch, Error> {
        let core = Arc::clone(self);
        let preparing = async move {
            let mut switch = Switch::new(core);
            switch.reserve(&changes).await?;
            switch.load(changes).await?;
            switch.hand_over().await?;
            Ok(switch)
        };
        self.on_executor(preparing).await
    }
}

impl Switch {
    fn new(core: Arc<Core>) -> Self {
        let (reserved, new, paused) = (Vec::new(), Vec::new(), Vec::new());
        Self { core, reserved, new, paused, grants: Vec::new(), gone: Vec::new(), holds: Vec::new() }
    }

    /// Nobody else loads or unloads them. Waits for who does.
    async fn reserve(&mut self, changes: &[Change]) -> Result<(), Error> {
        let until = Instant::now() + self.core.policy.load_timeout + self.core.policy.drain_timeout;
        for change in changes {
            let reserved = loop {
                match self.core.reserve(change.id()) {
                    Err(_) if Instant::now() < until => tokio::time::sleep(AGAIN).await,
                    reserved => break reserved?,
                }
            };
            self.reserved.push(reserved);
        }
        Ok(())
    }

    /// Loads what is new, and finds the rest.
    async fn load(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let core = Arc::clone(&self.core);
        let mut routes = Routes::clone(&core.routes.load());
        let (gone, others): (Vec<Change>, Vec<Change>) =
            changes.into_iter().partition(|change| matches!(change, Change::Unload(_)));
        self.gone.extend(gone.iter().filter_map(|change| routes.remove(change.id())));
        for change in others {
            let old = routes.get(change.id()).cloned();
            let new = match (change, old) {
                (Change::Grant { id, grant }, Some(slot)) => {
                    if let Some(name) = unmediated(&grant, &slot.support, core.launches) {
                        let kind = &slot.kind;
                        let message = format!("{id}: runtime {kind} does not offer the permission {name}");
                        return Err(Error::new(ErrorCode::Unsupported, message));
                    }
                    self.grants.push((slot, grant));
                    continue;
                }
                (Change::Configure { id, options }, Some(old)) => {
                    core.asks(&old, &options.config).await?;
                    let Some(root) = core.folder_of(&id) else { continue };
                    let (config, was_asleep) = (options.config.clone(), old.is_asleep());
                    let new = self.beside(&id, &root, options, Some(old), &routes).await?;
                    if was_asleep {
                        core.asks(&new, &config).await?;
                    }
                    new
                }
                (Change::Load { id, folder, options }, old) => {
                    self.beside(&id, &folder, options, old, &routes).await?
                }
                _ => continue,
            };
            routes.insert(new.id.clone(), new);
        }
        Ok(())
    }

    /// Loads one beside what runs under its id.
    async fn beside(
        &mut self,
        id: &ExtensionId,
        folder: &Path,
        options: LoadOptions,
        old: Option<Arc<Slot>>,
        routes: &Routes,
    ) -> Result<Arc<Slot>, Error> {
        let (root, manifest) = read_manifest(folder)?;
        not_a_service(id, ErrorCode::InvalidManifest)?;
        if manifest.extension.id != *id {
            let message = format!("the manifest says {}, not {id}", manifest.extension.id);
            return Err(Error::new(ErrorCode::InvalidManifest, message));
        }
        let (ward, options) = match old.as_ref().map(|old| (old, &old.source)) {
            None => (Ward::new(id.clone(), options.grant.clone(), false, &self.core.trail), options),
            Some((_, None)) => {
                let message = format!("{id} is part of the host and cannot be replaced");
                return Err(Error::new(ErrorCode::Unsupported, message));
            }
            Some((old, Some(source))) => {
                // What the host said of it stays.
                let LoadOptions { grant, config, isolation, .. } = options;
                let isolation = isolation.max(source.options.isolation);
                let options = LoadOptions { grant, config, isolation, ..source.options.clone() };
                (Arc::clone(&old.reach.ward), options)
            }
        };
        let grant = Some(options.grant.clone());
        let loading = self.core.instantiate_among(root, manifest, options, ward, grant, routes);
        let new = loading.await?;
        self.new.push((Arc::clone(&new), old));
        alive(&self.core, &new).await?;
        Ok(new)
    }

    /// Hands over the state of each.
    async fn hand_over(&mut self) -> Result<(), Error> {
        let routes = self.core.routes.load_full();
        let mut all = Routes::clone(&routes);
        all.extend(self.new.iter().map(|(new, _)| (new.id.clone(), Arc::clone(new))));
        for slot in &self.gone {
            all.remove(&slot.id);
        }
        for (new, old) in &self.new {
            if let Some(old) = old {
                // One that stands still is asked for its state all the same.
                if old.go_on(&mut lock(&old.pause)) {
                    self.paused.push(Arc::clone(old));
                }
                let hold = self.core.succeed(old, new, &all).await?;
                self.holds.extend(hold);
                alive(&self.core, new).await?;
            }
        }
        Ok(())
    }

    /// Has the changes take effect: calls go to all that is new at once, what it replaces finishes its calls,
    /// and what goes is unloaded in its order. Gives those whose runtime did not take back at once what was
    /// taken from them.
    pub(crate) async fn commit(mut self) -> Vec<(ExtensionId, Effect)> {
        let core = Arc::clone(&self.core);
        let (new, old): (Vec<Arc<Slot>>, Vec<Option<Arc<Slot>>>) =
            std::mem::take(&mut self.new).into_iter().unzip();
        self.paused.clear();
        for slot in &new {
            slot.reach.ward.settle(&slot.reach);
            slot.reach.ward.standing.with(|standing| standing.pardon());
        }
        core.routes.rcu(|routes| {
            let mut routes = Routes::clone(routes);
            routes.extend(new.iter().map(|slot| (slot.id.clone(), Arc::clone(slot))));
            routes
        });
        let old: Vec<Arc<Slot>> = old.into_iter().flatten().collect();
        for slot in &old {
            // Before who waits goes on: nobody changes the state that was handed over.
            slot.gate.bar(CLOSED);
        }
        self.holds.clear();
        for slot in &new {
            core.published(slot);
            slot.reach.ward.standing.changed();
            let what = format!("go on as version {}", slot.version);
            slot.reach.ward.log.managed_by_home(&slot.id, what);
        }
        let mut late = Vec::new();
        for (slot, grant) in std::mem::take(&mut self.grants) {
            let effect = slot.reach.ward.regrant(Grant::Only(Box::new(grant)));
            slot.reach.ward.log.managed_by_home(&slot.id, "hold another grant".to_owned());
            late.extend((effect != Effect::Now).then(|| (slot.id.clone(), effect)));
        }
        let gone = std::mem::take(&mut self.gone);
        let unload = async {
            for slot in gone {
                core.remove(slot).await;
            }
        };
        let drain = core.policy.drain_timeout;
        tokio::join!(join_all(old.into_iter().map(|slot| retire(slot, drain))), unload);
        late
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        self.holds.clear();
        for old in &self.paused {
            old.stand_still(&mut lock(&old.pause));
        }
        for (new, _) in self.new.drain(..) {
            // It serves nobody.
            self.core.executor().spawn(async move { new.shut_down().await });
        }
    }
}

/// Makes sure that a generation lives, and is well by the method that its manifest names for that.
async fn alive(core: &Arc<Core>, slot: &Arc<Slot>) -> Result<(), Error> {
    let (id, version) = (&slot.id, &slot.version);
    let pinged = slot.sign_of_life(PATIENCE).await.unwrap_or_else(|| {
        let message = format!("{id} {version} gives no sign of life");
        Err(Error::new(ErrorCode::DeadlineExceeded, message))
    });
    pinged.map_err(|error| error.in_extension(id.as_str()))?;
    let health = slot.source.as_ref().and_then(|source| source.manifest.health.as_ref());
    let Some((method, deadline)) = health.and_then(|it| Some((it.method.as_ref()?, it.deadline.0))) else {
        return Ok(());
    };
    core.ask(slot, method, Bytes::from_static(&[0x90]), Instant::now() + deadline).await.map(drop)
}
