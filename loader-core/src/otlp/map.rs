//! Metrics as messages of OTLP:
//! <https://opentelemetry.io/docs/specs/otel/metrics/data-model/>.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics,
    ScopeMetrics, Sum,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use quadriga_abi::ExtensionId;

use crate::metrics::{BEGUN, COUNTERS, GAUGES, Series};
use crate::{ExtensionMetrics, MethodMetrics};

/// Nanoseconds since 1970.
type Nanos = u64;

/// Knows since when things are counted.
pub(super) struct Mapper {
    resource: Resource,
    seen: HashMap<ExtensionId, Seen>,
}

/// What was told of an extension last.
struct Seen {
    generation: u64,
    /// Since when its calls are counted.
    since: Nanos,
    restarts: u32,
    /// Since when those are.
    restarts_since: Nanos,
}

impl Mapper {
    pub(super) fn new(attributes: &[(String, String)]) -> Self {
        let attributes = attributes.iter().map(|(key, value)| text(key, value)).collect();
        Self { resource: Resource { attributes, ..Resource::default() }, seen: HashMap::new() }
    }

    /// What is so at a moment. Sums are those since their start, and a start changes when counting begins
    /// anew: with each generation of an extension.
    pub(super) fn message(
        &mut self,
        all: &[ExtensionMetrics],
        now: SystemTime,
    ) -> ExportMetricsServiceRequest {
        self.look(all, now);
        let now = nanos(now);
        let mut metrics = self.calls(all, now);
        for (place, series) in COUNTERS.iter().enumerate() {
            let since = |it: &ExtensionMetrics| self.since(it, place == 0);
            metrics.push(metric(series.otlp, series.help, growing(points(series, all, now, since))));
        }
        for series in &GAUGES {
            let data_points = points(series, all, now, |_| 0);
            metrics.push(metric(series.otlp, series.help, Data::Gauge(Gauge { data_points })));
        }
        metrics.retain(|it| !is_empty(it));
        let scope = InstrumentationScope {
            name: "quadriga".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ..InstrumentationScope::default()
        };
        let scope = ScopeMetrics { scope: Some(scope), metrics, schema_url: String::new() };
        let resource = Some(self.resource.clone());
        let resource_metrics =
            vec![ResourceMetrics { resource, scope_metrics: vec![scope], schema_url: String::new() }];
        ExportMetricsServiceRequest { resource_metrics }
    }

    /// Notices what began anew.
    fn look(&mut self, all: &[ExtensionMetrics], now: SystemTime) {
        self.seen.retain(|id, _| all.iter().any(|it| it.id == *id));
        for it in all {
            let begun = nanos(now.checked_sub(it.uptime).unwrap_or(UNIX_EPOCH));
            let seen = self.seen.entry(it.id.clone()).or_insert_with(|| Seen {
                generation: it.generation,
                since: begun,
                restarts: it.restarts,
                restarts_since: nanos(BEGUN.1).min(begun),
            });
            if seen.generation != it.generation {
                (seen.generation, seen.since) = (it.generation, begun);
            }
            if seen.restarts > it.restarts {
                seen.restarts_since = begun;
            }
            seen.restarts = it.restarts;
        }
    }

    fn since(&self, it: &ExtensionMetrics, restarts: bool) -> Nanos {
        self.seen.get(&it.id).map_or(0, |seen| if restarts { seen.restarts_since } else { seen.since })
    }

