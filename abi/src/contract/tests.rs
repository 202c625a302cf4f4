use serde_json::json;

use super::{Contract, shape};
use crate::{Method, Parameter};

#[test]
fn shapes_are_short() {
    let cases = [
        (json!(true), "any"),
        (json!({ "title": "x" }), "any"),
        (json!(false), "never"),
        (json!({ "type": "integer", "minimum": 0, "maximum": 255 }), "int(0..255)"),
        (json!({ "type": ["string", "null"] }), "text | nil"),
        (json!({ "type": "string", "format": "bytes" }), "bytes"),
        (json!({ "type": "string", "format": "timestamp" }), "timestamp"),
        (json!({ "enum": ["a", 1] }), "\"a\" | 1"),
        (json!({ "type": "array", "items": { "type": "number" } }), "[number]"),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "boolean" }, true], "items": false }),
            "[bool, any]",
        ),
        (json!({ "type": "object" }), "{[text]: any}"),
        (
            json!({ "type": "object", "propertyNames": { "format": "int" }, "additionalProperties": { "type": "null" } }),
            "{[int]: nil}",
        ),
        (
            json!({ "type": "object", "properties": { "a": { "type": "string" }, "b": true }, "required": ["a"] }),
            "{a: text, b?: any}",
        ),
        (
            json!({
                "$defs": { "Tree": { "type": "object", "properties": { "left": { "$ref": "#/$defs/Tree" } } } },
                "anyOf": [{ "$ref": "#/$defs/Tree" }, { "type": "null" }],
            }),
            "Tree | nil",
        ),
    ];
    for (schema, expected) in cases {
        assert_eq!(shape(&schema, &schema), expected, "{schema}");
    }
}

#[test]
fn a_schema_that_refers_to_itself_ends() {
    let schema = json!({ "$ref": "#/$defs/A", "$defs": { "A": { "$ref": "#/$defs/B" }, "B": { "$ref": "#/$defs/A" } } });
    assert!(!shape(&schema, &schema).is_empty());
    super::at(&schema, &schema);
}

#[test]
fn signatures_take_the_best_that_is_known() {
    let parameter = |name: &str, ty: &str, optional| Parameter {
        name: name.to_owned(),
        ty: Some(ty.to_owned()),
        optional,
    };
    let method = Method {
        parameters: vec![parameter("who", "&str", false), parameter("how", "Manner", true)],
        returns: Some("String".to_owned()),
        input: Some(json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "title": "how" }] })),
        ..Method::named("greet")
    };
    assert_eq!(method.signature(), "greet(who: text, how?: Manner) -> String");
}

#[test]
fn contracts_read_back() {
    let method = Method { output: Some(json!({ "type": "null" })), ..Method::named("f") };
    let contract = Contract {
        extension: crate::ExtensionId::new("a.b").unwrap(),
        version: "1.0.0".to_owned(),
        methods: vec![method],
    };
    let text = serde_json::to_string(&contract).unwrap();
    assert_eq!(Contract::parse(&text).unwrap(), contract);
    assert!(Contract::parse("{}").unwrap_err().contains("missing field"));
    let packed = rmp_serde::to_vec_named(&contract).unwrap();
    assert_eq!(rmp_serde::from_slice::<Contract>(&packed).unwrap(), contract);
}
