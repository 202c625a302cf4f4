//! Whether extensions are alive and ready, and what becomes of those that are not well.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use quadriga_core::abi::{Bytes, Error, ErrorCode};
use quadriga_core::{
    Dispatcher, Liveness, LoadOptions, MockRuntime, Outcome, Policy, Recovery, State, Supervision,
};
use tempfile::TempDir;

use crate::common::{call, forever, host, package, until};

const CHECKED: &str = "[health]\nmethod = 'health'\ninterval = '100ms'\ndeadline = '200ms'\nfailures = 2";

/// A guest that does well as long as it is told so, and counts its checks.
struct Patient {
    well: Arc<AtomicBool>,
    checks: Arc<AtomicU32>,
}

impl Patient {
    fn new() -> Self {
        Self { well: Arc::new(AtomicBool::new(true)), checks: Arc::default() }
    }

    /// What it does instead of answering when it is not well.
    fn runtime(&self, ill: fn() -> Outcome) -> MockRuntime {
        let (well, checks) = (Arc::clone(&self.well), Arc::clone(&self.checks));
        MockRuntime::new().echo("echo").method("health", move |_, _| {
            checks.fetch_add(1, Ordering::SeqCst);
            if well.load(Ordering::SeqCst) { Outcome::Ready(Ok(Bytes::from_static(b"\xc0"))) } else { ill() }
        })
    }
}

fn no() -> Outcome {
    Error::new(ErrorCode::ExtensionError, "the disk is full").into()
}

async fn start(runtime: MockRuntime, manifest: &str, recovery: Recovery) -> (Dispatcher, TempDir) {
    let delay = Duration::from_millis(2);
    let supervision =
        Supervision { recovery, first_delay: delay, longest_delay: delay, ..Supervision::default() };
    let host = host(runtime, Policy { supervision, ..Policy::default() });
    let dir = package("a.x", manifest);
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
    (host, dir)
}

fn state(host: &Dispatcher) -> State {
    host.status("a.x").unwrap().state
}

#[tokio::test]
async fn who_takes_calls_and_is_alive_is_ready() {
    let (host, _dir) = start(Patient::new().runtime(no), "", Recovery::Disable).await;
    let health = host.health("a.x").await.unwrap();
    assert_eq!((health.ready, health.reason, health.check), (true, None, None));
    host.throttle("a.x", 5).unwrap();
    assert!(host.health("a.x").await.unwrap().ready);
    type Act = fn(&Dispatcher) -> Result<(), Error>;
    let acts: [(Act, &str); 3] = [
        (|host| host.pause("a.x").map(drop), "it is paused: its host paused it"),
        (|host| host.quarantine("a.x", "it lied"), "it is quarantined: it lied"),
        (|host| quadriga_core::block_on(host.stop("a.x")), "it is quarantined: it lied"),
    ];
    for (act, reason) in acts {
        act(&host).unwrap();
        let health = host.health("a.x").await.unwrap();
        assert_eq!((health.ready, health.reason.as_deref()), (false, Some(reason)));
    }
    host.resume("a.x").await.unwrap();
    assert!(host.health("a.x").await.unwrap().ready);
}

#[tokio::test]
async fn who_gives_no_sign_of_life_is_not_ready() {
    let runtime = MockRuntime::new().on_ping(|| Box::pin(std::future::pending()));
    let (host, _dir) = start(runtime, "", Recovery::Disable).await;
    let health = host.health("a.x").await.unwrap();
    assert_eq!((health.liveness, health.ready, health.state), (Liveness::Silent, false, State::Running));
    assert_eq!(health.reason.unwrap(), "it gave no sign of life within 2 s");
}

