//! Permissions that change while an extension runs, what is recorded of them, and rules for pairs.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use quadriga_core::abi::permission::{Access, AccessKind, FsMode, Permissions};
use quadriga_core::abi::{Bytes, ErrorCode};
use quadriga_core::{
    CallOptions, DecisionFilter, Effect, Grant, LoadOptions, MockRuntime, Outcome, Policy, Reason, Subject,
    Verdict,
};

use crate::common::{self, NONE, ask, asking, call, calls, host, load, package, write};

const ASKS: &str = "[permissions]\ncall = ['a.target/*', 'a.other/echo']\nenv = ['LANG']\nkv = true\n\
                    fs = [{ path = 'data', mode = 'ro' }]";

fn mediating() -> MockRuntime {
    asking().mediates(&["env", "kv", "fs"])
}

fn env(names: &[&str]) -> Permissions {
    Permissions { env: names.iter().map(|name| (*name).to_owned()).collect(), ..Permissions::default() }
}

#[tokio::test]
async fn what_is_granted_and_revoked_holds_for_the_next_call() {
    let host = host(mediating(), Policy::default());
    let _target = load(&host, "a.target", "", Grant::Nothing).await;
    let _x = load(&host, "a.x", ASKS, Grant::Nothing).await;
    let denied = |result: Result<(), quadriga_core::abi::Error>| {
        assert_eq!(result.unwrap_err().code, ErrorCode::PermissionDenied);
    };
    denied(ask(&host, "a.x", "a.target").await);
    assert_eq!(host.grant("a.x", &calls(&["a.target/echo"])).unwrap(), Effect::Now);
    ask(&host, "a.x", "a.target").await.unwrap();
    denied(ask(&host, "a.x", "a.other").await);
    assert_eq!(host.revoke("a.x", &calls(&["a.target/*"])).unwrap(), Effect::Now);
    denied(ask(&host, "a.x", "a.target").await);
    assert_eq!(host.grant("a.x", &calls(&["a.target/*"])).unwrap(), Effect::Now);
    ask(&host, "a.x", "a.target").await.unwrap();
    assert_eq!(*host.permissions("a.x").unwrap(), calls(&["a.target/*"]));
    // To revoke what it does not hold is no error.
    assert_eq!(host.revoke("a.x", &env(&["HOME"])).unwrap(), Effect::Now);
    ask(&host, "a.x", "a.target").await.unwrap();
}

#[tokio::test]
async fn refused_changes_say_why_and_change_nothing() {
    let most = Permissions { kv: true, ..calls(&["*"]) };
    let host = host(mediating(), Policy { permissions: Some(most), ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let before = host.permissions("a.x").unwrap();
    assert_eq!(*before, Permissions { kv: true, ..calls(&["a.target/*", "a.other/echo"]) });
    let cases = [
        (true, calls(&["a.target/echo", "a.else/m", "*"]), "call \"a.else/m\", call \"*\"", "its manifest"),
        (true, env(&["HOME"]), "env \"HOME\"", "its manifest"),
        (true, env(&["LANG"]), "env \"LANG\"", "the host's policy"),
        (false, calls(&["a.target/echo"]), "call \"a.target/*\"", "more than is to be revoked"),
    ];
    for (grants, change, names, why) in cases {
        let error = match grants {
            true => host.grant("a.x", &change).unwrap_err(),
            false => host.revoke("a.x", &change).unwrap_err(),
        };
        assert!(error.message.contains(names) && error.message.contains(why), "{error}");
        assert_eq!(host.permissions("a.x").unwrap(), before);
    }
    assert_eq!(host.grant("a.none", &env(&[])).unwrap_err().code, ErrorCode::UnknownExtension);
}

#[tokio::test]
async fn a_revocation_reaches_calls_in_flight() {
    // The guest calls, waits until it is told, and calls again.
    let (told, waits) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let (hear, say) = (Arc::clone(&told), Arc::clone(&waits));
    let runtime = MockRuntime::new().echo("echo").method("twice", move |bridge, call| {
        let (bridge, context) = (bridge.clone(), call.context());
        let (told, waits) = (Arc::clone(&hear), Arc::clone(&say));
        Outcome::Pending(Box::pin(async move {
            bridge.call(&context, "a.target", "echo", NONE).result().await?;
            waits.store(true, Ordering::SeqCst);
            while !told.load(Ordering::SeqCst) {
                tokio::task::yield_now().await;
            }
            bridge.call(&context, "a.target", "echo", NONE).result().await
        }))
    });
    let host = host(runtime, Policy::default());
    let _target = load(&host, "a.target", "", Grant::Nothing).await;
    let _x = load(&host, "a.x", "[permissions]\ncall = ['a.target/echo']", Grant::Requested).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.x", "twice").await }
    });
    while !waits.load(Ordering::SeqCst) {
        tokio::task::yield_now().await;
    }
    assert_eq!(host.revoke("a.x", &calls(&["a.target/echo"])).unwrap(), Effect::Now);
    told.store(true, Ordering::SeqCst);
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(error.message, "a.x may not call a.target/echo");
}

