//! Calls: deadlines, coroutines, threads, calls to others, errors on their way, prints.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quadriga::CallOptions;
use quadriga::abi::{ErrorCode, Value};

use super::{RELAY, call, call_with, list, relay, still_answers, text, with};

/// The second call has to wait for the interpreter, and is over by the time it gets it.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_call_that_is_over_before_it_begins_does_not_go_on() {
    let main = "def spin():\n    while True: pass\n";
    let (host, _dir) = with("test.late", &[("main.py", main)]).await;
    let spin = async |milliseconds| {
        let options = CallOptions::default().timeout(Duration::from_millis(milliseconds)).detached();
        call_with(&host, "test.late", "spin", vec![], options).await.unwrap_err().code
    };
    let both = async || tokio::join!(spin(100), spin(1), spin(2), spin(3));
    for _ in 0..10 {
        let codes = tokio::time::timeout(Duration::from_secs(10), both()).await.expect("one goes on");
        let late = ErrorCode::DeadlineExceeded;
        assert_eq!(codes, (late, late, late, late));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deadlines_end_one_call_alone() {
    let main = r#"
import asyncio, time
from quadriga import host

def stubborn():
    while True:
        try:
            while True: pass
        except BaseException: pass

def swallow():
    try:
        while True: pass
    except BaseException:
        return "gave in"

async def asleep():
    await asyncio.sleep(60)

def through():
    return host.call("relay.python", "spin")

def caught():
    try:
        host.call("relay.python", "spin")
    except Exception as error:
        return error.code

def count():
    end = time.monotonic() + 0.6
    n = 0
    while time.monotonic() < end: n += 1
    return "done"
"#;
    let (host, _dir) = with("test.slow", &[("main.py", main)]).await;
    let late = async |id: &str, method: &str| {
        let started = Instant::now();
        let options = CallOptions::default().timeout(Duration::from_millis(200));
        let error = call_with(&host, id, method, vec![], options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{method}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{method}: {:?}", started.elapsed());
        still_answers(&host).await;
    };
    // A sibling on another thread goes on, and so does the next call on this one.
    let sibling = {
        let host = host.clone();
        tokio::spawn(async move { call(&host, "test.slow", "count", vec![]).await })
    };
    late(RELAY, "spin").await;
    assert_eq!(sibling.await.unwrap().unwrap(), text("done"));
    for method in ["swallow", "asleep", "through", "caught"] {
        late("test.slow", method).await;
    }
    for _ in 0..20 {
        still_answers(&host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coroutines_run_to_their_end() {
    let main = r#"
import asyncio
from quadriga import host

async def twice(n):
    """Waits a little."""
    await asyncio.sleep(0.01)
    return await asyncio.gather(part(n), part(n + 1))

async def part(n):
    return n * 2

async def nested(depth):
    return host.call("test.wait", "nested", depth - 1) + 1 if depth else 0

async def fails():
    await asyncio.sleep(0)
    raise ValueError("later")
"#;
    let (host, _dir) = with("test.wait", &[("main.py", main)]).await;
    assert_eq!(host.invoke::<Vec<i64>>("test.wait", "twice", &(2,)).await.unwrap(), [4, 6]);
    assert_eq!(host.invoke::<i64>("test.wait", "nested", &(3,)).await.unwrap(), 3);
    let error = call(&host, "test.wait", "fails", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "ValueError: later"));
    assert!(error.stack.as_deref().unwrap().contains("in fails"));
}

#[test]
fn eight_threads_call_at_once() {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let host = executor.block_on(relay());
    std::thread::scope(|scope| {
        for thread in 0..8_i64 {
            let (host, executor) = (&host, &executor);
            scope.spawn(move || {
                for n in 0..200 {
                    let sum: i64 = executor.block_on(host.invoke(RELAY, "add", &(thread, n))).unwrap();
                    assert_eq!(sum, thread + n);
                }
            });
        }
    });
    assert_eq!(host.status(RELAY).unwrap().metrics.calls, 1600);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_one_extension_into_another_and_itself() {
    let (host, _dir) = with("test.other", &[("main.py", "from quadriga import host\ndef chain(path):\n    rest = host.call(path[0], 'chain', path[1:]) if path else []\n    return ['other', *rest]\n")]).await;
    let path = list(&["test.other", RELAY, RELAY, "test.other", RELAY, "test.other", RELAY]);
    let languages = list(&["python", "other", "python", "python", "other", "python", "other", "python"]);
    assert_eq!(call(&host, RELAY, "chain", vec![path]).await.unwrap(), languages);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_host_and_of_others_keep_their_chain() {
    let main = r#"
from quadriga import QuadrigaError, host

def caught(extension, method):
    try:
        host.call(extension, method, "boom")
    except QuadrigaError as error:
        return [error.code, error.message, error.extension, "in fail" in (error.stack or ""), str(error)]

def through():
    host.call("relay.python", "fail", "boom")

def wrapped():
    try:
        host.call("relay.python", "fail", "boom")
    except QuadrigaError as error:
        raise ValueError("outer") from error

def own():
    raise QuadrigaError("permission_denied", "not today", hint="come back")

def unplaced():
    host.call("relay.python", "echo", {"a": object()})
"#;
    let (host, _dir) = with("test.errors", &[("main.py", main)]).await;
    let caught = call(&host, "test.errors", "caught", vec![text(RELAY), text("fail")]).await.unwrap();
    let yes = Value::Bool(true);
    let expected = vec![text("extension_error"), text("boom"), text(RELAY), yes, text("boom")];
    assert_eq!(caught, Value::List(expected));
    let caught = call(&host, "test.errors", "caught", vec![text("no.one"), text("fail")]).await.unwrap();
    assert!(matches!(caught, Value::List(fields) if fields[0] == text("unknown_extension")));

    let error = call(&host, "test.errors", "through", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "boom"));
    assert_eq!(error.extension.as_deref(), Some("test.errors"));
    assert!(error.stack.as_ref().unwrap().contains("in through"), "{error:?}");
    let cause = error.cause.as_ref().unwrap();
    assert_eq!((cause.message.as_str(), cause.extension.as_deref()), ("boom", Some(RELAY)));
    assert!(cause.stack.as_ref().unwrap().contains("in fail"), "{cause:?}");
    assert!(cause.cause.is_none());

    let error = call(&host, "test.errors", "wrapped", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "ValueError: outer"));
    assert_eq!(error.cause.as_ref().unwrap().extension.as_deref(), Some(RELAY));

    let error = call(&host, "test.errors", "own", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::PermissionDenied, Some("come back")));

    let error = call(&host, "test.errors", "unplaced", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidValue);
    assert!(error.message.contains("argument 1['a']"), "{error}");
}

#[test]
fn prints_go_to_the_log() {
    let main = r#"
import sys
from quadriga import host

def speak():
    print("one", "two", end=" ")
    print("three\nfour")
    print("to stderr", file=sys.stderr)
    host.log.debug("five")
"#;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // One thread for everything, since the subscriber is this thread's.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let (host, _dir) = with("test.print", &[("main.py", main)]).await;
        call(&host, "test.print", "speak", vec![]).await.unwrap();
        call(&host, RELAY, "log", vec![text("hello")]).await.unwrap();
        host.shutdown().await;
    });
    drop(guard);
    let log = lines.text();
    for (level, text) in [
        ("INFO", "quadriga::guest: one two three extension=\"test.print\""),
        ("INFO", "quadriga::guest: four extension=\"test.print\""),
        ("WARN", "quadriga::guest: to stderr extension=\"test.print\""),
        ("DEBUG", "quadriga::guest: five extension=\"test.print\""),
        ("INFO", "quadriga::guest: hello extension=\"relay.python\""),
    ] {
        // Between the two stand the spans that the line is in.
        let logged = log.lines().any(|line| line.trim().starts_with(level) && line.contains(text));
        assert!(logged, "{level} {text:?} is not in:\n{log}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
