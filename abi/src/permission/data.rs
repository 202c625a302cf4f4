use std::collections::BTreeSet;
use std::fmt;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;
use super::store::is_plain_name;

/// Fields of a source of data to read: `SOURCE:FIELD,FIELD`, or `SOURCE:*` for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DataPattern {
    source: String,
    /// `None` for all.
    fields: Option<BTreeSet<String>>,
}

impl DataPattern {
    /// Whether it covers a field of a source.
    pub fn allows(&self, source: &str, field: &str) -> bool {
        self.source == source && self.fields.as_ref().is_none_or(|fields| fields.contains(field))
    }

    /// The source.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// Its fields; `None` for all.
    pub fn fields(&self) -> Option<&BTreeSet<String>> {
        self.fields.as_ref()
    }
}

impl TryFrom<String> for DataPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!("{text:?} is no data: {why}; expected \"customers:name,city\" or \"customers:*\"")
        };
        let (source, fields) = text.split_once(':').ok_or_else(|| wrong("it names no fields"))?;
        let fields: Option<BTreeSet<String>> = match fields {
            "*" => None,
            names => Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
        };
        let names = fields.iter().flatten().map(String::as_str);
        if !std::iter::once(source).chain(names).all(is_plain_name) {
            return Err(wrong("a name is empty or long, or has a character that has no place in it"));
        }
        Ok(Self { source: source.to_owned(), fields })
    }
}

impl From<DataPattern> for String {
    fn from(pattern: DataPattern) -> Self {
        pattern.to_string()
    }
}

impl fmt::Display for DataPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.source)?;
        let Some(fields) = &self.fields else { return f.write_str("*") };
        for (at, field) in fields.iter().enumerate() {
            write!(f, "{}{field}", if at > 0 { "," } else { "" })?;
        }
        Ok(())
    }
}

impl Pattern for DataPattern {
    fn meet(&self, other: &Self) -> Option<Self> {
        let fields = match (&self.fields, &other.fields) {
            (Some(ours), Some(theirs)) => Some(ours & theirs),
            (ours, theirs) => ours.as_ref().or(theirs.as_ref()).cloned(),
        };
        let some = fields.as_ref().is_none_or(|fields| !fields.is_empty());
        (some && self.source == other.source).then(|| Self { source: self.source.clone(), fields })
    }
}
