//! Metrics in the text format of Prometheus, version 0.0.4:
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::fmt;

use prometheus_client::collector::Collector;
pub use prometheus_client::encoding::prometheus_text::CONTENT_TYPE as PROMETHEUS_TYPE;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet, prometheus_text};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Registry;

use super::{COUNTERS, ExtensionMetrics, GAUGES, MethodMetrics};

/// Writes metrics for Prometheus, to be sent as [`PROMETHEUS_TYPE`]. There is one series for each method
/// that an extension exports and that was called.
pub fn prometheus(metrics: Vec<ExtensionMetrics>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(All(metrics)));
    let mut text = String::new();
    // A string takes all that is written to it.
    let _ = prometheus_text::encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct All(Vec<ExtensionMetrics>);

impl All {
    /// Each method that was called, with its labels.
    fn methods(&self) -> impl Iterator<Item = ([(&'static str, &str); 3], &MethodMetrics)> {
        self.0.iter().flat_map(|it| {
            let labels = |method| {
                [("extension", it.id.as_str()), ("method", method), ("runtime", it.runtime.as_str())]
            };
            it.methods.iter().map(move |(name, method)| (labels(name.as_str()), method))
        })
    }
}

impl Collector for All {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let mut family =
            out.encode_descriptor("quadriga_calls", "Calls that finished.", None, MetricType::Counter)?;
        for (labels, method) in self.methods() {
            ConstCounter::new(method.total.calls).encode(family.encode_family(&labels)?)?;
        }
        let help = "Calls that finished with an error.";
        let mut family = out.encode_descriptor("quadriga_call_errors", help, None, MetricType::Counter)?;
        for ([extension, name, runtime], method) in self.methods() {
            for (code, count) in &method.errors_by_code {
                let labels = [extension, name, runtime, ("code", code)];
                ConstCounter::new(*count).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Calls that have not finished.";
        let mut family = out.encode_descriptor("quadriga_calls_in_flight", help, None, MetricType::Gauge)?;
        for (labels, method) in self.methods() {
            ConstGauge::new(i64::from(method.total.in_flight)).encode(family.encode_family(&labels)?)?;
        }
        let (name, help) = ("quadriga_call_duration_seconds", "How long calls took.");
        let mut family = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, method) in self.methods() {
            let mut below = 0;
            let buckets = method.buckets.iter().map(|bucket| {
                let inside = bucket.calls - std::mem::replace(&mut below, bucket.calls);
                (bucket.at_most.as_secs_f64(), inside)
            });
            let (buckets, sum): (Vec<(f64, u64)>, _) = (buckets.collect(), method.duration.as_secs_f64());
            let mut series = family.encode_family(&labels)?;
            series.encode_histogram::<NoLabelSet>(sum, method.total.calls, &buckets, None)?;
        }
        let help = "What is loaded, and how far it is in its life.";
        let mut family = out.encode_descriptor("quadriga_extension_info", help, None, MetricType::Gauge)?;
        for it in &self.0 {
            let (version, isolation, state) =
                (it.version.to_string(), it.isolation.to_string(), it.state.to_string());
            let labels = [
                ("extension", it.id.as_str()),
                ("runtime", it.runtime.as_str()),
                ("version", &version),
                ("isolation", &isolation),
                ("state", &state),
            ];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        let counters = COUNTERS.iter().map(|it| (it, MetricType::Counter));
        for (series, kind) in counters.chain(GAUGES.iter().map(|it| (it, MetricType::Gauge))) {
            let mut family = out.encode_descriptor(series.prometheus, series.help, None, kind)?;
            for it in &self.0 {
                let Some(value) = (series.value)(it) else { continue };
                let labels = [("extension", it.id.as_str()), ("runtime", it.runtime.as_str())];
                let encoded = family.encode_family(&labels)?;
                match kind {
                    MetricType::Counter => ConstCounter::new(value).encode(encoded)?,
                    _ => ConstGauge::new(value).encode(encoded)?,
                }
            }
        }
        Ok(())
    }
}
