//! How operators stop, start and pause what is loaded, and see how it does.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod jobs;
mod lazy;

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{
    Decision, DecisionFilter, Dispatcher, Grant, Liveness, LoadOptions, MockRuntime, Outcome, Pause, Policy,
    State, Subject,
};

use crate::common::{call, host, load, write};

fn state(host: &Dispatcher) -> State {
    host.status("a.b").unwrap().state
}

fn managed(host: &Dispatcher) -> Vec<String> {
    let filter = DecisionFilter { subject: Some(Subject::Management), ..DecisionFilter::default() };
    let what = |decision: Decision| decision.what;
    host.decisions("a.b", &filter).unwrap().into_iter().map(what).collect()
}

#[tokio::test]
async fn what_was_stopped_is_started_as_it_was_loaded() {
    let loads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&loads);
    let mock = MockRuntime::new().echo("echo").on_load(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    });
    let host = host(mock, Policy::default());
    let dir = load(&host, "a.b", "", Grant::Nothing).await;
    host.start("a.b").await.unwrap();
    host.stop("a.b").await.unwrap();
    host.stop("a.b").await.unwrap();
    let status = host.status("a.b").unwrap();
    assert_eq!((status.state, status.usage.instances, status.uptime), (State::Stopped, 0, Duration::ZERO));
    assert_eq!(host.health("a.b").await.unwrap().liveness, Liveness::Ended);
    let error = call(&host, "a.b", "echo").await.unwrap_err();
    assert_eq!((error.code, &error.cause), (ErrorCode::ExtensionStopped, &None));
    assert_eq!(host.pause("a.b").unwrap_err().code, ErrorCode::ExtensionStopped);
    // The manifest is not read again.
    write(dir.path(), "a.b", "[broken");
    host.start("a.b").await.unwrap();
    call(&host, "a.b", "echo").await.unwrap();
    assert_eq!((state(&host), loads.load(Ordering::Relaxed)), (State::Running, 2));
    assert_eq!(host.status("a.b").unwrap().restarts, 0);
    let said = managed(&host);
    assert!(said.iter().any(|what| what == "be stopped: its host stopped it"), "{said:?}");
    // What is stopped can be resumed, reloaded and unloaded as well.
    host.stop("a.b").await.unwrap();
    host.resume("a.b").await.unwrap();
    call(&host, "a.b", "echo").await.unwrap();
    host.stop("a.b").await.unwrap();
    write(dir.path(), "a.b", "");
    host.reload("a.b").await.unwrap();
    call(&host, "a.b", "echo").await.unwrap();
    host.stop("a.b").await.unwrap();
    host.unload("a.b").await.unwrap();
    assert!(host.list().is_empty());
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
    call(&host, "a.b", "echo").await.unwrap();
}

#[tokio::test]
async fn one_in_quarantine_stays_there_when_it_is_stopped() {
    let host = host(MockRuntime::new().echo("echo"), Policy::default());
    let _dir = load(&host, "a.b", "", Grant::Nothing).await;
    host.quarantine("a.b", "bad manners").unwrap();
    host.stop("a.b").await.unwrap();
    assert_eq!(state(&host), State::Quarantined);
    assert_eq!(host.start("a.b").await.unwrap_err().code, ErrorCode::ExtensionQuarantined);
    host.resume("a.b").await.unwrap();
    call(&host, "a.b", "echo").await.unwrap();
}

#[tokio::test]
async fn a_stop_lets_calls_finish() {
    let mock = MockRuntime::new().method("slow", |_, call| {
        Outcome::Pending(Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(call.envelope.payload)
        }))
    });
    let host = host(mock, Policy::default());
    let _dir = load(&host, "a.b", "", Grant::Nothing).await;
    let calls = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.b", "slow").await }
    });
    while host.status("a.b").unwrap().metrics.in_flight == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    host.stop("a.b").await.unwrap();
    calls.await.unwrap().unwrap();
    assert_eq!(state(&host), State::Stopped);
}

