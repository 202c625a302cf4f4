use serde_json::{Value as Json, json};

use super::super::check::first_misfit;
use super::{Misfit, fits};

/// Whether what is sent fits, or where and how it does not: `path: sent / taken`.
fn check(sent: Json, taken: Json, expected: &str) {
    let seen = match fits(&sent, &taken) {
        Ok(()) => "fits".to_owned(),
        Err(Misfit { path, sent, taken, undecided }) => {
            let why = undecided.map(|why| format!(" ({why})")).unwrap_or_default();
            format!("{path}: {sent} / {taken}{why}")
        }
    };
    assert_eq!(seen, expected, "{sent} in {taken}");
}

fn object(properties: Json, required: &[&str]) -> Json {
    json!({ "type": "object", "properties": properties, "required": required })
}

#[test]
fn scalars() {
    let (int, number, text) =
        (json!({ "type": "integer" }), json!({ "type": "number" }), json!({ "type": "string" }));
    let bytes = json!({ "type": "string", "format": "bytes" });
    check(int.clone(), int.clone(), "fits");
    check(int.clone(), number.clone(), "fits");
    check(number.clone(), int.clone(), ": number / int");
    check(int.clone(), text.clone(), ": int / text");
    check(text.clone(), bytes.clone(), ": text / bytes");
    check(bytes.clone(), text.clone(), ": bytes / text");
    check(bytes.clone(), bytes, "fits");
    check(json!({ "type": "string", "format": "email" }), text.clone(), "fits");
    check(text.clone(), json!({ "type": "string", "format": "email" }), ": text / text");
    check(text.clone(), json!(true), "fits");
    check(text.clone(), json!({ "title": "anything" }), "fits");
    check(json!(true), text.clone(), ": any / text");
    check(json!({}), text.clone(), ": any / text");
    check(json!(false), text.clone(), "fits");
    check(text, json!(false), ": text / never");
}

#[test]
fn bounds() {
    let between = |least: Json, most: Json| json!({ "type": "integer", "minimum": least, "maximum": most });
    check(between(json!(1), json!(5)), between(json!(0), json!(5)), "fits");
    check(between(json!(-1), json!(5)), between(json!(0), json!(5)), ": int(-1..5) / int(0..5)");
    check(json!({ "type": "integer" }), json!({ "type": "integer", "maximum": 9 }), ": int / int(..9)");
    let above = json!({ "type": "number", "exclusiveMinimum": 0 });
    check(above.clone(), json!({ "type": "number", "minimum": 0 }), "fits");
    check(json!({ "type": "number", "minimum": 0 }), above, ": number(0..) / number");
    let long = |least: u64, most: u64| json!({ "type": "string", "minLength": least, "maxLength": most });
    check(long(2, 3), long(1, 4), "fits");
    check(long(0, 3), long(1, 4), ": text / text");
    check(json!({ "type": "string", "pattern": "a" }), json!({ "type": "string", "pattern": "a" }), "fits");
    check(
        json!({ "type": "string", "pattern": "a" }),
        json!({ "type": "string", "pattern": "b" }),
        ": text / text",
    );
    check(json!({ "type": "integer" }), json!({ "type": "integer", "format": "int64" }), "fits");
}

#[test]
fn unions_and_literals() {
    let maybe = json!({ "type": ["string", "null"] });
    check(json!({ "type": "string" }), maybe.clone(), "fits");
    check(maybe.clone(), json!({ "type": "string" }), ": nil / text");
    check(maybe.clone(), json!({ "anyOf": [{ "type": "null" }, { "type": "string" }] }), "fits");
    check(json!({ "anyOf": [{ "type": "null" }, { "type": "string" }] }), maybe.clone(), "fits");
    check(json!({ "anyOf": [{ "type": "null" }, { "type": "integer" }] }), maybe, ": int / text | nil");
    check(json!({ "enum": ["a"] }), json!({ "type": "string", "enum": ["a", "b"] }), "fits");
    check(
        json!({ "enum": ["a", "c"] }),
        json!({ "type": "string", "enum": ["a", "b"] }),
        ": \"c\" / \"a\" | \"b\"",
    );
    check(json!({ "const": "a" }), json!({ "type": "string" }), "fits");
    check(json!({ "type": "string" }), json!({ "enum": ["a"] }), ": text / \"a\"");
    check(json!({ "type": "boolean" }), json!({ "enum": [true, false] }), "fits");
    check(json!({ "type": "boolean" }), json!({ "const": true }), ": bool / true");
    let both = json!({ "allOf": [{ "type": "integer" }, { "minimum": 1 }] });
    check(json!({ "type": "integer", "minimum": 2 }), both.clone(), "fits");
    check(json!({ "type": "integer" }), both.clone(), ": int / any");
    check(both, json!({ "type": "integer" }), "fits");
}

