//! A probe with a place to work in, and canaries around it.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use quadriga_abi::Isolation;
use quadriga_sandbox::confine::{Access, Error, ExecMemory, Grant, Plan, Report};
use tempfile::TempDir;

use crate::action::{Action, Entered, Outcome, Request};

pub(crate) const LEVELS: [Isolation; 2] = [Isolation::Process, Isolation::Container];
/// Planted in the environment that a probe starts with.
pub(crate) const SECRET: &str = "the-secret-of-the-host";
const NOBODY: u32 = 65534;

/// Whom a probe runs as.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum User {
    Root,
    Ordinary,
    /// An ordinary user who may make no namespaces, as on machines that are set up so.
    Bare,
}

/// The users that this test can be.
pub(crate) fn users() -> &'static [User] {
    if is_root() { &[User::Root, User::Ordinary, User::Bare] } else { &[User::Ordinary, User::Bare] }
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that something can't be tested here, and how often that was said so far.
pub(crate) fn skip(what: &str, why: &str) {
    static SKIPPED: AtomicUsize = AtomicUsize::new(0);
    let number = SKIPPED.fetch_add(1, Ordering::Relaxed) + 1;
    eprintln!("SKIPPED ({number}): {what}: {why}");
}

/// Copies a program. By another process: a child that this one starts in the meantime would hold the
/// copy open for writing, and it couldn't be run.
pub(crate) fn install(program: &Path, to: &Path) {
    assert!(Command::new("cp").args([program, to]).status().unwrap().success());
}

/// Each level with each user, with a place of their own.
pub(crate) fn everywhere(mut test: impl FnMut(&Place)) {
    for level in LEVELS {
        for user in users() {
            let place = Place::new(level, *user);
            // No container without namespaces; another test sees to it that it is refused.
            if (level, *user) != (Isolation::Container, User::Bare) && place.is_reachable() {
                eprintln!("at level {level} as {user:?}");
                test(&place);
            }
        }
    }
}

/// Folders of one worker, and of the host around it.
pub(crate) struct Place {
    pub(crate) level: Isolation,
    pub(crate) user: User,
    pub(crate) dir: TempDir,
}

impl Place {
    pub(crate) fn new(level: Isolation, user: User) -> Self {
        let dir = TempDir::with_prefix("confine-").unwrap();
        let place = Self { level, user, dir };
        for name in ["package", "scratch", "home", "granted", "granted-to-read"] {
            fs::create_dir(place.at(name)).unwrap();
            fs::write(place.at(name).join("file"), format!("in {name}")).unwrap();
        }
        install(env!("CARGO_BIN_EXE_confine-probe").as_ref(), &place.at("probe"));
        // Of the user, so that only the confinement stands between it and the canaries.
        for path in
            ["", "package", "scratch", "home", "granted", "granted-to-read"].map(|name| place.at(name))
        {
            place.give(&path);
            for entry in fs::read_dir(path).unwrap().flatten() {
                place.give(&entry.path());
            }
        }
        place
    }

    /// Makes a path the user's.
    pub(crate) fn give(&self, path: &Path) {
        if is_root() {
            let owner = if self.user == User::Root { 0 } else { NOBODY };
            std::os::unix::fs::chown(path, Some(owner), Some(owner)).unwrap();
        }
        fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.dir.path().canonicalize().unwrap().join(name)
    }

    /// A plan with a package, a scratch folder and the libraries of the machine.
    pub(crate) fn plan(&self) -> Plan {
        let libraries = ["/usr/lib", "/usr/lib64", "/lib", "/lib64", "/etc/ld.so.cache", "/proc/self"];
        Plan {
            keep_fds: vec![0, 1, 2],
            scratch: Some(self.at("scratch")),
            engine_paths: libraries.map(PathBuf::from).to_vec(),
            exec_memory: ExecMemory::Libraries,
            ..Plan::new(self.level, self.at("package"))
        }
    }

