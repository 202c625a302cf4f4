//! The parts of the Rust toolchain that `rust-toolchain.toml` names: rustup adds them by itself,
//! except where its automatic installation is switched off.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::cmd::{self, say};

/// The target that WebAssembly guests are built for.
pub(crate) const WASM: &str = "wasm32-wasip2";

pub(crate) fn ensure() -> Result<()> {
    let sysroot = cmd::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    let sysroot = Path::new(sysroot.trim());
    if !sysroot.join("lib/rustlib").join(WASM).is_dir() {
        add("target", WASM)?;
    }
    for (component, program) in [("clippy", "bin/cargo-clippy"), ("rustfmt", "bin/rustfmt")] {
        if !sysroot.join(program).exists() {
            add("component", component)?;
        }
    }
    Ok(())
}

fn add(what: &str, name: &str) -> Result<()> {
    say(&format!("setup: adding the Rust {what} {name}"));
    cmd::output(Command::new("rustup").args([what, "add", name])).map(drop).with_context(|| {
        format!("the Rust {what} {name} is missing; install it with `rustup {what} add {name}`")
    })
}
