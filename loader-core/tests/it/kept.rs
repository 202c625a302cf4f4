//! Events that are delivered at least once: what is kept, tried again and given up.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::await_holding_lock, reason = "it holds up handlers, which are on other threads")]

mod alerts;
mod down;
mod later;
mod whatever;

use std::collections::BTreeMap;
use std::future::ready;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use quadriga_core::abi::permission::{Permissions, TopicPattern};
use quadriga_core::abi::{Bytes, Delivery, Emitted, Error, ErrorCode, ExtensionId, codec};
use quadriga_core::{
    BoxFuture, CallOptions, DeadLetter, Dispatcher, Effect, EventQuota, EventStore, Grant, KeptEvent,
    Letters, LoadOptions, MockRuntime, Outcome, Policy, SubscriptionStatus,
};
use serde::Deserialize;

use crate::common::{load, package, told, until, wanted, write};

/// An event as a handler gets it.
#[derive(Debug, Clone, Deserialize)]
struct Got {
    source: Option<String>,
    data: i64,
    id: String,
    attempt: u32,
}

/// What the guests do, and what they have taken.
#[derive(Clone, Default)]
struct Guests {
    /// How often they still fail at a number.
    fails: Arc<Mutex<BTreeMap<i64, u32>>>,
    taken: Arc<Mutex<Vec<Got>>>,
    /// Handlers wait for it.
    gate: Arc<Mutex<()>>,
    /// Whether they crash rather than fail.
    crash: Arc<AtomicBool>,
}

impl Guests {
    fn runtime(&self) -> MockRuntime {
        let (its, crash) = (self.clone(), Arc::clone(&self.crash));
        told()
            .method("take", move |_, call| {
                let (got,): (Got,) = codec::from_arguments(&call.envelope.payload).unwrap();
                drop(its.gate.lock().unwrap());
                if let Some(left) = its.fails.lock().unwrap().get_mut(&got.data).filter(|left| **left > 0) {
                    *left -= 1;
                    return Error::new(ErrorCode::ExtensionError, format!("no {}", got.attempt)).into();
                }
                its.taken.lock().unwrap().push(got);
                Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
            })
            .method("other", |_, _| Outcome::Ready(Ok(Bytes::from_static(b"\xc0"))))
            .crash_if("crash", move || crash.load(SeqCst))
    }

    fn fails(&self, number: i64, times: u32) {
        self.fails.lock().unwrap().insert(number, times);
    }

    fn taken(&self) -> Vec<i64> {
        self.taken.lock().unwrap().iter().map(|got| got.data).collect()
    }
}

/// A store that outlives the host, and fails when it is told to.
#[derive(Clone, Default)]
struct Store {
    events: Arc<Mutex<BTreeMap<String, KeptEvent>>>,
    broken: Arc<AtomicBool>,
}

impl Store {
    fn done<T: Send + 'static>(
        &self,
        act: impl FnOnce(&mut BTreeMap<String, KeptEvent>) -> T,
    ) -> BoxFuture<'static, Result<T, Error>> {
        let broken = || Err(Error::new(ErrorCode::StoreFailed, "as it was told to"));
        let done =
            if self.broken.load(SeqCst) { broken() } else { Ok(act(&mut self.events.lock().unwrap())) };
        Box::pin(ready(done))
    }
}

impl EventStore for Store {
    fn add(&self, events: Vec<KeptEvent>) -> BoxFuture<'static, Result<(), Error>> {
        self.done(|kept| kept.extend(events.into_iter().map(|event| (event.id.clone(), event))))
    }

    fn update(&self, event: KeptEvent) -> BoxFuture<'static, Result<(), Error>> {
        self.done(|kept| kept.get_mut(&event.id).into_iter().for_each(|it| *it = event.clone()))
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'static, Result<(), Error>> {
        self.done(|kept| kept.retain(|id, _| !ids.contains(id)))
    }

    fn list(&self, subscriber: Option<&ExtensionId>) -> BoxFuture<'static, Result<Vec<KeptEvent>, Error>> {
        let subscriber = subscriber.cloned();
        self.done(|kept| {
            let its = kept.values().filter(|it| subscriber.as_ref().is_none_or(|id| it.subscriber == *id));
            its.cloned().collect()
        })
    }
}

