//! What the worker of one extension is confined to, and what holds its processes together.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use std::{env, fs, io};

use parking_lot::Mutex;
use quadriga_abi::limits::{ByteSize, Limit, Limits};
use quadriga_abi::permission::{FsMode, FsPermission};
use quadriga_abi::{Error, ErrorCode, Isolation};
use quadriga_core::{PROGRAM_FOLDERS, TemporaryFolder, Unit, find_program, paths_of_program};

use crate::confine::{
    self, Access, Cgroup, CgroupLimits, ExecMemory, Grant, Layer, LayerStatus, Net, PROXY_PORT, Plan, State,
};
use crate::nursery::Child;

/// What the engines and the system's libraries read. What a machine doesn't have is left out.
const SYSTEM: [&str; 14] = [
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib",
    "/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/proc/self",
    "/sys/devices/system/cpu",
];

/// What programs are made of beside their own file: what loads them, libraries, and the programs that
/// these start in turn.
const PARTS: [&str; 5] = ["/usr/lib", "/usr/lib64", "/usr/libexec", "/lib", "/lib64"];

/// How many processes and threads a worker that starts programs may have, where nobody says it.
const PROCESSES: u64 = 64;

/// How long the end of a process may take to be noticed.
const NOTICE: Duration = Duration::from_millis(100);

/// What an engine takes of its worker's memory for itself, beside what its extension may have.
const ENGINE: u64 = 64 << 20;

/// The limits that a process of its own keeps to: a call that goes on after its time ends with it,
/// and what it prints comes to its host through pipes.
pub(crate) const PROCESS: [Limit; 5] =
    [Limit::CallTimeout, Limit::CpuTime, Limit::OpenFiles, Limit::OutputRate, Limit::Disk];

/// Those that a cgroup keeps to.
pub(crate) const CGROUP: [Limit; 3] = [Limit::Memory, Limit::CpuShare, Limit::Processes];

/// The permissions that are mediated by what a worker finds around itself.
pub(crate) const PERMISSIONS: [&str; 3] = ["env", "fs", "net"];

/// And this, of engines whose extensions have the system's own interface.
pub(crate) const PROGRAMS: [&str; 1] = ["subprocess"];

/// What clients of HTTP look for.
const PROXY_VARIABLES: [&str; 4] = ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"];

/// Whom the machine trusts to sign for others: what TLS needs.
const CERTIFICATES: [&str; 5] = [
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/usr/share/ca-certificates",
];

/// Where distributions keep all of those in one file.
const BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// What tells clients of TLS to believe those in a file, and no others that were in a file before.
const BUNDLE_VARIABLES: [&str; 3] = ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"];

/// Whether this user may make cgroups on this machine.
pub(crate) static CGROUPS: LazyLock<bool> = LazyLock::new(|| {
    Cgroup::sweep();
    let all = CgroupLimits { memory: Some(1 << 30), cpu_share: Some(1.0), processes: Some(64) };
    Cgroup::create("probe", &all).and_then(Cgroup::destroy).is_ok()
});

/// What all workers of a host are in, or why there is no such thing.
pub(crate) type Around = Result<Arc<Cgroup>, String>;

/// What is around the workers of one extension, for as long as they live.
pub(crate) struct Jail {
    pub(crate) plan: Plan,
    pub(crate) cgroup: Option<Arc<Cgroup>>,
    /// Whether they may start the programs that are granted, by themselves.
    pub(crate) starts_programs: bool,
    /// How far cgroups hold them.
    pub(crate) held: Vec<LayerStatus>,
    /// What the cgroup is set to.
    limits: Mutex<CgroupLimits>,
    /// How many workers share it.
    workers: u64,
    /// Removed with all that the extension left there.
    _scratch: TemporaryFolder,
    /// Whom its clients of TLS believe, if the host says that.
    certificates: Option<TemporaryFolder>,
}

