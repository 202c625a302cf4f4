//! Events: who may emit and listen, what arrives, and what does not.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::await_holding_lock, reason = "it holds up handlers, which are on other threads")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::limits::Limits;
use quadriga_core::abi::permission::{AccessKind, Permissions, TopicPattern};
use quadriga_core::abi::{Bytes, Emitted, Error, ErrorCode, Overflow, Value, codec};
use quadriga_core::{
    CallOptions, DecisionFilter, Dispatcher, Effect, EventQuota, Grant, LoadOptions, MockRuntime, Outcome,
    Policy, Snippet, SubscriptionStatus, Verdict,
};
use serde::Deserialize;

use crate::common::{host, load, package, told, until, wanted, write};

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Got {
    topic: String,
    source: Option<String>,
    data: Value,
}

/// What each extension was handed.
type Heard = Arc<Mutex<Vec<(String, Got)>>>;

/// Guests that do as they are told, and remember what they hear. `slow` waits for the lock `gate`.
fn guests(heard: &Heard, gate: &Arc<Mutex<()>>) -> MockRuntime {
    let remember = |heard: &Heard| {
        let heard = Arc::clone(heard);
        move |extension: &str, payload: &[u8]| {
            let (got,): (Got,) = codec::from_arguments(payload).unwrap();
            heard.lock().unwrap().push((extension.to_owned(), got));
            Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
        }
    };
    let (hear, slow, gate) = (remember(heard), remember(heard), Arc::clone(gate));
    told()
        .method("hear", move |bridge, call| hear(bridge.extension().as_str(), &call.envelope.payload))
        .method("slow", move |bridge, call| {
            drop(gate.lock().unwrap());
            slow(bridge.extension().as_str(), &call.envelope.payload)
        })
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "as it was told to").into())
        .method("hang", |_, _| Outcome::Pending(Box::pin(std::future::pending())))
        .method("again", |bridge, call| {
            let arguments = codec::arguments(&("loop", 1)).unwrap();
            bridge.call(&call.context(), "quadriga.events", "emit", arguments.into())
        })
}

fn listening() -> (Heard, Arc<Mutex<()>>, MockRuntime) {
    let (heard, gate) = (Heard::default(), Arc::default());
    let runtime = guests(&heard, &gate);
    (heard, gate, runtime)
}

const BOTH: &str = "[permissions]\nemit = ['a.*']\nsubscribe = ['a.*']";

/// Has an extension use the service.
async fn events(
    host: &Dispatcher,
    extension: &str,
    method: &str,
    arguments: impl serde::Serialize,
) -> Result<Bytes, Error> {
    let arguments = wanted("quadriga.events", method, arguments);
    host.call(extension, "call", arguments, CallOptions::default()).await
}

async fn emit(host: &Dispatcher, extension: &str, topic: &str, data: i64) -> Result<Emitted, Error> {
    events(host, extension, "emit", (topic, data)).await.map(|bytes| codec::from_bytes(&bytes).unwrap())
}

fn one(host: &Dispatcher, extension: &str) -> SubscriptionStatus {
    let [status] = host.subscriptions(extension).unwrap().try_into().unwrap();
    status
}

fn ints(heard: &Heard) -> Vec<i64> {
    let int = |(_, got): &(String, Got)| match got.data {
        Value::Int(int) => int,
        _ => panic!("{got:?}"),
    };
    heard.lock().unwrap().iter().map(int).collect()
}

fn topics(emit: &[&str], subscribe: &[&str]) -> Permissions {
    let list = |list: &[&str]| list.iter().map(|topic| TopicPattern((*topic).to_owned())).collect();
    Permissions { emit: list(emit), subscribe: list(subscribe), ..Permissions::default() }
}

