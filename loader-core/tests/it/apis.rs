//! Functions that extensions add to APIs of the host.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use quadriga_core::abi::manifest::Check;
use quadriga_core::abi::permission::{Permissions, TopicPattern};
use quadriga_core::abi::schemars::{self, JsonSchema};
use quadriga_core::abi::{Bytes, Error, ErrorCode, Value, codec};
use quadriga_core::{
    CallOptions, Dispatcher, Effect, Grant, LoadOptions, MockRuntime, Outcome, Policy, Provided,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use crate::common::{NONE, call, host, load, package, told, until, wanted, write};

/// Guests that answer with their id, echo, and do what they are told.
fn guests() -> MockRuntime {
    told().echo("echo").method("who", |bridge, call| {
        let who =
            (bridge.extension().as_str(), call.envelope.source.as_ref().map(|it| it.as_str().to_owned()));
        Outcome::Ready(Ok(codec::to_bytes(&who).unwrap().into()))
    })
}

fn plan() -> Provided {
    Provided::new("app.plan").unwrap().function("list", |(): ()| Ok("built in")).open("plan")
}

fn open() -> Dispatcher {
    let host = host(guests(), Policy::default());
    host.provide(plan()).unwrap();
    host
}

fn adds(function: &str, method: &str) -> String {
    format!(
        "[permissions]\napi = ['plan.*']\n[api.plan.{function}]\nmethod = '{method}'\ndescription = 'It does'"
    )
}

/// Who answered, and for whom.
fn who(reply: Result<Bytes, Error>) -> Result<(String, Option<String>), ErrorCode> {
    reply.map(|reply| codec::from_bytes(&reply).unwrap()).map_err(|error| error.code)
}

#[tokio::test]
async fn what_is_added_is_called_like_what_is_there() {
    let host = open();
    let _a = load(&host, "a.adds", &adds("analyse", "who"), Grant::Requested).await;
    let asks = "[permissions]\ncall = ['app.plan/*']";
    let _b = load(&host, "a.calls", asks, Grant::Requested).await;
    let _c = load(&host, "a.denied", "", Grant::Requested).await;
    assert_eq!(who(call(&host, "app.plan", "analyse").await), Ok(("a.adds".into(), None)));
    let tell = |from: &'static str, method: &'static str| {
        host.call(from, method, wanted("app.plan", "analyse", ()), CallOptions::default())
    };
    for way in ["call", "detached", "start"] {
        // Who asks needs the permission for the API, and none for who adds to it.
        let reply = tell("a.calls", way).await;
        assert_eq!(who(reply), Ok(("a.adds".into(), Some("a.calls".into()))), "{way}");
        assert_eq!(who(tell("a.denied", way).await), Err(ErrorCode::PermissionDenied), "{way}");
    }
    let own: String = host.invoke("app.plan", "list", &()).await.unwrap();
    assert_eq!(own, "built in");
    assert_eq!(call(&host, "app.plan", "other").await.unwrap_err().code, ErrorCode::UnknownMethod);
    assert_eq!(host.status("a.adds").unwrap().metrics.calls, 4);
    let apis = host.apis();
    let said: Vec<_> = apis
        .iter()
        .map(|it| (&*it.function.name, it.extension.as_ref().map(|id| id.as_str()), it.allowed))
        .collect();
    assert_eq!(said, [("analyse", Some("a.adds"), true), ("list", None, true)]);
    assert_eq!((&*apis[0].api, &*apis[0].function.doc, &*apis[0].method), ("plan", "It does", "who"));
}

#[tokio::test]
async fn it_needs_a_grant_that_can_be_revoked() {
    let host = open();
    let _a = load(&host, "a.adds", &adds("analyse", "who"), Grant::Nothing).await;
    let functions =
        |pattern: &str| Permissions { api: vec![TopicPattern(pattern.to_owned())], ..Permissions::default() };
    let refused = call(&host, "app.plan", "analyse").await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::UnknownMethod);
    let hint = refused.hint.as_deref().unwrap();
    assert_eq!(hint, "a.adds adds it, and may not: grant api = [\"plan.analyse\"]");
    assert!(!host.apis()[0].allowed);
    assert_eq!(host.grant("a.adds", &functions("plan.*")).unwrap(), Effect::Now);
    assert!(call(&host, "app.plan", "analyse").await.is_ok());
    assert_eq!(host.revoke("a.adds", &functions("plan.*")).unwrap(), Effect::Now);
    assert_eq!(call(&host, "app.plan", "analyse").await.unwrap_err().code, ErrorCode::UnknownMethod);
}

