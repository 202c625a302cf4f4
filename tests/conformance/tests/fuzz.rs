//! The fuzz targets, over their seeds and over all findings so far. `cargo xtask fuzz` lets them
//! run on.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "a crate of its own elsewhere")]
mod bodies;

use std::fs;
use std::path::{Path, PathBuf};

use quadriga_conformance::{Table, seeds};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Each finding becomes a file in here, named for what it was.
fn regressions(target: &str) -> Vec<Vec<u8>> {
    let Ok(dir) = fs::read_dir(repository().join("fuzz/regressions").join(target)) else {
        return Vec::new();
    };
    dir.map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
}

fn run(target: &str, body: impl Fn(&[u8])) {
    let seeds = seeds::of(target, &Table::read().unwrap(), &repository()).unwrap();
    assert!(!seeds.is_empty(), "{target} has no seeds");
    for seed in seeds.iter().chain(&regressions(target)) {
        body(seed);
        // And a little off.
        for cut in [1, seed.len() / 2] {
            body(&seed[..seed.len().saturating_sub(cut)]);
            body(&seed[cut.min(seed.len())..]);
        }
    }
}

#[test]
fn codec() {
    run("codec", bodies::codec);
}

#[test]
fn envelope() {
    // A seed that no longer is a frame would lead nowhere.
    for seed in seeds::of("envelope", &Table::read().unwrap(), &repository()).unwrap() {
        quadriga_abi::Envelope::decode(seed.into()).unwrap();
    }
    run("envelope", bodies::envelope);
}

#[test]
fn manifest() {
    run("manifest", bodies::manifest);
}

#[test]
fn package() {
    run("package", bodies::package);
}

#[test]
fn signature() {
    run("signature", bodies::signature);
}

#[test]
fn value() {
    run("value", bodies::value);
}
