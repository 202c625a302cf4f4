//! Which versions can run together, where there is a choice: pubgrub, asked about what is installed and
//! what is offered.
//!
//! A capability that an extension requires is a package of its own, whose versions are the extensions
//! that provide it: so two that require the same may get it of two.

use std::cmp::Reverse;
use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;

use pubgrub::{
    Dependencies, DependencyProvider, DerivationTree, External, PackageResolutionStatistics, PubGrubError,
    Ranges, resolve,
};
use quadriga_abi::manifest::Manifest;
use quadriga_abi::{Error, ErrorCode, ExtensionId};

use super::graph::{Graph, Need, What};

/// A version of an extension that could run.
#[derive(Debug, Clone)]
pub(super) struct Candidate<'a> {
    pub(super) manifest: &'a Manifest,
    /// Whether it is to be taken rather than others.
    pub(super) preferred: bool,
    /// Why it cannot be taken, for a sentence that begins with its name.
    pub(super) barred: Option<String>,
}

/// What is to be solved.
struct Question<'a> {
    candidates: &'a [Candidate<'a>],
    wanted: &'a [&'a ExtensionId],
    /// Who is not to be given its capability by which candidate.
    banned: HashSet<(&'a ExtensionId, usize)>,
}

/// Its versions are places in the list of candidates.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Package<'a> {
    Wanted,
    Extension(&'a ExtensionId),
    /// What an extension requires: a name and a range.
    Capability(&'a ExtensionId, &'a str, String),
}

/// Chooses a version of each extension that is wanted and of whatever those need, as places in the list;
/// the newest where there is a choice.
///
/// # Errors
/// `missing_dependency` or `dependency_cycle`, with why there is no such choice.
pub(super) fn solve(candidates: &[Candidate<'_>], wanted: &[&ExtensionId]) -> Result<Vec<usize>, Error> {
    let mut question = Question { candidates, wanted, banned: HashSet::new() };
    let mut circle = None;
    loop {
        let chosen = match question.answer() {
            Ok(chosen) => chosen,
            // What it would be without the ways that are banned says more.
            Err(error) => return Err(circle.unwrap_or(error)),
        };
        let graph = Graph::of(chosen.iter().map(|it| candidates[*it].manifest));
        let can = graph.startable();
        let Some(stuck) = (0..graph.nodes.len()).find(|node| !can.contains(node)) else { return Ok(chosen) };
        let Some(cycle) = graph.cycle(stuck) else {
            return Err(Error::new(ErrorCode::Internal, "what was chosen lacks something"));
        };
        circle.get_or_insert_with(|| graph.is_a_cycle(&cycle));
        // Another provider may lead out of it.
        let banned = cycle.windows(2).find_map(|pair| {
            let place = candidates.iter().position(|it| std::ptr::eq(it.manifest, graph.nodes[pair[1]]))?;
            let by_name = |edge: &&super::graph::Edge<'_>| {
                matches!(edge.need.what, What::Capability(..)) && edge.met_by.contains(&pair[1])
            };
            let edge = graph.edges[pair[0]].iter().find(by_name);
            edge.map(|_| (&graph.nodes[pair[0]].extension.id, place))
        });
        match (banned, circle.take()) {
            (Some(banned), was) if question.banned.insert(banned) => circle = was,
            (_, Some(error)) => return Err(error),
            (_, None) => return Err(Error::new(ErrorCode::Internal, "a cycle is not told")),
        }
    }
}

impl<'a> Question<'a> {
    fn answer(&self) -> Result<Vec<usize>, Error> {
        match resolve(self, Package::Wanted, 0_usize) {
            Ok(solution) => {
                let mut chosen: Vec<usize> = solution
                    .into_iter()
                    .filter(|(package, _)| matches!(package, Package::Extension(_)))
                    .map(|(_, place)| place)
                    .collect();
                chosen.sort_unstable();
                Ok(chosen)
            }
            Err(PubGrubError::NoSolution(why)) => Err(self.explain(&why)),
            Err(error) => Err(Error::new(ErrorCode::Internal, error.to_string())),
        }
    }

    /// The candidates of an extension.
    fn versions(&self, id: &ExtensionId) -> impl Iterator<Item = usize> {
        (0..self.candidates.len()).filter(move |place| self.candidates[*place].manifest.extension.id == *id)
    }

