//! Where this process may make cgroups.

use std::fmt::{self, Write as _};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::process::Pid;

use super::{Error, Group};

/// One mounted tree of cgroups, with the folder in it to make new ones in.
pub(super) struct Hierarchy {
    pub(super) version: Version,
    pub(super) controllers: Vec<Controller>,
    pub(super) parent: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Cpu,
    CpuTime,
    Pids,
    Freezer,
}

impl Hierarchy {
    /// The trees that this process may use: version 2 if it has all that is needed, else version 1.
    pub(super) fn usable(needed: &[Controller]) -> Result<Vec<Self>, Error> {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let (v1, v2) = (v1(&mounts, &own), v2(&mounts, &own));
        let has = |found: &[Self], need| found.iter().any(|one| one.controllers.contains(need));
        let missing: Vec<_> = needed.iter().filter(|need| !has(&v2, need)).collect();
        if missing.is_empty() && !v2.is_empty() && (!needed.is_empty() || v1.is_empty()) {
            return Ok(v2);
        }
        match needed.iter().find(|need| !has(&v1, need)) {
            None if !v1.is_empty() => Ok(v1),
            None => Err(Error::NoCgroup("no controller is mounted, and no subtree delegated".to_owned())),
            Some(need) => {
                let mut why =
                    format!("the controller {need} is neither mounted (version 1) nor delegated (version 2)");
                if let Some(tree) = v2.iter().find(|tree| !may_pass_on(&tree.parent)) {
                    let _ = write!(
                        why,
                        "; {} is delegated, but has processes of its own: it passes on what it has when they \
                         are in a group below it, such as by `DelegateSubgroup=` of systemd",
                        tree.parent.display()
                    );
                }
                Err(Error::NoCgroup(why))
            }
        }
    }

    /// The cgroups in it whose host is gone.
    pub(super) fn stale(&self) -> impl Iterator<Item = Group> {
        let stale = stale_in(&self.parent);
        // Before the one that they lie in, which can't be removed with them.
        let inner = stale.iter().flat_map(|folder| stale_in(folder)).collect::<Vec<_>>();
        inner.into_iter().chain(stale).map(|folder| Group {
            version: self.version,
            controllers: self.controllers.clone(),
            folder,
        })
    }
}

fn stale_in(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let stale = entries.filter(|entry| is_stale(&entry.file_name().to_string_lossy()));
    stale.map(|entry| entry.path()).collect()
}

/// Version 2 alone, whatever it has.
#[cfg(test)]
pub(super) fn version_2() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    v2(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"))
}

/// How the names of this process's cgroups begin: with its pid, and the namespace that this is of.
pub(super) fn own_prefix() -> String {
    format!("quadriga-{}-{}", pid_namespace(), std::process::id())
}

fn pid_namespace() -> u64 {
    fs::metadata("/proc/self/ns/pid").map_or(0, |namespace| namespace.ino())
}

/// Whether a folder is of a host that was in the namespace of this one and isn't there any more.
fn is_stale(name: &str) -> bool {
    let mut parts = name.split('-');
    let (Some("quadriga"), Some(namespace), Some(pid)) = (parts.next(), parts.next(), parts.next()) else {
        return false;
    };
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    namespace == pid_namespace().to_string()
        && pid.is_some_and(|pid| rustix::process::test_kill_process(pid) == Err(Errno::SRCH))
}

/// All mounted controllers of version 1, each with the cgroup of this process.
fn v1(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mut found: Vec<Hierarchy> = Vec::new();
    for mount in mounts.lines().filter_map(Mount::read).filter(|mount| mount.kind == "cgroup") {
        let names: Vec<_> = mount.options.split(',').collect();
        let known = [
            ("memory", Controller::Memory),
            ("cpu", Controller::Cpu),
            ("cpuacct", Controller::CpuTime),
            ("pids", Controller::Pids),
            ("freezer", Controller::Freezer),
        ];
        let has = |one: &Hierarchy, controller| one.controllers.contains(controller);
        let controllers: Vec<_> = known
            .iter()
            .filter(|(name, controller)| {
                names.contains(name) && !found.iter().any(|one| has(one, controller))
            })
            .map(|(_, controller)| *controller)
            .collect();
        let ours = own.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (list, path) = rest.split_once(':')?;
            list.split(',').any(|name| names.contains(&name) && !name.is_empty()).then_some(path)
        });
        if let (false, Some(path)) = (controllers.is_empty(), ours) {
            found.push(Hierarchy { version: Version::V1, controllers, parent: mount.folder(path) });
        }
    }
    found
}