#[test]
fn maps() {
    let text = json!({ "type": "string" });
    let int = json!({ "type": "integer" });
    let provider = object(json!({ "a": text, "b": int }), &["a"]);
    check(object(json!({ "a": text }), &["a"]), provider.clone(), "fits");
    check(object(json!({ "a": text }), &[]), provider.clone(), ".a: text or nothing / text");
    check(object(json!({ "b": int }), &["b"]), provider.clone(), ".a: nothing / text");
    check(object(json!({ "a": int }), &["a"]), provider.clone(), ".a: int / text");
    check(object(json!({ "a": text, "c": int }), &["a"]), provider.clone(), "fits");
    check(json!({ "type": "object" }), object(json!({}), &["a"]), ".a: nothing / any");
    check(json!({ "type": "object" }), object(json!({ "a": text }), &[]), ".a: any / text");
    let closed = json!({ "type": "object", "properties": { "a": text }, "additionalProperties": false });
    check(object(json!({ "a": text, "c": int }), &["a"]), closed.clone(), ".c: int / never");
    check(object(json!({ "a": text }), &["a"]), closed, "fits");
    let of = |value: &Json| json!({ "type": "object", "additionalProperties": value });
    check(of(&int), of(&json!({ "type": "number" })), "fits");
    check(of(&text), of(&int), "[]: text / int");
    check(object(json!({ "a": int }), &[]), of(&int), "fits");
    check(object(json!({ "a": text }), &[]), of(&int), ".a: text / int");
    let by_int =
        json!({ "type": "object", "propertyNames": { "format": "int" }, "additionalProperties": int });
    check(by_int.clone(), by_int.clone(), "fits");
    check(of(&int), by_int, ": {[text]: int} / {[int]: int}");
}

#[test]
fn lists_and_arguments() {
    let (text, int) = (json!({ "type": "string" }), json!({ "type": "integer" }));
    let of = |item: &Json| json!({ "type": "array", "items": item });
    check(of(&int), of(&json!({ "type": "number" })), "fits");
    check(of(&text), of(&int), "[]: text / int");
    check(json!({ "type": "array" }), of(&int), "[]: any / int");
    check(of(&int), json!({ "type": "array", "items": int, "minItems": 1 }), ": [int] / [int]");
    let arguments = |items: Json, least: usize| json!({ "type": "array", "prefixItems": items, "minItems": least, "items": false });
    let named = |schema: &Json, name: &str| {
        let mut schema = schema.clone();
        schema["title"] = name.into();
        schema
    };
    let provider = arguments(json!([named(&text, "who"), named(&int, "times")]), 1);
    check(arguments(json!([text]), 1), provider.clone(), "fits");
    check(arguments(json!([text, int]), 2), provider.clone(), "fits");
    check(arguments(json!([text, text]), 2), provider.clone(), "times: text / int");
    check(arguments(json!([text, int, int]), 3), provider.clone(), ": [text, int, int] / [text, int]");
    check(arguments(json!([text]), 0), provider.clone(), ": [text] / [text, int]");
    check(json!({ "type": "array", "maxItems": 0 }), provider, ": [any] / [text, int]");
    check(arguments(json!([int, int]), 2), of(&int), "fits");
    check(arguments(json!([int, text]), 2), of(&int), "[1]: text / int");
}

#[test]
fn references() {
    let tree = |leaf: &str| {
        json!({
            "$ref": "#/$defs/Tree",
            "$defs": {
                "Tree": {
                    "type": "object",
                    "properties": {
                        "leaf": { "type": leaf },
                        "below": { "type": "array", "items": { "$ref": "#/$defs/Tree" } },
                    },
                    "required": ["leaf"],
                },
            },
        })
    };
    check(tree("integer"), tree("number"), "fits");
    check(tree("string"), tree("number"), ".leaf: text / number");
    check(
        json!({ "$ref": "#/$defs/None" }),
        json!({ "type": "string" }),
        ": None / text (`$ref` refers to nothing)",
    );
    // Alike by name, and different.
    let named = |ty: &str| json!({ "$ref": "#/$defs/A", "$defs": { "A": { "type": ty } } });
    check(named("string"), named("integer"), ": text / int");
}

