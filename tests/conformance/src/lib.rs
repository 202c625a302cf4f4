//! `values.toml`: the value table as data. The tests read it, and `cargo xtask codegen` makes the
//! literals of the conformance guests of it.

pub mod seeds;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};

const VALUES: &str = include_str!("../values.toml");

/// All of the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Values that cross.
    pub value: Vec<Case>,
    /// What a language takes beside them.
    pub taken: Vec<Taken>,
    /// What no language may let out.
    pub refused: Vec<Refused>,
    /// Bytes that are no value.
    pub malformed: Vec<Malformed>,
}

/// A value, its bytes, and what it is in each language.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// Names the case.
    pub name: String,
    /// Its row in the table of docs/values.md.
    pub row: String,
    /// The bytes in which it travels.
    pub bytes: Bytes,
    /// Other bytes that are read as the same value.
    #[serde(default)]
    pub also: Vec<Bytes>,
    /// Too large to go through every pair of languages.
    #[serde(default)]
    pub big: bool,
    /// The literal in JavaScript.
    pub js: Option<String>,
    /// The literal in Python.
    pub python: Option<String>,
    /// The literal in Rust.
    pub rust: Option<String>,
    /// What becomes of it in a language that cannot tell it from something else.
    #[serde(default)]
    pub lossy: PerLanguage<Bytes>,
    /// Why a language cannot hold it: words of the error.
    #[serde(default)]
    pub no_place: PerLanguage<String>,
}

/// A literal that travels as a value of the table without being what that value becomes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Taken {
    /// Names the case.
    pub name: String,
    /// Its row in the table of docs/values.md.
    pub row: String,
    /// The bytes in which it travels.
    pub bytes: Bytes,
    /// The literal in JavaScript.
    pub js: Option<String>,
    /// The literal in Python.
    pub python: Option<String>,
    /// The literal in Rust.
    pub rust: Option<String>,
}

/// A literal that has no place in the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Refused {
    /// Names the case.
    pub name: String,
    /// Words of the error.
    pub says: String,
    /// The literal in JavaScript.
    pub js: Option<String>,
    /// The literal in Python.
    pub python: Option<String>,
    /// The literal in Rust.
    pub rust: Option<String>,
}

/// Bytes that are no value.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Malformed {
    /// Names the case.
    pub name: String,
    /// The bytes.
    pub bytes: Bytes,
}

/// Something for each language that has it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerLanguage<T> {
    /// In JavaScript.
    pub js: Option<T>,
    /// In Python.
    pub python: Option<T>,
    /// In Rust.
    pub rust: Option<T>,
}

/// A language that guests are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names say it")]
pub enum Language {
    JavaScript,
    Python,
    Rust,
}

/// Hexadecimal digits, with spaces anywhere; `(c0)*16` repeats.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bytes(pub Vec<u8>);

impl Table {
    /// Reads the file.
    ///
    /// # Errors
    /// If it is not what it should be.
    pub fn read() -> Result<Self, toml::de::Error> {
        toml::from_str(VALUES)
    }

    /// Every literal of a language, by the name of its case.
    pub fn literals(&self, language: Language) -> impl Iterator<Item = (&str, &str)> {
        let values = self.value.iter().map(move |case| (&case.name, case.literal(language)));
        let taken = self.taken.iter().map(move |case| (&case.name, case.literal(language)));
        let refused = self.refused.iter().map(move |case| (&case.name, case.literal(language)));
        let all = values.chain(taken).chain(refused);
        all.filter_map(|(name, literal)| Some((name.as_str(), literal?)))
    }
}

macro_rules! literals {
    ($($case:ident),*) => {$(
        impl $case {
            /// The literal in a language, if it has one.
            pub fn literal(&self, language: Language) -> Option<&str> {
                match language {
                    Language::JavaScript => self.js.as_deref(),
                    Language::Python => self.python.as_deref(),
                    Language::Rust => self.rust.as_deref(),
                }
            }
        }
    )*};
}

literals!(Case, Taken, Refused);

impl<T> PerLanguage<T> {
    /// The one of a language.
    pub fn of(&self, language: Language) -> Option<&T> {
        match language {
            Language::JavaScript => self.js.as_ref(),
            Language::Python => self.python.as_ref(),
            Language::Rust => self.rust.as_ref(),
        }
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let text: String = text.split_whitespace().collect();
        expand(&text).map(Self).ok_or_else(|| D::Error::custom(format!("{text:?} is no hexadecimal")))
    }
}

fn expand(text: &str) -> Option<Vec<u8>> {
    let Some((before, rest)) = text.split_once('(') else {
        return hex(text);
    };
    let (repeated, rest) = rest.split_once(")*")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    // A digit after the count would be part of it: `_` ends it.
    let (times, rest) = rest.split_at(digits);
    let mut bytes = hex(before)?;
    bytes.extend(hex(repeated)?.repeat(times.parse().ok()?));
    bytes.extend(expand(rest.strip_prefix('_').unwrap_or(rest))?);
    Some(bytes)
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    text.len().is_multiple_of(2).then(|| text.as_bytes().chunks(2).map(byte).collect())?
}

#[cfg(test)]
mod tests {
    use super::expand;

    #[test]
    fn bytes_are_written_as_hexadecimal() {
        let cases: [(&str, Option<&[u8]>); 6] = [
            ("", Some(&[])),
            ("c0ff", Some(&[0xc0, 0xff])),
            ("91(91)*2_c0", Some(&[0x91, 0x91, 0x91, 0xc0])),
            ("(0102)*2_(03)*1", Some(&[1, 2, 1, 2, 3])),
            ("c", None),
            ("xx", None),
        ];
        for (text, bytes) in cases {
            assert_eq!(expand(text).as_deref(), bytes, "{text}");
        }
    }
}
