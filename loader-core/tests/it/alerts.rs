//! What is counted and sampled of an extension, and what explicit rules make of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use quadriga_core::abi::permission::{Access, AccessKind};
use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{
    Action, Alert, AlertRule, Counter, DecisionFilter, Dispatcher, Grant, LogLevel, MockRuntime, Monitor,
    Outcome, Policy, Reason, State, Subject, Trigger,
};

use crate::common::{NONE, call, host, load, until};

const MINUTE: Duration = Duration::from_secs(60);

/// Guests that misbehave in one way each.
fn runtime(memory: &Arc<AtomicU64>) -> MockRuntime {
    MockRuntime::new()
        .memory(Arc::clone(memory))
        .echo("echo")
        .method("denied", |bridge, call| {
            for _ in 0..20 {
                let _ = bridge.check(&call.context(), &Access::Env("HOME"));
            }
            Outcome::Ready(Ok(NONE))
        })
        .method("spawn", |bridge, call| {
            bridge.report(Counter::Spawns, 2);
            let _ = bridge.check(&call.context(), &Access::Subprocess("sh"));
            Outcome::Ready(Ok(NONE))
        })
        .method("send", |bridge, _| {
            bridge.report(Counter::Egress, 5000);
            bridge.report(Counter::Ingress, 7);
            Outcome::Ready(Ok(NONE))
        })
        .method("log", |bridge, call| {
            bridge.log(&call.context(), LogLevel::Info, "a line");
            Outcome::Ready(Ok(NONE))
        })
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "no").into())
}

fn rule(name: &str, trigger: Trigger, action: Action) -> AlertRule {
    AlertRule { name: name.to_owned(), trigger, action }
}

fn watched(rules: Vec<AlertRule>, memory: &Arc<AtomicU64>) -> Dispatcher {
    let monitor = Monitor { interval: Some(Duration::from_millis(2)), history: 500, rules };
    host(runtime(memory), Policy { monitor, ..Policy::default() })
}

async fn next(alerts: &mut tokio::sync::broadcast::Receiver<Alert>) -> Alert {
    let alert = tokio::time::timeout(Duration::from_secs(10), alerts.recv()).await;
    alert.expect("no alert came").expect("missed one")
}

#[tokio::test]
async fn activity_is_counted_and_sampled() {
    let memory = Arc::new(AtomicU64::new(1000));
    let host = watched(Vec::new(), &memory);
    let _x = load(&host, "a.x", "", Grant::Nothing).await;
    for method in ["denied", "spawn", "send", "log", "fail"] {
        let _ = call(&host, "a.x", method).await;
    }
    let now = host.usage("a.x").unwrap();
    assert_eq!((now.memory, now.instances, now.in_flight, now.calls, now.errors), (Some(1000), 1, 0, 5, 1));
    assert_eq!((now.denied, now.spawns, now.egress, now.ingress), (21, 3, 5000, 7));
    until(|| async { host.activity("a.x").unwrap().series.last().is_some_and(|last| last.calls == 5) }).await;
    let activity = host.activity("a.x").unwrap();
    assert_eq!((activity.log_lines, activity.accesses[&AccessKind::Env].denied), (1, 20));
    assert_eq!(activity.recent.len(), 21);
    assert!(activity.series[0].calls == 0 && activity.series.len() > 1);
    assert!(activity.series.is_sorted_by_key(|sample| sample.uptime));
    assert!(activity.alerts.is_empty());
}

#[tokio::test]
async fn series_are_bounded_and_off_by_default() {
    let memory = Arc::default();
    let monitor = Monitor { interval: Some(Duration::from_millis(1)), history: 5, rules: Vec::new() };
    let watched = host(runtime(&memory), Policy { monitor, ..Policy::default() });
    let _x = load(&watched, "a.x", "", Grant::Nothing).await;
    // Until the sample that each generation begins with has been pushed out, and a while longer.
    for _ in 0..10 {
        let series = || watched.activity("a.x").unwrap().series;
        let last = series().last().map(|last| last.uptime);
        until(|| async { series().last().map(|last| last.uptime) > last }).await;
        until(|| async { series()[0].uptime > Duration::ZERO }).await;
        assert_eq!(series().len(), 5);
    }
    let silent = host(runtime(&memory), Policy::default());
    let _y = load(&silent, "a.y", "", Grant::Nothing).await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(silent.activity("a.y").unwrap().series.is_empty());
}

