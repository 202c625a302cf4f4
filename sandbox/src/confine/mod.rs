//! The layers of Linux that confine a worker process.
//!
//! The supervisor makes a [`Plan`] and sends it to the worker that it has just started. The worker
//! calls [`enter`] before it starts an engine or a thread, and sends the [`Report`] back. A
//! [`Cgroup`], which the supervisor holds, bounds what the processes of the worker use together.
//! [`probe`] tries on this machine which layers can be reached.
//!
//! What each [`Isolation`](quadriga_abi::Isolation) level demands:
//!
//! | layer | `process` | `container` |
//! | --- | --- | --- |
//! | descriptors, environment, session, death of the parent, no new privileges | yes | yes |
//! | capabilities dropped, rlimits, Landlock (ABI 3, or 2 with read-only mounts), seccomp | yes | yes |
//! | private root, UTS namespace | no | yes |
//! | mount and IPC namespaces | used where they are there | yes |
//! | network namespace | used where it is there; for network by proxy | unless all network is granted |
//! | PID namespace | if programs may be started | yes |
//! | user namespace | for what needs it | for an ordinary user |
//! | a watch over what seccomp refuses | used where it is there | used where it is there |
//!
//! A layer that is demanded and can't be reached is an error. Nothing is left out silently.
//!
//! The supervisor, on a thread that lives as long as the worker:
//!
//! ```no_run
//! use std::path::PathBuf;
//! use std::process::{Command, Stdio};
//!
//! use quadriga_abi::Isolation;
//! use quadriga_sandbox::confine::{Cgroup, CgroupLimits, Error, ExecMemory, Plan};
//!
//! # fn send(plan: &Plan) {}
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let limits = CgroupLimits { memory: Some(256 << 20), cpu_share: Some(0.5), processes: Some(64) };
//! let group = match Cgroup::create("acme.shout", &limits) {
//!     Ok(group) => Some(group),
//!     Err(Error::NoCgroup(why)) => return Err(why.into()), // or load it with limits of each process
//!     Err(error) => return Err(error.into()),
//! };
//! let mut worker = Command::new("quadriga-worker").env_clear().stdin(Stdio::piped()).spawn()?;
//! if let Some(group) = &group {
//!     group.add(worker.id())?; // before the plan: what the worker forks is in it too
//! }
//! let mut plan = Plan::new(Isolation::Container, "/srv/extensions/acme.shout");
//! plan.keep_fds = vec![0, 1, 2];
//! plan.scratch = Some(PathBuf::from("/var/lib/host/scratch/acme.shout"));
//! plan.engine_paths = ["/usr/lib", "/lib64", "/etc/ld.so.cache", "/proc/self"].map(PathBuf::from).to_vec();
//! plan.exec_memory = ExecMemory::Any;
//! plan.limits.open_files = Some(256);
//! send(&plan);
//! worker.wait()?;
//! group.map_or(Ok(()), Cgroup::destroy)?;
//! # Ok(())
//! # }
//! ```
//!
//! The worker, first thing in `main`:
//!
//! ```no_run
//! let plan = serde_json::from_reader(std::io::stdin())?;
//! match quadriga_sandbox::confine::enter(&plan) {
//!     Ok(report) => assert!(report.layers.len() > 10), // goes to the supervisor
//!     Err(error) => std::process::exit(1),             // after `error.code()` and its text did
//! }
//! # Ok::<(), serde_json::Error>(())
//! ```

mod caps;
mod cgroup;
mod env;
pub(crate) mod fds;
mod landlock;
mod namespace;
mod plan;
mod probe;
pub(crate) mod process;
mod report;
mod rlimit;
mod root;
mod seccomp;
pub(crate) mod sys;
mod syscalls;
mod warden;
pub(crate) mod watch;

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;

use quadriga_abi::Isolation;

pub use self::cgroup::{Cgroup, CgroupLimits, CgroupUsage};
pub use self::plan::{Access, ExecMemory, Grant, Net, Plan, ProcessLimits, RunAs};
pub use self::probe::probe;
pub use self::report::{Error, Layer, LayerStatus, Report, State};
pub use self::watch::Refusal;

use self::report::Outcome;

/// The port of the proxy in a worker's own network.
pub const PROXY_PORT: u16 = 3128;

/// Confines the calling process for good, as the plan says.
///
/// To be called in a freshly executed worker that has one thread and that the process `plan.parent`
/// started. Put the worker into its cgroup before it gets the plan, so that what it forks is in
/// there as well.
///
/// Where the plan needs a PID namespace, the calling process stays behind as a warden: `enter`
/// returns in a descendant, with the same descriptors, and the warden ends as that one ends (with
/// its exit code, or by its signal). So the supervisor goes on to hold and to wait for the process
/// that it started; killing that one kills all of them. To stop them for a while, freeze their
/// cgroup: a stop signal would reach the warden alone.
///
/// # Errors
///
/// What the level demands could not be reached ([`Error::Unavailable`]), a path of the plan could
/// not be used, or the process is not fit to be confined. It may be half confined then: report the
/// error and exit.
pub fn enter(plan: &Plan) -> Result<Report, Error> {
    enter_with(plan).map(|entered| entered.report)
}

