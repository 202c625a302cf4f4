use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The identity of an extension: `publisher.name`, at most 128 bytes.
///
/// Each part is lower-case ASCII letters, digits and single hyphens, and starts with a letter.
/// Cheap to clone.
///
/// ```
/// let id = quadriga_abi::ExtensionId::new("acme.word-count")?;
/// assert_eq!(id.publisher(), "acme");
/// # Ok::<(), quadriga_abi::NameError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ExtensionId(Arc<str>);

/// Why a text is no [`ExtensionId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an extension id: expected `publisher.name` in lower-case letters, digits and hyphens, at most 128 bytes"
)]
pub struct NameError(String);

impl ExtensionId {
    /// Checks and wraps an id.
    pub fn new(id: impl AsRef<str>) -> Result<Self, NameError> {
        let id = id.as_ref();
        match id.split_once('.') {
            Some((publisher, name)) if id.len() <= 128 && is_label(publisher) && is_label(name) => {
                Ok(Self(id.into()))
            }
            _ => Err(NameError(id.to_owned())),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the dot.
    pub fn publisher(&self) -> &str {
        self.0.split_once('.').map_or("", |(publisher, _)| publisher)
    }
}

fn is_label(label: &str) -> bool {
    label.starts_with(|c: char| c.is_ascii_lowercase())
        && !label.ends_with('-')
        && !label.contains("--")
        && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
}

impl fmt::Display for ExtensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ExtensionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ExtensionId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ExtensionId {
    type Error = NameError;

    fn try_from(id: String) -> Result<Self, NameError> {
        Self::new(id)
    }
}

impl From<ExtensionId> for String {
    fn from(id: ExtensionId) -> Self {
        id.as_str().to_owned()
    }
}

impl std::str::FromStr for ExtensionId {
    type Err = NameError;

    fn from_str(id: &str) -> Result<Self, NameError> {
        Self::new(id)
    }
}

#[cfg(test)]
mod tests {
    use super::ExtensionId;

    #[test]
    fn ids() {
        for good in ["acme.hello", "a.b", "acme2.word-count", "x1.y2-z3"] {
            assert!(ExtensionId::new(good).is_ok(), "{good}");
        }
        let long = format!("a.{}", "b".repeat(127));
        for bad in
            ["", "acme", ".a", "a.", "a.b.c", "A.b", "1a.b", "a.b-", "a.b--c", "a b.c", "a.ü", "a..b", &long]
        {
            assert!(ExtensionId::new(bad).is_err(), "{bad}");
        }
    }
}