#[tokio::test]
async fn a_pause_is_as_deep_as_the_runtime_can() {
    let calls: Arc<Mutex<Vec<bool>>> = Arc::default();
    let seen = Arc::clone(&calls);
    let deep = MockRuntime::new().echo("echo").method("snapshot", {
        let seen = Arc::clone(&calls);
        move |_, call| {
            // It was let go on for that.
            assert_eq!(seen.lock().unwrap().last(), Some(&false));
            Outcome::Ready(Ok(call.envelope.payload))
        }
    });
    let deep = deep.echo("restore").on_pause(move |pause| {
        seen.lock().unwrap().push(pause);
        Ok(Pause::Parked)
    });
    for (mock, reached) in [(MockRuntime::new().echo("echo"), Pause::Gate), (deep, Pause::Parked)] {
        let host = host(mock, Policy::default());
        let dir = load(&host, "a.b", "", Grant::Nothing).await;
        assert_eq!(host.pause("a.b").unwrap(), reached);
        assert_eq!(host.status("a.b").unwrap().pause, Some(reached));
        assert_eq!(call(&host, "a.b", "echo").await.unwrap_err().code, ErrorCode::ExtensionPaused);
        let alive = if reached == Pause::Gate { Liveness::Alive } else { Liveness::Paused };
        assert_eq!(host.health("a.b").await.unwrap().liveness, alive);
        host.resume("a.b").await.unwrap();
        call(&host, "a.b", "echo").await.unwrap();
        let status = host.status("a.b").unwrap();
        assert_eq!((status.state, status.pause), (State::Running, None));
        // A reload asks the old one for its state; one that fails leaves it as it was.
        host.pause("a.b").unwrap();
        write(dir.path(), "a.b", "[limits]\nopen-files = 1");
        host.reload("a.b").await.unwrap_err();
        assert_eq!((state(&host), host.status("a.b").unwrap().pause), (State::Paused, Some(reached)));
        write(dir.path(), "a.b", "");
        host.reload("a.b").await.unwrap();
        assert_eq!((state(&host), host.status("a.b").unwrap().pause), (State::Running, None));
        host.pause("a.b").unwrap();
        host.unload("a.b").await.unwrap();
    }
    let calls = calls.lock().unwrap();
    assert_eq!(*calls, [true, false, true, false, true, false]);
}

#[tokio::test]
async fn the_history_of_errors_has_time_and_method() {
    let mock = MockRuntime::new()
        .echo("echo")
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "no hay").into());
    let host = host(mock, Policy::default());
    let _dir = load(&host, "a.b", "", Grant::Nothing).await;
    let before = std::time::SystemTime::now();
    call(&host, "a.b", "fail").await.unwrap_err();
    call(&host, "a.b", "echo").await.unwrap();
    let failures = host.failures("a.b").unwrap();
    assert_eq!(failures.len(), 1);
    assert_eq!((failures[0].method.as_deref(), failures[0].fatal), (Some("fail"), false));
    assert!(failures[0].at >= before);
    let health = host.health("a.b").await.unwrap();
    assert_eq!((health.liveness, health.calls, health.errors), (Liveness::Alive, 2, 1));
    assert_eq!(health.last_error.unwrap().method.as_deref(), Some("fail"));
    assert!(health.uptime > Duration::ZERO && health.answered.is_some());
}

/// Whoever pauses and resumes at the same time: what the instance was told last is what its state
/// says.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn pauses_and_their_ends_do_not_cross() {
    let still = Arc::new(AtomicU32::new(0));
    let told = Arc::clone(&still);
    let mock = MockRuntime::new().echo("echo").on_pause(move |pause| {
        told.store(u32::from(pause), Ordering::SeqCst);
        Ok(Pause::Frozen)
    });
    let host = host(mock, Policy::default());
    let _dir = load(&host, "a.b", "", Grant::Nothing).await;
    for _ in 0..50 {
        let both = (0..4).map(|n| {
            let host = host.clone();
            tokio::spawn(async move {
                match n % 2 {
                    0 => drop(host.pause("a.b").unwrap()),
                    _ => host.resume("a.b").await.unwrap(),
                }
            })
        });
        for one in both.collect::<Vec<_>>() {
            one.await.unwrap();
        }
        let status = host.status("a.b").unwrap();
        let paused = status.state == State::Paused;
        assert_eq!(u32::from(paused), still.load(Ordering::SeqCst));
        assert_eq!(status.pause.is_some(), paused);
        host.resume("a.b").await.unwrap();
    }
}
