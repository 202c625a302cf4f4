//! Extensions that are loaded when they are first called: what is known of one from its manifest stands in
//! the routes, and a generation with an instance takes its place.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use quadriga_abi::limits::Limits;
use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Description, Error, ErrorCode};
use tokio::sync::Mutex;

use crate::call::LATE;
use crate::dispatcher::Core;
use crate::load::{Examined, LoadOptions};
use crate::route::{ASLEEP, Barred, Slot, Source, THROTTLED};
use crate::stream::pipe;
use crate::supervise::{AGAIN, Renewal};
use crate::ward::{Link, Ward};
use crate::{BoxFuture, Call, CallOptions, Instance, Items, Outcome, Usage};

/// The load that a generation without an instance is still to have.
#[derive(Default)]
pub(crate) struct Sleep {
    /// Held by who loads it.
    failed: Mutex<Option<Failed>>,
}

/// A load that failed, and until when there is no other.
struct Failed {
    error: Error,
    times: u32,
    until: Instant,
}

/// The instance of what has none.
struct NoInstance(Description);

/// Whether an extension does nothing unless it is called: one that answers hooks, listens to events, adds to
/// an API or is looked after on a schedule has to be there.
fn only_answers(manifest: &Manifest) -> bool {
    manifest.hooks.is_empty()
        && manifest.events.is_empty()
        && manifest.api.is_empty()
        && manifest.health.is_none()
}

impl Core {
    /// A generation that is loaded when it is first called, if that is asked for and can be: whatever can be
    /// found wrong without its code is found now.
    pub(crate) fn lay_down(
        self: &Arc<Self>,
        root: &Path,
        manifest: &Arc<Manifest>,
        options: &LoadOptions,
        ward: &Arc<Ward>,
    ) -> Result<Option<Arc<Slot>>, Error> {
        if !options.lazy || !only_answers(manifest) {
            return Ok(None);
        }
        let examined =
            self.examine(root.to_path_buf(), manifest, options, ward, None, &self.routes.load())?;
        let Examined { runtime, root, reach, limits, permissions, needs, .. } = examined;
        let (kind, support) = (runtime.kind(), runtime.support());
        let instance: Arc<dyn Instance> = Arc::new(NoInstance(Description::new(kind.as_str(), Vec::new())));
        reach.attach(&instance, support.isolation, &permissions)?;
        let source = Source { root, manifest: Arc::clone(manifest), options: options.clone(), needs };
        let version = manifest.extension.version.0.clone();
        let begun = Instant::now();
        let mut slot = self.slot(reach, kind, version, support, instance, limits, Some(source), begun)?;
        if let Some(slot) = Arc::get_mut(&mut slot) {
            slot.sleep = Some(Box::default());
            slot.gate.bar(ASLEEP);
        }
        Ok(Some(slot))
    }

