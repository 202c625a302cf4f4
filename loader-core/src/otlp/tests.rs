use std::collections::BTreeMap;
use std::fs;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{AggregationTemporality, Metric};
use quadriga_abi::{Error, ErrorCode};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;
use crate::{CallOptions, LoadOptions, MockRuntime};

/// Longer than any test.
const NEVER: Duration = Duration::from_secs(3600);

/// What a collector does about one message.
#[derive(Clone, Copy)]
enum Answer {
    /// A status, headers with their ends of lines, and a body.
    Says(u16, &'static str, &'static [u8]),
    /// Bytes that are no HTTP.
    Garbage,
    /// It closes the connection at once, and reads nothing.
    HangsUp,
    /// It never answers.
    Silent,
}

const TAKES: Answer = Answer::Says(200, "", b"");

/// What came to a collector.
struct Got {
    head: String,
    message: ExportMetricsServiceRequest,
}

/// A collector that answers as it is told, and the last answer from then on. Gives its URL.
async fn collector(answers: &'static [Answer]) -> (String, mpsc::UnboundedReceiver<Got>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, receive) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut open = Vec::new();
        for place in 0.. {
            let (mut client, _) = listener.accept().await.unwrap();
            let answer = answers[place.min(answers.len() - 1)];
            if matches!(answer, Answer::HangsUp) {
                continue;
            }
            let Some(got) = read(&mut client).await else { continue };
            // The test may be over.
            let _ = send.send(got);
            let said = match answer {
                Answer::Says(status, headers, body) => {
                    let head =
                        format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
                    [head.as_bytes(), body].concat()
                }
                Answer::Garbage => b"\x00\xff no HTTP\n\n".to_vec(),
                Answer::Silent | Answer::HangsUp => Vec::new(),
            };
            // Who asked may have had enough.
            let _ = client.write_all(&said).await;
            if said.is_empty() {
                open.push(client);
            }
        }
    });
    (url, receive)
}

async fn read(client: &mut TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|it| it == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
    let length = end + length.parse::<usize>().unwrap();
    while bytes.len() < length {
        if client.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
    }
    Some(Got { head, message: ExportMetricsServiceRequest::decode(&bytes[end..]).unwrap() })
}

fn config(url: &str, interval: Duration) -> OtlpConfig {
    OtlpConfig { interval, pause: Duration::from_millis(1), ..OtlpConfig::new(url).unwrap() }
}

/// A host with an extension that can be called.
async fn host() -> (Dispatcher, TempDir) {
    let fail = |_: &_, _| Error::new(ErrorCode::ExtensionError, "no").into();
    let runtime = MockRuntime::new().echo("echo").method("fail", fail);
    let host = Dispatcher::builder().runtime(runtime).build().unwrap();
    let dir = TempDir::new().unwrap();
    let manifest = "[extension]\nid = 'a.x'\nversion = '1.2.3'\n[runtime]\nkind = 'mock'\nentry = 'main'\n";
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("main"), "").unwrap();
    host.load(dir.path(), LoadOptions::default()).await.unwrap();
    (host, dir)
}

async fn call(host: &Dispatcher, method: &str) -> Result<(), Error> {
    host.call("a.x", method, Bytes::from_static(b"\x90"), CallOptions::default()).await.map(drop)
}

fn all(message: &ExportMetricsServiceRequest) -> BTreeMap<&str, &Metric> {
    let scope = &message.resource_metrics[0].scope_metrics[0];
    assert_eq!(scope.scope.as_ref().unwrap().name, "quadriga");
    scope.metrics.iter().map(|it| (it.name.as_str(), it)).collect()
}

fn labels(attributes: &[KeyValue]) -> String {
    let text = |it: &KeyValue| match it.value.as_ref().unwrap().value.as_ref().unwrap() {
        Value::StringValue(text) => format!("{}={text}", it.key),
        other => panic!("{other:?} is no text"),
    };
    attributes.iter().map(text).collect::<Vec<_>>().join(" ")
}

