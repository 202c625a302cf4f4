//! Contracts at load time and at each call, shown with mock guests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;

use quadriga_core::abi::manifest::Check;
use quadriga_core::abi::{Bytes, Error, ErrorCode, Parameter};
use quadriga_core::{CallOptions, Dispatcher, LoadOptions, MockRuntime, Outcome, Policy};
use serde_json::{Value as Json, json};
use tempfile::TempDir;

/// A runtime whose guests take a text and perhaps a number, and return their first argument.
fn runtime() -> MockRuntime {
    let first = |_: &_, call: quadriga_core::Call| {
        let (first, _): (Json, Option<Json>) = rmp_serde::from_slice(&call.envelope.payload).unwrap();
        Outcome::Ready(Ok(rmp_serde::to_vec(&first).unwrap().into()))
    };
    MockRuntime::new().method("split", first).describe(|description| {
        let method = &mut description.methods[0];
        let parameter = |name: &str, optional| Parameter { name: name.to_owned(), ty: None, optional };
        method.parameters = vec![parameter("text", false), parameter("most", true)];
        method.input = Some(json!({
            "type": "array",
            "prefixItems": [
                { "type": ["string", "integer"], "title": "text" },
                { "type": "integer", "minimum": 0, "title": "most" },
            ],
            "minItems": 1,
            "items": false,
        }));
        method.output = Some(json!({ "type": "string" }));
    })
}

fn package(id: &str, more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let manifest = format!(
        "extension = {{ id = '{id}', version = '1.2.3' }}\nruntime = {{ kind = 'mock', entry = 'main' }}\n{more}\n"
    );
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("main"), "").unwrap();
    dir
}

fn host(check: Check) -> Dispatcher {
    let policy = Policy { check, ..Policy::default() };
    Dispatcher::builder().runtime(runtime()).policy(policy).build().unwrap()
}

async fn load(host: &Dispatcher, dir: &TempDir) -> Result<(), Error> {
    host.load(dir.path(), LoadOptions::default()).await.map(|_| ())
}

async fn split(host: &Dispatcher, arguments: Json) -> Result<Bytes, Error> {
    let arguments = rmp_serde::to_vec(&arguments).unwrap();
    host.call("a.words", "split", arguments, CallOptions::default()).await
}

#[tokio::test]
async fn streamed_items_are_results_too() {
    for (check, read) in [(Check::Results, 1), (Check::Arguments, 3), (Check::None, 3)] {
        let emit = |_: &_, call: quadriga_core::Call| {
            let output = call.streams.unwrap().output.unwrap();
            let items = [json!("a"), json!(5), json!("b")].map(|item| rmp_serde::to_vec(&item).unwrap());
            let emitted = items.into_iter().try_for_each(|item| output.emit(&item.into()));
            Outcome::Ready(emitted.map(|()| Bytes::from_static(&[0xc0])))
        };
        let runtime = MockRuntime::new().method("lines", emit).describe(|description| {
            description.methods[0].streams = true;
            description.methods[0].output = Some(json!({ "type": "string" }));
        });
        let policy = Policy { check, ..Policy::default() };
        let host = Dispatcher::builder().runtime(runtime).policy(policy).build().unwrap();
        load(&host, &package("a.words", "")).await.unwrap();
        let mut items = host.stream("a.words", "lines", vec![0x90], CallOptions::default());
        let (mut good, mut failed) = (0, None);
        while let Some(item) = items.next().await {
            match item {
                Ok(_) => good += 1,
                Err(error) => failed = Some(error.to_string()),
            }
        }
        let words = "lines: an item is not what its contract says: 5 is not text".to_owned();
        assert_eq!((good, failed), (read, (read == 1).then_some(words)), "{check:?}");
        // The same where a caller wants them all at once.
        let all = host.call("a.words", "lines", vec![0x90], CallOptions::default()).await;
        assert_eq!(all.is_ok(), read == 3, "{check:?}");
    }
}

