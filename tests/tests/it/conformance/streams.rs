//! Streams between the host and a guest, both ways.

use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, ErrorCode, Isolation, StreamMark, Value};
use quadriga::{CallOptions, Dispatcher, Feed, Items, Policy};
use serde::Serialize;

use super::subject::{self, Subject};

fn encoded(value: &impl Serialize) -> Bytes {
    rmp_serde::to_vec(value).unwrap().into()
}

fn stream(subject: &Subject, host: &Dispatcher, method: &str, arguments: &impl Serialize) -> Items {
    host.stream(&subject.guest("flow"), method, encoded(arguments), CallOptions::default())
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
pub(super) async fn idle(host: &Dispatcher, extension: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while host.status(extension).unwrap().metrics.in_flight > 0 {
        assert!(Instant::now() < until, "{extension} goes on for nobody");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn are_read(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let described = host.status(&id).unwrap().methods;
    let streams = |name: &str| described.iter().find(|method| method.name == name).unwrap().streams;
    assert_eq!(["count", "broken", "sum", "double"].map(streams), [true, true, false, true]);

    let expected: Vec<u64> = (0..1000).collect();
    assert_eq!(numbers(stream(subject, &host, "count", &(1000,))).await.unwrap(), expected);
    let none = numbers(stream(subject, &host, "count", &(0,))).await.unwrap();
    assert_eq!(none, [0; 0]);
    let whole: Vec<u64> = host.invoke(&id, "count", &(1000,)).await.unwrap();
    assert_eq!(whole, expected, "as a whole");
    let metrics = host.status(&id).unwrap().metrics;
    assert_eq!((metrics.calls, metrics.errors, metrics.in_flight), (3, 0, 0));
}

pub(super) async fn are_sent(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let reply = host.call(&id, "sum", encoded(&(StreamMark,)), sending(0..1000)).await.unwrap();
    assert_eq!(rmp_serde::from_slice::<u64>(&reply).unwrap(), 499_500);

    // The callee has heard enough: the producer is told, and ends.
    let reply = host.call(&id, "sum_first", encoded(&(StreamMark, 4)), sending(0..)).await.unwrap();
    assert_eq!(rmp_serde::from_slice::<u64>(&reply).unwrap(), 6);

    let items = host.stream(&id, "double", encoded(&(StreamMark,)), sending(0..1000));
    let expected: Vec<u64> = (0..1000).map(|n| 2 * n).collect();
    assert_eq!(numbers(items).await.unwrap(), expected, "there and back at once");
}

pub(super) async fn end_with_the_error_after_the_items_before_it(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let mut items = stream(subject, &host, "broken", &(3,));
    for n in 0..3_u64 {
        assert_eq!(items.next().await.unwrap().unwrap(), encoded(&n));
    }
    let error = items.next().await.unwrap().unwrap_err();
    assert!(error.message.contains("the source ran dry"), "{error:?}");
    assert!(error.stack.is_some(), "{error:?}");
    assert!(items.next().await.is_none());
}

pub(super) async fn stop_when_their_consumer_goes_away(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let mut items = stream(subject, &host, "count", &(u64::MAX,));
    for n in 0..10_u64 {
        assert_eq!(items.next().await.unwrap().unwrap(), encoded(&n));
    }
    drop(items);
    idle(&host, &id).await;
    let next: Vec<u64> = host.invoke(&id, "count", &(3,)).await.unwrap();
    assert_eq!(next, [0, 1, 2]);
}

pub(super) async fn end_at_the_deadline_though_nobody_reads(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let options = CallOptions::default().timeout(Duration::from_millis(200));
    let mut items = host.stream(&id, "count", encoded(&(u64::MAX,)), options);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let end = loop {
        if let Some(Err(error)) = items.next().await {
            break error;
        }
    };
    assert_eq!(end.code, ErrorCode::DeadlineExceeded, "{end:?}");
    idle(&host, &id).await;
}

pub(super) async fn are_told_apart_from_single_results(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let mut items = stream(subject, &host, "total", &(&id, 10));
    assert_eq!(items.next().await.unwrap().unwrap(), encoded(&45), "the one result");
    assert!(items.next().await.is_none());
    let none = encoded(&(StreamMark,));
    let error = host.call(&id, "sum", none, CallOptions::default()).await.unwrap_err();
    assert!(error.message.contains("stream"), "{error:?}");
    let error = host.invoke::<Value>(&id, "count", &()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error:?}");
}

pub(super) async fn that_are_too_large_as_a_whole_are_refused(subject: &Subject) {
    let policy = Policy { minimum_isolation: Isolation::None, message_size: 64 << 10, ..Policy::default() };
    let host = subject::host_of(policy);
    subject.load(&host, "flow").await;
    let endless = encoded(&(u64::MAX,));
    let error =
        host.call(&subject.guest("flow"), "count", endless, CallOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MessageTooLarge, "{error:?}");
}
