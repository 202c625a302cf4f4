use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use crate::ExtensionId;

/// Which methods may be called: `EXTENSION/METHOD`, either of which may be `*`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallPattern {
    extension: Option<ExtensionId>,
    method: Option<String>,
}

impl CallPattern {
    /// Every method of every extension.
    pub const ALL: Self = Self { extension: None, method: None };

    /// Whether the pattern covers a method.
    pub fn allows(&self, extension: &str, method: &str) -> bool {
        self.extension.as_ref().is_none_or(|id| id.as_str() == extension) && self.allows_method(method)
    }

    /// Whether the pattern covers a method of this name in some extension.
    pub fn allows_method(&self, method: &str) -> bool {
        self.method.as_ref().is_none_or(|name| name == method)
    }
}

impl TryFrom<String> for CallPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no call permission: {why}; expected \"publisher.name/method\", \"publisher.name/*\" or \"*\""
            )
        };
        if text == "*" {
            return Ok(Self::ALL);
        }
        let (extension, method) = text.split_once('/').ok_or_else(|| wrong("it has no slash"))?;
        let extension = match extension {
            "*" => None,
            id => Some(ExtensionId::new(id).map_err(|_| wrong("the extension id is malformed"))?),
        };
        let method = match method {
            "*" => None,
            "" => return Err(wrong("the method is empty")),
            name => Some(name.to_owned()),
        };
        Ok(Self { extension, method })
    }
}

impl From<CallPattern> for String {
    fn from(pattern: CallPattern) -> Self {
        pattern.to_string()
    }
}

impl Pattern for CallPattern {
    fn meet(&self, other: &Self) -> Option<Self> {
        fn one<T: PartialEq + Clone>(ours: &Option<T>, theirs: &Option<T>) -> Option<Option<T>> {
            match (ours, theirs) {
                (Some(a), Some(b)) if a != b => None,
                (ours, theirs) => Some(ours.as_ref().or(theirs.as_ref()).cloned()),
            }
        }
        let extension = one(&self.extension, &other.extension)?;
        Some(Self { extension, method: one(&self.method, &other.method)? })
    }
}

impl fmt::Display for CallPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.extension, &self.method) {
            (None, None) => f.write_str("*"),
            (extension, method) => {
                let extension = extension.as_ref().map_or("*", |id| id.as_str());
                write!(f, "{extension}/{}", method.as_deref().unwrap_or("*"))
            }
        }
    }
}
