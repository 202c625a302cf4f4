//! Schemas in a short notation for people: `{name: text, age?: int}`.

use serde_json::{Map, Value as Json};

use super::{BYTES, INT_KEY, TIMESTAMP};

/// How deep a schema is written out; below that it is `…`.
const DEEPEST: usize = 4;

/// A part of a schema in a short notation. `root` is the whole, in which references are looked up.
pub fn shape(root: &Json, schema: &Json) -> String {
    write(root, schema, 0)
}

/// What a reference such as `#/$defs/Person` means in a schema.
pub fn definition<'a>(root: &'a Json, reference: &str) -> Option<&'a Json> {
    root.pointer(reference.strip_prefix('#')?)
}

/// A schema, or what it refers to if it is no more than a reference, however often.
pub fn at<'a>(root: &'a Json, mut schema: &'a Json) -> &'a Json {
    for _ in 0..64 {
        let Some(Json::String(reference)) = schema.get("$ref") else { break };
        match definition(root, reference) {
            Some(found) => schema = found,
            None => break,
        }
    }
    schema
}

/// Whether a schema takes every value.
pub(super) fn is_any(schema: &Json) -> bool {
    const WORDS: [&str; 4] = ["title", "description", "default", "examples"];
    match schema {
        Json::Bool(any) => *any,
        Json::Object(keywords) => keywords.keys().all(|key| WORDS.contains(&key.as_str()) || key == "$defs"),
        _ => false,
    }
}

fn write(root: &Json, schema: &Json, depth: usize) -> String {
    let Json::Object(keywords) = schema else {
        return if *schema == Json::Bool(false) { "never" } else { "any" }.to_owned();
    };
    if let Some(Json::String(reference)) = keywords.get("$ref") {
        return match definition(root, reference) {
            Some(found) if depth < DEEPEST && !mentions(found, reference) => write(root, found, depth + 1),
            _ => reference.rsplit('/').next().unwrap_or_default().to_owned(),
        };
    }
    if depth > DEEPEST {
        return "…".to_owned();
    }
    if let Some(value) = keywords.get("const") {
        return value.to_string();
    }
    if let Some(Json::Array(values)) = keywords.get("enum") {
        return values.iter().map(Json::to_string).collect::<Vec<_>>().join(" | ");
    }
    for (key, between) in [("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")] {
        if let Some(Json::Array(parts)) = keywords.get(key) {
            return parts.iter().map(|part| write(root, part, depth + 1)).collect::<Vec<_>>().join(between);
        }
    }
    match keywords.get("type") {
        Some(Json::String(ty)) => one(root, ty, keywords, depth),
        Some(Json::Array(types)) => {
            let types = types.iter().filter_map(Json::as_str);
            types.map(|ty| one(root, ty, keywords, depth)).collect::<Vec<_>>().join(" | ")
        }
        _ => "any".to_owned(),
    }
}

fn one(root: &Json, ty: &str, keywords: &Map<String, Json>, depth: usize) -> String {
    let format = keywords.get("format").and_then(Json::as_str).unwrap_or_default();
    match ty {
        "null" => "nil".to_owned(),
        "boolean" => "bool".to_owned(),
        "integer" => format!("int{}", bounds(keywords)),
        "number" => format!("number{}", bounds(keywords)),
        "string" if format == BYTES || format == TIMESTAMP => format.to_owned(),
        "string" => "text".to_owned(),
        "array" => list(root, keywords, depth),
        _ => map(root, keywords, depth),
    }
}

fn bounds(keywords: &Map<String, Json>) -> String {
    let (least, most) = (keywords.get("minimum"), keywords.get("maximum"));
    match (least, most) {
        (None, None) => String::new(),
        _ => {
            let end = |end: Option<&Json>| end.map(Json::to_string).unwrap_or_default();
            format!("({}..{})", end(least), end(most))
        }
    }
}

fn list(root: &Json, keywords: &Map<String, Json>, depth: usize) -> String {
    let more = keywords.get("items");
    if let Some(Json::Array(items)) = keywords.get("prefixItems") {
        let mut parts: Vec<String> = items.iter().map(|item| write(root, item, depth + 1)).collect();
        if let Some(more) = more.filter(|more| **more != Json::Bool(false)) {
            parts.push(format!("...{}", write(root, more, depth + 1)));
        }
        return format!("[{}]", parts.join(", "));
    }
    match more {
        None => "[any]".to_owned(),
        Some(item) => format!("[{}]", write(root, item, depth + 1)),
    }
}

fn map(root: &Json, keywords: &Map<String, Json>, depth: usize) -> String {
    let required: Vec<&str> = keywords
        .get("required")
        .and_then(Json::as_array)
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
        .collect();
    let mut parts = Vec::new();
    if let Some(Json::Object(properties)) = keywords.get("properties") {
        for (name, schema) in properties {
            let optional = if required.contains(&name.as_str()) { "" } else { "?" };
            parts.push(format!("{name}{optional}: {}", write(root, schema, depth + 1)));
        }
    }
    let is_int = keywords.get("propertyNames").and_then(|names| names.get("format"));
    let key = if is_int.is_some_and(|format| format == INT_KEY) { "int" } else { "text" };
    match keywords.get("additionalProperties") {
        Some(Json::Bool(false)) => {}
        Some(schema) if !is_any(schema) => {
            parts.push(format!("[{key}]: {}", write(root, schema, depth + 1)));
        }
        _ if parts.is_empty() => parts.push(format!("[{key}]: any")),
        _ => {}
    }
    format!("{{{}}}", parts.join(", "))
}

/// Whether a schema refers to a definition: then it is recursive, and a name says more.
fn mentions(schema: &Json, reference: &str) -> bool {
    match schema {
        Json::Object(keywords) => keywords.iter().any(|(key, value)| {
            (key == "$ref" && value.as_str() == Some(reference)) || mentions(value, reference)
        }),
        Json::Array(items) => items.iter().any(|item| mentions(item, reference)),
        _ => false,
    }
}
