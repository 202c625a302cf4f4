//! Replaces workers that have served long enough by fresh ones, and loses no call over it: the next
//! generation is started beside the present one, which finishes its calls.

use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::{Error, ErrorCode, Isolation};

use crate::dispatcher::Core;
use crate::route::Slot;
use crate::supervise::Renewal;
use crate::{LoadOptions, Support};

/// How often is looked. What bounds it is seen so much later.
const INTERVAL: Duration = Duration::from_millis(200);

/// How long to wait after a fresh one could not be started.
const AGAIN: Duration = Duration::from_secs(10);

/// Looks in a row that find too much memory in use, after which it counts as that of one at rest.
const LOOKS: u32 = 10;

/// When a worker process is replaced by a fresh one though nothing is wrong with it: for code that
/// leaks, or is better off with an empty memory now and then. `None` is never.
///
/// What the extension has not handed over with `snapshot` and `restore` begins anew. The workers of
/// one extension are replaced together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Recycle {
    /// After so many calls, on average over its workers.
    pub calls: Option<u64>,
    /// When it holds more bytes of memory than that while no call is under way, on average over its
    /// workers; for one that is never seen without a call, in ten looks in a row, five in a second.
    pub memory: Option<u64>,
}

impl Recycle {
    fn is_set(&self) -> bool {
        self.calls.is_some() || self.memory.is_some()
    }

    /// Whether it has come to that. `looks` counts those that found too much memory in use.
    fn is_due(&self, slot: &Slot, looks: &mut u32) -> bool {
        let usage = slot.instance.usage();
        let workers = u64::from(usage.instances.max(1));
        if self.calls.is_some_and(|most| slot.counters.calls() / workers >= most) {
            return true;
        }
        let at_rest = slot.gate.inside() == 0;
        let much = self.memory.zip(usage.memory).is_some_and(|(most, memory)| memory / workers > most);
        *looks = if much { *looks + 1 } else { 0 };
        much && (at_rest || *looks >= LOOKS)
    }
}

/// Who asks for it for one extension must get it.
pub(crate) fn check_recycling(options: &LoadOptions, support: &Support) -> Result<(), Error> {
    if options.recycle.is_some_and(|recycle| recycle.is_set()) && support.isolation < Isolation::Process {
        let message = "only what runs in a process of its own can be replaced by a fresh one";
        return Err(Error::new(ErrorCode::Unsupported, message)
            .with_hint("ask for isolation process, or leave `recycle` out"));
    }
    Ok(())
}

impl Core {
    /// Has somebody look whether a generation has served long enough, if there is a bound to that.
    pub(crate) fn recycle(self: &Arc<Self>, slot: &Arc<Slot>) {
        let Some(source) = &slot.source else { return };
        let recycle = source.options.recycle.unwrap_or(self.policy.recycle);
        if !recycle.is_set() || slot.isolation < Isolation::Process {
            return;
        }
        let (core, slot) = (Arc::downgrade(self), Arc::downgrade(slot));
        self.executor().spawn(async move {
            let mut looks = 0;
            let mut pause = INTERVAL;
            loop {
                tokio::time::sleep(pause).await;
                pause = INTERVAL;
                let Some((core, slot)) = core.upgrade().zip(slot.upgrade()) else { return };
                if !core.is_current(&slot) {
                    return;
                }
                if !recycle.is_due(&slot, &mut looks) {
                    continue;
                }
                let how = Renewal::Beside { generation: slot.generation, crashed: false };
                match core.renew(slot.id.as_str(), false, how, None).await {
                    // Somebody else is loading it.
                    Err(error) if error.code == ErrorCode::AlreadyLoaded => {}
                    Err(error) => {
                        tracing::warn!(extension = slot.id.as_str(), %error, "is not replaced by a fresh one");
                        pause = AGAIN;
                    }
                    Ok(()) => {}
                }
            }
        });
    }
}
