//! Contracts in every language: the same schemas of the same guest, kept to at each call, compared
//! at load time.

mod bindgen;
#[rustfmt::skip]
mod typed;

use std::fs;

use quadriga::abi::contract::Contract;
use quadriga::abi::{Error, ErrorCode, ExtensionId, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

async fn typed(languages: &[&str]) -> Dispatcher {
    let host = host();
    for language in languages {
        host.load(guest("typed", language), granted()).await.expect(language);
    }
    host
}

fn contract(host: &Dispatcher, language: &str) -> Contract {
    let status = host.status(&format!("typed.{language}")).unwrap();
    Contract { extension: status.id, version: status.version.to_string(), methods: status.methods }
}

async fn call(
    host: &Dispatcher,
    language: &str,
    method: &str,
    arguments: Vec<Value>,
) -> Result<Value, Error> {
    let arguments = Value::List(arguments).to_bytes().unwrap();
    let reply = host.call(&format!("typed.{language}"), method, arguments, CallOptions::default()).await?;
    Ok(Value::from_bytes(&reply).unwrap())
}

fn value(json: Json) -> Value {
    json.into()
}

#[tokio::test]
async fn every_language_tells_the_same_shapes() {
    let host = typed(&LANGUAGES).await;
    for language in LANGUAGES {
        let contract = contract(&host, language);
        let signatures: Vec<String> = contract.methods.iter().map(|method| method.signature()).collect();
        // A count is not negative in Rust, and an option there takes nil.
        let times = if ["wasm", "native"].contains(&language) { "int(0..) | nil" } else { "int" };
        let size = if ["wasm", "native"].contains(&language) { "int(0..)" } else { "int" };
        assert_eq!(signatures[0], format!("greet(person: Person, times?: {times}) -> text"), "{language}");
        assert_eq!(signatures[1], "older(person: Person, years: int) -> Person", "{language}");
        assert_eq!(
            signatures[2],
            format!(
                "measure(data: bytes, at: timestamp) -> {{size: {size}, at: timestamp, counts: {{[text]: {size}}}}}"
            ),
            "{language}"
        );
        assert_eq!(signatures[3], "lie() -> int", "{language}");
        let person = &contract.methods[0].input.as_ref().unwrap()["$defs"]["Person"]["properties"];
        assert_eq!(person["name"]["type"], "string", "{language}");
        assert_eq!(person["friends"]["items"]["$ref"], "#/$defs/Person", "{language}");
        assert!(
            contract.methods.iter().all(|method| method.input.is_some() && method.output.is_some()),
            "{language}"
        );
    }
}

#[tokio::test]
async fn arguments_and_results_are_kept_to() {
    let host = typed(&LANGUAGES).await;
    let ada = || json!({ "name": "Ada", "age": 36, "tags": [], "friends": [{ "name": "Bob", "age": 1, "tags": ["b"], "friends": [] }] });
    let wrong = [
        (vec![], "takes 1 to 2 arguments, 0 given"),
        (vec![json!({ "tags": [], "friends": [] })], "person: \"name\" is a required property"),
        (vec![json!({ "name": 5, "tags": [], "friends": [] })], "person.name: 5 is not text"),
        (vec![json!({ "name": "Ada", "tags": ["a", 1], "friends": [] })], "person.tags[1]: 1 is not text"),
        (
            vec![
                json!({ "name": "Ada", "tags": [], "friends": [{ "name": "Bob", "tags": [], "friends": 0 }] }),
            ],
            "person.friends[0].friends: 0 is not list",
        ),
    ];
    for language in LANGUAGES {
        for (arguments, words) in &wrong {
            let arguments = arguments.iter().cloned().map(value).collect();
            let error = call(&host, language, "greet", arguments).await.unwrap_err();
            let expected = (ErrorCode::InvalidArguments, format!("greet: {words}"));
            assert_eq!((error.code, error.message.clone()), expected, "{language}");
        }
        let greeting = call(&host, language, "greet", vec![value(ada()), Value::Int(2)]).await.unwrap();
        assert_eq!(greeting, value(json!("Hello, Ada; Hello, Ada")), "{language}");
        let older =
            call(&host, language, "older", vec![value(ada()), Value::Int(1)]).await.unwrap().to_json();
        assert_eq!((&older["age"], &older["friends"][0]["age"]), (&json!(37), &json!(2)), "{language}");

        let at = Value::Timestamp(Timestamp::new(1_000_000_000, 5_000_000).unwrap());
        let measured =
            call(&host, language, "measure", vec![Value::Bytes(vec![7, 7]), at.clone()]).await.unwrap();
        let Value::Map(pairs) = measured else { panic!("{language}: {measured:?}") };
        assert!(pairs.contains(&(value(json!("at")), at)), "{language}: {pairs:?}");
        let error =
            call(&host, language, "measure", vec![value(json!("text")), Value::Nil]).await.unwrap_err();
        assert!(error.message.starts_with("measure: "), "{language}: {error}");

        let error = call(&host, language, "lie", vec![]).await.unwrap_err();
        let words = "lie: the result is not what its contract says: \"no number\" is not int";
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::InvalidValue, words), "{language}");
    }
}

