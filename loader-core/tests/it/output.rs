//! How much an extension may print.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use quadriga_core::abi::Bytes;
use quadriga_core::abi::limits::{ByteSize, Limit, Limits};
use quadriga_core::{CallOptions, Dispatcher, Grant, LogLevel, MockRuntime, Outcome, Policy};

use crate::common::{NONE, host, load};

/// Guests that print so many lines of 99 bytes, and one byte for its end.
fn runtime() -> MockRuntime {
    MockRuntime::new().limits(&[Limit::OutputRate]).method("print", |bridge, call| {
        let (lines,): (u32,) = rmp_serde::from_slice(&call.envelope.payload).unwrap();
        for _ in 0..lines {
            bridge.log(&call.context(), LogLevel::Info, &"x".repeat(99));
        }
        Outcome::Ready(Ok(NONE))
    })
}

async fn print(host: &Dispatcher, lines: u32) {
    let arguments: Bytes = rmp_serde::to_vec(&(lines,)).unwrap().into();
    host.call("a.x", "print", arguments, CallOptions::default()).await.unwrap();
}

/// Lines that were printed, and how many of them were dropped.
fn seen(host: &Dispatcher) -> (u64, u64) {
    let activity = host.activity("a.x").unwrap();
    (activity.log_lines, activity.output_dropped / 99)
}

fn rate(bytes: u64) -> Limits {
    Limits { output_rate: Some(ByteSize(bytes)), ..Limits::default() }
}

#[tokio::test]
async fn what_goes_beyond_the_rate_is_dropped_and_counted() {
    let host = host(runtime(), Policy::default());
    // Ten lines a second: the rest of a test that takes less than an hour is dropped.
    let _x = load(&host, "a.x", "[limits]\noutput-rate = '1000B'", Grant::Nothing).await;
    print(&host, 10).await;
    assert_eq!(seen(&host), (10, 0));
    print(&host, 50_000).await;
    let (printed, dropped) = seen(&host);
    assert_eq!(printed, 50_010);
    assert!((14_000..=50_000).contains(&dropped), "{dropped}");
}

#[tokio::test]
async fn the_rate_changes_at_once_and_is_cut_by_the_policy() {
    let host = host(runtime(), Policy { limits: rate(1 << 20), ..Policy::default() });
    let _x = load(&host, "a.x", "", Grant::Nothing).await;
    assert_eq!(host.limits("a.x").unwrap().output_rate, Some(ByteSize(1 << 20)));
    print(&host, 100).await;
    assert_eq!(seen(&host), (100, 0));
    host.set_limits("a.x", &rate(0)).unwrap();
    print(&host, 100).await;
    assert_eq!(seen(&host), (200, 100));
    host.reload("a.x").await.unwrap();
    print(&host, 100).await;
    assert_eq!(seen(&host), (100, 100));
    host.set_limits("a.x", &rate(1 << 30)).unwrap();
    assert_eq!(host.limits("a.x").unwrap().output_rate, Some(ByteSize(1 << 20)));
    // What may pass adds up from now on: more than these lines need.
    tokio::time::sleep(Duration::from_millis(50)).await;
    print(&host, 100).await;
    assert_eq!(seen(&host), (200, 100));
}
