//! Limits of all processes of a worker together, set by the supervisor.

mod hierarchy;
mod outer;

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use self::hierarchy::{Controller, Hierarchy, Version};
use super::Error;

/// How long the kernel may take to let go of processes that were killed.
const PATIENCE: Duration = Duration::from_secs(5);
/// After this pause, what is still there is forking faster than it is killed.
const LONG: Duration = Duration::from_millis(20);
const CPU_PERIOD_US: u64 = 100_000;

/// A control group: a set of processes with common limits. What they fork is in it as well.
///
/// It uses version 2 where this process was delegated a subtree with the controllers, and version 1
/// where those are mounted. All methods read and write small files, and block; those that end
/// processes take until those are gone. When it is dropped, its processes are killed and it is removed.
#[derive(Debug)]
pub struct Cgroup {
    groups: Vec<Group>,
    /// How many processes that were killed for want of memory have been told of.
    told: AtomicU64,
    /// The one in whose memory it lies, which goes after it.
    _outer: Option<Arc<Cgroup>>,
}

/// One folder of the cgroup file system.
#[derive(Debug)]
struct Group {
    version: Version,
    controllers: Vec<Controller>,
    folder: PathBuf,
}

/// Limits of a cgroup; `None` is none.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CgroupLimits {
    /// Bytes of memory, swapped or not, page cache included. Who needs more is killed.
    pub memory: Option<u64>,
    /// Processor time in the time that passes: 0.5 is half of one core.
    pub cpu_share: Option<f64>,
    /// Processes and threads.
    pub processes: Option<u64>,
}

/// What the processes of a cgroup use; `None` where the controller isn't there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CgroupUsage {
    /// Bytes of memory now.
    pub memory: Option<u64>,
    /// Processor time so far.
    pub cpu_time: Option<Duration>,
    /// Processes and threads now.
    pub processes: Option<u64>,
    /// How many processes were killed for want of memory.
    pub oom_kills: Option<u64>,
}

impl Cgroup {
    /// Makes a cgroup without processes below the one of this process. The first time, it
    /// [sweeps](Self::sweep).
    ///
    /// `name` says what it is for; the folder's name has the pid and a number as well.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] if a limit has no controller that this user may use.
    pub fn create(name: &str, limits: &CgroupLimits) -> Result<Self, Error> {
        let made = Self::create_in(Hierarchy::usable(&limits.needs())?, &folder(name), limits)?;
        made.set_limits(limits)?;
        Ok(made)
    }

    fn create_in(trees: Vec<Hierarchy>, folder: &str, limits: &CgroupLimits) -> Result<Self, Error> {
        let mut made = Self { groups: Vec::new(), told: AtomicU64::new(0), _outer: None };
        for Hierarchy { version, controllers, parent } in trees {
            let folder = parent.join(folder);
            match fs::create_dir(&folder) {
                Ok(()) => made.groups.push(Group { version, controllers, folder }),
                // One that only has what nobody needs is left out.
                Err(_) if controllers.iter().all(|has| !limits.needs().contains(has)) => {}
                Err(error) => return Err(Error::NoCgroup(format!("{}: {error}", folder.display()))),
            }
        }
        if made.groups.is_empty() {
            return Err(Error::NoCgroup("there is none that this user may make one in".to_owned()));
        }
        Ok(made)
    }

    /// Moves a process in. Do it before the worker gets its plan: what it forked before stays outside.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`], for example because the process is gone.
    pub fn add(&self, pid: u32) -> Result<(), Error> {
        self.groups.iter().try_for_each(|group| group.write("cgroup.procs", pid))
    }

    /// The files by which a process with one thread moves itself in, with a `0` to each. The kernel
    /// waits for all processors before it moves any other process, for milliseconds, so this is for
    /// who can tell the process. None in version 2, where a process has no such way.
    pub(crate) fn doors(&self) -> Vec<OwnedFd> {
        let all = self.groups.iter().filter(|group| group.version == Version::V1);
        let open = |group: &Group| fs::OpenOptions::new().write(true).open(group.folder.join("tasks"));
        all.filter_map(|group| open(group).ok()).map(OwnedFd::from).collect()
    }

