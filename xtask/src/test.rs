//! `cargo xtask test`: every test of the product, on the JavaScript engine that this machine can
//! have, and the JavaScript tests once more on QuickJS.

use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use anyhow::{Result, bail};

use crate::cmd::{self, say};
use crate::guests::{self, Wanted};
use crate::repo::Repo;
use crate::setup::{self, JsEngine, Setup, Tool, minisign};

/// What the second engine must pass too, but in worker processes: those run the command, which is
/// built with the first. `tests/` keeps these modules apart for it.
const JS_TESTS: &str = "package(quadriga-runtime-js) or (package(quadriga-tests) \
    and test(/^(js|agents|clock|directions|snippets|versions|conformance::(js|pairs)|limits::js)::/) \
    and not test(/::(in_workers|here_and_there|there_and_here)::/))";

pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) engine: Option<JsEngine>,
    pub(crate) nextest: Vec<String>,
}

pub(crate) fn run(repo: &Repo, options: &Options) -> Result<()> {
    let setup = setup::run(repo, options.engine, &[Tool::Nextest])?;
    let everything = !options.quick && options.nextest.is_empty();
    let second = (everything && setup.engine == JsEngine::V8).then(|| setup.for_quickjs(repo)).transpose()?;
    guests::build(repo, &setup, Wanted::All)?;
    say("build: the tests");
    cmd::run(build(repo, &setup, "quadriga").arg("--tests"))?;

    let mut jobs = Jobs::default();
    let engine = setup.engine.name();
    let mut tests = nextest(repo, &setup, options);
    against_minisign(repo, &mut tests);
    jobs.run(&format!("tests on {engine}"), tests.args(&options.nextest));
    if everything {
        let mut doctests = setup.cargo();
        select(repo, &setup, doctests.args(["test", "--doc"]));
        jobs.run("doctests", with_guests(repo, &mut doctests));
    }
    if let Some(quickjs) = second {
        let mut tests = nextest(repo, &quickjs, options);
        jobs.run("JavaScript tests on QuickJS", tests.args(["-E", JS_TESTS]));
    }
    jobs.close()
}

/// Builds the `quadriga` command and says where it is.
pub(crate) fn build_cli(repo: &Repo, setup: &Setup) -> Result<PathBuf> {
    build_program(repo, setup, "quadriga")
}

/// The same of any program of the product.
pub(crate) fn build_program(repo: &Repo, setup: &Setup, name: &str) -> Result<PathBuf> {
    say(&format!("build: the program {name}"));
    cmd::run(&mut build(repo, setup, name))?;
    Ok(program(repo, name))
}

pub(crate) fn program(repo: &Repo, name: &str) -> PathBuf {
    repo.profile_dir(None, "dev").join(format!("{name}{}", std::env::consts::EXE_SUFFIX))
}

/// A build of a program with the features that the tests are built with: `--test tidy` makes
/// cargo count dev-dependencies, and without it the engines would be compiled a second time.
fn build(repo: &Repo, setup: &Setup, program: &str) -> Command {
    let mut cargo = setup.cargo();
    cargo.args(["build", "--bin", program, "--test", "tidy"]);
    select(repo, setup, &mut cargo);
    cargo
}

fn nextest(repo: &Repo, setup: &Setup, options: &Options) -> Command {
    let profile = match (options.quick, std::env::var_os("CI").is_some()) {
        (true, _) => "quick",
        (_, true) => "ci",
        _ => "default",
    };
    let mut nextest = setup.tool(Tool::Nextest);
    nextest.args(["run", "--profile", profile]);
    if std::env::var_os("NEXTEST_TEST_THREADS").is_none() {
        // Many tests wait for a deadline or a process rather than compute.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        nextest.env("NEXTEST_TEST_THREADS", (cores + cores.div_ceil(2)).to_string());
    }
    with_guests(repo, select(repo, setup, &mut nextest));
    nextest
}

/// Every task names the same packages, so that cargo builds their dependencies once for all.
pub(crate) fn select<'a>(repo: &Repo, setup: &Setup, command: &'a mut Command) -> &'a mut Command {
    for package in repo.host_packages() {
        command.args(["--package", &package.name]);
    }
    command.args(setup.engine.cargo_args())
}

/// Names the tool that signatures are checked against. Without it the tests that need it are
/// filtered out, and counted among the skipped ones.
fn against_minisign(repo: &Repo, nextest: &mut Command) {
    match minisign::find(repo) {
        Some(tool) => {
            nextest.env("QUADRIGA_MINISIGN", tool.program);
            nextest.envs(tool.library.map(|library| ("QUADRIGA_MINISIGN_LIBRARY", library)));
        }
        None => {
            nextest.args(["-E", "not test(/::(slow_)?minisign_/)"]);
        }
    }
}

pub(crate) fn with_guests<'a>(repo: &Repo, command: &'a mut Command) -> &'a mut Command {
    command
        .env("QUADRIGA_GUESTS", repo.target.join("guests"))
        .env("QUADRIGA_EXAMPLES", repo.target.join("examples"))
        .env("QUADRIGA_BIN", program(repo, "quadriga"))
}

/// Runs one job after the other, and fails at the end where one did.
#[derive(Default)]
struct Jobs(Vec<(String, bool)>);

impl Jobs {
    fn run(&mut self, name: &str, command: &mut Command) {
        let start = Instant::now();
        let result = cmd::run(command);
        let word = match &result {
            Ok(()) => "passed".to_owned(),
            Err(error) => format!("FAILED ({error:#})"),
        };
        say(&format!("test: {name}: {word} in {:.0} s", start.elapsed().as_secs_f64()));
        self.0.push((name.to_owned(), result.is_ok()));
    }

    fn close(self) -> Result<()> {
        let failed: Vec<_> =
            self.0.iter().filter(|(_, passed)| !passed).map(|(name, _)| name.as_str()).collect();
        if !failed.is_empty() {
            bail!("failed: {}", failed.join(", "));
        }
        Ok(())
    }
}
