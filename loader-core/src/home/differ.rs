//! What is different about another version.

use quadriga_abi::Isolation;
use quadriga_abi::manifest::Manifest;
use serde::{Deserialize, Serialize};

use super::{InstalledVersion, TrustLevel};

/// What a version changes, beside its number and what it asks for in addition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Differences {
    /// Permissions that it no longer asks for.
    pub narrower: Vec<String>,
    /// Capabilities that it provides and the other one did not, as `name@version`.
    pub provides: Vec<String>,
    /// Those that it no longer provides.
    pub provides_no_more: Vec<String>,
    /// Extensions and capabilities that it needs and the other one did not, each with its range.
    pub needs: Vec<String>,
    /// Those that it no longer needs.
    pub needs_no_more: Vec<String>,
    /// The weakest isolation that it may run in by its manifest, before and now.
    pub isolation: Option<(Isolation, Isolation)>,
    /// How far its signer is trusted, before and now.
    pub trust: Option<(TrustLevel, TrustLevel)>,
    /// The key that it was signed with, by its name, before and now.
    pub signer: Option<(Option<String>, Option<String>)>,
}

impl Differences {
    pub(super) fn between(old: &InstalledVersion, new: &InstalledVersion) -> Self {
        let provides = |manifest: &Manifest| -> Vec<String> {
            manifest.capabilities.provides.iter().map(str::to_owned).collect()
        };
        let isolation = |manifest: &Manifest| manifest.runtime.isolation.unwrap_or(Isolation::None);
        let (before, now) = (&old.manifest, &new.manifest);
        Self {
            narrower: before.permissions.beyond(&now.permissions),
            provides: beyond(provides(now), &provides(before)),
            provides_no_more: beyond(provides(before), &provides(now)),
            needs: beyond(needs(now), &needs(before)),
            needs_no_more: beyond(needs(before), &needs(now)),
            isolation: changed(isolation(before), isolation(now)),
            trust: changed(old.trust, new.trust),
            signer: match old.signed.key == new.signed.key {
                true => None,
                false => Some((old.signer.clone(), new.signer.clone())),
            },
        }
    }

    /// Whether there are any.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those that somebody has to agree to, as what can be said of the version.
    pub(super) fn worse(&self, level: TrustLevel) -> impl Iterator<Item = String> {
        let isolation = self
            .isolation
            .filter(|(before, now)| now < before)
            .map(|(before, now)| format!("may run less isolated: {now} instead of {before}"));
        let less = self.trust.filter(|(before, now)| now < before);
        let trust = less.map(|(before, now)| format!("is trusted less: {now} instead of {before}"));
        let signer = match &self.signer {
            // Another key that is trusted as far is a publisher's second one.
            Some((Some(before), now)) if less.is_none() && level == TrustLevel::Untrusted => {
                let by = now.as_ref().map_or("by nobody".to_owned(), |key| format!("with {key}"));
                Some(format!("is signed {by}, and was with {before}"))
            }
            _ => None,
        };
        isolation.into_iter().chain(trust).chain(signer)
    }

    /// All of them in words, a line each.
    pub fn lines(&self) -> Vec<String> {
        let list =
            |what: &str, list: &[String]| (!list.is_empty()).then(|| format!("{what} {}", list.join(", ")));
        let lines = [
            list("it no longer asks for", &self.narrower),
            list("it now provides", &self.provides),
            list("it no longer provides", &self.provides_no_more),
            list("it now needs", &self.needs),
            list("it no longer needs", &self.needs_no_more),
            self.isolation.map(|(before, now)| format!("it wants isolation {now}; before it was {before}")),
            self.trust.map(|(before, now)| format!("its trust level is {now}; before it was {before}")),
            self.signer.as_ref().map(|(before, now)| {
                let name = |key: &Option<String>| key.clone().unwrap_or_else(|| "nobody".to_owned());
                format!("it is signed by {}; before by {}", name(now), name(before))
            }),
        ];
        lines.into_iter().flatten().collect()
    }
}

fn changed<T: PartialEq>(before: T, now: T) -> Option<(T, T)> {
    (before != now).then_some((before, now))
}

fn beyond(list: Vec<String>, other: &[String]) -> Vec<String> {
    list.into_iter().filter(|it| !other.contains(it)).collect()
}

/// What a version needs of others.
fn needs(manifest: &Manifest) -> Vec<String> {
    let on = manifest.dependencies.iter().map(|(id, dependency)| format!("{id} {}", dependency.version.0));
    let capabilities = manifest.requires().map(|(name, range)| format!("{name}@{range}"));
    on.chain(capabilities).collect()
}
