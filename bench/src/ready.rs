//! How soon a sandbox is ready, and what it takes up.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Error, Result};
use quadriga::abi::Bytes;
use quadriga::{CallOptions, Dispatcher, Grant, LoadOptions};

use crate::measure::{Pair, compare, median};

/// Loads of which the median is taken.
const LOADS: usize = 31;

/// What loads at once to see what each takes up.
const MANY_WASM: usize = 1000;
const MANY_JS: usize = 20;

/// The argument with which this program makes bare isolates, and says how long one took. They cannot
/// be in one process with ours, which are made of another heap.
pub(crate) const ISOLATES: &str = "isolates";

/// What one of many takes up.
pub(crate) struct Size {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    pub(crate) many: usize,
}

/// A new instance of a component that is loaded, and its first answer. `chain` through itself makes
/// one for the inner call, because the outer has the only one that is kept.
pub(crate) fn wasm(host: &Dispatcher, guests: &Path, payload: &Bytes) -> Result<Pair> {
    let bare = quadriga_runtime_wasm::bare::Echo::load(&guests.join("wasm"), false).map_err(Error::msg)?;
    let path = Bytes::from([&[0x91, 0x91, 0xaa][..], b"relay.wasm"].concat());
    let chain = || {
        let reply =
            quadriga::block_on(host.call("relay.wasm", "chain", path.clone(), CallOptions::default()));
        assert!(reply.is_ok(), "there is no chain: {reply:?}");
    };
    Ok(Pair {
        name: "ready, wasm instance",
        target: "≤ 50 µs",
        met: |_, ours| ours <= 50_000.0,
        ..compare(|| assert!(bare.call_new(payload).is_ok()), chain)
    })
}

/// A new extension in JavaScript, up to where it takes calls.
pub(crate) fn js(host: &Dispatcher, guests: &Path) -> Result<Pair> {
    let folder = tempfile::tempdir()?;
    copy(&guests.join("js"), folder.path(), "relay.js", "ready.js")?;
    quadriga::block_on(host.warm_up());
    let bare = Command::new(std::env::current_exe()?).arg(ISOLATES).output()?;
    let bare: f64 = String::from_utf8(bare.stdout)?.trim().parse().context("there is no bare isolate")?;
    let mut ours = Vec::new();
    for _ in 0..LOADS {
        let begun = Instant::now();
        load(host, folder.path())?;
        ours.push(begun.elapsed().as_nanos() as f64);
        quadriga::block_on(host.unload("ready.js"))?;
    }
    Ok(Pair {
        name: "ready, js extension",
        bare,
        ours: median(ours),
        target: "≤ 3 ms",
        met: |_, ours| ours <= 3e6,
    })
}

/// The body of the process with the bare isolates.
pub(crate) fn isolates() -> Result<()> {
    let isolate = || quadriga_runtime_js::bare::isolate().map(|took| took.as_nanos() as f64);
    let times: Option<Vec<f64>> = (0..LOADS).map(|_| isolate()).collect();
    println!("{}", median(times.context("no isolate could be made")?));
    Ok(())
}

/// What a sandbox of each takes up, of many.
pub(crate) fn sizes(host: &Dispatcher, guests: &Path, language: &str) -> Result<Size> {
    let (name, many) = match language {
        "wasm" => ("a sandbox in WebAssembly", MANY_WASM),
        _ => ("an isolate in JavaScript", MANY_JS),
    };
    let folder = tempfile::tempdir()?;
    let before = resident()?;
    for number in 0..many {
        let package = folder.path().join(number.to_string());
        copy(&guests.join(language), &package, &format!("relay.{language}"), &format!("many.n{number}"))?;
        load(host, &package)?;
    }
    let bytes = resident()?.saturating_sub(before) / many as u64;
    for number in 0..many {
        quadriga::block_on(host.unload(&format!("many.n{number}")))?;
    }
    Ok(Size { name, bytes, many })
}

pub(crate) fn load(host: &Dispatcher, package: &Path) -> Result<()> {
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    quadriga::block_on(host.load(package, options))?;
    Ok(())
}

/// A copy of a package under another id.
pub(crate) fn copy(from: &Path, to: &Path, id: &str, other: &str) -> Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let (path, to) = {
            let entry = entry?;
            (entry.path(), to.join(entry.file_name()))
        };
        if path.is_dir() {
            copy(&path, &to, id, other)?;
        } else if path.file_name().is_some_and(|name| name == "quadriga.toml") {
            let manifest = std::fs::read_to_string(path)?;
            std::fs::write(to, manifest.replace(&format!("\"{id}\""), &format!("\"{other}\"")))?;
        } else {
            std::fs::copy(path, to)?;
        }
    }
    Ok(())
}

/// Bytes of memory that this process holds.
fn resident() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no size of memory")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib << 10)
}