/// Version 2, if this process may make cgroups in its own or beside it.
fn v2(mounts: &str, own: &str) -> Vec<Hierarchy> {
    let mount = mounts.lines().filter_map(Mount::read).find(|mount| mount.kind == "cgroup2");
    let path = own.lines().find_map(|line| line.strip_prefix("0::"));
    let (Some(mount), Some(path)) = (mount, path) else {
        return Vec::new();
    };
    let own = mount.folder(path);
    // Those beside it get what it has itself.
    let beside = own.parent().filter(|parent| parent.starts_with(mount.at)).map(Path::to_owned);
    let writable = |folder: &PathBuf| {
        rustix::fs::access(folder.join("cgroup.procs"), rustix::fs::Access::WRITE_OK).is_ok()
            && rustix::fs::access(folder, rustix::fs::Access::WRITE_OK).is_ok()
    };
    let found = [Some(own), beside].into_iter().flatten().filter(writable).map(|parent| {
        // Otherwise what is passed on already has to do.
        if may_pass_on(&parent) {
            for name in ["+memory", "+cpu", "+pids"] {
                let _ = fs::write(parent.join("cgroup.subtree_control"), name);
            }
        }
        let passed = fs::read_to_string(parent.join("cgroup.subtree_control")).unwrap_or_default();
        let passed: Vec<_> = passed.split_whitespace().collect();
        let mut controllers = vec![Controller::CpuTime, Controller::Freezer];
        let with = [("memory", Controller::Memory), ("cpu", Controller::Cpu), ("pids", Controller::Pids)];
        controllers.extend(with.iter().filter(|(name, _)| passed.contains(name)).map(|(_, c)| *c));
        Hierarchy { version: Version::V2, controllers, parent }
    });
    found.max_by_key(|hierarchy| hierarchy.controllers.len()).into_iter().collect()
}

/// Whether a cgroup of version 2 may pass controllers on to those below it. One with processes may not,
/// except the root, which has no type. For some controllers the kernel lets it all the same, but then
/// what is below can only hold threads of those processes.
fn may_pass_on(folder: &Path) -> bool {
    let is_root = !folder.join("cgroup.type").exists();
    is_root || fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|pids| pids.is_empty())
}

/// A line of `/proc/self/mountinfo`.
struct Mount<'a> {
    root: &'a str,
    at: &'a str,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let mut system = system.split(' ');
        Some(Self { root: mount.next()?, at: mount.next()?, kind: system.next()?, options: system.nth(1)? })
    }

    /// Where a cgroup is in the file system.
    fn folder(&self, path: &str) -> PathBuf {
        let below = path.strip_prefix(self.root.trim_end_matches('/')).unwrap_or(path);
        Path::new(self.at).join(below.trim_start_matches('/'))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "version 1",
            Self::V2 => "version 2",
        })
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::CpuTime => "cpuacct",
            Self::Pids => "pids",
            Self::Freezer => "freezer",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
25 30 0:22 / /sys/fs/cgroup ro,nosuid shared:5 - tmpfs tmpfs ro,mode=755
26 25 0:23 / /sys/fs/cgroup/memory rw,nosuid shared:6 - cgroup cgroup rw,memory
27 25 0:24 /docker/abc /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
";

    #[test]
    fn controllers_of_version_1_are_found_where_they_are_mounted() {
        let own = "4:name=systemd:/a\n3:cpu,cpuacct:/docker/abc/inner\n2:memory:/\n1:pids:/nowhere\n0::/a\n";
        let found: Vec<_> = v1(MOUNTS, own)
            .into_iter()
            .map(|one| (one.controllers, one.parent.display().to_string()))
            .collect();
        let expected = [
            (vec![Controller::Memory], "/sys/fs/cgroup/memory/".to_owned()),
            (vec![Controller::Cpu, Controller::CpuTime], "/sys/fs/cgroup/cpu,cpuacct/inner".to_owned()),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn only_folders_of_hosts_that_are_gone_are_stale() {
        let (own, namespace) = (std::process::id(), pid_namespace());
        // Above the greatest pid that the kernel gives.
        assert!(is_stale(&format!("quadriga-{namespace}-4194305-0-name")));
        let others = [
            format!("{}-0-name", own_prefix()),
            format!("quadriga-{}-4194305-0-name", namespace + 1),
            format!("quadriga-{namespace}-x-0-name"),
            format!("other-{namespace}-4194305"),
            format!("quadriga-{own}"),
        ];
        for name in others {
            assert!(!is_stale(&name), "{name}");
        }
    }
}
