use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::permission::{Permissions, TopicPattern};
use quadriga::{Grant, HookStatus, LoadOptions};

use crate::args::HooksArgs;
use crate::host;
use crate::output::{Output, duration, harmless, table};

/// Shows in which order extensions answer the hooks of a host.
pub(crate) fn run(args: HooksArgs, output: Output) -> Result<ExitCode> {
    let dispatcher = host::start(args.isolation, host::LOAD_TIMEOUT)?;
    host::run(async move {
        let hooks = vec![TopicPattern("*".to_owned())];
        let grant = Grant::Only(Box::new(Permissions { hooks, ..Permissions::default() }));
        host::load_all(&dispatcher, &args.dirs, &LoadOptions { grant, ..LoadOptions::default() }).await?;
        let mut hooks = dispatcher.hooks();
        hooks.retain(|hook| args.point.as_ref().is_none_or(|point| **point == *hook.point));
        if output.json {
            output.value(&hooks)?;
        } else if hooks.is_empty() {
            output.note("they answer no hook");
        } else {
            let rows = hooks.iter().map(row).collect();
            let header =
                ["Hook", "Extension", "Method", "Mode", "Priority", "Deadline", "On failure", "Note"];
            output.text(&harmless(&table(&header, &["Priority", "Deadline"], rows)))?;
        }
        dispatcher.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

fn row(hook: &HookStatus) -> Vec<String> {
    let mut notes = Vec::new();
    if !hook.allowed {
        notes.push("passed over: its manifest does not ask for [permissions] hooks".to_owned());
    }
    if !hook.awaited {
        notes.push("nobody waits for it".to_owned());
    }
    if !hook.unmet.is_empty() {
        let ids: Vec<&str> = hook.unmet.iter().map(|id| id.as_str()).collect();
        notes.push(format!("what it says of {} cannot be met", ids.join(", ")));
    }
    vec![
        hook.point.to_string(),
        hook.extension.to_string(),
        hook.method.to_string(),
        format!("{:?}", hook.mode).to_lowercase(),
        hook.priority.to_string(),
        duration(hook.deadline),
        format!("{:?}", hook.on_failure).to_lowercase(),
        notes.join("; "),
    ]
}
