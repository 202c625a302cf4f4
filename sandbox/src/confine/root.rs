//! What of the file system there is, and what of it can be changed: mounts.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::{Component, Path, PathBuf};

use quadriga_abi::Isolation;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use super::report::{Outcome, failed};
use super::{Access, ExecMemory, Plan, sys};

/// Devices that programs take for granted and that give nothing away.
pub(super) const DEVICES: [&str; 5] = ["/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"];

/// As many symbolic links may be in a path for the kernel.
const MAX_LINKS: usize = 40;

/// Moves the process into its private root, if it is `apart` in a mount namespace of its own.
pub(super) fn enter(plan: &Plan, apart: bool) -> io::Result<Outcome> {
    if plan.isolation != Isolation::Container {
        return Outcome::not_asked();
    }
    private_mounts(apart)?;
    let root = Root::collect(plan)?;
    root.build(&plan.package)?;
    switch()?;
    Outcome::reached()
}

/// At the level of a process: lets all that may not be written be read-only, in a mount namespace of
/// its own. Landlock keeps files from being written, but not their modes, owners and times.
pub(super) fn guard(plan: &Plan, apart: bool) -> io::Result<Outcome> {
    if plan.isolation != Isolation::Process {
        return Outcome::not_asked();
    }
    private_mounts(apart)?;
    let mut root = Root::default();
    let nested = plan.nested();
    let kept = |path, access| access == Access::ReadWrite || nested.contains(&path);
    for (path, access, _) in by_access(plan).into_iter().filter(|(path, access, _)| kept(path, *access)) {
        root.put(plan, path, access).map_err(failed(path.display()))?;
    }
    let all = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    sys::mount_setattr(all.as_fd(), u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()), true)
        .map_err(failed("mount_setattr"))?;
    root.sort();
    for mount in &root.mounts {
        attach(&mount.tree, &mount.at).map_err(failed(mount.at.display()))?;
    }
    Outcome::reached()
}

/// The paths of a plan, those to write last: of two mounts at the same place, the later is seen.
fn by_access(plan: &Plan) -> Vec<(&Path, Access, bool)> {
    let mut paths: Vec<_> = plan.paths().collect();
    paths.sort_by_key(|(_, access, _)| *access);
    paths
}

/// What follows would change the mounts of the whole machine, were they not the process's own.
fn private_mounts(apart: bool) -> io::Result<()> {
    if !apart {
        return Err(io::Error::other("without a mount namespace"));
    }
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private).map_err(failed("private mounts"))
}

/// What the root will hold.
#[derive(Default)]
struct Root {
    /// Where each link is and what it says.
    links: Vec<(PathBuf, PathBuf)>,
    mounts: Vec<Mount>,
}

struct Mount {
    at: PathBuf,
    tree: OwnedFd,
    is_folder: bool,
}

impl Root {
    fn collect(plan: &Plan) -> io::Result<Self> {
        let mut root = Self::default();
        let mut needs_proc = false;
        for (path, access, required) in by_access(plan) {
            if path.starts_with("/proc") {
                needs_proc = true;
            } else if required || fs::exists(path).unwrap_or(false) {
                root.put(plan, path, access).map_err(failed(path.display()))?;
            }
        }
        for device in DEVICES {
            // Devices work in spite of `nodev` on the mounts around them.
            let only = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NOSUID;
            root.bind(Path::new(device), only).map_err(failed(device))?;
        }
        if needs_proc {
            root.mount_proc().map_err(failed("/proc"))?;
        }
        root.sort();
        Ok(root)
    }

    /// Outer folders before what lies in them.
    fn sort(&mut self) {
        self.mounts.sort_by_key(|mount| mount.at.components().count());
    }

    /// Takes what will be at a path: what is there, or an empty file system of the size that the plan
    /// gives the scratch folder.
    fn put(&mut self, plan: &Plan, path: &Path, access: Access) -> io::Result<()> {
        let attributes = attributes(access, plan.exec_memory);
        match plan.scratch_size {
            Some(size) if plan.scratch.as_deref() == Some(path) => self.empty(path, size, attributes),
            _ => self.bind(path, attributes),
        }
    }

    fn empty(&mut self, path: &Path, size: u64, attributes: MountAttrFlags) -> io::Result<()> {
        let at = self.resolve(path, MAX_LINKS)?;
        let (size, files) = (size.max(1).to_string(), files(size).to_string());
        let options = [("mode", "700"), ("size", &size), ("nr_inodes", &files)];
        let tree = file_system("tmpfs", &options, attributes).map_err(failed("tmpfs"))?;
        self.mounts.push(Mount { at, tree, is_folder: true });
        Ok(())
    }

