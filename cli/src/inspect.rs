use std::fmt::Write as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::manifest::{FILE_NAME, Manifest};
use quadriga::abi::{Error, ErrorCode};
use quadriga::{Grant, Layer, LoadOptions, Status};
use serde::Serialize;
use serde_json::{Value as Json, json};

use crate::args::InspectArgs;
use crate::contract;
use crate::host;
use crate::output::{Output, duration, harmless, millis, table};

/// Shows what an extension is, asks for and offers.
pub(crate) fn run(args: InspectArgs, output: Output) -> Result<ExitCode> {
    let manifest = read(&args.dir)?;
    if args.no_load {
        show(&args.dir, &manifest, None, output)?;
        return Ok(ExitCode::SUCCESS);
    }
    let dispatcher = host::start(args.host.isolation, host::LOAD_TIMEOUT)?;
    host::run(async move {
        let options = LoadOptions { grant: Grant::Nothing, ..LoadOptions::default() };
        host::load_all(&dispatcher, &args.host.with, &options).await?;
        let id = dispatcher.load(&args.dir, options).await?;
        let status = dispatcher.status(id.as_str())?;
        if args.contract {
            output.value(&contract::only(contract::of(&status), &args.methods)?)?;
        } else {
            show(&args.dir, &manifest, Some(&status), output)?;
        }
        dispatcher.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

pub(crate) fn read(dir: &Path) -> Result<Manifest, Error> {
    let file = dir.join(FILE_NAME);
    let invalid = |message| Error::new(ErrorCode::InvalidManifest, message);
    let text = std::fs::read_to_string(&file).map_err(|error| {
        invalid(format!("{} cannot be read: {error}", file.display()))
            .with_hint(format!("an extension is a folder with a {FILE_NAME}"))
    })?;
    Manifest::parse(&text, file.display().to_string()).map_err(|error| invalid(error.to_string()))
}

fn show(dir: &Path, manifest: &Manifest, loaded: Option<&Status>, output: Output) -> Result<()> {
    if output.json {
        let loaded = loaded.map(|status| {
            json!({
                "runtime": status.runtime,
                "isolation": status.isolation,
                "layers": status.layers,
                "contract": status.contract,
                "load_ms": millis(status.load_time),
                "methods": status.methods,
            })
        });
        return output.value(&json!({ "folder": dir, "manifest": manifest, "loaded": loaded }));
    }
    output.text(&harmless(&text(manifest, loaded)?))
}

fn text(manifest: &Manifest, loaded: Option<&Status>) -> Result<String> {
    let (about, runtime) = (&manifest.extension, &manifest.runtime);
    let mut out = format!("{} {}", about.id, about.version);
    if let Some(name) = &about.display_name {
        write!(out, "  {name}")?;
    }
    if !about.description.is_empty() {
        write!(out, "\n{}", about.description)?;
    }
    out.push_str("\n\n");

    let isolation = match (loaded, runtime.isolation) {
        (Some(status), _) => format!("{} reached", status.isolation),
        (None, Some(level)) => format!("{level} or stronger asked"),
        (None, None) => "any".to_owned(),
    };
    let ids = |ids: Vec<String>| ids.join(", ");
    let needs = manifest.dependencies.iter().map(|(id, range)| format!("{id} {range}")).collect();
    let facts = [
        ("Runtime", format!("{}, {}", runtime.kind, runtime.entry)),
        ("Isolation", isolation),
        ("Held by", loaded.map(|status| layers(&status.layers)).unwrap_or_default()),
        ("Contract", loaded.map(|status| status.contract.to_string()).unwrap_or_default()),
        ("Permissions", asked(&manifest.permissions)?),
        ("Limits", asked(&manifest.limits)?),
        ("Needs", ids(needs)),
        ("Licence", about.license.as_ref().map(ToString::to_string).unwrap_or_default()),
        ("Load", loaded.map(|status| duration(status.load_time)).unwrap_or_default()),
    ];
    for (name, fact) in facts.iter().filter(|(_, fact)| !fact.is_empty()) {
        writeln!(out, "{name:<12} {fact}")?;
    }
    match loaded {
        Some(status) if status.methods.is_empty() => out.push_str("\nIt exports no methods.\n"),
        Some(status) => {
            let rows = status.methods.iter().map(|method| vec![method.signature(), method.doc.clone()]);
            writeln!(out, "\n{}", table(&["Method", "What it does"], &[], rows.collect()))?;
        }
        None => out.push_str("\nNot loaded: what it exports is not known.\n"),
    }
    Ok(out)
}

/// The layers that were reached, at least in part.
fn layers(layers: &[Layer]) -> String {
    let reached = layers.iter().filter(|layer| matches!(layer.state.as_str(), "reached" | "partly"));
    reached.map(|layer| layer.name.as_str()).collect::<Vec<_>>().join(", ")
}

/// The fields of a section of the manifest that are set, by the names they have there.
fn asked(section: &impl Serialize) -> Result<String> {
    let Json::Object(fields) = serde_json::to_value(section)? else {
        return Ok(String::new());
    };
    let set = fields.into_iter().filter_map(|(name, value)| {
        let value = match value {
            Json::Null | Json::Bool(false) => return None,
            Json::Bool(true) => return Some(name),
            Json::Array(items) if items.is_empty() => return None,
            Json::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
            value => plain(&value),
        };
        Some(format!("{name} {value}"))
    });
    let set: Vec<String> = set.collect();
    Ok(if set.is_empty() { "none".to_owned() } else { set.join("; ") })
}

fn plain(value: &Json) -> String {
    match value {
        Json::String(text) => text.clone(),
        Json::Object(fields) => fields.values().map(plain).collect::<Vec<_>>().join(" "),
        value => value.to_string(),
    }
}
