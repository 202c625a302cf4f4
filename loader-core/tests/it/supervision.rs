//! What becomes of an extension whose instance ends.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use quadriga_core::abi::permission::Access;
use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{
    CallOptions, DecisionFilter, Dispatcher, Grant, LoadOptions, MockRuntime, Outcome, Policy, Reason,
    Recovery, State, Supervision,
};
use tempfile::TempDir;

use crate::common::{self, NONE, call, forever, host, package, until, write};

fn runtime() -> MockRuntime {
    MockRuntime::new()
        .echo("echo")
        .crash("crash")
        .method("wait", |_, _| forever())
        .method("mark", |_, call| Outcome::Ready(Ok(call.envelope.payload)))
}

/// Small enough for a test, and never stable unless the test says so.
fn quick() -> Supervision {
    Supervision {
        recovery: Recovery::Restart,
        restarts: 3,
        first_delay: Duration::from_millis(2),
        longest_delay: Duration::from_millis(8),
        stable: Duration::from_secs(600),
    }
}

async fn start(runtime: MockRuntime, supervision: Supervision) -> (Dispatcher, TempDir) {
    let host = host(runtime, Policy { supervision, ..Policy::default() });
    let dir = package("a.x", "");
    host.load(dir.path(), LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }).await.unwrap();
    (host, dir)
}

fn state(host: &Dispatcher) -> State {
    host.status("a.x").unwrap().state
}

async fn reaches(host: &Dispatcher, wanted: State) {
    until(|| async { state(host) == wanted }).await;
}

async fn crash(host: &Dispatcher) {
    assert_eq!(call(host, "a.x", "crash").await.unwrap_err().code, ErrorCode::ExtensionCrashed);
}

/// Crashes it and waits until it runs again.
async fn crash_and_return(host: &Dispatcher) {
    let restarts = host.status("a.x").unwrap().restarts;
    crash(host).await;
    until(|| async { host.status("a.x").unwrap().restarts == restarts + 1 }).await;
    call(host, "a.x", "echo").await.unwrap();
}

#[tokio::test]
async fn a_crash_ends_its_calls_and_the_extension_comes_back() {
    let (host, _dir) = start(runtime(), quick()).await;
    let waiting = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.x", "wait").await }
    });
    until(|| async { host.status("a.x").unwrap().metrics.in_flight == 1 }).await;
    let before = host.status("a.x").unwrap();
    assert_eq!((before.state, before.restarts, before.last_error), (State::Running, 0, None));
    crash_and_return(&host).await;
    assert_eq!(waiting.await.unwrap().unwrap_err().code, ErrorCode::ExtensionCrashed);
    let after = host.status("a.x").unwrap();
    assert_eq!((after.state, after.restarts, after.reason), (State::Running, 1, None));
    assert!(after.generation > before.generation && after.since > before.since);
    let failures = host.failures("a.x").unwrap();
    assert!(failures.iter().any(|failure| failure.fatal), "{failures:?}");
    assert!(failures.iter().all(|failure| failure.error.code == ErrorCode::ExtensionCrashed));
    assert!(failures.iter().all(|failure| failure.error.extension.as_deref() == Some("a.x")));
    host.unload("a.x").await.unwrap();
}

#[tokio::test]
async fn calls_meanwhile_are_refused_at_once() {
    let slow = Supervision {
        first_delay: Duration::from_secs(600),
        longest_delay: Duration::from_secs(600),
        ..quick()
    };
    let (host, _dir) = start(runtime(), slow).await;
    crash(&host).await;
    reaches(&host, State::Failed).await;
    let error = call(&host, "a.x", "echo").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionStopped);
    assert_eq!(error.message, "a.x ended: the mock was told to crash");
    assert_eq!(error.cause.as_ref().unwrap().code, ErrorCode::ExtensionCrashed);
    // An operator does not wait.
    host.resume("a.x").await.unwrap();
    call(&host, "a.x", "echo").await.unwrap();
    let status = host.status("a.x").unwrap();
    assert_eq!((status.state, status.restarts), (State::Running, 0));
}