    /// The needs of a candidate, each with the package that meets it and which of its versions do.
    fn needs(&self, place: usize) -> Vec<(Need<'a>, Package<'a>, Ranges<usize>)> {
        let manifest = self.candidates[place].manifest;
        let needs = Need::all(manifest).filter(|need| !need.optional);
        let one = |need: Need<'a>| {
            let package = match &need.what {
                What::Extension(id, _) => Package::Extension(id),
                What::Capability(name, range) => {
                    Package::Capability(&manifest.extension.id, name, range.to_string())
                }
            };
            let meets = |other: &usize| {
                need.what.is_met_by(self.candidates[*other].manifest)
                    && !(matches!(need.what, What::Capability(..))
                        && (*other == place || self.banned.contains(&(&manifest.extension.id, *other))))
            };
            let set = set((0..self.candidates.len()).filter(meets));
            (need, package, set)
        };
        needs.map(one).collect()
    }

    /// The facts that together leave no choice, each once.
    fn explain(&self, why: &DerivationTree<Package<'a>, Ranges<usize>, String>) -> Error {
        let mut facts = Vec::new();
        self.gather(why, &mut facts);
        // What needs something, and then what cannot be taken.
        facts.sort_unstable();
        facts.dedup();
        let facts: Vec<String> = facts.into_iter().map(|(_, fact)| fact).collect();
        let message = facts.join("; ");
        let hint = "install, update or enable what fits, or disable what stands in the way";
        Error::new(ErrorCode::MissingDependency, message).with_hint(hint)
    }

    fn gather(
        &self,
        why: &DerivationTree<Package<'a>, Ranges<usize>, String>,
        facts: &mut Vec<(u8, String)>,
    ) {
        match why {
            DerivationTree::Derived(both) => {
                self.gather(&both.cause1, facts);
                self.gather(&both.cause2, facts);
            }
            DerivationTree::External(External::FromDependencyOf(package, versions, on, _)) => {
                for place in (0..self.candidates.len()).filter(|place| versions.contains(place)) {
                    let about = &self.candidates[place].manifest.extension;
                    if !matches!(package, Package::Extension(id) if **id == about.id) {
                        continue;
                    }
                    for (need, _, fits) in self.needs(place).iter().filter(|(_, package, _)| package == on) {
                        let there = self.there(&need.what, fits);
                        facts.push((0, format!("{} {} needs {}{there}", about.id, about.version, need.what)));
                    }
                }
            }
            DerivationTree::External(External::Custom(_, versions, reason)) => {
                for place in (0..self.candidates.len()).filter(|place| versions.contains(place)) {
                    let about = &self.candidates[place].manifest.extension;
                    facts.push((1, format!("{} {} {reason}", about.id, about.version)));
                }
            }
            DerivationTree::External(External::NoVersions(..) | External::NotRoot(..)) => {}
        }
    }

    /// What there is of something that nothing meets, or that one thing alone meets.
    fn there(&self, what: &What<'_>, fits: &Ranges<usize>) -> String {
        let name = |place: usize| {
            let about = &self.candidates[place].manifest.extension;
            format!("{} {}", about.id, about.version)
        };
        let meets: Vec<usize> = (0..self.candidates.len()).filter(|place| fits.contains(place)).collect();
        match (what, &*meets) {
            (What::Extension(id, _), []) => {
                let there: Vec<String> = self
                    .versions(id)
                    .map(|it| self.candidates[it].manifest.extension.version.to_string())
                    .collect();
                match there.is_empty() {
                    true => ", which is not installed".to_owned(),
                    false => format!("; there is {}", there.join(" and ")),
                }
            }
            (What::Extension(..), _) => String::new(),
            (What::Capability(..), []) => ", which nothing provides that is installed".to_owned(),
            (What::Capability(..), all) => {
                let names: Vec<String> = all.iter().map(|place| name(*place)).collect();
                format!(" of {}", names.join(" or "))
            }
        }
    }
}

impl<'a> DependencyProvider for Question<'a> {
    type P = Package<'a>;
    type V = usize;
    type VS = Ranges<usize>;
    /// Extensions before the capabilities that they require, and by name.
    type Priority = Reverse<Package<'a>>;
    type M = String;
    type Err = Infallible;

    fn prioritize(
        &self,
        package: &Package<'a>,
        _: &Ranges<usize>,
        _: &PackageResolutionStatistics,
    ) -> Self::Priority {
        Reverse(package.clone())
    }

    fn choose_version(
        &self,
        package: &Package<'a>,
        versions: &Ranges<usize>,
    ) -> Result<Option<usize>, Infallible> {
        if *package == Package::Wanted {
            return Ok(Some(0));
        }
        let of_it = |place: &usize| match package {
            Package::Extension(id) => self.candidates[*place].manifest.extension.id == **id,
            _ => true,
        };
        let fits = (0..self.candidates.len()).filter(|place| versions.contains(place) && of_it(place));
        let best = |place: &usize| {
            let Candidate { manifest, preferred, barred } = &self.candidates[*place];
            let about = &manifest.extension;
            (barred.is_none(), *preferred, Reverse(about.id.clone()), about.version.0.clone())
        };
        Ok(fits.max_by_key(best))
    }

    fn get_dependencies(
        &self,
        package: &Package<'a>,
        version: &usize,
    ) -> Result<Dependencies<Package<'a>, Ranges<usize>, String>, Infallible> {
        Ok(match package {
            Package::Wanted => Dependencies::Available(
                self.wanted.iter().map(|id| (Package::Extension(id), set(self.versions(id)))).collect(),
            ),
            Package::Extension(_) => match &self.candidates[*version].barred {
                Some(reason) => Dependencies::Unavailable(reason.clone()),
                None => Dependencies::Available(
                    self.needs(*version).into_iter().map(|(_, package, set)| (package, set)).collect(),
                ),
            },
            Package::Capability(..) => {
                let by = &self.candidates[*version].manifest.extension.id;
                let provider = (Package::Extension(by), Ranges::singleton(*version));
                Dependencies::Available(std::iter::once(provider).collect())
            }
        })
    }
}

impl fmt::Display for Package<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Wanted => f.write_str("what is wanted"),
            Self::Extension(id) => id.fmt(f),
            Self::Capability(by, name, range) => write!(f, "{name}@{range} for {by}"),
        }
    }
}

fn set(places: impl IntoIterator<Item = usize>) -> Ranges<usize> {
    places.into_iter().fold(Ranges::empty(), |set, place| set.union(&Ranges::singleton(place)))
}

#[cfg(test)]
mod tests;
