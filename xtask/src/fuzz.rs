//! `cargo xtask fuzz`: lets the fuzz targets run on, from the vectors of the conformance suite.

use std::fs;

use anyhow::{Context as _, Result, bail};
use quadriga_conformance::{Table, seeds};

use crate::cmd::{self, say};
use crate::files::entries;
use crate::repo::Repo;
use crate::setup::{self, Tool};

pub(crate) fn run(repo: &Repo, target: Option<&str>, seconds: u64) -> Result<()> {
    let known = targets(repo)?;
    let wanted: Vec<&String> = known.iter().filter(|name| target.is_none_or(|t| t == *name)).collect();
    if wanted.is_empty() {
        bail!("there is no such fuzz target: expected {}", known.join(", "));
    }
    let setup = setup::run(repo, None, &[Tool::Fuzz])?;
    for target in wanted {
        let corpus = repo.target.join("fuzz/corpus").join(target);
        fs::create_dir_all(&corpus)?;
        for (number, seed) in seeds::of(target, &Table::read()?, &repo.root)?.iter().enumerate() {
            fs::write(corpus.join(format!("seed-{number}")), seed)?;
        }
        say(&format!("fuzz: {target} for {seconds} s"));
        let mut fuzz = setup.tool(Tool::Fuzz);
        fuzz.current_dir(repo.root.join("fuzz"))
            .args(["run", target, "--fuzz-dir", "."])
            .arg(&corpus)
            .args(["--", &format!("-max_total_time={seconds}"), "-print_final_stats=1", "-timeout=10"])
            .env("CARGO_TARGET_DIR", repo.target.join("fuzz"))
            // The sanitizer's flags are not stable, but the pinned toolchain has them.
            .env("RUSTC_BOOTSTRAP", "1");
        cmd::run(&mut fuzz).with_context(|| {
            format!("a finding lies in fuzz/artifacts/{target}; keep it in fuzz/regressions/{target}")
        })?;
    }
    Ok(())
}

fn targets(repo: &Repo) -> Result<Vec<String>> {
    let files = entries(&repo.root.join("fuzz/fuzz_targets"))?;
    Ok(files.iter().filter_map(|(name, _)| name.strip_suffix(".rs").map(str::to_owned)).collect())
}
