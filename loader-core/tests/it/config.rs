//! What operators set, where it comes from, and what an extension takes.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use quadriga_core::abi::manifest::Manifest;
use quadriga_core::abi::{Error, ErrorCode, Value, codec};
use quadriga_core::{
    CallOptions, Configuration, Dispatcher, Grant, LoadOptions, MockRuntime, Origin, Outcome, Policy,
    Settings, settings_from_environment, settings_from_file,
};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{NONE, call, host, load, package};

const CONFIG: &str = "
[config]
defaults = { language = 'en', when = 1979-05-27 }
[config.schema]
additionalProperties = false
required = ['language']
[config.schema.properties]
language = { type = 'string', pattern = '^[a-z]{2}$' }
most = { type = 'integer', minimum = 1, default = 10 }
tags = { type = 'array', items = { type = 'string' } }
when = { type = 'string' }
password = { type = 'string', writeOnly = true }
[config.schema.properties.mail]
properties = { host = { type = 'string' }, key = { writeOnly = true } }
anyOf = [{ required = ['host'] }, { required = ['key'] }]
";

fn manifest(config: &str) -> Manifest {
    let head = "[extension]\nid = 'a.b-c'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n";
    Manifest::parse(&format!("{head}{config}"), "quadriga.toml").unwrap()
}

fn settings(json: serde_json::Value) -> Settings {
    json.as_object().unwrap().clone()
}

#[test]
fn of_a_setting_in_several_layers_the_last_holds() {
    let folder = TempDir::new().unwrap();
    let [toml, other] = ["set.toml", "set.json"].map(|name| folder.path().join(name));
    fs::write(&toml, "most = 1\nmail = { host = 'a' }\nwhen = 2000-01-01\n").unwrap();
    fs::write(&other, r#"{ "most": 2, "mail": { "key": { "secret": "k" } } }"#).unwrap();
    let variables = HashMap::from([
        ("QUADRIGA_CONFIG_A_B_C__MOST", "3"),
        ("QUADRIGA_CONFIG_A_B_C__LANGUAGE", "de"),
        ("QUADRIGA_CONFIG_A_B_C__WHEN", "12"),
        ("QUADRIGA_CONFIG_A_B_C__UNHEARD_OF", "x"),
    ]);
    let manifest = manifest(CONFIG);
    let variable = |name: &str| variables.get(name).map(|&value| value.to_owned());
    let mut layers = vec![settings_from_file(&toml).unwrap(), settings_from_file(&other).unwrap()];
    layers.extend(settings_from_environment(&manifest, variable).unwrap());
    layers.push((Origin::RunTime, settings(json!({ "language": "fr" }))));
    let all = Configuration::resolve(&manifest, layers).unwrap();
    let said: Vec<String> =
        all.settings.iter().map(|(name, it)| format!("{name} {} {}", it.value, it.origin)).collect();
    let wanted = [
        "language \"fr\" run time".to_owned(),
        // As a whole, and not mixed.
        format!("mail {{\"key\":{{\"secret\":\"k\"}}}} {}", other.display()),
        "most 3 QUADRIGA_CONFIG_A_B_C__MOST".to_owned(),
        // Where a string is wanted it is no number.
        "when \"12\" QUADRIGA_CONFIG_A_B_C__WHEN".to_owned(),
    ];
    assert_eq!(said, wanted);
    // What nobody set.
    let all = Configuration::resolve(&manifest, []).unwrap();
    assert_eq!(json!(all.values()), json!({ "language": "en", "most": 10, "when": "1979-05-27" }));
    assert_eq!(all.settings["most"].origin, Origin::Default);
}

#[test]
fn what_does_not_fit_is_refused_with_where_it_comes_from() {
    let manifest = manifest(CONFIG);
    let reference = "is secret: name it, as { secret = \"NAME\" }";
    let cases = [
        (json!({ "language": "english" }), "language (run time): \"english\" does not match \"^[a-z]{2}$\""),
        (json!({ "most": 0 }), "most (run time): 0 is less than the minimum of 1"),
        (json!({ "tags": ["a", 5] }), "tags.1 (run time): 5 is not of type \"string\""),
        (json!({ "langauge": "de" }), "Additional properties are not allowed ('langauge' was unexpected)"),
        (json!({ "password": "hunter2" }), &format!("password (run time): {reference}")),
        (
            json!({ "password": { "secret": "a", "b": "hunter2" } }),
            &format!("password (run time): {reference}"),
        ),
        (json!({ "mail": { "key": "hunter2" } }), &format!("mail.key (run time): {reference}")),
        (
            json!({ "mail": { "kye": "hunter2" } }),
            "mail (run time): value is not valid under any of the schemas listed in the 'anyOf' keyword",
        ),
        (
            json!({ "most": "a", "language": 1 }),
            "language (run time): 1 is not of type \"string\"; most (run time): \"a\" is not of type \"integer\"",
        ),
    ];
    for (set, says) in cases {
        let error = Configuration::resolve(&manifest, [(Origin::RunTime, settings(set))]).unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::InvalidConfig, &*format!("a.b-c: {says}")));
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
}

