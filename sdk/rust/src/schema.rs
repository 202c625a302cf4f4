//! The schemas of a method's types, of those that have one.

use std::marker::PhantomData;

use quadriga_abi::contract::FunctionSchemas;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value as Json;

use crate::Stream;
use crate::method::Method;

/// Collects the schemas of one method.
#[derive(Default)]
pub struct Schemas {
    types: FunctionSchemas,
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
        let mut schemas = Self::default();
        (method.schemas)(&mut schemas);
        (schemas.input(method), schemas.output())
    }

    /// Where the schemas of parameters, and what they refer to, are made.
    pub fn takes(&mut self) -> &mut SchemaGenerator {
        self.types.takes()
    }

    /// Where the schema of the result, and what it refers to, is made.
    pub fn gives(&mut self) -> &mut SchemaGenerator {
        self.types.gives()
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
        let names = method.parameters.iter().map(|parameter| parameter.name);
        let schemas = self.parameters.drain(..).map(|schema| schema.unwrap_or_else(|| true.into()));
        Some(self.types.input(names.zip(schemas), method.required))
    }

    fn output(&mut self) -> Option<Json> {
        Some(self.types.output(self.result.take()?))
    }
}

#[cfg(test)]
mod tests;
