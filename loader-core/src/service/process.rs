//! `quadriga.process`: programs that the host runs for its extensions.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use quadriga_abi::limits::ByteSize;
use quadriga_abi::permission::{Access, Permissions, is_program};
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, Isolation, Value, codec};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use super::{Service, unknown_method};
use crate::dispatcher::lock;
use crate::{BoxFuture, Bridge, CallContext, MemoryPool, Outcome, Unit};

/// How many programs one generation of an extension may run at once.
const AT_ONCE: usize = 8;

/// The most bytes that a program may print, on both of its outputs together.
const PRINTED: u64 = 16 << 20;

/// The most bytes of its name, its arguments and its variables together.
const WORDS: usize = 64 << 10;

/// What runs programs for extensions, confined at least as far as a process of the extension's own
/// would be.
///
/// A dispatcher has one as long as it lives, or none: then nobody has programs run.
pub trait Launcher: Send + Sync + 'static {
    /// Runs a program to its end. `bridge` speaks for the extension, to record what the program is
    /// refused. The permission has been asked for.
    ///
    /// Polled on the dispatcher's tokio runtime. Dropped before it is done, it ends the program and
    /// all that this has started: that is how a deadline, a caller that goes away and a revocation
    /// end it.
    fn run(&self, launch: Launch, bridge: Bridge) -> BoxFuture<'static, Result<Ended, Error>>;

    /// As [`Runtime::share_memory`](crate::Runtime::share_memory).
    fn share_memory(&self, _pool: &Arc<MemoryPool>) {}
}

/// A program to be run, and for whom.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The extension as it was loaded, with what it may do at this moment. The program may do no
    /// more, and has no network.
    pub unit: Unit,
    /// At least so far the program is to be kept from the host.
    pub isolation: Isolation,
    /// A plain name or an absolute path; see [`find_program`](crate::find_program).
    pub program: String,
    /// What follows its name.
    pub arguments: Vec<String>,
    /// Variables beside those that any process of the extension has.
    pub env: BTreeMap<String, String>,
    /// Where it starts; a folder of its own if left out.
    pub folder: Option<PathBuf>,
    /// What it reads.
    pub stdin: Bytes,
    /// How many bytes it may print, on both outputs together.
    pub most: u64,
}

/// How a program ended, and what it printed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Ended {
    /// Its exit status, unless a signal ended it.
    pub status: Option<i32>,
    /// The number of the signal that ended it.
    pub signal: Option<i32>,
    /// What it printed to its standard output.
    pub stdout: Vec<u8>,
    /// What it printed to its standard error.
    pub stderr: Vec<u8>,
}

/// The service.
#[derive(Default)]
pub(crate) struct Process {
    pub(crate) launcher: Option<Arc<dyn Launcher>>,
}

/// What an extension asks for.
struct Request {
    program: String,
    arguments: Vec<String>,
    options: Options,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Options {
    stdin: Option<Value>,
    env: Option<BTreeMap<String, String>>,
    timeout: Option<f64>,
    folder: Option<String>,
}

impl Service for Process {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        match self.begin(caller, parent, method, &arguments) {
            Ok(run) => Outcome::Pending(run),
            Err(error) => error.into(),
        }
    }
}

impl Process {
    fn begin(
        &self,
        caller: &Bridge,
        parent: &CallContext,
        method: &str,
        arguments: &[u8],
    ) -> Result<BoxFuture<'static, Result<Bytes, Error>>, Error> {
        if method != "run" {
            return Err(unknown_method("process", method, &["run"]));
        }
        let Request { program, arguments, options } = Request::read(arguments)?;
        let access = Access::Subprocess(&program);
        caller.check(parent, &access)?;
        let launcher = self.launcher.as_ref().ok_or_else(nobody_to_confine)?;
        let unknown = || Error::new(ErrorCode::Internal, "the extension is not known here");
        let reach = caller.reach().ok_or_else(unknown)?;
        let (unit, isolation) = reach.unit().ok_or_else(unknown)?;
        let permissions = Permissions::clone(&reach.permissions());
        let run = reach.runs.begin(&reach.ward.id, &permissions)?;
        // What was revoked before the run was in the record has not been seen to.
        if reach.verdict(&access).is_err() || !run.is_covered(&reach.permissions()) {
            return Err(taken_back(&program));
        }
        let most = unit.limits.message_size.map_or(PRINTED, |ByteSize(most)| most.min(PRINTED));
        let timeout = options.timeout();
        let launch = Launch {
            unit: Unit { permissions, ..unit.clone() },
            isolation: isolation.max(Isolation::Process),
            program: program.clone(),
            arguments,
            env: options.env.unwrap_or_default(),
            folder: options.folder.map(|folder| unit.root.join(folder)),
            stdin: options.stdin.map(bytes).unwrap_or_default(),
            most,
        };
        let work = launcher.run(launch, caller.clone());
        Ok(Box::pin(async move {
            let work = async move { encoded(&work.await?) };
            tokio::select! {
                biased;
                error = run.ended() => Err(error),
                done = work => done,
                () = late(timeout) => {
                    let message = format!("{program} did not end within its timeout");
                    Err(Error::new(ErrorCode::DeadlineExceeded, message))
                }
            }
        }))
    }
}

async fn late(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => std::future::pending().await,
    }
}

fn nobody_to_confine() -> Error {
    let message = "this host runs no programs for extensions: it has nothing that confines them";
    Error::new(ErrorCode::Unsupported, message).with_hint("build it with the feature `process`, on Linux")
}

fn taken_back(program: &str) -> Error {
    let message = format!("{program} was ended: the extension may no longer do all that it could");
    Error::new(ErrorCode::PermissionDenied, message).with_hint("the host took a permission back")
}

