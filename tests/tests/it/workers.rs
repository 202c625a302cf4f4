//! Worker processes: how they end, and what is left of them.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quadriga::abi::limits::Limits;
use quadriga::abi::{Bytes, Error, ErrorCode, Isolation, Value};
use quadriga::{CallOptions, Dispatcher, LoadOptions, Policy, Recovery, State, Supervision};
use quadriga_tests::{granted, guest, host, with};

use crate::cli::command;

pub(crate) const NONE: Bytes = Bytes::from_static(b"\x90");

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// In a worker that is not started again.
pub(crate) fn in_worker() -> LoadOptions {
    let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
    LoadOptions { isolation: Some(Isolation::Process), supervision: Some(supervision), ..granted() }
}

pub(crate) async fn host_with(case: &str, language: &str) -> (Dispatcher, String) {
    let host = host();
    host.load(guest(case, language), in_worker()).await.unwrap();
    (host, format!("{case}.{language}"))
}

pub(crate) fn worker_of(host: &Dispatcher, id: &str) -> u32 {
    host.status(id).unwrap().usage.process.unwrap()
}

pub(crate) fn kill(pid: u32) {
    assert!(Command::new("kill").args(["-KILL", &pid.to_string()]).status().unwrap().success());
}

/// Waits for what comes soon.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "{what} did not happen");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Begins a call that goes on until its worker ends.
pub(crate) fn begin(
    host: &Dispatcher,
    id: &str,
    method: &'static str,
) -> tokio::task::JoinHandle<Result<Bytes, Error>> {
    let (host, id) = (host.clone(), id.to_owned());
    tokio::spawn(async move { host.call(&id, method, NONE, CallOptions::default()).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_killed_fails_its_calls_at_once_and_nothing_else() {
    for language in ["js", "python", "wasm", "native"] {
        let (host, id) = host_with("flow", language).await;
        host.load(guest("relay", "js"), granted()).await.unwrap();
        let calls = [begin(&host, &id, "pause"), begin(&host, &id, "pause")];
        wait_until("the calls", || host.status(&id).unwrap().metrics.in_flight == 2);
        let killed = Instant::now();
        kill(worker_of(&host, &id));
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}");
            assert!(error.message.ends_with("was ended by signal 9 (SIGKILL)"), "{error:?}");
            assert_eq!(error.extension.as_deref(), Some(id.as_str()));
        }
        assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
        wait_until("the word of it", || host.status(&id).unwrap().state != State::Running);
        let error = host.invoke::<Value>(&id, "count", &(3,)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionStopped, "{error:?}");
        assert!(error.message.contains("SIGKILL"), "{error:?}");
        assert_eq!(host.status(&id).unwrap().usage.instances, 0);
        let sum: i64 = host.invoke("relay.js", "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5);
        // A load gets a new one.
        host.unload(&id).await.unwrap();
        host.load(guest("flow", language), in_worker()).await.unwrap();
        let count: Vec<u64> = host.invoke(&id, "count", &(3,)).await.unwrap();
        assert_eq!(count, [0, 1, 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_ended_is_started_again() {
    for language in ["js", "python", "wasm", "native"] {
        let host = host();
        let options = LoadOptions { isolation: Some(Isolation::Process), ..granted() };
        host.load(guest("flow", language), options).await.unwrap();
        let id = format!("flow.{language}");
        let first = worker_of(&host, &id);
        kill(first);
        wait_until("the second start", || {
            let status = host.status(&id).unwrap();
            status.state == State::Running && status.usage.process.is_some_and(|pid| pid != first)
        });
        let count: Vec<u64> = host.invoke(&id, "count", &(3,)).await.unwrap();
        assert_eq!(count, [0, 1, 2]);
        let status = host.status(&id).unwrap();
        assert_eq!((status.restarts, status.isolation), (1, Isolation::Process));
        assert!(status.last_error.unwrap().error.message.contains("SIGKILL"));
    }
}

/// Memory is taken from a worker, or given, while it runs; what is fixed at its start is not.
#[tokio::test(flavor = "multi_thread")]
async fn limits_of_a_worker_change_while_it_runs() {
    let host = host();
    let package = with(&guest("hostile", "python"), "[limits]\nmemory = '512MiB'");
    host.load(package.path(), in_worker()).await.unwrap();
    let limits = |text: &str| -> Limits { serde_json::from_str(text).unwrap() };
    let grow: String = host.invoke("hostile.python", "grow_heap", &(200,)).await.unwrap();
    assert_eq!(grow, "done: 200 MiB");
    let error = host.set_limits("hostile.python", &limits(r#"{"open-files": 64}"#)).unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
    host.set_limits("hostile.python", &limits(r#"{"memory": "64MiB"}"#)).unwrap();
    let error = host.invoke::<String>("hostile.python", "grow_heap", &(200,)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
}

/// A path that was granted is used, and no longer once it is revoked.
#[tokio::test(flavor = "multi_thread")]
async fn a_path_of_a_worker_can_be_revoked() {
    let host = host();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("note"), "a note").unwrap();
    let path = folder.path().display();
    let request = format!("[permissions]\nfs = [{{ path = '{path}', mode = 'ro' }}]");
    let package = with(&guest("hostile", "python"), &request);
    let options = LoadOptions { isolation: Some(Isolation::Process), ..granted() };
    host.load(package.path(), options).await.unwrap();
    let note = format!("{path}/note");
    let text: String = host.invoke("hostile.python", "read_file", &(&note,)).await.unwrap();
    assert_eq!(text, "done: a note");
    let text: String = host.invoke("hostile.python", "write_file", &(&note,)).await.unwrap();
    assert!(text.starts_with("denied"), "{text}");
    let first = worker_of(&host, "hostile.python");
    let all = host.permissions("hostile.python").unwrap();
    let effect = host.revoke("hostile.python", &all).unwrap();
    assert_eq!(effect, quadriga::Effect::Now);
    wait_until("the next worker", || {
        let status = host.status("hostile.python").unwrap();
        status.state == State::Running && status.usage.process.is_some_and(|pid| pid != first)
    });
    let text: String = host.invoke("hostile.python", "read_file", &(&note,)).await.unwrap();
    assert!(text.starts_with("denied"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_that_ends_its_process_ends_that_of_its_worker() {
    let cases: [(&str, &[i64], &str); 3] = [
        ("abort", &[], "was ended by signal 6 (SIGABRT)"),
        ("exit", &[3], "exited with code 3"),
        ("overflow", &[0], "was ended by signal 6 (SIGABRT)"),
    ];
    for (method, arguments, how) in cases {
        let (host, id) = host_with("deadly", "native").await;
        let error = host.invoke::<Value>(&id, method, &arguments).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{method}: {error:?}");
        assert!(error.message.ends_with(how), "{method}: {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn native_code_that_does_not_end_is_ended_with_its_worker() {
    let (host, id) = host_with("deadly", "native").await;
    let worker = worker_of(&host, &id);
    let options = CallOptions::default().timeout(Duration::from_millis(50));
    let error = host.call(&id, "spin", NONE, options).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
    // Its siblings go on meanwhile.
    let sum: i64 = host.invoke(&id, "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5);
    wait_until("the end of the worker", || !Path::new(&format!("/proc/{worker}")).exists());
    wait_until("the word of it", || host.status(&id).unwrap().state != State::Running);
    let error = host.invoke::<Value>(&id, "add", &(2, 3)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionStopped, "{error:?}");
    assert!(error.message.contains("after it had to end"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_nothing_of_its_host() {
    let (host, id) = host_with("deadly", "native").await;
    let variables: Vec<String> = host.invoke(&id, "variables", &()).await.unwrap();
    assert_eq!(variables, ["HOME", "LANG", "PATH", "TMPDIR"]);
    let files: Vec<String> = host.invoke(&id, "files", &()).await.unwrap();
    let of_a_worker = |file: &String| {
        file == "/dev/null"
            || file.starts_with("pipe:")
            || file.starts_with("socket:")
            || file.starts_with("anon_inode:[event")
            || file.starts_with("/proc/")
    };
    assert!(files.iter().all(of_a_worker), "{files:?}");
    let sockets: HashSet<&String> = files.iter().filter(|file| file.starts_with("socket:")).collect();
    // The one to the host, and tokio's own pair for signals.
    assert_eq!(sockets.len(), 3, "{files:?}");
}

#[test]
fn what_a_guest_prints_past_the_log_is_in_it() {
    let dir = guest("deadly", "native");
    let args = ["call", dir.to_str().unwrap(), "print", "\"a line\"", "--isolation", "process"];
    let run = command().args(args).output().unwrap();
    let (stdout, stderr) = (String::from_utf8(run.stdout).unwrap(), String::from_utf8(run.stderr).unwrap());
    assert_eq!((run.status.code(), stdout.as_str()), (Some(0), "true\n"), "{stderr}");
    for line in ["deadly.native: a line to stdout", "deadly.native: warning: a line to stderr"] {
        assert!(stderr.contains(line), "{line:?} is not in {stderr:?}");
    }
}

/// The processes whose parent is this one.
pub(crate) fn children(parent: u32) -> Vec<u32> {
    let of = |entry: fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let ppid: u32 = stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()?;
        (ppid == parent).then_some(pid)
    };
    fs::read_dir("/proc").unwrap().flatten().filter_map(of).collect()
}

/// The workers of a host, forked from its own children as they are.
pub(crate) fn workers(host: u32) -> Vec<u32> {
    children(host).into_iter().flat_map(children).filter(|pid| !is_spare(*pid)).collect()
}

/// Whether a process waits for an extension to be the worker of.
pub(crate) fn is_spare(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "quadriga-spare")
}

#[test]
fn slow_the_end_of_the_host_ends_its_workers() {
    for (language, isolation) in [
        ("js", "process"),
        ("python", "process"),
        ("wasm", "process"),
        ("native", "process"),
        ("python", "container"),
    ] {
        let dir = guest("relay", language);
        let mut host = command()
            .args(["call", dir.to_str().unwrap(), "spin", "--isolation", isolation])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut all = Vec::new();
        wait_until("the start of the worker", || {
            all = workers(host.id());
            !all.is_empty()
        });
        all.extend(children(host.id()));
        host.kill().unwrap();
        host.wait().unwrap();
        let is_there = |pid: &u32| Path::new(&format!("/proc/{pid}")).exists();
        wait_until("the end of the worker", || !all.iter().any(is_there));
    }
}

/// Open files and threads of this process, its children and theirs.
pub(crate) fn held() -> (usize, usize, usize) {
    let count = |folder: &str| fs::read_dir(folder).unwrap().count();
    let (own, this) = (std::process::id(), count("/proc/self/fd"));
    (this, count("/proc/self/task"), children(own).len() + workers(own).len())
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_nothing_is_left_of_a_worker_that_was_unloaded() {
    let host = host();
    let dir = guest("relay", "native");
    let round = async || {
        host.load(&dir, in_worker()).await.unwrap();
        let sum: i64 = host.invoke("relay.native", "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5);
        host.unload("relay.native").await.unwrap();
    };
    // The first starts what stays: the thread that starts workers, and the dispatcher's own.
    for _ in 0..5 {
        round().await;
    }
    let before = held();
    for _ in 0..50 {
        round().await;
    }
    // Threads of the dispatcher's pool come and go.
    wait_until("that all is given back", || {
        let after = held();
        after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2
    });
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_fails_leaves_nothing() {
    let host = host();
    let broken = with(&guest("relay", "python"), "");
    fs::write(broken.path().join("main.py"), "raise ValueError('no hay')").unwrap();
    let error = host.load(broken.path(), in_worker()).await.unwrap_err();
    assert!(error.message.contains("no hay"), "{error:?}");
    assert!(error.stack.is_some(), "{error:?}");
    fs::write(broken.path().join("main.py"), "while True: pass").unwrap();
    let slow = with(broken.path(), "[limits]\nload-timeout = '300ms'");
    let error = host.load(slow.path(), in_worker()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
    fs::write(broken.path().join("main.py"), "import os\nos._exit(7)").unwrap();
    let error = host.load(broken.path(), in_worker()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}");
    assert!(error.message.ends_with("exited with code 7"), "{error:?}");
    wait_until("the end of the workers", || workers(std::process::id()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_worker_program_there_is_no_isolation_process() {
    for (path, words) in
        [("/nowhere/quadriga", "/nowhere/quadriga is none"), ("/dev/null", "/dev/null is none")]
    {
        let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
        let host = quadriga::builder_with_worker(path).policy(policy).build().unwrap();
        let error = host.load(guest("relay", "js"), in_worker()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::IsolationUnavailable, "{error:?}");
        assert!(error.message.contains(words), "{error:?}");
        assert!(error.hint.as_ref().unwrap().contains("QUADRIGA_WORKER"), "{error:?}");
        // What does not ask for it is not affected.
        host.load(guest("relay", "js"), granted()).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_is_no_worker_fails_the_load() {
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    let host = quadriga::builder_with_worker("/bin/true").policy(policy).build().unwrap();
    let error = host.load(guest("relay", "js"), in_worker()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}");
    assert!(error.message.ends_with("exited with code 0"), "{error:?}");
}
