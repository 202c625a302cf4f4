//! WebAssembly components: what only they do, and every way in which they can be wrong.

mod component;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use component::Component;
use quadriga::abi::{Error, ErrorCode, Value};
use quadriga::{CallOptions, Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest, host};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_millis(200);

/// How much later than its deadline a call may end.
const LATE: Duration = Duration::from_millis(50);

/// How much later it may end where the machine has other things to do: of several, one must be
/// within [`LATE`].
const VERY_LATE: Duration = Duration::from_millis(500);

/// A package around the bytes of an entry, with more of the manifest behind it.
fn package(id: &str, entry: &[u8], more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '0.1.0'\n{more}\n\
         [runtime]\nkind = 'webassembly'\nentry = 'entry.wasm'\n"
    );
    let (runtime, more) = manifest.split_once(more).filter(|_| !more.is_empty()).map_or_else(
        || (manifest.clone(), String::new()),
        |(head, tail)| (format!("{head}{tail}"), more.to_owned()),
    );
    fs::write(dir.path().join("quadriga.toml"), format!("{runtime}{more}\n")).unwrap();
    fs::write(dir.path().join("entry.wasm"), entry).unwrap();
    dir
}

/// A package around the component of a built guest, under another manifest.
fn like(case: &str, id: &str, more: &str) -> TempDir {
    let built = guest(case, "wasm");
    let entry = fs::read_dir(built).unwrap().map(|file| file.unwrap().path());
    let entry = entry.into_iter().find(|path| path.extension().is_some_and(|e| e == "wasm")).unwrap();
    package(id, &fs::read(entry).unwrap(), more)
}

/// Loads a bad entry and checks the error; then shows that the host and its extensions are well.
async fn check(case: &str, entry: &[u8], code: ErrorCode, words: &[&str]) {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let bad = package("test.bad", entry, "[limits]\nload-timeout = '300ms'");
    let started = Instant::now();
    let error = host.load(bad.path(), granted()).await.expect_err(case);
    assert!(started.elapsed() < Duration::from_secs(5), "{case}: {:?}", started.elapsed());
    assert_error(case, &error, code, words);
    assert_eq!(host.list().len(), 1, "{case}");
    let reply: String = host.invoke("relay.wasm", "echo", &("well",)).await.unwrap();
    assert_eq!(reply, "well", "{case}");
    host.shutdown().await;
}

#[track_caller]
fn assert_error(case: &str, error: &Error, code: ErrorCode, words: &[&str]) {
    assert_eq!(error.code, code, "{case}: {error:?}");
    let text = format!("{} {}", error.message, error.hint.as_deref().unwrap_or_default());
    for word in words {
        assert!(text.contains(word), "{case}: {word:?} is not in {error:?}");
    }
}