#[tokio::test]
async fn nobody_takes_what_is_taken() {
    let host = open();
    let _a = load(&host, "a.first", &adds("analyse", "who"), Grant::Requested).await;
    // What the second one adds, and why not.
    let table = [
        ("analyse", "a.second adds plan.analyse, which a.first has added"),
        ("list", "a.second adds plan.list, which is the host's own, of app.plan"),
    ];
    for (function, why) in table {
        let second = package("a.second", &adds(function, "who"));
        let error = host.load(second.path(), LoadOptions::default()).await.unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::ApiConflict, why));
    }
    // A load that fails otherwise keeps no names.
    let broken = package("a.second", &adds("report", "missing"));
    assert!(host.load(broken.path(), LoadOptions::default()).await.is_err());
    let _third = load(&host, "a.third", &adds("report", "who"), Grant::Requested).await;
    // The host comes later than the extension.
    let error = host.provide(plan()).unwrap_err();
    assert_eq!(error.code, ErrorCode::AlreadyLoaded);
    let late = Provided::new("app.late").unwrap().function("mine", |(): ()| Ok(())).open("late");
    let _d = load(&host, "a.early", "[api.late.mine]\nmethod = 'who'", Grant::Requested).await;
    let error = host.provide(late).unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::ApiConflict, "app.late has the function mine, which a.early has added to late")
    );
    let twice = Provided::new("app.other").unwrap().open("plan");
    assert_eq!(host.provide(twice).unwrap_err().message, "the API plan is app.plan already");
}

#[tokio::test]
async fn it_comes_and_goes_with_its_extension() {
    let host = open();
    let dir = load(&host, "a.adds", &adds("analyse", "who"), Grant::Requested).await;
    write(dir.path(), "a.adds", &adds("report", "who"));
    host.reload("a.adds").await.unwrap();
    assert_eq!(call(&host, "app.plan", "analyse").await.unwrap_err().code, ErrorCode::UnknownMethod);
    assert!(call(&host, "app.plan", "report").await.is_ok());
    // What a reload that fails would have added is free, and what was there stays.
    write(dir.path(), "a.adds", &(adds("analyse", "who") + "\n[api.plan.more]\nmethod = 'missing'"));
    assert!(host.reload("a.adds").await.is_err());
    assert!(call(&host, "app.plan", "report").await.is_ok());
    let _b = load(&host, "a.b", &adds("analyse", "who"), Grant::Requested).await;
    host.unload("a.adds").await.unwrap();
    assert_eq!(call(&host, "app.plan", "report").await.unwrap_err().code, ErrorCode::UnknownMethod);
    let _c = load(&host, "a.c", &adds("report", "who"), Grant::Requested).await;
    assert_eq!(who(call(&host, "app.plan", "report").await).unwrap().0, "a.c");
    // Without the host's part nothing is there; with it, all of it again.
    host.unload("app.plan").await.unwrap();
    assert_eq!(call(&host, "app.plan", "report").await.unwrap_err().code, ErrorCode::UnknownExtension);
    assert!(host.apis().iter().all(|it| it.host.is_none() && !it.allowed));
    host.provide(plan()).unwrap();
    assert!(call(&host, "app.plan", "report").await.is_ok());
}

