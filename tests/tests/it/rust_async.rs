//! `async` methods of Rust extensions, as WebAssembly and natively.

use std::sync::{Arc, Barrier, Condvar, Mutex};
use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, Error, ErrorCode, StreamMark, Value};
use quadriga::{CallOptions, Dispatcher, Feed, Provided};
use quadriga_tests::{granted, guest, host};
use serde::Serialize;
use tokio::task::JoinHandle;

/// Both languages, each with the other one as its peer.
const PAIRS: [(&str, &str); 2] = [("wasm", "native"), ("native", "wasm")];

/// How many calls have to be there at once.
const MEETING: u64 = 8;

const PATIENCE: Duration = Duration::from_secs(10);

/// Opens for one call at a time.
#[derive(Default)]
struct Gate(Mutex<u64>, Condvar);

impl Gate {
    fn open(&self) {
        *self.0.lock().unwrap() += 1;
        self.1.notify_one();
    }

    fn pass(&self) -> u64 {
        let passed = self.1.wait_while(self.0.lock().unwrap(), |open| *open == 0);
        *passed.unwrap() -= 1;
        1
    }
}

/// Functions of the host: `meet` answers when [`MEETING`] calls are there, `told` when the gate
/// opens.
async fn loaded() -> (Dispatcher, Arc<Gate>) {
    let host = host();
    let (barrier, gate) = (Barrier::new(MEETING as usize), Arc::<Gate>::default());
    let told = Arc::clone(&gate);
    let peer = Provided::new("test.peer")
        .unwrap()
        .function("echo", |(n,): (u64,)| Ok(n))
        .function("meet", move |(n,): (u64,)| {
            barrier.wait();
            Ok(n)
        })
        .function("told", move |(): ()| Ok(told.pass()));
    host.provide(peer).unwrap();
    for (language, _) in PAIRS {
        for case in ["relay", "flow", "waits"] {
            host.load(guest(case, language), granted()).await.unwrap();
        }
    }
    (host, gate)
}

fn encoded(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec(value).unwrap().into()
}

fn waits(language: &str) -> String {
    format!("waits.{language}")
}

/// A call that its test does not wait for at once.
fn begun(
    host: &Dispatcher,
    language: &str,
    method: &'static str,
    arguments: Bytes,
    options: CallOptions,
) -> JoinHandle<Result<Bytes, Error>> {
    let (host, waits) = (host.clone(), waits(language));
    tokio::spawn(async move { host.call(&waits, method, arguments, options).await })
}

/// Waits until an extension has so many calls.
async fn until(host: &Dispatcher, extension: &str, calls: usize) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let now = host.status(extension).unwrap().metrics.in_flight;
        if now as usize == calls {
            return;
        }
        assert!(Instant::now() < patience, "{extension} has {now} calls, not {calls}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn error(host: &Dispatcher, language: &str, method: &str, arguments: &impl Serialize) -> Error {
    host.invoke::<Value>(&waits(language), method, arguments).await.unwrap_err()
}