/// The numbers of a metric by their attributes, and since when each is counted.
fn numbers(message: &ExportMetricsServiceRequest, name: &str) -> BTreeMap<String, (i64, u64)> {
    let points = match all(message)[name].data.as_ref().unwrap() {
        Data::Sum(sum) => {
            assert!(sum.is_monotonic, "{name}");
            assert_eq!(sum.aggregation_temporality(), AggregationTemporality::Cumulative, "{name}");
            &sum.data_points
        }
        Data::Gauge(gauge) => &gauge.data_points,
        other => panic!("{other:?}"),
    };
    let number = |value: &Number| match value {
        Number::AsInt(value) => *value,
        Number::AsDouble(value) => *value as i64,
    };
    let point = |it: &opentelemetry_proto::tonic::metrics::v1::NumberDataPoint| {
        (labels(&it.attributes), (number(it.value.as_ref().unwrap()), it.start_time_unix_nano))
    };
    points.iter().map(point).collect()
}

fn time(message: &ExportMetricsServiceRequest) -> u64 {
    match all(message)["quadriga.extension.ready"].data.as_ref().unwrap() {
        Data::Gauge(gauge) => gauge.data_points[0].time_unix_nano,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_collector_gets_what_is_counted() {
    let (host, _dir) = host().await;
    let (url, mut got) = collector(&[TAKES]).await;
    for _ in 0..3 {
        call(&host, "echo").await.unwrap();
    }
    call(&host, "fail").await.unwrap_err();
    let mut config = config(&format!("{url}/"), NEVER);
    config.headers.push(("x-token".parse().unwrap(), "s3cret".parse().unwrap()));
    let counted = host.all_metrics();
    host.export(config).end(NEVER).await;
    let Got { head, message } = got.recv().await.unwrap();
    let head = head.to_lowercase();
    for line in ["post /v1/metrics http/1.1", "content-type: application/x-protobuf", "x-token: s3cret"] {
        assert!(head.lines().any(|there| there == line), "{line} is not in {head}");
    }
    let resource = labels(&message.resource_metrics[0].resource.as_ref().unwrap().attributes);
    assert!(resource.starts_with("service.name=quadriga service.version="), "{resource}");
    let of = |method: &str| format!("extension=a.x runtime=mock method={method}");
    let calls = numbers(&message, "quadriga.call.count");
    assert_eq!((calls.len(), calls[&of("echo")].0, calls[&of("fail")].0), (2, 3, 1));
    let errors = numbers(&message, "quadriga.call.errors");
    assert_eq!(
        errors.into_iter().map(|(at, it)| (at, it.0)).collect::<Vec<_>>(),
        [(format!("{} code=extension_error", of("fail")), 1)]
    );
    assert_eq!(numbers(&message, "quadriga.call.in_flight")[&of("echo")], (0, 0));
    let one = "extension=a.x runtime=mock";
    assert_eq!(numbers(&message, "quadriga.extension.ready")[one], (1, 0));
    assert_eq!(numbers(&message, "quadriga.extension.restarts")[one].0, 0);
    assert_eq!(all(&message)["quadriga.extension.sent"].unit, "By");
    // What the engine cannot tell is not there.
    assert!(!all(&message).contains_key("quadriga.extension.memory"));
    let duration = all(&message)["quadriga.call.duration"];
    let Some(Data::Histogram(histogram)) = &duration.data else { panic!("{duration:?}") };
    assert_eq!(histogram.aggregation_temporality(), AggregationTemporality::Cumulative);
    for point in &histogram.data_points {
        let name = labels(&point.attributes).rsplit_once('=').unwrap().1.to_owned();
        let method = &counted[0].methods[&name];
        assert_eq!((point.count, point.bucket_counts.iter().sum::<u64>()), (method.total.calls, point.count));
        assert_eq!(point.sum, Some(method.duration.as_secs_f64()));
        assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
        assert!(point.explicit_bounds.windows(2).all(|pair| pair[0] < pair[1]));
        let below: u64 = point.bucket_counts[..5].iter().sum();
        assert_eq!(below, method.buckets[4].calls);
        assert!(point.start_time_unix_nano > 0 && point.start_time_unix_nano <= point.time_unix_nano);
    }
}

#[tokio::test]
async fn messages_come_again_and_again_and_a_start_is_that_of_the_generation() {
    let (host, _dir) = host().await;
    let (url, mut got) = collector(&[TAKES]).await;
    let exporter = host.export(config(&url, Duration::from_millis(5)));
    let of = "extension=a.x runtime=mock method=echo";
    let mut next = async |count| loop {
        let message = got.recv().await.unwrap().message;
        let calls = all(&message).contains_key("quadriga.call.count");
        match calls.then(|| numbers(&message, "quadriga.call.count")[of]) {
            Some((now, since)) if now == count => break (since, time(&message)),
            _ => {}
        }
    };
    call(&host, "echo").await.unwrap();
    let (first, at) = next(1).await;
    let (again, later) = next(1).await;
    assert!(first == again && at < later);
    call(&host, "echo").await.unwrap();
    assert_eq!(next(2).await.0, first);
    host.reload("a.x").await.unwrap();
    call(&host, "echo").await.unwrap();
    let (anew, _) = next(1).await;
    assert!(anew > first);
    exporter.end(NEVER).await;
}

#[tokio::test]
async fn what_a_collector_may_take_later_is_sent_again() {
    const LATER: &[Answer] = &[
        Answer::HangsUp,
        Answer::Says(503, "retry-after: 0\r\n", b"not now"),
        Answer::Says(429, "", b""),
        Answer::Garbage,
        Answer::Says(502, "retry-after: never\r\n", b""),
        Answer::Says(504, "retry-after: Thu, 01 Jan 1970 00:00:00 GMT\r\n", b""),
        TAKES,
    ];
    let (host, _dir) = host().await;
    let (url, mut got) = collector(LATER).await;
    let exporter = host.export(config(&url, NEVER));
    call(&host, "echo").await.unwrap();
    let last = exporter.end(NEVER);
    // What ends meanwhile was counted.
    host.shutdown().await;
    last.await;
    let mut times = Vec::new();
    for _ in 1..LATER.len() {
        let message = got.recv().await.unwrap().message;
        assert_eq!(numbers(&message, "quadriga.call.count").values().next().unwrap().0, 1);
        times.push(time(&message));
    }
    times.dedup();
    assert_eq!((times.len(), got.try_recv().is_err()), (1, true));
}

#[tokio::test]
async fn what_a_collector_took_or_will_never_take_is_sent_once() {
    const ANSWERS: [&[Answer]; 6] = [
        &[Answer::Says(400, "", b"no")],
        &[Answer::Says(404, "retry-after: 0\r\n", b"")],
        &[Answer::Says(301, "location: /\r\n", b"")],
        &[Answer::Says(200, "", b"<html>all is well</html>")],
        &[Answer::Says(200, "", b"\x0a\x06\x08\x02\x12\x02no")],
        &[Answer::Says(200, "content-encoding: gzip\r\n", &[0xff; 100])],
    ];
    let (host, _dir) = host().await;
    for answers in ANSWERS {
        let (url, mut got) = collector(answers).await;
        host.export(config(&url, NEVER)).end(NEVER).await;
        assert!(got.recv().await.is_some() && got.try_recv().is_err());
    }
}

#[tokio::test]
async fn nobody_waits_for_a_collector() {
    let (host, _dir) = host().await;
    let (silent, mut got) = collector(&[Answer::Silent]).await;
    let (busy, mut refused) = collector(&[Answer::Says(503, "retry-after: 3600\r\n", b"")]).await;
    let exporters = [&silent, &busy, "http://127.0.0.1:9", "https://127.0.0.1:9"]
        .map(|url| host.export(OtlpConfig { timeout: NEVER, ..config(url, Duration::from_millis(1)) }));
    got.recv().await.unwrap();
    refused.recv().await.unwrap();
    for _ in 0..100 {
        call(&host, "echo").await.unwrap();
    }
    host.reload("a.x").await.unwrap();
    for exporter in exporters {
        exporter.end(Duration::from_millis(10)).await;
    }
    // They hold nothing that keeps the host.
    let kept = host.export(config(&silent, NEVER));
    let core = Arc::downgrade(&host.core);
    drop(host);
    assert!(core.upgrade().is_none());
    kept.end(NEVER).await;
}

#[tokio::test]
async fn an_attempt_takes_no_longer_than_it_may() {
    let (host, _dir) = host().await;
    let (url, mut got) = collector(&[Answer::Silent, TAKES]).await;
    let limited = OtlpConfig { timeout: Duration::from_millis(50), ..config(&url, NEVER) };
    host.export(limited).end(NEVER).await;
    // The second, or a later one if this machine was busy, was taken in time.
    let times: Vec<u64> = std::iter::from_fn(|| got.try_recv().ok()).map(|it| time(&it.message)).collect();
    assert!(times.len() >= 2 && times.iter().all(|it| *it == times[0]), "{times:?}");
}

#[tokio::test]
async fn who_drops_an_exporter_wants_no_last_message() {
    let (host, _dir) = host().await;
    let (url, mut got) = collector(&[TAKES]).await;
    drop(host.export(config(&url, NEVER)));
    host.export(config(&url, NEVER)).end(NEVER).await;
    assert!(got.recv().await.is_some() && got.try_recv().is_err());
}

fn from(collector: Option<&str>, set: &[(&str, &str)]) -> Result<Option<OtlpConfig>, Error> {
    OtlpConfig::from_environment(collector, |name| {
        set.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).to_owned())
    })
}

