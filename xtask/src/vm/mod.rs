//! `cargo xtask vm`: the sandbox's suites in a small virtual machine with one of Debian's kernels, on
//! unified cgroup version 2 and with Landlock as that kernel has it.
//!
//! The programs are built outside. The machine has the root folder of the one that it runs on, by 9p
//! and read-only, below a layer in memory that takes what is written; it has no network and no disk.

mod initramfs;
mod kernel;
mod machine;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use self::kernel::{DEFAULT, Kernel};
pub(crate) use self::machine::Accel;
use crate::cmd::{self, say};
use crate::guests::{self, Wanted};
use crate::repo::Repo;
use crate::setup::{self, Setup, Tool};
use crate::test;

/// What is about the sandbox alone, and needs no engine.
const SANDBOX: &str = "package(quadriga-sandbox)";

/// The same for who waits for it.
const QUICK: &str = "package(quadriga-sandbox) and not test(/(^|::)slow_/)";

/// What is about workers and what holds them, whichever engine is in them.
const WORKERS: &str = "package(quadriga-tests) \
    and test(/^(hostile|limits|process|programs|teams|witness|workers|zygotes)::/)";

/// What depends on where in the tree of cgroups a host is.
const GROUPS: &str = "package(quadriga-sandbox) and test(/group/)";

/// In the machine, for every user.
const NEXTEST: &str = "/run/cargo-nextest";

/// What nextest is told of the tests that were built.
const BINARIES: &str = "binaries.json";
const METADATA: &str = "metadata.json";

/// A user who is nobody in particular: the kernel's own name for it.
const NOBODY: u32 = 65534;

pub(crate) struct Options {
    /// The sandbox's own tests alone, without slow ones.
    pub(crate) quick: bool,
    pub(crate) kernels: Vec<String>,
    pub(crate) accel: Option<Accel>,
    pub(crate) nextest: Vec<String>,
}

pub(crate) fn run(repo: &Repo, options: &Options) -> Result<()> {
    if std::env::consts::ARCH != "x86_64" {
        bail!("the machine is one for x86_64, like the programs in it have to be");
    }
    machine::ensure()?;
    let wanted: Vec<_> = match options.kernels.as_slice() {
        [] => DEFAULT.map(str::to_owned).to_vec(),
        some => some.to_vec(),
    };
    let (mut kernels, mut missing) = (Vec::new(), Vec::new());
    for package in wanted {
        match Kernel::get(repo, &package) {
            Ok(kernel) => kernels.push(kernel),
            Err(error) => missing.push(format!("{package}: not run: {error:#}")),
        }
    }
    let script = script(repo, options)?;
    let mut results = Vec::new();
    for kernel in &kernels {
        say(&format!("vm: {}", kernel.name));
        let initramfs = dir(repo).join(format!("{}.cpio", kernel.name));
        kernel.initramfs(&script, &initramfs)?;
        let mut skipped = BTreeMap::new();
        let passed = machine::run(kernel, &initramfs, options.accel, |line| count(&mut skipped, line));
        let words = match &passed {
            Ok(true) => "passed".to_owned(),
            Ok(false) => "FAILED".to_owned(),
            Err(error) => format!("FAILED: {error:#}"),
        };
        let times: usize = skipped.values().sum();
        results.push(format!("{}: {words}; skipped: {times}", kernel.name));
        results.extend(skipped.iter().map(|(what, times)| format!("    {times} × {what}")));
        if !matches!(passed, Ok(true)) {
            missing.push(format!("{} failed", kernel.name));
        }
    }
    results.iter().chain(&missing).for_each(|line| say(&format!("vm: {line}")));
    if !missing.is_empty() {
        bail!("not all kernels passed");
    }
    Ok(())
}

