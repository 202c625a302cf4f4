//! The contract of a package, read from the types of its source: those of TypeScript, or those in
//! JSDoc comments. What cannot be read takes anything.

mod files;
mod functions;
mod jsdoc;
mod objects;
mod types;

use std::path::Path;

use quadriga_abi::Method;
use serde_json::{Value as Json, json};

use files::Files;
use functions::Signature;
use types::Schemas;

/// Adds to each method its comment and the schemas of its arguments and its result, where the source
/// tells them.
/// `entry` is relative to `root`, with forward slashes.
pub(crate) fn describe<'a>(root: &Path, entry: &str, methods: impl Iterator<Item = &'a mut Method>) {
    let files = Files::new(root);
    for method in methods {
        if let Some(signature) = functions::exported(&files, entry, &method.name) {
            method.doc = signature.doc.clone();
            (method.input, method.output) = (input(&files, &signature, method), output(&files, &signature));
        }
    }
}

fn input(files: &Files, signature: &Signature, method: &Method) -> Option<Json> {
    let mut schemas = Schemas::taking(files, signature.hidden.clone());
    let mut items = Vec::new();
    let (mut least, mut more) = (0, json!(false));
    for (index, parameter) in signature.parameters.iter().enumerate() {
        let schema = match &parameter.ty {
            Some(ty) => schemas.of(&signature.file, ty),
            None => json!(true),
        };
        if parameter.rest {
            more = schema.get("items").cloned().unwrap_or(json!(true));
            continue;
        }
        if !parameter.optional {
            least = index + 1;
        }
        let name = method.parameters.get(index).map_or(&parameter.name, |known| &known.name);
        items.push(types::with(schema, "title", name.as_str().into()));
    }
    let told = signature.parameters.iter().any(|parameter| parameter.ty.is_some());
    let has_none = signature.is_typed && signature.parameters.is_empty();
    if !(told || has_none) {
        return None;
    }
    let input = match items.is_empty() {
        true if more == json!(false) => json!({ "type": "array", "maxItems": 0 }),
        true => json!({ "type": "array", "items": more }),
        false => json!({ "type": "array", "prefixItems": items, "minItems": least, "items": more }),
    };
    Some(schemas.with_definitions(input))
}

fn output(files: &Files, signature: &Signature) -> Option<Json> {
    let mut schemas = Schemas::giving(files, signature.hidden.clone());
    let schema = schemas.of(&signature.file, signature.returns.as_ref()?);
    (schema != json!(true)).then(|| schemas.with_definitions(schema))
}

#[cfg(test)]
mod tests;
