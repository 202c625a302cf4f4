//! Broadcasts: whom they reach, what comes back, and what bounds them.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use quadriga_core::abi::permission::AccessKind;
use quadriga_core::abi::{Bytes, Error, ErrorCode, RuntimeKind, Value, codec};
use quadriga_core::{
    Answer, BroadcastFilter, BroadcastOptions, CallOptions, DecisionFilter, Dispatcher, Effect, Grant,
    LoadOptions, MockRuntime, Outcome, Policy, Provided, Reason, Verdict,
};
use serde::Deserialize;
use tempfile::TempDir;

use crate::common::{self, NONE, calls, forever, host, load, told, wanted};

/// One entry as an extension gets it.
#[derive(Debug, Deserialize)]
struct Entry {
    extension: String,
    value: Option<Value>,
    error: Option<Failed>,
}

#[derive(Debug, Deserialize)]
struct Failed {
    code: String,
    message: String,
}

/// Guests that say who they are, fail, hang, or say much.
fn guests() -> MockRuntime {
    told()
        .method("who", |bridge, _| {
            Outcome::Ready(Ok(codec::to_bytes(bridge.extension().as_str()).unwrap().into()))
        })
        .method("fail", |bridge, _| {
            let message = format!("{} as it was told to", bridge.extension());
            Error::new(ErrorCode::ExtensionError, message).into()
        })
        .method("hang", |_, _| forever())
        .method("much", |_, _| Outcome::Ready(Ok(Value::Bytes(vec![0; 400]).to_bytes().unwrap().into())))
        .method("deeper", |bridge, call| {
            let arguments = codec::arguments(&(Value::Nil, "deeper", Value::Nil)).unwrap();
            bridge.call(&call.context(), "quadriga.calls", "broadcast", arguments.into())
        })
}

/// Loads one with tags, which stand before the table of the runtime.
async fn load_tagged(host: &Dispatcher, id: &str, tags: &str, provides: &str) -> TempDir {
    let dir = common::package(id, &format!("[capabilities]\nprovides = [{provides}]"));
    let path = dir.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, text.replace("[runtime]", &format!("tags = [{tags}]\n[runtime]"))).unwrap();
    host.load(dir.path(), LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }).await.unwrap();
    dir
}

async fn all(host: &Dispatcher, method: &str, options: BroadcastOptions) -> Vec<Answer> {
    host.broadcast(&BroadcastFilter::default(), method, NONE, options).await.unwrap()
}

/// What each came to: its value as text, or its code.
fn said(answers: &[Answer]) -> Vec<(&str, String)> {
    let one = |answer: &Answer| match &answer.result {
        Ok(bytes) => codec::from_bytes::<String>(bytes).unwrap(),
        Err(error) => error.code.to_string(),
    };
    answers.iter().map(|answer| (answer.extension.as_str(), one(answer))).collect()
}

/// Has an extension broadcast.
async fn broadcast(
    host: &Dispatcher,
    caller: &str,
    to: &serde_json::Value,
    method: &str,
) -> Result<Vec<Entry>, Error> {
    let to = Value::from(to.clone());
    let arguments = wanted("quadriga.calls", "broadcast", (to, method));
    let reply = host.call(caller, "call", arguments, CallOptions::default()).await?;
    Ok(codec::from_bytes(&reply).unwrap())
}

fn ids(entries: &[Entry]) -> Vec<&str> {
    entries.iter().map(|entry| entry.extension.as_str()).collect()
}

