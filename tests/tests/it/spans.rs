//! What a subscriber of the host sees: a span for each hop, in one distributed trace, with what the
//! guests log inside the span of their call.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use quadriga::CallOptions;
use quadriga::abi::{TraceContext, Value};
use quadriga_tests::{granted, guest, host};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Instrument, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::{Layer, Registry};

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// The spans that were opened, and the lines that were logged inside each.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<Seen>>>);

#[derive(Clone, Default)]
struct Seen {
    id: u64,
    parent: Option<u64>,
    name: &'static str,
    fields: HashMap<&'static str, String>,
    lines: Vec<String>,
}

impl Visit for Seen {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.fields.insert(field.name(), format!("{value:?}").trim_matches('"').to_owned());
    }
}

impl Recorder {
    fn with<T>(&self, span: u64, work: impl FnOnce(&mut Seen) -> T) -> Option<T> {
        self.0.lock().unwrap().iter_mut().rev().find(|seen| seen.id == span).map(work)
    }

    fn find(&self, extension: &str, method: &str) -> Seen {
        let is = |seen: &&Seen| {
            seen.fields.get("extension").is_some_and(|name| name == extension)
                && seen.fields.get("method").is_some_and(|name| name == method)
        };
        self.0.lock().unwrap().iter().rev().find(is).cloned().expect("a span of the call")
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Recorder {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let parent = context.span(id).and_then(|span| span.parent().map(|parent| parent.id().into_u64()));
        let name = attributes.metadata().name();
        let mut seen = Seen { id: id.into_u64(), parent, name, ..Seen::default() };
        attributes.record(&mut seen);
        self.0.lock().unwrap().push(seen);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, _: Context<'_, S>) {
        self.with(id.into_u64(), |seen| values.record(seen));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() == "quadriga::guest" {
            let mut line = Seen::default();
            event.record(&mut line);
            let span = context.event_span(event).expect("a line of a guest is logged inside its call");
            self.with(span.id().into_u64(), |seen| seen.lines.extend(line.fields.remove("message")));
        }
    }
}

#[tokio::test]
async fn every_hop_has_a_span_in_one_trace_and_logs_into_it() {
    let recorder = Recorder::default();
    tracing::subscriber::set_global_default(Registry::default().with(recorder.clone())).unwrap();
    let host = host();
    for language in LANGUAGES {
        host.load(guest("relay", language), granted()).await.expect(language);
    }
    for first in 0..4 {
        let path: Vec<String> = (0..4).map(|n| format!("relay.{}", LANGUAGES[(first + n) % 4])).collect();
        // Each relays to the next, and the last one logs.
        let mut arguments = Value::List(vec![Value::Text("well met".to_owned())]);
        let mut method = "log";
        for extension in path[1..].iter().rev() {
            let target = [extension.as_str(), method].map(|name| Value::Text(name.to_owned()));
            arguments = Value::List(target.into_iter().chain([arguments]).collect());
            method = "relay";
        }
        let trace: TraceContext = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let options = CallOptions::default().trace(trace);
        let call = host.call(&path[0], "relay", arguments.to_bytes().unwrap(), options);
        call.instrument(tracing::info_span!("request")).await.unwrap();

        let mut inner = recorder.find(&path[3], "log");
        assert_eq!(inner.lines, ["well met"], "{path:?}");
        let mut traces = vec![inner.fields["traceparent"].clone()];
        for extension in path[..3].iter().rev() {
            let outer = recorder.find(extension, "relay");
            assert_eq!(inner.parent, Some(outer.id), "{path:?}: above {:?} is not {extension}", inner.fields);
            traces.push(outer.fields["traceparent"].clone());
            inner = outer;
        }
        let root = inner.parent.and_then(|id| recorder.with(id, |seen| seen.name));
        assert_eq!(root, Some("request"), "{path:?}");
        let mut spans = Vec::new();
        for text in traces {
            let here: TraceContext = text.parse().unwrap();
            assert_eq!((here.trace_id, here.flags), (trace.trace_id, trace.flags), "{path:?}");
            spans.push(here.span_id);
        }
        spans.push(trace.span_id);
        spans.sort_unstable();
        spans.dedup();
        assert_eq!(spans.len(), 5, "{path:?}: each hop is a span of its own");
    }

    host.invoke::<Value>("relay.js", "relay", &("relay.python", "fail", ["no"])).await.unwrap_err();
    let failed = recorder.find("relay.python", "fail");
    assert_eq!(failed.fields["error"], "extension_error");
}
