//! What a host says, for people.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, Result};
use indicatif::HumanBytes;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::output::{duration, harmless, table};

/// What is read of an answer about all extensions.
#[derive(Deserialize)]
struct All {
    home: String,
    process: u32,
    uptime: Duration,
    started: bool,
    extensions: Vec<Status>,
    failed: BTreeMap<String, Failed>,
}

/// What is read of `quadriga::Status`.
#[derive(Deserialize)]
struct Status {
    id: String,
    version: String,
    runtime: String,
    isolation: String,
    state: String,
    since: SystemTime,
    reason: Option<String>,
    uptime: Duration,
    restarts: u32,
    metrics: Total,
    usage: Used,
    #[serde(default)]
    kept_events: u64,
    #[serde(default)]
    dead_letters: u64,
    last_error: Option<LastError>,
    #[serde(default)]
    methods: Vec<Method>,
}

/// What is read of `quadriga::Metrics`.
#[derive(Deserialize)]
pub(super) struct Total {
    pub(super) calls: u64,
    pub(super) errors: u64,
    pub(super) in_flight: u32,
    pub(super) p50: Duration,
    p90: Duration,
    pub(super) p99: Duration,
}

/// What is read of `quadriga::Usage`.
#[derive(Deserialize)]
pub(super) struct Used {
    pub(super) memory: Option<u64>,
    process: Option<u32>,
    pub(super) cpu_time: Option<Duration>,
}

/// What is read of an error.
#[derive(Deserialize)]
struct Failed {
    message: String,
}

#[derive(Deserialize)]
struct LastError {
    at: SystemTime,
    error: Failed,
}

#[derive(Deserialize)]
struct Method {
    name: String,
}

#[derive(Deserialize)]
struct Healths {
    extensions: BTreeMap<String, Health>,
    failed: BTreeMap<String, Failed>,
}

/// What is read of `quadriga::Health`.
#[derive(Deserialize)]
struct Health {
    liveness: String,
    answered: Option<Duration>,
    ready: bool,
    reason: Option<String>,
    check: Option<Check>,
}

#[derive(Deserialize)]
struct Check {
    error: Option<Failed>,
    failures: u32,
}

/// What is read of `quadriga::ExtensionMetrics`.
#[derive(Deserialize)]
pub(super) struct Metrics {
    pub(super) id: String,
    pub(super) state: String,
    pub(super) restarts: u32,
    pub(super) generation: u64,
    pub(super) total: Total,
    pub(super) usage: Used,
    methods: BTreeMap<String, Total>,
}

/// What is read of `quadriga::JobStatus`.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Job {
    extension: String,
    name: String,
    when: String,
    next: Option<SystemTime>,
    last: Option<SystemTime>,
    runs: u64,
    failures: u64,
    skipped: u64,
    missed: u64,
    running: u32,
    error: Option<Failed>,
}

/// Reads an answer.
pub(super) fn read<T: DeserializeOwned>(answer: Json) -> Result<T> {
    serde_json::from_value(answer).context("the host's answer is not what this command knows")
}

pub(super) fn memory(bytes: Option<u64>) -> String {
    bytes.map_or_else(|| "-".to_owned(), |bytes| HumanBytes(bytes).to_string())
}