/// A collector that is named, variables, and where metrics go or the code of an error.
type Case<'a> = (Option<&'a str>, &'a [(&'a str, &'a str)], &'a str);

#[test]
fn the_environment_says_where_metrics_go() {
    const GENERAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/");
    const SPECIAL: (&str, &str) = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://d/x?y=1");
    let cases: &[Case<'_>] = &[
        (None, &[], "none"),
        (None, &[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")], "none"),
        (None, &[GENERAL], "http://c:4318/v1/metrics"),
        (None, &[GENERAL, SPECIAL], "https://d/x?y=1"),
        (Some("http://e"), &[GENERAL, SPECIAL], "http://e/v1/metrics"),
        (Some("http://[::1]:1/p/"), &[], "http://[::1]:1/p/v1/metrics"),
        (None, &[GENERAL, ("OTEL_SDK_DISABLED", "TRUE")], "none"),
        (None, &[GENERAL, ("OTEL_METRICS_EXPORTER", "none")], "none"),
        (None, &[GENERAL, ("OTEL_METRICS_EXPORTER", "otlp")], "http://c:4318/v1/metrics"),
        (Some("http://e"), &[("OTEL_SDK_DISABLED", "true")], "http://e/v1/metrics"),
        (None, &[GENERAL, ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")], "http://c:4318/v1/metrics"),
        (None, &[GENERAL, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")], "unsupported"),
        (
            None,
            &[
                GENERAL,
                ("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/json"),
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "x"),
            ],
            "unsupported",
        ),
        (Some("c:4318"), &[], "invalid_arguments"),
        (Some("ftp://c"), &[], "invalid_arguments"),
        (Some("http://"), &[], "invalid_arguments"),
        (Some("http://a:b@c"), &[], "invalid_arguments"),
        (Some("http://c c"), &[], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_METRIC_EXPORT_INTERVAL", "0")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_TIMEOUT", "1s")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_TIMEOUT", "99999999999999999999")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_HEADERS", "a")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_HEADERS", "a b=c")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_HEADERS", "a=%0a")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_RESOURCE_ATTRIBUTES", "=a")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_RESOURCE_ATTRIBUTES", "a=%ff")], "invalid_arguments"),
        (Some("http://c"), &[("OTEL_EXPORTER_OTLP_CERTIFICATE", "/none")], "invalid_arguments"),
    ];
    for (collector, set, expected) in cases {
        let said = match from(*collector, set) {
            Ok(config) => config.map_or("none".to_owned(), |config| config.endpoint()),
            Err(error) => error.code.to_string(),
        };
        assert_eq!(said, *expected, "{collector:?} {set:?}");
    }
}

