//! Types of TypeScript as JSON Schema, in the conventions of docs/contracts.md.

use std::collections::HashMap;
use std::rc::Rc;

use serde_json::{Map, Value as Json, json};
use swc_ecma_ast::{
    Pat, TsEntityName, TsKeywordTypeKind, TsLit, TsTupleType, TsType, TsTypeOperatorOp, TsTypeRef,
    TsUnionOrIntersectionType,
};

use super::files::{Declared, File, Files, string};
use super::objects;

/// How deep types are followed; what is below takes anything.
const DEEPEST: usize = 64;

/// The schemas of one side of one method, with the definitions that they refer to.
pub(super) struct Schemas<'a> {
    files: &'a Files,
    /// Whether values come from the extension: an optional property may then be there as nil.
    pub(super) gives: bool,
    hidden: Vec<String>,
    definitions: Map<String, Json>,
    /// By file and name there.
    names: HashMap<(String, String), String>,
    depth: usize,
}

/// A schema with one more keyword.
pub(super) fn with(schema: Json, key: &str, value: Json) -> Json {
    match schema {
        Json::Object(mut keywords) => {
            keywords.insert(key.to_owned(), value);
            Json::Object(keywords)
        }
        _ => json!({ key: value }),
    }
}

impl<'a> Schemas<'a> {
    pub(super) fn taking(files: &'a Files, hidden: Vec<String>) -> Self {
        let (definitions, names) = (Map::new(), HashMap::new());
        Self { files, gives: false, hidden, definitions, names, depth: 0 }
    }

    pub(super) fn giving(files: &'a Files, hidden: Vec<String>) -> Self {
        Self { gives: true, ..Self::taking(files, hidden) }
    }

    pub(super) fn with_definitions(self, schema: Json) -> Json {
        match self.definitions.is_empty() {
            true => schema,
            false => with(schema, "$defs", Json::Object(self.definitions)),
        }
    }

    /// The schema of a type that stands in a file.
    pub(super) fn of(&mut self, file: &Rc<File>, ty: &TsType) -> Json {
        if self.depth > DEEPEST {
            return json!(true);
        }
        self.depth += 1;
        let schema = self.one(file, ty);
        self.depth -= 1;
        schema
    }

    fn one(&mut self, file: &Rc<File>, ty: &TsType) -> Json {
        match ty {
            TsType::TsKeywordType(keyword) => word(keyword.kind),
            TsType::TsParenthesizedType(inner) => self.of(file, &inner.type_ann),
            TsType::TsOptionalType(inner) => self.of(file, &inner.type_ann),
            TsType::TsTypeOperator(operator) if operator.op == TsTypeOperatorOp::ReadOnly => {
                self.of(file, &operator.type_ann)
            }
            TsType::TsArrayType(array) => list(self.of(file, &array.elem_type)),
            TsType::TsTupleType(tuple) => self.tuple(file, tuple),
            TsType::TsTypeLit(literal) => objects::of_members(self, file, &literal.members),
            TsType::TsLitType(literal) => value(&literal.lit),
            TsType::TsUnionOrIntersectionType(TsUnionOrIntersectionType::TsUnionType(union)) => {
                let arms = union.types.iter().map(|arm| self.of(file, arm)).collect();
                any_of(arms)
            }
            TsType::TsUnionOrIntersectionType(TsUnionOrIntersectionType::TsIntersectionType(all)) => {
                let parts = all.types.iter().map(|part| self.of(file, part)).collect();
                all_of(parts)
            }
            TsType::TsTypeRef(reference) => self.reference(file, reference),
            TsType::TsImportType(import) if import.type_args.is_none() => {
                let Some(TsEntityName::Ident(name)) = &import.qualifier else { return json!(true) };
                match self.files.imported(file, &string(&import.arg)) {
                    Some(other) => self.named(&other, &name.sym).unwrap_or(json!(true)),
                    None => json!(true),
                }
            }
            _ => json!(true),
        }
    }

    fn tuple(&mut self, file: &Rc<File>, tuple: &TsTupleType) -> Json {
        let (mut items, mut least, mut more) = (Vec::new(), 0, json!(false));
        for element in &tuple.elem_types {
            let labelled_rest = matches!(element.label, Some(Pat::Rest(_)));
            let maybe = matches!(&element.label, Some(Pat::Ident(label)) if label.id.optional);
            match &*element.ty {
                ty if labelled_rest => {
                    more = self.of(file, ty).get("items").cloned().unwrap_or(json!(true));
                }
                TsType::TsRestType(rest) => {
                    let schema = self.of(file, &rest.type_ann);
                    more = schema.get("items").cloned().unwrap_or(json!(true));
                }
                // Behind a rest anything may stand.
                _ if more != json!(false) => return json!({ "type": "array" }),
                ty => {
                    if !maybe && !matches!(ty, TsType::TsOptionalType(_)) {
                        least = items.len() + 1;
                    }
                    items.push(self.of(file, ty));
                }
            }
        }
        json!({ "type": "array", "prefixItems": items, "minItems": least, "items": more })
    }

