//! The host that runs a home.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use quadriga::abi::{Error, ErrorCode, ExtensionId};
use quadriga::home::{self, Home, Installed, InstalledState};
use quadriga::{Dispatcher, Health, OtlpConfig, Policy, State, prometheus};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::RwLock;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::args::RunArgs;
use super::protocol::{Asked, Request};
use super::server::Socket;
use super::{client, http};
use crate::failure::Failure;
use crate::output::{Output, harmless};
use crate::{call, host, secrets};

/// How long a call over the socket may take, if it does not say.
const CALL: u64 = 60_000;

/// How much longer than its calls an instance may take to end.
const PARTING: Duration = Duration::from_secs(5);

/// How long a collector may take to accept the last metrics.
const LAST_METRICS: Duration = Duration::from_secs(3);

/// What clients ask.
pub(super) struct Host {
    dispatcher: Dispatcher,
    begun: Instant,
    home: PathBuf,
    /// Whether all that is enabled has been started, or could not be.
    started: AtomicBool,
    /// What could not.
    failed: Mutex<BTreeMap<ExtensionId, Error>>,
    /// The home, from when all has been started until it is to end. Whoever changes it reads this, and is
    /// waited for.
    managed: RwLock<Option<Home>>,
}

/// How one extension is said to do, or why it is not there.
#[derive(Serialize)]
pub(super) struct Healths {
    pub(super) ready: bool,
    extensions: BTreeMap<String, Health>,
    failed: BTreeMap<ExtensionId, Error>,
}

/// What asks a process to end.
struct Signals(Signal, Signal);

/// Runs a home, until a signal ends it.
pub(crate) fn run(args: RunArgs, output: Output) -> Result<ExitCode> {
    let policy = Policy {
        minimum_isolation: args.isolation,
        load_timeout: host::LOAD_TIMEOUT,
        drain_timeout: args.drain,
        ..Policy::default()
    };
    let otlp = OtlpConfig::from_environment(args.otlp.as_deref(), |name| std::env::var(name).ok())?;
    // On the main thread, as V8 demands.
    let dispatcher = host::build(policy, secrets::read(&args.secrets)?)?;
    host::run_to_its_own_end(async move {
        // From here on a signal ends it in order.
        let mut signals = Signals::new()?;
        let home = open(&args.home.path()?).await?.attach(&dispatcher);
        let socket = Arc::new(Socket::bind(home.path())?);
        let said = Said(output);
        let path = home.path().display().to_string();
        said.event(
            json!({ "event": "opened", "home": path, "socket": socket.path(), "process": std::process::id() }),
            &format!("process {} runs {path}", std::process::id()),
        );
        let host = Arc::new(Host {
            dispatcher,
            begun: Instant::now(),
            home: home.path().to_owned(),
            started: AtomicBool::new(false),
            failed: Mutex::default(),
            managed: RwLock::default(),
        });
        let mut managed = host.managed.write().await;
        let mut tasks = JoinSet::new();
        tasks.spawn(Arc::clone(&socket).serve(Arc::clone(&host)));
        if let Some(address) = args.metrics {
            let (address, server) = http::bind(address, Arc::clone(&host)).await?;
            tasks.spawn(server);
            let url = format!("http://{address}/metrics");
            said.event(json!({ "event": "metrics", "url": url }), &format!("metrics are at {url}"));
        }
        let exporter = otlp.map(|config| {
            let url = config.endpoint();
            said.event(json!({ "event": "otlp", "url": url }), &format!("metrics go to {url}"));
            host.dispatcher.export(config)
        });
        tasks.spawn(said.alerts(host.dispatcher.alerts()));
        let list = home.list().await?;
        let started = async {
            let failed = match args.lazy {
                true => home::start_lazily(&host.dispatcher, &list).await,
                false => home::start(&host.dispatcher, &list).await,
            };
            host.failed().extend(failed);
            host.started.store(true, Ordering::Release);
            *managed = Some(home.clone());
            drop(managed);
            said.started(&host);
        };
        tokio::select! {
            () = started => signals.next().await,
            () = signals.next() => {}
        }
        said.event(json!({ "event": "stopping" }), "it ends; once more ends it at once");
        let patience = args.drain.saturating_add(PARTING);
        // The numbers of now: what has ended has none.
        let last = exporter.map(|exporter| exporter.end(LAST_METRICS));
        let last = async {
            if let Some(last) = last {
                last.await;
            }
        };
        let stopped = async {
            // What is being changed is changed first, and nothing after it.
            host.managed.write().await.take();
            host.stop(&home.list().await.unwrap_or(list)).await;
        };
        let ending = async { tokio::join!(stopped, last) };
        let in_time = tokio::select! {
            done = timeout(patience, ending) => done.is_ok(),
            () = signals.next() => false,
        };
        tasks.shutdown().await;
        drop(socket);
        if in_time {
            home.close().await;
        }
        let late = "some did not end in time, and were ended";
        let text = if in_time { "all have ended" } else { late };
        said.event(json!({ "event": "stopped", "in-time": in_time }), text);
        Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    })
}