/// Far more waits than tokio lets a task have before it must yield: a guest that runs on the thread
/// of a task cannot yield.
#[tokio::test]
async fn slow_a_guest_may_wait_more_often_than_a_task() {
    let (host, _gate) = loaded().await;
    host.load(guest("relay", "js"), granted()).await.unwrap();
    for (language, peer) in PAIRS {
        for peer in ["test.peer".to_owned(), format!("relay.{peer}"), "relay.js".to_owned()] {
            let (waits, arguments) = (waits(language), (&peer, 500));
            let sum = host.invoke::<u64>(&waits, "often", &arguments);
            let sum = tokio::time::timeout(PATIENCE, sum).await.expect("it hangs").unwrap();
            assert_eq!(sum, 499 * 500 / 2, "{language} and {peer}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn async_methods_are_methods_like_others() {
    let (host, _gate) = loaded().await;
    for (language, peer) in PAIRS {
        let waits = waits(language);
        let text: String = host.invoke(&waits, "echo", &("hello",)).await.unwrap();
        assert_eq!(text, "hello", "{language}");
        let point = std::collections::BTreeMap::from([("x", 1)]);
        let shifted: std::collections::BTreeMap<String, i64> =
            host.invoke(&waits, "shift", &(&point, "2", 3)).await.unwrap();
        assert_eq!(shifted["x"], 6, "{language}");
        let wrong = error(&host, language, "shift", &(&point, "two")).await;
        assert!(wrong.message.contains("invalid digit"), "{language}: {wrong:?}");
        let sum: i64 = host.invoke(&waits, "relay", &(format!("relay.{peer}"), "add", (1, 2))).await.unwrap();
        assert_eq!(sum, 3, "{language}");
        let count: Vec<u64> = host.invoke(&waits, "count", &(4,)).await.unwrap();
        assert_eq!(count, [0, 1, 2, 3], "{language}");
        let plain: u64 = host.invoke(&waits, "plain", &(9,)).await.unwrap();
        assert_eq!(plain, 9, "{language}");

        let methods = host.status(&waits).unwrap().methods;
        let shift = methods.iter().find(|method| method.name == "shift").unwrap();
        assert_eq!(shift.doc, "Borrows its arguments over a wait, and has a type of its own.");
        let schema = shift.output.as_ref().expect("a schema of the result").to_string();
        assert!(schema.contains("Point"), "{language}: {schema}");
        assert!(methods.iter().any(|method| method.name == "count" && method.streams), "{language}");
    }
}

/// Were they called one after the other, the first would never come back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_of_one_method_are_under_way_together() {
    let (host, _gate) = loaded().await;
    for round in 0..20 {
        for (language, _) in PAIRS {
            let met: Vec<u64> = host.invoke(&waits(language), "meet", &(MEETING,)).await.unwrap();
            assert_eq!(met, (0..MEETING).collect::<Vec<_>>(), "{language}, {round}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_come_with_their_chain() {
    let (host, _gate) = loaded().await;
    for (language, peer) in PAIRS {
        let relay = format!("relay.{peer}");
        let failed = error(&host, language, "either_fails", &(&relay,)).await;
        assert_eq!(
            (failed.code, failed.message.as_str()),
            (ErrorCode::ExtensionError, "too bad"),
            "{language}"
        );
        assert!(failed.stack.as_ref().unwrap().contains("waits/rust/src/lib.rs"), "{language}: {failed:?}");
        let cause = failed.cause.as_ref().expect("a cause");
        assert_eq!(cause.extension.as_deref(), Some(relay.as_str()), "{language}");
        assert!(cause.stack.as_ref().unwrap().contains("relay/rust/src/lib.rs"), "{language}: {failed:?}");
        let unknown = error(&host, language, "relay", &(&relay, "nothing", [0; 0])).await;
        assert_eq!(unknown.code, ErrorCode::UnknownMethod, "{language}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_future_gives_its_call_up() {
    let (host, gate) = loaded().await;
    for round in 0..5 {
        for (language, peer) in PAIRS {
            let flow = format!("flow.{peer}");
            let call = {
                let (host, flow) = (host.clone(), flow.clone());
                tokio::spawn(async move { host.invoke::<u64>(&waits(language), "first", &(flow,)).await })
            };
            // The caller is still there when its callee, which never ends by itself, has ended.
            until(&host, "test.peer", 1).await;
            until(&host, &flow, 0).await;
            assert!(!call.is_finished(), "{language}, {round}");
            gate.open();
            assert_eq!(call.await.unwrap().unwrap(), 8, "{language}, {round}");

            let ended: String = host.invoke(&waits(language), "patience", &(&flow, 1)).await.unwrap();
            assert_eq!(ended, "the time", "{language}, {round}");
            until(&host, &flow, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deadline_and_a_caller_that_goes_away_end_what_is_awaited() {
    let (host, _gate) = loaded().await;
    for (language, peer) in PAIRS {
        let (waits, flow) = (waits(language), format!("flow.{peer}"));
        let hour = 3_600_000_u64;
        for (method, arguments) in [("patience", encoded(&(&flow, hour))), ("naps", encoded(&(3, hour)))] {
            let options = CallOptions::default().timeout(Duration::from_millis(50));
            let late = host.call(&waits, method, arguments.clone(), options).await.unwrap_err();
            assert_eq!(late.code, ErrorCode::DeadlineExceeded, "{language}, {method}: {late:?}");
            until(&host, &waits, 0).await;
            until(&host, &flow, 0).await;

            let call = begun(&host, language, method, arguments, CallOptions::default().detached());
            until(&host, &waits, 1).await;
            call.abort();
            until(&host, &waits, 0).await;
            until(&host, &flow, 0).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn time_passes_once_for_all_who_wait() {
    let (host, _gate) = loaded().await;
    for (language, _) in PAIRS {
        let started = Instant::now();
        let naps: u64 = host.invoke(&waits(language), "naps", &(1000, 20)).await.unwrap();
        let took = started.elapsed();
        assert_eq!(naps, 1000, "{language}");
        assert!(took >= Duration::from_millis(20) && took < Duration::from_secs(10), "{language}: {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn futures_are_polled_when_they_are_woken_and_only_then() {
    let (host, gate) = loaded().await;
    for (language, _) in PAIRS {
        for round in 0..20 {
            let options = CallOptions::default().detached();
            let call = begun(&host, language, "restless", encoded(&[0; 0]), options);
            until(&host, "test.peer", 1).await;
            gate.open();
            let told: u64 = rmp_serde::from_slice(&call.await.unwrap().unwrap()).unwrap();
            assert_eq!(told, 1, "{language}, {round}");
        }
        let forgotten = error(&host, language, "forgotten", &()).await;
        assert_eq!(forgotten.code, ErrorCode::ExtensionError, "{language}");
        assert!(forgotten.message.contains("never wake"), "{language}: {forgotten:?}");
        assert!(forgotten.hint.is_some(), "{language}");
    }
    for _ in 0..100 {
        let woken: u64 = host.invoke("waits.native", "threaded", &()).await.unwrap();
        assert_eq!(woken, 42);
    }
}

/// The one that is sent goes on only after the other has been read to its end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_streams_are_read_together() {
    let (host, _gate) = loaded().await;
    for (language, peer) in PAIRS {
        let (feed, input) = Feed::new();
        let options = CallOptions::default().input(input).detached();
        let flow = format!("flow.{peer}");
        let arguments = (StreamMark, &flow, 10_000_u64);
        let call = begun(&host, language, "sum", encoded(&arguments), options);
        feed.send(encoded(&1_u64)).await.unwrap();
        // More than the window holds, and it ends while the input waits.
        let patience = Instant::now() + PATIENCE;
        while host.status(&flow).unwrap().metrics.calls == 0 {
            assert!(Instant::now() < patience, "{language}: the other stream is not read");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        for number in 2..=1000_u64 {
            feed.send(encoded(&number)).await.unwrap();
        }
        feed.finish();
        let sum: u64 = rmp_serde::from_slice(&call.await.unwrap().unwrap()).unwrap();
        assert_eq!(sum, 500_500 + 9_999 * 10_000 / 2, "{language}");
    }
}
