use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::Args;
use quadriga::Layer;
use quadriga::abi::limits::Limit;
use quadriga::abi::{Isolation, PROTOCOL};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::host;
use crate::output::{Output, table};

/// The runtimes that a complete build has.
const KINDS: [&str; 4] = ["javascript", "native", "python", "webassembly"];

const SPEC_MAP: &str = include_str!("../../docs/spec-map.toml");

/// Show which runtimes this build has, and what each can keep to
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga doctor
  quadriga doctor --spec                        how much of the specification is done
  quadriga doctor --spec --verbose              each method")]
pub(crate) struct DoctorArgs {
    /// Show how much of the specification is implemented, by service
    #[arg(long)]
    spec: bool,
}

/// One runtime, or the lack of it.
#[derive(Serialize)]
struct Row {
    runtime: String,
    present: bool,
    engine: Option<String>,
    /// The levels that it reaches, weakest first.
    isolation: Vec<Isolation>,
    limits: Vec<String>,
    permissions: Vec<&'static str>,
    /// The same at its strongest isolation; empty if it has but one.
    limits_isolated: Vec<String>,
    permissions_isolated: Vec<&'static str>,
}

#[derive(Deserialize)]
struct SpecMap {
    method: Vec<SpecMethod>,
    entity: Vec<SpecEntity>,
}

/// A data model of the specification.
#[derive(Deserialize, Serialize)]
struct SpecEntity {
    name: String,
    status: Progress,
    item: Option<String>,
    cli: Option<String>,
    test: Option<String>,
}

