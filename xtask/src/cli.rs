//! The command line: every task with its options and examples.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand, ValueEnum};

use crate::repo::Repo;
use crate::setup::{self, JsEngine, Tool};
use crate::{agents, bench, ci, codegen, demo, fuzz, guests, test, tidy, vm};

/// Set-up, guests, tests, checks, benches and the demo of this repository.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    after_help = "\
Environment:
  QUADRIGA_JS=v8|quickjs   the JavaScript engine to build with (default: V8 where its archive can be had)
  QUADRIGA_V8_SHARED=DIR   where to look for a V8 archive (default: ../shared/v8 beside the repository)
  RUSTY_V8_ARCHIVE=FILE    a V8 archive to build with
  PYO3_PYTHON=FILE         the Python interpreter to build with (default: python3)"
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Get everything that a build needs, into the target folder where it can be.
    #[command(after_help = "Examples:\n  cargo xtask setup\n  QUADRIGA_JS=quickjs cargo xtask setup")]
    Setup,
    /// Build every extension of tests/guests and examples from source, ready to load.
    #[command(after_help = "Examples:\n  cargo xtask guests\n  ls target/guests/relay/wasm")]
    Guests,
    /// Set up, build the guests, and run the tests.
    #[command(after_help = "\
Examples:
  cargo xtask test                       everything, and the JavaScript tests once more on QuickJS
  cargo xtask test --quick               the developer's loop: one engine, no doctests, no slow tests
  cargo xtask test --engine quickjs
  cargo xtask test --quick -- directions only the tests with this in their name")]
    Test {
        /// Leave out doctests, slow tests and the second JavaScript engine.
        #[arg(long)]
        quick: bool,
        /// The JavaScript engine to build with.
        #[arg(long, value_enum)]
        engine: Option<Engine>,
        /// What to hand to nextest.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Make a static site out of a folder of Markdown, with four extensions in four languages.
    #[command(after_help = "\
Examples:
  cargo xtask demo
  cargo xtask demo ../notes --out target/notes
  cargo xtask demo docs -- --json")]
    Demo {
        /// The folder of Markdown.
        #[arg(default_value = "docs")]
        dir: PathBuf,
        /// Where the site goes [default: demo-site in the target folder].
        #[arg(long)]
        out: Option<PathBuf>,
        /// What to hand to `quadriga demo`.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Play a scenario on the example host, with seven extensions in four languages.
    #[command(after_help = "\
Examples:
  cargo xtask agents
  cargo xtask agents -- --isolation process
  cargo xtask agents -- --check examples/agent-platform/golden.txt
  cargo xtask agents -- --update examples/agent-platform/golden.txt")]
    Agents {
        /// What to hand to `agent-platform`.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Check what the compiler doesn't: who imports whom, file lengths, names, the spec map.
    #[command(after_help = "Examples:\n  cargo xtask tidy\n  cargo xtask tidy --json")]
    Tidy {
        /// Print the findings as JSON.
        #[arg(long)]
        json: bool,
    },
    /// Measure each runtime against its bare engine in the same run.
    #[command(after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench -- --json")]
    Bench {
        /// What to hand to the bench program.
        #[arg(last = true)]
        rest: Vec<String>,
    },
    /// Write the committed files that are generated.
    #[command(after_help = "Examples:\n  cargo xtask codegen\n  cargo xtask codegen --check")]
    Codegen {
        /// Write nothing, and fail where a file differs from what the code gives.
        #[arg(long)]
        check: bool,
    },
    /// Feed what reads outside bytes with all that a fuzzer thinks of.
    #[command(after_help = "\
Examples:
  cargo xtask fuzz
  cargo xtask fuzz manifest --seconds 300")]
    Fuzz {
        /// One of the targets in fuzz/fuzz_targets [default: all, one after the other].
        target: Option<String>,
        /// How long to go on with each.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
    },
    /// Run the sandbox's suites in a virtual machine with Debian's kernels, on cgroup version 2.
    #[command(after_help = "\
Examples:
  cargo xtask vm                             the sandbox's tests, and those of the product that are about workers
  cargo xtask vm --quick                     the sandbox's own tests: no engine is built
  cargo xtask vm --kernel linux-image-amd64 --quick -- groups::")]
    Vm {
        /// The sandbox's own tests alone, without slow ones.
        #[arg(long)]
        quick: bool,
        /// Packages of kernels [default: linux-image-amd64 and linux-image-6.12-amd64].
        #[arg(long)]
        kernel: Vec<String>,
        /// How to run the machine [default: KVM, or emulated where that does not come up].
        #[arg(long, value_enum)]
        accel: Option<vm::Accel>,
        /// What to hand to nextest.
        #[arg(last = true)]
        nextest: Vec<String>,
    },
    /// Everything that a change has to pass: what `.ci/run` calls.
    #[command(after_help = "Examples:\n  cargo xtask ci\n  bash .ci/run")]
    Ci,
}

#[derive(Clone, Copy, ValueEnum)]
enum Engine {
    V8,
    Quickjs,
}

impl Cli {
    pub(crate) fn run(self) -> Result<()> {
        let repo = Repo::find()?;
        match self.task {
            Task::Setup => setup::run(&repo, None, &[Tool::Nextest, Tool::Deny]).map(drop),
            Task::Guests => {
                let setup = setup::run(&repo, None, &[])?;
                guests::build(&repo, &setup, guests::Wanted::All)
            }
            Task::Test { quick, engine, nextest } => {
                let engine = engine.map(|engine| match engine {
                    Engine::V8 => JsEngine::V8,
                    Engine::Quickjs => JsEngine::QuickJs,
                });
                test::run(&repo, &test::Options { quick, engine, nextest })
            }
            Task::Demo { dir, out, rest } => {
                let setup = setup::run(&repo, None, &[])?;
                demo::run(&repo, &setup, &dir, out.as_deref(), &rest)
            }
            Task::Agents { rest } => {
                let setup = setup::run(&repo, None, &[])?;
                agents::run(&repo, &setup, &rest)
            }
            Task::Tidy { json } => tidy::run(&repo, json),
            Task::Bench { rest } => bench::run(&repo, &rest),
            Task::Codegen { check } => {
                let setup = setup::run(&repo, None, &[])?;
                codegen::run(&repo, &setup, check)
            }
            Task::Fuzz { target, seconds } => fuzz::run(&repo, target.as_deref(), seconds),
            Task::Vm { quick, kernel, accel, nextest } => {
                vm::run(&repo, &vm::Options { quick, kernels: kernel, accel, nextest })
            }
            Task::Ci => ci::run(&repo),
        }
    }
}
