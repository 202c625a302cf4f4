//! The state that an extension hands to the one that takes its place: what its method `snapshot`
//! returns is what `restore` of the next generation gets, before that takes its first call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use quadriga_abi::msgpack::{Token, write};
use quadriga_abi::{Bytes, Error, ErrorCode};

use crate::CallOptions;
use crate::dispatcher::Core;
use crate::metrics::Tick;
use crate::route::{HELD, SWITCHING, Slot, THROTTLED};

/// Returns the state.
const SNAPSHOT: &str = "snapshot";

/// Takes the state over. A call to it is for all processes that an instance runs in.
pub const RESTORE: &str = "restore";

/// Whether a method is for the host alone.
pub(crate) fn is_reserved(method: &str) -> bool {
    method == SNAPSHOT || method == RESTORE
}

/// How long calls under way may take to finish before the state is taken: what they change later is lost.
const SETTLE: Duration = Duration::from_millis(500);

/// Keeps calls of the host waiting while the state is handed over. They go on when it is dropped.
pub(crate) struct Hold(Arc<Slot>);

impl Hold {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.gate.bar(SWITCHING);
        Self(Arc::clone(slot))
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.gate.unbar(SWITCHING);
    }
}

impl Core {
    /// Hands the state of one generation to the next, if the one gives it and the other takes it. As long as
    /// the hold lives that is the state of the extension: calls of the host wait, and calls under way have
    /// finished, if they were not too slow. Calls of other extensions do not wait, since a call under way may
    /// be waiting for them.
    pub(crate) async fn hand_over(
        self: &Arc<Self>,
        old: &Arc<Slot>,
        new: &Arc<Slot>,
        deadline: Instant,
    ) -> Result<Option<Hold>, Error> {
        if !(old.methods.contains_key(SNAPSHOT) && new.methods.contains_key(RESTORE)) {
            return Ok(None);
        }
        let hold = Hold::new(old);
        old.gate.empty(SETTLE).await;
        let state = self.ask(old, SNAPSHOT, Bytes::from_static(&[0x90]), deadline).await?;
        let mut arguments = Vec::with_capacity(state.len() + 1);
        write(&mut arguments, Token::List(1))
            .map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        arguments.extend_from_slice(&state);
        self.ask(new, RESTORE, arguments.into(), deadline).await?;
        Ok(Some(hold))
    }

    /// Calls a method for the host itself, also one that others may not.
    pub(crate) async fn ask(
        self: &Arc<Self>,
        slot: &Arc<Slot>,
        method: &str,
        arguments: Bytes,
        deadline: Instant,
    ) -> Result<Bytes, Error> {
        let closed = || Error::new(ErrorCode::ExtensionStopped, format!("{} is being unloaded", slot.id));
        // A paused extension may be asked for its state.
        let before = slot.gate.enter_past(HELD | THROTTLED | SWITCHING).ok_or_else(closed)?;
        let options = CallOptions::default().deadline(deadline);
        let slot = Arc::clone(slot);
        let admitted = self.admit_to(slot, before, Tick::now(), method, arguments, options)?;
        self.detach(admitted).await
    }
}