#[tokio::test]
async fn a_call_in_flight_finishes_when_its_function_goes() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait) = (Arc::clone(&begun), Arc::clone(&go));
    let runtime = MockRuntime::new().method("wait", move |_, _| {
        let (begun, go) = (Arc::clone(&tell), Arc::clone(&wait));
        Outcome::Pending(Box::pin(async move {
            begun.notify_one();
            go.notified().await;
            Ok(NONE)
        }))
    });
    let host = host(runtime, Policy::default());
    host.provide(plan()).unwrap();
    let _a = load(&host, "a.adds", &adds("analyse", "wait"), Grant::Requested).await;
    let calling = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "app.plan", "analyse").await }
    });
    begun.notified().await;
    let unloading = tokio::spawn({
        let host = host.clone();
        async move { host.unload("a.adds").await }
    });
    until(async || host.apis().iter().all(|it| it.extension.is_none())).await;
    assert_eq!(call(&host, "app.plan", "analyse").await.unwrap_err().code, ErrorCode::UnknownMethod);
    go.notify_one();
    assert_eq!(calling.await.unwrap().unwrap(), NONE);
    unloading.await.unwrap().unwrap();
}

#[tokio::test]
async fn functions_are_for_versions_of_an_api() {
    // The version that the host opens, what the function is for, and whether they fit.
    let table = [
        (Some("1.4.0"), Some("^1"), true),
        (Some("1.4.0"), Some("^1.5"), false),
        (Some("1.4.0"), Some("^2"), false),
        (Some("1.4.0"), None, true),
        (None, None, true),
        (None, Some("^1"), false),
    ];
    for (version, range, good) in table {
        let open = || match version {
            Some(version) => plan().version(version.parse().unwrap()),
            None => plan(),
        };
        let range_line = range.map(|range| format!("\nversion = '{range}'")).unwrap_or_default();
        let dir = package("a.adds", &(adds("analyse", "who") + &range_line));
        // In whichever order they come.
        let first = host(guests(), Policy::default());
        first.provide(open()).unwrap();
        let loaded =
            first.load(dir.path(), LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }).await;
        let last = host(guests(), Policy::default());
        last.load(dir.path(), LoadOptions { grant: Grant::Requested, ..LoadOptions::default() })
            .await
            .unwrap();
        let opened = last.provide(open());
        for result in [loaded.map(drop), opened] {
            match result {
                Ok(()) => assert!(good, "{version:?} {range:?}"),
                Err(error) => {
                    assert!(!good && error.code == ErrorCode::ApiConflict, "{version:?} {range:?}: {error}");
                    assert!(error.message.contains("a.adds"), "{error}");
                }
            }
        }
        assert_eq!(call(&first, "app.plan", "analyse").await.is_ok(), good, "{version:?} {range:?}");
        assert_eq!(call(&last, "app.plan", "analyse").await.is_ok(), good, "{version:?} {range:?}");
    }
}

/// A step, as both sides know it.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Step {
    needs: String,
    #[schemars(range(min = 1))]
    effort: u32,
    after: Vec<Step>,
}

/// A host whose functions say what they take.
fn typed(check: Check) -> Dispatcher {
    let host = host(guests(), Policy { check, ..Policy::default() });
    let api = Provided::new("app.steps")
        .unwrap()
        .typed("list", [], |()| Ok(["first"]))
        .typed("effort", ["step"], |(step,): (Step,)| Ok(step.effort))
        .doc("What it takes.\nIn minutes.")
        .typed("repeat", ["text", "times", "with"], |it: (String, Option<usize>, Option<String>)| {
            let (text, times, with) = it;
            Ok(vec![text; times.unwrap_or(2)].join(&with.unwrap_or_default()))
        })
        .typed("late", ["first", "last"], |(first, last): (Option<bool>, bool)| Ok((first, last)))
        .typed("bytes", ["it"], |(it,): (Vec<u8>,)| Ok(Some(it).filter(|it| !it.is_empty())))
        .function("plain", |(it,): (String,)| Ok(it));
    host.provide(api.open("steps")).unwrap();
    host
}

