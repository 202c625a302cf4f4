//! What is told of each extension, whoever reads it.

use super::ExtensionMetrics;
use crate::State;

/// One number of each extension.
pub(crate) struct Series {
    /// Its name for Prometheus, without the `_total` of counters.
    pub(crate) prometheus: &'static str,
    /// Its name and unit for OpenTelemetry.
    #[cfg(feature = "otlp")]
    pub(crate) otlp: (&'static str, &'static str),
    pub(crate) help: &'static str,
    pub(crate) value: fn(&ExtensionMetrics) -> Option<f64>,
}

const fn series(
    prometheus: &'static str,
    otlp: (&'static str, &'static str),
    help: &'static str,
    value: fn(&ExtensionMetrics) -> Option<f64>,
) -> Series {
    #[cfg(not(feature = "otlp"))]
    let _ = otlp;
    Series {
        prometheus,
        #[cfg(feature = "otlp")]
        otlp,
        help,
        value,
    }
}

/// They only grow. The first begins anew with the extension, the others with each generation of it.
pub(crate) const COUNTERS: [Series; 6] = [
    series(
        "quadriga_extension_restarts",
        ("quadriga.extension.restarts", "{restart}"),
        "Starts after the instance had ended.",
        |it| Some(it.restarts.into()),
    ),
    series(
        "quadriga_extension_cpu_seconds",
        ("quadriga.extension.cpu", "s"),
        "Processor time of the worker processes.",
        |it| it.usage.cpu_time.map(|time| time.as_secs_f64()),
    ),
    series(
        "quadriga_extension_denials",
        ("quadriga.extension.denials", "{access}"),
        "Accesses that were denied.",
        |it| Some(it.denied as f64),
    ),
    series(
        "quadriga_extension_sent_bytes",
        ("quadriga.extension.sent", "By"),
        "Bytes sent over the network.",
        |it| Some(it.egress as f64),
    ),
    series(
        "quadriga_extension_received_bytes",
        ("quadriga.extension.received", "By"),
        "Bytes got over the network.",
        |it| Some(it.ingress as f64),
    ),
    series(
        "quadriga_extension_spawns",
        ("quadriga.extension.spawns", "{attempt}"),
        "Attempts to start programs.",
        |it| Some(it.spawns as f64),
    ),
];

/// How it is now.
pub(crate) const GAUGES: [Series; 8] = [
    series("quadriga_extension_ready", ("quadriga.extension.ready", "1"), "Whether it takes calls.", |it| {
        Some(f64::from(matches!(it.state, State::Running | State::Throttled | State::Asleep)))
    }),
    series(
        "quadriga_extension_memory_bytes",
        ("quadriga.extension.memory", "By"),
        "Memory, where the engine can tell.",
        |it| it.usage.memory.map(|bytes| bytes as f64),
    ),
    series(
        "quadriga_extension_instances",
        ("quadriga.extension.instances", "{instance}"),
        "Engine instances or workers.",
        |it| Some(it.usage.instances.into()),
    ),
    series(
        "quadriga_extension_uptime_seconds",
        ("quadriga.extension.uptime", "s"),
        "How long the instance has been there.",
        |it| Some(it.uptime.as_secs_f64()),
    ),
    series(
        "quadriga_extension_queue_depth",
        ("quadriga.extension.queue_depth", "{call}"),
        "Calls that may be in flight and wait together.",
        |it| Some(it.queue_depth.into()),
    ),
    series(
        "quadriga_extension_kept_events",
        ("quadriga.extension.kept_events", "{event}"),
        "Events that are kept for it and wait.",
        |it| Some(it.kept_events as f64),
    ),
    series(
        "quadriga_extension_dead_letters",
        ("quadriga.extension.dead_letters", "{event}"),
        "Events that were kept for it and given up.",
        |it| Some(it.dead_letters as f64),
    ),
    series(
        "quadriga_extension_last_call_timestamp_seconds",
        ("quadriga.extension.last_call", "s"),
        "When a call finished last.",
        |it| {
            let since = it.last?.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(since.as_secs_f64())
        },
    ),
];
