use quadriga_abi::manifest::Check;
use quadriga_abi::{ErrorCode, Method, Parameter, Timestamp, Value};
use serde_json::{Value as Json, json};

use super::{Checks, Schema};

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| (text(key), value.clone())).collect())
}

fn method(input: Json, parameters: &[&str]) -> Method {
    let parameter = |name: &&str| Parameter { name: (*name).to_owned(), ty: None, optional: false };
    Method {
        parameters: parameters.iter().map(parameter).collect(),
        input: Some(input),
        output: Some(json!({ "type": "array", "items": { "type": "string" } })),
        ..Method::named("greet")
    }
}

/// Each schema with a value that fits it and one that does not, and what is said of that one.
#[test]
fn every_value_of_the_table_is_told_apart() {
    let bytes = || Value::Bytes(vec![0; 3]);
    let time = || Value::Timestamp(Timestamp::new(1, 0).unwrap());
    let cases = [
        (json!({ "type": "null" }), Value::Nil, Value::Bool(false), "false is not nil"),
        (json!({ "type": "boolean" }), Value::Bool(true), Value::Int(1), "1 is not bool"),
        (json!({ "type": "integer" }), Value::UInt(u64::MAX), Value::Float(1.0), "1.0 is not int"),
        (json!({ "type": "number" }), Value::Float(f64::NAN), text("1"), "\"1\" is not number"),
        (json!({ "type": "string" }), text("a"), bytes(), "bytes is not text"),
        (json!({ "type": "string", "format": "bytes" }), bytes(), text("a"), "\"a\" is not bytes"),
        (json!({ "type": "string", "format": "timestamp" }), time(), bytes(), "bytes is not timestamp"),
        (json!({ "type": ["string", "null"] }), Value::Nil, time(), "a timestamp is not text or nil"),
        (json!({ "type": "object" }), map(&[]), bytes(), "bytes is not map"),
        (json!({ "type": "array" }), Value::List(vec![]), map(&[]), "a map is not list"),
        (json!({ "enum": ["a", "b"] }), text("a"), text("c"), "\"c\" is not one of \"a\" or \"b\""),
        (
            json!({ "type": "integer", "minimum": 0 }),
            Value::Int(0),
            Value::Int(-1),
            "-1 is less than the minimum of 0",
        ),
        (
            json!({ "type": "object", "propertyNames": { "format": "int" } }),
            Value::Map(vec![(Value::Int(-7), Value::Nil)]),
            map(&[("x", Value::Nil)]),
            "\"x\" is not a \"int\"",
        ),
        (
            json!({ "anyOf": [{ "type": "string" }, { "type": "string", "format": "bytes" }] }),
            bytes(),
            Value::Int(1),
            "1 is not text | bytes",
        ),
    ];
    for (schema, good, bad, words) in cases {
        let compiled = Schema::compile(&schema).unwrap();
        assert_eq!(compiled.check(&good.to_bytes().unwrap(), None), Ok(()), "{schema}");
        assert_eq!(compiled.check(&bad.to_bytes().unwrap(), None), Err(words.to_owned()), "{schema}");
    }
}

