//! Components made by other people's toolchains from the published WIT, with no SDK of ours:
//! `tests/foreign/<toolchain>/`. Each is built once per source, lock file and WIT.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::discover::{Guest, Manifest, Source};
use crate::cmd::{self, say};
use crate::files::{self, Tree, entries};
use crate::repo::Repo;
use crate::setup::{Setup, node, python};

/// The contract as it is published.
const WIT: &str = "abi/wit/since-v0.1";

/// What makes a component.
#[derive(Clone, Copy)]
pub(super) enum Toolchain {
    ComponentizePy,
    ComponentizeJs,
}

pub(super) fn guests(repo: &Repo, found: &mut Vec<Guest>) -> Result<()> {
    for (name, dir) in entries(&repo.root.join("tests/foreign"))? {
        let toolchain = match name.as_str() {
            "componentize-py" => Toolchain::ComponentizePy,
            "componentize-js" => Toolchain::ComponentizeJs,
            _ => bail!("{}: no such toolchain is known", repo.relative(&dir).display()),
        };
        let manifest = Manifest::read(repo, &dir.join("quadriga.toml"))?;
        let dest = Path::new("guests/foreign").join(name);
        found.push(Guest { dir, dest, manifest, source: Source::Foreign(toolchain) });
    }
    Ok(())
}

/// The component of a guest.
pub(super) fn component(repo: &Repo, setup: &Setup, guest: &Guest, toolchain: Toolchain) -> Result<PathBuf> {
    let wit = repo.root.join(WIT);
    let sources = entries(&guest.dir)?.into_iter().chain(entries(&wit)?);
    let texts = sources.map(|(_, file)| fs::read(&file).with_context(|| file.display().to_string()));
    let parent = repo.target.join("deps/components");
    let dest = parent.join(files::short_digest(texts.collect::<Result<Vec<_>>>()?)).with_extension("wasm");
    if dest.is_file() {
        return Ok(dest);
    }
    say(&format!("build: {} from the published WIT", repo.relative(&guest.dir).display()));
    fs::create_dir_all(&parent)?;
    let temp = tempfile::tempdir_in(&parent)?;
    let out = temp.path().join("out.wasm");
    match toolchain {
        Toolchain::ComponentizePy => with_python(repo, setup, guest, temp.path(), &wit, &out)?,
        Toolchain::ComponentizeJs => with_node(repo, guest, temp.path(), &wit, &out)?,
    }
    fs::rename(&out, &dest).with_context(|| format!("cannot make {}", dest.display()))?;
    Ok(dest)
}

fn with_python(repo: &Repo, setup: &Setup, guest: &Guest, temp: &Path, wit: &Path, out: &Path) -> Result<()> {
    let site = python::packages(repo, &setup.python, &guest.dir.join("requirements.txt"))?;
    // The guest and its library, without the toolchain, which would become a part of the component.
    let app = temp.join("app");
    let mut tree = Tree::default();
    tree.add("main.py", guest.dir.join("main.py"));
    tree.add_dir(Path::new("umsgpack"), &site.join("umsgpack"), &["__pycache__"])?;
    tree.write(&app)?;
    let start = "import sys, componentize_py; sys.exit(componentize_py.script())";
    let mut python = Command::new(&setup.python);
    python.args(["-c", start, "--quiet", "--world", "extension", "--wit-path"]).arg(wit);
    python.args(["componentize", "main", "--python-path"]).arg(&app).arg("--output").arg(out);
    cmd::output(python.env("PYTHONPATH", site).env("PYTHONDONTWRITEBYTECODE", "1")).map(drop)
}

fn with_node(repo: &Repo, guest: &Guest, temp: &Path, wit: &Path, out: &Path) -> Result<()> {
    let modules = node::install(repo, &guest.dir)?.join("node_modules");
    let library = Path::new("node_modules/@msgpack/msgpack/dist.esm");
    let mut tree = Tree::default();
    tree.add("main.js", guest.dir.join("main.js"));
    tree.add_dir(library, &modules.join("@msgpack/msgpack/dist.esm"), &[])?;
    let app = temp.join("app");
    tree.write(&app)?;
    let toolchain = modules.join("@bytecodealliance/componentize-js/src/componentize.js");
    let mut node = Command::new("node");
    node.arg(guest.dir.join("build.js")).arg(toolchain).arg(app.join("main.js")).arg(wit).arg(out);
    cmd::output(node.current_dir(&app)).map(drop)
}
