use quadriga::abi::contract::Contract;
use serde_json::{Value as Json, json};

use super::model::Client;
use super::{python, rust, ts};

/// The clients of one method `f` with these schemas, in TypeScript, Python and Rust.
fn clients(input: Json, output: Json) -> [String; 3] {
    let method = json!({ "name": "f", "doc": "Does it.", "input": input, "output": output });
    written(json!({ "extension": "a.b", "version": "1.0.0", "methods": [method] }))
}

fn written(contract: Json) -> [String; 3] {
    let contract: Contract = serde_json::from_value(contract).unwrap();
    let client = Client::of(&contract);
    [ts::write(&client), python::write(&client), rust::write(&client, false)]
}

/// Each type as a result, in each language.
#[test]
fn types_have_their_words() {
    let defs = json!({ "Colour": { "enum": ["red", "dark blue"] }, "Id": { "type": ["integer", "string"] } });
    let cases = [
        (json!(true), ["any", "Any", "Value"]),
        (json!({ "type": "null" }), ["void", "None", "()"]),
        (json!({ "type": "boolean" }), ["boolean", "bool", "bool"]),
        (json!({ "type": "integer" }), ["number | bigint", "int", "i64"]),
        (json!({ "type": "integer", "format": "uint64", "minimum": 0 }), ["number | bigint", "int", "u64"]),
        (json!({ "type": "integer", "minimum": 0, "maximum": 255 }), ["number", "int", "i64"]),
        (json!({ "type": "number" }), ["number", "float", "f64"]),
        (json!({ "type": ["string", "null"] }), ["string | null", "str | None", "Option<String>"]),
        (json!({ "type": "string", "format": "bytes" }), ["Uint8Array", "bytes", "Vec<u8>"]),
        (json!({ "type": "string", "format": "timestamp" }), ["Date", "datetime", "Timestamp"]),
        (json!({ "enum": ["a", 1, null] }), ["\"a\" | 1 | null", "Literal[\"a\", 1, None]", "Value"]),
        (json!({ "type": "array", "items": { "type": "string" } }), ["string[]", "list[str]", "Vec<String>"]),
        (
            json!({ "type": "array", "items": { "type": "integer" } }),
            ["(number | bigint)[]", "list[int]", "Vec<i64>"],
        ),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "string" }, { "type": "boolean" }], "minItems": 2, "items": false }),
            ["[string, boolean]", "list[str | bool]", "(String, bool,)"],
        ),
        (
            json!({ "type": "array", "prefixItems": [{ "type": "string" }], "minItems": 0, "items": { "type": "number" } }),
            ["[(string)?, ...number[]]", "list[str | float]", "Value"],
        ),
        (
            json!({ "type": "object", "propertyNames": { "format": "int" }, "additionalProperties": { "type": "boolean" } }),
            ["Map<number, boolean>", "dict[int, bool]", "BTreeMap<i64, bool>"],
        ),
        (json!({ "type": "object" }), ["Record<string, any>", "dict[str, Any]", "BTreeMap<String, Value>"]),
        (json!({ "$ref": "#/$defs/Colour", "$defs": defs }), ["Colour", "Colour", "Colour"]),
        (json!({ "$ref": "#/$defs/Id", "$defs": defs }), ["Id", "Id", "Id"]),
    ];
    for (schema, [in_ts, in_python, in_rust]) in cases {
        let [ts, python, rust] = clients(json!({ "type": "array", "maxItems": 0 }), schema.clone());
        let expected = [
            (&ts, format!("export function f(): Promise<{in_ts}> {{\n  return host.call(EXTENSION, \"f\");")),
            (
                &python,
                format!(
                    "def f() -> {in_python}:\n    \"\"\"Does it.\"\"\"\n    return host.call(EXTENSION, \"f\")"
                ),
            ),
            (&rust, format!("pub fn f() -> Result<{in_rust}> {{\n    host::call(EXTENSION, \"f\", ())")),
        ];
        for (code, part) in expected {
            assert!(code.contains(&part), "{schema}: {part}\n{code}");
        }
    }
}

#[test]
fn definitions_become_types() {
    let input = json!({
        "type": "array",
        "prefixItems": [{ "$ref": "#/$defs/Person", "title": "person" }, { "type": "boolean", "title": "loud" }],
        "minItems": 1,
        "items": false,
        "$defs": {
            "Person": {
                "type": "object",
                "description": "Someone.",
                "properties": {
                    "name": { "type": "string" },
                    "best-friend": { "anyOf": [{ "$ref": "#/$defs/Person" }, { "type": "null" }] },
                    "colour": { "$ref": "#/$defs/Colour" },
                },
                "required": ["name", "best-friend"],
            },
            "Colour": { "enum": ["red", "dark blue"] },
        },
    });
    let [ts, python, rust] =
        clients(input, json!({ "type": "object", "properties": { "n": { "type": "integer" } } }));
    for part in [
        "/** Someone. */\nexport interface Person {\n  name: string;\n  \"best-friend\": Person | null;\n  colour?: Colour;\n}",
        "export type Colour = \"red\" | \"dark blue\";",
        "export interface FResult {\n  n?: number | bigint;\n}",
        "export function f(person: Person, loud?: boolean): Promise<FResult> {\n  return host.call(EXTENSION, \"f\", ...given(person, loud));",
    ] {
        assert!(ts.contains(part), "{part}\n{ts}");
    }
    for part in [
        "Person = TypedDict(\n    \"Person\",\n    {\n        \"name\": \"str\",\n        \"best-friend\": \"Person | None\",\n        \"colour\": \"NotRequired[Colour]\",\n    },\n)",
        "Colour = Literal[\"red\", \"dark blue\"]",
        "class FResult(TypedDict):\n    n: NotRequired[int]",
        "def f(person: Person, loud: bool = _LEFT_OUT) -> FResult:",
    ] {
        assert!(python.contains(part), "{part}\n{python}");
    }
    for part in [
        "/// Someone.\n#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]\n#[serde(crate = \"quadriga_sdk::serde\")]\npub struct Person {\n    pub name: String,\n",
        "    #[serde(rename = \"best-friend\")]\n    pub best_friend: Option<Box<Person>>,\n",
        "    #[serde(default, skip_serializing_if = \"Option::is_none\")]\n    pub colour: Option<Colour>,\n",
        "    #[serde(rename = \"dark blue\")]\n    DarkBlue,\n",
        "pub fn f(person: &Person, loud: Option<bool>) -> Result<FResult> {\n    if loud.is_some() {\n        return host::call(EXTENSION, \"f\", (person, loud,));\n    }\n    host::call(EXTENSION, \"f\", (person,))\n}",
    ] {
        assert!(rust.contains(part), "{part}\n{rust}");
    }
}

