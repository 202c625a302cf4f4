use std::fmt;

use serde::{Deserialize, Serialize};

/// The version of the contract that this build speaks.
pub const PROTOCOL: ProtocolVersion = ProtocolVersion { major: 0, minor: 1, patch: 0 };

/// A version of the contract, by the rules of Semantic Versioning 2.0.0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtocolVersion {
    /// Changes when old extensions can no longer be served.
    pub major: u16,
    /// Changes when something is added; below 1.0 it counts as major.
    pub minor: u16,
    /// Changes when behaviour is corrected.
    pub patch: u16,
}

impl ProtocolVersion {
    /// Whether a host that speaks `self` can serve an extension that was built for `guest`.
    ///
    /// ```
    /// use quadriga_abi::ProtocolVersion;
    /// let host: ProtocolVersion = "1.4.0".parse()?;
    /// assert!(host.serves("1.2.9".parse()?));
    /// assert!(!host.serves("1.5.0".parse()?));
    /// assert!(!host.serves("2.0.0".parse()?));
    /// # Ok::<(), String>(())
    /// ```
    pub fn serves(self, guest: Self) -> bool {
        self.major == guest.major
            && if self.major == 0 { self.minor == guest.minor } else { self.minor >= guest.minor }
    }
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

impl std::str::FromStr for ProtocolVersion {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split('.').map(|part| part.parse::<u16>().ok());
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(Some(major)), Some(Some(minor)), Some(Some(patch)), None) => {
                Ok(Self { major, minor, patch })
            }
            _ => Err(format!("{text:?} is no protocol version: expected MAJOR.MINOR.PATCH")),
        }
    }
}

impl TryFrom<String> for ProtocolVersion {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<ProtocolVersion> for String {
    fn from(version: ProtocolVersion) -> Self {
        version.to_string()
    }
}

/// A part of the contract that an extension or a host may or may not have.
///
/// Both sides name theirs in the handshake; what only one side knows is not used.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feature {
    /// Host functions `call`, `log` and `config`.
    HostCalls,
    /// A feature of a newer contract, skipped.
    #[serde(other)]
    Unknown,
}
