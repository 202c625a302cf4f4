//! Streams through the dispatcher, with mock guests.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use proptest::prelude::*;
use quadriga_core::abi::{Bytes, Error, ErrorCode};
use quadriga_core::{CallOptions, Dispatcher, Feed, Grant, Items, LoadOptions, MockRuntime, Outcome, WINDOW};
use tempfile::TempDir;

/// A method that emits so many items of so many bytes; counts those that found room.
fn emitting(items: usize, size: usize, emitted: &Arc<AtomicUsize>) -> MockRuntime {
    let emitted = Arc::clone(emitted);
    let emit = move |_: &quadriga_core::Bridge, call: quadriga_core::Call| {
        let output = call.streams.unwrap().output.unwrap();
        for _ in 0..items {
            if let Err(error) = output.emit(&Bytes::from(vec![0xc0; size])) {
                return Outcome::Ready(Err(error));
            }
            emitted.fetch_add(1, Ordering::SeqCst);
        }
        Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
    };
    MockRuntime::new().method("emit", emit).describe(|description| description.methods[0].streams = true)
}

async fn host(runtime: MockRuntime) -> (Dispatcher, TempDir) {
    let dir = TempDir::new().unwrap();
    let manifest =
        "[extension]\nid = 'a.flow'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n";
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("main"), "").unwrap();
    let host = Dispatcher::builder().runtime(runtime).build().unwrap();
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    host.load(dir.path(), options).await.unwrap();
    (host, dir)
}

fn stream(host: &Dispatcher) -> Items {
    host.stream("a.flow", "emit", Bytes::from_static(b"\x90"), CallOptions::default())
}

/// Waits until a count no longer changes.
async fn settled(count: &AtomicUsize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = count.load(Ordering::SeqCst);
        if now == before && now > 0 {
            return now;
        }
        before = now;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
}

/// Each time that it is ready, there is something to take at once: items, then the end.
#[tokio::test]
async fn what_is_ready_needs_no_waiting() {
    let emitted = Arc::default();
    let (host, _dir) = host(emitting(3, 10, &emitted)).await;
    let mut items = stream(&host);
    for round in 0..5 {
        poll_fn(|context| items.poll_ready(context)).await;
        poll_fn(|context| items.poll_ready(context)).await;
        let item = items.next().now_or_never().expect("an item or the end");
        assert_eq!(item.is_some(), round < 3, "{round}");
    }

    let (feed, input) = Feed::new();
    let ready = || poll_fn(|context| input.poll_ready(context)).now_or_never().is_some();
    assert!(!ready());
    feed.send(Bytes::from_static(b"\xc0")).await.unwrap();
    assert!(ready() && ready() && input.next().is_some() && !ready());
    feed.finish();
    assert!(ready() && input.next().is_none());
}

#[tokio::test]
async fn a_producer_stops_at_the_window() {
    for size in [1, 1000, WINDOW, 3 * WINDOW] {
        let emitted = Arc::default();
        let (host, _dir) = host(emitting(1_000_000, size, &emitted)).await;
        let mut items = stream(&host);
        let ahead = settled(&emitted).await;
        // At least one, however large; none that the window has no room for.
        assert!(ahead == 1 || ahead * size <= WINDOW, "{ahead} items of {size} bytes");
        for _ in 0..10 {
            items.next().await.unwrap().unwrap();
        }
        let further = settled(&emitted).await;
        assert!(further >= 10 && further <= ahead + 10, "{ahead}, then {further} of {size} bytes");
        drop(items);
        let until = Instant::now() + Duration::from_secs(5);
        while host.status("a.flow").unwrap().metrics.in_flight > 0 {
            assert!(Instant::now() < until, "the producer goes on");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(emitted.load(Ordering::SeqCst), further, "an item that nobody reads");
    }
}

#[tokio::test]
async fn a_feed_that_is_dropped_is_an_error_for_its_reader() {
    let sum = |_: &quadriga_core::Bridge, call: quadriga_core::Call| {
        let input = call.streams.unwrap().input.unwrap();
        let mut items = 0_u8;
        while let Some(item) = input.next() {
            match item {
                Ok(_) => items += 1,
                Err(error) => return Outcome::Ready(Err(error)),
            }
        }
        Outcome::Ready(Ok(vec![items].into()))
    };
    let (host, _dir) = host(MockRuntime::new().method("count", sum)).await;
    type End = fn(Feed);
    let cases: [(End, Result<u8, ErrorCode>); 3] = [
        (Feed::finish, Ok(2)),
        (drop, Err(ErrorCode::Cancelled)),
        (|feed| feed.fail(Error::new(ErrorCode::ExtensionError, "dry")), Err(ErrorCode::ExtensionError)),
    ];
    for (end, expected) in cases {
        let (feed, input) = Feed::new();
        for _ in 0..2 {
            feed.send(&b"\xc0"[..]).await.unwrap();
        }
        end(feed);
        let options = CallOptions::default().input(input);
        let reply = host.call("a.flow", "count", Bytes::from_static(b"\x90"), options).await;
        assert_eq!(reply.map(|reply| reply[0]).map_err(|error| error.code), expected);
    }
}

#[tokio::test]
async fn nobody_is_kept_waiting_when_a_call_ends() {
    // It never reads what it is sent.
    let deaf = MockRuntime::new().method("deaf", |_, _| Outcome::Ready(Ok(Bytes::from_static(b"\xc0"))));
    let (host, _dir) = host(deaf).await;
    let (feed, input) = Feed::new();
    let options = CallOptions::default().input(input);
    host.call("a.flow", "deaf", Bytes::from_static(b"\x90"), options).await.unwrap();
    let error = feed.send(vec![0; 2 * WINDOW]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Cancelled);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn items_arrive_whole_and_in_order(sizes in proptest::collection::vec(1..40_000_usize, 0..40)) {
        let executor = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
        let sent: Vec<Bytes> = sizes.iter().enumerate().map(|(n, size)| vec![n as u8; *size].into()).collect();
        let items = sent.clone();
        let echo = MockRuntime::new()
            .method("emit", move |_, call| {
                let output = call.streams.unwrap().output.unwrap();
                let emitted = items.iter().try_for_each(|item| output.emit(item));
                Outcome::Ready(emitted.map(|()| Bytes::from_static(b"\xc0")))
            })
            .describe(|description| description.methods[0].streams = true);
        let received = executor.block_on(async {
            let (host, _dir) = host(echo).await;
            let mut items = stream(&host);
            let mut received = Vec::new();
            while let Some(item) = items.next().await {
                received.push(item.unwrap());
            }
            received
        });
        prop_assert_eq!(received, sent);
    }
}
