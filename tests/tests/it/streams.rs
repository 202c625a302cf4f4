//! Streams between the host and every runtime, and between every two of them.

use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, ErrorCode, Isolation, StreamMark, Value};
use quadriga::{CallOptions, Dispatcher, Feed, Items, Policy};
use quadriga_tests::{granted, guest, host};
use serde::Serialize;

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

fn flow(language: &str) -> String {
    format!("flow.{language}")
}

async fn flows() -> Dispatcher {
    let host = host();
    for language in LANGUAGES {
        host.load(guest("flow", language), granted()).await.expect(language);
    }
    host
}

fn encoded(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec(value).unwrap().into()
}

fn stream(host: &Dispatcher, language: &str, method: &str, arguments: &impl Serialize) -> Items {
    host.stream(&flow(language), method, encoded(arguments), CallOptions::default())
}

async fn numbers(mut items: Items) -> Result<Vec<u64>, quadriga::abi::Error> {
    let mut numbers = Vec::new();
    while let Some(item) = items.next().await {
        numbers.push(rmp_serde::from_slice(&item?).unwrap());
    }
    Ok(numbers)
}

/// A stream that sends the numbers of an iterator, from a task of its own.
fn sending(numbers: impl Iterator<Item = u64> + Send + 'static) -> CallOptions {
    let (feed, input) = Feed::new();
    tokio::spawn(async move {
        for number in numbers {
            if feed.send(encoded(&number)).await.is_err() {
                return;
            }
        }
        feed.finish();
    });
    CallOptions::default().input(input)
}

