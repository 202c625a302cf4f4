//! The dispatcher, shown with mock guests: no engine is linked here.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use quadriga_core::abi::{Bytes, Error, ErrorCode, Isolation, ProtocolVersion, Value};
use quadriga_core::{
    BoxFuture, CallOptions, Dispatcher, Grant, LoadOptions, MockRuntime, Outcome, Policy, Provided, State,
};
use tempfile::TempDir;

/// Writes an extension of kind `mock` and returns its folder.
fn package(id: &str, more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    write(dir.path(), id, more);
    dir
}

fn write(dir: &Path, id: &str, more: &str) {
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '1.2.3'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{more}\n"
    );
    fs::write(dir.join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.join("main"), "").unwrap();
}

fn host(runtime: MockRuntime) -> Dispatcher {
    Dispatcher::builder().runtime(runtime).build().unwrap()
}

fn granted() -> LoadOptions {
    LoadOptions { grant: Grant::Requested, ..LoadOptions::default() }
}

async fn load(host: &Dispatcher, id: &str, more: &str) -> Result<TempDir, Error> {
    let dir = package(id, more);
    host.load(dir.path(), granted()).await?;
    Ok(dir)
}

async fn call(host: &Dispatcher, extension: &str, method: &str) -> Result<Bytes, Error> {
    host.call(extension, method, Bytes::from_static(b"\x90"), CallOptions::default()).await
}

/// Never finishes by itself.
fn forever() -> BoxFuture<'static, Result<Bytes, Error>> {
    Box::pin(std::future::pending())
}

/// Calls `path[0]` with the rest of the path: an extension that hands its work on.
fn chain() -> MockRuntime {
    MockRuntime::new().method("chain", |bridge, call| {
        let (mut path,): (Vec<String>,) = rmp_serde::from_slice(&call.envelope.payload).unwrap();
        if path.is_empty() {
            return Outcome::Ready(Ok(Bytes::from_static(b"\xa4done")));
        }
        let next = path.remove(0);
        let rest = rmp_serde::to_vec(&(path,)).unwrap();
        bridge.call(&call.context(), &next, "chain", rest.into())
    })
}

#[tokio::test]
async fn loads_calls_counts_and_unloads() {
    let host = host(MockRuntime::new().echo("echo"));
    let _dir = load(&host, "a.echo", "").await.unwrap();
    let reply: (String, u8) = host.invoke("a.echo", "echo", &("text", 7)).await.unwrap();
    assert_eq!(reply, ("text".to_owned(), 7));
    let status = host.status("a.echo").unwrap();
    assert_eq!((status.metrics.calls, status.metrics.errors, status.metrics.in_flight), (1, 0, 0));
    assert_eq!((status.version.to_string().as_str(), status.isolation), ("1.2.3", Isolation::InProcess));
    assert_eq!(status.state, State::Running);
    host.unload("a.echo").await.unwrap();
    assert_eq!(call(&host, "a.echo", "echo").await.unwrap_err().code, ErrorCode::UnknownExtension);
    assert!(host.list().is_empty());
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let host = host(chain().echo("echo"));
    let _a = load(&host, "a.one", "").await.unwrap();
    let cases = [
        ("a.on", "echo", ErrorCode::UnknownExtension, "did you mean \"a.one\"?"),
        ("x.other-thing", "echo", ErrorCode::UnknownExtension, "loaded are: a.one"),
        ("a.one", "ecko", ErrorCode::UnknownMethod, "did you mean \"echo\"?"),
        ("a.one", "something", ErrorCode::UnknownMethod, "it has: chain, echo"),
    ];
    for (extension, method, code, hint) in cases {
        let error = call(&host, extension, method).await.unwrap_err();
        assert_eq!((error.code, error.hint.as_deref()), (code, Some(hint)), "{error:?}");
    }
}

