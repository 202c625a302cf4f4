//! `quadriga licences`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand, ValueEnum};
use quadriga::abi::ExtensionId;
use quadriga::home::{Home, InstalledState, LicensePolicy, Licensed, Licenses};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::args::HomeArgs;
use super::operation::Operation;
use crate::host;
use crate::output::{Output, harmless, table};

/// Show the licences of what is installed and of all that it brings along, or say which may come in
///
/// It fails if the policy denies one that it shows.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "\
Examples:
  quadriga licences
  quadriga licences acme.hello
  quadriga licences --json | jq '.extensions[].parts[] | select(.license == null) | .purl'
  quadriga licences policy --allow MIT,Apache-2.0,BSD-3-Clause --unknown deny
  quadriga licences policy --deny AGPL-3.0-only --exception acme.hello")]
pub(crate) struct LicencesArgs {
    #[command(subcommand)]
    what: Option<LicencesCommand>,

    /// The id of an extension; all if left out
    #[arg(value_name = "ID")]
    id: Option<String>,

    /// Only what the policy denies
    #[arg(long)]
    denied: bool,

    #[command(flatten)]
    home: HomeArgs,
}

#[derive(Debug, Subcommand)]
enum LicencesCommand {
    Policy(PolicyArgs),
}

/// Show which licences may come in, or change it
///
/// What is installed, updated, rolled back and enabled has to keep to it: the extension itself, and each part
/// that its SBOM names. An SPDX expression is accepted if one of the choices that it leaves is. What was enabled
/// before goes on, and is told. Each option takes the place of what was said before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga licences policy
  quadriga licences policy --allow MIT,Apache-2.0,BSD-3-Clause --unknown deny
  quadriga licences policy --allow all --deny AGPL-3.0-only,SSPL-1.0
  quadriga licences policy --deny none --exception acme.hello --exception acme.site")]
struct PolicyArgs {
    /// The licences that are allowed, by their SPDX names and with commas between them; or `all`
    #[arg(long, value_name = "NAMES")]
    allow: Option<String>,

    /// Those that are not, whatever is allowed; or `none`
    #[arg(long, value_name = "NAMES")]
    deny: Option<String>,

    /// What becomes of a part without a licence, or with one that is no SPDX expression
    #[arg(long, value_name = "WHAT")]
    unknown: Option<Unknown>,

    /// An extension that the policy does not hold for, or `none`; may be repeated
    #[arg(long = "exception", value_name = "ID", value_parser = exception)]
    exceptions: Vec<Exception>,

    #[command(flatten)]
    home: HomeArgs,
}

/// What becomes of what has no known licence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Unknown {
    /// It is accepted
    Allow,
    /// It is refused
    Deny,
}

/// An id, or none.
#[derive(Debug, Clone)]
struct Exception(Option<ExtensionId>);

fn exception(text: &str) -> Result<Exception, String> {
    match text {
        "none" => Ok(Exception(None)),
        id => ExtensionId::new(id).map(|id| Exception(Some(id))).map_err(|error| error.to_string()),
    }
}

/// Shows licences, or the policy.
pub(crate) fn licences(args: LicencesArgs, output: Output) -> Result<ExitCode> {
    match args.what {
        Some(LicencesCommand::Policy(args)) => policy(args, output),
        None => show(args, output),
    }
}

