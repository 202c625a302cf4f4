//! `cargo xtask ci`: everything that a change has to pass, each step with its time.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::cmd::{self, say};
use crate::guests;
use crate::repo::{self, Repo};
use crate::setup::{self, Setup, Tool};
use crate::{agents, codegen, demo, test, tidy};

pub(crate) fn run(repo: &Repo) -> Result<()> {
    let mut steps = Steps::default();
    let setup = steps.run("setup", || setup::run(repo, None, &[Tool::Nextest, Tool::Deny]));
    if let Some(setup) = setup {
        // What needs no compiling comes first, and what the later steps build on before them.
        steps
            .run("fmt", || cmd::run(repo::cargo().args(["fmt", "--all", "--check"]).current_dir(&repo.root)));
        steps.run("tidy", || tidy::run(repo, false));
        steps.run("deny", || deny(&setup));
        steps.run("clippy", || clippy(repo, &setup));
        steps.run("test", || {
            test::run(repo, &test::Options { quick: false, engine: Some(setup.engine), nextest: Vec::new() })
        });
        steps.run("codegen", || codegen::run(repo, &setup, true));
        steps.run("demo", || smoke(repo, &setup));
        steps.run("agents", || {
            let golden = repo.root.join(repo::EXAMPLE_HOST).join("golden.txt");
            agents::run(repo, &setup, &["--check".to_owned(), golden.display().to_string()])
        });
    }
    steps.close()
}

fn clippy(repo: &Repo, setup: &Setup) -> Result<()> {
    let deny = ["--", "--deny", "warnings"];
    let mut all = setup.cargo();
    all.args(["clippy", "--workspace", "--all-targets"]).args(setup.engine.cargo_args());
    cmd::run(all.args(deny))?;
    let mut wasm = setup.cargo();
    wasm.args(["clippy", "--lib", "--target", setup::WASM]);
    for package in guests::wasm_packages(repo)? {
        wasm.args(["--package", &package]);
    }
    cmd::run(wasm.args(deny))
}

fn deny(setup: &Setup) -> Result<()> {
    let check = |what: &[&str]| {
        let mut deny = setup.tool(Tool::Deny);
        deny.args(["--log-level", "error", "check", "--hide-inclusion-graph"]).args(what);
        deny
    };
    cmd::run(&mut check(&["bans", "licenses", "sources"]))?;
    let mut fuzz = setup.tool(Tool::Deny);
    fuzz.args(["--log-level", "error", "--manifest-path", "fuzz/Cargo.toml", "--config", "deny.toml"]);
    fuzz.args(["check", "--hide-inclusion-graph", "licenses", "sources"]);
    cmd::run(&mut fuzz)?;
    // The advisory database lives outside the package registries: where it can't be fetched,
    // nothing was checked, and that is said instead of counted as a pass.
    let mut fetch = setup.tool(Tool::Deny);
    if cmd::succeeds(fetch.args(["fetch", "db"])) {
        cmd::run(&mut check(&["advisories"]))
    } else {
        say("advisories: not checked (database unreachable)");
        Ok(())
    }
}

/// The demo on the project's own docs: it must end well and leave a site.
fn smoke(repo: &Repo, setup: &Setup) -> Result<()> {
    let out = repo.target.join("demo-ci");
    if out.exists() {
        fs::remove_dir_all(&out).with_context(|| format!("cannot remove {}", out.display()))?;
    }
    demo::run(repo, setup, Path::new("docs"), Some(&out), &[])?;
    if !out.join("index.html").is_file() {
        bail!("the demo ended well, but wrote no index.html");
    }
    Ok(())
}

#[derive(Default)]
struct Steps(Vec<(&'static str, Duration, bool)>);

impl Steps {
    /// Runs one step, and goes on with the next whatever comes of it.
    fn run<T>(&mut self, name: &'static str, step: impl FnOnce() -> Result<T>) -> Option<T> {
        say(&format!("ci: {name} …"));
        let start = Instant::now();
        let result = step();
        if let Err(error) = &result {
            say(&format!("ci: {name}: {error:#}"));
        }
        self.0.push((name, start.elapsed(), result.is_ok()));
        result.ok()
    }

    fn close(self) -> Result<()> {
        let total: Duration = self.0.iter().map(|(_, time, _)| *time).sum();
        say("");
        for (name, time, passed) in &self.0 {
            say(&format!(
                "{name:<10} {:>7.1} s  {}",
                time.as_secs_f64(),
                if *passed { "passed" } else { "FAILED" }
            ));
        }
        say(&format!("{:<10} {:>7.1} s", "total", total.as_secs_f64()));
        if self.0.iter().any(|(.., passed)| !passed) {
            bail!("a step failed");
        }
        Ok(())
    }
}
