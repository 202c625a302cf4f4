//! Events as extensions in every language emit and hear them, in the host's process and in workers.

use std::time::Duration;

use quadriga::abi::permission::{AccessKind, Permissions, TopicPattern};
use quadriga::abi::{Emitted, ErrorCode, Isolation, Overflow, Value};
use quadriga::{Dispatcher, Effect, EventQuota, Grant, Letters, LoadOptions, Policy};
use quadriga_tests::{guest, with};
use tempfile::TempDir;

use crate::services::PLACES;

const ASKS: &str =
    "[permissions]\nemit = ['t.*']\nsubscribe = ['t.*']\n[events.'t.declared.*']\nmethod = 'hear'";

type Heard = (String, Option<String>, Value);

fn host() -> Dispatcher {
    // A debug build compiles slowly beside others.
    let load_timeout = Duration::from_secs(60);
    let policy = Policy { minimum_isolation: Isolation::None, load_timeout, ..Policy::default() };
    quadriga::builder().policy(policy).build().unwrap()
}

async fn load(host: &Dispatcher, language: &str, isolation: Isolation) -> (String, TempDir) {
    let package = with(&guest("services", language), ASKS);
    let options =
        LoadOptions { grant: Grant::Requested, isolation: Some(isolation), ..LoadOptions::default() };
    let id = host.load(package.path(), options).await.unwrap().to_string();
    assert_eq!(host.status(&id).unwrap().isolation, isolation);
    (id, package)
}

async fn heard(host: &Dispatcher, id: &str) -> Vec<Heard> {
    host.invoke(id, "heard", &()).await.unwrap()
}

