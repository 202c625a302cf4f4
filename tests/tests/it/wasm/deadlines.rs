//! Calls that do not end by themselves.

use std::time::{Duration, Instant};

use quadriga::abi::{Error, ErrorCode};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host};

use super::{assert_error, like};

const DEADLINE: Duration = Duration::from_millis(200);

/// How much later than its deadline a call may end.
const LATE: Duration = Duration::from_millis(50);

/// How much later it may end where the machine has other things to do: of several, one must be
/// within [`LATE`].
const VERY_LATE: Duration = Duration::from_millis(500);

/// Calls `method`, which never returns, until its deadline. Returns how late it ended.
async fn ends(
    host: Dispatcher,
    extension: &'static str,
    method: &'static str,
    arguments: Vec<u8>,
) -> (Error, Duration) {
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