#[tokio::test]
async fn checks_tell_why() {
    let most = Permissions { kv: true, env: vec!["LANG".into()], ..calls(&["*"]) };
    let host = host(mediating(), Policy { permissions: Some(most), ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Only(Box::new(calls(&["*"])))).await;
    assert_eq!(host.grant("a.x", &env(&["LANG"])).unwrap(), Effect::Now);
    assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::Now);
    host.block("a.x", "a.other").unwrap();
    let to = |extension| Access::Call { extension, method: "echo" };
    let cases = [
        (to("a.target"), Reason::Granted),
        (to("a.other"), Reason::Rule),
        (to("a.else"), Reason::Manifest),
        (Access::Kv, Reason::Grant),
        (Access::Fs { path: "data/x", mode: FsMode::ReadOnly }, Reason::Policy),
        (Access::Fs { path: "data/x", mode: FsMode::ReadWrite }, Reason::Manifest),
        (Access::Net { host: "h", port: 1 }, Reason::Manifest),
    ];
    for (access, reason) in cases {
        let decision = host.check("a.x", &access).unwrap();
        let verdict = if reason == Reason::Granted { Verdict::Allowed } else { Verdict::Denied };
        assert_eq!((decision.verdict, decision.reason), (verdict, reason), "{access}");
    }
    let decision = host.check("a.x", &Access::Env("LANG")).unwrap();
    assert!(matches!(decision.reason, Reason::Revoked { at } if at <= SystemTime::now()), "{decision:?}");
    // To ask is not to try.
    let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
    assert!(host.decisions("a.x", &filter).unwrap().is_empty());
}

#[tokio::test]
async fn runtimes_ask_and_are_told() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let runtime = mediating()
        .method("read", |bridge, call| {
            let (path,): (String,) = rmp_serde::from_slice(&call.envelope.payload).unwrap();
            let access = Access::Fs { path: &path, mode: FsMode::ReadOnly };
            Outcome::Ready(bridge.check(&call.context(), &access).map(|()| NONE))
        })
        .on_permissions(move |permissions| {
            hear.lock().unwrap().push(permissions.clone());
            true
        });
    let host = host(runtime, Policy::default());
    let dir = load(&host, "a.x", ASKS, Grant::Nothing).await;
    let root = dir.path().canonicalize().unwrap().display().to_string();
    let read = |path: String| {
        let arguments = Bytes::from(rmp_serde::to_vec(&(path,)).unwrap());
        let host = host.clone();
        async move { host.call("a.x", "read", arguments, CallOptions::default()).await.map(drop) }
    };
    let error = read("data/a".into()).await.unwrap_err();
    assert_eq!(error.message, "a.x may not read data/a");
    let hint = "ask for it in the manifest, [permissions] fs = [{ path = \"data/a\", mode = \"ro\" }], \
                and have the host grant it";
    assert_eq!(error.hint.as_deref(), Some(hint));
    let asked = host.permissions("a.x").unwrap();
    assert_eq!(*asked, Permissions::default());
    let folder = Permissions { fs: manifest_fs(), ..Permissions::default() };
    assert_eq!(host.grant("a.x", &folder).unwrap(), Effect::Now);
    for (path, allowed) in [
        ("data/a".to_owned(), true),
        (format!("{root}/data/a"), true),
        (format!("{root}/data/../secret"), false),
        (format!("{root}secret/data/a"), false),
        ("data/../../etc/passwd".to_owned(), false),
        ("/data/a".to_owned(), false),
    ] {
        assert_eq!(read(path.clone()).await.is_ok(), allowed, "{path}");
    }
    assert_eq!(host.grant("a.x", &folder).unwrap(), Effect::Now);
    assert_eq!(host.revoke("a.x", &folder).unwrap(), Effect::Now);
    assert!(read("data/a".into()).await.is_err());
    // Told of each change once, and not of what changed nothing.
    assert_eq!(*heard.lock().unwrap(), [folder, Permissions::default()]);
}

