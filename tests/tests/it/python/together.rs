//! Coroutines of one extension: they run on one event loop, together.

use std::time::{Duration, Instant};

use quadriga::CallOptions;
use quadriga::abi::{Bytes, ErrorCode, Value};
use quadriga_tests::{granted, guest, host};

use super::package;

const MAIN: &str = r#"
import asyncio
import sys
from quadriga import host

gate = None
waiting = 0


def _gate():
    global gate
    if gate is None:
        gate = asyncio.Event()
    return gate


async def wait() -> int:
    """Waits for `open`, which runs on the same loop."""
    global waiting
    waiting += 1
    try:
        await _gate().wait()
    finally:
        waiting -= 1
    return waiting


async def open() -> int:
    _gate().set()
    return waiting


async def count() -> int:
    return waiting


async def spin() -> None:
    while True:
        pass


async def stubborn() -> None:
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            pass


async def leave() -> None:
    sys.exit(3)


async def back(extension: str) -> int:
    """Holds its loop up while another extension calls this one again."""
    return host.call(extension, "relay", "test.together", "count", [])


async def forth(extension: str, n: int) -> list:
    calls = (host.call_async(extension, "add", i, 1) for i in range(n))
    return await asyncio.gather(*calls)


async def quietly(extension: str) -> str:
    try:
        await host.call_async(extension, "fail", "too bad")
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def plain() -> int:
    return 7
"#;

const RELAYS: &[&str] =
    if cfg!(feature = "native") { &["relay.python", "relay.native"] } else { &["relay.python"] };

const NONE: Bytes = Bytes::from_static(b"\x90");

async fn loaded() -> (quadriga::Dispatcher, tempfile::TempDir) {
    let host = host();
    let dir = package("test.together", &[("main.py", MAIN)]);
    host.load(dir.path(), granted()).await.unwrap();
    for relay in RELAYS {
        let language = relay.trim_start_matches("relay.");
        host.load(guest("relay", language), granted()).await.unwrap();
    }
    (host, dir)
}

async fn count(host: &quadriga::Dispatcher) -> i64 {
    host.invoke("test.together", "count", &()).await.unwrap()
}

async fn until(host: &quadriga::Dispatcher, waiting: i64) {
    let patience = Instant::now() + Duration::from_secs(10);
    while count(host).await != waiting {
        assert!(Instant::now() < patience, "{} are waiting, not {waiting}", count(host).await);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_slow_call_does_not_hold_up_a_quick_one() {
    let (host, _dir) = loaded().await;
    // A thousand at once, on this one thread and one event loop.
    let mut slow = tokio::task::JoinSet::new();
    for _ in 0..1000 {
        let host = host.clone();
        slow.spawn(async move { host.invoke::<i64>("test.together", "wait", &()).await });
    }
    until(&host, 1000).await;
    let plain: i64 = host.invoke("test.together", "plain", &()).await.unwrap();
    assert_eq!(plain, 7);
    let waiting: i64 = host.invoke("test.together", "open", &()).await.unwrap();
    assert_eq!(waiting, 1000);
    while let Some(done) = slow.join_next().await {
        done.unwrap().unwrap();
    }
    assert_eq!(count(&host).await, 0);
}

#[tokio::test]
async fn dropped_and_late_calls_are_cancelled_alone() {
    let (host, _dir) = loaded().await;
    let stays = {
        let host = host.clone();
        tokio::spawn(async move { host.invoke::<i64>("test.together", "wait", &()).await })
    };
    until(&host, 1).await;
    for round in 0..20 {
        let options = CallOptions::default().timeout(Duration::from_millis(20));
        let error = host.call("test.together", "wait", NONE, options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{round}: {error:?}");
        let call = host.call("test.together", "wait", NONE, CallOptions::default());
        assert!(tokio::time::timeout(Duration::from_millis(5), call).await.is_err(), "{round}");
        let options = CallOptions::default().timeout(Duration::from_millis(20));
        let method = if round % 2 == 0 { "spin" } else { "stubborn" };
        let error = host.call("test.together", method, NONE, options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{round}, {method}: {error:?}");
        until(&host, 1).await;
    }
    host.invoke::<i64>("test.together", "open", &()).await.unwrap();
    assert_eq!(stays.await.unwrap().unwrap(), 0);
}

#[tokio::test]
async fn coroutines_call_others_and_come_back() {
    let (host, _dir) = loaded().await;
    for &relay in RELAYS {
        for _ in 0..50 {
            let waiting: i64 = host.invoke("test.together", "back", &(relay,)).await.unwrap();
            assert_eq!(waiting, 0, "{relay}");
        }
        let sums: Vec<i64> = host.invoke("test.together", "forth", &(relay, 100)).await.unwrap();
        assert_eq!(sums, (1..=100).collect::<Vec<i64>>(), "{relay}");
        let caught: String = host.invoke("test.together", "quietly", &(relay,)).await.unwrap();
        assert!(caught.starts_with("QuadrigaError: ") && caught.contains("too bad"), "{relay}: {caught}");
    }
}

#[tokio::test]
async fn an_exit_ends_its_call_alone() {
    let (host, _dir) = loaded().await;
    for _ in 0..20 {
        let error = host.invoke::<Value>("test.together", "leave", &()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionPanicked, "{error:?}");
        assert_eq!(count(&host).await, 0);
    }
}

#[tokio::test]
async fn an_unload_ends_what_waits_and_gives_the_thread_back() {
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let (host, dir) = loaded().await;
    count(&host).await;
    host.unload("test.together").await.unwrap();
    let before = threads();
    for _ in 0..5 {
        host.load(dir.path(), granted()).await.unwrap();
        let waits = {
            let host = host.clone();
            tokio::spawn(async move { host.invoke::<i64>("test.together", "wait", &()).await })
        };
        until(&host, 1).await;
        waits.abort();
        until(&host, 0).await;
        host.unload("test.together").await.unwrap();
    }
    let patience = Instant::now() + Duration::from_secs(5);
    while threads() > before + 1 {
        assert!(Instant::now() < patience, "{} threads, {before} before", threads());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
