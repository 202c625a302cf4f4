//! Everything that a build needs, got without root and into the target folder where that can be.

pub(crate) mod debian;
pub(crate) mod minisign;
pub(crate) mod node;
pub(crate) mod python;
mod quickjs;
mod rust;
mod tools;
mod v8;

use std::env;
use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::say;
use crate::repo::{self, Repo};
pub(crate) use rust::WASM;
pub(crate) use tools::Tool;

/// Which engine JavaScript runs on in this build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JsEngine {
    V8,
    QuickJs,
}

impl JsEngine {
    /// What selects this engine in the packages that have the choice.
    pub(crate) fn cargo_args(self) -> &'static [&'static str] {
        match self {
            Self::V8 => &[],
            Self::QuickJs => &["--no-default-features", "--features", "quickjs"],
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V8 => "V8",
            Self::QuickJs => "QuickJS",
        }
    }
}

/// What set-up found out, for the commands that build and run things.
pub(crate) struct Setup {
    pub(crate) engine: JsEngine,
    pub(crate) python: PathBuf,
    root: PathBuf,
    tools: PathBuf,
    env: Vec<(&'static str, OsString)>,
}

/// Gets what is missing. `engine` is the caller's choice, where there is one.
pub(crate) fn run(repo: &Repo, engine: Option<JsEngine>, tools: &[Tool]) -> Result<Setup> {
    rust::ensure()?;
    let python = python::find()?;
    let wanted = engine.map_or_else(engine_from_env, |engine| Ok(Some(engine)))?;
    let engine = v8::choose(repo, wanted)?;
    for tool in tools {
        tools::ensure(repo, *tool)?;
    }
    let mut setup = Setup {
        engine,
        python: python.exe,
        root: repo.root.clone(),
        tools: tools::dir(repo),
        env: python.pyo3.into_iter().map(|exe| ("PYO3_PYTHON", exe.into())).collect(),
    };
    if engine == JsEngine::QuickJs {
        setup.add_quickjs(repo)?;
    }
    Ok(setup)
}

impl Setup {
    /// Cargo, in the repository's root and with all that set-up found.
    pub(crate) fn cargo(&self) -> Command {
        self.with_env(repo::cargo())
    }

    /// A tool that set-up installed, or found.
    pub(crate) fn tool(&self, tool: Tool) -> Command {
        let mut command = tools::command(&self.tools, tool);
        command.arg(tool.subcommand());
        repo::forget_cargo_run(&mut command);
        self.with_env(command)
    }

    /// The same with what a build on QuickJS needs, whichever engine was chosen.
    pub(crate) fn for_quickjs(&self, repo: &Repo) -> Result<Self> {
        let mut setup = Self {
            engine: JsEngine::QuickJs,
            python: self.python.clone(),
            root: self.root.clone(),
            tools: self.tools.clone(),
            env: self.env.clone(),
        };
        setup.add_quickjs(repo)?;
        Ok(setup)
    }

    fn add_quickjs(&mut self, repo: &Repo) -> Result<()> {
        self.env.extend(quickjs::ensure(repo, &self.python)?);
        Ok(())
    }

    /// At a terminal cargo shows how far it is; in a log its lines would only bury the results.
    fn with_env(&self, mut command: Command) -> Command {
        if !io::stderr().is_terminal() {
            command.env("CARGO_TERM_QUIET", "true");
        }
        command.current_dir(&self.root).envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

fn engine_from_env() -> Result<Option<JsEngine>> {
    Ok(Some(match env::var("QUADRIGA_JS").as_deref() {
        Ok("v8") => JsEngine::V8,
        Ok("quickjs") => {
            say("setup: JavaScript runs on QuickJS, as QUADRIGA_JS says");
            JsEngine::QuickJs
        }
        Ok("") | Err(env::VarError::NotPresent) => return Ok(None),
        _ => bail!("QUADRIGA_JS must be `v8` or `quickjs`"),
    }))
}