/// What a method takes and what another gives may have one name and two shapes.
#[test]
fn one_name_for_two_shapes_becomes_two() {
    let person = |required: Json| json!({ "$ref": "#/$defs/P", "$defs": { "P": { "type": "object", "properties": { "a": { "type": "string" }, "p": { "$ref": "#/$defs/P" } }, "required": required } } });
    let mut input = person(json!(["a"]));
    let defs = input.as_object_mut().unwrap().remove("$defs").unwrap();
    let input =
        json!({ "type": "array", "prefixItems": [input], "minItems": 1, "items": false, "$defs": defs });
    let [same, ..] = clients(input.clone(), person(json!(["a"])));
    assert!(same.contains("f(argument: P): Promise<P>") && !same.contains("PResult"), "{same}");
    let [other, ..] = clients(input, person(json!(["a", "p"])));
    assert!(other.contains("f(argument: P): Promise<PResult>"), "{other}");
    assert!(other.contains("export interface PResult {\n  a: string;\n  p: PResult;\n}"), "{other}");
}

#[test]
fn what_is_not_known_stays_open() {
    let contract = json!({
        "extension": "a.b",
        "version": "1.0.0",
        "methods": [
            { "name": "known", "parameters": [{ "name": "a" }, { "name": "b", "optional": true }] },
            { "name": "unknown" },
            { "name": "many", "input": { "type": "array", "items": { "type": "string" } } },
        ],
    });
    let [ts, python, rust] = written(contract);
    for part in
        ["known(a: any, b?: any): Promise<any>", "unknown(...others: any[])", "many(...others: string[])"]
    {
        assert!(ts.contains(part), "{part}\n{ts}");
    }
    for part in [
        "def known(a: Any, b: Any = _LEFT_OUT) -> Any:",
        "def unknown(*others: Any)",
        "def many(*others: str)",
    ] {
        assert!(python.contains(part), "{part}\n{python}");
    }
    for part in
        ["pub fn known(a: &Value, b: Option<&Value>) -> Result<Value>", "pub fn unknown(arguments: &[Value])"]
    {
        assert!(rust.contains(part), "{part}\n{rust}");
    }
}

#[test]
fn streams_are_read_item_by_item() {
    let method = json!({ "name": "rows", "streams": true, "input": { "type": "array", "maxItems": 0 }, "output": { "type": "string" } });
    let contract = json!({ "extension": "a.b", "version": "1.0.0", "methods": [method] });
    let [ts, python, rust] = written(contract.clone());
    let host = rust::write(&Client::of(&serde_json::from_value(contract).unwrap()), true);
    for (code, part) in [
        (ts, "rows(): AsyncIterableIterator<string> {\n  return host.stream(EXTENSION, \"rows\");"),
        (python, "def rows() -> Iterator[str]:\n    return host.stream(EXTENSION, \"rows\")"),
        (rust, "pub fn rows() -> Result<Items<String>> {\n    host::stream(EXTENSION, \"rows\", ())"),
        (
            host,
            "pub async fn rows(&self) -> Result<Vec<String>, Error> {\n        self.dispatcher.invoke(EXTENSION, \"rows\", &()).await",
        ),
    ] {
        assert!(code.contains(part), "{part}\n{code}");
    }
}

/// A contract is outside text: nothing in it may become code.
#[test]
fn names_and_texts_stay_what_they_are() {
    let evil = "\"; evil()\n*/ evil() \"\"\" evil() \\";
    let contract = json!({
        "extension": "a.b",
        "version": "1.0.0\nevil()",
        "methods": [{
            "name": evil,
            "doc": evil,
            "input": { "type": "array", "prefixItems": [{ "const": evil, "title": "class" }], "minItems": 1, "items": false },
            "output": { "type": "object", "description": evil, "properties": { (evil): { "enum": [evil] } } },
        }],
    });
    let [ts, python, rust] = written(contract);
    assert!(ts.contains("class_: ") && python.contains("class_: "), "{ts}\n{python}");
    for code in [&ts, &python, &rust] {
        assert!(code.contains("a.b 1.0.0evil. "), "{code}");
        assert!(!code.lines().any(|line| line.trim_start().starts_with("evil()")), "{code}");
    }
    assert!(ts.contains(" * *\\/ evil()") && !ts.contains("* */ evil()"), "{ts}");
    assert!(python.contains("\\\"\\\"\\\" evil()"), "{python}");
    assert!(rust.contains("/// */ evil()"), "{rust}");
}