#[tokio::test]
async fn those_who_listen_hear_what_is_emitted_and_by_whom() {
    let (heard, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let _emitter = load(&host, "x.emitter", BOTH, Grant::Requested).await;
    let declared = format!("{BOTH}\n[events.'a.b']\nmethod = 'hear'");
    let _declared = load(&host, "x.declared", &declared, Grant::Requested).await;
    let _made = load(&host, "x.made", BOTH, Grant::Requested).await;
    events(&host, "x.made", "subscribe", ("a.*", "hear")).await.unwrap();
    let mut ours = host.subscribe("a.*").unwrap();
    assert_eq!(emit(&host, "x.emitter", "a.b", 1).await.unwrap(), Emitted { queued: 3, dropped: 0 });
    let event = ours.next().await.unwrap();
    assert_eq!((&*event.topic, &*event.data), ("a.b", &[1][..]));
    assert_eq!(event.source.unwrap().as_str(), "x.emitter");
    until(async || heard.lock().unwrap().len() == 2).await;
    let source = Some("x.emitter".to_owned());
    let got = Got { topic: "a.b".to_owned(), source, data: Value::Int(1) };
    let mut all = std::mem::take(&mut *heard.lock().unwrap());
    all.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    assert_eq!(all, [("x.declared".to_owned(), got.clone()), ("x.made".to_owned(), got)]);
    // The host has no name, and others do not hear.
    assert_eq!(host.emit("a.c", &[2]).unwrap(), Emitted { queued: 2, dropped: 0 });
    assert_eq!(host.emit("b", &[2]).unwrap(), Emitted::default());
    until(async || heard.lock().unwrap().len() == 1).await;
    let got = Got { topic: "a.c".to_owned(), source: None, data: Value::Int(2) };
    assert_eq!(*heard.lock().unwrap(), [("x.made".to_owned(), got)]);
    assert_eq!(ours.next().await.unwrap().source, None);
    // Between whom, and how often.
    let pairs = host.communication();
    let said: Vec<_> = pairs.iter().map(|pair| (pair.callee.as_str(), pair.events, pair.calls)).collect();
    assert_eq!(said, [("x.declared", 1, 0), ("x.made", 1, 0)]);
    // No more after the end.
    assert!(codec::from_bytes::<bool>(&unsubscribe(&host, "a.*").await).unwrap());
    assert!(!codec::from_bytes::<bool>(&unsubscribe(&host, "a.*").await).unwrap());
    drop(ours);
    assert_eq!(emit(&host, "x.emitter", "a.c", 1).await.unwrap(), Emitted::default());
    host.unload("x.declared").await.unwrap();
    assert_eq!(emit(&host, "x.emitter", "a.b", 1).await.unwrap(), Emitted::default());
    let mut last = host.subscribe("*").unwrap();
    drop(host);
    assert_eq!(last.next().await, None);
}

async fn unsubscribe(host: &Dispatcher, topic: &str) -> Bytes {
    events(host, "x.made", "unsubscribe", (topic, "hear")).await.unwrap()
}

#[tokio::test]
async fn both_sides_need_a_permission_which_holds_for_the_next_event() {
    let (heard, gate, runtime) = listening();
    let host = host(runtime, Policy::default());
    let _a = load(&host, "x.a", BOTH, Grant::Nothing).await;
    let declared = format!("{BOTH}\n[events.'a.*']\nmethod = 'slow'");
    let _b = load(&host, "x.b", &declared, Grant::Requested).await;
    for (method, arguments) in [("emit", ("a.b", "slow")), ("subscribe", ("a.b", "slow"))] {
        let error = events(&host, "x.a", method, arguments).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{method}");
    }
    assert_eq!(host.grant("x.a", &topics(&["a.*"], &["a.b"])).unwrap(), Effect::Now);
    // A part is granted, and no more than that.
    for (topic, may) in [("a.b", true), ("a.*", false), ("a.bc", false), ("*", false)] {
        let done = events(&host, "x.a", "subscribe", (topic, "hear")).await;
        assert_eq!(done.map_err(|error| error.code).err(), (!may).then_some(ErrorCode::PermissionDenied));
    }
    // What waits when the permission goes is not delivered.
    let shut = gate.lock().unwrap();
    for n in 0..5 {
        emit(&host, "x.a", "a.c", n).await.unwrap();
    }
    until(async || one(&host, "x.b").queued == 4).await;
    assert_eq!(host.revoke("x.b", &topics(&[], &["a.*"])).unwrap(), Effect::Now);
    drop(shut);
    until(async || one(&host, "x.b").denied == 4).await;
    assert_eq!(ints(&heard), [0]);
    let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
    let denied = host.decisions("x.b", &filter).unwrap();
    assert_eq!(denied.iter().filter(|it| it.what == "subscribe to a.c").count(), 4);
    assert_eq!(host.accesses("x.a").unwrap()[&AccessKind::Emit].allowed, 5);
    assert_eq!(host.revoke("x.a", &topics(&["a.*"], &[])).unwrap(), Effect::Now);
    let error = emit(&host, "x.a", "a.c", 1).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
}

#[tokio::test]
async fn a_rule_keeps_a_pair_apart() {
    let (heard, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let _a = load(&host, "x.a", BOTH, Grant::Requested).await;
    let _b = load(&host, "x.b", BOTH, Grant::Requested).await;
    let declared = format!("{BOTH}\n[events.'a.*']\nmethod = 'hear'");
    let _c = load(&host, "x.c", &declared, Grant::Requested).await;
    host.block("x.a", "x.c").unwrap();
    emit(&host, "x.a", "a.b", 1).await.unwrap();
    emit(&host, "x.b", "a.b", 2).await.unwrap();
    until(async || one(&host, "x.c").delivered == 1).await;
    assert_eq!((ints(&heard), one(&host, "x.c").denied), (vec![2], 1));
    let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
    let [denied] = host.decisions("x.a", &filter).unwrap().try_into().unwrap();
    assert_eq!((&*denied.what, denied.reason), ("emit on a.b", quadriga_core::Reason::Rule));
}

#[tokio::test]
async fn a_full_queue_drops_what_it_was_told_to() {
    for (overflow, kept) in [(Overflow::DropNewest, [0, 1, 2, 3]), (Overflow::DropOldest, [0, 3, 4, 5])] {
        let (heard, gate, runtime) = listening();
        let events = EventQuota { events: 3, ..EventQuota::default() };
        let host = host(runtime, Policy { events, ..Policy::default() });
        let overflow = if overflow == Overflow::DropNewest { "drop-newest" } else { "drop-oldest" };
        let manifest = format!("{BOTH}\n[events.'a.*']\nmethod = 'slow'\noverflow = '{overflow}'");
        let _a = load(&host, "x.a", &manifest, Grant::Requested).await;
        let shut = gate.lock().unwrap();
        host.emit("a.b", &[0]).unwrap();
        // The handler has the first one.
        until(async || one(&host, "x.a").queued == 0).await;
        let dropped: u32 = (1..6).map(|n| host.emit("a.b", &[n]).unwrap().dropped).sum();
        drop(shut);
        until(async || heard.lock().unwrap().len() == 4).await;
        assert_eq!((ints(&heard), dropped), (kept.to_vec(), 2), "{overflow}");
        until(async || one(&host, "x.a").delivered == 4).await;
        assert_eq!(one(&host, "x.a").dropped, 2);
    }
}

#[tokio::test]
async fn queues_are_bounded_in_bytes_too() {
    let (_, gate, runtime) = listening();
    let events = EventQuota { bytes: 1000, ..EventQuota::default() };
    let host = host(runtime, Policy { events, ..Policy::default() });
    let manifest = format!("{BOTH}\n[events.'a.*']\nmethod = 'slow'");
    let _a = load(&host, "x.a", &manifest, Grant::Requested).await;
    let shut = gate.lock().unwrap();
    let data = |size: usize| Value::Bytes(vec![0; size]).to_bytes().unwrap();
    assert_eq!(host.emit("a.b", &data(997)).unwrap().queued, 1);
    until(async || one(&host, "x.a").queued == 0).await;
    assert_eq!(host.emit("a.b", &data(997)).unwrap(), Emitted { queued: 1, dropped: 0 });
    assert_eq!(host.emit("a.b", &data(1)).unwrap(), Emitted { queued: 0, dropped: 1 });
    assert_eq!(host.emit("a.b", &data(998)).unwrap_err().code, ErrorCode::MessageTooLarge);
    drop(shut);
    until(async || one(&host, "x.a").delivered == 2).await;
}

#[tokio::test]
async fn a_handler_that_fails_or_hangs_holds_up_itself_alone() {
    let (heard, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let manifest = |method: &str| format!("{BOTH}\n[events.'a.*']\nmethod = '{method}'");
    let _f = load(&host, "x.fails", &manifest("fail"), Grant::Requested).await;
    let hangs = format!("{}\n[limits]\ncall-timeout = '20ms'", manifest("hang"));
    let _h = load(&host, "x.hangs", &hangs, Grant::Requested).await;
    let _g = load(&host, "x.good", &manifest("hear"), Grant::Requested).await;
    for n in 0..3 {
        host.emit("a.b", &[n]).unwrap();
    }
    until(async || one(&host, "x.hangs").failed == 3).await;
    until(async || one(&host, "x.fails").failed == 3).await;
    until(async || one(&host, "x.good").delivered == 3).await;
    assert_eq!(ints(&heard), [0, 1, 2]);
    assert_eq!(host.status("x.hangs").unwrap().last_error.unwrap().error.code, ErrorCode::DeadlineExceeded);
}

#[tokio::test]
async fn events_that_lead_to_events_come_to_an_end() {
    let (_, _, runtime) = listening();
    let host = host(runtime, Policy { call_depth: 8, ..Policy::default() });
    let manifest = "[permissions]\nemit = ['loop']\nsubscribe = ['loop']\n[events.loop]\nmethod = 'again'";
    let _a = load(&host, "x.a", manifest, Grant::Requested).await;
    host.emit("loop", &[0]).unwrap();
    until(async || one(&host, "x.a").failed == 1).await;
    assert_eq!(one(&host, "x.a").delivered, 9);
}

#[tokio::test]
async fn a_subscription_outlasts_a_reload_with_what_waits() {
    let (heard, gate, runtime) = listening();
    let host = host(runtime, Policy::default());
    let manifest = |topic: &str| format!("{BOTH}\n[events.'{topic}']\nmethod = 'slow'");
    let dir = load(&host, "x.a", &manifest("a.b"), Grant::Requested).await;
    events(&host, "x.a", "subscribe", ("a.made", "slow")).await.unwrap();
    let shut = gate.lock().unwrap();
    for n in 0..3 {
        host.emit("a.b", &[n]).unwrap();
    }
    let (reloading, opening) = (host.reload("x.a"), async {
        // The old generation has one of them in its hands.
        until(async || host.status("x.a").unwrap().generation > 1).await;
        drop(shut);
    });
    let (reloaded, ()) = tokio::join!(reloading, opening);
    reloaded.unwrap();
    until(async || heard.lock().unwrap().len() == 3).await;
    assert_eq!(ints(&heard), [0, 1, 2]);
    let list = || host.subscriptions("x.a").unwrap().into_iter().map(|it| it.topic).collect::<Vec<_>>();
    assert_eq!(list(), ["a.b", "a.made"]);
    // What the new manifest no longer says is gone.
    write(dir.path(), "x.a", &manifest("a.c"));
    host.reload("x.a").await.unwrap();
    assert_eq!(list(), ["a.c", "a.made"]);
    host.unload("x.a").await.unwrap();
    assert_eq!(host.emit("a.made", &[0]).unwrap(), Emitted::default());
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
    assert_eq!(list(), ["a.c"]);
}

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let (_, _, runtime) = listening();
    let events_ = EventQuota { subscriptions: 2, ..EventQuota::default() };
    let host = host(runtime, Policy { events: events_, ..Policy::default() });
    let all = "[permissions]\nemit = ['*']\nsubscribe = ['*']";
    let _a = load(&host, "x.a", all, Grant::Requested).await;
    let (long, list) = ("t".repeat(257), |items: &[Value]| Value::List(items.to_vec()));
    let text = |text: &str| Value::Text(text.to_owned());
    let topic = "a topic has 1 to 256 bytes";
    let cases = [
        ("emit", list(&[]), ErrorCode::InvalidArguments, "it takes a topic and a value"),
        ("emit", list(&[text("a"), Value::Nil, Value::Nil]), ErrorCode::InvalidArguments, "it takes a topic"),
        ("emit", list(&[text(""), Value::Nil]), ErrorCode::InvalidArguments, topic),
        ("emit", list(&[text("a*"), Value::Nil]), ErrorCode::InvalidArguments, topic),
        ("emit", list(&[text("a b"), Value::Nil]), ErrorCode::InvalidArguments, topic),
        ("emit", list(&[text("a\n"), Value::Nil]), ErrorCode::InvalidArguments, topic),
        ("emit", list(&[text(&long), Value::Nil]), ErrorCode::InvalidArguments, topic),
        ("subscribe", list(&[text("a")]), ErrorCode::InvalidArguments, "the arguments: "),
        ("subscribe", list(&[text("a*b"), text("hear")]), ErrorCode::InvalidArguments, "it is a topic"),
        ("subscribe", list(&[text("a"), text("her")]), ErrorCode::UnknownMethod, "no method \"her\""),
        ("subscribe", list(&[text("a"), text("hear"), Value::Int(1)]), ErrorCode::InvalidArguments, ""),
        ("unsubscribe", list(&[]), ErrorCode::InvalidArguments, "the arguments: "),
        ("emitt", list(&[]), ErrorCode::UnknownMethod, "quadriga.events has no method \"emitt\""),
    ];
    for (method, arguments, code, says) in cases {
        let error = events(&host, "x.a", method, &arguments).await.unwrap_err();
        assert_eq!(error.code, code, "{method} {arguments:?}: {error:?}");
        assert!(error.message.contains(says), "{method} {arguments:?}: {error:?}");
    }
    // The same twice is one; more than the quota are refused.
    for topic in ["a", "a", "b"] {
        events(&host, "x.a", "subscribe", (topic, "hear")).await.unwrap();
    }
    let error = events(&host, "x.a", "subscribe", ("c", "hear")).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::QuotaExceeded, "x.a may make 2 subscriptions"));
    // One may change its mind about what is dropped.
    let options = std::collections::BTreeMap::from([("overflow", "drop-oldest")]);
    events(&host, "x.a", "subscribe", ("b", "hear", options)).await.unwrap();
    let said: Vec<_> = host.subscriptions("x.a").unwrap().into_iter().map(|it| it.overflow).collect();
    assert_eq!(said, [Overflow::DropNewest, Overflow::DropOldest]);
    for (data, says) in [
        (vec![], "not one MessagePack value"),
        (vec![0, 0], "not one MessagePack value"),
        (vec![0xc1], "not one MessagePack value"),
    ] {
        let error = host.emit("a", &data).unwrap_err();
        assert!(error.message.contains(says), "{data:?}: {error}");
    }
    assert!(host.emit("a*", &[0]).is_err() && host.subscribe("a b").is_err());
}