#[tokio::test]
async fn loads_that_are_refused() {
    let host = Dispatcher::builder()
        .runtime(MockRuntime::new().echo("echo"))
        .policy(Policy { minimum_isolation: Isolation::InProcess, ..Policy::default() })
        .build()
        .unwrap();
    let _base = load(&host, "a.base", "[capabilities]\nprovides = ['tokenizer@1.2.0']").await.unwrap();
    let cases = [
        ("a.base", "", ErrorCode::AlreadyLoaded, "loaded already"),
        ("a.x", "api = '^9'", ErrorCode::IncompatibleVersion, "this host speaks 0.1.0"),
        ("a.x", "[host]\nmin = '99.0.0'", ErrorCode::IncompatibleVersion, "needs host 99.0.0 or newer"),
        ("a.x", "[host]\nmax = '0.0.1'", ErrorCode::IncompatibleVersion, "needs host 0.0.1 or older"),
        ("a.x", "isolation = 'vm'", ErrorCode::IsolationUnavailable, "reaches in-process"),
        ("a.x", "[limits]\ncpu-time = '1s'", ErrorCode::Unsupported, "cannot enforce the limit cpu-time"),
        ("a.x", "[permissions]\nnet = ['a:1']", ErrorCode::Unsupported, "does not offer the permission net"),
        (
            "a.x",
            "[dependencies]\n'a.none' = '1'",
            ErrorCode::MissingDependency,
            "a.none ^1, which is not loaded",
        ),
        ("a.x", "[dependencies]\n'a.base' = '2'", ErrorCode::MissingDependency, "loaded is 1.2.3"),
        ("a.x", "[capabilities]\nrequires = ['tokenizer@2']", ErrorCode::MissingDependency, "tokenizer@^2"),
        ("a.x", "[hooks.h]\nmethod = 'eco'", ErrorCode::InvalidManifest, "names the method \"eco\""),
        ("a.x", "[runtime.x]", ErrorCode::InvalidManifest, "unknown field `x`"),
    ];
    for (id, more, code, words) in cases {
        let error = load(&host, id, more).await.expect_err(more);
        assert!(error.code == code && error.message.contains(words), "{more}: {error:?}");
    }
    let dir = package("a.x", "");
    fs::remove_file(dir.path().join("main")).unwrap();
    assert_eq!(host.load(dir.path(), granted()).await.unwrap_err().code, ErrorCode::EntryInvalid);
    std::os::unix::fs::symlink("/etc/hostname", dir.path().join("main")).unwrap();
    let error = host.load(dir.path(), granted()).await.unwrap_err();
    assert!(error.message.contains("leaves the package"), "{error}");
    let error = host.load("/nowhere", granted()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidManifest);
    assert!(call(&host, "a.base", "echo").await.is_ok());
    let _ok = load(&host, "a.ok", "[capabilities]\nrequires = ['tokenizer@^1.1']").await.unwrap();
}

#[tokio::test]
async fn unknown_runtimes_are_named() {
    let host = host(MockRuntime::new());
    let dir = package("a.x", "");
    let path = dir.path().join("quadriga.toml");
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("'mock'", "'mok'")).unwrap();
    let error = host.load(dir.path(), granted()).await.unwrap_err();
    assert_eq!(
        (error.code, error.hint.as_deref()),
        (ErrorCode::UnknownRuntime, Some("did you mean \"mock\"?"))
    );
}

#[tokio::test]
async fn other_contracts_are_refused() {
    let newer = ProtocolVersion { major: 0, minor: 9, patch: 0 };
    let host = host(MockRuntime::new().describe(|description| description.protocol = newer));
    let error = load(&host, "a.x", "").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::IncompatibleVersion);
    assert!(error.message.contains("0.9.0") && error.message.contains("0.1.0"), "{error}");
}

