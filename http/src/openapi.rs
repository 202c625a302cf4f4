//! The OpenAPI document of some functions: <https://spec.openapis.org/oas/v3.1.0>, whose schemas are
//! those of JSON Schema 2020-12.

use quadriga_abi::contract::{BYTES, INT_KEY, TIMESTAMP};
use quadriga_core::ApiStatus;
use serde_json::{Map, Value, json};

use crate::answer::PROBLEM;
use crate::call::LINES;

pub(crate) fn document(title: &str, version: &str, functions: &[ApiStatus]) -> Value {
    let own = [("Problem", problem()), ("Bytes", bytes()), ("Timestamp", timestamp())];
    let mut schemas = Map::from_iter(own.map(|(name, schema)| (name.to_owned(), schema)));
    let mut paths = Map::new();
    for it in functions {
        let (api, name) = (&*it.api, &it.function.name);
        let operation = operation(it, &mut schemas);
        paths.insert(format!("/{}/{}", segment(api), segment(name)), json!({ "post": operation }));
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": title, "version": version },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer" } },
        },
        "security": [{ "token": [] }],
    })
}

fn operation(it: &ApiStatus, schemas: &mut Map<String, Value>) -> Value {
    let function = &it.function;
    let id = format!("{}.{}", it.api, function.name);
    let input = function.input.clone().unwrap_or_else(|| json!({ "type": "array" }));
    let input = shared(input, &format!("{id}.input"), schemas);
    let needs_some = input["minItems"].as_u64().is_some_and(|least| least > 0);
    let mut choices = vec![input.clone()];
    choices.extend(by_name(it, &input));
    let output = function.output.clone().unwrap_or_else(|| json!(true));
    let output = shared(output, &format!("{id}.output"), schemas);
    let content = match function.streams {
        false => json!({ "application/json": { "schema": output } }),
        true => {
            let error = json!({ "$ref": "#/components/schemas/Problem" });
            let line = |name: &str, schema: Value| json!({ "type": "object", "properties": { name: schema }, "required": [name] });
            json!({ LINES: { "schema": { "oneOf": [line("item", output), line("error", error)] } } })
        }
    };
    let mut operation = json!({
        "operationId": id,
        "tags": [&*it.api],
        "requestBody": {
            "required": needs_some,
            "content": { "application/json": { "schema": { "anyOf": choices } } },
        },
        "responses": {
            "200": { "description": "What the function returns", "content": content },
            "default": {
                "description": "What went wrong",
                "content": { PROBLEM: { "schema": { "$ref": "#/components/schemas/Problem" } } },
            },
        },
    });
    let doc = function.doc.trim();
    if let Some(first) = doc.lines().next() {
        operation["summary"] = first.into();
        operation["description"] = doc.into();
    }
    if let Some(extension) = &it.extension {
        operation["x-quadriga-extension"] = extension.as_str().into();
    }
    operation
}

/// The arguments as a map, where the language tells the names of the parameters.
fn by_name(it: &ApiStatus, input: &Value) -> Option<Value> {
    let parameters = &it.function.parameters;
    if parameters.is_empty() {
        return None;
    }
    let schema = |place: usize| input["prefixItems"].get(place).cloned().unwrap_or_else(|| json!(true));
    let properties: Map<_, _> =
        parameters.iter().enumerate().map(|(place, it)| (it.name.clone(), schema(place))).collect();
    let required: Vec<_> = parameters.iter().filter(|it| !it.optional).map(|it| &it.name).collect();
    Some(json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    }))
}

/// The schema of a contract as one of JSON, with what it defines for itself moved to where the whole
/// document finds it.
fn shared(mut schema: Value, prefix: &str, schemas: &mut Map<String, Value>) -> Value {
    let defined = schema.as_object_mut().and_then(|map| map.remove("$defs"));
    refer(&mut schema, prefix);
    if let Some(Value::Object(defined)) = defined {
        for (name, mut definition) in defined {
            refer(&mut definition, prefix);
            schemas.insert(component(prefix, &name), definition);
        }
    }
    if let Some(map) = schema.as_object_mut() {
        map.remove("$schema");
    }
    schema
}

