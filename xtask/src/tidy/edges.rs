//! Who may import whom, and which room each engine stays in.

use std::fs;

use anyhow::Result;

use super::{Finding, at};
use crate::repo::{Package, Repo};

/// Each of our crates with those of ours that it may import, in any kind of dependency. A crate
/// that isn't listed may import none of the others.
const EDGES: [(&str, &[&str]); 15] = [
    ("quadriga-abi", &[]),
    ("quadriga-package", &["quadriga-abi"]),
    ("quadriga-sdk", &["quadriga-abi", "quadriga-sdk-macros"]),
    ("quadriga-registry-api-types", &["quadriga-abi"]),
    ("quadriga-core", &["quadriga-abi", "quadriga-package"]),
    ("quadriga-runtime-js", RUNTIME),
    ("quadriga-runtime-native", RUNTIME),
    ("quadriga-runtime-python", RUNTIME),
    ("quadriga-runtime-wasm", RUNTIME),
    ("quadriga-sandbox", RUNTIME),
    ("quadriga-http", RUNTIME),
    ("quadriga", HOST),
    ("quadriga-registry", &["quadriga-abi", "quadriga-package", "quadriga-registry-api-types"]),
    (
        "quadriga-registry-client",
        &["quadriga-abi", "quadriga-core", "quadriga-package", "quadriga-registry-api-types"],
    ),
    ("quadriga-cli", APP),
];

const RUNTIME: &[&str] = &["quadriga-abi", "quadriga-core"];
const HOST: &[&str] = &[
    "quadriga-abi",
    "quadriga-core",
    "quadriga-derive",
    "quadriga-http",
    "quadriga-package",
    "quadriga-runtime-js",
    "quadriga-runtime-native",
    "quadriga-runtime-python",
    "quadriga-runtime-wasm",
    "quadriga-sandbox",
];
const APP: &[&str] = &["quadriga", "quadriga-registry-client"];

/// Programs that only use the product.
const PROGRAMS: [(&str, &[&str]); 6] = [
    ("agent-platform", &["quadriga"]),
    ("quadriga-conformance", &["quadriga-abi", "quadriga-package"]),
    (
        "quadriga-tests",
        &[
            "agent-platform",
            "quadriga",
            "quadriga-conformance",
            "quadriga-registry",
            "quadriga-registry-client",
        ],
    ),
    ("xtask", &["quadriga-conformance"]),
    // Stands for an SDK that claims another contract.
    ("guest-future", &["quadriga-abi"]),
    ("quadriga-bench", BENCH),
];
/// The bench asks each runtime's crate for the bare engine to compare with.
const BENCH: &[&str] = &[
    "quadriga",
    "quadriga-runtime-js",
    "quadriga-runtime-native",
    "quadriga-runtime-python",
    "quadriga-runtime-wasm",
];
/// Extensions see nothing but the SDK.
const GUEST: &[&str] = &["quadriga-sdk"];

/// Each engine with the crates that may depend on it.
const ENGINES: [(&str, &[&str]); 6] = [
    ("deno_core", &["quadriga-runtime-js"]),
    ("pyo3", &["quadriga-runtime-python"]),
    ("wasmtime", &["quadriga-runtime-wasm"]),
    ("wasmtime-wasi", &["quadriga-runtime-wasm"]),
    ("abi_stable", &["quadriga-abi", "quadriga-sdk", "quadriga-runtime-native", "guest-bad", "guest-future"]),
    ("libloading", &["quadriga-abi", "quadriga-sdk", "quadriga-runtime-native"]),
];

pub(super) fn check(repo: &Repo, found: &mut Vec<Finding>) -> Result<()> {
    for package in &repo.packages {
        let manifest = fs::read_to_string(&package.manifest_path)?;
        let file = repo.relative(&package.manifest_path);
        for dependency in &package.dependencies {
            let name = dependency.name.as_str();
            if let Some((what, fix)) = wrong(repo, package, name) {
                found.push(at(file, &manifest, name, what, fix));
            }
        }
    }
    Ok(())
}

/// Why a package must not depend on `name`, and what to do instead.
fn wrong(repo: &Repo, package: &Package, name: &str) -> Option<(String, String)> {
    let ours = repo.packages.iter().any(|member| member.name == name);
    let others: &[&str] = if repo.is_guest(package) { GUEST } else { &[] };
    let allowed = allowed(&package.name).unwrap_or(others);
    // One that names itself turns its own features on for its tests.
    if ours && name != package.name && !allowed.contains(&name) {
        let fix = match allowed {
            [] => "this crate imports none of ours".to_owned(),
            _ => format!("of ours it may import {}", allowed.join(", ")),
        };
        return Some((format!("{} imports {name}", package.name), fix));
    }
    let (_, rooms) = ENGINES.iter().find(|(engine, _)| *engine == name)?;
    (!rooms.contains(&package.name.as_str())).then(|| {
        (format!("{} imports the engine {name}", package.name), format!("keep it in {}", rooms.join(", ")))
    })
}

fn allowed(package: &str) -> Option<&'static [&'static str]> {
    EDGES.iter().chain(&PROGRAMS).find(|(name, _)| *name == package).map(|(_, allowed)| *allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::{Dependency, Package};

    fn package(name: &str, dir: &str, dependencies: &[&str]) -> Package {
        Package {
            name: name.to_owned(),
            manifest_path: format!("/repo/{dir}/Cargo.toml").into(),
            dependencies: dependencies.iter().map(|name| Dependency { name: (*name).to_owned() }).collect(),
            targets: Vec::new(),
        }
    }

    #[test]
    fn an_edge_is_named_with_what_is_allowed() {
        let repo = Repo {
            root: "/repo".into(),
            target: "/target".into(),
            packages: vec![
                package("quadriga-abi", "abi", &[]),
                package("quadriga-core", "loader-core", &[]),
                package("quadriga-runtime-js", "runtime-js", &[]),
                package("guest-relay", "tests/guests/relay/rust", &[]),
            ],
        };
        let verdict =
            |from: usize, name: &str| wrong(&repo, &repo.packages[from], name).map(|(what, _)| what);
        assert_eq!(verdict(1, "quadriga-abi"), None);
        assert_eq!(verdict(2, "deno_core"), None);
        assert_eq!(verdict(0, "serde"), None);
        assert_eq!(verdict(0, "quadriga-core").unwrap(), "quadriga-abi imports quadriga-core");
        assert_eq!(verdict(1, "quadriga-runtime-js").unwrap(), "quadriga-core imports quadriga-runtime-js");
        assert_eq!(verdict(1, "wasmtime").unwrap(), "quadriga-core imports the engine wasmtime");
        assert_eq!(verdict(3, "quadriga-abi").unwrap(), "guest-relay imports quadriga-abi");
    }
}