#[tokio::test]
async fn calls_need_a_grant() {
    let host = host(chain());
    let _target = load(&host, "a.target", "").await.unwrap();
    let asks = "[permissions]\ncall = ['a.target/chain']";
    let run = |id: &'static str, target: &'static str| {
        let host = host.clone();
        async move { host.invoke::<String>(id, "chain", &(vec![target],)).await.map_err(|error| error.code) }
    };
    let denied = Err(ErrorCode::PermissionDenied);
    // Asked and granted; asked for something else; not asked; asked, but not granted.
    let _asked = load(&host, "a.asked", asks).await.unwrap();
    assert_eq!(run("a.asked", "a.target").await, Ok("done".into()));
    assert_eq!(run("a.asked", "a.asked").await, denied);
    let _silent = load(&host, "a.silent", "").await.unwrap();
    assert_eq!(run("a.silent", "a.target").await, denied);
    let dir = package("a.ungranted", asks);
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
    assert_eq!(run("a.ungranted", "a.target").await, denied);
}

#[tokio::test]
async fn depth_queue_and_size_are_limited() {
    let host = host(chain().echo("echo").method("wait", |_, _| Outcome::Pending(forever())));
    let more =
        "[permissions]\ncall = ['*']\n[limits]\ncall-depth = 5\nqueue-depth = 8\nmessage-size = '1KiB'";
    let _dir = load(&host, "a.x", more).await.unwrap();
    assert_eq!(host.invoke::<String>("a.x", "chain", &(vec!["a.x"; 5],)).await.unwrap(), "done");
    let error = host.invoke::<String>("a.x", "chain", &(vec!["a.x"; 6],)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::CallDepthExceeded);
    let error = host.invoke::<Value>("a.x", "echo", &("x".repeat(2000),)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageTooLarge);
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            tokio::spawn({
                let host = host.clone();
                async move { call(&host, "a.x", "wait").await }
            })
        })
        .collect();
    while host.status("a.x").unwrap().metrics.in_flight < 8 {
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&host, "a.x", "echo").await.unwrap_err().code, ErrorCode::Overloaded);
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    while host.status("a.x").unwrap().metrics.in_flight > 0 {
        tokio::task::yield_now().await;
    }
    assert!(call(&host, "a.x", "echo").await.is_ok());
}

#[tokio::test]
async fn deadlines_interrupt_and_return() {
    let interrupted = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&interrupted);
    let runtime = MockRuntime::new()
        .blocking(false)
        .method("wait", |_, _| Outcome::Pending(forever()))
        .on_interrupt(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
    let host = host(runtime);
    let _dir = load(&host, "a.x", "").await.unwrap();
    let _slow = load(&host, "a.y", "[limits]\ncall-timeout = '20ms'").await.unwrap();
    // Not so short that it may be over before the call begins.
    let options = CallOptions::default().timeout(Duration::from_millis(500));
    let started = Instant::now();
    let by_caller = host.call("a.x", "wait", Bytes::from_static(b"\x90"), options).await.unwrap_err();
    let by_manifest = call(&host, "a.y", "wait").await.unwrap_err();
    assert_eq!([by_caller.code, by_manifest.code], [ErrorCode::DeadlineExceeded; 2]);
    assert!(started.elapsed() >= Duration::from_millis(520));
    assert_eq!(interrupted.load(Ordering::SeqCst), 2);
}

/// Whatever the runtime does then, the caller is told.
#[tokio::test]
async fn a_runtime_that_panics_at_an_interrupt_keeps_nobody_waiting() {
    let runtime = MockRuntime::new()
        .blocking(false)
        .method("wait", |_, _| Outcome::Pending(forever()))
        .on_interrupt(|_| panic!("as it was told to"));
    let host = host(runtime);
    let _dir = load(&host, "a.x", "").await.unwrap();
    for _ in 0..2 {
        let options = CallOptions::default().timeout(Duration::from_millis(50));
        let error = host.call("a.x", "wait", Bytes::from_static(b"\x90"), options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded);
    }
}

