//! The schemas of a method's types, of those that have one.

use std::marker::PhantomData;

use quadriga_abi::contract::{BYTES, INT_KEY};
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value as Json, json};

use crate::Stream;
use crate::method::Method;

/// Formats of types that serde writes another way for readers that are no people.
const COMPACT: [&str; 4] = ["ip", "ipv4", "ipv6", "uuid"];

/// Collects the schemas of one method.
pub struct Schemas {
    takes: SchemaGenerator,
    gives: SchemaGenerator,
    parameters: Vec<Option<Schema>>,
    result: Option<Schema>,
}

/// A type of a parameter, or of a result. Its `schema` is the one of types that have a schema, if
/// it has one.
pub struct Shape<T>(PhantomData<T>);

/// What a function returns. Its `value` is the one of `Result`s if it is one.
pub struct ShapeOf<T>(PhantomData<T>);

impl<T> Shape<T> {
    #[expect(missing_docs, clippy::new_without_default, reason = "only the macro's output calls it")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T: JsonSchema> Shape<T> {
    /// The schema that the type's author derived.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Option<Schema> {
        Some(generator.subschema_for::<T>())
    }
}

/// The `schema` of everything else.
pub trait NoSchema {
    /// There is none.
    fn schema(&self, generator: &mut SchemaGenerator) -> Option<Schema>;
}

impl<T> NoSchema for Shape<T> {
    fn schema(&self, _: &mut SchemaGenerator) -> Option<Schema> {
        None
    }
}

impl<T> ShapeOf<T> {
    #[expect(missing_docs, clippy::new_without_default, reason = "only the macro's output calls it")]
    pub fn new() -> Self {
        Self(PhantomData)
    }
}

impl<T, E> ShapeOf<Result<T, E>> {
    /// The type of the `Ok`.
    pub fn value(&self) -> Shape<T> {
        Shape::new()
    }
}

impl<T> ShapeOf<Stream<T>> {
    /// The type of the items.
    pub fn value(&self) -> Shape<T> {
        Shape::new()
    }
}

/// The `value` of everything else.
pub trait NotResult {
    /// The type itself.
    type Value;

    /// The type itself.
    fn value(&self) -> Shape<Self::Value>;
}

impl<T> NotResult for ShapeOf<T> {
    type Value = T;

    fn value(&self) -> Shape<T> {
        Shape::new()
    }
}

impl Schemas {
    /// The schemas of a method's arguments and of its result.
    pub(crate) fn of(method: &Method) -> (Option<Json>, Option<Json>) {
        let settings = || SchemaSettings::draft2020_12().with(|settings| settings.meta_schema = None);
        let mut schemas = Self {
            takes: settings().into_generator(),
            gives: settings().for_serialize().into_generator(),
            parameters: Vec::new(),
            result: None,
        };
        (method.schemas)(&mut schemas);
        (schemas.input(method), schemas.output())
    }

    /// Where the schemas of parameters, and what they refer to, are made.
    pub fn takes(&mut self) -> &mut SchemaGenerator {
        &mut self.takes
    }

    /// Where the schema of the result, and what it refers to, is made.
    pub fn gives(&mut self) -> &mut SchemaGenerator {
        &mut self.gives
    }

    /// Adds the schema of the next parameter.
    pub fn parameter(&mut self, schema: Option<Schema>) {
        self.parameters.push(schema);
    }

    /// Sets the schema of the result.
    pub fn result(&mut self, schema: Option<Schema>) {
        self.result = schema;
    }

    fn input(&mut self, method: &Method) -> Option<Json> {
        if !self.parameters.is_empty() && self.parameters.iter().all(Option::is_none) {
            return None;
        }
        let items = self.parameters.drain(..).zip(method.parameters).map(|(schema, parameter)| {
            let mut schema = schema.unwrap_or_else(|| true.into());
            schema.insert("title".to_owned(), parameter.name.into());
            conventional(schema.into())
        });
        let mut input = json!({
            "type": "array",
            "prefixItems": items.collect::<Vec<_>>(),
            "minItems": method.required,
            "items": false,
        });
        if method.parameters.is_empty() {
            input = json!({ "type": "array", "maxItems": 0 });
        }
        Some(with_definitions(input, self.takes.take_definitions(true)))
    }

    fn output(&mut self) -> Option<Json> {
        let schema = conventional(self.result.take()?.into());
        Some(with_definitions(schema, self.gives.take_definitions(true)))
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
                    return titled(json!({ "type": "string", "format": BYTES }), &keywords);
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

#[cfg(test)]
mod tests;
