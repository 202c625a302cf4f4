//! A home and a host together: what runs changes with what is installed.

use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde_json::json;
use sqlx::{Sqlite, SqlitePool, Transaction};
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::audit::{self, Act};
use super::graph::Graph;
use super::{Home, Installed, InstalledState, fault, find, store};
use crate::switch::Change;
use crate::ward::{Effect, Trail};
use crate::{Dispatcher, Status};

/// How long what was decided waits to be written down.
const SOON: Duration = Duration::from_secs(1);

/// A host that a home is attached to.
pub(super) struct Attached {
    pub(super) host: Dispatcher,
    /// Held by who writes down what was decided.
    turn: Arc<Mutex<()>>,
    keeper: AbortHandle,
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.keeper.abort();
        self.host.core.trail.leave();
    }
}

impl Home {
    /// From now on what runs in a host changes together with the home, or neither does. What is enabled
    /// [`start`](super::start) loads first.
    ///
    /// - `update` and `rollback` load the new version beside the old one, with what the home grants it. It
    ///   has to load, to give a sign of life and be well by its `[health] method`, and to take the state over
    ///   (methods `snapshot` and `restore`).
    ///   Then the transaction of the home is committed and calls go to the new version, those of all versions
    ///   that came together at once; the old one finishes its calls. No call is lost. While state is handed
    ///   over, calls of the host wait, and those under way have half a second to finish; what they, or other
    ///   extensions, change in the old version after that is lost.
    /// - `enable` and `install` load what is enabled, in the order in which it can start; `disable` and
    ///   `uninstall` unload it, those that need others first.
    /// - `grant` and `revoke` hold from the next access on. An extension whose runtime cannot take back what
    ///   it handed out is started anew; where that fails it is put in quarantine.
    /// - `configure` asks the extension first, and then renews it as an update does.
    /// - `distrust` and `set_terms` take back at once what may no longer be granted. The isolation that they
    ///   demand, and whether an extension may run at all, is looked at when it is next started.
    ///
    /// Whatever fails up to the commit is the error of the operation: what ran goes on with its state, and
    /// the home is as it was. The operation is not given up after that, even if its future is dropped; if the
    /// process is killed, the home says what the next one starts. Operations take place one after another:
    /// one that loads something holds up the others, and [`Dispatcher::revoke`] is there for what cannot wait.
    ///
    /// What extensions put into the key-value store the home keeps, unless the host has a store of its own
    /// ([`Builder::kv`](crate::Builder::kv)) or is attached to another home already.
    ///
    /// Events of subscriptions that want each at least once are kept in the home, if the host has no store of its
    /// own.
    ///
    /// What the host decides about extensions goes into the audit trail, in the name of
    /// [`HOST`](super::HOST): all that is denied, the first access of each sort that is allowed, each read of a
    /// secret or a sensitive field, and what alerts and supervision do. It is written down within a second or
    /// so; the same things are counted, and written down once a minute, and so is what goes beyond 64
    /// different things of one extension. A process that is killed does not write down the last second.
    pub fn attach(self, host: &Dispatcher) -> Self {
        host.core.kv.get_or_init(|| Arc::new(self.data.clone()));
        let (turn, store) = (Arc::<Mutex<()>>::default(), self.store.clone());
        host.core.trail.keep();
        // A host with a store of its own goes on with that.
        let _ = host.core.events.set(Arc::new(self.events.clone()));
        let keeping = keep(store, Arc::clone(&host.core.trail), Arc::clone(&turn));
        let keeper = host.core.executor().spawn(keeping).abort_handle();
        Self { host: Some(Arc::new(Attached { host: host.clone(), turn, keeper })), ..self }
    }

    /// Has the attached host load an extension anew from its folder, as [`Dispatcher::reload`] does; or for
    /// the first time, if it is enabled and did not start.
    ///
    /// # Errors
    /// `not_installed`; `host_not_running`, if no host is attached; as for [`Dispatcher::reload`] or
    /// [`Dispatcher::load`].
    pub async fn reload(&self, id: &str, actor: &str) -> Result<Status, Error> {
        let Some(Attached { host, .. }) = self.host.as_deref() else {
            return Err(Error::new(ErrorCode::HostNotRunning, "the home is attached to no host"));
        };
        let (mut transaction, all) = self.begin().await?;
        let installed = find(&all, id)?;
        let enabled = installed.state == InstalledState::Enabled;
        match host.core.folder_of(&installed.id) {
            None if enabled => _ = host.load(&installed.current.folder, installed.load_options()?).await?,
            _ => host.reload(id).await?,
        }
        let status = host.status(id)?;
        let detail = json!({ "version": status.version });
        audit::write(&mut transaction, Act { actor, action: "reload", extension: id, detail }).await?;
        transaction.commit().await.map_err(store::failed)?;
        Ok(status)
    }

