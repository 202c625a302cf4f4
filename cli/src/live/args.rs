//! What can be typed about a host that runs a home, and to it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU64;
use std::time::Duration;

use clap::{Args, ValueEnum};
use quadriga::abi::Isolation;

use crate::args::span;
use crate::home::args::HomeArgs;

/// Run what is installed and enabled, until Ctrl-C
///
/// Starts it in the order of what needs what, and ends it the other way round. Other commands ask the
/// host how it does: status, health, metrics, top. Those that change the home go through it, and hold for
/// what runs at once: install, update, grant, config and the rest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga run
  quadriga run --home ./home --metrics 9464        http://127.0.0.1:9464/metrics
  OTEL_METRIC_EXPORT_INTERVAL=5000 quadriga run --otlp http://127.0.0.1:4318
  quadriga run --lazy                              many extensions of which few are in use
  quadriga run --secret token=file:/run/secrets/token --json")]
pub(crate) struct RunArgs {
    /// Serve /metrics, /healthz and /readyz over HTTP at this port of 127.0.0.1, or at another address
    #[arg(long, value_name = "[ADDRESS:]PORT", value_parser = address)]
    pub(crate) metrics: Option<SocketAddr>,

    /// Push all metrics to an OpenTelemetry collector by OTLP over HTTP; to the one that
    /// $OTEL_EXPORTER_OTLP_ENDPOINT names, if left out and that is set
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,

    /// The weakest isolation to accept: none, in-process, process, container or vm
    #[arg(long, value_name = "LEVEL", default_value = "in-process")]
    pub(crate) isolation: Isolation,

    /// Give the extensions a secret that they are granted, as NAME=file:PATH or NAME=env:VARIABLE; may
    /// be repeated
    #[arg(long = "secret", value_name = "NAME=FROM")]
    pub(crate) secrets: Vec<String>,

    /// Load each extension only when it is first called, unless it has to be there
    #[arg(long)]
    pub(crate) lazy: bool,

    /// How long calls in flight may take to finish when the host ends
    #[arg(long, value_parser = span, default_value = "10s")]
    pub(crate) drain: Duration,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Show how the extensions of the running host do
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga status
  quadriga status acme.hello
  quadriga status --json | jq '.extensions[] | select(.state != \"running\")'")]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
}

/// Ask the extensions of the running host for a sign of life, and fail if one is not alive and ready
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga health
  quadriga health acme.hello && echo it is well")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
}

/// Show what the methods of the running host's extensions were called, and how long that took
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga metrics
  quadriga metrics acme.hello --json | jq '.[0].methods'
  quadriga metrics --prometheus")]
pub(crate) struct MetricsArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,

    /// In the text format of Prometheus
    #[arg(long)]
    pub(crate) prometheus: bool,
}

/// Show what the running host's extensions do by the clock, and what became of it
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga jobs
  quadriga jobs acme.hello --json | jq '.[] | select(.failures > 0)'")]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) some: SomeArgs,
}

/// Watch what the extensions of the running host do, each second
///
/// At a terminal the view is drawn anew, until q or Ctrl-C; elsewhere lines are added.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga top
  quadriga top --sort calls
  quadriga top --count 3 --interval 5s > load.txt")]
pub(crate) struct TopArgs {
    /// What comes first
    #[arg(long, value_enum, default_value_t = Sort::Cpu)]
    pub(crate) sort: Sort,

    /// How long from one view to the next
    #[arg(long, value_parser = span, default_value = "1s")]
    pub(crate) interval: Duration,

    /// End after so many views
    #[arg(long, value_name = "COUNT")]
    pub(crate) count: Option<NonZeroU64>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// By what the extensions are sorted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Sort {
    /// Processor time.
    Cpu,
    /// Calls.
    Calls,
}

/// Have the running host load an extension anew, beside the one that runs
///
/// Calls in flight finish on the old one. If the new one does not start, the old one stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga reload acme.hello")]
pub(crate) struct ReloadArgs {
    /// The id of the extension
    #[arg(value_name = "ID")]
    pub(crate) id: String,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// One extension, or all.
#[derive(Debug, Args)]
pub(crate) struct SomeArgs {
    /// The id of an extension; all if left out
    #[arg(value_name = "ID")]
    pub(crate) id: Option<String>,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Reads a port, or an address and a port.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = || Some(SocketAddr::from((Ipv4Addr::LOCALHOST, text.parse::<u16>().ok()?)));
    port().or_else(|| text.parse().ok()).ok_or_else(|| "expected a port, or ADDRESS:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_port_alone_is_one_of_this_machine() {
        let read = |text: &str| super::address(text).map(|address| address.to_string());
        for (text, expected) in [
            ("9464", Ok("127.0.0.1:9464")),
            ("0.0.0.0:80", Ok("0.0.0.0:80")),
            ("[::1]:80", Ok("[::1]:80")),
            ("99999", Err(())),
            ("localhost", Err(())),
            ("", Err(())),
        ] {
            assert_eq!(read(text).map_err(|_| ()), expected.map(str::to_owned), "{text}");
        }
    }
}