#[test]
fn the_environment_says_how() {
    let config = from(
        None,
        &[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "api-key=s3cret%20x, B=1,"),
            ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "b=2"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "9"),
            ("OTEL_EXPORTER_OTLP_METRICS_TIMEOUT", "250"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "1500"),
            ("OTEL_SERVICE_NAME", "shop"),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "service.name=other,deployment.environment=a%2Cb,service.instance.id=7",
            ),
        ],
    );
    let config = config.unwrap().unwrap();
    let headers: Vec<String> =
        config.headers.iter().map(|(name, value)| format!("{name}={}", value.to_str().unwrap())).collect();
    assert_eq!(headers, ["api-key=s3cret x", "b=2"]);
    assert_eq!((config.timeout.as_millis(), config.interval.as_millis()), (250, 1500));
    let mut resource: Vec<String> =
        config.resource.iter().map(|(key, value)| format!("{key}={value}")).collect();
    resource.sort_unstable();
    let version = format!("service.version={}", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        resource,
        ["deployment.environment=a,b", "service.instance.id=7", "service.name=shop", &version]
    );
    assert!(!format!("{config:?}").contains("s3cret"));
    let other = OtlpConfig::new("http://c").unwrap();
    assert_ne!(other.resource, OtlpConfig::new("http://c").unwrap().resource);
}
