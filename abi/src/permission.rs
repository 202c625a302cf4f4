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

impl Permissions {
    /// What both allow.
    pub fn intersect(&self, other: &Self) -> Self {
        fn both<T: Clone + PartialEq>(ours: &[T], theirs: &[T]) -> Vec<T> {
            ours.iter().filter(|item| theirs.contains(item)).cloned().collect()
        }
        Self {
            call: (self.call.iter())
                .flat_map(|ours| other.call.iter().filter_map(|theirs| ours.clone().meet(theirs)))
                .collect(),
            net: both(&self.net, &other.net),
            fs: both(&self.fs, &other.fs),
            env: both(&self.env, &other.env),
            subprocess: both(&self.subprocess, &other.subprocess),
            secrets: both(&self.secrets, &other.secrets),
            emit: both(&self.emit, &other.emit),
            subscribe: both(&self.subscribe, &other.subscribe),
            kv: self.kv && other.kv,
            // The coarser clock; none means none.
            clock: self.clock.zip(other.clock).map(|(ours, theirs)| ours.max(theirs)),
        }
    }

    /// The permissions that are asked for, by their names in the manifest.
    pub fn requested(&self) -> impl Iterator<Item = &'static str> {
        [
            ("call", !self.call.is_empty()),
            ("net", !self.net.is_empty()),
            ("fs", !self.fs.is_empty()),
            ("env", !self.env.is_empty()),
            ("subprocess", !self.subprocess.is_empty()),
            ("secrets", !self.secrets.is_empty()),
            ("emit", !self.emit.is_empty()),
            ("subscribe", !self.subscribe.is_empty()),
            ("kv", self.kv),
            ("clock", self.clock.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, asked)| asked.then_some(name))
    }
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

    /// What both patterns cover, if anything.
    fn meet(self, other: &Self) -> Option<Self> {
        fn one<T: PartialEq + Clone>(ours: Option<T>, theirs: &Option<T>) -> Option<Option<T>> {
            match (ours, theirs) {
                (Some(a), Some(b)) if a != *b => None,
                (ours, theirs) => Some(ours.or_else(|| theirs.clone())),
            }
        }
        let extension = one(self.extension, &other.extension)?;
        Some(Self { extension, method: one(self.method, &other.method)? })
    }

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
    use super::{CallPattern, Permissions};

    #[test]
    fn intersection_is_what_both_allow() {
        let of = |call: &[&str], env: &[&str]| Permissions {
            call: call.iter().map(|text| CallPattern::try_from((*text).to_owned()).unwrap()).collect(),
            env: env.iter().map(|name| (*name).to_owned()).collect(),
            ..Permissions::default()
        };
        let cases = [
            (of(&["*"], &["A", "B"]), of(&["a.b/m"], &["B"]), of(&["a.b/m"], &["B"])),
            (of(&["a.b/*"], &[]), of(&["*/m"], &["A"]), of(&["a.b/m"], &[])),
            (of(&["a.b/*"], &["A"]), of(&["a.c/*"], &["B"]), of(&[], &[])),
            (of(&["a.b/m"], &["A"]), Permissions::default(), Permissions::default()),
        ];
        for (ours, theirs, expected) in cases {
            assert_eq!(ours.intersect(&theirs), expected, "{ours:?} and {theirs:?}");
            assert_eq!(theirs.intersect(&ours), expected, "{theirs:?} and {ours:?}");
        }
    }

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
