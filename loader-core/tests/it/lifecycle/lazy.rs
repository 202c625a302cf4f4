//! What is loaded only when it is first called.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};

use quadriga_core::abi::Bytes;
use quadriga_core::abi::permission::Permissions;
use quadriga_core::{CallOptions, Effect, Feed, Supervision};
use serde_json::json;
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::*;
use crate::common::{NONE, ask, asking, calls, package, until};

/// Counts the loads, and lets none succeed as long as it is told so.
#[derive(Clone, Default)]
struct Loads {
    begun: Arc<AtomicU32>,
    broken: Arc<AtomicBool>,
}

impl Loads {
    fn of(&self, runtime: MockRuntime) -> MockRuntime {
        let Self { begun, broken } = self.clone();
        runtime.on_load(move |_| {
            begun.fetch_add(1, SeqCst);
            match broken.load(SeqCst) {
                true => Err(Error::new(ErrorCode::LoadFailed, "it is broken")),
                false => Ok(()),
            }
        })
    }

    fn begun(&self) -> u32 {
        self.begun.load(SeqCst)
    }
}

async fn lay_down(host: &Dispatcher, id: &str, more: &str, grant: Grant) -> Result<TempDir, Error> {
    let dir = package(id, more);
    host.load(dir.path(), LoadOptions { grant, lazy: true, ..LoadOptions::default() }).await?;
    Ok(dir)
}

async fn asleep(runtime: MockRuntime) -> (Dispatcher, Loads, TempDir) {
    let loads = Loads::default();
    let host = host(loads.of(runtime), Policy::default());
    let dir = lay_down(&host, "a.b", "", Grant::Nothing).await.unwrap();
    (host, loads, dir)
}

#[tokio::test]
async fn it_is_loaded_for_its_first_call() {
    let (host, loads, _dir) = asleep(MockRuntime::new().echo("echo")).await;
    let status = host.status("a.b").unwrap();
    assert_eq!(
        (status.state, status.reason, status.methods.len(), loads.begun()),
        (State::Asleep, None, 0, 0)
    );
    let health = host.health("a.b").await.unwrap();
    assert_eq!((health.liveness, health.ready, health.reason), (Liveness::Asleep, true, None));
    assert_eq!(call(&host, "a.b", "echo").await.unwrap(), NONE);
    assert_eq!(call(&host, "a.b", "echo").await.unwrap(), NONE);
    let status = host.status("a.b").unwrap();
    assert_eq!((status.state, status.methods.len(), loads.begun()), (State::Running, 1, 1));
    assert_eq!((status.restarts, status.metrics.calls), (0, 2));
    assert_eq!(host.health("a.b").await.unwrap().liveness, Liveness::Alive);
    assert_eq!(call(&host, "a.b", "ech").await.unwrap_err().code, ErrorCode::UnknownMethod);
}