impl Jail {
    /// `around` is what its memory counts for too, if that is limited.
    pub(crate) fn new(
        isolation: Isolation,
        exec_memory: ExecMemory,
        unit: &Unit,
        around: Option<Around>,
        workers: usize,
    ) -> Result<Self, Error> {
        let failed = |error: io::Error| {
            let message = format!("there is no place for the extension's own files: {error}");
            Error::new(ErrorCode::LoadFailed, message)
        };
        let scratch = TemporaryFolder::new().map_err(failed)?;
        let folder = scratch.path().canonicalize().map_err(failed)?;
        let mut plan = Plan::new(isolation, &unit.root);
        plan.env = environment(unit, &folder);
        plan.scratch = Some(folder);
        plan.scratch_size = unit.limits.disk.map(|ByteSize(most)| most);
        plan.engine_paths = SYSTEM.iter().map(PathBuf::from).collect();
        plan.grants = unit.permissions.fs.iter().map(|asked| grant(unit, asked)).collect::<Result<_, _>>()?;
        let mut limits = CgroupLimits::default().with(&unit.limits, workers as u64);
        if !unit.permissions.subprocess.is_empty() {
            plan.grants.extend(programs(&unit.permissions.subprocess)?);
            plan.env.insert("PATH".to_owned(), PROGRAM_FOLDERS.to_owned());
            if *CGROUPS {
                limits.processes.get_or_insert(PROCESSES * workers as u64);
            } else {
                plan.limits.processes = Some(PROCESSES);
            }
        }
        plan.exec_memory = exec_memory;
        plan.memfd = true;
        plan.watched = true;
        plan.limits.open_files = unit.limits.open_files.map(u64::from);
        let workers = workers as u64;
        let (total, outer) = match around {
            None => (None, None),
            Some(Ok(outer)) => (Some(reached(Layer::TotalMemory, outer.describe())), Some(outer)),
            Some(Err(why)) => (Some(not_reached(Layer::TotalMemory, why)), None),
        };
        let (cgroup, own) = cgroup(unit, &limits, outer.as_ref())?;
        let held = std::iter::once(own).chain(total).collect();
        let limits = Mutex::new(limits);
        Ok(Self {
            plan,
            cgroup,
            starts_programs: true,
            held,
            limits,
            workers,
            _scratch: scratch,
            certificates: None,
        })
    }

    /// Where a new process may move itself in, before its host holds it.
    pub(crate) fn doors(&self) -> Vec<OwnedFd> {
        self.cgroup.as_ref().map(|cgroup| cgroup.doors()).unwrap_or_default()
    }

    /// Takes a new process in, before it is told what to do, so that all it ever starts is in there.
    pub(crate) fn hold(&self, child: &Child) -> Result<(), Error> {
        if let Some(cgroup) = &self.cgroup
            && !cgroup.holds(child.pid)
            && let Err(error) = cgroup.add(child.pid)
            // How one ended that is gone already is told where its end is seen.
            && child.wait(NOTICE).is_none()
        {
            child.kill();
            return Err(unavailable(&error));
        }
        Ok(())
    }

    /// Lets the extension at the host's proxy, which asks its permissions each time. Not whether it
    /// was granted some of the network, but whether it might be: grants come and go while it runs.
    /// Its clients of TLS believe whom the machine does, and the `trusted` certificates in PEM.
    pub(crate) fn open_to_proxy(&mut self, trusted: &[u8]) -> Result<(), Error> {
        let address = format!("http://127.0.0.1:{PROXY_PORT}");
        self.plan.net = Net::Proxy;
        self.plan.env.extend(PROXY_VARIABLES.map(|name| (name.to_owned(), address.clone())));
        // No host is reached without it.
        self.plan.env.retain(|name, _| !name.eq_ignore_ascii_case("no_proxy"));
        self.plan.engine_paths.extend(CERTIFICATES.map(PathBuf::from));
        if trusted.is_empty() {
            return Ok(());
        }
        let (folder, file) = bundle(trusted).map_err(|error| {
            let message = format!("the policy's trusted certificates cannot be handed over: {error}");
            Error::new(ErrorCode::LoadFailed, message)
        })?;
        let path = file.to_string_lossy().into_owned();
        self.plan.env.extend(BUNDLE_VARIABLES.map(|name| (name.to_owned(), path.clone())));
        self.plan.engine_paths.push(file);
        self.certificates = Some(folder);
        Ok(())
    }

    /// Changes those limits that the cgroup keeps to while the worker runs: all that are `Some`, or
    /// none. Refuses what can be changed neither here nor in the worker.
    pub(crate) fn limit(&self, limits: &Limits) -> Result<(), Error> {
        let fixed = |(limit, _): &(Limit, _)| !CGROUP.contains(limit) && *limit != Limit::CpuTime;
        if let Some((_, name)) = limits.declared().find(fixed) {
            let message = format!("{name} is set when the worker starts, and not again");
            return Err(
                Error::new(ErrorCode::Unsupported, message).with_hint("change the manifest, and reload")
            );
        }
        if limits.declared().all(|(limit, _)| limit == Limit::CpuTime) {
            return Ok(());
        }
        let Some(cgroup) = &self.cgroup else {
            return Err(Error::new(ErrorCode::Unsupported, "there is no cgroup for the worker"));
        };
        let mut held = self.limits.lock();
        let wanted = held.with(limits, self.workers);
        if let Err(error) = cgroup.set_limits(&wanted) {
            // Some may have been set: back to what was.
            let _ = cgroup.set_limits(&held);
            return Err(Error::new(ErrorCode::Unsupported, format!("the limits cannot be changed: {error}")));
        }
        *held = wanted;
        Ok(())
    }
}

/// A file with the machine's certificates and some more, in a folder of its own.
fn bundle(trusted: &[u8]) -> io::Result<(TemporaryFolder, PathBuf)> {
    let folder = TemporaryFolder::new()?;
    let file = folder.path().canonicalize()?.join("certificates.pem");
    let mut all = BUNDLES.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    all.push(b'\n');
    all.extend_from_slice(trusted);
    fs::write(&file, all)?;
    Ok((folder, file))
}

