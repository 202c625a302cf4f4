use std::fmt::Write as _;

use serde_json::Value as Json;

use super::model::{Client, Field, Function, Kind, Named, Type};
use super::names::{distinct, plain};

const RESERVED: [&str; 44] = [
    "False", "None", "True", "and", "as", "assert", "async", "await", "break", "class", "continue", "def",
    "del", "elif", "else", "except", "finally", "for", "from", "global", "host", "if", "import", "in", "is",
    "lambda", "nonlocal", "not", "or", "pass", "raise", "return", "try", "while", "with", "yield", "bool",
    "bytes", "dict", "float", "int", "list", "object", "str",
];

/// A client in Python, for an extension.
pub(super) fn write(client: &Client) -> String {
    let Client { extension, version, types, functions } = client;
    let mut out = format!(
        "\"\"\"A client of {extension} {version}. `quadriga bindgen` wrote it: do not edit.\n\n\
         The manifest must ask for the calls: [permissions] call = [\"{extension}/*\"]\n\"\"\"\n\n\
         from __future__ import annotations\n\n\
         from collections.abc import Iterator\n\
         from datetime import datetime\n\
         from typing import Any, Literal, NotRequired, TypeAlias, TypedDict\n\n\
         from quadriga import host\n\n\
         EXTENSION = {}\n\n\
         _LEFT_OUT: Any = object()\n",
        text(extension)
    );
    for named in types {
        out.push_str("\n\n");
        out.push_str(&type_text(named));
    }
    let names = distinct(functions.iter().map(|function| name(&function.name)));
    for (function, name) in functions.iter().zip(names) {
        out.push_str("\n\n");
        out.push_str(&function_text(function, &name));
    }
    out.push_str(
        "\n\ndef _given(*args: Any) -> list[Any]:\n\
         \x20   \"\"\"The arguments that a call passes: those at the end that were left out are not among them.\"\"\"\n\
         \x20   given = list(args)\n\
         \x20   while given and given[-1] is _LEFT_OUT:\n\
         \x20       given.pop()\n\
         \x20   return [None if one is _LEFT_OUT else one for one in given]\n",
    );
    out
}

fn type_text(named: &Named) -> String {
    let name = &named.name;
    match &named.kind {
        Kind::Object(fields) if fields.iter().all(|field| self::name(&field.name) == field.name) => {
            let mut out = format!("class {name}(TypedDict):\n{}", doc(&named.doc));
            for field in fields {
                // Writing to a String cannot fail.
                let _ = writeln!(out, "    {}: {}", field.name, field_type(field));
            }
            if fields.is_empty() && named.doc.is_empty() {
                out.push_str("    pass\n");
            }
            out
        }
        Kind::Object(fields) => {
            let fields = fields
                .iter()
                .map(|field| format!("    {}: {},\n", text(&field.name), text(&field_type(field))));
            format!(
                "{name} = TypedDict(\n    {},\n    {{\n{}    }},\n)\n",
                text(name),
                fields.map(|line| format!("    {line}")).collect::<String>()
            )
        }
        Kind::Texts(texts) => {
            let texts: Vec<_> = texts.iter().map(|one| text(one)).collect();
            format!("{name} = Literal[{}]\n", texts.join(", "))
        }
        // As text: it may name what comes later, itself included.
        Kind::Alias(ty) => format!("{name}: TypeAlias = {}\n", text(&of(ty))),
    }
}

fn field_type(field: &Field) -> String {
    if field.optional { format!("NotRequired[{}]", of(&field.ty)) } else { of(&field.ty) }
}

fn function_text(function: &Function, own: &str) -> String {
    let names = distinct(function.parameters.iter().map(|parameter| name(&parameter.name)));
    let mut parameters: Vec<String> = function
        .parameters
        .iter()
        .zip(&names)
        .map(|(parameter, name)| {
            let default = if parameter.optional { " = _LEFT_OUT" } else { "" };
            format!("{name}: {}{default}", of(&parameter.ty))
        })
        .collect();
    let mut passed = names;
    if let Some(rest) = &function.rest {
        parameters.push(format!("*others: {}", of(rest)));
        passed.push("*others".to_owned());
    }
    let passed = if passed.is_empty() { String::new() } else { format!(", *_given({})", passed.join(", ")) };
    let (result, call) = match function.streams {
        true => (format!("Iterator[{}]", of(&function.returns)), "stream"),
        false => (of(&function.returns), "call"),
    };
    format!(
        "def {own}({}) -> {result}:\n{}    return host.{call}(EXTENSION, {}{passed})\n",
        parameters.join(", "),
        doc(&function.doc),
        text(&function.name),
    )
}

fn of(ty: &Type) -> String {
    match ty {
        Type::Any => "Any".to_owned(),
        Type::Nil => "None".to_owned(),
        Type::Bool => "bool".to_owned(),
        Type::Int(..) => "int".to_owned(),
        Type::Number => "float".to_owned(),
        Type::Text => "str".to_owned(),
        Type::Bytes => "bytes".to_owned(),
        Type::Timestamp => "datetime".to_owned(),
        Type::Literals(values) if values.iter().any(Json::is_f64) => "float".to_owned(),
        Type::Literals(values) => {
            format!("Literal[{}]", values.iter().map(literal).collect::<Vec<_>>().join(", "))
        }
        Type::List(item) => format!("list[{}]", of(item)),
        // A list arrives, whatever it was: Python's tuples are not on the wire.
        Type::Tuple(items, _, more) => {
            let mut kinds: Vec<String> = Vec::new();
            for kind in items.iter().chain(more.as_deref()).map(of) {
                if !kinds.contains(&kind) {
                    kinds.push(kind);
                }
            }
            format!("list[{}]", if kinds.is_empty() { "Any".to_owned() } else { kinds.join(" | ") })
        }
        Type::Map(ints, value) => format!("dict[{}, {}]", if *ints { "int" } else { "str" }, of(value)),
        Type::Union(arms) => arms.iter().map(of).collect::<Vec<_>>().join(" | "),
        Type::Named(name) => name.clone(),
    }
}

fn literal(value: &Json) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::String(one) => text(one),
        other => other.to_string(),
    }
}

fn name(name: &str) -> String {
    let plain = plain(name);
    // Two underscores would be mangled in a class.
    let plain = if plain.starts_with("__") { format!("n{plain}") } else { plain };
    if RESERVED.contains(&plain.as_str()) { format!("{plain}_") } else { plain }
}

/// JSON's escapes are Python's too.
fn text(text: &str) -> String {
    Json::from(text).to_string()
}

fn doc(doc: &str) -> String {
    if doc.is_empty() {
        return String::new();
    }
    let doc = doc.replace('\\', "\\\\").replace("\"\"\"", "\\\"\\\"\\\"").replace('\r', "");
    let doc = if doc.ends_with('"') { format!("{doc} ") } else { doc };
    let end = if doc.contains('\n') { "\n" } else { "" };
    let indented =
        doc.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect::<Vec<_>>().join("\n");
    format!(
        "    \"\"\"{}{}\"\"\"\n",
        indented.trim_start_matches(' '),
        if end.is_empty() { String::new() } else { "\n    ".to_owned() }
    )
}
