//! What extensions may do, of what they ask for, and why not the rest.

use quadriga_abi::ExtensionId;
use quadriga_abi::permission::Permissions;
use serde::Serialize;

use super::{Installed, InstalledState, TrustLevel};

/// What an installed extension may do. Permissions are written as in `[permissions]` of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Grants {
    /// The extension.
    pub id: ExtensionId,
    /// Its version.
    pub version: semver::Version,
    /// What hosts are to do with it.
    pub state: InstalledState,
    /// How far its signer is trusted.
    pub trust: TrustLevel,
    /// What its manifest asks for.
    pub asks: Vec<String>,
    /// What it may do: it was granted that, and its level of trust lets it have it.
    pub granted: Vec<String>,
    /// What it asks for, was not granted, and could be.
    pub not_granted: Vec<String>,
    /// What it asks for and its level of trust does not let it have, whatever it was granted.
    pub withheld: Vec<String>,
}

impl Installed {
    /// What it may do, of what it asks for. A host's own policy may cut it further.
    pub fn grants(&self) -> Grants {
        let (asked, nothing) = (&self.current.manifest.permissions, Permissions::default());
        let effective = self.effective_grant();
        let withheld = asked.beyond(&self.current.terms.cut(asked));
        let mut not_granted = asked.beyond(&effective);
        not_granted.retain(|it| !withheld.contains(it));
        Grants {
            id: self.id.clone(),
            version: self.current.version.clone(),
            state: self.state,
            trust: self.current.trust,
            asks: asked.beyond(&nothing),
            granted: effective.beyond(&nothing),
            not_granted,
            withheld,
        }
    }
}
