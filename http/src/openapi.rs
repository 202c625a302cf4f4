//! The OpenAPI document of some functions: <https://spec.openapis.org/oas/v3.1.0>, whose schemas are
//! those of JSON Schema 2020-12.

use quadriga_core::ApiStatus;
use serde_json::{Map, Value, json};

use crate::answer::PROBLEM;
use crate::call::LINES;

pub(crate) fn document(title: &str, version: &str, functions: &[ApiStatus]) -> Value {
    let mut schemas = Map::from_iter([("Problem".to_owned(), problem())]);
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

/// Moves what a schema defines for itself to where the whole document finds it.
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

/// Has all references go there.
fn refer(schema: &mut Value, prefix: &str) {
    match schema {
        Value::Object(map) => {
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