/// Opens the home for as long as it runs.
async fn open(path: &Path) -> Result<Home, Error> {
    Home::open(path).await.map_err(|error| match error.code {
        ErrorCode::HomeInUse if client::runs(path) => {
            error.with_hint("a host runs it already: end that first (Ctrl-C, or SIGTERM)")
        }
        _ => error,
    })
}

fn ending() -> Error {
    Error::new(ErrorCode::HostNotRunning, "the host is about to end")
        .with_hint("wait until it has, and try again")
}

impl Healths {
    /// Whether all are ready, and why some are not.
    pub(super) fn summary(&self) -> Json {
        let unready = self.extensions.iter().filter(|(_, health)| !health.ready);
        let unready = unready.map(|(id, health)| (id.clone(), health.reason.clone().unwrap_or_default()));
        let failed = self.failed.iter().map(|(id, error)| (id.to_string(), error.message.clone()));
        let all: BTreeMap<String, String> = unready.chain(failed).collect();
        json!({ "ready": self.ready, "not-ready": all })
    }
}

impl Signals {
    fn new() -> Result<Self> {
        let listen = |kind| signal(kind).context("signals cannot be listened for");
        Ok(Self(listen(SignalKind::interrupt())?, listen(SignalKind::terminate())?))
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.0.recv() => {}
            _ = self.1.recv() => {}
        }
    }
}

impl Host {
    fn failed(&self) -> std::sync::MutexGuard<'_, BTreeMap<ExtensionId, Error>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends all, what needs others first.
    async fn stop(&self, list: &[Installed]) {
        for (id, error) in home::stop(&self.dispatcher, list).await {
            tracing::warn!(extension = id.as_str(), %error, "did not end as it should");
        }
        self.dispatcher.shutdown().await;
    }

    /// Does what a client asks, in the name of its user.
    pub(super) async fn answer(&self, asked: Asked, actor: &str) -> Result<Json> {
        match asked {
            Asked::Host(request) => Ok(self.about(request, actor).await?),
            Asked::Look(look) => look.carry_out(&self.home).await,
            Asked::Home(operation) => {
                let operation = *operation;
                let managed = self.managed.read().await;
                let home = managed.as_ref().ok_or_else(ending)?;
                let done = operation.carry_out(home, actor, home::Progress::default()).await;
                if let Ok(list) = home.list().await {
                    self.forget(&list);
                }
                done
            }
        }
    }

    /// What did not start is told as long as it should run.
    fn forget(&self, list: &[Installed]) {
        let enabled =
            |id: &ExtensionId| list.iter().any(|it| it.id == *id && it.state == InstalledState::Enabled);
        self.failed().retain(|id, _| enabled(id) && self.dispatcher.status(id.as_str()).is_err());
    }

    async fn about(&self, request: Request, actor: &str) -> Result<Json, Error> {
        match request {
            Request::Status { id: None } => self.status(),
            Request::Status { id: Some(id) } => json(&self.there(&id, self.dispatcher.status(&id))?),
            Request::Health { id } => json(&self.health(id).await?),
            Request::Metrics { id, prometheus: as_text } => {
                let metrics = match id {
                    Some(id) => vec![self.there(&id, self.dispatcher.metrics(&id))?],
                    None => self.dispatcher.all_metrics(),
                };
                if as_text { Ok(prometheus(metrics).into()) } else { json(&metrics) }
            }
            Request::Jobs { id } => {
                if let Some(id) = &id {
                    self.there(id, self.dispatcher.status(id))?;
                }
                let mut jobs = self.dispatcher.jobs();
                jobs.retain(|job| id.as_ref().is_none_or(|id| job.extension.as_str() == id));
                json(&jobs)
            }
            Request::Call { id, method, arguments, timeout } => {
                let timeout = Duration::from_millis(timeout.unwrap_or(CALL));
                let arguments = call::encode(arguments)?;
                let called = call::call(&self.dispatcher, &id, &method, arguments, timeout).await;
                self.there(&id, called)
            }
            Request::Reload { id } => {
                let managed = self.managed.read().await;
                let home = managed.as_ref().ok_or_else(ending)?;
                let reloaded = home.reload(&id, actor).await;
                if let Ok(list) = home.list().await {
                    self.forget(&list);
                }
                if let (Err(error), Ok(known)) = (&reloaded, ExtensionId::new(&id)) {
                    // Why it does not start may be something else now.
                    self.failed().entry(known).and_modify(|why| *why = error.clone());
                }
                let status = reloaded?;
                Ok(json!({ "id": id, "version": status.version, "generation": status.generation }))
            }
        }
    }