/// Has all references go there, and says of what JSON lacks how it is sent.
fn refer(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(map) => {
            tag(map);
            pairs(map);
            for (key, value) in map {
                match value {
                    Value::String(text) if key == "$ref" => {
                        if let Some(name) = text.strip_prefix("#/$defs/") {
                            // As a JSON Pointer in a fragment has it (RFC 6901).
                            let name = name.replace("~1", "/").replace("~0", "~");
                            *text = format!("#/components/schemas/{}", component(prefix, &name));
                        }
                    }
                    // The keys in there are names, whatever they are.
                    Value::Object(named)
                        if matches!(
                            key.as_str(),
                            "properties" | "patternProperties" | "dependentSchemas"
                        ) =>
                    {
                        named.values_mut().for_each(|it| refer(it, prefix));
                    }
                    // What is said there are values, which may look like references.
                    _ if matches!(key.as_str(), "const" | "enum" | "default" | "examples") => {}
                    _ => refer(value, prefix),
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|it| refer(it, prefix)),
        _ => {}
    }
}

/// Bytes and timestamps are texts with a format in contracts, and objects in JSON.
fn tag(schema: &mut Map<String, Value>) {
    let name = match schema.get("format").and_then(Value::as_str) {
        Some(BYTES) => "Bytes",
        Some(TIMESTAMP) => "Timestamp",
        _ => return,
    };
    let mut types = match schema.get("type") {
        Some(Value::Array(types)) => types.clone(),
        Some(one) => vec![one.clone()],
        None => return,
    };
    let all = types.len();
    types.retain(|it| it != "string");
    if types.len() == all {
        return;
    }
    schema.remove("type");
    schema.remove("format");
    let reference = format!("#/components/schemas/{name}");
    let (key, sent) = match types.is_empty() {
        true => ("$ref", json!(reference)),
        false => ("anyOf", json!([{ "$ref": reference }, { "type": types }])),
    };
    if schema.contains_key(key) {
        // What the schema says with the same keyword holds as well.
        let rest = std::mem::take(schema);
        schema.insert("allOf".to_owned(), json!([rest, { key: sent }]));
    } else {
        schema.insert(key.to_owned(), sent);
    }
}

/// Maps with ints for keys are lists of pairs in JSON, unless they are empty.
fn pairs(schema: &mut Map<String, Value>) {
    if schema.get("propertyNames").is_none_or(|names| names["format"] != INT_KEY) {
        return;
    }
    schema.remove("propertyNames");
    let value = schema.remove("additionalProperties").unwrap_or(Value::Bool(true));
    let pair = json!([{ "type": "integer" }, value]);
    let pair = json!({ "type": "array", "prefixItems": pair, "items": false, "minItems": 2 });
    schema.insert("properties".to_owned(), json!({ "$map": { "type": "array", "items": pair } }));
    schema.insert("additionalProperties".to_owned(), Value::Bool(false));
}

/// A name of components: letters, digits, `.`, `-` and `_` alone. Two of them never become one.
fn component(prefix: &str, name: &str) -> String {
    let whole = format!("{prefix}.{name}");
    let mut text = String::with_capacity(whole.len());
    for char in whole.chars() {
        match char {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '.' | '-' => text.push(char),
            _ => text.push_str(&format!("_{:x}_", u32::from(char))),
        }
    }
    text
}

/// A part of a path: what stands for itself there (RFC 3986, `unreserved`), and the rest encoded.
fn segment(text: &str) -> String {
    let mut path = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' => {
                path.push(char::from(byte))
            }
            _ => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "Problem details (RFC 9457)",
        "properties": {
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
            "code": { "type": "string", "description": "The code of the error, if a call failed" },
            "hint": { "type": "string", "description": "What could be done about it" },
        },
        "required": ["title", "status", "detail"],
    })
}

fn bytes() -> Value {
    let byte = json!({ "type": "integer", "minimum": 0, "maximum": 255 });
    tagged("Bytes", "$bytes", json!({ "type": "array", "items": byte }))
}

fn timestamp() -> Value {
    let parts = json!({
        "type": "array",
        "prefixItems": [
            { "type": "integer", "minimum": i64::MIN, "maximum": i64::MAX },
            { "type": "integer", "minimum": 0, "maximum": 999_999_999 },
        ],
        "items": false,
        "minItems": 2,
    });
    tagged("Seconds since 1970-01-01T00:00:00Z, and nanoseconds after them", "$timestamp", parts)
}

fn tagged(description: &str, tag: &str, inner: Value) -> Value {
    json!({
        "type": "object",
        "description": description,
        "properties": { tag: inner },
        "required": [tag],
        "additionalProperties": false,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::shared;

    #[test]
    fn what_json_lacks_is_described_as_it_is_sent() {
        let bytes = json!({ "$ref": "#/components/schemas/Bytes" });
        let text = json!({ "type": "string", "format": "bytes" });
        let named = json!({ "type": "string", "format": "timestamp", "title": "at" });
        let table = [
            (text.clone(), bytes.clone()),
            (named, json!({ "title": "at", "$ref": "#/components/schemas/Timestamp" })),
            (
                json!({ "type": ["null", "string"], "format": "bytes" }),
                json!({ "anyOf": [bytes, { "type": ["null"] }] }),
            ),
            (
                json!({ "type": "string", "format": "bytes", "$ref": "#/$defs/a" }),
                json!({ "allOf": [{ "$ref": "#/components/schemas/f.a" }, bytes] }),
            ),
            (json!({ "anyOf": [text, { "items": text }] }), json!({ "anyOf": [bytes, { "items": bytes }] })),
            (json!({ "additionalProperties": text }), json!({ "additionalProperties": bytes })),
            // What only looks like it: names of fields, values, and other formats and types.
            (
                json!({ "properties": { "type": text, "format": text } }),
                json!({ "properties": { "type": bytes, "format": bytes } }),
            ),
            (json!({ "default": text }), json!({ "default": text })),
            (json!({ "type": "string", "format": "email" }), json!({ "type": "string", "format": "email" })),
            (
                json!({ "type": "integer", "format": "bytes" }),
                json!({ "type": "integer", "format": "bytes" }),
            ),
        ];
        for (contract, sent) in table {
            let mut schemas = Map::new();
            let defined = json!({ "$defs": { "a": contract } });
            assert_eq!(shared(contract.clone(), "f", &mut schemas), sent, "{contract}");
            shared(defined, "f", &mut schemas);
            assert_eq!(schemas["f.a"], sent, "{contract}");
        }
    }
}
