//! Gives each step to whoever is done with it first.

#[quadriga_sdk::extension]
mod scorer {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Serialize};

    /// A step that is to be given to somebody.
    #[derive(Deserialize)]
    pub struct Assignment {
        effort: u32,
        ready: u32,
        candidates: BTreeMap<String, Candidate>,
        assignee: String,
    }

    /// Somebody who can do it.
    #[derive(Deserialize)]
    pub struct Candidate {
        level: u32,
        free: u32,
    }

    /// Whom it is given to.
    #[derive(Serialize)]
    pub struct Choice {
        assignee: String,
    }

    /// Chooses the one who is done first, and of several the least skilled, so that the others are free
    /// for what only they can do.
    pub fn choose(assignment: Assignment) -> Option<Choice> {
        let Assignment { effort, ready, candidates, assignee } = assignment;
        let done = |it: &Candidate| ready.max(it.free) + effort.div_ceil(it.level.max(1));
        let (best, _) = candidates.into_iter().min_by_key(|(_, it)| (done(it), it.level))?;
        (best != assignee).then_some(Choice { assignee: best })
    }
}
