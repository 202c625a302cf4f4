//! Schemas of Rust types in the conventions of contracts.

use schemars::generate::SchemaSettings;
use schemars::{Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use super::{BYTES, INT_KEY};

/// Formats of types that serde writes another way for readers that are no people.
const COMPACT: [&str; 4] = ["ip", "ipv4", "ipv6", "uuid"];

/// Makes the two schemas of one function from those of its types.
pub struct FunctionSchemas {
    takes: SchemaGenerator,
    gives: SchemaGenerator,
}

impl Default for FunctionSchemas {
    fn default() -> Self {
        let settings = || SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
        Self { takes: settings().into_generator(), gives: settings().for_serialize().into_generator() }
    }
}

impl FunctionSchemas {
    /// Where the schemas of parameters, and what they refer to, are made.
    pub fn takes(&mut self) -> &mut SchemaGenerator {
        &mut self.takes
    }

    /// Where the schema of the result, and what it refers to, is made.
    pub fn gives(&mut self) -> &mut SchemaGenerator {
        &mut self.gives
    }

    /// The schema of the list of arguments, by the names and schemas of the parameters. So many of them
    /// have to be passed.
    pub fn input<'a>(
        &mut self,
        parameters: impl Iterator<Item = (&'a str, Schema)>,
        required: usize,
    ) -> Json {
        let items: Vec<_> = parameters
            .map(|(name, mut schema)| {
                schema.insert("title".to_owned(), name.into());
                conventional(schema.into())
            })
            .collect();
        let input = match items.is_empty() {
            true => json!({ "type": "array", "maxItems": 0 }),
            false => json!({ "type": "array", "prefixItems": items, "minItems": required, "items": false }),
        };
        with_definitions(input, self.takes.take_definitions(true))
    }

    /// The schema of the result, by that of its type.
    pub fn output(&mut self, schema: Schema) -> Json {
        with_definitions(conventional(schema.into()), self.gives.take_definitions(true))
    }
}

fn with_definitions(mut schema: Json, definitions: Map<String, Json>) -> Json {
    if let (Json::Object(schema), false) = (&mut schema, definitions.is_empty()) {
        let definitions = definitions.into_iter().map(|(name, schema)| (name, conventional(schema)));
        schema.insert("$defs".to_owned(), definitions.collect());
    }
    schema
}

/// The schema in the conventions of the contract: bytes and maps with ints for keys are no list and
/// no map of texts, as they would be in JSON.
fn conventional(schema: Json) -> Json {
    match schema {
        Json::Object(keywords) => {
            let mut keywords: Map<_, _> = keywords
                .into_iter()
                .map(|(key, value)| match key.as_str() {
                    // Values, not schemas.
                    "const" | "enum" | "default" | "examples" => (key, value),
                    _ => (key, conventional(value)),
                })
                .collect();
            let format = |schema: &Json| schema.get("format").and_then(Json::as_str).map(str::to_owned);
            if keywords.get("items").and_then(format).as_deref() == Some("uint8") {
                if keywords.contains_key("uniqueItems") {
                    // Whether a set is bytes depends on the set.
                    return titled(json!({}), &keywords);
                }
                // Arrays of a fixed length are lists.
                if !keywords.contains_key("minItems") {
                    // An optional one is `["array", "null"]`.
                    let types = keywords.get("type").and_then(Json::as_array);
                    let optional = types.is_some_and(|types| types.iter().any(|it| it == "null"));
                    let text = if optional { json!(["string", "null"]) } else { json!("string") };
                    return titled(json!({ "type": text, "format": BYTES }), &keywords);
                }
            }
            let compact = keywords.get("format").and_then(Json::as_str);
            if compact.is_some_and(|format| COMPACT.contains(&format)) {
                return titled(json!({}), &keywords);
            }
            if let Some(Json::Object(patterns)) = keywords.get("patternProperties") {
                let ints = patterns.get(r"^-?\d+$").or_else(|| patterns.get(r"^\d+$")).cloned();
                if let (Some(value), 1) = (ints, patterns.len()) {
                    keywords.remove("patternProperties");
                    keywords.insert("propertyNames".to_owned(), json!({ "format": INT_KEY }));
                    keywords.insert("additionalProperties".to_owned(), value);
                }
            }
            Json::Object(keywords)
        }
        Json::Array(items) => items.into_iter().map(conventional).collect(),
        other => other,
    }
}

fn titled(mut schema: Json, keywords: &Map<String, Json>) -> Json {
    for key in ["title", "description"] {
        if let Some(text) = keywords.get(key) {
            schema[key] = text.clone();
        }
    }
    schema
}