fn show(args: LicencesArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let path = args.home.path()?;
        let (policy, mut all) = Home::look_at_licenses(&path).await?;
        if let Some(id) = &args.id {
            let wanted = Home::look_at(&path, id).await?.id;
            all.retain(|it| it.id == wanted);
        }
        let denied: Vec<&Licenses> = all.iter().filter(|it| it.denied().next().is_some()).collect();
        let code = if denied.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
        if output.json {
            let wanted: Vec<&Licenses> = if args.denied { denied } else { all.iter().collect() };
            return output.value(&json!({ "policy": policy, "extensions": wanted })).map(|()| code);
        }
        if all.is_empty() {
            output.note("nothing is installed");
            return Ok(code);
        }
        let row = |of: &Licenses, part: &Licensed| {
            let verdict = match (&part.denied, of.excepted) {
                (None, _) => "allowed".to_owned(),
                (Some(_), true) => "allowed: the extension is excepted".to_owned(),
                (Some(why), false) => format!("denied: {why}"),
            };
            let license = part.license.as_deref().unwrap_or("unknown");
            [of.id.as_str(), &part.name, &part.version, license, &verdict].map(harmless).to_vec()
        };
        let shown = |of: &Licenses, part: &Licensed| !args.denied || part.denied.is_some() && !of.excepted;
        let parts = all.iter().flat_map(|of| of.parts.iter().map(move |part| (of, part)));
        let rows: Vec<_> =
            parts.filter(|(of, part)| shown(of, part)).map(|(of, part)| row(of, part)).collect();
        let header = ["extension", "part", "version", "licence", "verdict"];
        if !rows.is_empty() {
            output.text(&table(&header, &[], rows))?;
        }
        for of in denied {
            output.note(&harmless(&advice(of)));
        }
        Ok(code)
    })
}

/// What is to be done about one that the policy denies.
fn advice(of: &Licenses) -> String {
    let id = &of.id;
    let what = match of.state {
        InstalledState::Enabled => {
            format!("it goes on until `quadriga disable {id}`, and is not enabled again")
        }
        _ => "it is not enabled".to_owned(),
    };
    format!("{id} {} is denied: {what}; or say `quadriga licences policy --exception {id}`", of.version)
}

/// What is to be changed about the policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct PolicyChange {
    /// Names with commas between them, `all` or `none`.
    #[serde(default)]
    allow: Option<String>,
    /// Names with commas between them, or `none`.
    #[serde(default)]
    deny: Option<String>,
    #[serde(default)]
    unknown: Option<Unknown>,
    #[serde(default)]
    exceptions: Option<BTreeSet<ExtensionId>>,
}

/// What came of it.
#[derive(Deserialize)]
struct Changed {
    policy: LicensePolicy,
    refused: Vec<Licenses>,
}

fn policy(args: PolicyArgs, output: Output) -> Result<ExitCode> {
    let PolicyArgs { allow, deny, unknown, exceptions, home } = args;
    let named = !exceptions.is_empty();
    let exceptions = named.then(|| exceptions.into_iter().filter_map(|Exception(id)| id).collect());
    let change = PolicyChange { allow, deny, unknown, exceptions };
    host::run(async move {
        let answer = home.carry_out(Operation::LicensePolicy(change), output).await?;
        if output.json {
            return output.value(&answer).map(|()| ExitCode::SUCCESS);
        }
        let Changed { policy, refused } = serde_json::from_value(answer)?;
        let list = |names: Vec<&str>, empty: &str| match names.is_empty() {
            true => empty.to_owned(),
            false => names.join(", "),
        };
        let names = |set: &BTreeSet<String>| list(set.iter().map(String::as_str).collect(), "none");
        let exceptions = policy.exceptions.iter().map(ExtensionId::as_str).collect();
        let lines = [
            format!("allow       {}", policy.allow.as_ref().map_or("all".to_owned(), names)),
            format!("deny        {}", names(&policy.deny)),
            format!("unknown     {}", if policy.unknown { "allow" } else { "deny" }),
            format!("exceptions  {}", list(exceptions, "none")),
        ];
        output.text(&harmless(&lines.join("\n")))?;
        for of in &refused {
            output.note(&harmless(&advice(of)));
        }
        Ok(ExitCode::SUCCESS)
    })
}

impl PolicyChange {
    /// A policy with this in the place of what there was.
    pub(super) fn of(self, policy: LicensePolicy) -> LicensePolicy {
        let set = |names: &str| names.split(',').map(|name| name.trim().to_owned()).collect();
        LicensePolicy {
            allow: match self.allow.as_deref() {
                None => policy.allow,
                Some("all") => None,
                Some("none") => Some(BTreeSet::new()),
                Some(names) => Some(set(names)),
            },
            deny: match self.deny.as_deref() {
                None => policy.deny,
                Some("none") => BTreeSet::new(),
                Some(names) => set(names),
            },
            unknown: self.unknown.map_or(policy.unknown, |it| it == Unknown::Allow),
            exceptions: self.exceptions.unwrap_or(policy.exceptions),
        }
    }
}