#[tokio::test]
async fn manifest_or_policy_turn_checks_on() {
    for (policy, manifest, arguments, results) in [
        (Check::None, "", false, false),
        (Check::None, "contract.check = 'none'", false, false),
        (Check::None, "contract.check = 'arguments'", true, false),
        (Check::Results, "", false, true),
        (Check::Results, "contract.check = 'arguments'", true, true),
        (Check::Both, "contract.check = 'none'", true, true),
    ] {
        let host = host(policy);
        load(&host, &package("a.words", manifest)).await.unwrap();
        split(&host, json!(["a", 1])).await.unwrap();
        for (given, checked, code, words) in [
            (
                json!(["a", -1]),
                arguments,
                ErrorCode::InvalidArguments,
                "split: most: -1 is less than the minimum of 0",
            ),
            (
                json!([5, 0]),
                results,
                ErrorCode::InvalidValue,
                "split: the result is not what its contract says: 5 is not text",
            ),
        ] {
            match split(&host, given).await {
                Ok(_) => assert!(!checked, "{policy:?} {manifest}"),
                Err(error) => {
                    assert!(checked, "{policy:?} {manifest}: {error}");
                    assert_eq!((error.code, error.message.as_str()), (code, words));
                }
            }
        }
        let metrics = host.status("a.words").unwrap().metrics;
        assert_eq!(metrics.errors > 0, results, "{metrics:?}");
    }
}

#[tokio::test]
async fn schemas_that_cannot_be_used_fail_the_load_where_they_are_asked_for() {
    let broken =
        || runtime().describe(|description| description.methods[0].output = Some(json!({ "type": 7 })));
    let host = Dispatcher::builder().runtime(broken()).build().unwrap();
    load(&host, &package("a.lax", "")).await.unwrap();
    let error = load(&host, &package("a.strict", "contract.check = 'both'")).await.unwrap_err();
    assert_eq!((error.code, error.extension.as_deref()), (ErrorCode::ProtocolViolation, Some("a.strict")));
    assert!(host.list().len() == 1, "what was loaded in vain is gone");
}

/// Each manifest of a consumer, and what its load comes to beside `a.words 1.2.3`.
#[tokio::test]
async fn providers_that_do_not_fit_are_refused() {
    let host = host(Check::None);
    load(&host, &package("a.words", "capabilities.provides = ['words@1.0.0']")).await.unwrap();
    let cases = [
        ("[dependencies]\n'a.words' = '^1'", Ok(())),
        ("[dependencies]\n'a.words' = { version = '^1' }", Ok(())),
        ("[dependencies]\n'a.words' = { version = '^1', methods.split = {} }", Ok(())),
        (
            "[dependencies.'a.words']\nversion = '^1'\n[dependencies.'a.words'.methods.split]\noutput = { type = ['string', 'null'] }",
            Ok(()),
        ),
        (
            "[dependencies]\n'a.words' = { version = '^1', methods.splitt = {} }",
            Err(
                "a.user needs the method splitt of a.words; version 1.2.3 has none | did you mean \"split\"?",
            ),
        ),
        (
            "[dependencies]\n'a.words' = { version = '^1', methods.split.output = { type = 'integer' } }",
            Err(
                "a.user does not fit a.words 1.2.3: split: result: a.words returns text, a.user takes int | needed is split() -> int; there is split(text: text | int, most?: int(0..)) -> text",
            ),
        ),
        (
            "[dependencies]\n'a.words' = { version = '^1', methods.split.input = { type = 'array', prefixItems = [{ type = 'string' }, { type = 'integer' }], minItems = 2, items = false } }",
            Err(
                "a.user does not fit a.words 1.2.3: split: most: a.user passes int, a.words takes int(0..) | needed is split",
            ),
        ),
        (
            "[dependencies]\n'a.words' = { version = '^1', methods.split.input = { type = 'array', maxItems = 0 } }",
            Err(
                "a.user does not fit a.words 1.2.3: split: its arguments: a.user passes [any], a.words takes [text | int, int(0..)]",
            ),
        ),
        ("[optional-dependencies]\n'a.gone' = { version = '1', methods.split = {} }", Ok(())),
        ("[optional-dependencies]\n'a.words' = { version = '^2', methods.gone = {} }", Ok(())),
        (
            "[optional-dependencies]\n'a.words' = { version = '^1', methods.gone = {} }",
            Err("a.user needs the method gone of a.words; version 1.2.3 has none"),
        ),
    ];
    for (manifest, expected) in cases {
        let result = load(&host, &package("a.user", manifest)).await;
        match (result, expected) {
            (Ok(()), Ok(())) => host.unload("a.user").await.unwrap(),
            (Err(error), Err(words)) => {
                let told = format!("{} | {}", error.message, error.hint.as_deref().unwrap_or_default());
                assert!(told.starts_with(words), "{manifest}\n{told}");
                assert_eq!(error.code, ErrorCode::IncompatibleVersion, "{manifest}");
            }
            (result, _) => panic!("{manifest}: {result:?}"),
        }
    }
}

