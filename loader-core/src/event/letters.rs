//! Dead letters: events that are kept and were given up, for an operator to look at.

use std::sync::Arc;
use std::time::SystemTime;

use quadriga_abi::{Error, ErrorCode, ExtensionId, Value};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{EventStore, Keep, KeptEvent};
use crate::Dispatcher;
use crate::dispatcher::{Core, lock};

/// An event that was given up: its method failed at it as often as the subscription says, or it was not allowed
/// to have it any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct DeadLetter {
    /// Names it.
    pub id: String,
    /// Who was to get it.
    pub extension: ExtensionId,
    /// The topic of the subscription, or the beginning of several and `*`.
    pub subscription: String,
    /// The method that was to take it.
    pub method: String,
    /// What it is about.
    pub topic: String,
    /// Who emitted it; `None` for the host.
    pub source: Option<ExtensionId>,
    /// When it was emitted.
    pub emitted: SystemTime,
    /// When it was given up.
    pub died: SystemTime,
    /// How often the method failed at it.
    pub attempts: u32,
    /// What the last of them failed with.
    pub error: Option<Error>,
    /// What it says, as JSON for people.
    pub data: Json,
}

/// Some dead letters.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Letters {
    /// All of them.
    All,
    /// Those of one extension.
    Of(ExtensionId),
    /// One, by its id or by how that begins, if that is clear.
    One(String),
}

impl Dispatcher {
    /// The dead letters, by the time of their emission. They take up room among what is kept for their
    /// subscription ([`EventQuota::kept`](crate::EventQuota::kept)) until they are retried or dropped.
    ///
    /// # Errors
    /// `store_failed`; `invalid_arguments`, if there is no such one.
    pub async fn dead_letters(&self, which: &Letters) -> Result<Vec<DeadLetter>, Error> {
        let Some(store) = self.core.event_store() else { return Ok(Vec::new()) };
        Ok(find(&*store, which).await?.into_iter().map(DeadLetter::from).collect())
    }

    /// Has dead letters delivered once more, with as many attempts as at first: at once, or when their
    /// extension is next subscribed to them. Gives those that it was about.
    ///
    /// # Errors
    /// As for [`Dispatcher::dead_letters`].
    pub async fn retry_dead_letters(&self, which: &Letters) -> Result<Vec<DeadLetter>, Error> {
        let Some(store) = self.core.event_store() else { return Ok(Vec::new()) };
        let letters = retry(&*store, which).await?;
        for letter in &letters {
            let event = KeptEvent { attempts: 0, error: None, dead: None, ..letter.clone() };
            if let Some(keep) = self.core.keep_of(letter) {
                keep.revive(event);
            }
        }
        Ok(letters.into_iter().map(DeadLetter::from).collect())
    }

    /// Forgets dead letters. Gives those that it was about.
    ///
    /// # Errors
    /// As for [`Dispatcher::dead_letters`].
    pub async fn drop_dead_letters(&self, which: &Letters) -> Result<Vec<DeadLetter>, Error> {
        let Some(store) = self.core.event_store() else { return Ok(Vec::new()) };
        let letters = drop_all(&*store, which).await?;
        for letter in &letters {
            if let Some(keep) = self.core.keep_of(letter) {
                keep.forget(&letter.id);
            }
        }
        Ok(letters.into_iter().map(DeadLetter::from).collect())
    }
}

impl Core {
    fn keep_of(&self, event: &KeptEvent) -> Option<Arc<Keep>> {
        let slot = self.routes.load().get(&event.subscriber).cloned()?;
        let keeps = lock(&slot.reach.ward.keeps);
        keeps.iter().find(|keep| keep.is_for(&event.pattern, &event.method)).cloned()
    }
}

/// Finds some in a store.
pub(crate) async fn find(store: &dyn EventStore, which: &Letters) -> Result<Vec<KeptEvent>, Error> {
    let subscriber = match which {
        Letters::Of(id) => Some(id),
        Letters::All | Letters::One(_) => None,
    };
    let mut letters = store.list(subscriber).await?;
    letters.retain(|event| event.dead.is_some());
    let Letters::One(wanted) = which else { return Ok(letters) };
    letters.retain(|event| !wanted.is_empty() && event.id.starts_with(wanted.as_str()));
    let wrong = |why: &str| Error::new(ErrorCode::InvalidArguments, format!("{why} dead letter {wanted:?}"));
    match letters.len() {
        0 => Err(wrong("there is no")),
        1 => Ok(letters),
        _ => Err(wrong("there is more than one").with_hint("give more of its id")),
    }
}

/// Has some delivered once more, as far as a store is concerned.
pub(crate) async fn retry(store: &dyn EventStore, which: &Letters) -> Result<Vec<KeptEvent>, Error> {
    let letters = find(store, which).await?;
    for letter in &letters {
        store.update(KeptEvent { attempts: 0, error: None, dead: None, ..letter.clone() }).await?;
    }
    Ok(letters)
}

/// Takes some out of a store.
pub(crate) async fn drop_all(store: &dyn EventStore, which: &Letters) -> Result<Vec<KeptEvent>, Error> {
    let letters = find(store, which).await?;
    if letters.is_empty() {
        return Ok(letters);
    }
    store.remove(letters.iter().map(|letter| letter.id.clone()).collect()).await?;
    Ok(letters)
}

impl From<KeptEvent> for DeadLetter {
    fn from(event: KeptEvent) -> Self {
        Self {
            id: event.id,
            extension: event.subscriber,
            subscription: event.pattern,
            method: event.method,
            topic: event.topic,
            source: event.source,
            emitted: event.emitted,
            died: event.dead.unwrap_or(event.emitted),
            attempts: event.attempts,
            error: event.error,
            data: Value::from_bytes(&event.data).map_or(Json::Null, |value| value.to_json()),
        }
    }
}