    /// What is counted by method.
    fn calls(&self, all: &[ExtensionMetrics], now: Nanos) -> Vec<Metric> {
        let (mut calls, mut errors) = (Vec::new(), Vec::new());
        let (mut in_flight, mut durations) = (Vec::new(), Vec::new());
        for it in all {
            let since = self.since(it, false);
            for (name, method) in &it.methods {
                let mut attributes = of(it);
                attributes.push(text("method", name));
                for (code, count) in &method.errors_by_code {
                    let mut attributes = attributes.clone();
                    attributes.push(text("code", code));
                    errors.push(point(attributes, since, now, int(*count)));
                }
                calls.push(point(attributes.clone(), since, now, int(method.total.calls)));
                in_flight.push(point(attributes.clone(), 0, now, int(method.total.in_flight.into())));
                durations.push(histogram(method, attributes, since, now));
            }
        }
        let duration = Data::Histogram(Histogram {
            data_points: durations,
            aggregation_temporality: AggregationTemporality::Cumulative.into(),
        });
        let calls_of = |name| (name, "{call}");
        vec![
            metric(calls_of("quadriga.call.count"), "Calls that finished.", growing(calls)),
            metric(calls_of("quadriga.call.errors"), "Calls that finished with an error.", growing(errors)),
            metric(
                calls_of("quadriga.call.in_flight"),
                "Calls that have not finished.",
                Data::Gauge(Gauge { data_points: in_flight }),
            ),
            metric(("quadriga.call.duration", "s"), "How long calls took.", duration),
        ]
    }
}

fn points(
    series: &Series,
    all: &[ExtensionMetrics],
    now: Nanos,
    since: impl Fn(&ExtensionMetrics) -> Nanos,
) -> Vec<NumberDataPoint> {
    let number = |value: f64| match series.otlp.1 {
        "s" => Number::AsDouble(value),
        _ => int(value as u64),
    };
    let point = |it: &ExtensionMetrics| Some(point(of(it), since(it), now, number((series.value)(it)?)));
    all.iter().filter_map(point).collect()
}

fn of(it: &ExtensionMetrics) -> Vec<KeyValue> {
    vec![text("extension", it.id.as_str()), text("runtime", it.runtime.as_str())]
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = AnyValue { value: Some(Value::StringValue(value.to_owned())) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn int(value: u64) -> Number {
    Number::AsInt(i64::try_from(value).unwrap_or(i64::MAX))
}

fn point(attributes: Vec<KeyValue>, since: Nanos, now: Nanos, value: Number) -> NumberDataPoint {
    NumberDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        value: Some(value),
        ..NumberDataPoint::default()
    }
}

/// The last bucket is for what is above all bounds.
fn histogram(
    method: &MethodMetrics,
    attributes: Vec<KeyValue>,
    since: Nanos,
    now: Nanos,
) -> HistogramDataPoint {
    let mut below = 0;
    let mut inside = |calls: u64| calls.saturating_sub(std::mem::replace(&mut below, calls));
    let mut bucket_counts: Vec<u64> = method.buckets.iter().map(|it| inside(it.calls)).collect();
    bucket_counts.push(inside(method.total.calls));
    HistogramDataPoint {
        attributes,
        start_time_unix_nano: since,
        time_unix_nano: now,
        count: method.total.calls,
        sum: Some(method.duration.as_secs_f64()),
        bucket_counts,
        explicit_bounds: method.buckets.iter().map(|it| it.at_most.as_secs_f64()).collect(),
        ..HistogramDataPoint::default()
    }
}

fn growing(data_points: Vec<NumberDataPoint>) -> Data {
    Data::Sum(Sum {
        data_points,
        aggregation_temporality: AggregationTemporality::Cumulative.into(),
        is_monotonic: true,
    })
}

fn metric((name, unit): (&str, &str), help: &str, data: Data) -> Metric {
    let (name, description, unit) = (name.to_owned(), help.to_owned(), unit.to_owned());
    Metric { name, description, unit, data: Some(data), ..Metric::default() }
}

fn is_empty(metric: &Metric) -> bool {
    match &metric.data {
        Some(Data::Sum(sum)) => sum.data_points.is_empty(),
        Some(Data::Gauge(gauge)) => gauge.data_points.is_empty(),
        Some(Data::Histogram(histogram)) => histogram.data_points.is_empty(),
        _ => true,
    }
}

fn nanos(time: SystemTime) -> Nanos {
    let since: Duration = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