/// Nearer ones come after farther ones, some calls end in time, and one waits for very long.
#[tokio::test]
async fn each_of_many_deadlines_is_kept() {
    let interrupted = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&interrupted);
    let runtime = MockRuntime::new()
        .blocking(false)
        .echo("echo")
        .method("wait", |_, _| Outcome::Pending(forever()))
        .on_interrupt(move |_| _ = count.fetch_add(1, Ordering::SeqCst));
    let host = host(runtime);
    let _dir = load(&host, "a.x", "").await.unwrap();
    let begin = |method: &'static str, timeout: Duration| {
        let (host, deadline) = (host.clone(), Instant::now() + timeout);
        let options = CallOptions::default().deadline(deadline);
        tokio::spawn(async move {
            let result = host.call("a.x", method, Bytes::from_static(b"\x90"), options).await;
            (result, Instant::now() >= deadline)
        })
    };
    let far = begin("wait", Duration::from_secs(3600));
    let late: Vec<_> = (0..50).map(|it| begin("wait", Duration::from_millis(10 + it * 37 % 50))).collect();
    let timely: Vec<_> = (0..50).map(|it| begin("echo", Duration::from_secs(60 + it))).collect();
    for call in timely {
        assert!(call.await.unwrap().0.is_ok());
    }
    let mut begun = 0;
    for call in late {
        let (result, passed) = call.await.unwrap();
        let error = result.unwrap_err();
        assert_eq!((error.code, passed), (ErrorCode::DeadlineExceeded, true));
        // On a busy machine some come too late to begin.
        begun += u32::from(!error.message.contains("before the call began"));
    }
    assert_eq!((interrupted.load(Ordering::SeqCst), far.is_finished()), (begun, false));
    far.abort();
}

#[tokio::test]
async fn dropping_a_call_gives_it_up() {
    let (send, receive) = std::sync::mpsc::channel();
    let runtime = MockRuntime::new()
        .method("wait", |_, _| Outcome::Pending(forever()))
        .on_interrupt(move |call| send.send(call).unwrap());
    let host = host(runtime);
    let _dir = load(&host, "a.x", "").await.unwrap();
    let waiting = tokio::time::timeout(Duration::from_millis(5), call(&host, "a.x", "wait"));
    assert!(waiting.await.is_err());
    assert!(receive.recv_timeout(Duration::from_secs(5)).unwrap() > 0);
    let metrics = host.status("a.x").unwrap().metrics;
    assert_eq!((metrics.calls, metrics.errors, metrics.in_flight), (1, 1, 0));
}

#[tokio::test]
async fn a_panicking_runtime_is_contained() {
    let host = host(MockRuntime::new().method("boom", |_, _| panic!("boom")).echo("echo"));
    let _dir = load(&host, "a.x", "").await.unwrap();
    assert_eq!(call(&host, "a.x", "boom").await.unwrap_err().code, ErrorCode::Internal);
    assert!(call(&host, "a.x", "echo").await.is_ok());
}

#[tokio::test]
async fn reload_switches_without_losing_calls() {
    let loads = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&loads);
    let host = host(MockRuntime::new().echo("echo").on_load(move |_| {
        // The third load fails.
        match count.fetch_add(1, Ordering::SeqCst) {
            2 => Err(Error::new(ErrorCode::LoadFailed, "broken")),
            _ => Ok(()),
        }
    }));
    let _dir = load(&host, "a.x", "").await.unwrap();
    let stop = Arc::new(AtomicU32::new(0));
    let begun = Arc::new(Barrier::new(5));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (host, stop, begun) = (host.clone(), Arc::clone(&stop), Arc::clone(&begun));
            tokio::spawn(async move {
                call(&host, "a.x", "echo").await.unwrap();
                tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
                let mut calls = 1_u64;
                while stop.load(Ordering::SeqCst) == 0 {
                    call(&host, "a.x", "echo").await.unwrap();
                    calls += 1;
                    tokio::task::yield_now().await;
                }
                calls
            })
        })
        .collect();
    tokio::task::spawn_blocking(move || begun.wait()).await.unwrap();
    let first = host.status("a.x").unwrap().generation;
    host.reload("a.x").await.unwrap();
    let second = host.status("a.x").unwrap().generation;
    assert!(second > first);
    assert_eq!(host.reload("a.x").await.unwrap_err().code, ErrorCode::LoadFailed);
    assert_eq!(host.status("a.x").unwrap().generation, second);
    stop.store(1, Ordering::SeqCst);
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
}

