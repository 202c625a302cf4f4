//! What an extension asks for. What it gets is this, cut by what the host grants.

use serde::{Deserialize, Serialize};

/// The permissions of one extension. Empty means none: deny is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Permissions {
    /// Extensions and methods to call: `"acme.tokenizer/split"`, `"acme.tokenizer/*"`, `"*"`.
    pub call: Vec<CallPattern>,
    /// Hosts to connect to: `"api.example.org:443"`.
    pub net: Vec<String>,
    /// Folders and files outside the package.
    pub fs: Vec<FsPermission>,
    /// Environment variables to read.
    pub env: Vec<String>,
    /// Programs to start.
    pub subprocess: Vec<String>,
    /// Secrets to read, by name.
    pub secrets: Vec<String>,
    /// Topics to emit events on.
    pub emit: Vec<String>,
    /// Topics to subscribe to.
    pub subscribe: Vec<String>,
    /// The key-value store.
    pub kv: bool,
    /// The finest clock it may read.
    pub clock: Option<crate::limits::Span>,
}

/// Access to a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct FsPermission {
    /// A path; a relative one starts in the package.
    pub path: String,
    /// What may be done there.
    pub mode: FsMode,
}

/// What may be done at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
pub enum FsMode {
    /// Read.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Read, write, create and delete.
    #[serde(rename = "rw")]
    ReadWrite,
}

/// Which methods may be called: `EXTENSION/METHOD`, either of which may be `*`, or `*` for all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct CallPattern {
    extension: Option<crate::ExtensionId>,
    method: Option<String>,
}

impl CallPattern {
    /// Every method of every extension.
    pub const ALL: Self = Self { extension: None, method: None };

    /// Whether the pattern covers a method.
    pub fn allows(&self, extension: &str, method: &str) -> bool {
        self.extension.as_ref().is_none_or(|id| id.as_str() == extension)
            && self.method.as_ref().is_none_or(|name| name == method)
    }
}

impl TryFrom<String> for CallPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} is no call permission: {why}; expected \"publisher.name/method\", \"publisher.name/*\" or \"*\"")
        };
        if text == "*" {
            return Ok(Self::ALL);
        }
        let (extension, method) = text.split_once('/').ok_or_else(|| wrong("it has no slash"))?;
        let extension = match extension {
            "*" => None,
            id => Some(crate::ExtensionId::new(id).map_err(|_| wrong("the extension id is malformed"))?),
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
        match (&pattern.extension, &pattern.method) {
            (None, None) => "*".to_owned(),
            (extension, method) => {
                let extension = extension.as_ref().map_or("*", |id| id.as_str());
                format!("{extension}/{}", method.as_deref().unwrap_or("*"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::CallPattern;

    #[test]
    fn call_patterns() {
        let cases = [
            ("*", "a.b", "m", true),
            ("a.b/*", "a.b", "m", true),
            ("a.b/*", "a.c", "m", false),
            ("a.b/m", "a.b", "m", true),
            ("a.b/m", "a.b", "n", false),
            ("*/m", "x.y", "m", true),
        ];
        for (text, extension, method, allows) in cases {
            let pattern = CallPattern::try_from(text.to_owned()).unwrap();
            assert_eq!(pattern.allows(extension, method), allows, "{text} {extension} {method}");
            assert_eq!(String::from(pattern), text);
        }
        for text in ["", "a.b", "a/m", "a.b/"] {
            assert!(CallPattern::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
