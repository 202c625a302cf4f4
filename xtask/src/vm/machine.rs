//! The virtual machine itself.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::ValueEnum;

use super::kernel::Kernel;
use crate::cmd::{self, say};

const PROGRAM: &str = "qemu-system-x86_64";
const INSTALL: [&str; 4] = ["install", "--yes", "--no-install-recommends", "qemu-system-x86"];

/// What the machine says once the tests begin. See `run.sh`.
const UP: &str = "vm: up: ";

/// What the emulator exits with when `run.sh` says so.
const PASSED: i32 = 0o20 << 1 | 1;
const FAILED: i32 = 0o21 << 1 | 1;

/// How a machine is run: by the processor itself, or emulated.
#[derive(Clone, Copy, PartialEq, Debug, ValueEnum)]
pub(crate) enum Accel {
    Kvm,
    Tcg,
}

impl Accel {
    fn arguments(self) -> [&'static str; 4] {
        match self {
            // What a nested hypervisor may advertise and not have.
            Self::Kvm => ["-accel", "kvm", "-cpu", "host,arch-capabilities=off"],
            // Four levels of page tables are walked sooner than five.
            Self::Tcg => ["-accel", "tcg,thread=multi,tb-size=1024", "-cpu", "max,la57=off"],
        }
    }

    /// How long it may take until the tests begin.
    fn patience(self) -> Duration {
        Duration::from_secs(if self == Self::Kvm { 30 } else { 300 })
    }
}

/// How a machine ended.
enum Ended {
    Passed,
    Failed,
    /// It did not come so far as to run a test.
    NeverUp,
}

/// Longer than any test may take.
const SILENCE: Duration = Duration::from_secs(40 * 60);

/// Sees to it that there is an emulator.
pub(super) fn ensure() -> Result<()> {
    if cmd::on_path(PROGRAM).is_some() {
        return Ok(());
    }
    let mut install = Command::new("apt-get");
    install.args(INSTALL).env("DEBIAN_FRONTEND", "noninteractive");
    if cmd::on_path("apt-get").is_some() && is_root() {
        say("vm: installing qemu-system-x86");
        cmd::output(&mut install).context("qemu-system-x86 could not be installed")?;
        return Ok(());
    }
    bail!("{PROGRAM} is missing; with Debian's packages: apt-get {}", INSTALL.join(" "))
}

fn is_root() -> bool {
    cmd::output(Command::new("id").arg("-u")).is_ok_and(|id| id.trim() == "0")
}

/// Runs a machine to its end, and says whether the tests in it passed. Without a choice it is emulated
/// where it can't be run otherwise: whether it can is known when it has come up.
pub(super) fn run(
    kernel: &Kernel,
    initramfs: &Path,
    accel: Option<Accel>,
    mut told: impl FnMut(&str),
) -> Result<bool> {
    let tried = accel.map_or_else(|| vec![Accel::Kvm, Accel::Tcg], |accel| vec![accel]);
    for accel in tried {
        if accel == Accel::Kvm && !has_kvm() {
            say("vm: /dev/kvm can't be used");
            continue;
        }
        match boot(kernel, initramfs, accel, &mut told)? {
            Ended::Passed => return Ok(true),
            Ended::Failed => return Ok(false),
            Ended::NeverUp => say(&format!("vm: {} did not come up on {accel:?}", kernel.name)),
        }
    }
    bail!("{} could not be started", kernel.name)
}

fn has_kvm() -> bool {
    fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

fn boot(kernel: &Kernel, initramfs: &Path, accel: Accel, told: &mut impl FnMut(&str)) -> Result<Ended> {
    let mut qemu = Command::new(PROGRAM);
    qemu.args(accel.arguments()).args(["-smp", "2", "-m", "4096", "-nodefaults", "-no-reboot"]);
    qemu.args(["-display", "none", "-serial", "stdio", "-append", "console=ttyS0 loglevel=1 panic=-1"]);
    qemu.arg("-kernel").arg(&kernel.image).arg("-initrd").arg(initramfs);
    qemu.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
    qemu.args(["-fsdev", "local,id=machine,path=/,security_model=none,readonly=on,multidevs=remap"]);
    qemu.args(["-device", "virtio-9p-pci,fsdev=machine,mount_tag=machine"]);
    let mut machine = qemu.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let ended = watch(&mut machine, accel, told);
    if ended.is_err() || matches!(ended, Ok(Ended::NeverUp)) {
        let _ = machine.kill();
    }
    machine.wait()?;
    ended
}

/// Hands on what the machine says, until it ends.
fn watch(machine: &mut Child, accel: Accel, told: &mut impl FnMut(&str)) -> Result<Ended> {
    let console = machine.stdout.take().context("no console")?;
    let (said, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let mut is_up = false;
    loop {
        match lines.recv_timeout(if is_up { SILENCE } else { accel.patience() }) {
            Ok(line) => {
                is_up |= line.starts_with(UP);
                cmd::print(&line);
                told(&line);
            }
            Err(RecvTimeoutError::Timeout) if is_up => bail!("the machine has said nothing for too long"),
            Err(RecvTimeoutError::Timeout) => return Ok(Ended::NeverUp),
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    match machine.wait()?.code() {
        Some(PASSED) => Ok(Ended::Passed),
        Some(FAILED) => Ok(Ended::Failed),
        _ if !is_up => Ok(Ended::NeverUp),
        code => bail!("the machine ended without saying what came of the tests ({code:?})"),
    }
}
