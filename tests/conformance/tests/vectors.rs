//! The data against the pure Rust reader and codec, which need no engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;

use quadriga_abi::{Value, codec};
use quadriga_conformance::{Language, Table};

const LANGUAGES: [Language; 3] = [Language::JavaScript, Language::Python, Language::Rust];

#[test]
fn values_travel_in_their_shortest_form() {
    for case in Table::read().unwrap().value {
        let value = Value::from_bytes(&case.bytes.0).expect(&case.name);
        assert!(value.to_bytes().unwrap() == case.bytes.0, "{}", case.name);
        for bytes in case.also.iter().chain([&case.bytes]) {
            let typed: Value = codec::from_bytes(&bytes.0).expect(&case.name);
            assert!(
                Value::from_bytes(&bytes.0).unwrap().to_bytes().unwrap() == case.bytes.0,
                "{}",
                case.name
            );
            assert!(codec::to_bytes(&typed).unwrap() == case.bytes.0, "{}", case.name);
        }
    }
}

#[test]
fn malformed_bytes_are_refused() {
    for case in Table::read().unwrap().malformed {
        assert!(Value::from_bytes(&case.bytes.0).is_err(), "{}", case.name);
        assert!(codec::from_bytes::<Value>(&case.bytes.0).is_err(), "{}", case.name);
    }
}

#[test]
fn every_language_has_a_literal_or_a_reason() {
    let table = Table::read().unwrap();
    let mut names = BTreeSet::new();
    for case in &table.value {
        for language in LANGUAGES {
            let reason = case.no_place.of(language).is_some();
            assert!(case.literal(language).is_some() != reason, "{} in {language:?}", case.name);
        }
    }
    for language in LANGUAGES {
        for (name, _) in table.literals(language) {
            assert!(names.insert(format!("{name} in {language:?}")), "{name} is there twice");
        }
    }
}

/// The rows of docs/values.md, by the first column of its first table.
fn rows() -> BTreeSet<String> {
    let docs = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/values.md")).unwrap();
    let table = docs.lines().skip_while(|line| !line.starts_with("| value")).skip(2);
    let rows = table.take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').nth(1).unwrap().trim().to_owned()).collect()
}

#[test]
fn every_row_of_the_docs_has_cases() {
    let table = Table::read().unwrap();
    let of_values = table.value.iter().map(|case| case.row.clone());
    let cases: BTreeSet<String> = of_values.chain(table.taken.iter().map(|case| case.row.clone())).collect();
    assert_eq!(cases, rows());
}
