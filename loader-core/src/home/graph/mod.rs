//! Who needs whom: what can start, in which order, and why the rest cannot.

use std::collections::{HashMap, HashSet};
use std::fmt;

use quadriga_abi::manifest::Manifest;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use semver::VersionReq;

use super::{Installed, InstalledState};

/// Extensions that are to run together, and what each needs of the others.
pub(super) struct Graph<'a> {
    pub(super) nodes: Vec<&'a Manifest>,
    pub(super) edges: Vec<Vec<Edge<'a>>>,
}

/// One need, and the nodes that meet it.
pub(super) struct Edge<'a> {
    pub(super) need: Need<'a>,
    pub(super) met_by: Vec<usize>,
}

/// What an extension needs of another.
pub(super) struct Need<'a> {
    pub(super) what: What<'a>,
    /// Whether it can do without. It then starts later, if the other is there.
    pub(super) optional: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum What<'a> {
    Extension(&'a ExtensionId, &'a VersionReq),
    Capability(&'a str, VersionReq),
}

impl<'a> Need<'a> {
    /// All needs in a manifest.
    pub(super) fn all(manifest: &'a Manifest) -> impl Iterator<Item = Self> {
        let on = [(&manifest.dependencies, false), (&manifest.optional_dependencies, true)];
        let on = on.into_iter().flat_map(|(list, optional)| {
            list.iter().map(move |(id, dependency)| {
                let what = What::Extension(id, &dependency.version.0);
                Self { what, optional }
            })
        });
        let requires = manifest.requires();
        on.chain(requires.map(|(name, range)| Self { what: What::Capability(name, range), optional: false }))
    }
}

impl What<'_> {
    /// Whether an extension is what is needed.
    pub(super) fn is_met_by(&self, other: &Manifest) -> bool {
        match self {
            Self::Extension(id, range) => {
                other.extension.id == **id && range.matches(&other.extension.version.0)
            }
            Self::Capability(name, range) => {
                other.provides().any(|(there, version)| there == *name && range.matches(&version))
            }
        }
    }
}

impl fmt::Display for What<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Extension(id, range) => write!(f, "{id} {range}"),
            Self::Capability(name, range) => write!(f, "the capability {name}@{range}"),
        }
    }
}

impl<'a> Graph<'a> {
    /// The graph of some manifests, no two of the same id.
    pub(super) fn of(manifests: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let mut nodes: Vec<&Manifest> = manifests.into_iter().collect();
        nodes.sort_by_key(|it| &it.extension.id);
        let ids: HashMap<&ExtensionId, usize> =
            nodes.iter().enumerate().map(|(node, it)| (&it.extension.id, node)).collect();
        let mut providers: HashMap<&str, Vec<usize>> = HashMap::new();
        for (node, it) in nodes.iter().enumerate() {
            for (name, _) in it.provides() {
                providers.entry(name).or_default().push(node);
            }
        }
        let edge = |need: Need<'a>| {
            let mut met_by = match &need.what {
                What::Extension(id, _) => ids.get(*id).copied().into_iter().collect(),
                What::Capability(name, _) => providers.get(name).cloned().unwrap_or_default(),
            };
            met_by.retain(|other| need.what.is_met_by(nodes[*other]));
            met_by.dedup();
            Edge { need, met_by }
        };
        let edges = nodes.iter().map(|it| Need::all(it).map(edge).collect()).collect();
        Self { nodes, edges }
    }

    /// That of what is enabled.
    pub(super) fn of_enabled(list: &'a [Installed]) -> Self {
        let enabled = list.iter().filter(|it| it.state == InstalledState::Enabled);
        Self::of(enabled.map(|it| &it.current.manifest))
    }

    /// Those that can start, in levels: each once all before it have, and those of one level at the same
    /// time. What is in none of them lacks something, or is part of a cycle.
    pub(super) fn levels(&self) -> Vec<Vec<usize>> {
        let mut levels: Vec<Vec<usize>> = Vec::new();
        let (can, mut started) = (self.startable(), HashSet::new());
        while started.len() < can.len() {
            let left = |node: &usize| can.contains(node) && !started.contains(node);
            // Of several that provide a capability one will do, and what is optional need not be there:
            // where there is time, it waits for all of them.
            let waits = |node: &usize| {
                self.edges[*node]
                    .iter()
                    .flat_map(|edge| &edge.met_by)
                    .any(|other| other != node && left(other))
            };
            let ready: Vec<usize> = (0..self.nodes.len()).filter(|node| left(node)).collect();
            let free: Vec<usize> = ready.iter().copied().filter(|node| !waits(node)).collect();
            let first = || ready.iter().copied().find(|node| self.has_its_needs(*node, &started));
            let level = if free.is_empty() { Vec::from_iter(first()) } else { free };
            if level.is_empty() {
                break;
            }
            started.extend(&level);
            levels.push(level);
        }
        levels
    }

    /// Those that can start at all.
    pub(super) fn startable(&self) -> HashSet<usize> {
        let mut can = HashSet::new();
        loop {
            let more: Vec<usize> = (0..self.nodes.len())
                .filter(|node| !can.contains(node) && self.has_its_needs(*node, &can))
                .collect();
            if more.is_empty() {
                return can;
            }
            can.extend(more);
        }
    }

    /// Whether some are all that one cannot do without.
    fn has_its_needs(&self, node: usize, there: &HashSet<usize>) -> bool {
        self.lacks(node, there).next().is_none()
    }

    /// The needs of one that some do not meet.
    pub(super) fn lacks<'b>(
        &'b self,
        node: usize,
        there: &'b HashSet<usize>,
    ) -> impl Iterator<Item = &'b Edge<'a>> + use<'a, 'b> {
        self.edges[node]
            .iter()
            .filter(|edge| !edge.need.optional && !edge.met_by.iter().any(|other| there.contains(other)))
    }

    /// The first cycle on the way from a node that cannot start, if that is why: each needs the next, and
    /// the last is the first again.
    pub(super) fn cycle(&self, from: usize) -> Option<Vec<usize>> {
        let can = self.startable();
        let mut way = vec![from];
        loop {
            let node = *way.last()?;
            let next = self.lacks(node, &can).find_map(|edge| edge.met_by.first().copied())?;
            if let Some(start) = way.iter().position(|other| *other == next) {
                way.push(next);
                return Some(way.split_off(start));
            }
            way.push(next);
        }
    }

    /// Says so.
    pub(super) fn is_a_cycle(&self, cycle: &[usize]) -> Error {
        let ids: Vec<&str> = cycle.iter().map(|node| self.id(*node).as_str()).collect();
        let message = format!("these need each other, so that none can start first: {}", ids.join(" -> "));
        let hint = "one of them has to do without the other: [optional-dependencies]";
        Error::new(ErrorCode::DependencyCycle, message).with_hint(hint)
    }

    pub(super) fn node(&self, id: &ExtensionId) -> Option<usize> {
        self.nodes.iter().position(|it| it.extension.id == *id)
    }

    pub(super) fn id(&self, node: usize) -> &'a ExtensionId {
        &self.nodes[node].extension.id
    }
}

#[cfg(test)]
mod tests;