    /// Takes a copy of the mounts at a path while the old root is still there.
    fn bind(&mut self, path: &Path, attributes: MountAttrFlags) -> io::Result<()> {
        let at = self.resolve(path, MAX_LINKS)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_RECURSIVE
            | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        let tree = rustix::mount::open_tree(CWD, &at, flags).map_err(failed("open_tree"))?;
        let set = u64::from(attributes.bits());
        sys::mount_setattr(tree.as_fd(), set, true).map_err(failed("mount_setattr"))?;
        let is_folder = fs::metadata(&at)?.is_dir();
        self.mounts.push(Mount { at, tree, is_folder });
        Ok(())
    }

    /// Where a path leads, with the links on the way noted, so that it leads there in the new root.
    fn resolve(&mut self, path: &Path, links: usize) -> io::Result<PathBuf> {
        let mut at = PathBuf::from("/");
        let mut parts = path.components();
        while let Some(part) = parts.next() {
            match part {
                Component::ParentDir => {
                    at.pop();
                }
                Component::Normal(name) => at.push(name),
                _ => {}
            }
            if fs::symlink_metadata(&at)?.is_symlink() {
                let links = links.checked_sub(1).ok_or(rustix::io::Errno::LOOP)?;
                let target = fs::read_link(&at)?;
                let beside = at.parent().unwrap_or(&at).join(&target).join(parts.as_path());
                self.links.push((at, target));
                return self.resolve(&beside, links);
            }
        }
        Ok(at)
    }

    fn mount_proc(&mut self) -> io::Result<()> {
        let set = attributes(Access::ReadOnly, ExecMemory::Denied) | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        let tree = file_system("proc", &[], set)?;
        self.mounts.push(Mount { at: "/proc".into(), tree, is_folder: true });
        Ok(())
    }

    /// Mounts an empty root at a folder, which it covers, goes there and fills it.
    fn build(&self, at: &Path) -> io::Result<()> {
        let none = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
        let options = [("mode", "755"), ("size", "1m"), ("nr_inodes", "4096")];
        let empty = file_system("tmpfs", &options, none).map_err(failed("tmpfs"))?;
        attach(&empty, at).map_err(failed("tmpfs"))?;
        rustix::process::chdir(at)?;
        for (link, target) in &self.links {
            let link = inside(link);
            parents(&link)?;
            match symlink(target, &link) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        for mount in &self.mounts {
            let at = inside(&mount.at);
            let put = || {
                if mount.is_folder {
                    fs::create_dir_all(&at)?;
                } else if !fs::exists(&at)? {
                    parents(&at)?;
                    fs::File::create(&at)?;
                }
                attach(&mount.tree, &at)
            };
            put().map_err(failed(mount.at.display()))?;
        }
        Ok(())
    }
}

/// How many files and folders may be in a scratch folder, itself among them: they take memory that its
/// size does not count. The kernel takes 0 for no limit, for sizes too.
fn files(size: u64) -> u64 {
    if size == 0 { 1 } else { 16 + size / 4096 }
}

/// Whether the scratch folder has the size of the plan, after one of the above was `mounted` or not.
pub(super) fn quota(plan: &Plan, mounted: bool) -> io::Result<Outcome> {
    match plan.scratch_size {
        None => Outcome::not_asked(),
        Some(_) if mounted => Outcome::reached(),
        Some(_) => Err(io::Error::other("the worker has no mounts of its own")),
    }
}

fn attributes(access: Access, exec: ExecMemory) -> MountAttrFlags {
    let common = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NODEV;
    match access {
        Access::ReadOnly | Access::Run => common | MountAttrFlags::MOUNT_ATTR_RDONLY,
        // Nothing is won where any memory may be executable; programs are kept back by Landlock.
        Access::ReadWrite if exec == ExecMemory::Any => common,
        Access::ReadWrite => common | MountAttrFlags::MOUNT_ATTR_NOEXEC,
    }
}

fn file_system(kind: &str, options: &[(&str, &str)], set: MountAttrFlags) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (name, value) in options {
        rustix::mount::fsconfig_set_string(&fs, *name, *value)?;
    }
    rustix::mount::fsconfig_create(&fs)?;
    Ok(rustix::mount::fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, set)?)
}

fn attach(tree: &OwnedFd, at: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(tree, "", CWD, at, flags).map_err(failed("move_mount"))
}

/// The same path from the current folder on.
fn inside(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).to_owned()
}

fn parents(path: &Path) -> io::Result<()> {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or(Ok(()), fs::create_dir_all)
}

/// Makes the current folder the root, lets go of the old one and takes the right to write.
fn switch() -> io::Result<()> {
    rustix::process::pivot_root(".", ".").map_err(failed("pivot_root"))?;
    // The old root now lies on the new one.
    rustix::mount::unmount(".", UnmountFlags::DETACH).map_err(failed("umount"))?;
    rustix::process::chdir("/")?;
    let root = rustix::fs::open("/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let set = u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits());
    sys::mount_setattr(root.as_fd(), set, false).map_err(failed("mount_setattr"))
}
