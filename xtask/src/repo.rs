//! Where things are: the repository, cargo's target folder and the workspace's packages.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::Deserialize;

use crate::cmd;

/// The example that is a host, and not loaded by one; its extensions are below.
pub(crate) const EXAMPLE_HOST: &str = "examples/agent-platform";

/// The workspace as `cargo metadata` describes it.
#[derive(Deserialize)]
pub(crate) struct Repo {
    #[serde(rename = "workspace_root")]
    pub(crate) root: PathBuf,
    #[serde(rename = "target_directory")]
    pub(crate) target: PathBuf,
    pub(crate) packages: Vec<Package>,
}

/// One member of the workspace.
#[derive(Deserialize)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) manifest_path: PathBuf,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// One line of a package's dependencies, of any kind.
#[derive(Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
}

/// A library, binary, test or other artifact of a package.
#[derive(Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

impl Repo {
    pub(crate) fn find() -> Result<Self> {
        let xtask = env::var_os("CARGO_MANIFEST_DIR").context("run this as `cargo xtask`")?;
        Self::at(Path::new(&xtask))
    }

    /// The workspace that a package's folder belongs to.
    pub(crate) fn at(dir: &Path) -> Result<Self> {
        let text = cmd::output(
            cargo()
                .args(["metadata", "--no-deps", "--format-version", "1", "--manifest-path"])
                .arg(dir.join("Cargo.toml")),
        )?;
        serde_json::from_str(&text).context("`cargo metadata` printed something unexpected")
    }

    /// The packages that the product consists of, and the example host: everything but what is loaded,
    /// and the bench, which would switch features on that the product doesn't have.
    pub(crate) fn host_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| !self.is_guest(package) && package.name != "quadriga-bench")
    }

    /// Guests and example extensions are loaded by the product, and never linked into it.
    pub(crate) fn is_guest(&self, package: &Package) -> bool {
        let dir = package.dir();
        let host = self.root.join(EXAMPLE_HOST);
        let example = dir.starts_with(self.root.join("examples")) && dir != host;
        dir.starts_with(self.root.join("tests/guests")) || example
    }

    /// A path as a person would write it, from the repository's root.
    pub(crate) fn relative<'a>(&self, path: &'a Path) -> &'a Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }

    /// The folder where a built Cargo profile lies.
    pub(crate) fn profile_dir(&self, target: Option<&str>, profile: &str) -> PathBuf {
        let dir = if profile == "dev" { "debug" } else { profile };
        target.map_or_else(|| self.target.clone(), |target| self.target.join(target)).join(dir)
    }
}

impl Package {
    pub(crate) fn dir(&self) -> &Path {
        self.manifest_path.parent().unwrap_or(&self.manifest_path)
    }

    /// The name of the package's library in `use` paths, or of its first binary.
    pub(crate) fn crate_name(&self) -> String {
        self.targets
            .iter()
            .find(|target| target.kind.iter().any(|kind| kind.contains("lib") || kind == "proc-macro"))
            .map_or_else(|| self.name.replace('-', "_"), |target| target.name.replace('-', "_"))
    }
}

/// Cargo, as somebody would start it.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    forget_cargo_run(&mut command);
    command
}

/// Takes out of a command's environment what `cargo run` set for this program. It would reach build
/// scripts, and whatever depends on those would be built anew each time that another command builds it.
pub(crate) fn forget_cargo_run(command: &mut Command) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let ours = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
        if ours.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
}
