//! What the host gets to know of what a guest in a worker process tries.

use std::time::{Duration, Instant};

use quadriga::abi::Isolation;
use quadriga::abi::permission::AccessKind;
use quadriga::{
    Action, AlertRule, Dispatcher, LoadOptions, Monitor, Policy, Reason, State, Trigger, Verdict,
};
use quadriga_tests::{granted, guest};

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn watchful(rules: Vec<AlertRule>) -> Dispatcher {
    let interval = Some(Duration::from_millis(20));
    let policy = Policy { monitor: Monitor { interval, rules, ..Monitor::default() }, ..Policy::default() };
    quadriga::builder().policy(policy).build().unwrap()
}

fn rule(name: &str, trigger: Trigger, action: Action) -> AlertRule {
    AlertRule { name: name.to_owned(), trigger, action }
}

async fn load(host: &Dispatcher) {
    let options = LoadOptions { isolation: Some(Isolation::Process), ..granted() };
    host.load(guest("hostile", "python"), options).await.unwrap();
}

async fn try_to(host: &Dispatcher, method: &str, path: &str) -> String {
    host.invoke("hostile.python", method, &(path,)).await.unwrap_or_else(|error| error.to_string())
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_the_kernel_refused_are_in_the_record() {
    let within = Duration::from_secs(600);
    let burst = Trigger::DenialBurst { count: 5, within };
    let host = watchful(vec![rule("probing", burst, Action::Quarantine)]);
    load(&host).await;
    let folder = tempfile::tempdir().unwrap();
    let canary = folder.path().join("canary");
    std::fs::write(&canary, "secret").unwrap();
    let canary = canary.to_str().unwrap();
    let said = try_to(&host, "read_file", canary).await;
    assert!(!said.contains("secret"), "{said}");
    try_to(&host, "write_file", canary).await;
    // The record is there when the answer is.
    let denied = host.decisions("hostile.python", &Default::default()).unwrap();
    let whats: Vec<_> = denied.iter().map(|decision| decision.what.as_str()).collect();
    assert!(whats.contains(&format!("read {canary}").as_str()), "{whats:?}");
    assert!(whats.contains(&format!("write {canary}").as_str()), "{whats:?}");
    for decision in &denied {
        assert_eq!((decision.verdict, decision.reason), (Verdict::Denied, Reason::Manifest));
        assert!(decision.claimed && decision.call > 0, "{decision:?}");
    }
    let tally = host.accesses("hostile.python").unwrap()[&AccessKind::Fs];
    assert_eq!((tally.allowed, tally.denied), (0, denied.len() as u64));
    assert_eq!(host.usage("hostile.python").unwrap().denied, denied.len() as u64);
    while host.status("hostile.python").unwrap().state != State::Quarantined {
        try_to(&host, "read_file", canary).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(host.activity("hostile.python").unwrap().alerts[0].rule, "probing");
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_to_start_a_program_are_counted() {
    let host = watchful(Vec::new());
    load(&host).await;
    try_to(&host, "run_program", "/bin/true").await;
    let until = Instant::now() + PATIENCE;
    while host.usage("hostile.python").unwrap().spawns == 0 {
        assert!(Instant::now() < until, "no attempt was counted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// By a signal that the kernel ends a process with that makes a system call that is not let pass.
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_a_worker_is_in_its_history_and_an_alert() {
    let host = watchful(vec![rule("ended", Trigger::Ended, Action::Quarantine)]);
    load(&host).await;
    let pid = host.status("hostile.python").unwrap().usage.process.unwrap();
    let killed = std::process::Command::new("kill").args(["-SYS", &pid.to_string()]).status().unwrap();
    assert!(killed.success());
    let until = Instant::now() + PATIENCE;
    while host.status("hostile.python").unwrap().state != State::Quarantined {
        assert!(Instant::now() < until, "{:?}", host.status("hostile.python").unwrap().state);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let alert = &host.activity("hostile.python").unwrap().alerts[0];
    assert!(alert.evidence.contains("SIGSYS: it made a system call that it may not"), "{alert:?}");
    let failures = host.failures("hostile.python").unwrap();
    assert!(failures[0].fatal && failures[0].error.message.contains("SIGSYS"), "{failures:?}");
}
