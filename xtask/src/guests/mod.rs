//! Builds every extension package of this repository from source into a folder ready to load:
//! `tests/guests/<case>/` into `target/guests/<case>/{js,python,wasm,native}/`, `tests/foreign/` into
//! `target/guests/foreign/`, and `examples/` into `target/examples/` in the same way. Beside them, in
//! `target/guests/since-v0.1/`, are extensions as they were built when the contract was released.

mod discover;
mod fixtures;
mod foreign;
mod rust;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::cmd::say;
use crate::files::Tree;
use crate::repo::Repo;
use crate::setup::{Setup, node, python};
use discover::{Guest, Kind, Source};

/// Which of the packages to build.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Wanted {
    All,
    /// Only the extensions of the demo.
    Demo,
    /// Only those of the example host.
    Agents,
    /// The tests' guests with optimised native code, into a folder of their own.
    Bench,
}

impl Wanted {
    /// The cargo profile of native guests.
    fn native_profile(self) -> &'static str {
        if self == Self::Bench { "guest" } else { "dev" }
    }

    fn includes(self, guest: &Guest) -> bool {
        match self {
            Self::All => true,
            Self::Demo => guest.dest.starts_with(discover::SITE),
            Self::Agents => guest.dest.starts_with(discover::AGENTS),
            Self::Bench => guest.dest.starts_with("guests") && !matches!(guest.source, Source::Foreign(_)),
        }
    }
}

/// The folder that the packages are built into: `guests/` and `examples/` are inside it.
pub(crate) fn dest(repo: &Repo, wanted: Wanted) -> PathBuf {
    if wanted == Wanted::Bench { repo.target.join("bench-guests") } else { repo.target.clone() }
}

pub(crate) fn build(repo: &Repo, setup: &Setup, wanted: Wanted) -> Result<()> {
    let mut guests = discover::all(repo)?;
    guests.retain(|guest| wanted.includes(guest));
    say("build: the Rust guests");
    make(repo, setup, &guests, wanted.native_profile(), &dest(repo, wanted))?;
    if wanted == Wanted::All { fixtures::build(repo, setup) } else { Ok(()) }
}

fn make(repo: &Repo, setup: &Setup, guests: &[Guest], native_profile: &str, dest: &Path) -> Result<()> {
    let artifacts = rust::build(repo, setup, guests, native_profile)?;
    for guest in guests {
        let name = || format!("cannot build {}", guest.dest.display());
        let mut tree = tree(repo, setup, guest).with_context(name)?;
        match &guest.source {
            Source::Folder => {}
            Source::Rust { package } => {
                tree.add(&guest.manifest.entry, artifacts.of(package, guest.manifest.kind));
            }
            Source::Foreign(toolchain) => {
                let component = foreign::component(repo, setup, guest, *toolchain).with_context(name)?;
                tree.add(&guest.manifest.entry, component);
            }
        }
        tree.write(&dest.join(&guest.dest)).with_context(name)?;
    }
    Ok(())
}

/// The crates that are compiled to WebAssembly.
pub(crate) fn wasm_packages(repo: &Repo) -> Result<Vec<String>> {
    let guests = discover::all(repo)?;
    Ok(rust::packages(&guests, Kind::Wasm).into_iter().map(str::to_owned).collect())
}

/// The files of a package, but for what a compiler makes.
fn tree(repo: &Repo, setup: &Setup, guest: &Guest) -> Result<Tree> {
    let mut tree = Tree::default();
    if let Source::Folder = guest.source {
        let not_shipped = ["node_modules", "__pycache__", "package-lock.json", "requirements.txt"];
        tree.add_dir(Path::new(""), &guest.dir, &not_shipped)?;
        vendor_npm(repo, guest, &mut tree)?;
        vendor_pypi(repo, setup, guest, &mut tree)?;
    }
    tree.add("quadriga.toml", &guest.manifest.path);
    Ok(tree)
}

/// Takes the files that `package.json` names under `quadriga.vendor` out of the npm packages.
fn vendor_npm(repo: &Repo, guest: &Guest, tree: &mut Tree) -> Result<()> {
    let file = guest.dir.join("package.json");
    if !file.is_file() {
        return Ok(());
    }
    let package: serde_json::Value = serde_json::from_str(&fs::read_to_string(&file)?)
        .with_context(|| format!("{}", repo.relative(&file).display()))?;
    let Some(wanted) = package.pointer("/quadriga/vendor") else {
        return Ok(());
    };
    let wanted = wanted.as_object().context("`quadriga.vendor` in package.json must map files to files")?;
    let installed = node::install(repo, &guest.dir)?;
    for (to, from) in wanted {
        let from = installed
            .join(from.as_str().context("`quadriga.vendor` in package.json must map files to files")?);
        if from.is_dir() {
            tree.add_dir(Path::new(to), &from, &[])?;
        } else if from.is_file() {
            tree.add(to, from);
        } else {
            anyhow::bail!("{}: the npm packages hold no {}", repo.relative(&file).display(), from.display());
        }
    }
    Ok(())
}

/// Puts what `requirements.txt` lists into `vendor/`.
fn vendor_pypi(repo: &Repo, setup: &Setup, guest: &Guest, tree: &mut Tree) -> Result<()> {
    let lock = guest.dir.join("requirements.txt");
    if !lock.is_file() {
        return Ok(());
    }
    let site = python::packages(repo, &setup.python, &lock)?;
    tree.add_dir(Path::new("vendor"), &site, &["__pycache__"])
}
