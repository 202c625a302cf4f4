use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::Result;
use indicatif::HumanBytes;
use quadriga::abi::ExtensionId;
use quadriga::abi::permission::Permissions;
use quadriga::home::{Came, Changes, Entry, Home, Installed, InstalledState, InstalledVersion};

use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

#[cfg(unix)]
use super::args::HealthArg;
use super::args::{ListArgs, OneArgs};
use crate::host;
#[cfg(unix)]
use crate::live;
use crate::output::{Output, harmless, table};

/// One that is installed, and how it does if that was asked for.
#[derive(Serialize)]
struct Listed {
    #[serde(flatten)]
    installed: Installed,
    #[serde(skip_serializing_if = "Option::is_none")]
    health: Option<Json>,
}

/// Lists what is installed.
pub(crate) fn list(args: ListArgs, output: Output) -> Result<ExitCode> {
    let healths = healths(&args)?;
    host::run(async move {
        let mut list = Home::look(args.home.path()?).await?;
        list.retain(|installed| passes(&args, installed));
        let listed = |installed: Installed| {
            let of = |healths: &Healths| healths.get(installed.id.as_str()).cloned().unwrap_or_default();
            Listed { health: healths.as_ref().map(of), installed }
        };
        let mut list: Vec<Listed> = list.into_iter().map(listed).collect();
        list.retain(|it| does(&args, it.health.as_ref()));
        if output.json {
            return output.value(&list).map(|()| ExitCode::SUCCESS);
        }
        if list.is_empty() {
            output.note("nothing that fits is installed");
            return Ok(ExitCode::SUCCESS);
        }
        let row = |listed: &Listed| {
            let it = &listed.installed;
            let about = &it.current.manifest.extension;
            let what = about.description.lines().next().unwrap_or_default();
            let cells = [
                it.id.as_str(),
                &about.version.to_string(),
                state(it),
                it.current.trust.as_str(),
                it.current.manifest.runtime.kind.as_str(),
                what,
            ];
            let mut cells: Vec<String> = cells.map(harmless).to_vec();
            cells.extend(listed.health.as_ref().map(|health| harmless(&words(health))));
            cells
        };
        let mut header = vec!["extension", "version", "state", "trust", "runtime", "description"];
        header.extend(healths.as_ref().map(|_| "health"));
        output.text(&table(&header, &[], list.iter().map(row).collect())).map(|()| ExitCode::SUCCESS)
    })
}

/// What the host says of what it runs, or should run, by id.
type Healths = BTreeMap<String, Json>;

/// Asks the host how all that it runs does, if that is wanted.
#[cfg(unix)]
fn healths(args: &ListArgs) -> Result<Option<Healths>> {
    #[derive(Deserialize)]
    struct Answer {
        extensions: Healths,
        failed: BTreeMap<String, Json>,
    }
    if args.health.is_none() {
        return Ok(None);
    }
    let answer = live::ask(&args.home.path()?, &live::Request::Health { id: None })?;
    let Answer { extensions, failed } = serde_json::from_value(answer)?;
    let failed = failed.into_iter().map(|(id, why)| {
        let why = why["message"].as_str().unwrap_or_default();
        (id, json!({ "ready": false, "reason": format!("did not start: {why}") }))
    });
    Ok(Some(extensions.into_iter().chain(failed).collect()))
}

#[cfg(not(unix))]
fn healths(_: &ListArgs) -> Result<Option<Healths>> {
    Ok(None)
}

/// Whether it does as is asked for. What the host does not run does neither well nor ill.
#[cfg(unix)]
fn does(args: &ListArgs, health: Option<&Json>) -> bool {
    let ready = health.and_then(|health| health["ready"].as_bool());
    match args.health {
        None | Some(HealthArg::Any) => true,
        Some(HealthArg::Ready) => ready == Some(true),
        Some(HealthArg::NotReady) => ready == Some(false),
    }
}

#[cfg(not(unix))]
fn does(_: &ListArgs, _: Option<&Json>) -> bool {
    true
}

fn words(health: &Json) -> String {
    match (health["ready"].as_bool(), health["reason"].as_str()) {
        (None, _) => "-".to_owned(),
        (Some(true), _) => "ready".to_owned(),
        (Some(false), None) => "not ready".to_owned(),
        (Some(false), Some(reason)) => format!("not ready: {reason}"),
    }
}

