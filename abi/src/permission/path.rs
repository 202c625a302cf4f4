use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
pub enum FsMode {
    /// Read.
    #[serde(rename = "ro")]
    ReadOnly,
    /// Read, write, create and delete.
    #[serde(rename = "rw")]
    ReadWrite,
}

impl FsPermission {
    /// Whether it covers the path or a folder above it, for what is to be done there. Relative
    /// paths start in the package, and are covered by relative permissions alone.
    pub fn allows(&self, path: &str, mode: FsMode) -> bool {
        match (normal(&self.path), normal(path)) {
            (Some(ours), Some(path)) => mode <= self.mode && is_within(&path, &ours),
            _ => false,
        }
    }
}

/// A path without `.`, `..` and doubled slashes; `None` if it leaves where it starts (the package
/// or `/`), is empty, or has a backslash or a zero byte. A look at the text alone: whoever opens
/// the file takes care of links.
///
/// ```
/// use quadriga_abi::permission::normal;
/// assert_eq!(normal("data/./a/../b").as_deref(), Some("data/b"));
/// assert_eq!(normal("data/../../b"), None);
/// assert_eq!(normal("/etc//../usr/").as_deref(), Some("/usr"));
/// ```
pub fn normal(path: &str) -> Option<String> {
    if path.is_empty() || path.contains(['\\', '\0']) {
        return None;
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            name => parts.push(name),
        }
    }
    let start = if path.starts_with('/') { "/" } else { "" };
    match parts.is_empty() && start.is_empty() {
        true => Some(".".to_owned()),
        false => Some(format!("{start}{}", parts.join("/"))),
    }
}

/// Whether a text can name a program: a plain name, or an absolute path without detours.
pub fn is_program(name: &str) -> bool {
    match name.contains('/') {
        true => name.starts_with('/') && normal(name).as_deref() == Some(name),
        false => !matches!(name, "" | "." | "..") && !name.contains(['\\', '\0']),
    }
}

/// Whether one normal path is another or below it.
fn is_within(path: &str, folder: &str) -> bool {
    match folder {
        "." => !path.starts_with('/'),
        "/" => path.starts_with('/'),
        _ => path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
    }
}

impl fmt::Display for FsMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "ro",
            Self::ReadWrite => "rw",
        })
    }
}

impl fmt::Display for FsPermission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.path, self.mode)
    }
}

impl Pattern for FsPermission {
    fn meet(&self, other: &Self) -> Option<Self> {
        let mode = self.mode.min(other.mode);
        let deeper = match (self.allows(&other.path, mode), other.allows(&self.path, mode)) {
            (true, _) => other,
            (_, true) => self,
            _ => return None,
        };
        Some(Self { path: deeper.path.clone(), mode })
    }

    fn covers(&self, other: &Self) -> bool {
        self.allows(&other.path, other.mode)
    }
}