const BOTH: &str = "[permissions]\nemit = ['a.*']\nsubscribe = ['a.*']";

/// A manifest with a kept subscription.
fn keeps(more: &str) -> String {
    format!(
        "{BOTH}\n[events.'a.*']\nmethod = 'take'\ndelivery = 'at-least-once'\nfirst-delay = '1ms'\nlongest-delay = '4ms'\n{more}"
    )
}

fn host_with(guests: &Guests, events: EventQuota, store: Option<&Store>) -> Dispatcher {
    let builder = Dispatcher::builder().runtime(guests.runtime());
    let builder = builder.policy(Policy { events, ..Policy::default() });
    store.iter().fold(builder, |builder, store| builder.event_store((*store).clone())).build().unwrap()
}

fn host(guests: &Guests, store: &Store) -> Dispatcher {
    host_with(guests, EventQuota::default(), Some(store))
}

fn emit(host: &Dispatcher, number: i64) -> Result<Emitted, Error> {
    host.emit("a.b", &codec::to_bytes(&number).unwrap())
}

/// Has an extension use the service.
async fn events(
    host: &Dispatcher,
    extension: &str,
    method: &str,
    arguments: impl serde::Serialize,
) -> Result<Bytes, Error> {
    host.call(extension, "call", wanted("quadriga.events", method, arguments), CallOptions::default()).await
}

fn one(host: &Dispatcher, extension: &str) -> SubscriptionStatus {
    let [status] = host.subscriptions(extension).unwrap().try_into().unwrap();
    status
}

async fn letters(host: &Dispatcher) -> Vec<DeadLetter> {
    host.dead_letters(&Letters::All).await.unwrap()
}

fn subscribing() -> Permissions {
    Permissions { subscribe: vec![TopicPattern("a.*".to_owned())], ..Permissions::default() }
}

#[tokio::test]
async fn it_is_tried_until_it_is_taken_or_dead() {
    for (attempts, fails, expected) in
        [(5, 0, Some(1)), (5, 1, Some(2)), (5, 4, Some(5)), (5, 5, None), (1, 1, None)]
    {
        let (guests, store) = (Guests::default(), Store::default());
        let host = host(&guests, &store);
        let _a = load(&host, "x.a", &keeps(&format!("attempts = {attempts}")), Grant::Requested).await;
        guests.fails(7, fails);
        assert_eq!(emit(&host, 7).unwrap(), Emitted { queued: 1, dropped: 0 });
        until(async || store.events.lock().unwrap().values().all(|it| it.dead.is_some())).await;
        until(async || one(&host, "x.a").queued == 0).await;
        let taken = guests.taken.lock().unwrap().clone();
        assert_eq!(taken.iter().map(|got| got.attempt).next(), expected, "{attempts} {fails}");
        let status = one(&host, "x.a");
        assert_eq!((status.delivery, status.failed), (Delivery::AtLeastOnce, u64::from(fails)));
        let dead = letters(&host).await;
        assert_eq!((dead.len(), status.dead), (usize::from(expected.is_none()), dead.len()));
        let Some(letter) = dead.first() else { continue };
        assert_eq!((letter.attempts, &*letter.topic, &letter.source), (attempts, "a.b", &None));
        assert_eq!(letter.data, serde_json::json!(7));
        assert_eq!(letter.error.as_ref().unwrap().message, format!("no {attempts}"));
        let all = host.metrics("x.a").unwrap();
        assert_eq!((all.kept_events, all.dead_letters), (0, 1));
        // Once more, and it is taken, as the same event.
        let again = host.retry_dead_letters(&Letters::One(letter.id[..20].to_owned())).await.unwrap();
        assert_eq!(again, dead);
        until(async || !guests.taken().is_empty()).await;
        let got = guests.taken.lock().unwrap()[0].clone();
        assert_eq!((got.id, got.attempt, got.source), (letter.id.clone(), 1, None));
        until(async || store.events.lock().unwrap().is_empty()).await;
        assert_eq!((letters(&host).await, one(&host, "x.a").dead), (vec![], 0));
    }
}

