use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Which engine runs an extension, by the name that a manifest gives it.
///
/// An open set: whoever registers a runtime names its kind, so that a host can add one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RuntimeKind(Cow<'static, str>);

impl RuntimeKind {
    /// A kind known at build time.
    pub const fn new(kind: &'static str) -> Self {
        Self(Cow::Borrowed(kind))
    }

    /// The kind as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for RuntimeKind {
    fn from(kind: String) -> Self {
        Self(Cow::Owned(kind))
    }
}

impl fmt::Display for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for RuntimeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far an extension is kept from its host and its peers, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Isolation {
    /// Shares the host's memory without a barrier: for code that the host trusts.
    None,
    /// Shares the process, but the engine keeps the extension inside its own memory.
    InProcess,
    /// A process of its own.
    Process,
    /// A process of its own in namespaces with a private root.
    Container,
    /// A virtual machine of its own.
    Vm,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::InProcess => "in-process",
            Self::Process => "process",
            Self::Container => "container",
            Self::Vm => "vm",
        })
    }
}

impl std::str::FromStr for Isolation {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        [Self::None, Self::InProcess, Self::Process, Self::Container, Self::Vm]
            .into_iter()
            .find(|level| level.to_string() == text)
            .ok_or_else(|| {
                format!("{text:?} is no isolation level: expected none, in-process, process, container or vm")
            })
    }
}
