//! Interfaces, object types and maps.

use std::rc::Rc;

use serde_json::{Map, Value as Json, json};
use swc_ecma_ast::{Expr, Lit, TsFnParam, TsInterfaceDecl, TsType, TsTypeAnn, TsTypeElement, TsTypeRef};

use super::files::{File, string};
use super::types::{Schemas, all_of, any_of};

pub(super) fn of_interface(schemas: &mut Schemas<'_>, file: &Rc<File>, interface: &TsInterfaceDecl) -> Json {
    let own = of_members(schemas, file, &interface.body.body);
    if interface.extends.is_empty() {
        return own;
    }
    let parents = interface.extends.iter().map(|parent| match &*parent.expr {
        Expr::Ident(name) => {
            let reference = TsTypeRef {
                span: parent.span,
                type_name: name.clone().into(),
                type_params: parent.type_args.clone(),
            };
            schemas.of(file, &TsType::TsTypeRef(reference))
        }
        _ => json!(true),
    });
    let mut parts: Vec<Json> = parents.collect();
    parts.push(own);
    all_of(parts)
}

pub(super) fn of_members(schemas: &mut Schemas<'_>, file: &Rc<File>, members: &[TsTypeElement]) -> Json {
    let (mut properties, mut required, mut others) = (Map::new(), Vec::new(), None);
    for member in members {
        match member {
            TsTypeElement::TsPropertySignature(property) => {
                let Some(name) = key(&property.key, property.computed) else {
                    return json!({ "type": "object" });
                };
                let mut schema = declared(schemas, file, property.type_ann.as_deref());
                if !property.optional {
                    required.push(Json::from(name.clone()));
                } else if schemas.gives {
                    // `undefined` crosses as nil.
                    schema = any_of(vec![schema, json!({ "type": "null" })]);
                }
                properties.insert(name, schema);
            }
            TsTypeElement::TsGetterSignature(getter) => {
                let Some(name) = key(&getter.key, getter.computed) else {
                    return json!({ "type": "object" });
                };
                let schema = declared(schemas, file, getter.type_ann.as_deref());
                required.push(Json::from(name.clone()));
                properties.insert(name, schema);
            }
            TsTypeElement::TsIndexSignature(index) => {
                let text = index.params.first().is_some_and(|parameter| match parameter {
                    TsFnParam::Ident(ident) => ident.type_ann.as_ref().is_some_and(|declared| {
                        schemas.of(file, &declared.type_ann) == json!({ "type": "string" })
                    }),
                    _ => false,
                });
                let schema = declared(schemas, file, index.type_ann.as_deref());
                others = Some(if text { schema } else { json!(true) });
            }
            // No plain object has these, so no value does.
            _ => return json!(true),
        }
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), "object".into());
    if !properties.is_empty() {
        schema.insert("properties".to_owned(), properties.into());
    }
    if !required.is_empty() {
        schema.insert("required".to_owned(), required.into());
    }
    if let Some(others) = others {
        schema.insert("additionalProperties".to_owned(), others);
    }
    schema.into()
}

/// `Record<K, V>` and `Map<K, V>`.
pub(super) fn of_entries(kind: &str, keys: &Json, value: Json) -> Json {
    let listed = match (keys.get("enum"), keys.get("const")) {
        (Some(Json::Array(names)), _) => Some(names.clone()),
        (_, Some(name)) => Some(vec![name.clone()]),
        _ => None,
    };
    match listed.filter(|_| kind == "Record") {
        Some(names) if names.iter().all(Json::is_string) => {
            let names: Vec<&str> = names.iter().filter_map(Json::as_str).collect();
            let properties: Map<_, _> =
                names.iter().map(|name| ((*name).to_owned(), value.clone())).collect();
            json!({ "type": "object", "properties": properties, "required": names })
        }
        _ if kind != "Record" && *keys == json!({ "type": "integer" }) => {
            json!({ "type": "object", "propertyNames": { "format": "int" }, "additionalProperties": value })
        }
        _ => json!({ "type": "object", "additionalProperties": value }),
    }
}

/// `Partial<T>`, of a type whose properties are known.
pub(super) fn partial(schema: Json, gives: bool) -> Json {
    let Json::Object(mut keywords) = schema else { return json!(true) };
    if keywords.get("type") != Some(&json!("object")) {
        return json!(true);
    }
    keywords.remove("required");
    if let (true, Some(Json::Object(properties))) = (gives, keywords.get_mut("properties")) {
        for schema in properties.values_mut() {
            *schema = any_of(vec![schema.take(), json!({ "type": "null" })]);
        }
    }
    keywords.into()
}

fn declared(schemas: &mut Schemas<'_>, file: &Rc<File>, declared: Option<&TsTypeAnn>) -> Json {
    declared.map_or(json!(true), |declared| schemas.of(file, &declared.type_ann))
}

fn key(key: &Expr, computed: bool) -> Option<String> {
    match key {
        Expr::Ident(name) if !computed => Some(name.sym.to_string()),
        Expr::Lit(Lit::Str(text)) => Some(string(text)),
        Expr::Lit(Lit::Num(number)) => Some(number.value.to_string()),
        _ => None,
    }
}