#[tokio::test]
async fn what_is_wrong_with_its_manifest_shows_at_once() {
    let loads = Loads::default();
    let host = host(loads.of(MockRuntime::new()), Policy::default());
    for (more, code) in [
        ("[broken", ErrorCode::InvalidManifest),
        ("[dependencies]\n'a.c' = '1'", ErrorCode::MissingDependency),
        (
            "[config.defaults]\nsize = 1\n[config.schema.properties.size]\ntype = 'string'",
            ErrorCode::InvalidConfig,
        ),
        ("[host]\nmin = '99.0.0'", ErrorCode::IncompatibleVersion),
    ] {
        let error = lay_down(&host, "a.b", more, Grant::Nothing).await.unwrap_err();
        assert_eq!(error.code, code, "{more}: {error}");
    }
    assert_eq!((host.list().len(), loads.begun()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_calls_at_the_same_time_waits_for_one_load() {
    for _ in 0..20 {
        let (host, loads, _dir) = asleep(MockRuntime::new().echo("echo")).await;
        let mut calls = JoinSet::new();
        for _ in 0..32 {
            let host = host.clone();
            calls.spawn(async move { call(&host, "a.b", "echo").await });
        }
        let replies = calls.join_all().await;
        assert!(replies.iter().all(|reply| reply.as_ref().unwrap() == &NONE));
        assert_eq!((loads.begun(), host.status("a.b").unwrap().metrics.calls), (1, 32));
    }
}

#[tokio::test]
async fn extensions_that_call_it_wait_too() {
    let loads = Loads::default();
    let host = host(loads.of(asking()), Policy::default());
    let all = || Grant::Only(Box::new(calls(&["a.b/*"])));
    let more = "[permissions]\ncall = ['a.b/*']";
    let dirs = [
        lay_down(&host, "a.b", "", Grant::Nothing).await.unwrap(),
        lay_down(&host, "x.first", more, all()).await.unwrap(),
    ];
    ask(&host, "x.first", "a.b").await.unwrap();
    ask(&host, "x.first", "a.b").await.unwrap();
    assert_eq!(loads.begun(), dirs.len() as u32);
    let link = &host.communication()[0];
    assert_eq!((link.callee.as_str(), link.calls), ("a.b", 2), "{link:?}");
    // Who may not call it does not have it loaded.
    let (host, loads, _dir) = asleep(asking()).await;
    let _caller = lay_down(&host, "x.first", more, Grant::Nothing).await.unwrap();
    assert_eq!(ask(&host, "x.first", "a.b").await.unwrap_err().code, ErrorCode::PermissionDenied);
    assert_eq!((loads.begun(), state(&host)), (1, State::Asleep));
}

#[tokio::test]
async fn streams_go_to_it_and_come_from_it() {
    let emitting = |_: &_, call: quadriga_core::Call| {
        let output = call.streams.unwrap().output.unwrap();
        let sent = (0_u8..3).try_for_each(|item| output.emit(&Bytes::from(vec![item])));
        Outcome::Ready(sent.map(|()| Bytes::from_static(&[0xc0])))
    };
    let runtime = || {
        MockRuntime::new()
            .method("count", emitting)
            .echo("echo")
            .describe(|description| description.methods[0].streams = true)
    };
    for (method, expected) in [("count", vec![vec![0], vec![1], vec![2]]), ("echo", vec![vec![0x90]])] {
        let (host, loads, _dir) = asleep(runtime()).await;
        let mut items = host.stream("a.b", method, NONE, CallOptions::default());
        let mut got = Vec::new();
        while let Some(item) = items.next().await {
            got.push(item.unwrap().to_vec());
        }
        assert_eq!((got, loads.begun()), (expected, 1), "{method}");
    }
    let (host, _loads, _dir) = asleep(runtime()).await;
    let (feed, input) = Feed::new();
    drop(feed);
    let options = CallOptions::default().input(input);
    assert_eq!(host.call("a.b", "echo", NONE, options).await.unwrap(), NONE);
}

#[tokio::test]
async fn one_that_does_not_load_is_tried_again_after_a_while() {
    let loads = Loads::default();
    loads.broken.store(true, SeqCst);
    let host = host(loads.of(MockRuntime::new().echo("echo")), Policy::default());
    let supervision = Supervision { first_delay: Duration::from_millis(200), ..Supervision::default() };
    let dir = package("a.b", "");
    let options = LoadOptions { lazy: true, supervision: Some(supervision), ..LoadOptions::default() };
    host.load(dir.path(), options).await.unwrap();
    for _ in 0..10 {
        let error = call(&host, "a.b", "echo").await.unwrap_err();
        assert_eq!((error.code, error.extension.as_deref()), (ErrorCode::LoadFailed, Some("a.b")));
    }
    // A slow machine may have tried once more.
    assert!(loads.begun() < 10, "{}", loads.begun());
    let failure = host.failures("a.b").unwrap().remove(0);
    assert!(failure.fatal && failure.error.message.contains("it is broken"), "{failure:?}");
    assert_eq!(state(&host), State::Asleep);
    loads.broken.store(false, SeqCst);
    until(async || call(&host, "a.b", "echo").await.is_ok()).await;
    assert_eq!(state(&host), State::Running);
}

#[tokio::test]
async fn operators_reach_it_while_it_sleeps() {
    // What is done, and how often it was loaded for that.
    type Deed = fn(&Dispatcher) -> quadriga_core::BoxFuture<'_, ()>;
    let deeds: [(&str, Deed, u32); 6] = [
        ("reload", |host| Box::pin(async { host.reload("a.b").await.unwrap() }), 1),
        ("configure", |host| Box::pin(async { host.configure("a.b", Default::default()).await.unwrap() }), 2),
        ("throttle", |host| Box::pin(async { host.throttle("a.b", 50).unwrap() }), 0),
        (
            "pause",
            |host| {
                Box::pin(async {
                    host.pause("a.b").unwrap();
                    assert_eq!(call(host, "a.b", "echo").await.unwrap_err().code, ErrorCode::ExtensionPaused);
                    assert_eq!(state(host), State::Paused);
                    host.resume("a.b").await.unwrap();
                    assert_eq!(state(host), State::Asleep);
                })
            },
            0,
        ),
        (
            "stop",
            |host| {
                Box::pin(async {
                    host.stop("a.b").await.unwrap();
                    assert_eq!(
                        call(host, "a.b", "echo").await.unwrap_err().code,
                        ErrorCode::ExtensionStopped
                    );
                    host.start("a.b").await.unwrap();
                })
            },
            1,
        ),
        (
            "revoke",
            |host| {
                Box::pin(async {
                    let kv = Permissions { kv: true, ..Permissions::default() };
                    assert_eq!(host.grant("a.b", &kv).unwrap(), Effect::Now);
                    assert_eq!(host.revoke("a.b", &kv).unwrap(), Effect::Now);
                })
            },
            0,
        ),
    ];
    for (what, deed, expected) in deeds {
        let loads = Loads::default();
        let host = host(loads.of(MockRuntime::new().echo("echo").mediates(&["kv"])), Policy::default());
        let _dir = lay_down(&host, "a.b", "[permissions]\nkv = true", Grant::Nothing).await.unwrap();
        deed(&host).await;
        assert_eq!(loads.begun(), expected, "{what}");
        call(&host, "a.b", "echo").await.unwrap();
        assert_eq!(loads.begun(), expected.max(1), "{what}");
        if what == "throttle" {
            assert_eq!(state(&host), State::Throttled);
        }
        host.unload("a.b").await.unwrap();
        assert_eq!(call(&host, "a.b", "echo").await.unwrap_err().code, ErrorCode::UnknownExtension);
    }
    let (host, loads, _dir) = asleep(MockRuntime::new()).await;
    host.unload("a.b").await.unwrap();
    assert_eq!((host.list().len(), loads.begun()), (0, 0));
}

#[tokio::test]
async fn what_has_to_be_there_is_loaded_at_once() {
    let loads = Loads::default();
    let host = host(loads.of(MockRuntime::new().echo("echo")), Policy::default());
    for (n, more) in [
        "[permissions]\nsubscribe = ['news']\n[events.news]\nmethod = 'echo'",
        "[hooks.'plan.made']\nmethod = 'echo'\nmode = 'observe'",
        "[health]\ninterval = '1h'",
    ]
    .into_iter()
    .enumerate()
    {
        let id = format!("a.b{n}");
        let _dir = lay_down(&host, &id, more, Grant::Nothing).await.unwrap();
        assert_eq!(
            (host.status(&id).unwrap().state, loads.begun()),
            (State::Running, n as u32 + 1),
            "{more}"
        );
    }
}

#[tokio::test]
async fn a_caller_that_stops_waiting_ends_no_load() {
    let (begun, go) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (is_begun, may) = (Arc::clone(&begun), Arc::clone(&go));
    let runtime = MockRuntime::new().echo("echo").on_load(move |_| {
        is_begun.store(true, SeqCst);
        while !may.load(SeqCst) {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    });
    let host = host(runtime, Policy::default());
    let _dir = lay_down(&host, "a.b", "", Grant::Nothing).await.unwrap();
    let options = CallOptions::default().timeout(Duration::from_millis(20));
    let error = host.call("a.b", "echo", NONE, options).await.unwrap_err();
    assert_eq!((error.code, state(&host)), (ErrorCode::DeadlineExceeded, State::Asleep));
    until(async || begun.load(SeqCst)).await;
    go.store(true, SeqCst);
    until(async || state(&host) == State::Running).await;
}

#[tokio::test]
async fn a_dependency_that_sleeps_is_there_but_has_to_fit_when_it_wakes() {
    let describe = |input: serde_json::Value| {
        move |description: &mut quadriga_core::abi::Description| {
            description.methods[0].input = Some(input.clone());
        }
    };
    let texts = json!({ "type": "array", "prefixItems": [{ "type": "string" }], "items": false });
    let runtime = MockRuntime::new().echo("echo").describe(describe(texts));
    for (wanted, fits) in [("string", true), ("integer", false)] {
        let host = host(runtime.clone(), Policy::default());
        let _dir = lay_down(&host, "a.b", "", Grant::Nothing).await.unwrap();
        let needs = format!(
            "[dependencies.'a.b']\nversion = '1'\n[dependencies.'a.b'.methods.echo]\ninput = {{ type = 'array', prefixItems = [{{ type = '{wanted}' }}], minItems = 1, items = false }}"
        );
        let _needing = load(&host, "x.needs", &needs, Grant::Nothing).await;
        let woken = call(&host, "a.b", "echo").await;
        let expected = if fits { Ok(NONE) } else { Err(ErrorCode::IncompatibleVersion) };
        assert_eq!(woken.map_err(|error| error.code), expected);
    }
}