    /// Whether a process is in all of it.
    pub(crate) fn holds(&self, pid: u32) -> bool {
        let Some(name) = self.groups[0].folder.file_name().and_then(|name| name.to_str()) else {
            return false;
        };
        let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        // The name is that of no other cgroup, and the same in each hierarchy.
        let held = own.lines().filter(|line| line.rsplit('/').next() == Some(name));
        held.count() == self.groups.len()
    }

    /// Sets all limits anew, those that are `None` to none.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] if a limit has no controller here, and [`Error::Cgroup`] if the kernel
    /// refuses one, such as less memory than is in use and can't be freed.
    pub fn set_limits(&self, limits: &CgroupLimits) -> Result<(), Error> {
        for need in limits.needs() {
            self.with(need).ok_or_else(|| Error::NoCgroup(format!("the controller {need} isn't there")))?;
        }
        if let Some(group) = self.with(Controller::Memory) {
            group.limit_memory(limits.memory)?;
        }
        if let Some(group) = self.with(Controller::Cpu) {
            group.limit_cpu(limits.cpu_share)?;
        }
        if let Some(group) = self.with(Controller::Pids) {
            group.write("pids.max", or_max(limits.processes))?;
        }
        Ok(())
    }

    /// The processor time of its processes so far; `None` where nothing counts it.
    pub fn cpu_time(&self) -> Option<Duration> {
        self.with(Controller::CpuTime)?.cpu_time().ok()?
    }

    /// Whether a process was killed for want of memory that this has not told of yet. Of several that
    /// share it, each that was killed asks once.
    pub(crate) fn tell_oom_kill(&self) -> bool {
        let kills = self.usage().ok().and_then(|usage| usage.oom_kills).unwrap_or(0);
        let next = |told| (told < kills).then_some(told + 1);
        self.told.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
    }

    /// What is used now.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`] if a file can't be read.
    pub fn usage(&self) -> Result<CgroupUsage, Error> {
        let mut usage = CgroupUsage::default();
        if let Some(group) = self.with(Controller::Memory) {
            (usage.memory, usage.oom_kills) = group.memory()?;
        }
        if let Some(group) = self.with(Controller::CpuTime) {
            usage.cpu_time = group.cpu_time()?;
        }
        if let Some(group) = self.with(Controller::Pids) {
            usage.processes = number(&group.read("pids.current")?);
        }
        Ok(usage)
    }

    /// The pids of the processes in it, as this process sees them.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`] if they can't be read.
    pub fn pids(&self) -> Result<Vec<u32>, Error> {
        let text = self.groups[0].read("cgroup.procs")?;
        Ok(text.lines().filter_map(|line| line.parse().ok()).collect())
    }

    /// Stops all processes where they are, and returns when they stand.
    ///
    /// # Errors
    ///
    /// [`Error::NoCgroup`] without a freezer, [`Error::Cgroup`] if it refuses or takes too long.
    pub fn freeze(&self) -> Result<(), Error> {
        self.freezer()?.freeze(true)
    }

    /// Lets them go on.
    ///
    /// # Errors
    ///
    /// As [`freeze`](Self::freeze).
    pub fn thaw(&self) -> Result<(), Error> {
        self.freezer()?.freeze(false)
    }

    /// Kills all processes, and returns when none is left. It stays usable.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`] if some are still there after a while.
    pub fn kill_all(&self) -> Result<(), Error> {
        let end = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            if self.pids()?.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(self.groups[0].error("cgroup.procs", io::ErrorKind::TimedOut.into()));
            }
            self.kill(pause > LONG)?;
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    /// Kills all processes and removes the cgroup.
    ///
    /// # Errors
    ///
    /// [`Error::Cgroup`] if it can't be removed.
    pub fn destroy(mut self) -> Result<(), Error> {
        self.remove()
    }