fn manifest_fs() -> Vec<quadriga_core::abi::permission::FsPermission> {
    vec![quadriga_core::abi::permission::FsPermission { path: "data".into(), mode: FsMode::ReadOnly }]
}

#[tokio::test]
async fn a_change_during_a_load_is_not_lost() {
    // The new generation is loaded with what was granted then, and told what was revoked meanwhile.
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hear = Arc::clone(&heard);
    let slot: Arc<Mutex<Option<quadriga_core::Dispatcher>>> = Arc::default();
    let during = Arc::clone(&slot);
    let runtime = mediating()
        .on_load(move |unit| {
            if let Some(host) = during.lock().unwrap().as_ref() {
                assert_eq!(unit.permissions.env, ["LANG"]);
                assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::Now);
            }
            Ok(())
        })
        .on_permissions(move |permissions| {
            hear.lock().unwrap().push(permissions.env.clone());
            true
        });
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    *slot.lock().unwrap() = Some(host.clone());
    host.reload("a.x").await.unwrap();
    *slot.lock().unwrap() = None;
    assert!(host.permissions("a.x").unwrap().env.is_empty());
    // Both generations.
    assert_eq!(*heard.lock().unwrap(), [Vec::<String>::new(), Vec::new()]);
}

#[tokio::test]
async fn grants_outlast_a_reload_and_do_not_grow_with_it() {
    let host = host(mediating(), Policy::default());
    let dir = package("a.x", ASKS);
    host.load(dir.path(), LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }).await.unwrap();
    assert_eq!(host.revoke("a.x", &calls(&["a.target/*"])).unwrap(), Effect::Now);
    write(dir.path(), "a.x", "[permissions]\ncall = ['a.target/*', 'a.other/*']\nenv = ['LANG', 'HOME']");
    host.reload("a.x").await.unwrap();
    let now = host.permissions("a.x").unwrap();
    assert_eq!(*now, Permissions { env: vec!["LANG".into()], ..calls(&["a.other/echo"]) });
    assert_eq!(host.grant("a.x", &env(&["HOME"])).unwrap(), Effect::Now);
    assert_eq!(host.permissions("a.x").unwrap().env, ["LANG", "HOME"]);
}

#[tokio::test]
async fn a_flood_of_denials_hides_no_other() {
    let runtime = mediating().method("flood", |bridge, call| {
        let context = call.context();
        for _ in 0..200 {
            let _ = bridge.check(&context, &Access::Env("HOME"));
            bridge.check(&context, &Access::Env("LANG")).unwrap();
        }
        let _ = bridge.check(&context, &Access::Subprocess("sh"));
        for _ in 0..200 {
            let _ = bridge.check(&context, &Access::Env("HOME"));
        }
        Outcome::Ready(Ok(NONE))
    });
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    call(&host, "a.x", "flood").await.unwrap();
    assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::Now);
    let count = |filter: DecisionFilter| host.decisions("a.x", &filter).unwrap().len();
    let of = |kind, verdict| DecisionFilter {
        subject: Some(Subject::Access(kind)),
        verdict: Some(verdict),
        ..DecisionFilter::default()
    };
    let cases = [
        (of(AccessKind::Env, Verdict::Denied), 64),
        // 16, and of 200 the 65th, 129th and 193rd.
        (of(AccessKind::Env, Verdict::Allowed), 19),
        (of(AccessKind::Subprocess, Verdict::Denied), 1),
        (of(AccessKind::Net, Verdict::Denied), 0),
        (DecisionFilter { subject: Some(Subject::Management), ..DecisionFilter::default() }, 1),
        (DecisionFilter { latest: Some(5), ..DecisionFilter::default() }, 5),
        (
            DecisionFilter {
                since: SystemTime::now().checked_add(Duration::from_secs(9)),
                ..Default::default()
            },
            0,
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(count(filter), expected, "{filter:?}");
    }
    let tally = |allowed, denied| quadriga_core::Tally { allowed, denied };
    let accesses = host.accesses("a.x").unwrap();
    assert_eq!(accesses[&AccessKind::Env], tally(200, 400));
    assert_eq!(accesses[&AccessKind::Subprocess], tally(0, 1));
    let shell = host.decisions("a.x", &of(AccessKind::Subprocess, Verdict::Denied)).unwrap().remove(0);
    assert_eq!((shell.what.as_str(), shell.reason), ("start sh", Reason::Manifest));
    assert!(shell.call > 0 && shell.extension.as_str() == "a.x");
    let last = host.decisions("a.x", &DecisionFilter { latest: Some(1), ..Default::default() }).unwrap();
    assert_eq!((last[0].what.as_str(), last[0].reason), ("have env \"LANG\" revoked", Reason::Operator));
}