/// What a test could not try, it says with this word.
fn count(skipped: &mut BTreeMap<String, usize>, line: &str) {
    let Some((_, what)) = line.split_once("SKIPPED") else { return };
    // A number that may be in front is that of one process.
    let what =
        what.trim_start_matches([' ', '(', ')', ':', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    *skipped.entry(what.trim().to_owned()).or_default() += 1;
}

fn dir(repo: &Repo) -> PathBuf {
    repo.target.join("vm")
}

/// Builds everything, and writes what the machine has to do.
fn script(repo: &Repo, options: &Options) -> Result<String> {
    let setup = setup::run(repo, None, &[Tool::Nextest])?;
    if !options.quick {
        guests::build(repo, &setup, Wanted::All)?;
        test::build_cli(repo, &setup)?;
    }
    say("build: the tests");
    let dir = dir(repo);
    fs::create_dir_all(&dir)?;
    let mut list = setup.tool(Tool::Nextest);
    list.args(["list", "--list-type", "binaries-only", "--message-format", "json"]);
    if options.quick {
        list.args(["--package", "quadriga-sandbox"]);
    } else {
        test::select(repo, &setup, &mut list);
    }
    fs::write(dir.join(BINARIES), cmd::output(&mut list)?)?;
    let metadata = cmd::output(setup.cargo().args(["metadata", "--format-version", "1"]))?;
    fs::write(dir.join(METADATA), metadata)?;

    let tool = setup.tool(Tool::Nextest);
    let program = Path::new(tool.get_program());
    let program = if program.is_absolute() {
        program.to_owned()
    } else {
        cmd::on_path(&program.to_string_lossy()).context("cargo-nextest is not on the PATH")?
    };
    // What is mounted there would hide what is built there.
    let temp = std::env::temp_dir();
    let is_free = ![&repo.root, &repo.target].iter().any(|used| used.starts_with(&temp));
    let mut text = format!(
        "folder={}\ntemp={}\n{}",
        quoted(&repo.root),
        if is_free { quoted(&temp) } else { String::new() },
        include_str!("run.sh")
    );
    for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"] {
        if let Some(value) = std::env::var_os(name) {
            let _ = writeln!(text, "export {name}={}", quoted(&value));
        }
    }
    // For a user who may not look into everything on the way.
    let _ = writeln!(text, "cp {} {NEXTEST} && chmod 755 {NEXTEST}", quoted(&program));
    for folder in repo.target.ancestors().chain(repo.root.ancestors()) {
        let _ = writeln!(text, "chmod o+rx {}", quoted(&folder));
    }
    let mut pass = |layout: &str, user: u32, command: &str| {
        let _ = writeln!(text, "pass {layout} {user} {}", quoted(&command));
    };
    let tests = |filter: &str| words(&tests(repo, &setup, filter, &options.nextest));
    if options.quick {
        pass("root", 0, &tests(QUICK));
    } else {
        pass("root", 0, &format!("{} doctor || true", quoted(&test::program(repo, "quadriga"))));
        pass("root", 0, &tests(&format!("{SANDBOX} or {WORKERS}")));
    }
    pass("service", 0, &tests(GROUPS));
    pass("service", NOBODY, &tests(GROUPS));
    pass("leaf", NOBODY, &tests(if options.quick { QUICK } else { SANDBOX }));
    text.push_str("end\n");
    Ok(text)
}

/// Runs tests that were built before.
fn tests(repo: &Repo, setup: &Setup, filter: &str, more: &[String]) -> Command {
    let dir = dir(repo);
    let mut nextest = setup.tool(Tool::Nextest);
    nextest.args([
        "run",
        "--profile",
        "vm",
        "--no-tests",
        "pass",
        "--color",
        "never",
        "--show-progress",
        "none",
    ]);
    nextest.arg("--binaries-metadata").arg(dir.join(BINARIES));
    nextest.arg("--cargo-metadata").arg(dir.join(METADATA));
    nextest.args(["-E", filter]).args(more);
    test::with_guests(repo, &mut nextest);
    nextest
}

/// A command of nextest as a shell takes it, without the environment that it has by itself.
fn words(command: &Command) -> String {
    let mut text = String::new();
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            let _ = write!(text, "{}={} ", name.to_string_lossy(), quoted(&value));
        }
    }
    text.push_str(NEXTEST);
    for word in command.get_args() {
        let _ = write!(text, " {}", quoted(&word));
    }
    text
}

/// A word that the shell changes nothing of.
fn quoted(word: &(impl AsRef<OsStr> + ?Sized)) -> String {
    format!("'{}'", word.as_ref().to_string_lossy().replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_stays_one_word() {
        let command = format!("printf %s {}", quoted("it's $HOME; `id`"));
        let said = cmd::output(Command::new("sh").args(["-c", &command])).unwrap();
        assert_eq!(said, "it's $HOME; `id`");
    }

    #[test]
    fn what_was_not_tried_is_counted_by_its_reason() {
        let mut skipped = BTreeMap::new();
        let lines = [
            "    SKIPPED (1): container as Bare: no namespaces",
            "    SKIPPED (7): container as Bare: no namespaces",
            "SKIPPED: no cgroup can be made here",
            "test result: ok",
        ];
        lines.iter().for_each(|line| count(&mut skipped, line));
        let counted: Vec<_> = skipped.iter().map(|(what, times)| (what.as_str(), *times)).collect();
        assert_eq!(counted, [("container as Bare: no namespaces", 2), ("no cgroup can be made here", 1)]);
    }
}
