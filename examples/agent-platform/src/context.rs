//! Contexts: what agents work in together, and on which terms.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use parking_lot::Mutex;
use quadriga::abi::{Error, NameError};
use quadriga::schemars::JsonSchema;
use quadriga::{HookContext, Provided};
use serde::{Deserialize, Serialize};

use crate::platform::unknown;

/// The terms of a context.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Terms {
    /// The context's name.
    pub(crate) context: String,
    /// What each of its plans may cost.
    pub(crate) budget: u32,
    /// The skills that its plans may use.
    pub(crate) allows: BTreeSet<String>,
}

/// An agent joins a context.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[serde(deny_unknown_fields)]
#[hook(name = "context.participant_joined")]
pub(crate) struct ParticipantJoined {
    pub(crate) context: String,
    /// By which the platform knows it.
    pub(crate) agent: String,
    /// By which people know it.
    #[hook(changeable)]
    pub(crate) name: String,
    /// An address of mail, which is not for everybody.
    #[hook(changeable, sensitive)]
    pub(crate) contact: String,
    /// What it can do, each from level 1 up.
    pub(crate) skills: BTreeMap<String, u32>,
}

/// All contexts, with who takes part in them.
#[derive(Clone, Default)]
pub(crate) struct Contexts(Arc<Mutex<BTreeMap<String, Context>>>);

struct Context {
    terms: Terms,
    participants: BTreeMap<String, ParticipantJoined>,
}

impl Contexts {
    pub(crate) fn open(&self, terms: &Terms) {
        let context = Context { terms: terms.clone(), participants: BTreeMap::new() };
        self.0.lock().insert(terms.context.clone(), context);
    }

    /// Whether an agent may join as it says, but for what extensions have to say.
    ///
    /// # Errors
    /// Why not.
    pub(crate) fn check(&self, joined: &ParticipantJoined) -> Result<(), String> {
        let ParticipantJoined { context, agent, skills, .. } = joined;
        let contexts = self.0.lock();
        let there = contexts.get(context).ok_or_else(|| unknown("context", context))?;
        if there.participants.contains_key(agent) {
            return Err(format!("{agent} is in {context} already"));
        }
        match skills.iter().find(|(_, level)| **level == 0) {
            Some((skill, _)) => Err(format!("{agent} has {skill} at level 0: the lowest is 1")),
            None => Ok(()),
        }
    }

    pub(crate) fn join(&self, joined: ParticipantJoined) {
        if let Some(context) = self.0.lock().get_mut(&joined.context) {
            context.participants.insert(joined.agent.clone(), joined);
        }
    }

    /// # Errors
    /// If there is no such context.
    pub(crate) fn terms(&self, context: &str) -> Result<Terms, String> {
        let contexts = self.0.lock();
        contexts.get(context).map(|it| it.terms.clone()).ok_or_else(|| unknown("context", context))
    }

    /// Who takes part, by agent.
    ///
    /// # Errors
    /// If there is no such context.
    pub(crate) fn participants(&self, context: &str) -> Result<Vec<ParticipantJoined>, String> {
        let contexts = self.0.lock();
        let context = contexts.get(context).ok_or_else(|| unknown("context", context))?;
        Ok(context.participants.values().cloned().collect())
    }

    /// What extensions may ask about contexts.
    pub(crate) fn api(&self) -> Result<Provided, NameError> {
        let (terms, agents) = (self.clone(), self.clone());
        let names = move |(context,): (String,)| -> Result<Vec<String>, Error> {
            let participants = agents.participants(&context).map_err(crate::platform::refused)?;
            Ok(participants.into_iter().map(|it| it.agent).collect())
        };
        let api = Provided::new("app.context")?
            .function("terms", move |(context,): (String,)| {
                terms.terms(&context).map_err(crate::platform::refused)
            })
            .function("agents", names);
        Ok(api.open("context"))
    }
}
