//! The literals of tests/conformance/values.toml as sources of the conformance guests.

use anyhow::Result;
use quadriga_conformance::{Language, Table};

/// Each file with its text.
pub(super) fn sources() -> Result<[(&'static str, String); 3]> {
    let table = Table::read()?;
    Ok([
        ("tests/guests/conformance/js/literals.js", javascript(&table)),
        ("tests/guests/conformance/python/literals.py", python(&table)),
        ("tests/guests/conformance/rust/src/literals.rs", rust(&table)),
    ])
}

const ORIGIN: &str = "Written by `cargo xtask codegen` from tests/conformance/values.toml.";

fn javascript(table: &Table) -> String {
    let mut text = format!(
        "// {ORIGIN}\nimport {{ Timestamp }} from \"quadriga\";\n\
         import {{ cycle, nested, nested_maps }} from \"./helpers.js\";\n\nexport const literals = {{\n"
    );
    for (name, literal) in table.literals(Language::JavaScript) {
        // An arrow before an object needs parentheses, which its literal has.
        text += &format!("  {name}: () => {literal},\n");
    }
    text + "};\n"
}

fn python(table: &Table) -> String {
    let mut text = format!(
        "\"\"\"{ORIGIN}\"\"\"\n\nimport re\nfrom array import array\nfrom collections import OrderedDict\n\
         from datetime import date, datetime, timedelta, timezone\nfrom decimal import Decimal\n\n\
         from helpers import EPOCH, Colour, Name, Pile, at, cycle, nested, nested_maps\n\
         from quadriga import Timestamp\n\nLITERALS = {{\n"
    );
    for (name, literal) in table.literals(Language::Python) {
        text += &format!("    \"{name}\": lambda: {literal},\n");
    }
    text + "}\n"
}

fn rust(table: &Table) -> String {
    let mut text = format!(
        "//! {ORIGIN}\n\nuse std::collections::{{BTreeMap, HashMap, HashSet}};\n\nuse quadriga_sdk::Value;\n\n\
         use crate::helpers::{{Point, Shape, Take, map, nested, nested_maps, text, time}};\n\n\
         /// Hands over the literal of a case.\n\
         pub(crate) fn give<T: Take>(name: &str, to: T) -> Option<T::Out> {{\n    Some(match name {{\n"
    );
    for (name, literal) in table.literals(Language::Rust) {
        text += &format!("        \"{name}\" => to.take({literal}),\n");
    }
    text + "        _ => return None,\n    })\n}\n"
}