#[test]
fn schemas_defaults_and_files_that_cannot_be_used_are_named() {
    let cases = [
        ("[config]\nschema = { type = 'thing' }", "[config] cannot be used: "),
        ("[config]\nschema = { properties = { a = { pattern = '(' } } }", "[config] cannot be used: "),
        ("[config]\ndefaults = { a = nan }", "[config] cannot be used: NaN is no number of JSON"),
    ];
    for (config, says) in cases {
        let error = Configuration::resolve(&manifest(config), []).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidManifest);
        assert!(error.message.starts_with(&format!("a.b-c: {says}")), "{error}");
    }
    let folder = TempDir::new().unwrap();
    for (name, text) in [("a.toml", "a = "), ("a.json", "[1]"), ("b.toml", "a = inf")] {
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        let error = settings_from_file(&path).unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidConfig);
        assert!(error.message.starts_with(&path.display().to_string()), "{error}");
    }
    assert_eq!(settings_from_file(&folder.path().join("none")).unwrap_err().code, ErrorCode::InvalidConfig);
}

/// Guests that say what they were told at their load, keep a state, and refuse one language.
fn guests() -> MockRuntime {
    let state = Arc::new(AtomicU32::new(0));
    MockRuntime::new()
        .method("config", |bridge, _| Outcome::Ready(Ok(bridge.config())))
        .method("takes", |_, call| {
            let (settings,): (Value,) = codec::from_arguments(&call.envelope.payload).unwrap();
            let Value::Map(settings) = settings else { panic!("{settings:?}") };
            let language = settings.into_iter().find(|(name, _)| *name == Value::Text("language".to_owned()));
            match language {
                Some((_, Value::Text(language))) if language == "xx" => {
                    Outcome::Ready(Err(Error::new(ErrorCode::ExtensionError, "nobody speaks xx")))
                }
                _ => Outcome::Ready(Ok(NONE)),
            }
        })
        .method("snapshot", |_, _| Outcome::Ready(Ok(codec::to_bytes(&7_u32).unwrap().into())))
        .method("restore", move |_, call| {
            let (n,): (u32,) = codec::from_arguments(&call.envelope.payload).unwrap();
            state.fetch_add(n, Ordering::Relaxed);
            Outcome::Ready(Ok(codec::to_bytes(&state.load(Ordering::Relaxed)).unwrap().into()))
        })
}