    /// Removes the cgroups of hosts that ended without doing so, and returns how many folders that
    /// were. Workers that were frozen when their host ended could not end with it; now they do.
    pub fn sweep() -> usize {
        let trees = Hierarchy::usable(&[]).unwrap_or_default();
        let stale: Vec<_> = trees.iter().flat_map(Hierarchy::stale).collect();
        for group in stale.iter().filter(|group| group.controllers.contains(&Controller::Freezer)) {
            let _ = group.freeze(false);
        }
        let remove = |group| {
            let mut whole = Self { groups: vec![group], told: AtomicU64::new(0), _outer: None };
            let removed = whole.remove().is_ok();
            // Another try when it is dropped would only take as long again.
            whole.groups.clear();
            removed
        };
        stale.into_iter().map(remove).filter(|removed| *removed).count()
    }

    /// The versions and controllers in use.
    pub(crate) fn describe(&self) -> String {
        let one = |group: &Group| {
            let names: Vec<_> = group.controllers.iter().map(ToString::to_string).collect();
            format!("{}: {}", group.version, names.join(" "))
        };
        self.groups.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    fn with(&self, controller: Controller) -> Option<&Group> {
        self.groups.iter().find(|group| group.controllers.contains(&controller))
    }

    fn freezer(&self) -> Result<&Group, Error> {
        self.with(Controller::Freezer).ok_or_else(|| Error::NoCgroup("there is no freezer".to_owned()))
    }

    fn kill(&self, freeze: bool) -> Result<(), Error> {
        if let Some(group) = self.groups.iter().find(|group| group.folder.join("cgroup.kill").exists()) {
            return group.write("cgroup.kill", 1);
        }
        // Frozen, none of them forks in the meantime. But a host that ends just then leaves them so,
        // where no signal reaches them: this is only for those that can't be ended otherwise.
        let freezer = self.with(Controller::Freezer);
        let _ = freezer.filter(|_| freeze).map(|group| group.freeze(true));
        for pid in self.pids()?.into_iter().filter_map(|pid| Pid::from_raw(i32::try_from(pid).ok()?)) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
        freezer.map_or(Ok(()), |group| group.freeze(false))
    }

    fn remove(&mut self) -> Result<(), Error> {
        if self.groups.is_empty() {
            return Ok(());
        }
        self.kill_all()?;
        while let Some(group) = self.groups.last() {
            remove_folder(&group.folder).map_err(|error| group.error("", error))?;
            self.groups.pop();
        }
        Ok(())
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            tracing::warn!(%error, "a cgroup stays behind");
        }
    }
}

impl CgroupLimits {
    fn needs(&self) -> Vec<Controller> {
        let needs = [
            (Controller::Memory, self.memory.is_some()),
            (Controller::Cpu, self.cpu_share.is_some()),
            (Controller::Pids, self.processes.is_some()),
        ];
        needs.into_iter().filter_map(|(controller, needed)| needed.then_some(controller)).collect()
    }
}

impl Group {
    fn limit_memory(&self, bytes: Option<u64>) -> Result<(), Error> {
        if self.version == Version::V2 {
            self.write("memory.max", or_max(bytes))?;
            return self.write_if_there("memory.swap.max", if bytes.is_some() { "0" } else { "max" });
        }
        let bytes = bytes.map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
        // Memory with swap may never be less than memory alone, so the order depends on the direction.
        if self.write("memory.limit_in_bytes", &bytes).is_ok() {
            return self.write_if_there("memory.memsw.limit_in_bytes", &bytes);
        }
        self.write_if_there("memory.memsw.limit_in_bytes", &bytes)?;
        self.write("memory.limit_in_bytes", &bytes)
    }