fn wrong(why: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArguments, format!("quadriga.process/run: the arguments: {why}"))
}

fn bytes(value: Value) -> Bytes {
    match value {
        Value::Bytes(bytes) => bytes.into(),
        Value::Text(text) => text.into(),
        _ => Bytes::new(),
    }
}

fn encoded(ended: &Ended) -> Result<Bytes, Error> {
    let failed = |error| Error::new(ErrorCode::Internal, format!("its output cannot be sent: {error}"));
    codec::to_bytes(ended).map(Bytes::from).map_err(failed)
}

impl Request {
    /// `program`, and if there are any, a list of arguments and a map of options.
    fn read(arguments: &[u8]) -> Result<Self, Error> {
        let Value::List(given) = Value::from_bytes(arguments).map_err(wrong)? else {
            return Err(wrong("they are no list"));
        };
        let mut given = given.into_iter();
        let Some(Value::Text(program)) = given.next() else { return Err(wrong("the program is no text")) };
        let words = given.next().unwrap_or(Value::Nil);
        let words = words.to::<Option<Vec<String>>>().map_err(|error| wrong(format!("args: {error}")))?;
        let options = given.next().unwrap_or(Value::Nil);
        let options = options.to::<Option<Options>>().map_err(|error| wrong(format!("options: {error}")))?;
        if given.next().is_some() {
            return Err(wrong("it takes a program, its arguments and options"));
        }
        let request =
            Self { program, arguments: words.unwrap_or_default(), options: options.unwrap_or_default() };
        request.check().map_err(wrong)?;
        Ok(request)
    }

    /// The name of the program goes into logs and records.
    fn check(&self) -> Result<(), String> {
        let Self { program, arguments, options } = self;
        if !is_program(program) || program.chars().any(char::is_control) {
            return Err(format!("{program:?} is no program: it takes a plain name or an absolute path"));
        }
        let variables = options.env.iter().flatten().flat_map(|(name, value)| [name, value]);
        let words = || std::iter::once(program).chain(arguments).chain(variables.clone());
        let size: usize = words().map(|word| word.len() + 1).sum();
        if size > WORDS {
            return Err(format!("arguments and variables have at most {WORDS} bytes, these have {size}"));
        }
        let folder = options.folder.iter();
        if words().chain(folder).any(|word| word.contains('\0')) {
            return Err("there is a zero byte in them".to_owned());
        }
        if options.env.iter().flatten().any(|(name, _)| name.is_empty() || name.contains('=')) {
            return Err("env: a name is empty, or has a = in it".to_owned());
        }
        if options.timeout.is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite())) {
            return Err("timeout: it is no number of seconds above 0".to_owned());
        }
        match &options.stdin {
            None | Some(Value::Nil | Value::Text(_) | Value::Bytes(_)) => Ok(()),
            Some(_) => Err("stdin: it is neither text nor bytes".to_owned()),
        }
    }
}

impl Options {
    fn timeout(&self) -> Option<Duration> {
        self.timeout.map(|seconds| Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// The programs that run for one generation of an extension; `None` once it has ended.
pub(crate) struct Runs(Mutex<Option<Vec<Weak<Run>>>>);

/// One of them, for as long as it runs.
struct Run {
    /// What it was given.
    held: Permissions,
    why: OnceLock<Error>,
    told: Notify,
}

impl Default for Runs {
    fn default() -> Self {
        Self(Mutex::new(Some(Vec::new())))
    }
}

impl Runs {
    fn begin(&self, id: &ExtensionId, permissions: &Permissions) -> Result<Arc<Run>, Error> {
        let mut runs = lock(&self.0);
        let Some(runs) = &mut *runs else { return Err(stopped(id)) };
        runs.retain(|run| run.strong_count() > 0);
        if runs.len() == AT_ONCE {
            let message = format!("{id} runs {AT_ONCE} programs already");
            return Err(Error::new(ErrorCode::Overloaded, message).with_hint("wait for one of them"));
        }
        let run = Run { held: around(permissions), why: OnceLock::new(), told: Notify::new() };
        let run = Arc::new(run);
        runs.push(Arc::downgrade(&run));
        Ok(run)
    }

    /// Ends those that may do more than that.
    pub(crate) fn keep(&self, now: &Permissions) {
        let runs = lock(&self.0);
        let running = runs.iter().flatten().filter_map(Weak::upgrade);
        running.filter(|run| !run.is_covered(now)).for_each(|run| run.end(taken_back("the program")));
    }

    /// Ends all of them, and lets none begin.
    pub(crate) fn close(&self, id: &ExtensionId) {
        let runs = lock(&self.0).take();
        runs.iter().flatten().filter_map(Weak::upgrade).for_each(|run| run.end(stopped(id)));
    }
}

impl Run {
    fn is_covered(&self, now: &Permissions) -> bool {
        self.held.beyond(&around(now)).is_empty()
    }

    fn end(&self, error: Error) {
        let _ = self.why.set(error);
        self.told.notify_one();
    }

    async fn ended(&self) -> Error {
        loop {
            if let Some(error) = self.why.get() {
                return error.clone();
            }
            self.told.notified().await;
        }
    }
}

/// What a program has of what its extension may do.
fn around(permissions: &Permissions) -> Permissions {
    let Permissions { fs, env, subprocess, .. } = permissions.clone();
    Permissions { fs, env, subprocess, ..Permissions::default() }
}

fn stopped(id: &ExtensionId) -> Error {
    Error::new(ErrorCode::ExtensionStopped, format!("{id} was stopped"))
}
