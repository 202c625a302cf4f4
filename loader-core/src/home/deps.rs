//! What is installed as a graph, and started and stopped in its order.

use std::collections::HashSet;

use futures_util::future::join_all;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::Serialize;

use super::graph::{Graph, Need, What};
use super::{Installed, InstalledState};
use crate::fit::host_needs;
use crate::{Dispatcher, LoadOptions};

/// Who needs whom among what is installed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dependencies {
    /// The extensions, by id.
    pub extensions: Vec<Dependent>,
    /// Those that are enabled and can start, in levels: each once all before it run, and those of one
    /// level at the same time. They stop the other way round.
    pub order: Vec<Vec<ExtensionId>>,
    /// Those that are enabled and cannot start, because they need each other: each needs the next, and
    /// the last is the first again.
    pub cycles: Vec<Vec<ExtensionId>>,
}

/// An extension and what it needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Dependent {
    /// Its id.
    pub id: ExtensionId,
    /// The version that is in use.
    pub version: semver::Version,
    /// What hosts are to do with it.
    pub state: InstalledState,
    /// The capabilities that it provides, as `name@version`.
    pub provides: Vec<String>,
    /// What it needs.
    pub needs: Vec<Needed>,
}

/// Something that an extension needs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Needed {
    /// What sort of thing.
    pub kind: NeededKind,
    /// Its id or name.
    pub name: String,
    /// The versions that will do.
    pub range: String,
    /// What is installed and is that.
    pub by: Vec<ExtensionId>,
    /// Whether it is there: one of those is enabled or, of the system, the version fits.
    pub met: bool,
}

/// What sort of thing an extension needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum NeededKind {
    /// The host, or the contract that it speaks.
    System,
    /// Another extension.
    Extension,
    /// Another extension that it can do without.
    Optional,
    /// Any extension that provides this.
    Capability,
}

impl Dependencies {
    /// The graph of what is installed, as [`Home::list`](super::Home::list) or
    /// [`Home::look`](super::Home::look) gives it.
    pub fn of(list: &[Installed]) -> Self {
        let graph = Graph::of_enabled(list);
        let (levels, can) = (graph.levels(), graph.startable());
        let names = |nodes: Vec<usize>| nodes.into_iter().map(|node| graph.id(node).clone()).collect();
        let mut cycles: Vec<Vec<usize>> = Vec::new();
        for cycle in
            (0..graph.nodes.len()).filter(|node| !can.contains(node)).filter_map(|it| graph.cycle(it))
        {
            // The same one from elsewhere.
            if !cycles.iter().any(|known| known.contains(&cycle[0])) {
                cycles.push(cycle);
            }
        }
        Self {
            extensions: list.iter().map(|it| dependent(it, list)).collect(),
            order: levels.into_iter().map(names).collect(),
            cycles: cycles.into_iter().map(names).collect(),
        }
    }

    /// What concerns one extension: that, what it needs and who needs it, directly or not.
    pub fn around(&self, id: &ExtensionId) -> Self {
        let by = |it: &Dependent| it.needs.iter().flat_map(|need| need.by.clone()).collect::<Vec<_>>();
        let reach = |next: &dyn Fn(&ExtensionId) -> Vec<ExtensionId>| {
            let (mut seen, mut left) = (HashSet::new(), vec![id.clone()]);
            while let Some(id) = left.pop() {
                if seen.insert(id.clone()) {
                    left.extend(next(&id));
                }
            }
            seen
        };
        let needed =
            |id: &ExtensionId| self.extensions.iter().find(|it| it.id == *id).map(by).unwrap_or_default();
        let needing = |id: &ExtensionId| {
            let needing = self.extensions.iter().filter(|it| by(it).contains(id));
            needing.map(|it| it.id.clone()).collect()
        };
        let (down, up) = (reach(&needed), reach(&needing));
        let is_near = |id: &ExtensionId| down.contains(id) || up.contains(id);
        let near = |ids: &Vec<ExtensionId>| ids.iter().filter(|id| is_near(id)).cloned().collect::<Vec<_>>();
        Self {
            extensions: self.extensions.iter().filter(|it| is_near(&it.id)).cloned().collect(),
            order: self.order.iter().map(near).filter(|level| !level.is_empty()).collect(),
            cycles: self.cycles.iter().filter(|cycle| cycle.iter().all(is_near)).cloned().collect(),
        }
    }
}

