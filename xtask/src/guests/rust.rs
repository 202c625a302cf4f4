//! Compiles the Rust guests: one cargo call for all WebAssembly components, one for all libraries.

use std::collections::BTreeSet;
use std::env::consts::{DLL_PREFIX, DLL_SUFFIX};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use super::discover::{Guest, Kind, Source};
use crate::cmd;
use crate::repo::Repo;
use crate::setup::{Setup, WASM};

/// Where the compiled guests are.
pub(crate) struct Artifacts {
    wasm: PathBuf,
    native: PathBuf,
}

impl Artifacts {
    pub(crate) fn of(&self, package: &str, kind: Kind) -> PathBuf {
        let name = package.replace('-', "_");
        match kind {
            Kind::Wasm => self.wasm.join(format!("{name}.wasm")),
            _ => self.native.join(format!("{DLL_PREFIX}{name}{DLL_SUFFIX}")),
        }
    }
}

pub(crate) fn build(repo: &Repo, setup: &Setup, guests: &[Guest], native_profile: &str) -> Result<Artifacts> {
    let wasm = packages(guests, Kind::Wasm);
    if !wasm.is_empty() {
        let mut cargo = build_in(repo, setup, "guest");
        cmd::run(cargo.args(["--target", WASM]).args(select(&wasm)))?;
    }
    let native = packages(guests, Kind::Native);
    if !native.is_empty() {
        cmd::run(build_in(repo, setup, native_profile).args(select(&native)))?;
    }
    Ok(Artifacts {
        wasm: repo.profile_dir(Some(WASM), "guest"),
        native: repo.profile_dir(None, native_profile),
    })
}

/// A build in this workspace, which need not be the one that set-up was for.
fn build_in(repo: &Repo, setup: &Setup, profile: &str) -> Command {
    let mut cargo = setup.cargo();
    cargo.current_dir(&repo.root).args(["build", "--lib", "--profile", profile, "--target-dir"]);
    cargo.arg(&repo.target);
    cargo
}

/// The crates that are built for this runtime.
pub(crate) fn packages(guests: &[Guest], kind: Kind) -> BTreeSet<&str> {
    guests
        .iter()
        .filter(|guest| guest.manifest.kind == kind)
        .filter_map(|guest| match &guest.source {
            Source::Rust { package } => Some(package.as_str()),
            Source::Folder | Source::Foreign(_) => None,
        })
        .collect()
}

fn select<'a>(packages: &BTreeSet<&'a str>) -> Vec<&'a str> {
    packages.iter().flat_map(|package| ["--package", package]).collect()
}