    fn limit_cpu(&self, share: Option<f64>) -> Result<(), Error> {
        // The kernel takes no quota below a millisecond.
        let quota = share.map(|share| ((share * CPU_PERIOD_US as f64) as u64).max(1000));
        if self.version == Version::V2 {
            return self.write("cpu.max", format!("{} {CPU_PERIOD_US}", or_max(quota)));
        }
        self.write("cpu.cfs_period_us", CPU_PERIOD_US)?;
        self.write("cpu.cfs_quota_us", quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string()))
    }

    /// Bytes in use, and how many processes were killed.
    fn memory(&self) -> Result<(Option<u64>, Option<u64>), Error> {
        let (usage, events) = match self.version {
            Version::V1 => ("memory.usage_in_bytes", "memory.oom_control"),
            Version::V2 => ("memory.current", "memory.events"),
        };
        Ok((number(&self.read(usage)?), self.table(events)?.get("oom_kill").copied()))
    }

    fn cpu_time(&self) -> Result<Option<Duration>, Error> {
        Ok(match self.version {
            Version::V1 => number(&self.read("cpuacct.usage")?).map(Duration::from_nanos),
            Version::V2 => self.table("cpu.stat")?.get("usage_usec").copied().map(Duration::from_micros),
        })
    }

    fn freeze(&self, frozen: bool) -> Result<(), Error> {
        let (file, value) = match (self.version, frozen) {
            (Version::V1, true) => ("freezer.state", "FROZEN"),
            (Version::V1, false) => ("freezer.state", "THAWED"),
            (Version::V2, _) => ("cgroup.freeze", if frozen { "1" } else { "0" }),
        };
        self.write(file, value)?;
        let end = Instant::now() + PATIENCE;
        while !self.is_frozen(frozen)? {
            if Instant::now() >= end {
                return Err(self.error(file, io::ErrorKind::TimedOut.into()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn is_frozen(&self, frozen: bool) -> Result<bool, Error> {
        Ok(match self.version {
            Version::V1 => self.read("freezer.state")?.trim() == if frozen { "FROZEN" } else { "THAWED" },
            Version::V2 => self.table("cgroup.events")?.get("frozen") == Some(&u64::from(frozen)),
        })
    }

    /// A file of lines with a word and a number.
    fn table(&self, file: &str) -> Result<BTreeMap<String, u64>, Error> {
        let text = self.read(file)?;
        let line = |line: &str| {
            let (name, value) = line.split_once(' ')?;
            Some((name.to_owned(), number(value)?))
        };
        Ok(text.lines().filter_map(line).collect())
    }

    fn read(&self, file: &str) -> Result<String, Error> {
        fs::read_to_string(self.folder.join(file)).map_err(|error| self.error(file, error))
    }

    fn write(&self, file: &str, value: impl ToString) -> Result<(), Error> {
        fs::write(self.folder.join(file), value.to_string()).map_err(|error| self.error(file, error))
    }

    fn write_if_there(&self, file: &str, value: &str) -> Result<(), Error> {
        if self.folder.join(file).exists() { self.write(file, value) } else { Ok(()) }
    }

    fn error(&self, file: &str, error: io::Error) -> Error {
        Error::Cgroup { file: self.folder.join(file), error }
    }
}

/// Removes a cgroup, for which the kernel may need a moment after its last process ended.
fn remove_folder(folder: &Path) -> io::Result<()> {
    let end = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match fs::remove_dir(folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy && Instant::now() < end => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(50));
            }
            removed => return removed,
        }
    }
}

/// The name of a folder that no other one has.
fn folder(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    static SWEPT: Once = Once::new();
    SWEPT.call_once(|| _ = Cgroup::sweep());
    let plain: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(64).collect();
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{}-{number}-{plain}", hierarchy::own_prefix())
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

fn or_max(value: Option<u64>) -> String {
    value.map_or_else(|| "max".to_owned(), |value| value.to_string())
}

#[cfg(test)]
mod tests;