fn dependent(it: &Installed, list: &[Installed]) -> Dependent {
    let manifest = &it.current.manifest;
    let system = host_needs(manifest).into_iter().map(|(name, range, met)| Needed {
        kind: NeededKind::System,
        name: name.to_owned(),
        range,
        by: Vec::new(),
        met,
    });
    let need = |need: Need<'_>| {
        let (kind, name, range) = match &need.what {
            What::Extension(id, range) if need.optional => {
                (NeededKind::Optional, id.to_string(), range.to_string())
            }
            What::Extension(id, range) => (NeededKind::Extension, id.to_string(), range.to_string()),
            What::Capability(name, range) => (NeededKind::Capability, (*name).to_owned(), range.to_string()),
        };
        let fits = |other: &&Installed| other.id != it.id && need.what.is_met_by(&other.current.manifest);
        let fits: Vec<&Installed> = list.iter().filter(fits).collect();
        let met = fits.iter().any(|other| other.state == InstalledState::Enabled);
        Needed { kind, name, range, by: fits.into_iter().map(|other| other.id.clone()).collect(), met }
    };
    Dependent {
        id: it.id.clone(),
        version: it.current.version.clone(),
        state: it.state,
        provides: manifest.capabilities.provides.iter().map(str::to_owned).collect(),
        needs: system.chain(Need::all(manifest).map(need)).collect(),
    }
}

/// What is enabled and can start, in levels: each once all before it run, and those of one level at the
/// same time.
pub fn order(list: &[Installed]) -> Vec<Vec<&Installed>> {
    let graph = Graph::of_enabled(list);
    let row = |node: usize| list.iter().find(|it| it.id == *graph.id(node));
    graph.levels().into_iter().map(|level| level.into_iter().filter_map(row).collect()).collect()
}

/// An extension and what is enabled of all that it needs or can use, directly or not.
pub fn with_needs(list: &[Installed], id: &ExtensionId) -> Vec<Installed> {
    let graph = Graph::of_enabled(list);
    let mut left: Vec<usize> = graph.node(id).into_iter().collect();
    let mut seen = HashSet::new();
    while let Some(node) = left.pop() {
        if seen.insert(node) {
            left.extend(graph.edges[node].iter().flat_map(|edge| &edge.met_by));
        }
    }
    list.iter().filter(|it| graph.node(&it.id).is_some_and(|node| seen.contains(&node))).cloned().collect()
}

/// Loads what is enabled, each with what it is granted and once what it needs runs, and those that do not
/// need each other at the same time. Gives what did not start and why; the rest runs. What they keep in the
/// key-value store is kept in the home, unless the host has a store of its own.
pub async fn start(dispatcher: &Dispatcher, list: &[Installed]) -> Vec<(ExtensionId, Error)> {
    start_all(dispatcher, list, false).await
}

/// The same, but the code of each is loaded only when it is first called, unless it has to be there
/// ([`LoadOptions::lazy`](crate::LoadOptions::lazy)): a host with a thousand extensions is there at once, and
/// uses memory for those that are in use. What is wrong with the code of one shows when it is called.
pub async fn start_lazily(dispatcher: &Dispatcher, list: &[Installed]) -> Vec<(ExtensionId, Error)> {
    start_all(dispatcher, list, true).await
}

async fn start_all(dispatcher: &Dispatcher, list: &[Installed], lazy: bool) -> Vec<(ExtensionId, Error)> {
    // HOME/packages/ID/VERSION
    if let Some(home) = list.first().and_then(|it| it.current.folder.ancestors().nth(3)) {
        super::keep_data(dispatcher, home);
    }
    let levels = order(list);
    let mut failed = Vec::new();
    for level in &levels {
        let load = async |it: &Installed| {
            let loaded = async {
                let options = LoadOptions { lazy, ..it.load_options()? };
                dispatcher.load(&it.current.folder, options).await
            };
            loaded.await.map_err(|error| (it.id.clone(), error))
        };
        failed.extend(join_all(level.iter().map(|it| load(it))).await.into_iter().filter_map(Result::err));
    }
    let graph = Graph::of_enabled(list);
    let can = graph.startable();
    for node in (0..graph.nodes.len()).filter(|node| !can.contains(node)) {
        let error = super::change::cannot_start(&graph, node, &can, list);
        failed.push((graph.id(node).clone(), error));
    }
    failed
}

/// Unloads what [`start`] loaded, those that need others first. Gives what could not be unloaded; what is
/// not loaded is none of that.
pub async fn stop(dispatcher: &Dispatcher, list: &[Installed]) -> Vec<(ExtensionId, Error)> {
    let mut failed = Vec::new();
    for level in order(list).iter().rev() {
        let unload = async |it: &Installed| {
            let unloaded = dispatcher.unload(it.id.as_str()).await;
            unloaded.map_err(|error| (it.id.clone(), error))
        };
        let done = join_all(level.iter().map(|it| unload(it))).await;
        let errors = done.into_iter().filter_map(Result::err);
        failed.extend(errors.filter(|(_, error)| error.code != ErrorCode::UnknownExtension));
    }
    failed
}