/// How far a process is confined, and what is for its supervisor, who gets it by a Unix socket.
#[derive(Debug)]
pub struct Entered {
    /// How far.
    pub report: Report,
    /// The listening socket inside of the worker's network namespace, if the plan asks for
    /// [`Net::Proxy`]: what the worker connects to at [`PROXY_PORT`] of 127.0.0.1.
    pub proxy: Option<TcpListener>,
    /// Where the kernel asks about what the plan has watched, if that can be had. While nobody
    /// answers, whoever is asked about waits; when all have closed it, such calls fail (`ENOSYS`).
    pub watch: Option<OwnedFd>,
}

/// The same as [`enter`], with what is for the supervisor.
///
/// # Errors
///
/// As for [`enter`].
pub fn enter_with(plan: &Plan) -> Result<Entered, Error> {
    plan.check()?;
    if process::threads()? != 1 {
        return Err(Error::Threads);
    }
    let mut layers = Layers::demanding(plan);
    layers.put(Layer::Descriptors, fds::close_all_but(&plan.keep_fds))?;
    layers.put(Layer::Environment, env::replace(&plan.env))?;
    layers.put(Layer::Session, process::new_session())?;
    if let Some(user) = plan.run_as {
        process::become_user(user).map_err(|error| Error::User { user, error })?;
    }
    // As that user, and before a layer would fail for it.
    for (path, ..) in plan.paths().filter(|(_, _, required)| *required) {
        fs::metadata(path).map_err(|error| Error::Path { path: path.to_owned(), error })?;
    }
    confine(plan, &mut layers)?;
    let report = Report { isolation: plan.isolation, layers: layers.reached };
    Ok(Entered { report, proxy: layers.listener, watch: layers.watch })
}

/// The layers that don't depend on how the process was started.
fn confine(plan: &Plan, layers: &mut Layers<'_>) -> Result<(), Error> {
    if let Err(error) = rlimit::check(&plan.limits) {
        layers.put(Layer::Limits, Err(error))?;
    }
    layers.put(Layer::NoNewPrivileges, process::no_new_privileges())?;
    namespace::enter(plan, layers)?;
    // Whatever changes the credentials clears the death signal, so it comes after those changes.
    layers.put(Layer::ParentDeath, process::die_with(plan.parent))?;
    layers.put(Layer::PidNamespace, warden::enter(plan))?;
    let apart = layers.state(Layer::MountNamespace) == State::Reached;
    layers.put(Layer::ReadOnlyMounts, root::guard(plan, apart))?;
    layers.put(Layer::PrivateRoot, root::enter(plan, apart))?;
    let mounted = [Layer::ReadOnlyMounts, Layer::PrivateRoot].map(|layer| layers.state(layer));
    let mounted = mounted.contains(&State::Reached);
    layers.put(Layer::Disk, root::quota(plan, mounted))?;
    process::change_folder(plan).map_err(|error| Error::Path { path: plan.folder().into(), error })?;
    layers.put(Layer::Capabilities, caps::drop_all())?;
    layers.put(Layer::Landlock, landlock::restrict(plan, mounted))?;
    layers.put(Layer::Limits, rlimit::set(&plan.limits))?;
    let watch = plan.watched.then(|| seccomp::watch(plan)).transpose();
    let outcome = watch.and_then(|watch| {
        layers.watch = watch;
        layers.watch.as_ref().map_or(Outcome::not_asked(), |_| Outcome::reached())
    });
    layers.put(Layer::Watch, outcome)?;
    layers.put(Layer::Seccomp, seccomp::install(plan, mounted, layers.watch.is_some()))
}

/// What was reached so far, held against what the plan demands.
struct Layers<'a> {
    /// `None` takes what there is, to see how far it goes.
    demands: Option<&'a Plan>,
    reached: Vec<LayerStatus>,
    /// For a proxy, once there is a network namespace.
    listener: Option<TcpListener>,
    /// For whoever watches.
    watch: Option<OwnedFd>,
}

impl<'a> Layers<'a> {
    fn demanding(plan: &'a Plan) -> Self {
        Self { demands: Some(plan), reached: Vec::new(), listener: None, watch: None }
    }

    fn state(&self, layer: Layer) -> State {
        let status = self.reached.iter().find(|status| status.layer == layer);
        status.map_or(State::NotReached, |status| status.state)
    }

    fn put(&mut self, layer: Layer, outcome: io::Result<Outcome>) -> Result<(), Error> {
        let Outcome { state, note } =
            outcome.unwrap_or_else(|error| Outcome { state: State::NotReached, note: error.to_string() });
        if let Some(plan) = self.demands
            && state == State::NotReached
            && demands(plan, layer)
        {
            return Err(Error::Unavailable { level: plan.isolation, layer, why: note });
        }
        self.reached.push(LayerStatus { layer, state, note });
        Ok(())
    }
}

fn demands(plan: &Plan, layer: Layer) -> bool {
    let container = plan.isolation == Isolation::Container;
    match layer {
        Layer::MountNamespace | Layer::IpcNamespace | Layer::UtsNamespace | Layer::PrivateRoot => container,
        Layer::ReadOnlyMounts => !container && !plan.nested().is_empty(),
        Layer::NetNamespace => plan.net == Net::Proxy || container && plan.net == Net::Denied,
        Layer::PidNamespace => namespace::wants_pids(plan),
        Layer::UserNamespace => plan.limits.processes.is_some() || namespace::wants_pids(plan),
        Layer::Disk => plan.scratch_size.is_some(),
        Layer::Watch | Layer::Cgroup | Layer::TotalMemory => false,
        _ => true,
    }
}
