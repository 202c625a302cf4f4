//! `quadriga grants`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use quadriga::home::{Grants, Home, Installed};

use super::args::HomeArgs;
use crate::host;
use crate::output::{Output, harmless, table};

/// Show what extensions are granted of what they ask for, and what their level of trust withholds
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga grants
  quadriga grants acme.hello
  quadriga grants --json | jq '.[] | select(.withheld != []) | .id'")]
pub(crate) struct GrantsArgs {
    /// The id of an extension; all if left out
    #[arg(value_name = "ID")]
    id: Option<String>,

    #[command(flatten)]
    home: HomeArgs,
}

/// Shows what extensions may do.
pub(crate) fn grants(args: GrantsArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let path = args.home.path()?;
        let list = match &args.id {
            Some(id) => vec![Home::look_at(path, id).await?],
            None => Home::look(path).await?,
        };
        let all: Vec<Grants> = list.iter().map(Installed::grants).collect();
        if output.json {
            return output.value(&all).map(|()| ExitCode::SUCCESS);
        }
        if all.is_empty() {
            output.note("nothing is installed");
            return Ok(ExitCode::SUCCESS);
        }
        let rows = all.iter().flat_map(rows).collect();
        let header = ["extension", "permission", "standing"];
        output.text(&table(&header, &[], rows)).map(|()| ExitCode::SUCCESS)
    })
}

fn rows(of: &Grants) -> Vec<Vec<String>> {
    let row =
        |permission: &str, standing: &str| [of.id.as_str(), permission, standing].map(harmless).to_vec();
    if of.asks.is_empty() {
        return vec![row("none", "it asks for nothing")];
    }
    let withheld = format!("withheld: its trust level is {}", of.trust);
    let each = [(&of.granted, "granted"), (&of.not_granted, "not granted"), (&of.withheld, &*withheld)];
    each.iter().flat_map(|(list, standing)| list.iter().map(|it| row(it, standing))).collect()
}