fn time(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

/// All extensions of a host.
pub(super) fn all(answer: Json) -> Result<String> {
    let all: All = read(answer)?;
    let mut lines = vec![format!("process {} runs {}, up {}", all.process, all.home, duration(all.uptime))];
    if !all.started {
        lines.push("it is still starting extensions".to_owned());
    }
    if !all.extensions.is_empty() {
        lines.push(statuses(&all.extensions));
    }
    let dead: u64 = all.extensions.iter().map(|it| it.dead_letters).sum();
    if dead > 0 {
        lines.push(format!("there are {dead} dead letters: quadriga dead-letters list"));
    }
    lines.extend(all.failed.iter().map(|(id, error)| format!("{id} did not start: {}", error.message)));
    Ok(harmless(&lines.join("\n")))
}

fn statuses(list: &[Status]) -> String {
    let row = |it: &Status| {
        vec![
            it.id.clone(),
            it.version.clone(),
            it.state.clone(),
            it.runtime.clone(),
            it.isolation.clone(),
            duration(it.uptime),
            it.restarts.to_string(),
            it.metrics.calls.to_string(),
            it.metrics.errors.to_string(),
            duration(it.metrics.p99),
            memory(it.usage.memory),
        ]
    };
    let header = [
        "extension",
        "version",
        "state",
        "runtime",
        "isolation",
        "up",
        "restarts",
        "calls",
        "errors",
        "p99",
        "memory",
    ];
    let numbers = ["up", "restarts", "calls", "errors", "p99", "memory"];
    table(&header, &numbers, list.iter().map(row).collect())
}

/// One extension.
pub(super) fn one(answer: Json) -> Result<String> {
    let it: Status = read(answer)?;
    let total = &it.metrics;
    let mut lines = vec![
        format!("{} {} ({})", it.id, it.version, it.state),
        format!("  runs on      {}, isolation {}", it.runtime, it.isolation),
        format!("  in state     {} since {}", it.state, time(it.since)),
        format!("  up           {}, started again {} times", duration(it.uptime), it.restarts),
        format!("  calls        {}, {} errors, {} in flight", total.calls, total.errors, total.in_flight),
    ];
    if total.calls > 0 {
        let [p50, p90, p99] = [total.p50, total.p90, total.p99].map(duration);
        lines.push(format!("  took         {p50} (p50), {p90} (p90), {p99} (p99)"));
    }
    lines.push(format!("  memory       {}", memory(it.usage.memory)));
    lines.extend(it.usage.cpu_time.map(|time| format!("  processor    {}", duration(time))));
    lines.extend(it.usage.process.map(|process| format!("  process      {process}")));
    if it.kept_events + it.dead_letters > 0 {
        lines.push(format!("  events       {} wait, {} dead letters", it.kept_events, it.dead_letters));
    }
    lines.extend(it.reason.map(|reason| format!("  because      {reason}")));
    let last = it.last_error.map(|last| format!("  last error   {} {}", time(last.at), last.error.message));
    lines.extend(last);
    let methods: Vec<&str> = it.methods.iter().map(|method| method.name.as_str()).collect();
    lines.push(format!("  methods      {}", methods.join(", ")));
    Ok(harmless(&lines.join("\n")))
}

/// Whether extensions are alive and ready.
pub(super) fn health(answer: Json) -> Result<String> {
    let healths: Healths = read(answer)?;
    let row = |(id, it): (String, Health)| {
        let check = match &it.check {
            None => "-".to_owned(),
            Some(Check { error: None, .. }) => "passed".to_owned(),
            Some(Check { error: Some(error), failures }) => {
                format!("failed {failures} times in a row: {}", error.message)
            }
        };
        let ready = if it.ready { "ready" } else { "not ready" };
        let answered = it.answered.map_or_else(|| "-".to_owned(), duration);
        let cells = [id, ready.to_owned(), it.liveness, answered, check, it.reason.unwrap_or_default()];
        cells.map(|cell| harmless(&cell)).to_vec()
    };
    let mut lines = Vec::new();
    let rows: Vec<Vec<String>> = healths.extensions.into_iter().map(row).collect();
    if !rows.is_empty() {
        let header = ["extension", "health", "sign of life", "after", "check", "because"];
        lines.push(table(&header, &["after"], rows));
    }
    let failed = healths.failed.iter();
    lines.extend(failed.map(|(id, error)| harmless(&format!("{id} did not start: {}", error.message))));
    if lines.is_empty() {
        lines.push("nothing runs that could be ill".to_owned());
    }
    Ok(lines.join("\n"))
}

/// What methods were called.
pub(super) fn metrics(answer: Json) -> Result<String> {
    let all: Vec<Metrics> = read(answer)?;
    let methods = all.iter().flat_map(|it| it.methods.iter().map(|(name, total)| (&it.id, name, total)));
    let row = |(id, name, total): (&String, &String, &Total)| {
        vec![
            harmless(id),
            harmless(name),
            total.calls.to_string(),
            total.errors.to_string(),
            total.in_flight.to_string(),
            duration(total.p50),
            duration(total.p90),
            duration(total.p99),
        ]
    };
    let rows: Vec<Vec<String>> = methods.map(row).collect();
    if rows.is_empty() {
        return Ok("nothing has been called".to_owned());
    }
    let header = ["extension", "method", "calls", "errors", "in flight", "p50", "p90", "p99"];
    Ok(table(&header, &header[2..], rows))
}

/// What is done by the clock.
pub(super) fn jobs(answer: Json) -> Result<String> {
    let all: Vec<Job> = read(answer)?;
    if all.is_empty() {
        return Ok("nothing is done by the clock".to_owned());
    }
    let row = |it: &Job| {
        let at = |moment: Option<SystemTime>| moment.map_or_else(|| "-".to_owned(), time);
        let counts = [it.runs, it.failures, it.skipped, it.missed, it.running.into()];
        let mut cells = vec![harmless(&it.extension), harmless(&it.name), harmless(&it.when)];
        cells.extend([at(it.next), at(it.last)]);
        cells.extend(counts.map(|count| count.to_string()));
        cells.push(it.error.as_ref().map(|error| harmless(&error.message)).unwrap_or_default());
        cells
    };
    let header = [
        "extension",
        "job",
        "when",
        "next",
        "last",
        "runs",
        "failures",
        "skipped",
        "missed",
        "running",
        "error",
    ];
    Ok(table(&header, &header[5..10], all.iter().map(row).collect()))
}