#[tokio::test]
async fn failed_checks_lead_to_an_alert_and_to_what_supervision_says() {
    for (recovery, reached) in
        [(Recovery::Disable, State::Disabled), (Recovery::Quarantine, State::Quarantined)]
    {
        let ills: [(fn() -> Outcome, ErrorCode); 2] =
            [(no, ErrorCode::ExtensionError), (forever, ErrorCode::DeadlineExceeded)];
        for (ill, code) in ills {
            let patient = Patient::new();
            let (host, _dir) = start(patient.runtime(ill), CHECKED, recovery).await;
            let mut alerts = host.alerts();
            until(|| async { patient.checks.load(Ordering::SeqCst) >= 2 }).await;
            until(|| async { host.health("a.x").await.unwrap().check.is_some() }).await;
            let check = host.health("a.x").await.unwrap().check.unwrap();
            assert_eq!((check.error, check.failures), (None, 0));
            patient.well.store(false, Ordering::SeqCst);
            let before = patient.checks.load(Ordering::SeqCst);
            until(|| async { state(&host) == reached }).await;
            // Not at the first one.
            assert!(patient.checks.load(Ordering::SeqCst) >= before + 2);
            let alert = alerts.recv().await.unwrap();
            assert_eq!((alert.rule.as_str(), alert.extension.as_str()), ("health", "a.x"));
            assert!(alert.evidence.starts_with("its check failed 2 times in a row"), "{}", alert.evidence);
            let health = host.health("a.x").await.unwrap();
            assert!(!health.ready && health.reason.unwrap().contains("its check failed 2 times in a row"));
            let check = health.check.unwrap();
            assert_eq!((check.failures, check.error.unwrap().code), (2, code));
            let ends = host.failures("a.x").unwrap();
            assert!(ends.iter().any(|it| it.fatal && it.error.cause.is_some()), "{ends:?}");
            // Nobody asks it any more, until it runs again.
            let asked = patient.checks.load(Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(250)).await;
            assert_eq!(patient.checks.load(Ordering::SeqCst), asked);
            patient.well.store(true, Ordering::SeqCst);
            host.resume("a.x").await.unwrap();
            until(|| async { patient.checks.load(Ordering::SeqCst) > asked }).await;
            assert!(host.health("a.x").await.unwrap().ready);
            host.unload("a.x").await.unwrap();
        }
    }
}

#[tokio::test]
async fn who_is_not_well_is_started_again() {
    let patient = Patient::new();
    let (host, _dir) = start(patient.runtime(no), CHECKED, Recovery::Restart).await;
    patient.well.store(false, Ordering::SeqCst);
    until(|| async { state(&host) == State::Failed || host.status("a.x").unwrap().restarts > 0 }).await;
    patient.well.store(true, Ordering::SeqCst);
    until(|| async { host.status("a.x").unwrap().restarts >= 1 && state(&host) == State::Running }).await;
    call(&host, "a.x", "echo").await.unwrap();
    assert!(host.health("a.x").await.unwrap().ready);
}

#[tokio::test]
async fn without_a_method_a_sign_of_life_is_asked_for() {
    let alive = Arc::new(AtomicBool::new(true));
    let runtime = MockRuntime::new().on_ping({
        let alive = Arc::clone(&alive);
        move || match alive.load(Ordering::SeqCst) {
            true => Box::pin(std::future::ready(Ok(()))),
            false => Box::pin(std::future::pending()),
        }
    });
    let manifest = "[health]\ninterval = '100ms'\ndeadline = '100ms'\nfailures = 1";
    let (host, _dir) = start(runtime, manifest, Recovery::Quarantine).await;
    until(|| async { host.health("a.x").await.unwrap().check.is_some_and(|it| it.error.is_none()) }).await;
    alive.store(false, Ordering::SeqCst);
    until(|| async { state(&host) == State::Quarantined }).await;
    let reason = host.status("a.x").unwrap().reason.unwrap();
    assert!(reason.contains("there was no sign of life within 100ms"), "{reason}");
}

#[tokio::test]
async fn who_stands_still_is_not_checked() {
    let patient = Patient::new();
    let (host, _dir) = start(patient.runtime(no), CHECKED, Recovery::Quarantine).await;
    until(|| async { patient.checks.load(Ordering::SeqCst) > 0 }).await;
    host.pause("a.x").unwrap();
    patient.well.store(false, Ordering::SeqCst);
    until(|| async { host.health("a.x").await.unwrap().check.is_none() }).await;
    let asked = patient.checks.load(Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert_eq!((patient.checks.load(Ordering::SeqCst), state(&host)), (asked, State::Paused));
}

#[tokio::test]
async fn a_manifest_that_cannot_be_kept_to_is_refused() {
    let host = host(MockRuntime::new().echo("echo"), Policy::default());
    for (manifest, message) in [
        ("[health]\nmethod = 'helth'", "[health] names the method \"helth\", which it does not export"),
        ("[health]\ninterval = '1ms'", "expected \"100ms\" or more, not \"1ms\""),
        ("[health]\ndeadline = '0s'", "nothing is done in no time"),
        ("[health]\nfailures = 0", "nonzero"),
        ("[health]\nevery = '1s'", "unknown field `every`"),
    ] {
        let dir = package("a.x", manifest);
        let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidManifest);
        assert!(error.message.contains(message), "{error:?}");
    }
}