#[tokio::test]
async fn too_many_crashes_in_a_row_lead_to_quarantine() {
    let (host, _dir) = start(runtime(), quick()).await;
    for _ in 0..3 {
        crash_and_return(&host).await;
    }
    crash(&host).await;
    reaches(&host, State::Quarantined).await;
    let status = host.status("a.x").unwrap();
    let reason =
        "it ended 4 times without a stable spell in between; the last time: the mock was told to crash";
    assert_eq!((status.restarts, status.reason.as_deref()), (3, Some(reason)));
    let error = call(&host, "a.x", "echo").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionQuarantined);
    assert_eq!(error.message, format!("a.x is in quarantine: {reason}"));
    let fatal = host.failures("a.x").unwrap().into_iter().filter(|failure| failure.fatal).count();
    assert_eq!(fatal, 4);
    let noted = host.decisions("a.x", &DecisionFilter { latest: Some(1), ..Default::default() }).unwrap();
    assert_eq!(
        (noted[0].reason, &*noted[0].what),
        (Reason::Crash, &*format!("be put in quarantine: {reason}"))
    );
    // Resumed, it has its whole budget again.
    host.resume("a.x").await.unwrap();
    for _ in 0..3 {
        crash_and_return(&host).await;
    }
    crash(&host).await;
    reaches(&host, State::Quarantined).await;
    host.reload("a.x").await.unwrap();
    call(&host, "a.x", "echo").await.unwrap();
    assert_eq!(state(&host), State::Running);
}

#[tokio::test]
async fn a_stable_spell_resets_the_budget() {
    let (host, _dir) = start(runtime(), Supervision { stable: Duration::ZERO, restarts: 1, ..quick() }).await;
    for _ in 0..5 {
        crash_and_return(&host).await;
    }
}

#[tokio::test]
async fn a_start_that_fails_counts_too() {
    let loads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&loads);
    let runtime = runtime().on_load(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Ok(()),
        _ => Err(Error::new(ErrorCode::LoadFailed, "broken")),
    });
    let (host, _dir) = start(runtime, quick()).await;
    crash(&host).await;
    reaches(&host, State::Quarantined).await;
    // The first load, and three tries.
    assert_eq!(loads.load(Ordering::SeqCst), 4);
    let codes: Vec<_> =
        host.failures("a.x").unwrap().into_iter().filter(|f| f.fatal).map(|f| f.error.code).collect();
    assert_eq!(codes[1..], [ErrorCode::LoadFailed; 3]);
    assert_eq!(host.resume("a.x").await.unwrap_err().code, ErrorCode::LoadFailed);
    assert_eq!(state(&host), State::Quarantined);
}

#[tokio::test]
async fn each_recovery_does_what_it_says() {
    let cases = [
        (Recovery::Restart, State::Running, "1.2.3"),
        (Recovery::Reload, State::Running, "7.0.0"),
        (Recovery::Disable, State::Disabled, "1.2.3"),
        (Recovery::Quarantine, State::Quarantined, "1.2.3"),
    ];
    for (recovery, expected, version) in cases {
        let (host, dir) = start(runtime(), Supervision::default()).await;
        host.unload("a.x").await.unwrap();
        // What is said of one load holds before the policy.
        let supervision = Some(Supervision { recovery, ..quick() });
        host.load(dir.path(), LoadOptions { supervision, ..LoadOptions::default() }).await.unwrap();
        let path = dir.path().join("quadriga.toml");
        fs::write(&path, fs::read_to_string(&path).unwrap().replace("1.2.3", "7.0.0")).unwrap();
        let generation = host.status("a.x").unwrap().generation;
        crash(&host).await;
        let settled = |status: &quadriga_core::Status| match expected {
            State::Running => status.state == expected && status.generation > generation,
            _ => status.state == expected,
        };
        until(|| async { settled(&host.status("a.x").unwrap()) }).await;
        assert_eq!(host.status("a.x").unwrap().version.to_string(), version, "{recovery:?}");
        if expected == State::Disabled {
            let error = call(&host, "a.x", "echo").await.unwrap_err();
            assert!(
                error.code == ErrorCode::ExtensionStopped && error.message.contains("disabled"),
                "{error}"
            );
        }
        // Refused as long as the start of before is not quite over.
        until(|| async { host.reload("a.x").await.is_ok() }).await;
        assert_eq!(host.status("a.x").unwrap().version.to_string(), "7.0.0");
        call(&host, "a.x", "echo").await.unwrap();
    }
}