#[test]
fn what_cannot_be_decided_is_refused() {
    let strange = json!({ "type": "integer", "not": { "const": 5 } });
    check(json!({ "const": 4 }), strange.clone(), "fits");
    check(strange.clone(), strange.clone(), "fits");
    check(strange.clone(), json!({ "type": "integer" }), "fits");
    check(json!({ "type": "integer" }), strange, ": int / int (`not` cannot be compared)");
}

#[test]
fn large_schemas_end() {
    // Each level doubles the pairs.
    let level = |n: usize| {
        let below = json!({ "$ref": format!("#/$defs/L{}", n + 1) });
        json!({ "anyOf": [{ "type": "array", "items": below }, { "type": "array", "items": below }] })
    };
    let mut definitions: serde_json::Map<String, Json> =
        (0..40).map(|n| (format!("L{n}"), level(n))).collect();
    let mut taken = definitions.clone();
    definitions.insert("L40".to_owned(), json!({ "type": "string" }));
    taken.insert("L40".to_owned(), json!({ "type": "integer" }));
    let whole = |definitions| json!({ "$ref": "#/$defs/L0", "$defs": Json::Object(definitions) });
    assert!(fits(&whole(definitions), &whole(taken)).is_err());
}

proptest::proptest! {
    /// What is accepted really fits: a value of the one is a value of the other.
    #[test]
    fn acceptance_is_sound(sent in schemas(), taken in schemas(), value in values()) {
        if fits(&sent, &taken).is_ok() && first_misfit(&sent, &sent, &[&value]).is_none() {
            proptest::prop_assert!(first_misfit(&taken, &taken, &[&value]).is_none(), "{value}: {sent} in {taken}");
        }
    }
}

fn values() -> impl proptest::strategy::Strategy<Value = Json> {
    use proptest::prelude::{Just, Strategy as _, prop, prop_oneof};
    let leaf = prop_oneof![
        Just(json!(null)),
        Just(json!(true)),
        (-3..4_i64).prop_map(|n| json!(n)),
        Just(json!(0.5)),
        "[ab]{0,2}".prop_map(|text| json!(text)),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Json::from),
            prop::collection::btree_map("[ab]", inner, 0..3).prop_map(|map| json!(map)),
        ]
    })
}

/// Schemas without maps that are open beside the names they list: those are read as closed.
fn schemas() -> impl proptest::strategy::Strategy<Value = Json> {
    use proptest::prelude::{Just, Strategy as _, any, prop, prop_oneof};
    let leaf = prop_oneof![
        Just(json!(true)),
        Just(json!({ "type": "null" })),
        Just(json!({ "type": "string" })),
        Just(json!({ "type": ["string", "null"] })),
        Just(json!({ "enum": ["a", 1, null] })),
        (0..3_u64, 0..3_u64)
            .prop_map(|(a, b)| json!({ "type": "string", "minLength": a, "maxLength": a + b })),
        (-2..3_i64).prop_map(|n| json!({ "type": "integer", "minimum": n })),
        (-2..3_i64).prop_map(|n| json!({ "type": "number", "exclusiveMaximum": n })),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({ "anyOf": parts })),
            prop::collection::vec(inner.clone(), 1..3).prop_map(|parts| json!({ "allOf": parts })),
            (inner.clone(), 0..3_u64)
                .prop_map(|(item, n)| json!({ "type": "array", "items": item, "minItems": n })),
            (prop::collection::vec(inner.clone(), 1..3), 0..3_u64, any::<bool>()).prop_map(
                |(items, n, more)| {
                    json!({ "type": "array", "prefixItems": items, "minItems": n, "items": more })
                }
            ),
            (inner.clone(), inner, any::<bool>()).prop_map(|(a, others, required)| json!({
                "type": "object",
                "properties": { "a": a },
                "required": if required { vec!["a"] } else { vec![] },
                "additionalProperties": if others == json!(true) { json!(false) } else { others },
            })),
        ]
    })
}