#[tokio::test]
async fn detached_calls_leave_the_thread_free() {
    // Each "detached" call needs its callee to run while this thread goes on: the barrier opens
    // only when both callees are inside at once.
    let barrier = Arc::new(Barrier::new(2));
    let meet = Arc::clone(&barrier);
    let runtime = MockRuntime::new()
        .method("meet", move |_, _| {
            meet.wait();
            Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
        })
        .method("both", |bridge, call| {
            let context = call.context();
            let one = || bridge.call_detached(&context, "a.x", "meet", Bytes::from_static(b"\x90"));
            let (first, second) = (one(), one());
            Outcome::Pending(Box::pin(async move {
                first.await?;
                second.await
            }))
        });
    let host = host(runtime);
    let _dir = load(&host, "a.x", "[permissions]\ncall = ['*']").await.unwrap();
    assert_eq!(call(&host, "a.x", "both").await.unwrap(), Bytes::from_static(b"\xc0"));
}

#[tokio::test]
async fn detached_calls_fail_at_once_when_every_thread_is_taken() {
    const THREADS: usize = 480;
    let gate = Arc::new(Barrier::new(THREADS + 1));
    let wait = Arc::clone(&gate);
    let runtime = MockRuntime::new().method("wait", move |_, _| {
        wait.wait();
        Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
    });
    let host = host(runtime);
    let _dir = load(&host, "a.x", "").await.unwrap();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..THREADS + 100 {
        let host = host.clone();
        calls.spawn(async move {
            let options = CallOptions::default().detached();
            host.call("a.x", "wait", Bytes::from_static(b"\x90"), options).await
        });
    }
    // Those that found no thread don't wait for one.
    for _ in 0..100 {
        let error = calls.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::Overloaded, "{error:?}");
    }
    gate.wait();
    while let Some(reply) = calls.join_next().await {
        reply.unwrap().unwrap();
    }
}

#[tokio::test]
async fn extensions_call_the_host() {
    let host = host(chain());
    let functions = Provided::new("app.host")
        .unwrap()
        .function("chain", |(path,): (Vec<String>,)| Ok(format!("{} left", path.len())));
    host.provide(functions).unwrap();
    let _dir = load(&host, "a.x", "[permissions]\ncall = ['app.host/*']").await.unwrap();
    let reply: String = host.invoke("a.x", "chain", &(vec!["app.host", "z"],)).await.unwrap();
    assert_eq!(reply, "1 left");
    let error = host.invoke::<String>("app.host", "chain", &(7,)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments);
    assert_eq!(host.reload("app.host").await.unwrap_err().code, ErrorCode::Unsupported);
}

#[tokio::test]
async fn settings_are_the_defaults_and_what_the_host_sets() {
    let host = host(MockRuntime::new().method("config", |bridge, _| Outcome::Ready(Ok(bridge.config()))));
    let dir = package("a.x", "[config]\ndefaults = { colour = 'green', size = 3 }");
    let config = serde_json::json!({ "size": 4 }).as_object().unwrap().clone();
    host.load(dir.path(), LoadOptions { config, ..LoadOptions::default() }).await.unwrap();
    let reply = call(&host, "a.x", "config").await.unwrap();
    let json = Value::from_bytes(&reply).unwrap().to_json();
    assert_eq!(json, serde_json::json!({ "colour": "green", "size": 4 }));
}

#[test]
fn works_without_an_async_runtime_and_drops_anywhere() {
    let host = host(MockRuntime::new().echo("echo"));
    quadriga_core::block_on(async {
        let _dir = load(&host, "a.x", "").await.unwrap();
        assert!(call(&host, "a.x", "echo").await.is_ok());
    });
    let other = host.clone();
    tokio::runtime::Runtime::new().unwrap().block_on(async move { drop(other) });
    drop(host);
}