#[tokio::test]
async fn operators_pause_throttle_and_quarantine() {
    let runtime = runtime().mediates(&["env"]).method("env", |bridge, call| {
        Outcome::Ready(bridge.check(&call.context(), &Access::Env("LANG")).map(|()| NONE))
    });
    let host = host(runtime, Policy::default());
    let _x = common::load(&host, "a.x", "[permissions]\nenv = ['LANG']", Grant::Requested).await;
    let code = || async { call(&host, "a.x", "env").await.err().map(|error| error.code) };
    assert_eq!(code().await, None);
    host.pause("a.x").unwrap();
    assert_eq!((code().await, state(&host)), (Some(ErrorCode::ExtensionPaused), State::Paused));
    assert_eq!(host.throttle("a.x", 1).unwrap_err().code, ErrorCode::ExtensionPaused);
    host.resume("a.x").await.unwrap();
    assert_eq!((code().await, state(&host)), (None, State::Running));
    host.throttle("a.x", 3).unwrap();
    let mut codes = Vec::new();
    for _ in 0..10 {
        codes.push(code().await);
    }
    // Three at once, and another after each third of a second.
    assert_eq!(codes[..3], [None; 3]);
    assert!(codes.contains(&Some(ErrorCode::Overloaded)), "{codes:?}");
    until(|| async { code().await.is_none() }).await;
    host.quarantine("a.x", "it looks odd").unwrap();
    let error = call(&host, "a.x", "env").await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::ExtensionQuarantined, "a.x is in quarantine: it looks odd")
    );
    assert_eq!(host.check("a.x", &Access::Env("LANG")).unwrap().reason, Reason::Quarantined);
    assert!(host.permissions("a.x").unwrap().env.is_empty());
    assert_eq!(host.pause("a.x").unwrap_err().code, ErrorCode::ExtensionQuarantined);
    host.resume("a.x").await.unwrap();
    assert_eq!((code().await, state(&host)), (None, State::Running));
    let what: Vec<String> = host
        .decisions(
            "a.x",
            &DecisionFilter { subject: Some(quadriga_core::Subject::Management), ..Default::default() },
        )
        .unwrap()
        .into_iter()
        .map(|decision| decision.what)
        .collect();
    let expected = [
        "be paused: its host paused it",
        "resume",
        "be throttled to 3 calls per second: its host throttled it",
        "be put in quarantine: it looks odd",
        "resume",
    ];
    assert_eq!(what, expected);
}

#[tokio::test]
async fn quarantine_stops_what_is_in_flight_from_doing_more() {
    let (told, hear) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (go, here) = (Arc::clone(&told), Arc::clone(&hear));
    let runtime = MockRuntime::new().echo("echo").method("later", move |bridge, call| {
        let (bridge, context, go, here) =
            (bridge.clone(), call.context(), Arc::clone(&go), Arc::clone(&here));
        Outcome::Pending(Box::pin(async move {
            here.notify_one();
            go.notified().await;
            bridge.call(&context, "a.y", "echo", NONE).result().await
        }))
    });
    let host = host(runtime, Policy::default());
    let _x = common::load(&host, "a.x", "[permissions]\ncall = ['*']", Grant::Requested).await;
    let _y = common::load(&host, "a.y", "", Grant::Requested).await;
    let running = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.x", "later").await }
    });
    hear.notified().await;
    host.quarantine("a.x", "it looks odd").unwrap();
    told.notify_one();
    let error = running.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(error.hint.as_deref(), Some("the extension is in quarantine"));
    // A new generation is not in quarantine.
    host.reload("a.x").await.unwrap();
    assert!(!host.permissions("a.x").unwrap().call.is_empty());
}

#[tokio::test]
async fn who_is_held_stays_held_when_its_instance_ends() {
    // The call is let in, then the extension is paused, then the call ends the instance.
    let (told, hear) = (Arc::new(std::sync::Barrier::new(2)), Arc::new(std::sync::Barrier::new(2)));
    let (go, here) = (Arc::clone(&told), Arc::clone(&hear));
    let runtime = runtime().crash_if("late", move || {
        here.wait();
        go.wait();
        true
    });
    let (host, _dir) = start(runtime, quick()).await;
    let crashing = tokio::spawn({
        let host = host.clone();
        async move { host.call("a.x", "late", NONE, CallOptions::default().detached()).await }
    });
    tokio::task::spawn_blocking(move || hear.wait()).await.unwrap();
    host.pause("a.x").unwrap();
    tokio::task::spawn_blocking(move || told.wait()).await.unwrap();
    assert_eq!(crashing.await.unwrap().unwrap_err().code, ErrorCode::ExtensionCrashed);
    until(|| async { host.failures("a.x").unwrap().iter().any(|failure| failure.fatal) }).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(state(&host), State::Paused);
    // Resuming starts it again.
    host.resume("a.x").await.unwrap();
    call(&host, "a.x", "echo").await.unwrap();
}