#[tokio::test]
async fn one_that_waits_holds_up_those_of_its_emitter_alone() {
    let (guests, store) = (Guests::default(), Store::default());
    let host = host(&guests, &store);
    let slow = keeps("").replace("'1ms'", "'400ms'").replace("'4ms'", "'400ms'");
    let _a = load(&host, "x.a", &slow, Grant::Requested).await;
    let _b = load(&host, "x.b", BOTH, Grant::Requested).await;
    guests.fails(1, 1);
    for number in [1, 2] {
        emit(&host, number).unwrap();
    }
    for number in [10, 11] {
        events(&host, "x.b", "emit", ("a.b", number)).await.unwrap();
    }
    until(async || guests.taken().len() == 4).await;
    assert_eq!(guests.taken(), [10, 11, 1, 2]);
    let sources: Vec<_> = guests.taken.lock().unwrap().iter().map(|it| it.source.clone()).collect();
    let b = Some("x.b".to_owned());
    assert_eq!(sources, [b.clone(), b, None, None]);
}

#[tokio::test]
async fn without_a_store_it_is_refused_unless_memory_will_do() {
    let guests = Guests::default();
    let host = host_with(&guests, EventQuota::default(), None);
    let dir = package("x.a", &keeps(""));
    for lazy in [false, true] {
        let options = LoadOptions { grant: Grant::Requested, lazy, ..LoadOptions::default() };
        let error = host.load(dir.path(), options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported, "{error}");
        assert!(error.message.contains("has no store"), "{error}");
    }
    let kept = BTreeMap::from([("delivery", "at-least-once")]);
    let _b = load(&host, "x.b", BOTH, Grant::Requested).await;
    let error = events(&host, "x.b", "subscribe", ("a.b", "take", &kept)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported, "{error}");
    assert_eq!(letters(&host).await, []);

    let in_memory = EventQuota { in_memory: true, ..EventQuota::default() };
    let host = host_with(&guests, in_memory, None);
    let _a = load(&host, "x.a", &keeps("attempts = 2"), Grant::Requested).await;
    guests.fails(1, 1);
    guests.fails(2, 2);
    emit(&host, 1).unwrap();
    emit(&host, 2).unwrap();
    until(async || one(&host, "x.a").dead == 1).await;
    assert_eq!(guests.taken(), [1]);
    assert_eq!(host.drop_dead_letters(&Letters::All).await.unwrap().len(), 1);
    assert_eq!((letters(&host).await.len(), one(&host, "x.a").dead), (0, 0));
}

#[tokio::test]
async fn what_is_full_refuses_and_drops_nothing() {
    let (guests, store) = (Guests::default(), Store::default());
    let quotas = [
        EventQuota { kept: 3, ..EventQuota::default() },
        EventQuota { kept_bytes: 3 * 257, ..EventQuota::default() },
    ];
    for quota in quotas {
        let host = host_with(&guests, quota, Some(&store));
        let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
        let mut ours = host.subscribe("a.*").unwrap();
        let shut = guests.gate.lock().unwrap();
        for number in 0..3 {
            assert_eq!(emit(&host, number).unwrap().queued, 2);
            ours.next().await.unwrap();
        }
        let error = emit(&host, 3).unwrap_err();
        assert_eq!(error.code, ErrorCode::Overloaded, "{error}");
        assert!(!error.message.contains("x.a"), "{error}");
        drop(shut);
        until(async || one(&host, "x.a").queued == 0).await;
        // Nobody has got it, and dead letters take up room.
        for number in 10..13 {
            guests.fails(number, 1);
            emit(&host, number).unwrap();
            assert_eq!(ours.next().await.unwrap().data[0], u8::try_from(number).unwrap());
        }
        until(async || one(&host, "x.a").dead == 3).await;
        assert_eq!(emit(&host, 4).unwrap_err().code, ErrorCode::Overloaded);
        let ids: Vec<String> = letters(&host).await.into_iter().map(|it| it.id).collect();
        host.drop_dead_letters(&Letters::One(ids[1].clone())).await.unwrap();
        emit(&host, 5).unwrap();
        host.drop_dead_letters(&Letters::Of(ExtensionId::new("x.a").unwrap())).await.unwrap();
        until(async || store.events.lock().unwrap().is_empty()).await;
        assert_eq!(std::mem::take(&mut *guests.taken.lock().unwrap()).len(), 4);
    }
}