    fn reference(&mut self, file: &Rc<File>, reference: &TsTypeRef) -> Json {
        let TsEntityName::Ident(name) = &reference.type_name else { return json!(true) };
        let arguments: Vec<&TsType> =
            reference.type_params.iter().flat_map(|types| types.params.iter().map(|ty| &**ty)).collect();
        if self.hidden.iter().any(|hidden| name.sym == *hidden) {
            return json!(true);
        }
        if let Some(schema) = self.named(file, &name.sym) {
            return schema;
        }
        match (&*name.sym, arguments.as_slice()) {
            ("Array" | "ReadonlyArray", [item]) => list(self.of(file, item)),
            ("Promise" | "PromiseLike" | "Readonly", [inner]) => self.of(file, inner),
            ("Record" | "Map" | "ReadonlyMap", [key, value]) => {
                let (keys, value) = (self.of(file, key), self.of(file, value));
                objects::of_entries(&name.sym, &keys, value)
            }
            ("Partial", [inner]) => {
                let schema = self.of(file, inner);
                objects::partial(self.resolved(schema), self.gives)
            }
            ("Uint8Array", _) => json!({ "type": "string", "format": "bytes" }),
            ("Date", []) => json!({ "type": "string", "format": "timestamp" }),
            _ => json!(true),
        }
    }

    /// The schema of a type that is declared somewhere in the package.
    fn named(&mut self, file: &Rc<File>, name: &str) -> Option<Json> {
        let (file, name, declared) = self.files.declaration(file, name)?;
        let generic = match &declared {
            Declared::Interface(interface) => interface.type_params.is_some(),
            Declared::Alias(alias) => alias.type_params.is_some(),
            Declared::Other => true,
        };
        if generic {
            return Some(json!(true));
        }
        let place = (file.path.clone(), name.clone());
        if let Some(known) = self.names.get(&place) {
            return Some(json!({ "$ref": format!("#/$defs/{known}") }));
        }
        let unique = self.unique(&name);
        self.names.insert(place, unique.clone());
        self.definitions.insert(unique.clone(), json!(true));
        // The names of a generic function's types mean nothing in there.
        let hidden = std::mem::take(&mut self.hidden);
        let schema = match &declared {
            Declared::Interface(interface) => objects::of_interface(self, &file, interface),
            Declared::Alias(alias) => self.of(&file, &alias.type_ann),
            Declared::Other => json!(true),
        };
        self.hidden = hidden;
        self.definitions.insert(unique.clone(), schema);
        Some(json!({ "$ref": format!("#/$defs/{unique}") }))
    }

    fn unique(&self, name: &str) -> String {
        let mut unique = name.to_owned();
        let mut count = 1;
        while self.definitions.contains_key(&unique) {
            count += 1;
            unique = format!("{name}{count}");
        }
        unique
    }

    /// The schema behind a reference.
    fn resolved(&self, schema: Json) -> Json {
        let name =
            schema.get("$ref").and_then(Json::as_str).and_then(|reference| reference.rsplit('/').next());
        match name.and_then(|name| self.definitions.get(name)) {
            Some(definition) => definition.clone(),
            None => schema,
        }
    }
}

fn word(kind: TsKeywordTypeKind) -> Json {
    match kind {
        TsKeywordTypeKind::TsNumberKeyword => json!({ "type": "number" }),
        TsKeywordTypeKind::TsBigIntKeyword => json!({ "type": "integer" }),
        TsKeywordTypeKind::TsBooleanKeyword => json!({ "type": "boolean" }),
        TsKeywordTypeKind::TsStringKeyword => json!({ "type": "string" }),
        TsKeywordTypeKind::TsVoidKeyword
        | TsKeywordTypeKind::TsUndefinedKeyword
        | TsKeywordTypeKind::TsNullKeyword => json!({ "type": "null" }),
        _ => json!(true),
    }
}

fn list(item: Json) -> Json {
    match item {
        Json::Bool(true) => json!({ "type": "array" }),
        item => json!({ "type": "array", "items": item }),
    }
}

fn value(literal: &TsLit) -> Json {
    match literal {
        TsLit::Str(text) => json!({ "const": string(text) }),
        TsLit::Bool(truth) => json!({ "const": truth.value }),
        // A whole number crosses as an int.
        TsLit::Number(number) if number.value.fract() == 0.0 && number.value.abs() < 9e15 => {
            json!({ "const": number.value as i64 })
        }
        TsLit::Number(number) => json!({ "const": number.value }),
        TsLit::BigInt(_) => json!({ "type": "integer" }),
        TsLit::Tpl(_) => json!({ "type": "string" }),
    }
}

/// A union in its shortest form.
pub(super) fn any_of(arms: Vec<Json>) -> Json {
    if arms.contains(&json!(true)) {
        return json!(true);
    }
    let (mut kinds, mut values, mut others) = (Vec::new(), Vec::new(), Vec::new());
    for arm in arms {
        let keywords = arm.as_object();
        match (keywords.map(Map::len), arm.get("type"), arm.get("const")) {
            (Some(1), Some(kind @ Json::String(_)), _) if !kinds.contains(kind) => kinds.push(kind.clone()),
            (Some(1), Some(Json::String(_)), _) => {}
            (Some(1), _, Some(value)) => values.push(value.clone()),
            _ => others.push(arm),
        }
    }
    if !values.is_empty() {
        others.insert(
            0,
            if values.len() == 1 { json!({ "const": values[0] }) } else { json!({ "enum": values }) },
        );
    }
    match kinds.len() {
        0 => {}
        1 => others.push(json!({ "type": kinds[0] })),
        _ => others.push(json!({ "type": kinds })),
    }
    match others.len() {
        1 => others.remove(0),
        _ => json!({ "anyOf": others }),
    }
}

/// An intersection. What is not known of one part does not take away from the others.
pub(super) fn all_of(mut parts: Vec<Json>) -> Json {
    parts.retain(|part| *part != json!(true));
    match parts.len() {
        0 => json!(true),
        1 => parts.remove(0),
        _ => json!({ "allOf": parts }),
    }
}
