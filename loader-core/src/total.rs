//! The memory of all extensions together.

use std::any::Any;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use quadriga_abi::limits::ByteSize;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::Serialize;

use crate::dispatcher::Core;
use crate::route::Slot;
use crate::ward::{Action, Alert};
use crate::{Instance, State};

/// The name that alerts about it carry.
const RULE: &str = "total memory";

/// The most memory that all extensions of a host may use together, by what their instances say
/// ([`Usage::memory`](crate::Usage::memory)). Those whose engine cannot tell count as nothing.
///
/// Above it nothing is loaded, and no memory limit is raised. When a sample is above it, the largest
/// extension that uses more than its share, which is the same for all that are loaded, gets an alert.
/// The action keeps it from growing; what it holds it gives back when it is unloaded or reloaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TotalMemory {
    /// Bytes.
    pub most: u64,
    /// What becomes of the extension that gets the alert.
    pub action: Action,
}

/// The same for runtimes that can hold their extensions to it themselves, all of one dispatcher
/// together: each is told the same one.
#[derive(Debug)]
pub struct MemoryPool {
    most: u64,
    kept: OnceLock<Result<Arc<dyn Any + Send + Sync>, String>>,
}

impl MemoryPool {
    pub(crate) fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { most, kept: OnceLock::new() })
    }

    /// The bytes that all may use together.
    pub fn most(&self) -> u64 {
        self.most
    }

    /// What holds extensions to it, for all runtimes that ask for one of this type. The first makes
    /// it.
    ///
    /// # Errors
    /// Why it could not be made, each time.
    pub fn keeper<T: Send + Sync + 'static>(
        &self,
        make: impl FnOnce(u64) -> Result<T, String>,
    ) -> Result<Arc<T>, String> {
        let make = || make(self.most).map(|made| Arc::new(made) as Arc<dyn Any + Send + Sync>);
        let kept = self.kept.get_or_init(make).clone()?;
        kept.downcast().map_err(|_| "runtimes of other sorts have one".to_owned())
    }
}

impl Core {
    /// Refuses what would take more memory while too much is used. `new` is not among the routes yet,
    /// and takes the place of the generation of `renewed` that is.
    pub(crate) fn check_total(
        &self,
        renewed: Option<&ExtensionId>,
        new: Option<&dyn Instance>,
    ) -> Result<(), Error> {
        let Some(TotalMemory { most, .. }) = self.policy.total_memory else { return Ok(()) };
        let routes = self.routes.load();
        let others = routes.values().filter(|slot| Some(&slot.id) != renewed);
        let loaded = others.filter_map(|slot| slot.instance.usage().memory);
        let used: u64 = loaded.chain(new.and_then(|new| new.usage().memory)).sum();
        if used <= most {
            return Ok(());
        }
        let (used, most) = (ByteSize(used), ByteSize(most));
        let message = format!("the extensions use {used} of memory together; the host gives them {most}");
        Err(Error::new(ErrorCode::MemoryLimit, message).with_hint("unload some, or raise the policy's total"))
    }

    /// Looks at the memory of all extensions, as it was sampled just now.
    pub(crate) fn look_at_total(&self) {
        let Some(TotalMemory { most, action }) = self.policy.total_memory else { return };
        let routes = self.routes.load();
        let loaded: Vec<(u64, &Slot)> = routes
            .values()
            .filter(|slot| slot.source.is_some())
            .filter_map(|slot| Some((slot.reach.ward.history.memory()?, &**slot)))
            .collect();
        let used: u64 = loaded.iter().map(|(memory, _)| memory).sum();
        let share = most / loaded.len().max(1) as u64;
        let greedy = |(memory, slot): &&(u64, &Slot)| *memory > share && slot.may_be_held();
        let Some((memory, slot)) = loaded.iter().filter(greedy).max_by_key(|(memory, _)| *memory) else {
            return;
        };
        if used <= most || !slot.reach.ward.history.with(|kept| kept.may_tell_total()) {
            return;
        }
        let [used, most, memory] = [used, most, *memory].map(ByteSize);
        let evidence = format!("it uses {memory} of the {used} that all use; they may use {most}");
        let samples = slot.reach.ward.history.with(|kept| kept.series.back().copied().into_iter().collect());
        let (extension, rule, at) = (slot.id.clone(), RULE.to_owned(), SystemTime::now());
        self.raise(slot, Alert { extension, rule, evidence, samples, at, action });
    }
}

impl Slot {
    /// Whether it takes calls, so that an alert can do something about it.
    fn may_be_held(&self) -> bool {
        matches!(self.reach.ward.standing.state(), State::Running | State::Throttled)
    }
}