#[tokio::test]
async fn what_it_may_not_have_is_dead_at_once() {
    let (guests, store) = (Guests::default(), Store::default());
    let host = host(&guests, &store);
    let _a = load(&host, "x.a", &keeps(""), Grant::Requested).await;
    let _b = load(&host, "x.b", BOTH, Grant::Requested).await;
    assert_eq!(host.revoke("x.a", &subscribing()).unwrap(), Effect::Now);
    emit(&host, 1).unwrap();
    until(async || one(&host, "x.a").dead == 1).await;
    let error = letters(&host).await.remove(0).error.unwrap();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    // It does not come by itself when it is granted again.
    assert_eq!(host.grant("x.a", &subscribing()).unwrap(), Effect::Now);
    emit(&host, 2).unwrap();
    until(async || guests.taken() == [2]).await;
    host.block("x.b", "x.a").unwrap();
    events(&host, "x.b", "emit", ("a.b", 3)).await.unwrap();
    until(async || one(&host, "x.a").dead == 2).await;
    host.allow("x.b", "x.a").unwrap();
    assert_eq!(host.retry_dead_letters(&Letters::All).await.unwrap().len(), 2);
    until(async || guests.taken() == [2, 1, 3]).await;
}

#[tokio::test]
async fn what_takes_no_calls_makes_no_attempts() {
    let (guests, store) = (Guests::default(), Store::default());
    let host = host(&guests, &store);
    let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
    for hold in ["pause", "quarantine"] {
        match hold {
            "pause" => drop(host.pause("x.a").unwrap()),
            _ => host.quarantine("x.a", "for the test").unwrap(),
        }
        emit(&host, 1).unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
        let status = one(&host, "x.a");
        assert_eq!((status.queued, status.failed, guests.taken().len()), (1, 0, 0), "{hold}");
        host.resume("x.a").await.unwrap();
        until(async || one(&host, "x.a").queued == 0).await;
        assert_eq!(std::mem::take(&mut *guests.taken.lock().unwrap()).len(), 1, "{hold}");
    }
}

#[tokio::test]
async fn one_that_ends_its_instance_is_dead_in_the_end() {
    let (guests, store) = (Guests::default(), Store::default());
    let supervision = quadriga_core::Supervision {
        first_delay: std::time::Duration::from_millis(1),
        restarts: 100,
        ..Default::default()
    };
    let builder = Dispatcher::builder().runtime(guests.runtime()).event_store(store.clone());
    let host = builder.policy(Policy { supervision, ..Policy::default() }).build().unwrap();
    let manifest = keeps("attempts = 3").replace("'take'", "'crash'");
    let _a = load(&host, "x.a", &manifest, Grant::Requested).await;
    guests.crash.store(true, SeqCst);
    emit(&host, 1).unwrap();
    until(async || one(&host, "x.a").dead == 1).await;
    let letter = letters(&host).await.remove(0);
    assert_eq!((letter.attempts, letter.error.unwrap().code), (3, ErrorCode::ExtensionCrashed));
    guests.crash.store(false, SeqCst);
    host.retry_dead_letters(&Letters::All).await.unwrap();
    until(async || store.events.lock().unwrap().is_empty()).await;
}