#[tokio::test]
async fn rules_block_pairs_and_calls_are_counted_by_pair() {
    let host = host(asking(), Policy::default());
    let asks = "[permissions]\ncall = ['*']";
    let _a = load(&host, "a.a", asks, Grant::Requested).await;
    let _b = load(&host, "a.b", asks, Grant::Requested).await;
    let _c = load(&host, "a.c", asks, Grant::Requested).await;
    // A rule, and which of a-b, a-c and b-c are free after it.
    let cases = [
        (None, [true, true, true]),
        (Some((true, "a.a", "a.b")), [false, true, true]),
        (Some((true, "*", "a.c")), [false, false, false]),
        (Some((false, "a.b", "a.c")), [false, false, true]),
        (Some((false, "a.a", "*")), [true, true, true]),
        (Some((true, "*", "*")), [false, false, false]),
        (Some((false, "*", "*")), [true, true, true]),
    ];
    for (rule, free) in cases {
        match rule {
            Some((true, caller, callee)) => host.block(caller, callee).unwrap(),
            Some((false, caller, callee)) => host.allow(caller, callee).unwrap(),
            None => {}
        }
        for ((caller, callee), free) in [("a.a", "a.b"), ("a.a", "a.c"), ("a.b", "a.c")].into_iter().zip(free)
        {
            let result = ask(&host, caller, callee).await;
            assert_eq!(result.is_ok(), free, "{rule:?}: {caller} {callee}");
            if let Err(error) = result {
                assert_eq!(error.code, ErrorCode::PermissionDenied);
                assert_eq!(error.hint.as_deref(), Some("a rule of the host blocks calls between the two"));
            }
        }
    }
    assert_eq!(host.rules().len(), 5);
    assert_eq!(host.block("a", "*").unwrap_err().code, ErrorCode::InvalidArguments);
    // Unknown extensions and methods leave no pair behind, or an error.
    assert_eq!(ask(&host, "a.a", "a.none").await.unwrap_err().code, ErrorCode::UnknownExtension);
    let pairs: Vec<_> = host
        .communication()
        .into_iter()
        .map(|pair| {
            assert!(pair.last.is_some_and(|at| at <= SystemTime::now()) && !pair.blocked);
            (
                pair.caller.to_string(),
                pair.callee.to_string(),
                pair.calls,
                pair.errors,
                pair.sent,
                pair.received,
            )
        })
        .collect();
    let pair = |caller: &str, callee: &str, calls| (caller.into(), callee.into(), calls, 0, calls, calls);
    assert_eq!(pairs, [pair("a.a", "a.b", 3), pair("a.a", "a.c", 4), pair("a.b", "a.c", 5)]);
    host.block("a.a", "a.b").unwrap();
    assert!(host.communication()[0].blocked);
    let noted = host.decisions("a.b", &DecisionFilter { latest: Some(1), ..Default::default() }).unwrap();
    assert_eq!(noted[0].what, "block a.a -> a.b");
}

#[tokio::test]
async fn a_block_lets_calls_in_flight_go_on() {
    let told = Arc::new(tokio::sync::Notify::new());
    let hear = Arc::clone(&told);
    let runtime = asking().method("hold", |bridge, call| bridge.call(&call.context(), "a.b", "wait", NONE));
    let runtime = runtime.method("wait", move |_, _| {
        let told = Arc::clone(&hear);
        Outcome::Pending(Box::pin(async move {
            told.notified().await;
            Ok(NONE)
        }))
    });
    let host = host(runtime, Policy::default());
    let _a = load(&host, "a.a", "[permissions]\ncall = ['*']", Grant::Requested).await;
    let _b = load(&host, "a.b", "", Grant::Requested).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.a", "hold").await }
    });
    common::until(|| async { host.status("a.b").unwrap().metrics.in_flight == 1 }).await;
    host.block("a.a", "a.b").unwrap();
    assert_eq!(ask(&host, "a.a", "a.b").await.unwrap_err().code, ErrorCode::PermissionDenied);
    told.notify_one();
    running.await.unwrap().unwrap();
    let pair = &host.communication()[0];
    assert_eq!((pair.calls, pair.errors), (1, 0));
}