    /// Writes down what an attached host decided up to now.
    pub(super) async fn write_down(&self) -> Result<(), Error> {
        let Some(Attached { host, turn, .. }) = self.host.as_deref() else { return Ok(()) };
        let _turn = turn.lock().await;
        audit::write_decisions(&self.store, &host.core.trail, true).await
    }

    /// Has a transaction take effect together with what runs.
    pub(super) async fn commit_live(
        &self,
        host: &Dispatcher,
        mut transaction: Transaction<'static, Sqlite>,
        before: &[Installed],
    ) -> Result<(), Error> {
        let after = store::list(&mut transaction, &self.path).await?;
        let switch = host.core.prepare(self.changes(host, before, &after)?).await?;
        fault::point("with what is new ready");
        let committed = host.core.executor().spawn(async move {
            fault::point("before the commit");
            transaction.commit().await.map_err(store::failed)?;
            fault::point("after the commit");
            let late = switch.commit().await;
            fault::point("switched");
            Ok(late)
        });
        let stopped = |_| Err(Error::new(ErrorCode::Internal, "the operation ended early"));
        for (id, effect) in committed.await.unwrap_or_else(stopped)? {
            take_back(host, &id, effect).await;
        }
        Ok(())
    }

    /// What has to change in a host: first what is unloaded, in its order, and then what is loaded.
    fn changes(
        &self,
        host: &Dispatcher,
        before: &[Installed],
        after: &[Installed],
    ) -> Result<Vec<Change>, Error> {
        let enabled = |list: &[Installed], id: &ExtensionId| {
            list.iter().find(|it| it.id == *id && it.state == InstalledState::Enabled).cloned()
        };
        let order = |list: &[Installed]| -> Vec<ExtensionId> {
            let graph = Graph::of_enabled(list);
            graph.levels().into_iter().flatten().map(|node| graph.id(node).clone()).collect()
        };
        // What was loaded from elsewhere is not the home's.
        let packages = self.path.join("packages");
        let running = |id: &ExtensionId| host.core.folder_of(id).filter(|it| it.starts_with(&packages));
        let mut changes: Vec<Change> = order(before)
            .into_iter()
            .rev()
            .filter(|id| running(id).is_some() && enabled(after, id).is_none())
            .map(Change::Unload)
            .collect();
        for now in order(after).iter().filter_map(|id| enabled(after, id)) {
            let id = now.id.clone();
            let was = enabled(before, &id);
            let is_new = was.as_ref().is_none_or(|was| was.current.folder != now.current.folder);
            match (was, running(&id)) {
                (Some(was), Some(_)) if !is_new => {
                    if was.config != now.config {
                        changes.push(Change::Configure { id, options: now.load_options()? });
                    } else if was.effective_grant() != now.effective_grant() {
                        changes.push(Change::Grant { id, grant: now.effective_grant() });
                    }
                }
                (_, running) if is_new => {
                    if running.is_none() && host.core.folder_of(&id).is_some() {
                        let message = format!("{id} is loaded already, from elsewhere");
                        return Err(
                            Error::new(ErrorCode::AlreadyLoaded, message).with_hint("unload it first")
                        );
                    }
                    let (folder, options) = (now.current.folder.clone(), now.load_options()?);
                    changes.push(Change::Load { id, folder, options });
                }
                // It did not start, and nothing about it that would change that has changed.
                _ => {}
            }
        }
        Ok(changes)
    }
}

/// Writes down what is decided, until the home is closed.
async fn keep(store: SqlitePool, trail: Arc<Trail>, turn: Arc<Mutex<()>>) {
    while !store.is_closed() {
        tokio::time::sleep(SOON).await;
        let _turn = turn.lock().await;
        if let Err(error) = audit::write_decisions(&store, &trail, false).await {
            tracing::warn!(%error, "what was decided is not written down yet");
        }
    }
}

/// Has a revocation hold that a runtime could not put into effect at once.
async fn take_back(host: &Dispatcher, id: &ExtensionId, effect: Effect) {
    if effect != Effect::AfterReload {
        return;
    }
    if let Err(error) = host.core.renew_now(id.as_str(), false).await {
        tracing::warn!(extension = id.as_str(), %error, "does not start anew");
        let why = format!("what was taken from it could not be taken back: {}", error.message);
        // It may have been unloaded meanwhile.
        let _ = host.quarantine(id.as_str(), &why);
    }
}
