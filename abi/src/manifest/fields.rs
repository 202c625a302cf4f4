use std::borrow::Cow;
use std::fmt;
use std::path::{Component, Path};
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A way to put a rule into words, for errors and for the JSON Schema alike.
pub trait Hint {
    /// What was expected.
    const EXPECTED: &'static str;
    /// A regular expression (ECMA-262) that no good value fails; empty where there is none.
    const PATTERN: &'static str = "";
}

macro_rules! text_field {
    ($(#[$meta:meta])* $name:ident, $inner:ty, $expected:literal, $pattern:literal) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(pub $inner);

        impl Hint for $name {
            const EXPECTED: &'static str = $expected;
            const PATTERN: &'static str = $pattern;
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl From<$name> for String {
            fn from(field: $name) -> Self {
                field.to_string()
            }
        }

        impl TryFrom<String> for $name {
            type Error = String;

            fn try_from(text: String) -> Result<Self, String> {
                <$inner>::from_str(&text).map(Self).map_err(|error| {
                    format!("{text:?} is not valid: {error}; expected {}", Self::EXPECTED)
                })
            }
        }

        schema_of_text!($name);
    };
}

macro_rules! schema_of_text {
    ($name:ty) => {
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).rsplit("::").next().unwrap_or_default().trim().into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = json_schema!({ "type": "string", "description": <$name as Hint>::EXPECTED });
                if !<$name as Hint>::PATTERN.is_empty() {
                    schema.insert("pattern".into(), <$name as Hint>::PATTERN.into());
                }
                schema
            }
        }
    };
}

text_field!(
    /// A semantic version: <https://semver.org/spec/v2.0.0.html>.
    Version, semver::Version, "a semantic version such as \"1.4.2\"", r"^\d+\.\d+\.\d+"
);
text_field!(
    /// A range of semantic versions, as Cargo writes them.
    VersionReq, semver::VersionReq, "a range of semantic versions such as \"^1.4\" or \">=1.2, <3\"", ""
);
text_field!(
    /// An SPDX licence expression: <https://spdx.github.io/spdx-spec/v3.0.1/annexes/spdx-license-expressions/>.
    License, Spdx, "an SPDX licence expression such as \"Apache-2.0 OR MIT\"", ""
);
text_field!(
    /// The file to load: relative, inside the package, with forward slashes.
    EntryPath, Relative, "a file inside the package such as \"main.js\", without \"..\"", r"^[^/\\]"
);

/// The text of a checked licence expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spdx(String);

impl FromStr for Spdx {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let checked = spdx::Expression::parse(text).map_err(|error| error.reason.to_string())?;
        Ok(Self(checked.to_string()))
    }
}

impl fmt::Display for Spdx {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The text of a checked relative path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relative(String);

impl FromStr for Relative {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        let path = Path::new(text);
        if text.is_empty() {
            Err("it is empty")
        } else if text.contains(['\\', '\0']) {
            Err("it has a backslash or a zero byte")
        } else if !path.components().all(|part| matches!(part, Component::Normal(_))) {
            Err("it leaves the package")
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for Relative {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl EntryPath {
    /// The path, relative to the manifest.
    pub fn as_path(&self) -> &Path {
        Path::new(&self.0.0)
    }
}

/// A list of texts in which none stands twice.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct UniqueList(Vec<String>);

impl UniqueList {
    /// The texts in the order they were written.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

impl TryFrom<Vec<String>> for UniqueList {
    type Error = String;

    fn try_from(list: Vec<String>) -> Result<Self, String> {
        match list.iter().enumerate().find(|(i, text)| list[..*i].contains(text)) {
            Some((_, text)) => Err(format!("{text:?} is a duplicate: expected each text once")),
            None => Ok(Self(list)),
        }
    }
}

impl From<UniqueList> for Vec<String> {
    fn from(list: UniqueList) -> Self {
        list.0
    }
}

impl JsonSchema for UniqueList {
    fn schema_name() -> Cow<'static, str> {
        "UniqueList".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "array", "items": { "type": "string" }, "uniqueItems": true })
    }
}

impl Hint for crate::ExtensionId {
    const EXPECTED: &'static str = "publisher.name in lower-case letters, digits and hyphens";
    const PATTERN: &'static str = r"^[a-z][a-z0-9]*(-[a-z0-9]+)*\.[a-z][a-z0-9]*(-[a-z0-9]+)*$";
}

impl Hint for crate::limits::ByteSize {
    const EXPECTED: &'static str = "a number of bytes such as \"64MiB\"";
    const PATTERN: &'static str = r"^\d+(B|KiB|MiB|GiB)$";
}

impl Hint for crate::limits::Span {
    const EXPECTED: &'static str = "a length of time such as \"5s\"";
    const PATTERN: &'static str = r"^\d+(us|ms|s|min|h)$";
}

impl Hint for crate::permission::CallPattern {
    const EXPECTED: &'static str =
        "methods to call: \"publisher.name/method\", \"publisher.name/*\" or \"*\"";
}

impl Hint for crate::permission::NetPattern {
    const EXPECTED: &'static str =
        "where to connect to: \"api.example.org:443\", \"*.example.org:443\" or \"*:*\"";
    const PATTERN: &'static str = r"^.+:(\*|[0-9]{1,5})$";
}

impl Hint for crate::permission::StorePattern {
    const EXPECTED: &'static str = "a store and what is done there: \"orders:ro\" or \"orders:rw\"";
    const PATTERN: &'static str = r"^[^\s:,*]+:(ro|rw)$";
}

impl Hint for crate::permission::DataPattern {
    const EXPECTED: &'static str = "fields of data to read: \"customers:name,city\" or \"customers:*\"";
    const PATTERN: &'static str = r"^[^\s:,*]+:(\*|[^\s:,*]+(, *[^\s:,*]+)*)$";
}

schema_of_text!(crate::ExtensionId);
schema_of_text!(crate::limits::ByteSize);
schema_of_text!(crate::limits::Span);
schema_of_text!(crate::permission::CallPattern);
schema_of_text!(crate::permission::NetPattern);
schema_of_text!(crate::permission::StorePattern);
schema_of_text!(crate::permission::DataPattern);

impl JsonSchema for crate::RuntimeKind {
    fn schema_name() -> Cow<'static, str> {
        "RuntimeKind".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "examples": ["javascript", "python", "webassembly", "native"],
            "anyOf": [
                { "enum": ["javascript", "python", "webassembly", "native"] },
                { "type": "string", "description": "a kind that the host brings" },
            ],
        })
    }
}

/// Splits `name@version`.
pub(super) fn capability<V: FromStr<Err: fmt::Display>>(text: &str) -> Result<(&str, V), String> {
    let (name, version) = text.split_once('@').filter(|(name, _)| !name.is_empty()).ok_or_else(|| {
        format!("{text:?} is no capability: expected name@version, such as \"tokenizer@1.2.0\"")
    })?;
    let version = version
        .parse()
        .map_err(|error| format!("{text:?} is no capability: {error}; expected name@version"))?;
    Ok((name, version))
}