#[tokio::test]
async fn what_a_runtime_cannot_take_back_is_said() {
    let runtime = mediating().on_permissions(|_| false);
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    // Calls are checked by the dispatcher, whatever the runtime says.
    assert_eq!(host.revoke("a.x", &calls(&["a.target/*"])).unwrap(), Effect::Now);
    assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::AfterReload);
    assert!(host.permissions("a.x").unwrap().env.is_empty());
    assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::Now);
    host.reload("a.x").await.unwrap();
    assert!(host.permissions("a.x").unwrap().env.is_empty());
    // What the runtime would not mediate cannot be granted later either.
    let asks = "[permissions]\nsubprocess = ['sh']";
    let _y = load(&host, "a.y", asks, Grant::Nothing).await;
    let shell = Permissions { subprocess: vec!["sh".into()], ..Permissions::default() };
    let error = host.grant("a.y", &shell).unwrap_err();
    assert!(error.code == ErrorCode::Unsupported && error.message.contains("subprocess"), "{error}");
}

#[tokio::test]
async fn a_load_that_cannot_follow_a_revocation_fails() {
    let during: Arc<Mutex<Option<quadriga_core::Dispatcher>>> = Arc::default();
    let loading = Arc::clone(&during);
    let runtime = mediating().on_permissions(|_| false).on_load(move |_| {
        if let Some(host) = loading.lock().unwrap().take() {
            assert_eq!(host.revoke("a.x", &env(&["LANG"])).unwrap(), Effect::AfterReload);
        }
        Ok(())
    });
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    *during.lock().unwrap() = Some(host.clone());
    let error = host.reload("a.x").await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::PermissionDenied, "env \"LANG\" was revoked while a.x was being loaded")
    );
    host.reload("a.x").await.unwrap();
    assert!(host.permissions("a.x").unwrap().env.is_empty());
}

/// Threads call all the time; what begins after the host has been answered must be denied.
#[test]
fn no_call_slips_through_after_a_change() {
    let host = host(asking(), Policy::default());
    let (_a, _b) = quadriga_core::block_on(async {
        let a = load(&host, "a.a", "[permissions]\ncall = ['a.b/*']", Grant::Requested).await;
        (a, load(&host, "a.b", "", Grant::Nothing).await)
    });
    // Odd while nothing may pass.
    let (phase, stop) = (AtomicU32::new(0), AtomicBool::new(false));
    let (phase, stop, host) = (&phase, &stop, &host);
    std::thread::scope(|threads| {
        for _ in 0..4 {
            threads.spawn(move || {
                while !stop.load(Ordering::SeqCst) {
                    let before = phase.load(Ordering::SeqCst);
                    let passed = quadriga_core::block_on(ask(host, "a.a", "a.b")).is_ok();
                    let is_shut = !before.is_multiple_of(2) && before == phase.load(Ordering::SeqCst);
                    assert!(!(is_shut && passed), "a call slipped through");
                }
            });
        }
        for round in 0..50 {
            std::thread::sleep(Duration::from_micros(200));
            match round % 3 {
                0 => drop(host.revoke("a.a", &calls(&["a.b/*"])).unwrap()),
                1 => host.block("a.a", "*").unwrap(),
                _ => host.quarantine("a.b", "a test").unwrap(),
            }
            phase.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_micros(200));
            phase.fetch_add(1, Ordering::SeqCst);
            match round % 3 {
                0 => drop(host.grant("a.a", &calls(&["a.b/*"])).unwrap()),
                1 => host.allow("a.a", "*").unwrap(),
                _ => quadriga_core::block_on(host.resume("a.b")).unwrap(),
            }
        }
        stop.store(true, Ordering::SeqCst);
    });
    assert!(host.communication()[0].calls > 0);
}
