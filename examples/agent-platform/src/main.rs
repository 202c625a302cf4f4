//! Plays a recorded scenario on the platform, and tells what happened.

use std::io::{self, IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use agent_platform::{Platform, Scenario, compare, folders};
use anyhow::{Context as _, Result};
use clap::Parser;
use comfy_table::Table;
use comfy_table::presets::UTF8_FULL_CONDENSED;
use quadriga::Dispatcher;
use quadriga::abi::Isolation;

/// Plays a recorded scenario on a platform for agents, with its extensions, and tells what happened.
#[derive(Parser)]
#[command(
    name = "agent-platform",
    version,
    after_help = "\
Examples:
  agent-platform
  agent-platform --check examples/agent-platform/golden.txt
  agent-platform my-scenario.jsonl --isolation process --json

Exit codes: 0 done, 1 the scenario is wrong or the transcript differs, 2 wrong usage."
)]
struct Args {
    /// What to play: one JSON value per line
    #[arg(default_value = "examples/agent-platform/scenario.jsonl")]
    scenario: PathBuf,
    /// The folder of the built extensions
    #[arg(long, value_name = "DIR", default_value = "target/examples/agents")]
    extensions: PathBuf,
    /// The weakest isolation that an extension may run in: none, in-process, process or container
    #[arg(long, default_value_t = Isolation::InProcess)]
    isolation: Isolation,
    /// Fail unless the transcript is what is in this file
    #[arg(long, value_name = "FILE", conflicts_with = "update")]
    check: Option<PathBuf>,
    /// Write the transcript to this file
    #[arg(long, value_name = "FILE")]
    update: Option<PathBuf>,
    /// Print the transcript as JSON
    #[arg(long)]
    json: bool,
}

fn main() -> ExitCode {
    // The program is its own worker, so that there is one file to install.
    #[cfg(all(feature = "engines", target_os = "linux"))]
    if std::env::args().skip(1).eq(["worker"]) {
        return quadriga::worker_main();
    }
    match quadriga::block_on(run(&Args::parse())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nothing is left to tell the user with if this fails.
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let file = args.scenario.display().to_string();
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
    };
    let scenario = Scenario::parse(&file, &read(&args.scenario)?)?;
    let extensions = folders(&args.extensions)?;
    #[cfg(all(feature = "engines", target_os = "linux"))]
    let builder = quadriga::builder_with_worker(std::env::current_exe()?);
    #[cfg(not(all(feature = "engines", target_os = "linux")))]
    let builder = quadriga::builder();
    let mut platform = Platform::start(builder, args.isolation, &extensions).await?;
    let transcript = platform.play(&scenario).await?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&transcript)? + "\n",
        false => transcript.to_string(),
    };
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    if !args.json && stdout.is_terminal() {
        writeln!(stdout, "\n{}", table(platform.host()))?;
    }
    platform.host().shutdown().await;
    if let Some(golden) = &args.update {
        std::fs::write(golden, transcript.to_string())
            .with_context(|| format!("{} cannot be written", golden.display()))?;
    }
    match &args.check {
        Some(golden) => compare(&transcript.to_string(), &read(golden)?)
            .with_context(|| format!("the transcript is not that of {}", golden.display())),
        None => Ok(()),
    }
}

/// How the extensions did.
fn table(host: &Dispatcher) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED.with_rounded_corners());
    table.set_header(["Extension", "Runtime", "Isolation", "Calls", "Errors", "p50", "p99"]);
    for status in host.list() {
        let metrics = status.metrics;
        table.add_row([
            status.id.to_string(),
            status.runtime.to_string(),
            status.isolation.to_string(),
            metrics.calls.to_string(),
            metrics.errors.to_string(),
            format!("{:.1?}", metrics.p50),
            format!("{:.1?}", metrics.p99),
        ]);
    }
    table
}
