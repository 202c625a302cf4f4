//! What is counted of each method, and what monitoring systems read of it.

use std::collections::BTreeMap;

use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{Dispatcher, Grant, MockRuntime, Outcome, Policy, State, prometheus};
use tempfile::TempDir;

use crate::common::{call, forever, host, load, until};

/// A name that has to be escaped.
const ODD: &str = "a\"b\\c\nd";

async fn start() -> (Dispatcher, TempDir) {
    let fail = |_: &_, _| Error::new(ErrorCode::ExtensionError, "no").into();
    let runtime = MockRuntime::new()
        .echo("echo")
        .echo(ODD)
        .echo("idle")
        .method("fail", fail)
        .method("wait", |_, _| forever());
    let host = host(runtime, Policy::default());
    let dir = load(&host, "a.x", "", Grant::Requested).await;
    (host, dir)
}

#[tokio::test]
async fn each_method_is_counted_apart() {
    let (host, _dir) = start().await;
    for _ in 0..3 {
        call(&host, "a.x", "echo").await.unwrap();
    }
    call(&host, "a.x", "fail").await.unwrap_err();
    // What is not in the contract makes no series.
    call(&host, "a.x", "none").await.unwrap_err();
    let waiting = tokio::spawn({
        let host = host.clone();
        async move { call(&host, "a.x", "wait").await }
    });
    until(|| async { host.metrics("a.x").unwrap().total.in_flight == 1 }).await;
    let metrics = host.metrics("a.x").unwrap();
    let names: Vec<&str> = metrics.methods.keys().map(String::as_str).collect();
    assert_eq!(names, ["echo", "fail", "wait"]);
    let of = |name: &str| {
        let method = &metrics.methods[name];
        (method.total.calls, method.total.errors, method.total.in_flight)
    };
    assert_eq!([of("echo"), of("fail"), of("wait")], [(3, 0, 0), (1, 1, 0), (0, 0, 1)]);
    assert_eq!(metrics.methods["fail"].errors_by_code, BTreeMap::from([("extension_error", 1)]));
    assert_eq!((metrics.total.calls, metrics.total.errors), (4, 1));
    assert_eq!((metrics.state, metrics.restarts, metrics.generation > 0), (State::Running, 0, true));
    assert!(metrics.last.is_some() && metrics.queue_depth > 0);
    let echo = &metrics.methods["echo"];
    assert!(echo.total.p50 <= echo.total.p90 && echo.total.p90 <= echo.total.p99);
    assert_eq!(echo.buckets.last().unwrap().calls, 3);
    waiting.abort();
    until(|| async { host.metrics("a.x").unwrap().methods["wait"].errors_by_code.contains_key("cancelled") })
        .await;
    assert_eq!(host.metrics("a.x").unwrap().methods["wait"].total.in_flight, 0);
    assert_eq!(host.metrics("a.y").unwrap_err().code, ErrorCode::UnknownExtension);
    host.reload("a.x").await.unwrap();
    assert!(host.metrics("a.x").unwrap().methods.is_empty());
}

#[tokio::test]
async fn prometheus_reads_what_is_counted() {
    let (host, _dir) = start().await;
    call(&host, "a.x", "fail").await.unwrap_err();
    call(&host, "a.x", ODD).await.unwrap();
    call(&host, "a.x", ODD).await.unwrap();
    let text = prometheus(host.all_metrics());
    let lines = [
        r#"# TYPE quadriga_calls_total counter"#,
        r#"quadriga_calls_total{extension="a.x",method="a\"b\\c\nd",runtime="mock"} 2"#,
        r#"quadriga_call_errors_total{extension="a.x",method="fail",runtime="mock",code="extension_error"} 1"#,
        r#"quadriga_calls_in_flight{extension="a.x",method="fail",runtime="mock"} 0"#,
        r#"# TYPE quadriga_call_duration_seconds histogram"#,
        r#"quadriga_call_duration_seconds_bucket{extension="a.x",method="a\"b\\c\nd",runtime="mock",le="+Inf"} 2"#,
        r#"quadriga_call_duration_seconds_count{extension="a.x",method="a\"b\\c\nd",runtime="mock"} 2"#,
        r#"quadriga_extension_ready{extension="a.x",runtime="mock"} 1.0"#,
        r#"quadriga_extension_restarts_total{extension="a.x",runtime="mock"} 0.0"#,
        r#"quadriga_extension_info{extension="a.x",runtime="mock",version="1.2.3",isolation="in-process",state="running"} 1"#,
    ];
    for line in lines {
        assert!(text.lines().any(|there| there == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("idle"), "a series for what was never called:\n{text}");
    // The bounds grow, and so do the counts.
    let buckets: Vec<(f64, u64)> = text
        .lines()
        .filter_map(|line| {
            line.strip_prefix(r#"quadriga_call_duration_seconds_bucket{extension="a.x",method="fail","#)
        })
        .map(|rest| {
            let (le, count) = rest.split_once("le=\"").unwrap().1.split_once("\"} ").unwrap();
            (if le == "+Inf" { f64::INFINITY } else { le.parse().unwrap() }, count.parse().unwrap())
        })
        .collect();
    assert_eq!(buckets.len(), 15);
    assert!(buckets.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 <= pair[1].1), "{buckets:?}");
    assert_eq!(buckets.last().unwrap().1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_of_many_threads_are_all_counted() {
    let host = host(
        MockRuntime::new().echo("a").method("b", |_, call| Outcome::Ready(Ok(call.envelope.payload))),
        Policy::default(),
    );
    let _dir = load(&host, "a.x", "", Grant::Requested).await;
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..500 {
                    quadriga_core::block_on(call(&host, "a.x", "a")).unwrap();
                    quadriga_core::block_on(call(&host, "a.x", "b")).unwrap();
                }
            });
        }
    });
    let metrics = host.metrics("a.x").unwrap();
    let counts =
        ["a", "b"].map(|name| (metrics.methods[name].total.calls, metrics.methods[name].total.in_flight));
    assert_eq!(counts, [(2000, 0), (2000, 0)]);
    assert_eq!(metrics.total.calls, 4000);
}