#[tokio::test]
async fn contract_files_say_what_is_needed() {
    let host = host(Check::None);
    load(&host, &package("a.words", "capabilities.provides = ['words@1.0.0']")).await.unwrap();
    let contract = |extension: &str, method: &str, output: &str| {
        json!({
            "extension": extension,
            "version": "1.0.0",
            "methods": [{ "name": method, "output": { "type": output } }],
        })
        .to_string()
    };
    let dependency = "[dependencies]\n'a.words' = { version = '^1', contract = 'words.json' }";
    let capability = "[capabilities]\nrequires = ['words@^1']\ncontracts = { words = 'words.json' }";
    let unfit = ErrorCode::IncompatibleVersion;
    let cases = [
        (dependency, contract("a.words", "split", "string"), None),
        (
            dependency,
            contract("a.words", "join", "string"),
            Some((unfit, "needs the method join of a.words")),
        ),
        (
            dependency,
            contract("a.words", "split", "null"),
            Some((unfit, "a.words returns text, a.user takes nil")),
        ),
        (
            dependency,
            contract("a.other", "split", "string"),
            Some((ErrorCode::InvalidManifest, "words.json is the contract of a.other, not of a.words")),
        ),
        (dependency, "{}".to_owned(), Some((ErrorCode::InvalidManifest, "it is no contract: missing field"))),
        (
            dependency,
            String::new(),
            Some((ErrorCode::InvalidManifest, "the contract words.json cannot be used")),
        ),
        (capability, contract("a.other", "split", "string"), None),
        (
            capability,
            contract("a.other", "split", "null"),
            Some((unfit, "a.words returns text, a.user takes nil")),
        ),
    ];
    for (manifest, file, expected) in cases {
        let dir = package("a.user", manifest);
        if !file.is_empty() {
            fs::write(dir.path().join("words.json"), &file).unwrap();
        }
        match (load(&host, &dir).await, expected) {
            (Ok(()), None) => host.unload("a.user").await.unwrap(),
            (Err(error), Some((code, words))) => {
                assert!(error.message.contains(words), "{error}");
                assert_eq!(error.code, code, "{error}");
            }
            (result, _) => panic!("{manifest}: {file}: {result:?}"),
        }
    }
}

#[cfg(unix)]
#[tokio::test]
async fn contract_files_stay_inside_the_package() {
    let outside = TempDir::new().unwrap();
    fs::write(outside.path().join("words.json"), "{}").unwrap();
    let dir = package("a.user", "[dependencies]\n'a.words' = { version = '^1', contract = 'words.json' }");
    std::os::unix::fs::symlink(outside.path().join("words.json"), dir.path().join("words.json")).unwrap();
    let error = load(&host(Check::None), &dir).await.unwrap_err();
    assert!(error.message.contains("a link that leaves the package"), "{error}");
}