#[tokio::test]
async fn it_reaches_those_for_which_the_filter_is() {
    let host = host(guests(), Policy::default());
    let _a = load_tagged(&host, "x.a", "'t', 'u'", "'cache@1.2.0'").await;
    let _b = load_tagged(&host, "x.b", "'t'", "'cache@2.0.0', 'index@1.0.0'").await;
    let _c = load_tagged(&host, "x.c", "", "").await;
    host.provide(Provided::new("app.own").unwrap().function("who", |()| Ok("own"))).unwrap();
    let text = |text: &str| Some(text.to_owned());
    let filter = BroadcastFilter::default;
    for (filter, expected) in [
        (filter(), "abc"),
        (BroadcastFilter { runtime: Some(RuntimeKind::new("mock")), ..filter() }, "abc"),
        (BroadcastFilter { runtime: Some(RuntimeKind::new("python")), ..filter() }, ""),
        (BroadcastFilter { tag: text("t"), ..filter() }, "ab"),
        (BroadcastFilter { tag: text("T"), ..filter() }, ""),
        (BroadcastFilter { provides: text("cache"), ..filter() }, "ab"),
        (BroadcastFilter { provides: text("cache@^1"), ..filter() }, "a"),
        (BroadcastFilter { provides: text("index@>=1, <2"), ..filter() }, "b"),
        (BroadcastFilter { provides: text("cach"), ..filter() }, ""),
        (BroadcastFilter { tag: text("u"), provides: text("index"), ..filter() }, ""),
        (BroadcastFilter { tag: text("t"), provides: text("cache@2.0.0"), ..filter() }, "b"),
    ] {
        let answers = host.broadcast(&filter, "who", NONE, BroadcastOptions::default()).await.unwrap();
        let expected: Vec<_> = expected.chars().map(|letter| format!("x.{letter}")).collect();
        let own: Vec<_> = expected.iter().map(|id| (id.as_str(), id.clone())).collect();
        assert_eq!(said(&answers), own, "{filter:?}");
    }
    for wrong in ["", "@1", "cache@one"] {
        let filter = BroadcastFilter { provides: text(wrong), ..filter() };
        let error = host.broadcast(&filter, "who", NONE, BroadcastOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{wrong:?}: {error}");
    }
}

#[tokio::test]
async fn each_has_an_entry_whatever_it_comes_to() {
    let host = host(guests(), Policy::default());
    let mut loaded = Vec::new();
    for id in ["x.d", "x.b", "x.a", "x.c"] {
        loaded.push(load(&host, id, "", Grant::Nothing).await);
    }
    let lazy = common::package("x.e", "");
    host.load(lazy.path(), LoadOptions { lazy: true, ..LoadOptions::default() }).await.unwrap();
    host.pause("x.b").unwrap();
    host.quarantine("x.c", "for the test").unwrap();
    let says = |b: &str, c: &str, others: [&str; 3]| {
        let [a, d, e] = others.map(str::to_owned);
        [("x.a", a), ("x.b", b.to_owned()), ("x.c", c.to_owned()), ("x.d", d), ("x.e", e)]
    };
    let (paused, quarantined) = ("extension_paused", "extension_quarantined");
    for (method, others) in
        [("who", ["x.a", "x.d", "x.e"]), ("fail", ["extension_error"; 3]), ("none", ["unknown_method"; 3])]
    {
        let answers = all(&host, method, BroadcastOptions::default()).await;
        assert_eq!(said(&answers), says(paused, quarantined, others), "{method}");
        // Also where the error comes from outside of it, it says in which.
        assert!(
            answers.iter().all(|it| it.result.as_ref().err().is_none_or(|error| !error.message.is_empty()))
        );
    }
}

#[tokio::test]
async fn one_that_hangs_holds_up_nobody() {
    let host = host(guests(), Policy::default());
    let _a = load(&host, "x.a", "", Grant::Nothing).await;
    let _b = load(&host, "x.b", "[limits]\ncall-timeout = '10ms'", Grant::Nothing).await;
    let late = |id| (id, "deadline_exceeded".to_owned());
    let short = Duration::from_millis(50);
    for options in [
        BroadcastOptions { timeout: short, ..BroadcastOptions::default() },
        BroadcastOptions { each: Some(short), ..BroadcastOptions::default() },
        // The second begins when the first has ended, and there is no time left.
        BroadcastOptions { timeout: short, at_once: 1, ..BroadcastOptions::default() },
    ] {
        let answers = all(&host, "hang", options).await;
        assert_eq!(said(&answers), [late("x.a"), late("x.b")]);
    }
    common::until(async || host.all_metrics().iter().all(|it| it.total.in_flight == 0)).await;
}

#[tokio::test]
async fn whoever_stops_waiting_gives_the_calls_up() {
    let interrupted = Arc::<AtomicUsize>::default();
    let counting = Arc::clone(&interrupted);
    let runtime = guests().on_interrupt(move |_| _ = counting.fetch_add(1, SeqCst));
    let host = host(runtime, Policy::default());
    let _a = load(&host, "x.a", "", Grant::Nothing).await;
    let _b = load(&host, "x.b", "", Grant::Nothing).await;
    // Long before their own deadline.
    let waiting = all(&host, "hang", BroadcastOptions::default());
    assert!(tokio::time::timeout(Duration::from_millis(50), waiting).await.is_err());
    common::until(async || interrupted.load(SeqCst) == 2).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_are_called_at_once_than_it_says() {
    let (inside, most) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counting, high) = (Arc::clone(&inside), Arc::clone(&most));
    let runtime = MockRuntime::new().method("busy", move |_, _| {
        high.fetch_max(counting.fetch_add(1, SeqCst) + 1, SeqCst);
        std::thread::sleep(Duration::from_millis(2));
        counting.fetch_sub(1, SeqCst);
        Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
    });
    let host = host(runtime, Policy::default());
    let mut loaded = Vec::new();
    for n in 0..20 {
        loaded.push(load(&host, &format!("x.n{n}"), "", Grant::Nothing).await);
    }
    for at_once in [0, 1, 3, 16] {
        most.store(0, SeqCst);
        let answers = all(&host, "busy", BroadcastOptions { at_once, ..BroadcastOptions::default() }).await;
        assert_eq!(answers.iter().filter(|it| it.result.is_ok()).count(), 20);
        assert!(answers.is_sorted_by_key(|it| &it.extension));
        assert!((1..=at_once.max(1)).contains(&most.load(SeqCst)), "{at_once}: {most:?}");
    }
}

#[tokio::test]
async fn an_extension_reaches_those_that_it_may_call_and_learns_of_no_other() {
    let host = host(guests(), Policy::default());
    let mut loaded = Vec::new();
    for id in ["x.a", "x.b", "x.c"] {
        loaded.push(load(&host, id, "[permissions]\ncall = ['*']", Grant::Nothing).await);
    }
    let to = serde_json::json!({});
    let denied = |extension: &str| {
        let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        host.decisions(extension, &filter).unwrap()
    };
    for (grant, expected) in [
        (&[][..], None),
        (&["x.b/fail"], None),
        (&["x.b/who"], Some(&["x.b"][..])),
        (&["x.b/*", "x.c/fail"], Some(&["x.b"])),
        (&["*/who"], Some(&["x.b", "x.c"])),
        // Never itself.
        (&["*"], Some(&["x.b", "x.c"])),
        (&["x.a/*"], Some(&[])),
    ] {
        assert_eq!(host.revoke("x.a", &host.permissions("x.a").unwrap()).unwrap(), Effect::Now);
        assert_eq!(host.grant("x.a", &calls(grant)).unwrap(), Effect::Now);
        let before = host.accesses("x.a").unwrap()[&AccessKind::Call].denied;
        let entries = broadcast(&host, "x.a", &to, "who").await;
        let after = host.accesses("x.a").unwrap()[&AccessKind::Call].denied;
        match expected {
            Some(expected) => {
                assert_eq!((ids(&entries.unwrap()), after - before), (expected.to_vec(), 0), "{grant:?}")
            }
            None => {
                let error = entries.unwrap_err();
                assert_eq!((error.code, after - before), (ErrorCode::PermissionDenied, 1), "{grant:?}");
                assert!(!error.message.contains("x.b"), "{error}");
            }
        }
    }
    // A rule keeps a pair apart, and says so.
    assert_eq!(host.grant("x.a", &calls(&["*"])).unwrap(), Effect::Now);
    host.block("x.a", "x.c").unwrap();
    assert_eq!(ids(&broadcast(&host, "x.a", &to, "who").await.unwrap()), ["x.b"]);
    let last = denied("x.a").into_iter().rfind(|it| it.reason == Reason::Rule).unwrap();
    assert_eq!(last.what, "call x.c/who");
    // They are calls like others.
    let pair = host.communication().into_iter().find(|it| it.callee.as_str() == "x.b").unwrap();
    assert!(pair.calls >= 4 && pair.errors == 0, "{pair:?}");
    let error = broadcast(&host, "x.a", &to, "snapshot").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn answers_have_room_together() {
    let host = host(guests(), Policy { message_size: 1500, ..Policy::default() });
    let mut loaded = Vec::new();
    let small = "[permissions]\ncall = ['*']\n[limits]\nmessage-size = '600B'";
    for (id, more) in [("x.a", small), ("x.b", ""), ("x.c", ""), ("x.d", ""), ("x.e", "")] {
        loaded.push(load(&host, id, more, Grant::Requested).await);
    }
    // One after the other, so that it is known which one it hits.
    let options = BroadcastOptions { at_once: 1, ..BroadcastOptions::default() };
    let answers = all(&host, "much", options).await;
    let codes: Vec<_> = answers.iter().map(|it| it.result.as_ref().err().map(|error| error.code)).collect();
    let large = Some(ErrorCode::MessageTooLarge);
    assert_eq!(codes, [None, None, None, large, large]);
    let to = serde_json::json!({ "parallel": 1 });
    let error = broadcast(&host, "x.a", &to, "much").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageTooLarge, "{error}");
}

#[tokio::test]
async fn broadcasts_that_lead_to_broadcasts_come_to_an_end() {
    let host = host(guests(), Policy { call_depth: 5, ..Policy::default() });
    let all = "[permissions]\ncall = ['*']";
    let _a = load(&host, "x.a", all, Grant::Requested).await;
    let _b = load(&host, "x.b", all, Grant::Requested).await;
    let mut reply = host.call("x.a", "deeper", NONE, CallOptions::default()).await.unwrap();
    let mut levels = 0;
    let last = loop {
        let [entry]: [Entry; 1] = codec::from_bytes::<Vec<Entry>>(&reply).unwrap().try_into().unwrap();
        let Some(value) = entry.value else { break entry };
        reply = value.to_bytes().unwrap().into();
        levels += 1;
    };
    let error = last.error.unwrap();
    assert_eq!((levels, &*error.code), (5, "call_depth_exceeded"), "{}", error.message);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let host = host(guests(), Policy::default());
    let _a = load(&host, "x.a", "[permissions]\ncall = ['*']", Grant::Requested).await;
    let (map, text) = (|json| Value::from(json), |text: &str| Value::Text(text.to_owned()));
    let to = |json: serde_json::Value| vec![map(json), text("who")];
    for (method, arguments, code, says) in [
        ("broadcast", vec![], ErrorCode::InvalidArguments, "it takes a map"),
        ("broadcast", vec![Value::Nil], ErrorCode::InvalidArguments, "it takes a map"),
        ("broadcast", vec![Value::Nil, Value::Int(1)], ErrorCode::InvalidArguments, "it takes a map"),
        (
            "broadcast",
            vec![Value::Nil, text("who"), text("x")],
            ErrorCode::InvalidArguments,
            "it takes a map",
        ),
        ("broadcast", to(serde_json::json!({ "tags": "x" })), ErrorCode::InvalidArguments, "tags"),
        ("broadcast", to(serde_json::json!({ "timeout": 0 })), ErrorCode::InvalidArguments, "timeout: "),
        ("broadcast", to(serde_json::json!({ "each": -1.5 })), ErrorCode::InvalidArguments, "each: "),
        ("broadcast", to(serde_json::json!({ "parallel": 0 })), ErrorCode::InvalidArguments, "parallel: "),
        ("broadcast", to(serde_json::json!({ "provides": "@" })), ErrorCode::InvalidArguments, "provides: "),
        ("broadcst", vec![], ErrorCode::UnknownMethod, "no method \"broadcst\""),
    ] {
        let arguments = wanted("quadriga.calls", method, Value::List(arguments));
        let error = host.call("x.a", "call", arguments, CallOptions::default()).await.unwrap_err();
        assert_eq!(error.code, code, "{error:?}");
        assert!(error.message.contains(says), "{says}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_while_extensions_come_and_go() {
    let host = host(guests(), Policy::default());
    let mut seen = 0;
    let mut stay = Vec::new();
    for id in ["x.a", "x.b"] {
        stay.push(load(&host, id, "[permissions]\ncall = ['*']", Grant::Requested).await);
    }
    let going = {
        let host = host.clone();
        tokio::spawn(async move {
            for _ in 0..20 {
                let dir = load(&host, "x.goes", "", Grant::Nothing).await;
                host.reload("x.goes").await.unwrap();
                host.unload("x.goes").await.unwrap();
                drop(dir);
            }
        })
    };
    while !going.is_finished() {
        let answers = all(&host, "who", BroadcastOptions::default()).await;
        for answer in &answers {
            // What goes finishes its calls, or is not there.
            let id = answer.extension.as_str();
            match &answer.result {
                Ok(bytes) => assert_eq!(codec::from_bytes::<String>(bytes).unwrap(), id),
                Err(error) => assert_eq!((id, error.code), ("x.goes", ErrorCode::ExtensionStopped)),
            }
        }
        assert!(["x.a", "x.b"].iter().all(|id| answers.iter().any(|it| it.extension.as_str() == *id)));
        seen += 1;
    }
    going.await.unwrap();
    assert!(seen > 0);
}