#[test]
fn what_the_host_offers_has_schemas() {
    let host = typed(Check::None);
    let one = |name: &str| host.api_function("steps", name).unwrap().function;
    // The name, and what stands in one line of it.
    let table = [
        ("list", "list() -> [text]"),
        ("effort", "effort(step: Step) -> int(0..)"),
        ("repeat", "repeat(text: text, times?: int(0..) | nil, with?: text | nil) -> text"),
        // Who leaves out the first has no way to say the last.
        ("late", "late(first: bool | nil, last: bool) -> [bool | nil, bool]"),
        ("bytes", "bytes(it: bytes) -> bytes | nil"),
        ("plain", "plain()"),
    ];
    for (name, signature) in table {
        assert_eq!(one(name).signature(), signature);
        assert_eq!(
            (one(name).input.is_some(), one(name).output.is_some()),
            (name != "plain", name != "plain")
        );
    }
    assert_eq!((one("effort").doc.as_str(), one("list").doc.as_str()), ("What it takes.\nIn minutes.", ""));
    let input = one("effort").input.unwrap();
    assert_eq!(input["prefixItems"], json!([{ "$ref": "#/$defs/Step", "title": "step" }]));
    let step = &input["$defs"]["Step"];
    assert_eq!(
        (&step["description"], &step["properties"]["effort"]["minimum"]),
        (&json!("A step, as both sides know it."), &json!(1))
    );
    assert_eq!((&input["minItems"], &input["items"]), (&json!(1), &json!(false)));
}

#[tokio::test]
async fn wrong_arguments_do_not_reach_the_host() {
    let host = typed(Check::None);
    let strict = typed(Check::Both);
    let step = |effort: i64| json!({ "needs": "paint", "effort": effort, "after": [] });
    // The function, its arguments, and the result or the error.
    let table: [(&str, Json, Result<Json, &str>); 14] = [
        ("list", json!([]), Ok(json!(["first"]))),
        ("list", json!([1]), Err("app.steps/list: it takes no arguments, 1 given")),
        ("effort", json!([step(3)]), Ok(json!(3))),
        ("effort", json!([]), Err("app.steps/effort: it takes 1 argument (step), 0 given")),
        ("effort", json!([1, 2]), Err("app.steps/effort: it takes 1 argument (step), 2 given")),
        (
            "effort",
            json!([step(-1)]),
            Err("app.steps/effort: step: at effort: expected u32, found the integer -1"),
        ),
        ("effort", json!({ "step": step(3) }), Err("app.steps/effort: the arguments are no list")),
        ("repeat", json!(["ab"]), Ok(json!("abab"))),
        ("repeat", json!(["ab", null, "-"]), Ok(json!("ab-ab"))),
        ("repeat", json!(["ab", 1]), Ok(json!("ab"))),
        ("repeat", json!([]), Err("it takes 1 to 3 arguments (text, times, with), 0 given")),
        ("repeat", json!([null]), Err("app.steps/repeat: text: expected")),
        ("late", json!([null, true]), Ok(json!([null, true]))),
        ("late", json!([true]), Err("it takes 2 arguments (first, last), 1 given")),
    ];
    for (function, arguments, expected) in table {
        let called = async |host: &Dispatcher| {
            let arguments = Value::from(arguments.clone()).to_bytes().unwrap();
            let reply = host.call("app.steps", function, arguments, CallOptions::default()).await;
            reply.map(|reply| Value::from_bytes(&reply).unwrap().to_json())
        };
        match (called(&host).await, expected) {
            (Err(error), Err(words)) => {
                assert_eq!(error.code, ErrorCode::InvalidArguments);
                assert!(error.message.contains(words), "{function} {arguments}: {error}");
                assert_eq!(called(&strict).await.unwrap_err().code, ErrorCode::InvalidArguments);
            }
            (Ok(reply), Ok(wanted)) => {
                assert_eq!(reply, wanted, "{function} {arguments}");
                assert_eq!(called(&strict).await.unwrap(), wanted, "{function} {arguments}");
            }
            (reply, _) => panic!("{function} {arguments}: {reply:?}"),
        }
    }
    // What only the schema says is checked where the host checks, as with extensions.
    let none: Result<u32, _> = host.invoke("app.steps", "effort", &(step(0),)).await;
    assert_eq!(none.unwrap(), 0);
    let none: Result<u32, _> = strict.invoke("app.steps", "effort", &(step(0),)).await;
    assert_eq!(none.unwrap_err().message, "effort: step.effort: 0 is less than the minimum of 1");
}