/// The environment of a worker: what programs expect, and what was granted.
fn environment(unit: &Unit, scratch: &Path) -> BTreeMap<String, String> {
    let own = |name: &str| Some((name.to_owned(), scratch.to_str()?.to_owned()));
    let host = |name: &str| Some((name.to_owned(), env::var(name).ok()?));
    let plain = [("LANG", "C.UTF-8")].map(|(name, value)| Some((name.to_owned(), value.to_owned())));
    let granted = unit.permissions.env.iter().map(|name| host(name));
    let all = plain.into_iter().chain([host("PATH"), own("HOME"), own("TMPDIR")]).chain(granted);
    all.flatten().collect()
}

/// A path that was granted: whole, without links, so that it stays what was looked at.
fn grant(unit: &Unit, asked: &FsPermission) -> Result<Grant, Error> {
    let path = unit.root.join(&asked.path).canonicalize().map_err(|error| {
        let message = format!("the path {:?}, which was granted, cannot be used: {error}", asked.path);
        Error::new(ErrorCode::LoadFailed, message).with_hint("create it, or take it out of [permissions] fs")
    })?;
    let access = match asked.mode {
        FsMode::ReadOnly => Access::ReadOnly,
        FsMode::ReadWrite => Access::ReadWrite,
    };
    Ok(Grant { path, access })
}

/// The files of the programs that were granted, what interprets them, and what all of them need.
fn programs(names: &[String]) -> Result<Vec<Grant>, Error> {
    let mut files = Vec::new();
    for name in names {
        let path = find_program(name).ok_or_else(|| no_such_program(name))?;
        // A script names its interpreter, which may be a script itself; so far the kernel goes.
        let chain = std::iter::successors(Some(path), |path| interpreter(path)).take(5);
        // What starts it may know it by another path, as `system` does the shell.
        files.extend(chain.flat_map(|path| std::iter::once(path.clone()).chain(paths_of_program(&path))));
    }
    let parts = PARTS.iter().map(PathBuf::from).filter(|path| path.is_dir());
    Ok(files.into_iter().chain(parts).map(|path| Grant { path, access: Access::Run }).collect())
}

pub(crate) fn no_such_program(name: &str) -> Error {
    let message = format!("the program {name:?}, which was granted, is not on this machine");
    let hint = format!("install it in one of {PROGRAM_FOLDERS}, or name it by its absolute path");
    Error::new(ErrorCode::LoadFailed, message).with_hint(hint)
}

/// What a file that begins with `#!` is run by.
fn interpreter(path: &Path) -> Option<PathBuf> {
    let mut first = [0; 256];
    let read = fs::File::open(path).and_then(|mut file| file.read(&mut first)).ok()?;
    let line = first[..read].strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    find_program(str::from_utf8(line).ok()?.split_whitespace().next()?)
}

/// What bounds the processes of the worker together. Without limits for it, it is there to count
/// and to freeze, where it can be had.
fn cgroup(
    unit: &Unit,
    limits: &CgroupLimits,
    outer: Option<&Arc<Cgroup>>,
) -> Result<(Option<Arc<Cgroup>>, LayerStatus), Error> {
    let name = unit.manifest.extension.id.as_str();
    let made = match outer {
        Some(outer) => Cgroup::create_within(outer, name, limits),
        None => Cgroup::create(name, limits),
    };
    match made {
        Ok(cgroup) => {
            let status = reached(Layer::Cgroup, cgroup.describe());
            Ok((Some(Arc::new(cgroup)), status))
        }
        Err(error) if *limits == CgroupLimits::default() && outer.is_none() => {
            Ok((None, not_reached(Layer::Cgroup, error.to_string())))
        }
        Err(error) => Err(unavailable(&error)),
    }
}

fn reached(layer: Layer, note: String) -> LayerStatus {
    LayerStatus { layer, state: State::Reached, note }
}

fn not_reached(layer: Layer, note: String) -> LayerStatus {
    LayerStatus { layer, state: State::NotReached, note }
}

impl CgroupLimits {
    /// These limits, with those of a manifest that are declared in their place, for so many workers
    /// together.
    fn with(self, limits: &Limits, workers: u64) -> Self {
        let engines = ENGINE.saturating_mul(workers);
        Self {
            memory: limits.memory.map(|ByteSize(most)| most.saturating_add(engines)).or(self.memory),
            cpu_share: limits.cpu_share.or(self.cpu_share),
            processes: limits.processes.map(u64::from).or(self.processes),
        }
    }
}

/// As an error of the contract.
pub(crate) fn unavailable(error: &confine::Error) -> Error {
    let code = match error {
        confine::Error::Unavailable { .. } | confine::Error::NoCgroup(_) => ErrorCode::IsolationUnavailable,
        _ => ErrorCode::LoadFailed,
    };
    Error::new(code, format!("the worker could not be confined: {error}"))
        .with_hint("`quadriga doctor` shows what this machine and user can reach")
}