async fn language(host: &Dispatcher) -> String {
    let told: HashMap<String, Value> =
        codec::from_bytes(&call(host, "a.b", "config").await.unwrap()).unwrap();
    match &told["language"] {
        Value::Text(language) => language.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_running_extension_goes_on_with_other_settings_or_refuses_them() {
    let host = host(guests(), Policy::default());
    let asked = CONFIG.replace("[config.schema]\n", "method = 'takes'\n[config.schema]\n");
    let _dir = load(&host, "a.b", &asked, Grant::Nothing).await;
    assert_eq!(language(&host).await, "en");
    let configure = async |set| host.configure("a.b", settings(set)).await;
    configure(json!({ "language": "de" })).await.unwrap();
    assert_eq!(language(&host).await, "de");
    assert_eq!(host.configuration("a.b").unwrap().settings["language"].origin, Origin::RunTime);
    let refused = configure(json!({ "language": "xx" })).await.unwrap_err();
    assert_eq!(
        (refused.code, &*refused.message),
        (ErrorCode::ConfigRefused, "a.b refuses these settings: nobody speaks xx")
    );
    assert_eq!(configure(json!({ "language": 5 })).await.unwrap_err().code, ErrorCode::InvalidConfig);
    assert_eq!(language(&host).await, "de");
    // It keeps them when it is loaded anew.
    host.reload("a.b").await.unwrap();
    assert_eq!(language(&host).await, "de");
    // Names are recorded, and no values.
    let decisions = host.decisions("a.b", &quadriga_core::DecisionFilter::default()).unwrap();
    let said: Vec<&str> =
        decisions.iter().map(|it| it.what.as_str()).filter(|it| it.contains("settings")).collect();
    assert_eq!(said, ["be given settings of its own: language"]);
    host.pause("a.b").unwrap();
    let error = configure(json!({})).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionStopped);
    host.resume("a.b").await.unwrap();
    configure(json!({})).await.unwrap();
    assert_eq!(language(&host).await, "en");
    assert_eq!(host.configure("a.c", Settings::new()).await.unwrap_err().code, ErrorCode::UnknownExtension);
}

#[tokio::test]
async fn one_that_does_not_start_with_them_goes_on_with_the_old_ones() {
    let loads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&loads);
    let second_fails = move |_: &_| match count.fetch_add(1, Ordering::Relaxed) {
        1 => Err(Error::new(ErrorCode::LoadFailed, "not with these")),
        _ => Ok(()),
    };
    let host = host(guests().on_load(second_fails), Policy::default());
    let _dir = load(&host, "a.b", CONFIG, Grant::Nothing).await;
    let error = host.configure("a.b", settings(json!({ "language": "de" }))).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LoadFailed);
    assert_eq!((language(&host).await, loads.load(Ordering::Relaxed)), ("en".to_owned(), 2));
    assert_eq!(host.configuration("a.b").unwrap().settings["language"].origin, Origin::Default);
}

#[tokio::test]
async fn nothing_is_loaded_with_settings_that_do_not_fit() {
    let host = host(guests(), Policy::default());
    let unfit = LoadOptions { config: settings(json!({ "language": 5 })), ..LoadOptions::default() };
    let dir = package("a.b", CONFIG);
    let error = host.load(dir.path(), unfit).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidConfig);
    // A method that is asked, and is not there.
    let dir = package("a.b", "[config]\nmethod = 'taks'");
    let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidManifest);
    assert!(error.hint.as_ref().unwrap().contains("takes"));
    assert!(host.list().is_empty());
}

/// No call is lost or sees anything but the settings of its generation.
#[tokio::test(flavor = "multi_thread")]
async fn calls_go_on_while_settings_change() {
    let host = host(guests(), Policy::default());
    let _dir = load(&host, "a.b", CONFIG, Grant::Nothing).await;
    let calls = async {
        for _ in 0..2_000 {
            host.call("a.b", "config", NONE, CallOptions::default()).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let changes = async {
        for n in 1..=20 {
            host.configure("a.b", settings(json!({ "most": n }))).await.unwrap();
        }
    };
    tokio::join!(calls, changes);
    assert_eq!(host.configuration("a.b").unwrap().settings["most"].value, 20);
}