#[tokio::test]
async fn a_crash_lifts_no_throttle() {
    let (host, _dir) = start(runtime(), quick()).await;
    host.throttle("a.x", 1).unwrap();
    crash(&host).await;
    until(|| async { host.status("a.x").unwrap().restarts == 1 }).await;
    let status = host.status("a.x").unwrap();
    assert_eq!((status.state, status.reason.as_deref()), (State::Throttled, Some("its host throttled it")));
    let codes =
        [call(&host, "a.x", "echo").await, call(&host, "a.x", "echo").await].map(|r| r.err().map(|e| e.code));
    assert!(codes.contains(&Some(ErrorCode::Overloaded)), "{codes:?}");
    // What is held by others cannot be held less.
    host.pause("a.x").unwrap();
    assert_eq!(host.throttle("a.x", 9).unwrap_err().code, ErrorCode::ExtensionPaused);
    host.resume("a.x").await.unwrap();
    assert_eq!(state(&host), State::Running);
}

#[tokio::test]
async fn idempotent_methods_are_called_again() {
    // Crashes in the first call of each method, and answers from then on.
    let tries = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&tries);
    let runtime = runtime().method("relay", |bridge, call| bridge.call(&call.context(), "a.x", "safe", NONE));
    let runtime = runtime.method("detached", |bridge, call| {
        Outcome::Pending(bridge.call_detached(&call.context(), "a.x", "safe", NONE))
    });
    let runtime = runtime.crash_if("safe", move || count.fetch_add(1, Ordering::SeqCst).is_multiple_of(2));
    let runtime = runtime.crash_if("unsafe", || true);
    let host = host(
        runtime,
        Policy { supervision: Supervision { stable: Duration::ZERO, ..quick() }, ..Policy::default() },
    );
    let promise = "[contract.methods.safe]\nidempotent = true\n[contract.methods.unsafe]\nidempotent = false";
    let _x = common::load(&host, "a.x", promise, Grant::Requested).await;
    let _y = common::load(&host, "a.y", "[permissions]\ncall = ['*']", Grant::Requested).await;
    let ways =
        [("a.x", "safe", false), ("a.x", "safe", true), ("a.y", "relay", false), ("a.y", "detached", false)];
    for (round, (extension, method, detached)) in ways.into_iter().enumerate() {
        let options = CallOptions::default();
        let options = if detached { options.detached() } else { options };
        host.call(extension, method, NONE, options).await.unwrap();
        assert_eq!(tries.load(Ordering::SeqCst) as usize, 2 * (round + 1), "{extension} {method}");
    }
    let error = call(&host, "a.x", "unsafe").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionCrashed);
    until(|| async { state(&host) == State::Running && call(&host, "a.x", "echo").await.is_ok() }).await;
    let pair = &host.communication()[0];
    assert_eq!((pair.calls, pair.errors), (4, 2));
}

#[tokio::test]
async fn a_second_try_is_bounded() {
    let runtime = runtime().crash_if("safe", || true);
    let promise = "[contract.methods.safe]\nidempotent = true";
    // Who fails again is told, who never comes back as well, and nobody waits beyond a deadline.
    let slow = Supervision {
        first_delay: Duration::from_secs(600),
        longest_delay: Duration::from_secs(600),
        ..quick()
    };
    let disabled = Supervision { recovery: Recovery::Disable, ..quick() };
    for (supervision, restarts) in [(quick(), 1), (disabled, 0), (slow, 0)] {
        let host = host(runtime.clone(), Policy { supervision, ..Policy::default() });
        let _x = common::load(&host, "a.x", promise, Grant::Requested).await;
        let options = CallOptions::default().timeout(Duration::from_millis(300));
        let error = host.call("a.x", "safe", NONE, options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionCrashed);
        assert!(host.status("a.x").unwrap().restarts >= restarts);
    }
}

#[tokio::test]
async fn promises_name_methods_that_are_there() {
    let host = host(runtime(), Policy::default());
    let dir = package("a.x", "[contract.methods.eco]\nidempotent = true");
    let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidManifest);
    assert!(error.message.contains("[contract.methods.eco]"), "{error}");
    write(dir.path(), "a.x", "[contract.methods.echo]\nidempotent = true");
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
}

#[tokio::test]
async fn an_unload_ends_the_supervision() {
    let loads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&loads);
    let runtime = runtime().on_load(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        Ok(())
    });
    let (host, _dir) = start(runtime, quick()).await;
    crash(&host).await;
    while host.unload("a.x").await.is_err() {
        // It may just be starting again.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let before = loads.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(loads.load(Ordering::SeqCst), before);
    assert_eq!(call(&host, "a.x", "echo").await.unwrap_err().code, ErrorCode::UnknownExtension);
}