#[derive(Deserialize, Serialize)]
struct SpecMethod {
    service: String,
    name: String,
    status: Progress,
    item: Option<String>,
    cli: Option<String>,
    test: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
enum Progress {
    Done,
    Partial,
    Planned,
}

/// How much of one service is implemented.
#[derive(Serialize)]
struct Coverage {
    service: String,
    done: usize,
    partial: usize,
    planned: usize,
}

/// Shows what this build has, or how much of the specification.
pub(crate) fn run(args: &DoctorArgs, output: Output) -> Result<ExitCode> {
    if args.spec {
        spec(output)?
    } else {
        build(output)?
    }
    Ok(ExitCode::SUCCESS)
}

fn build(output: Output) -> Result<()> {
    // First, because it forks.
    let layers = layers();
    let dispatcher = host::start(Isolation::None, host::LOAD_TIMEOUT)?;
    let worker = worker();
    let mut rows: Vec<Row> = Vec::new();
    for runtime in dispatcher.runtimes() {
        let (kind, support) = (runtime.kind().to_string(), runtime.support());
        if support.isolation >= Isolation::Process && worker.is_err() {
            continue;
        }
        match rows.last_mut().filter(|row| row.runtime == kind) {
            Some(row) => {
                row.isolation.push(support.isolation);
                row.limits_isolated = support.limits.iter().map(limit).collect();
                row.permissions_isolated = support.permissions.to_vec();
            }
            None => rows.push(Row {
                runtime: kind,
                present: true,
                engine: Some(runtime.engine()),
                isolation: vec![support.isolation],
                limits: support.limits.iter().map(limit).collect(),
                permissions: support.permissions.to_vec(),
                limits_isolated: Vec::new(),
                permissions_isolated: Vec::new(),
            }),
        }
    }
    for kind in KINDS {
        if rows.iter().all(|row| row.runtime != kind) {
            let (runtime, isolation) = (kind.to_owned(), Vec::new());
            let (limits, permissions) = (Vec::new(), Vec::new());
            let (limits_isolated, permissions_isolated) = (Vec::new(), Vec::new());
            rows.push(Row {
                runtime,
                present: false,
                engine: None,
                isolation,
                limits,
                permissions,
                limits_isolated,
                permissions_isolated,
            });
        }
    }
    let version = env!("CARGO_PKG_VERSION");
    let contract = format!("{}.{}.{}", PROTOCOL.major, PROTOCOL.minor, PROTOCOL.patch);
    let (os, arch) = (std::env::consts::OS, std::env::consts::ARCH);
    if output.json {
        return output.value(&json!({
            "version": version, "contract": contract, "os": os, "arch": arch, "worker": worker.ok(), "runtimes": rows,
            "layers": layers,
        }));
    }
    let cells = rows.iter().map(|row| {
        let isolation: Vec<String> = row.isolation.iter().map(ToString::to_string).collect();
        let engine = row.engine.clone().unwrap_or_else(|| "not in this build".to_owned());
        vec![
            row.runtime.clone(),
            engine,
            isolation.join(", "),
            row.limits.join(", "),
            row.permissions.join(", "),
        ]
    });
    let header = ["Runtime", "Engine", "Isolation", "Limits kept", "Permissions mediated"];
    let mut text = format!("quadriga {version}, contract {contract}, {os} {arch}\n\n");
    writeln!(text, "{}", table(&header, &[], cells.collect()))?;
    text.push_str(
        "\nEvery runtime also keeps load-timeout, message-size, queue-depth and call-depth, and mediates call, kv, stores, data and secrets.\n",
    );
    if let Some(row) = rows.iter().find(|row| !row.limits_isolated.is_empty()) {
        let (limits, permissions) = (row.limits_isolated.join(", "), row.permissions_isolated.join(", "));
        writeln!(text, "In a worker process every runtime keeps {limits}, and mediates {permissions}.")?;
    }
    match &worker {
        Ok(path) => writeln!(text, "Worker processes run {path}.")?,
        Err(why) => writeln!(text, "No worker processes: {why}.")?,
    }
    if !layers.is_empty() {
        let cells =
            layers.iter().map(|layer| vec![layer.name.clone(), layer.state.clone(), layer.note.clone()]);
        writeln!(text, "\n{}", table(&["Layer", "Here", "Note"], &[], cells.collect()))?;
    }
    output.text(&text)
}

/// The program that runs extensions in processes of their own, or why there is none.
#[cfg(target_os = "linux")]
fn worker() -> Result<String, String> {
    quadriga::worker_program().map(|path| path.display().to_string()).map_err(|error| error.to_string())
}

/// What this machine and user can confine workers with.
#[cfg(target_os = "linux")]
fn layers() -> Vec<Layer> {
    let layer = |status: quadriga::LayerStatus| Layer {
        name: status.layer.to_string(),
        state: status.state.to_string(),
        note: status.note,
    };
    quadriga::probe().into_iter().map(layer).collect()
}

#[cfg(not(target_os = "linux"))]
fn layers() -> Vec<Layer> {
    Vec::new()
}

#[cfg(not(target_os = "linux"))]
fn worker() -> Result<String, String> {
    Err("worker processes are there on Linux alone".to_owned())
}

/// The limit as manifests write it.
fn limit(limit: &Limit) -> String {
    let mut name = String::new();
    for c in format!("{limit:?}").chars() {
        if c.is_uppercase() && !name.is_empty() {
            name.push('-');
        }
        name.extend(c.to_lowercase());
    }
    name
}

fn status_name(status: Progress) -> String {
    match status {
        Progress::Done => "done",
        Progress::Partial => "partial",
        Progress::Planned => "planned",
    }
    .to_owned()
}

fn spec(output: Output) -> Result<()> {
    let map: SpecMap = toml::from_str(SPEC_MAP).context("docs/spec-map.toml of this build is malformed")?;
    let mut services: Vec<Coverage> = Vec::new();
    for method in &map.method {
        let at = services.iter().position(|row| row.service == method.service).unwrap_or_else(|| {
            services.push(Coverage { service: method.service.clone(), done: 0, partial: 0, planned: 0 });
            services.len() - 1
        });
        match method.status {
            Progress::Done => services[at].done += 1,
            Progress::Partial => services[at].partial += 1,
            Progress::Planned => services[at].planned += 1,
        }
    }
    if output.json {
        return output.value(&json!({
            "services": services,
            "methods": map.method,
            "entities": map.entity,
        }));
    }
    let sum = |count: fn(&Coverage) -> usize| services.iter().map(count).sum();
    let total = Coverage {
        service: "All".to_owned(),
        done: sum(|row| row.done),
        partial: sum(|row| row.partial),
        planned: sum(|row| row.planned),
    };
    let rows = services.iter().chain([&total]).map(|row| {
        let Coverage { service, done, partial, planned } = row;
        let numbers = [*done, *partial, *planned, done + partial + planned];
        std::iter::once(service.clone()).chain(numbers.iter().map(ToString::to_string)).collect()
    });
    let numbers = ["Done", "Partial", "Planned", "Methods"];
    let header = ["Service", "Done", "Partial", "Planned", "Methods"];
    output.text(&table(&header, &numbers, rows.collect()))?;
    if output.verbose > 0 {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let methods = map.method.iter().map(|method| {
            let name = format!("{}.{}", method.service, method.name);
            let status = status_name(method.status);
            vec![name, status, text(&method.item), text(&method.cli), text(&method.test)]
        });
        let entities = map.entity.iter().map(|entity| {
            let status = status_name(entity.status);
            vec![entity.name.clone(), status, text(&entity.item), text(&entity.cli), text(&entity.test)]
        });
        let rows = methods.chain(entities);
        let header = ["Method or data model", "Status", "Item", "Command", "Test"];
        output.text(&format!("\n{}", table(&header, &[], rows.collect())))?;
    }
    Ok(())
}