    /// Says of an extension that is not loaded why that is so, if it is known.
    fn there<T>(&self, id: &str, result: Result<T, Error>) -> Result<T, Error> {
        result.map_err(|error| match self.failed().iter().find(|(failed, _)| failed.as_str() == id) {
            Some((_, why)) if error.code == ErrorCode::UnknownExtension => {
                let message = format!("{id} did not start");
                Error::new(why.code, message).with_cause(why.clone())
            }
            _ => error,
        })
    }

    fn status(&self) -> Result<Json, Error> {
        let mut extensions = json(&self.dispatcher.list())?;
        for extension in extensions.as_array_mut().into_iter().flatten() {
            // They are said of one extension alone: with their schemas they are most of it.
            extension.as_object_mut().map(|extension| extension.remove("methods"));
        }
        Ok(json!({
            "home": self.home,
            "process": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "uptime": self.begun.elapsed(),
            "started": self.started.load(Ordering::Acquire),
            "extensions": extensions,
            "failed": *self.failed(),
        }))
    }

    /// Asks one extension or all of them for a sign of life, at the same time.
    pub(super) async fn health(&self, id: Option<String>) -> Result<Healths, Error> {
        let of_all = id.is_none();
        let loaded = || self.dispatcher.list().into_iter().map(|it| it.id.to_string()).collect();
        let mut asked = JoinSet::new();
        for id in id.clone().map_or_else(loaded, |id| vec![id]) {
            let dispatcher = self.dispatcher.clone();
            asked.spawn(async move { (dispatcher.health(&id).await, id) });
        }
        let mut extensions = BTreeMap::new();
        while let Some(answer) = asked.join_next().await {
            match answer {
                Ok((Ok(health), id)) => _ = extensions.insert(id, health),
                // It was unloaded meanwhile.
                Ok((Err(_), _)) if of_all => {}
                Ok((Err(error), id)) => self.there(&id, Err(error))?,
                Err(_) => return Err(Error::new(ErrorCode::Internal, "the question panicked")),
            }
        }
        let failed = if of_all { self.failed().clone() } else { BTreeMap::new() };
        let started = !of_all || self.started.load(Ordering::Acquire);
        let ready = started && failed.is_empty() && extensions.values().all(|health| health.ready);
        Ok(Healths { ready, extensions, failed })
    }

    /// All metrics, for Prometheus.
    pub(super) fn metrics(&self) -> String {
        prometheus(self.dispatcher.all_metrics())
    }
}

fn json(value: &impl Serialize) -> Result<Json, Error> {
    serde_json::to_value(value).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
}

/// What the host tells who started it: lines of text, or a JSON object in each.
#[derive(Clone, Copy)]
struct Said(Output);

impl Said {
    /// Extensions go on if nobody reads it.
    fn event(self, event: Json, text: &str) {
        let _ = self.0.text(&if self.0.json { event.to_string() } else { harmless(text) });
    }

    fn started(self, host: &Host) {
        let running = host.dispatcher.list();
        for it in &running {
            let json = json!({
                "event": "started",
                "extension": it.id,
                "version": it.version,
                "runtime": it.runtime,
                "isolation": it.isolation,
                "state": it.state,
            });
            let verb = if it.state == State::Asleep { "is there for" } else { "runs on" };
            let text = format!("{} {} {verb} {}, isolation {}", it.id, it.version, it.runtime, it.isolation);
            self.event(json, &text);
        }
        let failed = host.failed().clone();
        for (id, error) in &failed {
            let json = json!({ "event": "failed", "extension": id, "error": Failure::from(error) });
            self.event(json, &format!("{id} did not start: {error}"));
        }
        let counts = json!({ "event": "ready", "running": running.len(), "failed": failed.len() });
        let text = match failed.len() {
            0 => format!("{} run", running.len()),
            failed => format!("{} run, {failed} did not start", running.len()),
        };
        self.event(counts, &format!("{text}; quadriga status says more, and Ctrl-C ends it"));
    }

    async fn alerts(self, mut alerts: tokio::sync::broadcast::Receiver<quadriga::Alert>) {
        use tokio::sync::broadcast::error::RecvError;
        loop {
            let (event, text) = match alerts.recv().await {
                Ok(it) => (
                    json!({ "event": "alert", "extension": it.extension, "rule": it.rule, "evidence": it.evidence }),
                    format!("alert {} about {}: {}", it.rule, it.extension, it.evidence),
                ),
                Err(RecvError::Lagged(missed)) => {
                    (json!({ "event": "missed", "alerts": missed }), format!("{missed} alerts were missed"))
                }
                Err(RecvError::Closed) => return,
            };
            self.event(event, &text);
        }
    }
}
