//! What an operation changes, and what follows from it for those that need each other.

use std::collections::HashSet;

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use sqlx::SqliteConnection;

use super::audit::{self, Act};
use super::graph::{Edge, Graph, What};
use super::licenses::Denied;
use super::solve::{Candidate, solve};
use super::{Differences, Installed, InstalledState, fault, store};
use crate::fit::fits_host;

/// What an operation changed; of a rehearsal, what it would change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Changes {
    /// What was installed, updated or rolled back, as it is now.
    pub came: Vec<Came>,
    /// What was enabled, in the order in which it can start.
    pub enabled: Vec<ExtensionId>,
    /// What was disabled: those that need others first.
    pub disabled: Vec<ExtensionId>,
    /// What was taken away.
    pub uninstalled: Vec<ExtensionId>,
}

/// A version that is in use now and was not before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Came {
    /// The version that was in use.
    pub from: Option<semver::Version>,
    /// What the present one asks for, and that one did not.
    pub wider: Vec<String>,
    /// What else is different about it.
    pub differs: Differences,
    /// How it is now.
    pub installed: Installed,
}

/// What becomes of those that need an extension that goes, or is to be another version that does not fit
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dependents {
    /// It does not go as long as there are any.
    #[default]
    Refuse,
    /// They are disabled with it.
    Disable,
}

/// What becomes of what an extension needs and is installed, but disabled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Needs {
    /// It is not enabled without that.
    #[default]
    Refuse,
    /// That is enabled too. Of several that provide a capability, one is.
    Enable,
}

/// What else changes when some extensions become what they are here (enabled or not, in this version or
/// another): those that are disabled because they lose what they need, those that need others first.
///
/// # Errors
/// `incompatible_version`, `not_trusted`, `missing_dependency` or `dependency_cycle`, if one of the changed ones is
/// enabled and cannot start; `needed`, if others would no longer start and are not to be disabled.
pub(super) fn settle(
    before: &[Installed],
    changed: &[Installed],
    dependents: Dependents,
) -> Result<Vec<Installed>, Error> {
    let after = merged(before, changed);
    let graph = Graph::of_enabled(&after);
    let can = graph.startable();
    for it in changed.iter().filter(|it| it.state == InstalledState::Enabled) {
        fits_host(&it.current.manifest)?;
        it.current.admitted(&it.id)?;
        if let Some(node) = graph.node(&it.id).filter(|node| !can.contains(node)) {
            return Err(cannot_start(&graph, node, &can, &after));
        }
    }
    let was = Graph::of_enabled(before);
    let mut broken = Vec::new();
    for id in was.levels().into_iter().flatten().rev().map(|node| was.id(node)) {
        if let Some(node) = graph.node(id).filter(|node| !can.contains(node)) {
            broken.push(node);
        }
    }
    if dependents == Dependents::Refuse && !broken.is_empty() {
        let why = |node: &usize| {
            let lacks: Vec<String> =
                graph.lacks(*node, &can).map(|edge| edge.need.what.to_string()).collect();
            format!("{} needs {}", graph.id(*node), lacks.join(" and "))
        };
        let message = broken.iter().map(why).collect::<Vec<_>>().join(", ");
        return Err(Error::new(ErrorCode::Needed, message).with_hint("disable these first, or with it"));
    }
    let off = |node: &usize| {
        let it = before.iter().find(|it| it.id == *graph.id(*node))?;
        Some(Installed { state: InstalledState::Disabled, ..it.clone() })
    };
    Ok(broken.iter().filter_map(off).collect())
}

/// Says why an extension that is enabled cannot start.
pub(super) fn cannot_start(graph: &Graph<'_>, node: usize, can: &HashSet<usize>, all: &[Installed]) -> Error {
    if let Some(cycle) = graph.cycle(node) {
        return graph.is_a_cycle(&cycle);
    }
    let mut lacks = Vec::new();
    let mut next = Some(node);
    // Down to what has all that is missing itself.
    while let Some(node) = next.take() {
        let about = &graph.nodes[node].extension;
        for edge in graph.lacks(node, can) {
            next = next.or_else(|| edge.met_by.first().copied());
            let (need, why) = (&edge.need.what, why(edge, all));
            lacks.push(format!("{} {} needs {need}{why}", about.id, about.version));
        }
    }
    let message = lacks.join("; ");
    let hint = match message.contains("is disabled") {
        true => "enable that first, or with it: --with-dependencies",
        false => "install and enable that first",
    };
    Error::new(ErrorCode::MissingDependency, message).with_hint(hint)
}

/// Why nothing meets a need, or nothing if something does that cannot start itself.
fn why(edge: &Edge<'_>, all: &[Installed]) -> String {
    if !edge.met_by.is_empty() {
        return String::new();
    }
    let fits: Vec<&Installed> =
        all.iter().filter(|it| edge.need.what.is_met_by(&it.current.manifest)).collect();
    let ids: Vec<&str> = fits.iter().map(|it| it.id.as_str()).collect();
    let there = |id: &ExtensionId| all.iter().find(|it| it.id == *id).map(|it| &it.current.version);
    match (&edge.need.what, &*ids) {
        (What::Extension(..), [_, ..]) => ", which is disabled".to_owned(),
        (What::Extension(id, _), []) => match there(id) {
            Some(version) => format!("; there is {version}"),
            None => ", which is not installed".to_owned(),
        },
        (What::Capability(..), []) => ", which nothing provides that is installed".to_owned(),
        (What::Capability(..), ids) => format!("; {} is disabled", ids.join(" or ")),
    }
}