/// Waits until an extension has nothing to do.
async fn idle(host: &Dispatcher, extension: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while host.status(extension).unwrap().metrics.in_flight > 0 {
        assert!(Instant::now() < until, "{extension} goes on for nobody");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn the_host_reads_every_language() {
    let host = flows().await;
    for language in LANGUAGES {
        let described = host.status(&flow(language)).unwrap().methods;
        let streams = |name: &str| described.iter().find(|method| method.name == name).unwrap().streams;
        assert_eq!(
            ["count", "blocks", "sum", "double"].map(streams),
            [true, true, false, true],
            "{language}"
        );

        let expected: Vec<u64> = (0..1000).collect();
        assert_eq!(
            numbers(stream(&host, language, "count", &(1000,))).await.unwrap(),
            expected,
            "{language}"
        );
        let none = numbers(stream(&host, language, "count", &(0,))).await.unwrap();
        assert_eq!(none, [0; 0], "{language}");
        let whole: Vec<u64> = host.invoke(&flow(language), "count", &(1000,)).await.unwrap();
        assert_eq!(whole, expected, "{language}: as a whole");
        let metrics = host.status(&flow(language)).unwrap().metrics;
        assert_eq!((metrics.calls, metrics.errors, metrics.in_flight), (3, 0, 0), "{language}");
    }
}

#[tokio::test]
async fn the_host_sends_to_every_language() {
    let host = flows().await;
    for language in LANGUAGES {
        let id = flow(language);
        let reply = host.call(&id, "sum", encoded(&(StreamMark,)), sending(0..1000)).await.unwrap();
        assert_eq!(rmp_serde::from_slice::<u64>(&reply).unwrap(), 499_500, "{language}");

        // The callee has heard enough: the producer is told, and ends.
        let reply = host.call(&id, "sum_first", encoded(&(StreamMark, 4)), sending(0..)).await.unwrap();
        assert_eq!(rmp_serde::from_slice::<u64>(&reply).unwrap(), 6, "{language}");

        let items = host.stream(&id, "double", encoded(&(StreamMark,)), sending(0..1000));
        let expected: Vec<u64> = (0..1000).map(|n| 2 * n).collect();
        assert_eq!(numbers(items).await.unwrap(), expected, "{language}: there and back at once");
    }
}

#[tokio::test]
async fn every_language_reads_and_sends_to_every_language() {
    let host = flows().await;
    for from in LANGUAGES {
        for to in LANGUAGES {
            let case = format!("{from} and {to}");
            let (id, other) = (flow(from), flow(to));
            let total: u64 = host.invoke(&id, "total", &(&other, 1000)).await.expect(&case);
            assert_eq!(total, 499_500, "{case}");
            let first: Vec<u64> = host.invoke(&id, "first", &(&other, 5)).await.expect(&case);
            assert_eq!(first, [0, 1, 2, 3, 4], "{case}");
            let sent: u64 = host.invoke(&id, "send", &(&other, 1000)).await.expect(&case);
            assert_eq!(sent, 499_500, "{case}");
            let heard: u64 = host.invoke(&id, "send_endless", &(&other, 4)).await.expect(&case);
            assert_eq!(heard, 6, "{case}");
            let whole: Vec<u64> = host.invoke(&id, "whole", &(&other, 5)).await.expect(&case);
            assert_eq!(whole, [0, 1, 2, 3, 4], "{case}");
            let error = host.invoke::<u64>(&id, "read_broken", &(&other, 5)).await.expect_err(&case);
            let origin = error.chain().last().unwrap();
            assert!(origin.message.contains("the source ran dry"), "{case}: {error:?}");
            assert_eq!(origin.extension.as_deref(), Some(other.as_str()), "{case}: {error:?}");
            idle(&host, &other).await;
        }
    }
}

#[tokio::test]
async fn an_error_comes_after_the_items_before_it() {
    let host = flows().await;
    for language in LANGUAGES {
        let mut items = stream(&host, language, "broken", &(3,));
        for n in 0..3_u64 {
            assert_eq!(items.next().await.unwrap().unwrap(), encoded(&n), "{language}");
        }
        let error = items.next().await.unwrap().unwrap_err();
        assert!(error.message.contains("the source ran dry"), "{language}: {error:?}");
        assert!(error.stack.is_some(), "{language}: {error:?}");
        assert!(items.next().await.is_none(), "{language}");
    }
}

#[tokio::test]
async fn a_consumer_that_goes_away_stops_the_producer() {
    let host = flows().await;
    for language in LANGUAGES {
        let mut items = stream(&host, language, "count", &(u64::MAX,));
        for n in 0..10_u64 {
            assert_eq!(items.next().await.unwrap().unwrap(), encoded(&n), "{language}");
        }
        drop(items);
        idle(&host, &flow(language)).await;
        let sum: Vec<u64> = host.invoke(&flow(language), "count", &(3,)).await.unwrap();
        assert_eq!(sum, [0, 1, 2], "{language}");
    }
}

#[tokio::test]
async fn a_deadline_ends_a_stream_that_nobody_reads() {
    let host = flows().await;
    for language in LANGUAGES {
        let options = CallOptions::default().timeout(Duration::from_millis(200));
        let mut items = host.stream(&flow(language), "count", encoded(&(u64::MAX,)), options);
        tokio::time::sleep(Duration::from_millis(300)).await;
        let end = loop {
            if let Some(Err(error)) = items.next().await {
                break error;
            }
        };
        assert_eq!(end.code, ErrorCode::DeadlineExceeded, "{language}: {end:?}");
        idle(&host, &flow(language)).await;
    }
}

#[tokio::test]
async fn methods_without_streams_are_told_apart() {
    let host = flows().await;
    for language in LANGUAGES {
        let other = flow(if language == "js" { "native" } else { "js" });
        let arguments = encoded(&(other, 10));
        let mut items = host.stream(&flow(language), "total", arguments, CallOptions::default());
        assert_eq!(items.next().await.unwrap().unwrap(), encoded(&45), "{language}: the one result");
        assert!(items.next().await.is_none(), "{language}");
        let none = encoded(&(StreamMark,));
        let error = host.call(&flow(language), "sum", none, CallOptions::default()).await.unwrap_err();
        assert!(error.message.contains("stream"), "{language}: {error:?}");
    }
    let error = host.invoke::<Value>("flow.js", "count", &()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments);
}

#[tokio::test]
async fn a_stream_that_is_too_large_as_a_whole_is_refused() {
    let policy = Policy { minimum_isolation: Isolation::None, message_size: 64 << 10, ..Policy::default() };
    let host = quadriga::builder().policy(policy).build().unwrap();
    for language in LANGUAGES {
        host.load(guest("flow", language), granted()).await.expect(language);
        let endless = encoded(&(u64::MAX,));
        let error = host.call(&flow(language), "count", endless, CallOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::MessageTooLarge, "{language}: {error:?}");
    }
}

/// Bytes that this process keeps in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

async fn slow_ten_gigabytes(language: &str) {
    const BLOCK: u64 = 60_000;
    const BLOCKS: u64 = 10_000_000_000 / BLOCK;
    let host = host();
    host.load(guest("flow", language), granted()).await.unwrap();
    let mut items = stream(&host, language, "blocks", &(BLOCKS, BLOCK));
    let (mut read, mut most) = (0, 0);
    let mut least = u64::MAX;
    while let Some(item) = items.next().await {
        read += item.unwrap().len() as u64;
        // The engine's own heap grows to its working size first.
        if read > 100_000_000 && (read / BLOCK).is_multiple_of(1000) {
            let now = resident();
            (least, most) = (least.min(now), most.max(now));
        }
    }
    assert!(read > BLOCKS * BLOCK, "{read}");
    // An engine with a garbage collector lets go of old blocks in its own time.
    assert!(most - least < 256 << 20, "memory went from {least} to {most} bytes");
}

#[tokio::test]
async fn slow_ten_gigabytes_from_js() {
    slow_ten_gigabytes("js").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_python() {
    slow_ten_gigabytes("python").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_wasm() {
    slow_ten_gigabytes("wasm").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_native() {
    slow_ten_gigabytes("native").await;
}
