//! A host that pushes its metrics to a collector, by command.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use prost::Message as _;
use serde_json::Value as Json;

use crate::cli::command;
use crate::manage::Place;

/// A collector that answers 503 to the first message, and takes the others.
fn collector() -> (String, mpsc::Receiver<ExportMetricsServiceRequest>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        for (place, client) in listener.incoming().enumerate() {
            let mut client = client.unwrap();
            let Some(message) = read(&mut client) else { continue };
            let status = if place == 0 { "503 x\r\nretry-after: 0" } else { "200 x" };
            // The host may have ended.
            let _ = write!(client, "HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            if place > 0 && send.send(message).is_err() {
                return;
            }
        }
    });
    (url, receive)
}

fn read(client: &mut TcpStream) -> Option<ExportMetricsServiceRequest> {
    let mut reader = BufReader::new(client);
    let mut length = 0;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some(text) = line.to_lowercase().strip_prefix("content-length: ") {
            length = text.trim().parse().unwrap();
        }
        match line.trim() {
            "" if line.is_empty() => return None,
            "" => break,
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(ExportMetricsServiceRequest::decode(&*body).unwrap())
}

/// Ends with the test.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn text(attributes: &[KeyValue], wanted: &str) -> String {
    let value =
        attributes.iter().find(|it| it.key == wanted).and_then(|it| it.value.as_ref()?.value.as_ref());
    match value {
        Some(Value::StringValue(text)) => text.clone(),
        other => panic!("{wanted} is {other:?}"),
    }
}

/// Calls by extension and method.
fn calls(message: &ExportMetricsServiceRequest) -> BTreeMap<String, u64> {
    let metrics = &message.resource_metrics[0].scope_metrics[0].metrics;
    let Some(metric) = metrics.iter().find(|it| it.name == "quadriga.call.count") else {
        return BTreeMap::new();
    };
    let Some(Data::Sum(sum)) = &metric.data else { panic!("{metric:?}") };
    let of =
        |attributes: &[KeyValue]| format!("{} {}", text(attributes, "extension"), text(attributes, "method"));
    let count = |value: &Option<Number>| match value {
        Some(Number::AsInt(count)) => u64::try_from(*count).unwrap(),
        other => panic!("{other:?}"),
    };
    sum.data_points.iter().map(|it| (of(&it.attributes), count(&it.value))).collect()
}

#[test]
fn a_host_pushes_what_its_metrics_say() {
    let place = Place::new();
    let packages = ["js", "python"].map(|language| place.package(language, "0.1.0"));
    place.json(&["install", &packages[0], &packages[1], "--enable", "--grant", "requested"]);
    let (url, got) = collector();
    let mut command = command();
    command.current_dir(place.0.path()).env("QUADRIGA_HOME", place.home());
    command.env("OTEL_METRIC_EXPORT_INTERVAL", "50").env("OTEL_SERVICE_NAME", "the-test");
    command.args(["run", "--otlp", &url, "--json", "--drain", "2s"]);
    let mut host = Host(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
    let mut events = BufReader::new(host.0.stdout.take().unwrap());
    let mut until = |event: &str| loop {
        let mut line = String::new();
        assert!(events.read_line(&mut line).unwrap() > 0, "it ended before {event}");
        let said: Json = serde_json::from_str(&line).unwrap();
        if said["event"] == event {
            return said;
        }
    };
    assert_eq!(until("otlp")["url"], format!("{url}/v1/metrics"));
    until("ready");
    let call = |id: &str| {
        let request = serde_json::json!({
            "v": 1, "request": "call", "id": id, "method": "greet", "arguments": ["Ada"],
        });
        let mut client = std::os::unix::net::UnixStream::connect(place.home().join("run/host.sock")).unwrap();
        client.write_all(format!("{request}\n").as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(client).read_line(&mut line).unwrap();
        assert!(line.contains("Hello, Ada"), "{line}");
    };
    call("hello.js");
    call("hello.js");
    call("hello.python");
    let metrics = place.json(&["metrics"]);
    let mut expected = BTreeMap::new();
    for extension in metrics.as_array().unwrap() {
        for (method, it) in extension["methods"].as_object().unwrap() {
            let name = format!("{} {method}", extension["id"].as_str().unwrap());
            expected.insert(name, it["calls"].as_u64().unwrap());
        }
    }
    assert_eq!(expected.values().copied().collect::<Vec<_>>(), [2, 1]);
    let message = loop {
        let message = got.recv().unwrap();
        if calls(&message) == expected {
            break message;
        }
    };
    let resource = message.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(text(&resource.attributes, "service.name"), "the-test");
    assert_eq!(text(&resource.attributes, "service.version"), env!("CARGO_PKG_VERSION"));
    // The last message has what was counted up to the end.
    call("hello.python");
    assert!(Command::new("kill").args(["-TERM", &host.0.id().to_string()]).status().unwrap().success());
    until("stopped");
    assert_eq!(host.0.wait().unwrap().code(), Some(0));
    let last = got.try_iter().last().unwrap();
    assert_eq!(calls(&last)["hello.python greet"], 2);
    // What cannot be done is said before anything is.
    for (url, code) in [("grpc://127.0.0.1", "invalid_arguments"), ("127.0.0.1:4318", "invalid_arguments")] {
        assert_eq!(place.fails(&["run", "--otlp", url]), code);
    }
}