#[tokio::test]
async fn it_outlasts_reloads_and_hosts_and_what_was_not_kept_is_told() {
    let (guests, store) = (Guests::default(), Store::default());
    let first = host(&guests, &store);
    let dir = load(&first, "x.a", &keeps(""), Grant::Requested).await;
    first.pause("x.a").unwrap();
    for number in 0..3 {
        emit(&first, number).unwrap();
    }
    // Another method gets what is emitted from now on; what waits for the other waits for it.
    write(dir.path(), "x.a", &keeps("").replace("'take'", "'other'"));
    first.reload("x.a").await.unwrap();
    emit(&first, 3).unwrap();
    until(async || one(&first, "x.a").delivered == 1).await;
    write(dir.path(), "x.a", &keeps("attempts = 9"));
    first.reload("x.a").await.unwrap();
    until(async || guests.taken() == [0, 1, 2]).await;
    first.pause("x.a").unwrap();
    emit(&first, 4).unwrap();
    first.unload("x.a").await.unwrap();
    // Nobody is there for it.
    assert_eq!(emit(&first, 5).unwrap(), Emitted::default());
    drop(first);
    store.broken.store(true, SeqCst);
    let second = host(&guests, &store);
    let options = || LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    second.load(dir.path(), options()).await.unwrap();
    // A store that works again is read then.
    assert_eq!(emit(&second, 6).unwrap_err().code, ErrorCode::StoreFailed);
    assert!(second.dead_letters(&Letters::All).await.is_err());
    store.broken.store(false, SeqCst);
    emit(&second, 7).unwrap();
    until(async || guests.taken() == [0, 1, 2, 4, 7]).await;
}

#[tokio::test]
async fn what_is_subscribed_while_it_runs_is_kept_until_it_is_unsubscribed() {
    let (guests, store) = (Guests::default(), Store::default());
    let first = host(&guests, &store);
    let dir = load(&first, "x.a", BOTH, Grant::Requested).await;
    let kept = serde_json::json!({ "delivery": "at-least-once", "attempts": 2, "first-delay": "1ms" });
    let kept = || quadriga_core::abi::Value::from(kept.clone());
    for wrong in [
        serde_json::json!({ "attempts": 2 }),
        serde_json::json!({ "delivery": "at-least-once", "overflow": "drop-oldest" }),
        serde_json::json!({ "delivery": "twice" }),
    ] {
        let wrong = quadriga_core::abi::Value::from(wrong);
        let error = events(&first, "x.a", "subscribe", ("a.b", "take", wrong)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    }
    for _ in 0..2 {
        events(&first, "x.a", "subscribe", ("a.b", "take", kept())).await.unwrap();
    }
    assert_eq!(one(&first, "x.a").delivery, Delivery::AtLeastOnce);
    first.pause("x.a").unwrap();
    emit(&first, 1).unwrap();
    drop(first);
    let second = host(&guests, &store);
    let options = || LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    second.load(dir.path(), options()).await.unwrap();
    events(&second, "x.a", "subscribe", ("a.b", "take", kept())).await.unwrap();
    until(async || guests.taken() == [1]).await;
    let shut = guests.gate.lock().unwrap();
    for number in 2..5 {
        emit(&second, number).unwrap();
    }
    assert!(
        codec::from_bytes::<bool>(&events(&second, "x.a", "unsubscribe", ("a.b", "take")).await.unwrap())
            .unwrap()
    );
    until(async || store.events.lock().unwrap().is_empty()).await;
    drop(shut);
    // It may change its mind.
    events(&second, "x.a", "subscribe", ("a.b", "take", kept())).await.unwrap();
    events(&second, "x.a", "subscribe", ("a.b", "take")).await.unwrap();
    assert_eq!(one(&second, "x.a").delivery, Delivery::AtMostOnce);
}

#[tokio::test]
async fn letters_are_found_by_how_their_ids_begin() {
    let (guests, store) = (Guests::default(), Store::default());
    let host = host(&guests, &store);
    let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
    for number in 0..2 {
        guests.fails(number, 1);
        emit(&host, number).unwrap();
    }
    until(async || one(&host, "x.a").dead == 2).await;
    let ids: Vec<String> = letters(&host).await.into_iter().map(|it| it.id).collect();
    assert!(ids.is_sorted() && ids.iter().all(|id| id.len() == 32));
    for (begin, says) in [("", "there is no"), ("x", "there is no"), ("0", "there is more than one")] {
        let error = host.drop_dead_letters(&Letters::One(begin.to_owned())).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments);
        assert!(error.message.contains(says), "{error}");
    }
    assert_eq!(host.dead_letters(&Letters::Of(ExtensionId::new("x.b").unwrap())).await.unwrap(), []);
    assert_eq!(letters(&host).await.len(), 2);
}