fn passes(args: &ListArgs, installed: &Installed) -> bool {
    let (manifest, enabled) = (&installed.current.manifest, installed.state == InstalledState::Enabled);
    let about = &manifest.extension;
    let publisher = installed.id.as_str().split_once('.').map_or("", |(publisher, _)| publisher);
    let name = about.display_name.as_deref().unwrap_or_default();
    let found = |text: &String| {
        let text = text.to_lowercase();
        [installed.id.as_str(), name, &about.description].iter().any(|it| it.to_lowercase().contains(&text))
    };
    !(args.enabled && !enabled || args.disabled && enabled)
        && args.runtime.as_ref().is_none_or(|kind| *kind == manifest.runtime.kind)
        && args.ty.is_none_or(|ty| ty == about.ty)
        && args.publisher.as_ref().is_none_or(|name| name == publisher)
        && args.tags.iter().all(|tag| about.tags.iter().any(|there| there == tag))
        && args.text.as_ref().is_none_or(found)
}

fn state(installed: &Installed) -> &'static str {
    match installed.state {
        InstalledState::Enabled => "enabled",
        _ => "disabled",
    }
}

/// Shows one that is installed.
pub(crate) fn show(args: OneArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let installed = Home::look_at(args.home.path()?, &args.id).await?;
        if output.json {
            return output.value(&installed).map(|()| ExitCode::SUCCESS);
        }
        output.text(&harmless(&text(&installed))).map(|()| ExitCode::SUCCESS)
    })
}

fn text(installed: &Installed) -> String {
    let (current, about) = (&installed.current, &installed.current.manifest.extension);
    let nothing = Permissions::default();
    let listed = |list: Vec<String>| if list.is_empty() { "nothing".to_owned() } else { list.join(", ") };
    let mut lines = vec![
        format!("{} {} ({})", installed.id, current.version, state(installed)),
        format!("  {}", about.description),
        format!("  runs on      {}", current.manifest.runtime.kind),
        format!("  asks for     {}", listed(current.manifest.permissions.beyond(&nothing))),
        format!("  is granted   {}", listed(installed.grant.beyond(&nothing))),
    ];
    lines.extend(installed.pinned.iter().map(|version| format!("  pinned to    {version}")));
    lines.extend(version("installed", current));
    if let Some(previous) = &installed.previous {
        lines.extend(version("before it", previous));
    }
    lines.retain(|line| !line.trim().is_empty());
    lines.join("\n")
}

fn version(what: &str, version: &InstalledVersion) -> Vec<String> {
    let signer = version.signer.as_deref().map_or("nobody".to_owned(), |key| format!("the owner of {key}"));
    vec![
        format!("  {what:<12} {}, {}", version.version, HumanBytes(version.size)),
        format!("    sha256     {}", version.digest),
        format!("    signed by  {signer}"),
        format!("    trust      {}", version.trust),
        format!("    at         {}", time(version.installed_at)),
        format!("    in         {}", version.folder.display()),
    ]
}

/// What came of an operation that changes what is installed.
#[derive(Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) struct Changed {
    #[serde(flatten)]
    changes: Changes,
    dry_run: bool,
}

/// What was changed or would be, in words.
pub(super) fn changed(Changed { changes, dry_run }: Changed) -> String {
    let mut lines = Vec::new();
    if dry_run {
        lines.push("nothing is changed; without --dry-run:".to_owned());
    }
    let fresh = |id: &ExtensionId| changes.came.iter().any(|it| it.from.is_none() && it.installed.id == *id);
    lines.extend(changes.disabled.iter().map(|id| format!("{id} is disabled")));
    for Came { from, wider, differs, installed } in &changes.came {
        let (id, now) = (&installed.id, &installed.current.version);
        let asks = installed.current.manifest.permissions.beyond(&installed.grant);
        let enabled = if changes.enabled.contains(id) { " and enabled" } else { "" };
        lines.push(match from {
            Some(from) => format!("{id} is {now} now; before it was {from}"),
            None => format!("{id} {now} is installed{enabled}"),
        });
        if from.is_some() && !wider.is_empty() {
            lines.push(format!("it asks for more, and is not granted that: {}", wider.join(", ")));
        } else if from.is_none() && !asks.is_empty() {
            lines.push(format!("it asks for more than it is granted: {}", asks.join(", ")));
        }
        lines.extend(differs.lines());
    }
    lines.extend(changes.enabled.iter().filter(|id| !fresh(id)).map(|id| format!("{id} is enabled")));
    lines.extend(changes.uninstalled.iter().map(|id| format!("{id} is uninstalled")));
    lines.join("\n")
}

/// The audit trail as lines.
pub(super) fn trail(entries: &[Entry]) -> String {
    let row = |entry: &Entry| {
        let at = SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(entry.at.unsigned_abs());
        let detail = if entry.detail.is_null() { String::new() } else { entry.detail.to_string() };
        let cells = [
            entry.number.to_string(),
            time(at),
            entry.actor.clone(),
            entry.action.clone(),
            entry.extension.clone(),
            detail,
        ];
        cells.map(|cell| harmless(&cell)).to_vec()
    };
    table(
        &["number", "at", "by", "action", "extension", "detail"],
        &["number"],
        entries.iter().map(row).collect(),
    )
}

/// In UTC, to the second.
fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}