/// Waits until an extension has heard so many events.
async fn hears(host: &Dispatcher, id: &str, count: usize) -> Vec<Heard> {
    let waiting = async {
        loop {
            let heard = heard(host, id).await;
            if heard.len() >= count {
                return heard;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap_or_else(|_| {
        let (status, subscriptions) = (host.status(id).unwrap(), host.subscriptions(id).unwrap());
        panic!("{id} heard too little: {subscriptions:?}, {:?}", status.last_error)
    })
}

fn subscribing() -> Permissions {
    Permissions { subscribe: vec![TopicPattern("t.*".to_owned())], ..Permissions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_language_emits_and_hears_as_long_as_it_may() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let host = host();
        let (id, _package) = load(&host, language, *isolation).await;
        let mut ours = host.subscribe("t.*").unwrap();
        // What the manifest says, and what the extension asks for while it runs.
        assert_eq!(host.emit("t.declared.a", &[1]).unwrap(), Emitted { queued: 2, dropped: 0 });
        assert_eq!(&*ours.next().await.unwrap().data, [1]);
        assert_eq!(hears(&host, &id, 1).await, [("t.declared.a".to_owned(), None, Value::Int(1))]);
        host.invoke::<()>(&id, "listen", &("t.made",)).await.unwrap();
        let data = Value::Map(vec![
            (Value::Text("list".to_owned()), Value::List(vec![Value::Nil, Value::Float(0.5)])),
            (Value::Text("bytes".to_owned()), Value::Bytes(vec![0, 255])),
        ]);
        let emitted: Emitted = host.invoke(&id, "tell", &("t.made", &data)).await.unwrap();
        assert_eq!(emitted, Emitted { queued: 2, dropped: 0 });
        let event = ours.next().await.unwrap();
        assert_eq!((&*event.topic, event.source.unwrap().as_str()), ("t.made", id.as_str()));
        assert_eq!(Value::from_bytes(&event.data).unwrap(), data);
        let last = hears(&host, &id, 2).await.pop().unwrap();
        assert_eq!(last, ("t.made".to_owned(), Some(id.clone()), data));
        let all = host.subscriptions(&id).unwrap();
        let all: Vec<_> = all.iter().map(|it| (&*it.topic, it.declared, it.overflow)).collect();
        let (newest, oldest) = (Overflow::DropNewest, Overflow::DropOldest);
        assert_eq!(all, [("t.declared.*", true, newest), ("t.made", false, oldest)]);
        // Beyond what it was granted, and what it was granted no longer.
        for (method, arguments) in
            [("tell", serde_json::json!(["u", null])), ("listen", serde_json::json!(["*"]))]
        {
            let error = host.invoke::<Value>(&id, method, &arguments).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        }
        assert_eq!(host.revoke(&id, &subscribing()).unwrap(), Effect::Now);
        host.emit("t.made", &[2]).unwrap();
        assert_eq!(host.grant(&id, &subscribing()).unwrap(), Effect::Now);
        host.emit("t.made", &[3]).unwrap();
        let last = hears(&host, &id, 3).await;
        // The one in between was denied, or waited until it was allowed again.
        assert!(matches!(last[2].2, Value::Int(2 | 3)), "{last:?}");
        // The next generation hears on.
        host.reload(&id).await.unwrap();
        host.emit("t.made", &[4]).unwrap();
        assert_eq!(hears(&host, &id, 1).await.pop().unwrap().2, Value::Int(4));
        assert!(host.invoke::<bool>(&id, "unlisten", &("t.made",)).await.unwrap());
        assert!(!host.invoke::<bool>(&id, "unlisten", &("t.made",)).await.unwrap());
        assert!(host.accesses(&id).unwrap()[&AccessKind::Emit].denied == 1);
        assert_eq!(host.emit("t.made", &[5]).unwrap(), Emitted { queued: 1, dropped: 0 });
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_language_gets_events_until_it_has_taken_them() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let load_timeout = Duration::from_secs(60);
        let events = EventQuota { in_memory: true, ..EventQuota::default() };
        let minimum_isolation = Isolation::None;
        let policy = Policy { minimum_isolation, load_timeout, events, ..Policy::default() };
        let host = quadriga::builder().policy(policy).build().unwrap();
        let (id, _package) = load(&host, language, *isolation).await;
        host.invoke::<()>(&id, "listen_kept", &("t.kept",)).await.unwrap();
        for failures in [0_u32, 3] {
            let emitted: Emitted = host.invoke(&id, "tell", &("t.kept", failures)).await.unwrap();
            assert_eq!(emitted, Emitted { queued: 1, dropped: 0 });
            let heard = hears(&host, &id, if failures == 0 { 1 } else { 2 }).await.pop().unwrap();
            assert_eq!((heard.0.len(), heard.2), (32, Value::Int(i64::from(failures) + 1)));
        }
        // One that it never takes is a dead letter, and says why.
        host.invoke::<Emitted>(&id, "tell", &("t.kept", 99)).await.unwrap();
        let waiting = async {
            while host.status(&id).unwrap().dead_letters == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
        let [letter] = host.dead_letters(&Letters::All).await.unwrap().try_into().unwrap();
        assert_eq!((letter.attempts, letter.source.as_ref().map(|it| it.as_str())), (4, Some(id.as_str())));
        assert_eq!(letter.data, serde_json::json!(99));
        assert!(letter.error.unwrap().message.contains("no 4"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_languages_hear_each_other() {
    for workers in [false, true] {
        let host = host();
        let mut loaded = Vec::new();
        for (language, isolation) in PLACES.iter().filter(|it| (it.1 == Isolation::Process) == workers) {
            loaded.push(load(&host, language, *isolation).await);
        }
        assert_eq!(loaded.len(), 4);
        for (id, _package) in &loaded {
            let emitted: Emitted = host.invoke(id, "tell", &("t.declared.a", id)).await.unwrap();
            assert_eq!(emitted, Emitted { queued: 4, dropped: 0 });
        }
        for (id, _package) in &loaded {
            let heard = hears(&host, id, 4).await;
            for ((from, _package), (topic, source, data)) in loaded.iter().zip(heard) {
                let says = (topic.as_str(), source.as_deref(), data);
                assert_eq!(says, ("t.declared.a", Some(from.as_str()), Value::Text(from.clone())), "{id}");
            }
        }
        let pairs = host.communication();
        assert_eq!((pairs.len(), pairs.iter().map(|pair| pair.events).sum::<u64>()), (16, 16));
    }
}