    /// Loads what sleeps, or waits until somebody else has. Whoever stops waiting ends nothing.
    ///
    /// # Errors
    /// Why it does not load; for a while also the next who asks is told that. Why it takes no calls.
    pub(crate) async fn awaken(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        deadline: Option<Instant>,
    ) -> Result<(), Error> {
        let (core, slot) = (Arc::clone(self), Arc::clone(slot));
        // On our own executor, which has timers.
        self.on_executor(async move {
            let id = slot.id.clone();
            let loading = core.executor().spawn({
                let core = Arc::clone(&core);
                async move { core.load_asleep(&slot).await }
            });
            let loaded = match deadline {
                Some(deadline) => tokio::time::timeout_at(deadline.into(), loading).await,
                None => Ok(loading.await),
            };
            let late = |_| Error::new(ErrorCode::DeadlineExceeded, LATE).in_extension(id.as_str());
            loaded.map_err(late)?.unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "a load panicked")))
        })
        .await
    }

    async fn load_asleep(self: &Arc<Self>, slot: &Arc<Slot>) -> Result<(), Error> {
        let Some(sleep) = &slot.sleep else { return Ok(()) };
        let mut failed = sleep.failed.lock().await;
        let until = Instant::now() + self.policy.load_timeout + self.policy.drain_timeout;
        loop {
            if !self.is_current(slot) {
                return Ok(());
            }
            match slot.pass(ASLEEP | THROTTLED) {
                Ok(_) => slot.leave(),
                Err(Barred::Refused(error)) => return Err(error),
                Err(_) => {}
            }
            if let Some(failed) = failed.as_ref().filter(|failed| Instant::now() < failed.until) {
                return Err(failed.error.clone());
            }
            let how = Renewal::Beside { generation: slot.generation, crashed: false };
            match self.renew(slot.id.as_str(), false, how, None).await {
                Ok(()) => {}
                // Somebody else loads or unloads it.
                Err(error) if error.code == ErrorCode::AlreadyLoaded && Instant::now() < until => {
                    tokio::time::sleep(AGAIN).await;
                }
                Err(error) => {
                    let times = failed.as_ref().map_or(1, |failed| failed.times.saturating_add(1));
                    let until = Instant::now() + self.supervision(slot).delay(times);
                    slot.reach.ward.standing.with(|it| it.fail(error.clone(), true, None));
                    *failed = Some(Failed { error: error.clone(), times, until });
                    return Err(error);
                }
            }
        }
    }

    /// Calls for the host what sleeps.
    #[cold]
    pub(crate) fn begin_awake(
        self: &Arc<Self>,
        slot: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Outcome {
        let (core, method) = (Arc::clone(self), method.to_owned());
        Outcome::Pending(Box::pin(async move {
            core.awaken(&slot, options.deadline).await?;
            core.begin(slot.id.as_str(), &method, arguments, options).result().await
        }))
    }

    /// Calls for an extension what sleeps. Never runs it on the calling thread.
    #[cold]
    pub(crate) fn call_awake(
        self: &Arc<Self>,
        link: &Arc<Link>,
        to: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> BoxFuture<'static, Result<Bytes, Error>> {
        let (core, link, method) = (Arc::clone(self), Arc::clone(link), method.to_owned());
        Box::pin(async move {
            core.awaken(&to, options.deadline).await?;
            core.call_detached(&link, to, &method, arguments, options).await
        })
    }

    /// Starts a call with streams to what sleeps.
    #[cold]
    pub(crate) fn start_awake(
        self: &Arc<Self>,
        link: Option<&Arc<Link>>,
        to: Arc<Slot>,
        method: &str,
        arguments: Bytes,
        mut options: CallOptions,
        stream: bool,
    ) -> Items {
        let (output, input) = if stream { Some(pipe()) } else { None }.unzip();
        options.output = output;
        let (core, link, method) = (Arc::clone(self), link.cloned(), method.to_owned());
        let single = Arc::new(AtomicBool::new(true));
        let is_single = Arc::clone(&single);
        let call = Box::pin(async move {
            core.awaken(&to, options.deadline).await?;
            let sent = arguments.len();
            let admitted = core.admit_or_find(to, &method, arguments, options)?;
            let admitted = match &link {
                Some(link) => admitted.counted(link, sent),
                None => admitted,
            };
            let streams = stream && admitted.streams();
            is_single.store(!streams, std::sync::atomic::Ordering::Relaxed);
            core.detach(admitted).await
        });
        Items::later(input, call, single)
    }
}

impl Slot {
    /// Whether it has no instance yet.
    pub(crate) fn is_asleep(&self) -> bool {
        self.sleep.is_some()
    }
}

impl Instance for NoInstance {
    fn describe(&self) -> &Description {
        &self.0
    }

    fn call(&self, _call: Call) -> Outcome {
        Error::new(ErrorCode::Internal, "it has not been loaded").into()
    }

    fn blocks(&self) -> bool {
        false
    }

    fn interrupt(&self, _call: u64) {}

    fn usage(&self) -> Usage {
        Usage { memory: Some(0), ..Usage::default() }
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }

    /// It was handed nothing.
    fn permissions_changed(&self, _permissions: &Permissions) -> bool {
        true
    }

    /// It is loaded with them.
    fn set_limits(&self, _limits: &Limits) -> Result<(), Error> {
        Ok(())
    }
}