/// Which of some versions that came in are taken, by their place, and what else is enabled for them. What is
/// denied is taken only where nothing else would do.
pub(super) fn choose(
    all: &[Installed],
    came: &[Installed],
    denied: &Denied,
    needs: Needs,
    dependents: Dependents,
) -> Result<(Vec<usize>, Vec<Installed>), Error> {
    let newest = |at: &usize| {
        let same = came.iter().filter(|it| it.id == came[*at].id);
        let best = same.max_by_key(|it| (!denied.contains_key(&it.current.folder), &it.current.version));
        best.is_some_and(|it| it.current == came[*at].current)
    };
    let newest: Vec<usize> = (0..came.len()).filter(newest).collect();
    let on = |at: &usize| came[*at].state == InstalledState::Enabled;
    // Where there is no choice, what is wrong can be said more plainly.
    let is_choice = (0..came.len()).any(|at| on(&at) && !newest.contains(&at));
    if !is_choice && needs == Needs::Refuse {
        return Ok((newest, Vec::new()));
    }
    let wanted: Vec<&ExtensionId> = newest.iter().filter(|at| on(at)).map(|at| &came[*at].id).collect();
    let (rows, offered): (Vec<&Installed>, Vec<usize>) = {
        let offered: Vec<usize> = (0..came.len()).filter(on).collect();
        let there = all.iter().filter(|it| !came.iter().any(|new| new.id == it.id));
        (offered.iter().map(|at| &came[*at]).chain(there).collect(), offered)
    };
    let chosen = choose_among(all, &rows, denied, &wanted, needs, dependents)?;
    let mut taken: Vec<usize> = newest.into_iter().filter(|at| !on(at)).collect();
    let mut more = Vec::new();
    for place in chosen {
        match offered.get(place) {
            Some(at) => taken.push(*at),
            None if rows[place].state == InstalledState::Disabled => {
                more.push(Installed { state: InstalledState::Enabled, ..rows[place].clone() });
            }
            None => {}
        }
    }
    Ok((taken, more))
}

/// Which of some rows are to be enabled, by their place: of each extension that is wanted one, what these
/// need, and what is enabled and can start now.
///
/// # Errors
/// `missing_dependency` or `dependency_cycle`, with why these cannot run together.
pub(super) fn choose_among(
    all: &[Installed],
    rows: &[&Installed],
    denied: &Denied,
    wanted: &[&ExtensionId],
    needs: Needs,
    dependents: Dependents,
) -> Result<Vec<usize>, Error> {
    let now = Graph::of_enabled(all);
    let running = now.levels().into_iter().flatten().map(|node| now.id(node));
    let running: Vec<&ExtensionId> = running.filter(|id| !wanted.contains(id)).collect();
    let among = |denied: &Denied| {
        let candidates: Vec<Candidate<'_>> =
            rows.iter().map(|it| candidate(it, wanted.contains(&&it.id), denied, needs)).collect();
        match solve(&candidates, &[wanted, &running].concat()) {
            // Those that stand in the way are disabled, so they are not asked.
            Err(_) if dependents == Dependents::Disable => solve(&candidates, wanted),
            solved => solved,
        }
    };
    match among(denied) {
        // What is denied says why best.
        Err(_) if !denied.is_empty() => among(&Denied::new()),
        solved => solved,
    }
}

fn candidate<'a>(it: &'a Installed, is_wanted: bool, denied: &Denied, needs: Needs) -> Candidate<'a> {
    let (manifest, about) = (&it.current.manifest, format!("{} ", it.id));
    let preferred = is_wanted || it.state == InstalledState::Enabled;
    let misfit = fits_host(manifest).err().map(|error| error.message.replacen(&about, "", 1));
    let disabled = (!preferred && needs == Needs::Refuse).then(|| "is disabled".to_owned());
    let denied = denied.get(&it.current.folder).cloned();
    Candidate { manifest, preferred, barred: misfit.or(disabled).or(denied) }
}

/// Extensions in the order in which they can start once some have changed.
pub(super) fn in_order(all: &[Installed], changed: &[Installed], mut list: Vec<Installed>) -> Vec<Installed> {
    let after = merged(all, changed);
    let graph = Graph::of_enabled(&after);
    let order: Vec<&ExtensionId> = graph.levels().into_iter().flatten().map(|node| graph.id(node)).collect();
    list.sort_by_key(|it| order.iter().position(|id| **id == it.id));
    list
}

/// All rows once some have changed.
fn merged(before: &[Installed], changed: &[Installed]) -> Vec<Installed> {
    let is_changed = |it: &&Installed| changed.iter().any(|other| other.id == it.id);
    let mut after: Vec<Installed> = before.iter().filter(|it| !is_changed(it)).cloned().collect();
    after.extend(changed.iter().cloned());
    after
}

pub(super) fn ids(list: &[Installed]) -> Vec<ExtensionId> {
    list.iter().map(|it| it.id.clone()).collect()
}

/// Writes rows anew, with an entry of the audit trail for each.
pub(super) async fn write(
    connection: &mut SqliteConnection,
    rows: &[Installed],
    actor: &str,
    action: &str,
    detail: impl Fn(&Installed) -> Json,
) -> Result<(), Error> {
    for row in rows {
        store::put(&mut *connection, row).await?;
        fault::point("with a row");
        let act = Act { actor, action, extension: row.id.as_str(), detail: detail(row) };
        audit::write(&mut *connection, act).await?;
    }
    Ok(())
}

/// For the sake of which other one it is disabled.
pub(super) fn because(it: &Installed, id: &str) -> Json {
    match it.id.as_str() == id {
        true => Json::Null,
        false => json!({ "with": id }),
    }
}