#[tokio::test]
async fn bad_entries() {
    use ErrorCode::{
        DeadlineExceeded, EntryInvalid, ExtensionPanicked, IncompatibleVersion, ProtocolViolation,
    };
    let whole = Component::new().build();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let cases: Vec<(&str, Vec<u8>, ErrorCode, &[&str])> = vec![
        ("empty", vec![], EntryInvalid, &["entry.wasm", "no WebAssembly"]),
        ("text", b"(component)".to_vec(), EntryInvalid, &["no WebAssembly", "binary component"]),
        ("cut in the header", whole[..6].to_vec(), EntryInvalid, &["entry.wasm", "no valid component"]),
        ("cut in the middle", whole[..whole.len() / 2].to_vec(), EntryInvalid, &["no valid component", "offset"]),
        ("core module", wat("(module)"), EntryInvalid, &["core module", "wasm32-wasip2", "wasm-tools component new"]),
        ("exports nothing", wat("(component)"), EntryInvalid, &["quadriga:extension/guest", "exports nothing"]),
        (
            "exports another interface",
            wat(r#"(component (instance $i) (export "acme:clock/time@1.0.0" (instance $i)))"#),
            EntryInvalid,
            &["quadriga:extension/guest", "acme:clock/time@1.0.0"],
        ),
        (
            "exports half of it",
            wat(r#"(component (instance $i) (export "quadriga:extension/guest@0.1.0" (instance $i)))"#),
            EntryInvalid,
            &["describe"],
        ),
        (
            "imports what no one provides",
            wat(r#"(component
                (import "acme:clock/time@1.0.0" (instance (export "now" (func (result u64)))))
                (import "wasi:http/types@0.2.0" (instance)))"#),
            EntryInvalid,
            &["acme:clock/time@1.0.0, wasi:http/types@0.2.0", "no one provides"],
        ),
        (
            "imports more than the host has",
            wat(r#"(component (import "quadriga:extension/host@0.1.0" (instance (export "launch" (func)))))"#),
            EntryInvalid,
            &["quadriga:extension/guest"],
        ),
        (
            "built for a later contract",
            wat(r#"(component (import "quadriga:extension/host@9.0.0" (instance)))"#),
            IncompatibleVersion,
            &["9.0.0", "0.1.0", "entry.wasm"],
        ),
        (
            "exports a later contract",
            wat(r#"(component (instance $i) (export "quadriga:extension/guest@0.2.0" (instance $i)))"#),
            IncompatibleVersion,
            &["0.2.0", "0.1.0"],
        ),
        ("loops at the start", Component::new().start("(loop br 0)").build(), DeadlineExceeded, &[]),
        ("traps at the start", Component::new().start("unreachable").build(), ExtensionPanicked, &["unreachable"]),
        ("loops in describe", Component::new().describe("(loop br 0) unreachable").build(), DeadlineExceeded, &[]),
        ("traps in describe", Component::new().describe("unreachable").build(), ExtensionPanicked, &["unreachable"]),
        (
            "recurses in describe",
            Component::new().describe("call $describe").build(),
            ExtensionPanicked,
            &["call stack exhausted"],
        ),
        (
            "describes what is outside its memory",
            Component::new().describe("i32.const 0x7fffff00").build(),
            ExtensionPanicked,
            &["out of bounds"],
        ),
        ("says no protocol", Component::new().protocol("soon").build(), ProtocolViolation, &["soon", "MAJOR.MINOR.PATCH"]),
        ("speaks a later protocol", Component::new().protocol("7.0.0").build(), IncompatibleVersion, &["7.0.0", "0.1.0"]),
    ];
    for (case, entry, code, words) in cases {
        check(case, &entry, code, words).await;
    }
}

#[tokio::test]
async fn a_good_component_without_any_sdk_loads() {
    let host = host();
    let good = package("test.plain", &Component::new().build(), "");
    host.load(good.path(), LoadOptions::default()).await.unwrap();
    assert_eq!(host.status("test.plain").unwrap().methods.len(), 1);
    assert_eq!(host.call("test.plain", "nil", vec![0x90], CallOptions::default()).await.unwrap(), vec![0xc0]);
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let values = [
        Value::Nil,
        Value::Bool(true),
        Value::Int(-1),
        Value::Int(i64::MIN),
        Value::UInt(u64::MAX),
        Value::Float(f64::INFINITY),
        Value::Float(-0.0),
        Value::Text("Grüße 🦀".into()),
        Value::Bytes(vec![0, 255].into()),
        Value::List(vec![Value::Int(1), Value::List(vec![])]),
        Value::Map(vec![(Value::Int(1), Value::Nil), (Value::Text("a".into()), Value::Float(0.5))]),
    ];
    for value in values {
        let reply: Value = host.invoke("relay.wasm", "echo", &(&value,)).await.unwrap();
        assert_eq!(reply, value);
    }
}

#[tokio::test]
async fn failures_carry_the_guests_stack_and_spare_the_next_call() {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    host.load(guest("wasi", "wasm"), granted()).await.unwrap();
    let error = host.invoke::<()>("relay.wasm", "fail", &("no luck",)).await.unwrap_err();
    assert_error("fail", &error, ErrorCode::ExtensionError, &["no luck"]);
    assert_eq!(error.extension.as_deref(), Some("relay.wasm"));

    let error = host.invoke::<()>("relay.wasm", "crash", &()).await.unwrap_err();
    assert_error("crash", &error, ErrorCode::ExtensionPanicked, &["relay.wasm panicked: "]);
    let stack = error.stack.unwrap();
    assert!(stack.contains("panicked at ") && stack.contains("wasm backtrace:") && stack.contains("crash"), "{stack}");

    // WASI 0.2 knows only success and failure.
    let error = host.invoke::<()>("test.wasi", "exit", &(3,)).await.unwrap_err();
    assert_error("exit", &error, ErrorCode::ExtensionCrashed, &["test.wasi exited with status 1"]);

    let error = host.invoke::<u64>("test.wasi", "recurse", &(u64::MAX,)).await.unwrap_err();
    assert_error("recurse", &error, ErrorCode::ExtensionPanicked, &["call stack exhausted"]);

    let error = host.invoke::<()>("relay.wasm", "none", &()).await.unwrap_err();
    assert_error("unknown method", &error, ErrorCode::UnknownMethod, &["none"]);

    let reply: String = host.invoke("relay.wasm", "echo", &("well",)).await.unwrap();
    assert_eq!(reply, "well");
}

/// Calls `method`, which never returns, until its deadline. Returns how late it ended.
async fn ends(host: Dispatcher, extension: &'static str, method: &'static str, arguments: Vec<u8>) -> (Error, Duration) {
    let started = Instant::now();
    let options = CallOptions::default().timeout(DEADLINE);
    let error = host.call(extension, method, arguments, options).await.unwrap_err();
    let took = started.elapsed();
    assert!(took >= DEADLINE && took < DEADLINE + VERY_LATE, "{method} took {took:?}");
    assert_error(method, &error, ErrorCode::DeadlineExceeded, &[]);
    (error, took - DEADLINE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_one_call_and_no_other() {
    let host = host();
    let two = like("relay", "test.two", "concurrency = 2");
    host.load(two.path(), granted()).await.unwrap();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let mut least = VERY_LATE;
    for _ in 0..5 {
        let spinning = tokio::spawn(ends(host.clone(), "test.two", "spin", vec![0x90]));
        let until = Instant::now() + DEADLINE + LATE;
        let mut calls = 0;
        while Instant::now() < until {
            for sibling in ["test.two", "relay.wasm"] {
                let sum: i64 = host.invoke(sibling, "add", &(calls, 1)).await.unwrap();
                assert_eq!(sum, calls + 1);
            }
            calls += 1;
        }
        let (error, late) = spinning.await.unwrap();
        least = least.min(late);
        assert!(error.stack.as_deref().is_some_and(|stack| stack.contains("guest_relay.wasm!")), "{error:?}");
        assert!(calls > 10, "siblings were held up: {calls} calls");
    }
    assert!(least < LATE, "{least:?} late");
}

/// The deadline also ends what does not run: a sleep, a wait for a place, a wait for another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_ends_waits() {
    let host = host();
    host.load(guest("wasi", "wasm"), granted()).await.unwrap();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let hour = 3_600_000;
    let sleep = rmp_serde::to_vec(&(hour,)).unwrap();
    let nested = rmp_serde::to_vec(&("test.wasi", "sleep", (hour,))).unwrap();
    for (extension, method, arguments) in [("test.wasi", "sleep", sleep), ("relay.wasm", "relay", nested)] {
        let mut least = VERY_LATE;
        for _ in 0..3 {
            least = least.min(ends(host.clone(), extension, method, arguments.clone()).await.1);
        }
        assert!(least < LATE, "{method}: {least:?} late");
    }
    let first = tokio::spawn(ends(host.clone(), "relay.wasm", "spin", vec![0x90]));
    tokio::time::sleep(DEADLINE / 4).await;
    let options = CallOptions::default().timeout(DEADLINE / 4);
    let error = host.call("relay.wasm", "spin", vec![0x90], options).await.unwrap_err();
    assert_error("queue", &error, ErrorCode::DeadlineExceeded, &[]);
    assert!(!first.is_finished());
    first.await.unwrap();
    let reply: i64 = host.invoke("relay.wasm", "add", &(1, 1)).await.unwrap();
    assert_eq!(reply, 2);
}

#[tokio::test]
async fn a_caller_that_goes_away_ends_its_call() {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    for _ in 0..20 {
        let call = host.call("relay.wasm", "spin", vec![0x90], CallOptions::default());
        tokio::time::timeout(Duration::from_millis(15), call).await.unwrap_err();
        assert_eq!(host.status("relay.wasm").unwrap().usage.instances, 0);
    }
    let reply: i64 = host.invoke("relay.wasm", "add", &(1, 1)).await.unwrap();
    assert_eq!(reply, 2);
}

#[tokio::test]
async fn memory_is_limited_for_all_instances_together() {
    let host = host();
    let small = like("wasi", "test.small", "concurrency = 2\n[limits]\nmemory = '16MiB'\n[permissions]\ncall = ['*']");
    host.load(small.path(), granted()).await.unwrap();
    let held: u64 = host.invoke("test.small", "hold", &(4,)).await.unwrap();
    assert_eq!(held, 4 << 20);
    let used = host.status("test.small").unwrap().usage.memory.unwrap();
    assert!((4 << 20..16 << 20).contains(&used), "{used}");
    let error = host.invoke::<u64>("test.small", "hold", &(15,)).await.unwrap_err();
    assert_error("hold", &error, ErrorCode::MemoryLimit, &["test.small", "[limits] memory"]);
    let used = host.status("test.small").unwrap().usage.memory.unwrap();
    assert_eq!(used, 0, "the instance that went over is gone");
    let held: u64 = host.invoke("test.small", "hold", &(4,)).await.unwrap();
    assert_eq!(held, 4 << 20);
    // Each of them would fit alone.
    let error = host.invoke::<u64>("test.small", "hold_both", &(8, "test.small", 8)).await.unwrap_err();
    assert_error("hold in two", &error, ErrorCode::MemoryLimit, &[]);
    let held: u64 = host.invoke("test.small", "hold_both", &(4, "test.small", 4)).await.unwrap();
    assert_eq!(held, 8 << 20);

    let tiny = like("wasi", "test.tiny", "[limits]\nmemory = '64KiB'");
    let error = host.load(tiny.path(), granted()).await.unwrap_err();
    assert_error("tiny", &error, ErrorCode::MemoryLimit, &["65536"]);
}

#[tokio::test]
async fn nothing_is_there_that_was_not_granted() {
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret"), "s").unwrap();
    let path = outside.path().join("secret").to_string_lossy().into_owned();
    let asks = "[permissions]\ncall = ['*']\nenv = ['PATH']\n\
                fs = [{ path = 'data', mode = 'ro' }, { path = 'scratch', mode = 'rw' }]";
    let package = like("wasi", "test.files", asks);
    for folder in ["data", "scratch", "other"] {
        fs::create_dir(package.path().join(folder)).unwrap();
        fs::write(package.path().join(folder).join("file"), folder).unwrap();
    }
    let host = host();
    let read = async |path: &str| host.invoke::<String>("test.files", "read", &(path,)).await;
    let write = async |path: &str| host.invoke::<()>("test.files", "write", &(path, "new")).await;
    let env = async |name: &str| host.invoke::<Option<String>>("test.files", "env", &(name,)).await.unwrap();

    host.load(package.path(), granted()).await.unwrap();
    assert_eq!(read("data/file").await.unwrap(), "data");
    assert_eq!(read("scratch/file").await.unwrap(), "scratch");
    write("scratch/file").await.unwrap();
    assert_eq!(fs::read_to_string(package.path().join("scratch/file")).unwrap(), "new");
    write("data/file").await.unwrap_err();
    for denied in ["other/file", "quadriga.toml", "data/../other/file", "/etc/hostname", &path] {
        read(denied).await.expect_err(denied);
    }
    assert_eq!(env("PATH").await, std::env::var("PATH").ok());
    assert_eq!(env("HOME").await, None);
    host.unload("test.files").await.unwrap();

    host.load(package.path(), LoadOptions::default()).await.unwrap();
    read("data/file").await.unwrap_err();
    assert_eq!(env("PATH").await, None);
    host.unload("test.files").await.unwrap();

    let file = like("wasi", "test.files", "[permissions]\nfs = [{ path = 'quadriga.toml', mode = 'ro' }]");
    let error = host.load(file.path(), granted()).await.unwrap_err();
    assert_error("a file", &error, ErrorCode::Unsupported, &["quadriga.toml", "folder"]);
    let net = like("wasi", "test.files", "[permissions]\nnet = ['localhost:80']");
    let error = host.load(net.path(), granted()).await.unwrap_err();
    assert_error("net", &error, ErrorCode::Unsupported, &["net"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn as_many_run_at_once_as_the_manifest_says() {
    let host = host();
    let four = like("wasi", "test.four", "concurrency = 4");
    host.load(four.path(), granted()).await.unwrap();
    for _ in 0..20 {
        let calls: Vec<_> = (0..64)
            .map(|n: i64| {
                let host = host.clone();
                tokio::spawn(async move { host.invoke::<i64>("test.four", "sleep", &(n % 3,)).await })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().unwrap(), n as i64 % 3);
            assert!(host.status("test.four").unwrap().usage.instances <= 4);
        }
    }
    assert_eq!(host.status("test.four").unwrap().usage.instances, 4);
}

#[tokio::test]
async fn a_call_that_comes_back_gets_a_further_instance() {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    host.load(guest("wasi", "wasm"), granted()).await.unwrap();
    for round in 0..50 {
        let path = vec!["relay.wasm"; 7];
        let visited: Vec<String> = host.invoke("relay.wasm", "chain", &(path,)).await.unwrap();
        assert_eq!(visited, ["wasm"; 8]);
        assert_eq!(host.status("relay.wasm").unwrap().usage.instances, 1, "the others were dropped");
        // State stays with the instance that is kept.
        let count: u32 = host.invoke("test.wasi", "count", &()).await.unwrap();
        assert_eq!(count, round);
    }
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").map_or(0, Iterator::count)
}

fn mapped() -> usize {
    let status = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    status.split(' ').next().and_then(|pages| pages.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn unload_gives_back_memory_and_threads() {
    let host = host();
    // The first load makes what stays with the host: the engine and its compiler's threads.
    host.load(guest("wasi", "wasm"), granted()).await.unwrap();
    host.unload("test.wasi").await.unwrap();
    let before = (threads(), mapped());
    for _ in 0..10 {
        host.load(guest("wasi", "wasm"), granted()).await.unwrap();
        assert_eq!(host.invoke::<u64>("test.wasi", "hold", &(16,)).await.unwrap(), 16 << 20);
        host.unload("test.wasi").await.unwrap();
    }
    let after = (threads(), mapped());
    assert!(after.0 <= before.0, "threads: {before:?} then {after:?}");
    // 16 MiB held ten times would be 40960 pages.
    assert!(after.1 < before.1 + 4096, "pages: {before:?} then {after:?}");
}

#[tokio::test]
async fn an_unload_ends_what_does_not_end() {
    let policy = quadriga::Policy { drain_timeout: Duration::from_millis(50), ..Default::default() };
    let host = quadriga::builder().policy(policy).build().unwrap();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let spinning = {
        let host = host.clone();
        tokio::spawn(async move { host.invoke::<()>("relay.wasm", "spin", &()).await })
    };
    tokio::time::sleep(Duration::from_millis(20)).await;
    host.unload("relay.wasm").await.unwrap();
    let error = spinning.await.unwrap().unwrap_err();
    assert_error("spin", &error, ErrorCode::ExtensionStopped, &["unloaded"]);
}

#[tokio::test]
async fn two_hosts_in_one_process() {
    let (one, two) = (host(), host());
    for host in [&one, &two] {
        assert!(Path::new(&guest("relay", "wasm")).is_dir());
        host.load(guest("relay", "wasm"), granted()).await.unwrap();
    }
    one.shutdown().await;
    let reply: i64 = two.invoke("relay.wasm", "add", &(1, 1)).await.unwrap();
    assert_eq!(reply, 2);
}