#[test]
fn errors_point_at_the_value() {
    let person = json!({
        "type": "object",
        "properties": {
            "name": { "type": "string" },
            "age": { "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "null" }] },
            "friends": { "type": "array", "items": { "$ref": "#/$defs/Person" } },
        },
        "required": ["name"],
        "additionalProperties": false,
    });
    let input = json!({
        "type": "array",
        "prefixItems": [{ "$ref": "#/$defs/Person" }, { "anyOf": [{ "$ref": "#/$defs/Person" }, { "type": "null" }] }],
        "minItems": 1,
        "items": false,
        "$defs": { "Person": person },
    });
    let checks = Checks::new(Check::Both, &[method(input, &["person", "other"])]).unwrap().unwrap();
    let ada = || ("name", text("Ada"));
    let cases = [
        (vec![], "greet: takes 1 to 2 arguments, 0 given"),
        (vec![Value::Nil; 3], "greet: takes 1 to 2 arguments, 3 given"),
        (vec![map(&[])], "greet: person: \"name\" is a required property"),
        (vec![map(&[("name", Value::Int(1))])], "greet: person.name: 1 is not text"),
        (
            vec![map(&[ada(), ("size", Value::Int(1))])],
            "greet: person: Additional properties are not allowed ('size' was unexpected)",
        ),
        (
            vec![map(&[ada(), ("friends", Value::List(vec![map(&[ada()]), map(&[("name", Value::Nil)])]))])],
            "greet: person.friends[1].name: nil is not text",
        ),
        (vec![map(&[ada(), ("age", Value::Int(-1))])], "greet: person.age: -1 is not int(0..) | nil"),
        // The branch that was meant.
        (vec![map(&[ada()]), map(&[("name", Value::Bool(true))])], "greet: other.name: true is not text"),
    ];
    for (arguments, words) in cases {
        let error = checks.arguments(0, &Value::List(arguments).to_bytes().unwrap()).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidArguments, words));
    }
    let good = Value::List(vec![map(&[ada()]), Value::Nil]).to_bytes().unwrap();
    assert_eq!(checks.arguments(0, &good), Ok(()));

    let error =
        checks.result(0, &Value::List(vec![text("a"), Value::Int(1)]).to_bytes().unwrap()).unwrap_err();
    let words = "greet: the result is not what its contract says: [1]: 1 is not text";
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidValue, words));
}

#[test]
fn streams_are_not_looked_into() {
    let input = json!({ "type": "array", "prefixItems": [true, { "type": "string" }], "minItems": 2, "items": false });
    let streams = Method { streams: true, ..method(input, &["rows", "name"]) };
    let checks = Checks::new(Check::Both, &[streams]).unwrap().unwrap();
    let payload = rmp_serde::to_vec(&(quadriga_abi::StreamMark, "a")).unwrap();
    assert_eq!(checks.arguments(0, &payload), Ok(()));
    let payload = rmp_serde::to_vec(&(quadriga_abi::StreamMark, 5)).unwrap();
    assert_eq!(checks.arguments(0, &payload).unwrap_err().message, "greet: name: 5 is not text");
    // The reply of a method that streams is nil.
    assert_eq!(checks.result(0, &[0xc0]), Ok(()));
}

#[test]
fn only_what_is_asked_for_is_checked() {
    let methods = [method(json!({ "type": "array", "maxItems": 0 }), &[])];
    let (arguments, result) = ([0x91, 0xc0], [0xc0]);
    for (check, wrong_arguments, wrong_result) in
        [(Check::Arguments, true, false), (Check::Results, false, true), (Check::Both, true, true)]
    {
        let checks = Checks::new(check, &methods).unwrap().unwrap();
        let seen = (checks.arguments(0, &arguments).is_err(), checks.result(0, &result).is_err());
        assert_eq!(seen, (wrong_arguments, wrong_result), "{check:?}");
    }
    assert!(Checks::new(Check::None, &methods).unwrap().is_none());
}

#[test]
fn a_schema_that_cannot_be_used_is_refused() {
    for schema in [
        json!({ "type": 5 }),
        json!({ "$ref": "https://example.org/schema" }),
        json!({ "$ref": "#/$defs/Nowhere" }),
        json!({ "type": "string", "pattern": "(" }),
        // Needs backtracking, which takes time without a bound.
        json!({ "type": "string", "pattern": "(?=a)b" }),
    ] {
        let error = Checks::new(Check::Arguments, &[method(schema.clone(), &[])]).err();
        let error = error.unwrap_or_else(|| panic!("{schema}"));
        assert_eq!(error.code, ErrorCode::ProtocolViolation, "{schema}");
        assert!(error.message.contains("\"greet\""), "{error}");
    }
}

#[test]
fn messages_stay_short() {
    let checks = Checks::new(Check::Results, &[method(json!(true), &[])]).unwrap().unwrap();
    let error = checks.result(0, &text(&"é".repeat(100_000)).to_bytes().unwrap()).unwrap_err();
    assert!(error.message.len() < 1000, "{}", error.message.len());
}