#[tokio::test]
async fn each_rule_raises_its_alert_once() {
    let errors = Trigger::ErrorRate { share: 0.5, factor: 2.0, calls: 5, within: MINUTE };
    let cases = [
        (Trigger::DenialBurst { count: 20, within: MINUTE }, "denied", 1, "20 accesses were denied"),
        (Trigger::SpawnAttempts { count: 6, within: MINUTE }, "spawn", 2, "6 times"),
        (Trigger::EgressSpike { bytes: 9000, factor: 2.0, within: MINUTE }, "send", 2, "10000 bytes"),
        (errors, "fail", 5, "100 % of 5 calls"),
    ];
    for (trigger, method, times, words) in cases {
        let host = watched(vec![rule("odd", trigger, Action::None)], &Arc::default());
        let mut alerts = host.alerts();
        let _x = load(&host, "a.x", "", Grant::Nothing).await;
        let _calm = load(&host, "a.calm", "", Grant::Nothing).await;
        call(&host, "a.calm", "echo").await.unwrap();
        for _ in 0..times {
            let _ = call(&host, "a.x", method).await;
        }
        let alert = next(&mut alerts).await;
        assert!(alert.evidence.contains(words), "{}", alert.evidence);
        assert_eq!((alert.extension.as_str(), alert.rule.as_str()), ("a.x", "odd"));
        assert!(!alert.samples.is_empty());
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(alerts.try_recv().is_err(), "{method}: once within its span");
        assert_eq!(host.activity("a.x").unwrap().alerts, [alert]);
        assert!(host.activity("a.calm").unwrap().alerts.is_empty());
        assert_eq!(host.status("a.x").unwrap().state, State::Running);
    }
}

#[tokio::test]
async fn a_sawtooth_of_memory_is_seen() {
    let memory = Arc::new(AtomicU64::new(1 << 20));
    let trigger = Trigger::MemorySawtooth { falls: 3, share: 0.5, within: MINUTE };
    let host = watched(vec![rule("teeth", trigger, Action::Pause)], &memory);
    let mut alerts = host.alerts();
    let _x = load(&host, "a.x", "", Grant::Nothing).await;
    let sampled = |bytes| {
        memory.store(bytes, Ordering::Relaxed);
        let host = &host;
        until(move || async move {
            host.activity("a.x").unwrap().series.last().is_some_and(|last| last.memory == Some(bytes))
        })
    };
    sampled(1 << 20).await;
    for _ in 0..3 {
        sampled(100 << 20).await;
        sampled(1 << 20).await;
    }
    assert!(next(&mut alerts).await.evidence.contains("memory rose and fell 3 times"));
    assert_eq!(call(&host, "a.x", "echo").await.unwrap_err().code, ErrorCode::ExtensionPaused);
}

#[tokio::test]
async fn actions_are_enforced_and_can_be_taken_back() {
    let cases = [
        (Action::Throttle { calls_per_second: 1 }, State::Throttled, ErrorCode::Overloaded),
        (Action::Pause, State::Paused, ErrorCode::ExtensionPaused),
        (Action::Quarantine, State::Quarantined, ErrorCode::ExtensionQuarantined),
    ];
    for (action, state, code) in cases {
        let trigger = Trigger::SpawnAttempts { count: 1, within: MINUTE };
        let host = watched(vec![rule("no programs", trigger, action)], &Arc::default());
        let mut alerts = host.alerts();
        let _x = load(&host, "a.x", "", Grant::Nothing).await;
        call(&host, "a.x", "spawn").await.unwrap();
        assert_eq!(next(&mut alerts).await.action, action);
        let status = host.status("a.x").unwrap();
        assert_eq!(status.state, state);
        assert!(status.reason.unwrap().starts_with("no programs: it tried 3 times"));
        let mut refused = None;
        for _ in 0..5 {
            refused = refused.or(call(&host, "a.x", "echo").await.err());
        }
        assert_eq!(refused.unwrap().code, code);
        let managed = DecisionFilter { subject: Some(Subject::Management), ..DecisionFilter::default() };
        assert_eq!(host.decisions("a.x", &managed).unwrap()[0].reason, Reason::Alert);
        host.resume("a.x").await.unwrap();
        for _ in 0..5 {
            call(&host, "a.x", "echo").await.unwrap();
        }
        assert_eq!(host.status("a.x").unwrap().state, State::Running);
    }
}