#[tokio::test]
async fn manifests_ask_for_what_they_subscribe_to_and_have_the_method() {
    let (_, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let cases = [
        ("[events.'a.b']\nmethod = 'hear'", "[permissions] subscribe = [\"a.b\"] is missing"),
        ("[permissions]\nsubscribe = ['a.b']\n[events.'a.*']\nmethod = 'hear'", "is missing"),
        ("[permissions]\nsubscribe = ['*']\n[events.'a b']\nmethod = 'hear'", "is no topic"),
        ("[permissions]\nsubscribe = ['*']\n[events.a]\nmethod = 'her'", "names the method \"her\""),
        ("[permissions]\nsubscribe = ['*']\n[events.a]\nmethod = 'hear'\noverflow = 'x'", "unknown variant"),
    ];
    for (more, says) in cases {
        let dir = package("x.a", more);
        let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidManifest, "{more}");
        assert!(error.message.contains(says), "{more}: {error}");
    }
}

#[tokio::test]
async fn loose_code_emits_and_has_nothing_to_listen_with() {
    let (_, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let mut ours = host.subscribe("a").unwrap();
    let run = async |method: &str| {
        let mut snippet = Snippet::new("mock", "");
        snippet.limits = Limits::default();
        snippet.permissions = topics(&["a"], &["a"]);
        snippet.parameters = wanted("quadriga.events", method, ("a", "hear"));
        host.execute(snippet).await.unwrap().result
    };
    run("emit").await.unwrap();
    assert!(ours.next().await.is_some());
    assert_eq!(run("subscribe").await.unwrap_err().code, ErrorCode::Unsupported);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_at_once_none_is_lost_doubled_or_out_of_order() {
    const EMITTERS: u8 = 4;
    const EACH: u8 = 100;
    let (heard, _, runtime) = listening();
    let host = host(runtime, Policy::default());
    let manifest = format!("{BOTH}\n[events.'a.*']\nmethod = 'hear'");
    let _a = load(&host, "x.a", &manifest, Grant::Requested).await;
    let mut ours = host.subscribe("*").unwrap();
    let emitting = (0..EMITTERS).map(|emitter| {
        let host = host.clone();
        tokio::task::spawn_blocking(move || {
            for n in 0..EACH {
                let emitted = host.emit(&format!("a.{emitter}"), &[n]).unwrap();
                assert_eq!(emitted, Emitted { queued: 2, dropped: 0 });
            }
        })
    });
    let emitting: Vec<_> = emitting.collect();
    let mut got = vec![Vec::new(); EMITTERS.into()];
    for _ in 0..u32::from(EMITTERS) * u32::from(EACH) {
        let event = ours.next().await.unwrap();
        let emitter: usize = event.topic[2..].parse().unwrap();
        got[emitter].push(event.data[0]);
    }
    for task in emitting {
        task.await.unwrap();
    }
    let all: Vec<u8> = (0..EACH).collect();
    assert!(got.iter().all(|got| *got == all), "{got:?}");
    until(async || heard.lock().unwrap().len() == got.len() * all.len()).await;
    for emitter in 0..EMITTERS {
        let heard = heard.lock().unwrap();
        let its = heard.iter().filter(|(_, got)| got.topic == format!("a.{emitter}"));
        let its: Vec<Value> = its.map(|(_, got)| got.data.clone()).collect();
        assert_eq!(its, all.iter().map(|n| Value::Int((*n).into())).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn the_policy_bounds_a_handler_too() {
    let (_, _, runtime) = listening();
    let events = EventQuota { handler_timeout: Duration::from_millis(20), ..EventQuota::default() };
    let host = host(runtime, Policy { events, ..Policy::default() });
    let manifest = format!("{BOTH}\n[events.'a.*']\nmethod = 'hang'");
    let _h = load(&host, "x.hangs", &manifest, Grant::Requested).await;
    host.emit("a.b", &[0]).unwrap();
    until(async || one(&host, "x.hangs").failed == 1).await;
}
