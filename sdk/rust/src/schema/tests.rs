use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::{NoSchema as _, NotResult as _, Schemas, Shape, ShapeOf};
use crate::method::{Method, Parameter};
use crate::{JsonSchema, Timestamp, Value};

#[derive(Deserialize, Serialize, JsonSchema)]
struct Person {
    name: String,
    #[schemars(range(min = 0))]
    age: Option<i64>,
    photo: Vec<u8>,
    friends: Vec<Person>,
}

#[derive(Deserialize, Serialize)]
struct Opaque(u8);

fn method(parameters: &'static [Parameter], required: usize, schemas: fn(&mut Schemas)) -> Method {
    Method {
        name: "f",
        doc: "",
        parameters,
        required,
        returns: "",
        streams: false,
        schemas,
        run: |_, _| Ok(()),
    }
}

const fn parameter(name: &'static str) -> Parameter {
    Parameter { name, ty: "", optional: false }
}

/// The schema of a type as a result, or nothing.
macro_rules! output {
    ($ty:ty) => {{
        let method = method(&[], 0, |out| {
            let schema = ShapeOf::<$ty>::new().value().schema(out.gives());
            out.result(schema);
        });
        Schemas::of(&method).1
    }};
}

#[test]
fn each_value_has_its_schema() {
    let cases = [
        (output!(()), json!({ "type": "null" })),
        (output!(bool), json!({ "type": "boolean" })),
        (output!(i64), json!({ "type": "integer", "format": "int64" })),
        (output!(f64), json!({ "type": "number", "format": "double" })),
        (output!(Option<&str>), json!({ "type": ["string", "null"] })),
        (output!(Vec<u8>), json!({ "type": "string", "format": "bytes" })),
        (output!(Option<Vec<u8>>), json!({ "type": ["string", "null"], "format": "bytes" })),
        (output!(Timestamp), json!({ "type": "string", "format": "timestamp" })),
        (output!(Value), json!(true)),
        (output!(Result<String, crate::Error>), json!({ "type": "string" })),
        (
            output!(HashMap<String, bool>),
            json!({ "type": "object", "additionalProperties": { "type": "boolean" } }),
        ),
        (
            output!(BTreeMap<i64, bool>),
            json!({
                "type": "object",
                "propertyNames": { "format": "int" },
                "additionalProperties": { "type": "boolean" },
            }),
        ),
        // Written in another way for machines than for people.
        (output!(std::net::Ipv4Addr), json!({})),
        (
            output!([u8; 2]),
            json!({
                "type": "array",
                "items": { "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 },
                "minItems": 2,
                "maxItems": 2,
            }),
        ),
    ];
    for (schema, expected) in cases {
        assert_eq!(schema.as_ref(), Some(&expected));
    }
    assert_eq!(output!(Opaque), None);
    assert_eq!(output!(Vec<Opaque>), None);
    assert_eq!(output!(Result<Opaque, crate::Error>), None);
}

#[test]
fn arguments_are_a_list_with_names() {
    static PARAMETERS: [Parameter; 2] = [parameter("person"), parameter("extra")];
    let method = method(&PARAMETERS, 1, |out| {
        let schema = Shape::<Person>::new().schema(out.takes());
        out.parameter(schema);
        let schema = Shape::<Opaque>::new().schema(out.takes());
        out.parameter(schema);
    });
    let input = Schemas::of(&method).0.unwrap();
    assert_eq!(
        input["prefixItems"],
        json!([{ "$ref": "#/$defs/Person", "title": "person" }, { "title": "extra" }])
    );
    assert_eq!((&input["minItems"], &input["items"]), (&json!(1), &json!(false)));
    let person = &input["$defs"]["Person"];
    assert_eq!(person["properties"]["photo"], json!({ "type": "string", "format": "bytes" }));
    assert_eq!(person["properties"]["age"]["minimum"], 0);
    assert_eq!(person["properties"]["friends"]["items"]["$ref"], "#/$defs/Person");
    assert_eq!(person["required"], json!(["name", "photo", "friends"]));
}

#[test]
fn nothing_known_is_no_schema() {
    static PARAMETERS: [Parameter; 1] = [parameter("it")];
    let unknown = method(&PARAMETERS, 1, |out| {
        let schema = Shape::<Opaque>::new().schema(out.takes());
        out.parameter(schema);
    });
    assert_eq!(Schemas::of(&unknown), (None, None));
    let none = method(&[], 0, |_| {});
    let expected: Json = json!({ "type": "array", "maxItems": 0 });
    assert_eq!(Schemas::of(&none), (Some(expected), None));
}
