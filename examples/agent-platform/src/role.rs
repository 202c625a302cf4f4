//! Roles: who does a step.

use std::collections::BTreeMap;

use quadriga::HookContext;
use quadriga::schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::context::ParticipantJoined;
use crate::plan::Step;

/// Before a step is given to an agent.
#[derive(Debug, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "role.before_assignment")]
pub(crate) struct BeforeAssignment {
    pub(crate) plan: String,
    pub(crate) step: String,
    /// The minutes that it takes at level 1.
    pub(crate) effort: u32,
    /// The minute from which on it can be done.
    pub(crate) ready: u32,
    /// Who can do it, by agent.
    pub(crate) candidates: BTreeMap<String, Candidate>,
    /// Whose it will be: one of these.
    #[hook(changeable)]
    pub(crate) assignee: String,
}

/// An agent who can do a step.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, JsonSchema)]
#[schemars(crate = "quadriga::schemars")]
pub(crate) struct Candidate {
    /// How well, from 1 up.
    pub(crate) level: u32,
    /// The minute from which on it has nothing else to do.
    pub(crate) free: u32,
}

impl BeforeAssignment {
    /// What the platform would do by itself: give the step to the first who can do it.
    ///
    /// # Errors
    /// If nobody can.
    pub(crate) fn propose(
        plan: &str,
        (name, step): (&str, &Step),
        ready: u32,
        participants: &[ParticipantJoined],
        free: &BTreeMap<String, u32>,
    ) -> Result<Self, String> {
        let candidate = |it: &ParticipantJoined| {
            let level = *it.skills.get(&step.needs)?;
            let free = free.get(&it.agent).copied().unwrap_or(0);
            Some((it.agent.clone(), Candidate { level, free }))
        };
        let candidates: BTreeMap<_, _> = participants.iter().filter_map(candidate).collect();
        let (first, _) = candidates.first_key_value().ok_or_else(|| format!("nobody can {}", step.needs))?;
        let (plan, assignee) = (plan.to_owned(), first.clone());
        Ok(Self { plan, step: name.to_owned(), effort: step.effort, ready, candidates, assignee })
    }

    /// Who got the step.
    ///
    /// # Errors
    /// If it is nobody who can do it.
    pub(crate) fn chosen(&self) -> Result<Candidate, String> {
        let no_candidate = || format!("{} cannot do it", self.assignee);
        self.candidates.get(&self.assignee).copied().ok_or_else(no_candidate)
    }
}