/// A consumer that needs the capability `typed` by this contract.
fn consumer(contract: &Contract) -> TempDir {
    let dir = TempDir::new().unwrap();
    let manifest = "extension = { id = 'a.consumer', version = '1.0.0' }\n\
                    runtime = { kind = 'python', entry = 'main.py' }\n\
                    capabilities = { requires = ['typed@^1'], contracts = { typed = 'typed.json' } }\n";
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("main.py"), "def nothing(): ...\n").unwrap();
    fs::write(dir.path().join("typed.json"), serde_json::to_string(contract).unwrap()).unwrap();
    dir
}

#[tokio::test]
async fn one_language_takes_the_place_of_another() {
    let all = typed(&LANGUAGES).await;
    for provider in LANGUAGES {
        let host = typed(&[provider]).await;
        for needed in LANGUAGES {
            let mut contract = contract(&all, needed);
            // Rust's types are narrower: a count that may be negative does not fit there.
            contract.methods.retain(|method| method.name == "older" || method.name == "lie");
            // What Python returns has every field; a property that may be missing is wider.
            if let Some(older) = contract.methods.iter_mut().find(|method| method.name == "older") {
                older.output = None;
            }
            host.load(consumer(&contract).path(), granted())
                .await
                .unwrap_or_else(|error| panic!("{provider} for {needed}: {error}"));
            host.unload("a.consumer").await.unwrap();
        }
    }
}

#[tokio::test]
async fn what_does_not_fit_is_refused_by_its_path() {
    for (language, change, words) in [
        (
            "python",
            json!({ "name": "greet", "input": { "type": "array", "prefixItems": [{ "type": "string" }], "minItems": 1, "items": false } }),
            "greet: person: a.consumer passes text, typed.python takes {name: text",
        ),
        (
            "js",
            json!({ "name": "greet", "output": { "type": "integer" } }),
            "greet: result: typed.js returns text, a.consumer takes int",
        ),
        (
            "wasm",
            json!({ "name": "measure", "output": { "type": "object", "properties": { "at": { "type": "string" } } } }),
            "measure: result.at: typed.wasm returns timestamp, a.consumer takes text",
        ),
        (
            "native",
            json!({ "name": "grete" }),
            "a.consumer needs the method grete of typed.native; version 1.2.0 has none",
        ),
    ] {
        let host = typed(&[language]).await;
        let method = serde_json::from_value(change).unwrap();
        let extension = ExtensionId::new("some.provider").unwrap();
        let contract = Contract { extension, version: "1.0.0".to_owned(), methods: vec![method] };
        let error = host.load(consumer(&contract).path(), granted()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::IncompatibleVersion, "{error}");
        assert!(error.message.contains(words), "{language}: {error}");
    }
}

/// A new generation of a provider must fit those that need it.
#[tokio::test]
async fn a_reload_that_breaks_others_is_refused() {
    let host = host();
    let dir = TempDir::new().unwrap();
    let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    write(
        "quadriga.toml",
        "extension = { id = 'a.words', version = '1.0.0' }\nruntime = { kind = 'python', entry = 'main.py' }",
    );
    write("main.py", "def split(text: str) -> list[str]:\n    return text.split()\n");
    host.load(dir.path(), granted()).await.unwrap();
    let user = TempDir::new().unwrap();
    let manifest = "extension = { id = 'a.user', version = '1.0.0' }\nruntime = { kind = 'python', entry = 'main.py' }\n\
                    [dependencies.'a.words']\nversion = '^1'\nmethods.split.input = { type = 'array', prefixItems = [{ type = 'string' }], minItems = 1, items = false }";
    fs::write(user.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(user.path().join("main.py"), "").unwrap();
    host.load(user.path(), granted()).await.unwrap();

    write("main.py", "def split(text: str, most: int = 0) -> list[str]:\n    return ['new']\n");
    host.reload("a.words").await.unwrap();
    write("main.py", "def split(text: str, most: int) -> list[str]:\n    return ['broken']\n");
    let error = host.reload("a.words").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::IncompatibleVersion);
    assert!(error.message.contains("a.user does not fit a.words 1.0.0: split"), "{error}");
    let still: Vec<String> = host.invoke("a.words", "split", &("a b",)).await.unwrap();
    assert_eq!(still, ["new"]);
}
