//! Names of the contract as names of a language.

use std::collections::BTreeSet;

/// Names that a client uses itself, in one language or another.
const OURS: [&str; 26] = [
    "Any",
    "Array",
    "BTreeMap",
    "Client",
    "Date",
    "Dispatcher",
    "Err",
    "Error",
    "Items",
    "Iterator",
    "Literal",
    "Map",
    "None",
    "NotRequired",
    "Ok",
    "Option",
    "Promise",
    "Record",
    "Result",
    "Some",
    "String",
    "Timestamp",
    "TypedDict",
    "Uint8Array",
    "Value",
    "Vec",
];

/// The names that are taken.
#[derive(Debug, Clone, Default)]
pub(super) struct Names(BTreeSet<String>);

impl Names {
    pub(super) fn is_free(&self, name: &str) -> bool {
        !self.0.contains(name)
    }

    pub(super) fn take(&mut self, name: &str) {
        self.0.insert(name.to_owned());
    }

    /// The name, or with a number behind it if it is taken.
    pub(super) fn unique(&self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1;
        while !self.is_free(&unique) {
            count += 1;
            unique = format!("{name}{count}");
        }
        unique
    }
}

/// As types are named: `word_count` becomes `WordCount`.
pub(super) fn pascal(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    let name: String = words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect();
    match name.chars().next() {
        None => "Unnamed".to_owned(),
        Some(c) if c.is_ascii_digit() => format!("N{name}"),
        Some(_) if OURS.contains(&name.as_str()) => format!("{name}Type"),
        Some(_) => name,
    }
}

/// As functions and fields are named where words are set apart: `wordCount` becomes `word_count`.
pub(super) fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut after_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && after_lower {
            out.push('_');
        }
        after_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' });
    }
    let out = out.trim_matches('_').to_owned();
    match out.chars().next() {
        None => "unnamed".to_owned(),
        Some(c) if c.is_ascii_digit() => format!("n{out}"),
        Some(_) => out,
    }
}

/// A name as it is, where it can stand as one.
pub(super) fn plain(name: &str) -> String {
    let name: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    match name.chars().next() {
        None => "unnamed".to_owned(),
        Some(c) if c.is_ascii_digit() => format!("_{name}"),
        Some(_) => name,
    }
}

/// Each name once: later ones get a number.
pub(super) fn distinct(names: impl Iterator<Item = String>) -> Vec<String> {
    let mut taken = Names::default();
    names
        .map(|name| {
            let name = taken.unique(&name);
            taken.take(&name);
            name
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{distinct, pascal, plain, snake};

    #[test]
    fn names_fit_their_place() {
        for (name, type_name, field, as_it_is) in [
            ("word_count", "WordCount", "word_count", "word_count"),
            ("wordCount", "WordCount", "word_count", "wordCount"),
            ("HTTPServer2", "HTTPServer2", "httpserver2", "HTTPServer2"),
            ("content-type", "ContentType", "content_type", "content_type"),
            ("2nd", "N2nd", "n2nd", "_2nd"),
            ("", "Unnamed", "unnamed", "unnamed"),
            ("\"; evil()", "Evil", "evil", "___evil__"),
            ("é", "Unnamed", "unnamed", "_"),
            ("Result", "ResultType", "result", "Result"),
        ] {
            let seen = (pascal(name), snake(name), plain(name));
            assert_eq!(seen, (type_name.to_owned(), field.to_owned(), as_it_is.to_owned()), "{name}");
        }
        let names = ["a", "b", "a"].map(str::to_owned).into_iter();
        assert_eq!(distinct(names), ["a", "b", "a2"]);
    }
}
