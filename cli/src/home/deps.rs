//! `quadriga deps`: who needs whom.

use std::fs;
use std::process::ExitCode;

use anyhow::Result;
use layout::backends::svg::SVGWriter;
use layout::gv::{DotParser, GraphBuilder};
use quadriga::abi::ExtensionId;
use quadriga::home::{Dependencies, Dependent, Home, InstalledState, Lock, Needed, NeededKind};
use serde_json::json;

use super::args::{DepsArgs, DepsFormat};
use crate::failure::Advice;
use crate::host;
use crate::output::{Output, harmless};

/// Extensions that are drawn at most; so many take less than a second.
const DRAWN: usize = 300;

/// Extensions that are drawn with as few crossings as can be found.
const NEAT: usize = 30;

/// Shows who needs whom, or compares with a lock file, or writes one.
pub(crate) fn deps(args: DepsArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let path = args.home.path()?;
        let list = Home::look(&path).await?;
        if let Some(file) = &args.check {
            lock(file)?.check(&list)?;
            return said(output, &json!({ "checked": file }), "all is as the lock file says");
        }
        if let Some(file) = &args.lock {
            let text = Lock::of(&list).to_text()?;
            fs::write(file, text).map_err(|error| {
                let hint = "name a file in a folder that can be written";
                Advice::new(format!("{} cannot be written: {error}", file.display()), hint)
            })?;
            return said(output, &json!({ "lock": file }), &format!("{} is written", file.display()));
        }
        let all = Dependencies::of(&list);
        let graph = match &args.id {
            Some(id) => all.around(&Home::look_at(&path, id).await?.id),
            None => all.clone(),
        };
        let format = if output.json { DepsFormat::Json } else { args.format };
        match format {
            DepsFormat::Json => output.value(&graph)?,
            DepsFormat::Text => output.text(&harmless(&text(&graph, &all)))?,
            DepsFormat::Dot => output.text(&dot(&graph))?,
            DepsFormat::Svg => output.text(&svg(&graph)?)?,
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// Reads a lock file.
pub(super) fn lock(file: &std::path::Path) -> Result<Lock> {
    let text = fs::read_to_string(file).map_err(|error| {
        let hint = "`quadriga deps --lock FILE` writes one";
        Advice::new(format!("{} cannot be read: {error}", file.display()), hint)
    })?;
    Ok(Lock::parse(&text)?)
}

fn said(output: Output, json: &serde_json::Value, text: &str) -> Result<ExitCode> {
    match output.json {
        true => output.value(json)?,
        false => output.text(&harmless(text))?,
    }
    Ok(ExitCode::SUCCESS)
}

fn state(graph: &Dependencies, id: &ExtensionId) -> &'static str {
    let starts = graph.order.iter().any(|level| level.contains(id));
    match graph.extensions.iter().find(|it| it.id == *id).map(|it| it.state) {
        Some(InstalledState::Enabled) if starts => "enabled",
        Some(InstalledState::Enabled) => "enabled, cannot start",
        _ => "disabled",
    }
}

/// The graph, which may be a part of a larger one.
fn text(graph: &Dependencies, all: &Dependencies) -> String {
    let mut lines = Vec::new();
    for it in &graph.extensions {
        lines.push(format!("{} {} ({})", it.id, it.version, state(all, &it.id)));
        lines.extend(it.provides.iter().map(|name| format!("  provides {name}")));
        lines.extend(it.needs.iter().map(|need| format!("  {}", of(all, need))));
    }
    for cycle in &graph.cycles {
        lines.push(format!("these need each other: {}", joined(cycle, " -> ")));
    }
    if !graph.order.is_empty() {
        lines.push("start order, stopped the other way round".to_owned());
    }
    lines.extend(graph.order.iter().zip(1..).map(|(level, n)| format!("  {n:>2}  {}", joined(level, ", "))));
    match lines.is_empty() {
        true => "nothing is installed".to_owned(),
        false => lines.join("\n"),
    }
}

/// One need, and who is that.
fn of(graph: &Dependencies, Needed { kind, name, range, by, met }: &Needed) -> String {
    let there: Vec<String> = by.iter().map(|id| format!("{id} ({})", state(graph, id))).collect();
    let there = there.join(", ");
    match kind {
        NeededKind::System if *met => format!("needs {name} {range}"),
        NeededKind::System => format!("needs {name} {range}: this is another"),
        NeededKind::Capability if by.is_empty() => format!("needs {name}@{range}: nothing provides it"),
        NeededKind::Capability => format!("needs {name}@{range} of {there}"),
        NeededKind::Optional if by.is_empty() => format!("can use {name} {range}: not there"),
        NeededKind::Optional => format!("can use {name} {range}: {there}"),
        _ if by.is_empty() => format!("needs {name} {range}: not installed in such a version"),
        _ => format!("needs {name} {range}: {there}"),
    }
}

fn joined(ids: &[ExtensionId], between: &str) -> String {
    ids.iter().map(ExtensionId::as_str).collect::<Vec<_>>().join(between)
}

/// The graph for Graphviz: <https://graphviz.org/doc/info/lang.html>. What is disabled is grey, what is
/// optional dashed, what is missing red.
fn dot(graph: &Dependencies) -> String {
    let mut lines = vec!["digraph dependencies {".to_owned(), "  rankdir=LR; node [shape=box];".to_owned()];
    for it in &graph.extensions {
        let (id, label) = (quoted(it.id.as_str()), quoted(&format!("{}\n{}", it.id, it.version)));
        let colour = if it.state == InstalledState::Enabled { "black" } else { "grey" };
        lines.push(format!("  {id} [label={label}, color={colour}];"));
        lines.extend(
            it.needs.iter().filter(|need| need.kind != NeededKind::System).flat_map(|need| edges(it, need)),
        );
    }
    lines.push("}".to_owned());
    lines.join("\n")
}

/// The drawing of a graph, as SVG: <https://www.w3.org/TR/SVG11/>.
fn svg(graph: &Dependencies) -> Result<String> {
    let count = graph.extensions.len();
    if count == 0 {
        return Ok("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"0\" height=\"0\"></svg>".to_owned());
    }
    if count > DRAWN {
        let hint = "name one, or have Graphviz draw them: `quadriga deps --format dot | dot -Tsvg`";
        return Err(Advice::new(format!("{count} extensions are too many to draw"), hint).into());
    }
    let parsed = DotParser::new(&dot(graph)).process();
    let parsed = parsed.map_err(|why| anyhow::anyhow!("the graph cannot be drawn: {why}"))?;
    let mut builder = GraphBuilder::new();
    builder.visit_graph(&parsed);
    let mut writer = SVGWriter::new();
    // Fewer crossings take time that grows with the fourth power of the number.
    builder.get().do_it(false, count > NEAT, false, &mut writer);
    Ok(writer.finalize())
}

fn edges(it: &Dependent, Needed { kind, name, range, by, .. }: &Needed) -> Vec<String> {
    let style = if *kind == NeededKind::Optional { "dashed" } else { "solid" };
    let (from, label) = match kind {
        NeededKind::Capability => (quoted(it.id.as_str()), quoted(&format!("{name}@{range}"))),
        _ => (quoted(it.id.as_str()), quoted(range)),
    };
    let edge = |to: &str, colour: &str| {
        format!("  {from} -> {} [label={label}, style={style}, color={colour}];", quoted(to))
    };
    match (by.is_empty(), kind) {
        (true, NeededKind::Optional) => Vec::new(),
        (true, _) => vec![format!("  {} [color=red];", quoted(name)), edge(name, "red")],
        (false, _) => by.iter().map(|to| edge(to.as_str(), "black")).collect(),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n"))
}
