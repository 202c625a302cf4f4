//! WebAssembly components: what only they do, and every way in which they can be wrong.

pub(crate) mod component;
mod deadlines;
mod entries;
mod foreign;
mod limits;
#[cfg(target_os = "linux")]
mod many;

use std::fs;
use std::sync::{Arc, Mutex};

use quadriga::abi::{Error, ErrorCode, Value};
use quadriga_tests::{granted, guest, host};
use tempfile::TempDir;

/// A package around the bytes of an entry. `more` goes to the end of the manifest, into `[runtime]`
/// unless it begins with a section of its own.
fn package(id: &str, entry: &[u8], more: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '0.1.0'\n\
         [runtime]\nkind = 'webassembly'\nentry = 'entry.wasm'\n{more}\n"
    );
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
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

/// Bytes of memory in use, as the system counts them.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
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
        Value::Bytes(vec![0, 255]),
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
    let stack = error.stack.as_deref().unwrap();
    assert!(
        stack.contains("panicked at ") && stack.contains("wasm backtrace:") && stack.contains("crash"),
        "{stack}"
    );

    // WASI 0.2 knows only success and failure.
    let error = host.invoke::<()>("test.wasi", "exit", &(3,)).await.unwrap_err();
    assert_error("exit", &error, ErrorCode::ExtensionCrashed, &["test.wasi exited with status 1"]);

    let error = host.invoke::<u64>("test.wasi", "recurse", &(u64::MAX,)).await.unwrap_err();
    assert_error("recurse", &error, ErrorCode::ExtensionPanicked, &["call stack exhausted"]);

    let error = host.invoke::<Value>("relay.wasm", "unplaced", &()).await.unwrap_err();
    assert_error("no place", &error, ErrorCode::InvalidValue, &[]);

    let error = host.invoke::<i64>("relay.wasm", "add", &(1,)).await.unwrap_err();
    assert_error("too few", &error, ErrorCode::InvalidArguments, &["add"]);

    let error = host.invoke::<i64>("relay.wasm", "add", &(1, "two")).await.unwrap_err();
    assert_error("a text for a number", &error, ErrorCode::InvalidArguments, &["add"]);

    let error = host.invoke::<()>("relay.wasm", "none", &()).await.unwrap_err();
    assert_error("unknown method", &error, ErrorCode::UnknownMethod, &["none"]);

    let reply: String = host.invoke("relay.wasm", "echo", &("well",)).await.unwrap();
    assert_eq!(reply, "well");
}

#[tokio::test]
async fn what_a_guest_prints_is_logged() {
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber =
        tracing_subscriber::fmt().with_ansi(false).without_time().with_writer(move || writer.clone());
    // The guest runs on this thread.
    let _guard = tracing::subscriber::set_default(subscriber.finish());
    let host = host();
    host.load(guest("wasi", "wasm"), granted()).await.unwrap();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    host.invoke::<()>("test.wasi", "print", &("two\nlines",)).await.unwrap();
    host.invoke::<()>("relay.wasm", "log", &("three",)).await.unwrap();
    let log = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let words: Vec<String> = log
        .lines()
        .filter(|line| line.contains("quadriga::guest: "))
        .map(|line| line.split_whitespace().take(4).collect::<Vec<_>>().join(" "))
        .collect();
    let expected = [
        "INFO quadriga::guest: two extension=\"test.wasi\"",
        "INFO quadriga::guest: lines extension=\"test.wasi\"",
        "WARN quadriga::guest: two extension=\"test.wasi\"",
        "WARN quadriga::guest: lines extension=\"test.wasi\"",
        "INFO quadriga::guest: three extension=\"relay.wasm\"",
    ];
    assert_eq!(words, expected, "{log}");
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
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

#[tokio::test]
async fn two_hosts_in_one_process() {
    let (one, two) = (host(), host());
    for host in [&one, &two] {
        host.load(guest("relay", "wasm"), granted()).await.unwrap();
    }
    one.shutdown().await;
    let reply: i64 = two.invoke("relay.wasm", "add", &(1, 1)).await.unwrap();
    assert_eq!(reply, 2);
}
