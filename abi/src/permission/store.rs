use std::fmt;

use serde::{Deserialize, Serialize};

use super::FsMode;
use super::pattern::{Pattern, is_topic};

/// A store of values that several extensions share, and what may be done there: `NAME:ro` or `NAME:rw`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct StorePattern {
    name: String,
    mode: FsMode,
}

impl StorePattern {
    /// Whether it covers what is to be done with a store.
    pub fn allows(&self, name: &str, mode: FsMode) -> bool {
        self.name == name && mode <= self.mode
    }
}

/// Whether a text can be the name of a store or of a source of data: 1 to 128 bytes, and no `*`, `:`, `,`,
/// blanks or control characters.
pub fn is_plain_name(text: &str) -> bool {
    is_topic(text) && text.len() <= 128 && !text.contains([':', ','])
}

impl TryFrom<String> for StorePattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong =
            |why: &str| format!("{text:?} is no store: {why}; expected \"orders:ro\" or \"orders:rw\"");
        let (name, mode) =
            text.rsplit_once(':').ok_or_else(|| wrong("it does not say what is done there"))?;
        let mode = match mode {
            "ro" => FsMode::ReadOnly,
            "rw" => FsMode::ReadWrite,
            _ => return Err(wrong("what is done there is neither ro nor rw")),
        };
        if !is_plain_name(name) {
            return Err(wrong("the name is empty or long, or has a character that has no place in it"));
        }
        Ok(Self { name: name.to_owned(), mode })
    }
}

impl From<StorePattern> for String {
    fn from(pattern: StorePattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for StorePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.name, self.mode)
    }
}

impl Pattern for StorePattern {
    fn meet(&self, other: &Self) -> Option<Self> {
        let mode = self.mode.min(other.mode);
        (self.name == other.name).then(|| Self { name: self.name.clone(), mode })
    }
}
