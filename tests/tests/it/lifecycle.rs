//! What operators do to a running sandbox: let it stand still, see how it does, stop and start it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, Error, ErrorCode, Isolation};
use quadriga::{CallOptions, Dispatcher, Liveness, LoadOptions, Pause, Recovery, State, Supervision};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;
use tokio::task::JoinHandle;

const NONE: Bytes = Bytes::from_static(b"\x90");

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// Counts on a timer, and on request for ever.
const CLOCK: &str = r#"
let ticks = 0;
setInterval(() => { ticks += 1; }, 2);
export function read() { return ticks; }
export async function wait(ms) { await new Promise((done) => setTimeout(done, ms)); return ticks; }
"#;

fn package(id: &str, kind: &str, file: &str, source: &str) -> TempDir {
    let folder = TempDir::new().unwrap();
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '1.0.0'\n[runtime]\nkind = '{kind}'\nentry = '{file}'\n"
    );
    fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(folder.path().join(file), source).unwrap();
    folder
}

fn at(isolation: Isolation) -> LoadOptions {
    let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
    LoadOptions { isolation: Some(isolation), supervision: Some(supervision), ..granted() }
}

fn begin(
    host: &Dispatcher,
    id: &str,
    method: &'static str,
    options: CallOptions,
) -> JoinHandle<Result<Bytes, Error>> {
    let (host, id) = (host.clone(), id.to_owned());
    tokio::spawn(async move { host.call(&id, method, NONE, options).await })
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// The processor time of a process and all below it, in ticks of the kernel.
fn used(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_whitespace().collect();
    let own =
        fields.get(11..13).into_iter().flatten().map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>();
    let below = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own + below.split_whitespace().map(|pid| used(pid.parse().unwrap())).sum::<u64>()
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_paused_worker_gets_no_processor_time_and_goes_on_where_it_was() {
    for isolation in [Isolation::Process, Isolation::Container] {
        let host = host();
        let spin = package(
            "a.spin",
            "python",
            "main.py",
            "import time\ndef spin():\n    end = time.monotonic() + 600\n    while time.monotonic() < end: pass\ndef add(a: int, b: int) -> int:\n    return a + b\n",
        );
        host.load(spin.path(), at(isolation)).await.unwrap();
        let timely = CallOptions::default().timeout(Duration::from_secs(3));
        let (call, late) =
            (begin(&host, "a.spin", "spin", CallOptions::default()), begin(&host, "a.spin", "spin", timely));
        let pid = host.status("a.spin").unwrap().usage.process.unwrap();
        wait_until("the calls", || host.status("a.spin").unwrap().metrics.in_flight == 2);
        let reached = host.pause("a.spin").unwrap();
        assert!(matches!(reached, Pause::Frozen | Pause::Stopped), "{reached:?}");
        let status = host.status("a.spin").unwrap();
        assert_eq!((status.state, status.pause), (State::Paused, Some(reached)));
        assert_eq!(host.health("a.spin").await.unwrap().liveness, Liveness::Paused);
        let before = used(pid);
        // The deadline holds, and the worker stays as it is well after its time to end would be up.
        let error = late.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
        tokio::time::sleep(Duration::from_secs(3)).await;
        assert_eq!(used(pid), before, "it ran");
        assert_eq!(host.status("a.spin").unwrap().usage.process, Some(pid));
        host.resume("a.spin").await.unwrap();
        wait_until("work", || used(pid) > before);
        let sum: i64 = host.invoke("a.spin", "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5);
        assert!(!call.is_finished());
        // What is unloaded while it stands still is gone at once.
        host.pause("a.spin").unwrap();
        call.abort();
        host.unload("a.spin").await.unwrap();
        wait_until("its end", || !fs::exists(format!("/proc/{pid}")).unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timers_of_a_paused_isolate_do_not_fire() {
    let clock = package("a.clock", "javascript", "main.js", CLOCK);
    for (isolation, reached) in [(Isolation::InProcess, Pause::Parked), (Isolation::Process, Pause::Stopped)]
    {
        let host = host();
        host.load(clock.path(), at(isolation)).await.unwrap();
        let read = async || host.invoke::<u64>("a.clock", "read", &()).await.unwrap();
        while read().await < 3 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        let wait = {
            let host = host.clone();
            tokio::spawn(async move { host.invoke::<u64>("a.clock", "wait", &(50,)).await })
        };
        wait_until("the call", || host.status("a.clock").unwrap().metrics.in_flight == 1);
        let pause = host.pause("a.clock").unwrap();
        assert!(pause >= reached, "{pause:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let late = CallOptions::default().timeout(Duration::from_millis(10));
        assert_eq!(
            host.call("a.clock", "read", NONE, late).await.unwrap_err().code,
            ErrorCode::ExtensionPaused
        );
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(!wait.is_finished(), "a timer fired");
        host.resume("a.clock").await.unwrap();
        wait.await.unwrap().unwrap();
        assert_eq!(host.health("a.clock").await.unwrap().liveness, Liveness::Alive);
        let begun = Instant::now();
        host.pause("a.clock").unwrap();
        host.unload("a.clock").await.unwrap();
        assert!(begun.elapsed() < PATIENCE);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_a_sign_of_life_comes_or_does_not() {
    for language in ["js", "python", "wasm", "native"] {
        let host = host();
        host.load(guest("relay", language), at(Isolation::Process)).await.unwrap();
        let id = format!("relay.{language}");
        let health = host.health(&id).await.unwrap();
        assert_eq!((health.liveness, health.state), (Liveness::Alive, State::Running), "{language}");
        assert!(health.answered.unwrap() < PATIENCE && health.uptime > Duration::ZERO);
        if language == "python" {
            let pid = host.status(&id).unwrap().usage.process.unwrap();
            signal(pid, "-STOP");
            assert_eq!(host.health(&id).await.unwrap().liveness, Liveness::Silent);
            signal(pid, "-CONT");
            assert_eq!(host.health(&id).await.unwrap().liveness, Liveness::Alive);
            signal(pid, "-KILL");
            wait_until("its end", || host.status(&id).unwrap().state != State::Running);
            assert_eq!(host.health(&id).await.unwrap().liveness, Liveness::Ended);
        }
    }
    // In the host's process it is the event loop that is asked.
    let host = host();
    let stuck = package("a.stuck", "javascript", "main.js", "export function spin() { for (;;); }");
    host.load(stuck.path(), at(Isolation::InProcess)).await.unwrap();
    assert_eq!(host.health("a.stuck").await.unwrap().liveness, Liveness::Alive);
    let call = begin(&host, "a.stuck", "spin", CallOptions::default());
    wait_until("the call", || host.status("a.stuck").unwrap().metrics.in_flight == 1);
    assert_eq!(host.health("a.stuck").await.unwrap().liveness, Liveness::Silent);
    call.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_stopped_is_gone_and_started_anew() {
    for language in ["js", "python", "wasm", "native"] {
        let host = host();
        host.load(guest("relay", language), at(Isolation::Process)).await.unwrap();
        let id = format!("relay.{language}");
        let first = host.status(&id).unwrap().usage.process.unwrap();
        host.stop(&id).await.unwrap();
        assert!(!fs::exists(format!("/proc/{first}")).unwrap(), "{language}");
        let status = host.status(&id).unwrap();
        assert_eq!((status.state, status.usage.process, status.restarts), (State::Stopped, None, 0));
        host.start(&id).await.unwrap();
        let sum: i64 = host.invoke(&id, "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5, "{language}");
        assert!(host.failures(&id).unwrap().is_empty(), "{language}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_language_is_checked_on_the_schedule_of_its_manifest() {
    for language in ["js", "python", "wasm", "native"] {
        let host = host();
        let schedule = |method| format!("[health]\nmethod = '{method}'\ninterval = '100ms'\nfailures = 2");
        let well = with(&guest("counter", language), &schedule("snapshot"));
        let ill = with(&guest("relay", language), &schedule("fail"));
        let mut alerts = host.alerts();
        let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
        let options = LoadOptions { supervision: Some(supervision), ..granted() };
        let [well_id, ill_id] = [
            host.load(well.path(), options.clone()).await.unwrap(),
            host.load(ill.path(), options).await.unwrap(),
        ];
        let alert = tokio::time::timeout(PATIENCE, alerts.recv()).await.unwrap().unwrap();
        assert_eq!((&alert.extension, alert.rule.as_str()), (&ill_id, "health"));
        wait_until("its end", || host.status(ill_id.as_str()).unwrap().state == State::Disabled);
        let health = host.health(ill_id.as_str()).await.unwrap();
        let check = health.check.unwrap();
        assert_eq!((health.ready, check.failures, check.error.is_some()), (false, 2, true), "{language}");
        let begun = Instant::now();
        loop {
            let health = host.health(well_id.as_str()).await.unwrap();
            assert!(health.ready, "{language}: {:?}", health.reason);
            if let Some(check) = health.check {
                assert_eq!((check.failures, check.error), (0, None), "{language}");
                break;
            }
            assert!(begun.elapsed() < PATIENCE, "{language}: no check");
        }
        assert!(host.metrics(well_id.as_str()).unwrap().methods["snapshot"].total.calls > 0);
    }
}
