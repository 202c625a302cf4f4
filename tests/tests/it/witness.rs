//! What the host gets to know of what a guest in a worker process tries.

use std::time::{Duration, Instant};

use quadriga::abi::Isolation;
use quadriga::abi::permission::AccessKind;
use quadriga::{
    Action, AlertRule, Dispatcher, LoadOptions, Monitor, Policy, Reason, State, Subject, Trigger, Verdict,
};
use quadriga_tests::{granted, guest, policy};

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

fn watchful(rules: Vec<AlertRule>) -> Dispatcher {
    let interval = Some(Duration::from_millis(20));
    let policy = Policy { monitor: Monitor { interval, rules, ..Monitor::default() }, ..policy() };
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

/// What the kernel refuses and tells the host of, by whatever the code is that tries.
#[tokio::test(flavor = "multi_thread")]
async fn system_calls_that_the_kernel_refused_are_in_the_record() {
    let spawns = Trigger::SpawnAttempts { count: 3, within: Duration::from_secs(600) };
    for isolation in [Isolation::Process, Isolation::Container] {
        for language in ["python", "native"] {
            let host = watchful(vec![rule("spawning", spawns, Action::Quarantine)]);
            let id = format!("hostile.{language}");
            let options = LoadOptions { isolation: Some(isolation), ..granted() };
            host.load(guest("hostile", language), options).await.unwrap();
            let layers = host.status(&id).unwrap().layers;
            let watch = layers.iter().find(|layer| layer.name.contains("watch")).unwrap();
            if watch.state != "reached" {
                return eprintln!("SKIPPED: {}: {}", watch.name, watch.note);
            }
            let own = host.status(&id).unwrap().usage.process.unwrap();
            for (door, pid) in
                [("ptrace", own), ("io_uring_setup", 0), ("bpf", 0), ("keyctl", 0), ("unshare", 0)]
            {
                let said: String = match language {
                    "python" if door == "ptrace" => host.invoke(&id, "trace", &(pid,)).await.unwrap(),
                    "python" => host.invoke(&id, "door", &(door,)).await.unwrap(),
                    _ => host.invoke(&id, "door", &(door, pid)).await.unwrap(),
                };
                assert!(said.starts_with("denied"), "{door}: {said}");
                // The record is there before the answer is.
                let what = format!("make the system call {door}");
                let decisions = host.decisions(&id, &Default::default()).unwrap();
                let decision = decisions.iter().find(|decision| decision.what == what);
                let decision = decision.unwrap_or_else(|| panic!("{what} is not in {decisions:?}"));
                assert_eq!((decision.subject, decision.verdict), (Subject::Kernel, Verdict::Denied));
                assert!(decision.reason == Reason::Kernel && !decision.claimed, "{decision:?}");
                assert_eq!(decision.extension.as_str(), id);
            }
            let _: String = host.invoke(&id, "special_socket", &(17, 3)).await.unwrap();
            let decisions = host.decisions(&id, &Default::default()).unwrap();
            let raw = "make the system call socket (family 17)";
            assert!(decisions.iter().any(|decision| decision.what == raw), "{decisions:?}");
            assert!(host.usage(&id).unwrap().denied >= 6);
            // Each counts once, and an alert sees them.
            let before = host.usage(&id).unwrap().spawns;
            let _: String = host.invoke(&id, "forks", &(1,)).await.unwrap();
            assert_eq!(host.usage(&id).unwrap().spawns, before + 1);
            let until = Instant::now() + PATIENCE;
            while host.status(&id).unwrap().state != State::Quarantined {
                assert!(Instant::now() < until, "no alert");
                let _ = host.invoke::<String>(&id, "forks", &(1,)).await;
            }
            assert_eq!(host.activity(&id).unwrap().alerts[0].rule, "spawning");
        }
    }
}

/// Whoever goes on trying waits for its answers, and leaves as many records as are kept.
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refused_system_calls_is_bounded() {
    let host = watchful(Vec::new());
    host.load(guest("hostile", "native"), granted()).await.unwrap();
    let begun = Instant::now();
    let said: String = host.invoke("hostile.native", "doors", &("unshare", 700)).await.unwrap();
    assert_eq!(said, "denied: 700 times");
    let decisions = host.decisions("hostile.native", &Default::default()).unwrap();
    if decisions.is_empty() {
        return eprintln!("SKIPPED: nothing is told of here");
    }
    // 256 at once, and as many in each second after that.
    assert!(begun.elapsed() > Duration::from_millis(1500), "{:?}", begun.elapsed());
    assert_eq!((decisions.len(), host.usage("hostile.native").unwrap().denied), (64, 700));
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
