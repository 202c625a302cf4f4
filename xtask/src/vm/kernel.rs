//! Kernels of Debian, and the initramfs that each is started with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::initramfs::{self, Entry};
use crate::cmd::{self, say};
use crate::files::entries;
use crate::repo::Repo;
use crate::setup::debian;

/// The packages that stand for the newest build of a kernel each.
pub(super) const DEFAULT: [&str; 2] = ["linux-image-amd64", "linux-image-6.12-amd64"];

/// What is needed to get at the root folder outside, each after what it needs itself. What a kernel has
/// built in is not among its modules.
const MODULES: [&str; 11] = [
    "virtio_ring",
    "virtio",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_pci",
    "netfs",
    "fscache",
    "9pnet",
    "9pnet_virtio",
    "9p",
    "overlay",
];

/// A kernel that can be started.
pub(super) struct Kernel {
    pub(super) name: String,
    pub(super) image: PathBuf,
    modules: Vec<(String, PathBuf)>,
    busybox: PathBuf,
}

impl Kernel {
    /// Gets a kernel: by its own package, or by one that stands for it.
    pub(super) fn get(repo: &Repo, package: &str) -> Result<Self> {
        if !debian::is_here() {
            bail!("kernels come as packages of Debian, and this machine has no apt-get");
        }
        let package = named_by(package)?;
        let dir = repo.target.join("vm");
        let (dest, busybox) = (dir.join(&package), dir.join("busybox"));
        for (package, dest) in [(package.as_str(), &dest), ("busybox-static", &busybox)] {
            if !dest.is_dir() {
                say(&format!("vm: getting {package}"));
                debian::unpack(&[package], dest).with_context(|| format!("{package} can't be had"))?;
            }
        }
        let image = entries(&dest.join("boot"))?.into_iter().find(|(name, _)| name.starts_with("vmlinuz-"));
        let (_, image) = image.with_context(|| format!("{package} holds no kernel"))?;
        let modules = modules(&dest)?;
        Ok(Self { name: package, image, modules, busybox: busybox.join("bin/busybox") })
    }

    /// Writes the initramfs whose first process runs this script in the root folder outside.
    pub(super) fn initramfs(&self, script: &str, to: &Path) -> Result<()> {
        let folder = |path: &str| Entry { path: path.to_owned(), content: None };
        let file = |path: &str, content: Vec<u8>| Entry { path: path.to_owned(), content: Some(content) };
        let mut all = vec![folder("bin"), file("bin/busybox", fs::read(&self.busybox)?), folder("modules")];
        for (number, (name, path)) in self.modules.iter().enumerate() {
            all.push(file(&format!("modules/{number:02}-{name}"), module(path)?));
        }
        all.push(file("init", include_bytes!("init.sh").to_vec()));
        all.push(file("run.sh", script.as_bytes().to_vec()));
        fs::write(to, initramfs::archive(&all)).with_context(|| format!("cannot write {}", to.display()))
    }
}

/// The package of a kernel itself, which is all that one that stands for it depends on.
fn named_by(package: &str) -> Result<String> {
    let listed = cmd::output(Command::new("apt-cache").args(["depends", package])).unwrap_or_default();
    let mut words = listed.lines().map(str::trim);
    if words.next().is_none() {
        bail!(
            "the package lists of this machine have no {package} (`apt-get update` brings them up to date)"
        );
    }
    let mut depends = words.filter_map(|line| line.strip_prefix("Depends: "));
    let kernel = depends.find(|name| name.starts_with("linux-image-"));
    Ok(kernel.unwrap_or(package).to_owned())
}

/// The modules that this kernel has of those that are needed, in their order.
fn modules(dest: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    for root in ["lib/modules", "usr/lib/modules"].map(|root| dest.join(root)) {
        if root.is_dir() && !root.is_symlink() {
            collect(&root, &mut found)?;
        }
    }
    let of = |name: &str| {
        let is_it = |file: &str| file.strip_prefix(name).is_some_and(|rest| rest.starts_with(".ko"));
        found.iter().find(|(file, _)| is_it(file)).cloned()
    };
    if of("9p").is_none() {
        bail!("{} has no module for 9p: kernels for clouds lack it", dest.display());
    }
    Ok(MODULES.into_iter().filter_map(of).collect())
}

fn collect(dir: &Path, found: &mut Vec<(String, PathBuf)>) -> Result<()> {
    for (name, path) in entries(dir)?.into_iter().filter(|(_, path)| !path.is_symlink()) {
        if path.is_dir() {
            collect(&path, found)?;
        } else {
            found.push((name, path));
        }
    }
    Ok(())
}

/// A module as the kernel takes it.
fn module(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    }
    let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
    let unpacked = unpacked.context("`xz` cannot be started: Debian's package xz-utils has it")?;
    if !unpacked.status.success() {
        bail!("{} cannot be unpacked: {}", path.display(), String::from_utf8_lossy(&unpacked.stderr));
    }
    Ok(unpacked.stdout)
}
