//! What an extension is granted, and how that changes while it runs.

use std::sync::Weak;
use std::sync::atomic::Ordering::Relaxed;
use std::time::SystemTime;

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode};

use super::{Effect, Held, REVOCATIONS, Reach, Reason};
use crate::Grant;
use crate::dispatcher::lock;

#[cfg(feature = "home")]
impl super::Ward {
    /// Grants something else from now on, and says from when on that holds.
    pub(crate) fn regrant(&self, grant: Grant) -> Effect {
        let mut held = lock(&self.held);
        held.grant = grant;
        held.publish()
    }

    /// Has what a generation was granted ahead hold for all of them, as calls go to it from now on.
    pub(crate) fn settle(&self, reach: &Reach) {
        let mut held = lock(&self.held);
        let ahead = lock(&reach.ahead).take();
        if let Some(grant) = ahead {
            held.grant = grant;
            // What the one before still holds goes with it.
            let _ = held.publish();
        }
    }
}

impl Held {
    /// What a generation may do, unless it is in quarantine.
    pub(super) fn granted(&self, request: &Permissions, most: Option<&Permissions>) -> Permissions {
        granted(&self.grant, request, most)
    }

    /// Puts the present state into effect for each generation, and says from when on it holds.
    pub(super) fn publish(&self) -> Effect {
        let reaches = self.reaches.iter().filter_map(Weak::upgrade);
        reaches.map(|reach| reach.publish(self.present(&reach))).max().unwrap_or(Effect::Now)
    }

    /// What a generation may do at this moment.
    pub(super) fn present(&self, reach: &Reach) -> Permissions {
        match reach.quarantined.load(Relaxed) {
            true => Permissions::default(),
            false => {
                let ahead = lock(&reach.ahead);
                let grant = ahead.as_ref().unwrap_or(&self.grant);
                granted(grant, &reach.request, reach.most.as_ref())
            }
        }
    }
}

impl Reach {
    /// Adds to what may be done.
    pub(crate) fn grant(&self, more: &Permissions) -> Result<Effect, Error> {
        let id = &self.ward.id;
        let refused = |what: Vec<String>, whose: &str, hint: &str| match what.is_empty() {
            true => Ok(()),
            false => {
                let message = format!("{id} cannot be granted {}: {whose}", what.join(", "));
                Err(Error::new(ErrorCode::PermissionDenied, message).with_hint(hint))
            }
        };
        let beyond = more.beyond(&self.request);
        refused(beyond, "its manifest does not ask for that", "grant what [permissions] asks for, or less")?;
        let beyond = self.most.as_ref().map(|most| more.beyond(most)).unwrap_or_default();
        refused(beyond, "the host's policy does not allow that", "change the policy's permissions")?;
        let mut held = lock(&self.ward.held);
        let now = held.granted(&self.request, self.most.as_ref()).union(more);
        held.grant = Grant::Only(Box::new(now));
        held.revoked.retain(|(gone, _)| !gone.beyond(more).is_empty());
        let effect = held.publish();
        let what = format!("be granted {}", listed(more));
        self.ward.log.managed(id, what, Reason::Operator);
        Ok(effect)
    }

    /// Takes away from what may be done.
    pub(crate) fn revoke(&self, gone: &Permissions) -> Result<Effect, Error> {
        let id = &self.ward.id;
        let mut held = lock(&self.ward.held);
        let granted = held.granted(&self.request, self.most.as_ref());
        let left = granted.without(gone).map_err(|wider| {
            let message = format!("{id} holds {}, which covers more than is to be revoked", wider.join(", "));
            Error::new(ErrorCode::InvalidArguments, message)
                .with_hint("revoke that as a whole, and grant what may stay")
        })?;
        held.grant = Grant::Only(Box::new(left));
        if held.revoked.len() == REVOCATIONS {
            held.revoked.pop_front();
        }
        held.revoked.push_back((gone.clone(), SystemTime::now()));
        let effect = held.publish();
        let what = format!("have {} revoked", listed(gone));
        self.ward.log.managed(id, what, Reason::Operator);
        Ok(effect)
    }

    /// Takes everything away from this generation, or gives it back.
    pub(crate) fn quarantine(&self, on: bool) -> Effect {
        let held = lock(&self.ward.held);
        self.quarantined.store(on, Relaxed);
        self.publish(held.present(self))
    }
}

/// What a generation may do of what it asks for.
pub(super) fn granted(grant: &Grant, request: &Permissions, most: Option<&Permissions>) -> Permissions {
    let granted = match grant {
        Grant::Nothing => Permissions::default(),
        Grant::Requested => request.clone(),
        Grant::Only(granted) => request.intersect(granted),
    };
    most.map_or(granted.clone(), |most| granted.intersect(most))
}

/// Permissions in words: `call "a.b/m", kv`.
fn listed(permissions: &Permissions) -> String {
    permissions.beyond(&Permissions::default()).join(", ")
}