    /// The same, and programs may be started: those in the libraries' folders and in these.
    pub(crate) fn running(&self, from: &[&str]) -> Plan {
        let mut plan = self.plan();
        let run = |path: PathBuf| Grant { path, access: Access::Run };
        let libraries = plan.engine_paths.iter().filter(|path| path.is_dir() && !path.starts_with("/proc"));
        let all = libraries.cloned().chain(from.iter().map(|path| self.at(path)));
        plan.grants.extend(all.map(run).collect::<Vec<_>>());
        plan
    }

    /// What the probe does with a plan; or unconfined, with none.
    pub(crate) fn run(&self, plan: Option<Plan>, actions: &[Action]) -> Vec<Outcome> {
        let mut worker = self.start(plan, actions);
        let outcomes = actions.iter().map_while(|_| worker.outcome()).collect();
        worker.child.wait().unwrap();
        outcomes
    }

    pub(crate) fn start(&self, plan: Option<Plan>, actions: &[Action]) -> Worker {
        self.spawn().enter(plan, actions).unwrap_or_else(|error| panic!("not confined: {error}"))
    }

    /// Starts a probe that waits for its request.
    pub(crate) fn spawn(&self) -> Waiting {
        let mut command = if self.user == User::Bare { self.without_namespaces() } else { self.probe() };
        command.env_clear().env("SECRET", SECRET).stdin(Stdio::piped()).stdout(Stdio::piped());
        if is_root() && self.user != User::Root {
            command.uid(NOBODY).gid(NOBODY);
        }
        Waiting(command.spawn().unwrap())
    }

    fn probe(&self) -> Command {
        Command::new(self.at("probe"))
    }

    /// In a user namespace in which no further one can be made, and without capabilities there.
    fn without_namespaces(&self) -> Command {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-current-user", "--keep-caps", "sh", "-c"]).arg(
            "echo 0 >/proc/sys/user/max_user_namespaces && \
             exec setpriv --bounding-set=-all --inh-caps=-all --ambient-caps=-all \"$0\"",
        );
        command.arg(self.at("probe"));
        command
    }

    /// Whether the level can be reached; says so if it can't.
    fn is_reachable(&self) -> bool {
        let tried = self.spawn().enter(Some(self.plan()), &[]);
        match tried {
            Ok(mut worker) => {
                worker.child.wait().unwrap();
                true
            }
            // The second, if the tools to give namespaces up aren't there, or not allowed.
            Err(error) if error.contains("can't be reached") || error.contains("ended before") => {
                skip(&format!("{} as {:?}", self.level, self.user), &error);
                false
            }
            Err(error) => panic!("not confined: {error}"),
        }
    }
}

pub(crate) struct Waiting(pub(crate) Child);

impl Waiting {
    pub(crate) fn enter(self, plan: Option<Plan>, actions: &[Action]) -> Result<Worker, String> {
        let mut child = self.0;
        let request = Request { plan, actions: actions.to_vec() };
        serde_json::to_writer(child.stdin.take().unwrap(), &request).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        if line.is_empty() {
            return Err(format!("ended before it could say how it was confined: {}", child.wait().unwrap()));
        }
        let Entered(entered) = serde_json::from_str(&line).unwrap();
        match entered {
            Ok(report) => Ok(Worker { child, lines, report }),
            Err(error) => {
                child.wait().unwrap();
                Err(error)
            }
        }
    }
}

/// A probe that is confined and tries things.
pub(crate) struct Worker {
    pub(crate) child: Child,
    lines: BufReader<ChildStdout>,
    pub(crate) report: Option<Report>,
}

impl Worker {
    /// What became of the next action; `None` when the worker ended before.
    pub(crate) fn outcome(&mut self) -> Option<Outcome> {
        let line = self.line();
        (!line.is_empty()).then(|| serde_json::from_str(&line).unwrap())
    }

    /// The next line, whoever wrote it.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).unwrap();
        line
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }

    pub(crate) fn end(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }
}

/// The error of an operation, or `None` after saying that it can't be tested here.
pub(crate) fn or_skip<T>(what: &str, result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ Error::NoCgroup(_)) => {
            skip(what, &error.to_string());
            None
        }
        Err(error) => panic!("{what}: {error}"),
    }
}
