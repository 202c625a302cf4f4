//! `cargo xtask codegen`: the committed files that are generated.

mod literals;

use std::fs;
use std::process::Command;

use anyhow::{Result, bail};

use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;
use crate::setup::Setup;
use crate::test;

/// Each file that the command prints, with the arguments for it.
const GENERATED: [(&str, &[&str]); 5] = [
    ("docs/schema/quadriga.schema.json", &["schema"]),
    ("tests/guests/client/js/typed.ts", &["bindgen", CONTRACT, "--lang", "ts"]),
    ("tests/guests/client/python/typed.py", &["bindgen", CONTRACT, "--lang", "python"]),
    ("tests/guests/client/rust/src/typed.rs", &["bindgen", CONTRACT, "--lang", "rust"]),
    ("tests/tests/it/contracts/typed.rs", &["bindgen", CONTRACT, "--lang", "rust", "--for-host"]),
];

/// Of the guest that the clients call; a test sees that it is its contract.
const CONTRACT: &str = "tests/guests/client/contract.json";

pub(crate) fn run(repo: &Repo, setup: &Setup, check: bool) -> Result<()> {
    let cli = test::build_cli(repo, setup)?;
    let mut files = literals::sources()?.to_vec();
    for (file, args) in GENERATED {
        files.push((file, cmd::output(Command::new(&cli).args(args).current_dir(&repo.root))?));
    }
    let mut stale = Vec::new();
    for (file, fresh) in files {
        let path = repo.root.join(file);
        if check {
            if fs::read_to_string(&path).map_or(true, |old| old != fresh) {
                stale.push(file);
            }
        } else if files::write_if_changed(&path, &fresh)? {
            say(&format!("codegen: wrote {file}"));
        }
    }
    if !stale.is_empty() {
        bail!("out of date: {}; run `cargo xtask codegen` and commit what it writes", stale.join(", "));
    }
    Ok(())
}
