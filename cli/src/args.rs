//! What can be typed: the commands and their options.

use std::io::Read as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use quadriga::abi::Isolation;
use quadriga::abi::limits::Span;
use serde_json::Value as Json;

use crate::completions::CompletionsArgs;
use crate::doctor::DoctorArgs;
use crate::home::args::{
    AuditArgs, BackupArgs, DepsArgs, EnableArgs, GoingArgs, HomeArgs, InstallArgs, ListArgs, OneArgs,
    PermissionArgs, RestoreArgs, UninstallArgs, UpdateArgs,
};
use crate::home::grants::GrantsArgs;
use crate::home::letters::DeadLettersArgs;
use crate::home::licences::LicencesArgs;
use crate::home::trust_args::{PinArgs, TrustArgs};
use crate::host::GrantArg;
#[cfg(unix)]
use crate::live::args::{HealthArgs, JobsArgs, MetricsArgs, ReloadArgs, RunArgs, StatusArgs, TopArgs};
use crate::man::ManArgs;
use crate::package::args::{KeygenArgs, PackArgs, SignArgs, UnpackArgs, VerifyArgs};
use crate::report::{LimitArg, limit};

/// Extensions in JavaScript, Python, WebAssembly and native Rust, behind one dispatcher.
#[derive(Debug, Parser)]
#[command(name = "quadriga", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
Exit codes: 0 done, 1 the work failed, 2 wrong usage, 130 interrupted.
Environment: NO_COLOR for plain text, RUST_LOG to choose what is logged.")]
pub(crate) struct Cli {
    /// Print JSON to standard output, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Say more; -vv says even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,

    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Inspect(InspectArgs),
    Hooks(HooksArgs),
    Bindgen(BindgenArgs),
    Call(CallArgs),
    Exec(ExecArgs),
    Pack(PackArgs),
    Unpack(UnpackArgs),
    Sign(SignArgs),
    Verify(VerifyArgs),
    Keygen(KeygenArgs),
    Install(InstallArgs),
    Update(UpdateArgs),
    /// Go back to the version of an extension before the last update; once more goes forth again
    #[command(after_help = "\
Examples:
  quadriga rollback acme.hello
  quadriga rollback acme.hello --dry-run")]
    Rollback(GoingArgs),
    /// Have hosts load an installed extension
    Enable(EnableArgs),
    /// Have hosts leave an installed extension alone
    #[command(after_help = "\
Examples:
  quadriga disable acme.hello
  quadriga disable acme.words --with-dependents")]
    Disable(GoingArgs),
    Uninstall(UninstallArgs),
    Deps(DepsArgs),
    List(ListArgs),
    /// Show one that is installed: its versions, what it asks for and is granted
    #[command(after_help = "\
Examples:
  quadriga show acme.hello
  quadriga show acme.hello --json | jq .grant")]
    Show(OneArgs),
    Config(ConfigArgs),
    /// Grant an installed extension more of what it asks for
    #[command(after_help = "\
Examples:
  quadriga grant acme.hello kv=true
  quadriga grant acme.hello 'net=[\"api.example.org:443\"]'")]
    Grant(PermissionArgs),
    /// Take back what an installed extension was granted
    #[command(after_help = "\
Examples:
  quadriga revoke acme.hello kv=true
  quadriga revoke acme.hello 'env=[\"LANG\"]'")]
    Revoke(PermissionArgs),
    Grants(GrantsArgs),
    #[command(visible_alias = "licenses")]
    Licences(LicencesArgs),
    Trust(TrustArgs),
    Pin(PinArgs),
    /// Have an extension that was pinned updated again
    #[command(after_help = "\
Examples:
  quadriga unpin acme.hello")]
    Unpin(OneArgs),
    DeadLetters(DeadLettersArgs),
    Audit(AuditArgs),
    Backup(BackupArgs),
    Restore(RestoreArgs),
    #[cfg(unix)]
    Run(RunArgs),
    #[cfg(unix)]
    Status(StatusArgs),
    #[cfg(unix)]
    Health(HealthArgs),
    #[cfg(unix)]
    Metrics(MetricsArgs),
    #[cfg(unix)]
    Jobs(JobsArgs),
    #[cfg(unix)]
    Top(TopArgs),
    #[cfg(unix)]
    Reload(ReloadArgs),
    Demo(DemoArgs),
    Doctor(DoctorArgs),
    /// Print the JSON Schema of quadriga.toml, for editors
    #[command(after_help = "\
Examples:
  quadriga schema > quadriga.schema.json")]
    Schema,
    Completions(CompletionsArgs),
    Man(ManArgs),
    /// Run one extension for the host that starts this
    #[cfg(target_os = "linux")]
    #[command(hide = true)]
    Worker,
}

/// Show what an extension is, asks for and offers
///
/// Loads the extension to read its methods, and grants it nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga inspect ./my-extension
  quadriga inspect ./my-extension --no-load
  quadriga inspect ./my-extension --json | jq '.loaded.methods[].name'
  quadriga inspect ./tokenizer --contract > contracts/acme.tokenizer.json
  quadriga inspect ./tokenizer --contract --method split --method join")]
pub(crate) struct InspectArgs {
    /// The extension's folder, with its quadriga.toml
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// Read the manifest only; run none of the extension's code
    #[arg(long)]
    pub(crate) no_load: bool,

    /// Print its contract instead: a JSON file that other extensions' manifests can name
    #[arg(long, conflicts_with = "no_load")]
    pub(crate) contract: bool,

    /// With --contract, only this method; may be repeated
    #[arg(long = "method", value_name = "NAME", requires = "contract")]
    pub(crate) methods: Vec<String>,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// Show in which order extensions answer the hooks of a host
///
/// Loads the extensions, and grants them the hooks that they ask for and nothing else.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga hooks extensions/*
  quadriga hooks ./planner ./checker --point plan.before_execution
  quadriga hooks extensions/* --json | jq '.[] | select(.allowed | not)'")]
pub(crate) struct HooksArgs {
    /// The extensions' folders, each with its quadriga.toml
    #[arg(value_name = "DIR", required = true, value_hint = ValueHint::DirPath)]
    pub(crate) dirs: Vec<PathBuf>,

    /// Only this hook point
    #[arg(long, value_name = "NAME")]
    pub(crate) point: Option<String>,

    /// The weakest isolation to accept: none, in-process, process, container or vm
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub(crate) isolation: Isolation,
}

/// Write a typed client of an extension, in whatever language it is written
///
/// Loads the extension to read its contract, and grants it nothing; or reads a contract file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga bindgen ./tokenizer --lang ts --out src/tokenizer.ts
  quadriga bindgen contracts/acme.tokenizer.json --lang python > tokenizer.py
  quadriga bindgen ./tokenizer --lang rust --method split     only what is used
  quadriga bindgen ./tokenizer --lang rust --for-host         for a Rust application")]
pub(crate) struct BindgenArgs {
    /// The extension's folder, or a contract file
    #[arg(value_name = "EXT", value_hint = ValueHint::AnyPath)]
    pub(crate) extension: PathBuf,

    /// The language of the client
    #[arg(long, value_enum)]
    pub(crate) lang: Language,

    /// The file to write; the standard output if left out
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) out: Option<PathBuf>,

    /// Only this method; may be repeated
    #[arg(long = "method", value_name = "NAME")]
    pub(crate) methods: Vec<String>,

    /// In Rust: for a host, which calls through its dispatcher, instead of for an extension
    #[arg(long)]
    pub(crate) for_host: bool,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// A language in which clients are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// TypeScript
    Ts,
    /// Python
    Python,
    /// Rust
    Rust,
}

/// Load an extension and call one of its methods
///
/// One that a host runs already is called there, unless an option says how it is to be loaded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga call ./hello greet '\"Ada\"'           one argument
  quadriga call ./adder add '[2, 3]'            two arguments
  quadriga call ./adder sum '[[1, 2, 3]]'       one argument, a list
  quadriga call ./site describe                 no arguments
  quadriga call ./stats count - < numbers.json
  quadriga call ./front start --with ./back     ./front can call ./back
  quadriga call ./front start --secret token=file:/run/secrets/token
  quadriga call acme.hello greet '\"Ada\"'      one that is installed, with what it is granted")]
pub(crate) struct CallArgs {
    /// The extension's folder, with its quadriga.toml, or the id of one that is installed
    #[arg(value_name = "EXT", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// The method to call
    pub(crate) method: String,

    /// The arguments: a JSON array of them, or any other JSON as the only one; - reads the
    /// standard input
    #[arg(value_name = "JSON", value_parser = json_or_stdin, allow_negative_numbers = true)]
    pub(crate) arguments: Option<Json>,

    /// What the extensions may do, of what their manifests ask for; those that are installed may do what
    /// they are granted in their home
    #[arg(long, value_enum, default_value_t = GrantArg::Requested)]
    pub(crate) grant: GrantArg,

    /// Give up after this time, such as 500ms, 5s or 2min
    #[arg(long, value_parser = span, default_value = "60s")]
    pub(crate) timeout: Duration,

    #[command(flatten)]
    pub(crate) settings: SettingArgs,

    /// Lower a limit of all that is loaded, such as memory=64MiB; may be repeated
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = limit)]
    pub(crate) limits: Vec<LimitArg>,

    /// Give the extensions a secret that they are granted, as NAME=file:PATH or NAME=env:VARIABLE; may
    /// be repeated
    #[arg(long = "secret", value_name = "NAME=FROM")]
    pub(crate) secrets: Vec<String>,

    /// Say what was decided about the extension, what it used and what held it
    #[arg(long)]
    pub(crate) report: bool,

    #[command(flatten)]
    pub(crate) home: HomeArgs,

    #[command(flatten)]
    pub(crate) host: HostArgs,
}

/// Settings of an extension.
#[derive(Debug, Args)]
pub(crate) struct SettingArgs {
    /// Set one of the extension's settings, over its manifest's default; may be repeated. Environment
    /// variables such as QUADRIGA_CONFIG_ACME_WORDS__LANGUAGE do the same, below it
    #[arg(long, value_name = "KEY=JSON", value_parser = setting)]
    pub(crate) config: Vec<(String, Json)>,

    /// Set all that a file sets, in TOML or, if its name ends in .json, in JSON; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) config_file: Vec<PathBuf>,
}

/// Show the settings of an extension and where each comes from, or have its home keep others
///
/// Of a setting that is set in several places the last one holds: the manifest's default, the home,
/// files, environment variables, the command line. What does not fit the schema of the manifest is
/// refused.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  quadriga config acme.words
  quadriga config acme.words --set language='\"de\"' --unset most
  quadriga config acme.words --set password='{\"secret\": \"db\"}'
  quadriga config ./words --config-file production.toml --json
  QUADRIGA_CONFIG_ACME_WORDS__MOST=5 quadriga config acme.words")]
pub(crate) struct ConfigArgs {
    /// The extension's folder, with its quadriga.toml, or the id of one that is installed
    #[arg(value_name = "EXT", value_hint = ValueHint::DirPath)]
    pub(crate) ext: PathBuf,

    /// Have the home keep a setting; may be repeated
    #[arg(long, value_name = "KEY=JSON", value_parser = setting, conflicts_with_all = ["config", "config_file"])]
    pub(crate) set: Vec<(String, Json)>,

    /// Have the home forget a setting; may be repeated
    #[arg(long, value_name = "KEY", conflicts_with_all = ["config", "config_file"])]
    pub(crate) unset: Vec<String>,

    /// Only to look at: what would hold with these
    #[command(flatten)]
    pub(crate) settings: SettingArgs,

    #[command(flatten)]
    pub(crate) home: HomeArgs,
}

/// Run a loose piece of source code once
///
/// It may do nothing beside computing unless it is let, has ten seconds and 256 MiB, and runs behind
/// a barrier: in an engine of its own (JavaScript, TypeScript), or in a process of its own (Python).
/// Nothing of it stays.
///
/// What it comes to: in JavaScript and TypeScript the default export, in Python what the function
/// `main` returns or, without one, the value of the last expression. A function gets the parameters.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  echo '6 * 7' | quadriga exec --language python
  echo 'export default (a, b) => a + b' | quadriga exec --language js --param 2 --param 3
  quadriga exec --language ts --isolation process sum.ts
  quadriga exec --language python --timeout 500ms --limit memory=64MiB work.py
  quadriga exec --language python --permission 'env=[\"LANG\"]' --report work.py
  quadriga exec --language js --permission kv=true --permission 'secrets=[\"token\"]' \
    --secret token=env:API_TOKEN work.js")]
pub(crate) struct ExecArgs {
    /// The language: javascript, typescript or python
    #[arg(long)]
    pub(crate) language: String,

    /// The file with the source; - or nothing for the standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub(crate) file: Option<PathBuf>,

    /// A parameter; may be repeated
    #[arg(long = "param", value_name = "JSON", value_parser = json, allow_negative_numbers = true)]
    pub(crate) params: Vec<Json>,

    /// The weakest isolation to accept: none, in-process, process, container or vm
    #[arg(long, value_name = "LEVEL", default_value = "in-process")]
    pub(crate) isolation: Isolation,

    /// End it after this time, such as 500ms, 5s or 2min
    #[arg(long, value_parser = span, default_value = "10s")]
    pub(crate) timeout: Duration,

    /// Set a limit, such as memory=64MiB, or take one away with memory=none; may be repeated
    #[arg(long = "limit", value_name = "NAME=VALUE", value_parser = limit)]
    pub(crate) limits: Vec<LimitArg>,

    /// Let it do something, as in [permissions] of a manifest; may be repeated
    #[arg(long = "permission", value_name = "KEY=JSON", value_parser = setting)]
    pub(crate) permissions: Vec<(String, Json)>,

    /// Give it a secret that it is permitted, as NAME=file:PATH or NAME=env:VARIABLE; may
    /// be repeated
    #[arg(long = "secret", value_name = "NAME=FROM")]
    pub(crate) secrets: Vec<String>,

    /// Say what was decided about it, what it used and what held it
    #[arg(long)]
    pub(crate) report: bool,
}

/// Where extensions run.
#[derive(Debug, Args)]
pub(crate) struct HostArgs {
    /// Load this extension first, for the other to call; may be repeated
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) with: Vec<PathBuf>,

    /// The weakest isolation to accept: none, in-process, process, container or vm
    #[arg(long, value_name = "LEVEL", default_value = "none")]
    pub(crate) isolation: Isolation,
}

/// Make a site from a folder of Markdown, with four extensions in four languages
///
/// JavaScript renders the pages, Python highlights their code, WebAssembly makes the HTML safe, and
/// native Rust writes compressed files. A code block that cannot be highlighted stays plain and is
/// reported.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  cargo xtask demo                              build everything, then run this
  quadriga demo ./docs --out ./site
  quadriga demo ./docs --json | jq .extensions")]
pub(crate) struct DemoArgs {
    /// The folder of Markdown
    #[arg(default_value = "docs", value_hint = ValueHint::DirPath)]
    pub(crate) dir: PathBuf,

    /// The folder with the built extensions: render, highlight, sanitize and assets
    #[arg(long, value_name = "DIR", default_value = "target/examples/site", value_hint = ValueHint::DirPath)]
    pub(crate) extensions: PathBuf,

    /// Where the site goes
    #[arg(long, value_name = "DIR", default_value = "target/demo-site", value_hint = ValueHint::DirPath)]
    pub(crate) out: PathBuf,
}

fn json(text: &str) -> Result<Json, String> {
    serde_json::from_str(text).map_err(|error| {
        let hint = match text.chars().next() {
            Some(first) if first.is_alphabetic() => "; text is written in quotes: '\"text\"'",
            _ => "",
        };
        format!("not JSON: {error}{hint}")
    })
}

fn json_or_stdin(text: &str) -> Result<Json, String> {
    if text != "-" {
        return json(text);
    }
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|error| format!("the standard input cannot be read: {error}"))?;
    json(&text)
}

pub(crate) fn setting(text: &str) -> Result<(String, Json), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), json(value)?)),
        _ => Err("expected KEY=JSON, such as colour='\"green\"'".to_owned()),
    }
}

pub(crate) fn span(text: &str) -> Result<Duration, String> {
    Span::try_from(text.to_owned()).map(|Span(duration)| duration)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_commands_are_sound() {
        super::Cli::command().debug_assert();
    }
}
