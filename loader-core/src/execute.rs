//! Runs a loose piece of source code once, as an extension that nobody else sees.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use quadriga_abi::limits::{ByteSize, Limits, Span};
use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, Isolation};

use crate::dispatcher::Core;
use crate::load::retire;
use crate::metrics::Tick;
use crate::route::{Slot, suggest};
use crate::ward::{Decision, DecisionFilter, Sample, Ward};
use crate::{CallOptions, Dispatcher, Grant, Layer, LoadOptions, Runtime, TemporaryFolder};

/// The method of the entry that a [`Language`] brings.
const METHOD: &str = "run";

/// A language whose source a runtime runs as it is, and how a loose piece of it becomes an
/// extension: by a second file that runs it.
#[derive(Debug)]
pub struct Language {
    /// What it is called, its own name first.
    pub names: &'static [&'static str],
    /// The name of the file that the source is put into.
    pub file: &'static str,
    /// The name of the entry beside it.
    pub entry: &'static str,
    /// The entry. It exports a method `run`, which takes any number of parameters, runs the source
    /// with them and returns what that comes to. Nothing of the source runs before.
    pub wrapper: &'static str,
}

/// A loose piece of source code, and how to run it: with nothing granted, ten seconds of time, 256
/// MiB of memory and a barrier between it and the host, unless these are changed.
///
/// ```
/// use quadriga_core::Snippet;
/// let snippet = Snippet::new("the-name-of-a-language", "6 * 7");
/// ```
#[derive(Debug, Clone)]
pub struct Snippet {
    /// A name of its language: see [`Dispatcher::languages`].
    pub language: String,
    /// The source. What it comes to is up to its runtime: docs/hosts.md says it for ours.
    pub source: String,
    /// Its parameters: a MessagePack list.
    pub parameters: Bytes,
    /// What it may do, cut by the host's policy.
    pub permissions: Permissions,
    /// What it may use up, cut by the host's policy.
    pub limits: Limits,
    /// The weakest isolation to accept. It is never weaker than the host's policy demands.
    pub isolation: Isolation,
    /// When its caller stops waiting.
    pub deadline: Option<Instant>,
}

/// What a [`Snippet`] came to, and how it was run.
#[derive(Debug, Clone)]
pub struct Executed {
    /// The value, or the error that it ended with, with a stack that names its own lines.
    pub result: Result<Bytes, Error>,
    /// The isolation that was reached.
    pub isolation: Isolation,
    /// What held it apart from the host; empty where that is the engine alone.
    pub layers: Vec<Layer>,
    /// How long it took to get ready.
    pub load_time: Duration,
    /// How long it ran.
    pub run_time: Duration,
    /// What it had used when it was over.
    pub usage: Sample,
    /// What was decided about it.
    pub decisions: Vec<Decision>,
}

impl Snippet {
    /// A piece of source without parameters.
    pub fn new(language: impl Into<String>, source: impl Into<String>) -> Self {
        Self {
            language: language.into(),
            source: source.into(),
            parameters: Bytes::from_static(&[0x90]),
            permissions: Permissions::default(),
            limits: Limits {
                call_timeout: Some(Span(Duration::from_secs(10))),
                memory: Some(ByteSize(256 << 20)),
                ..Limits::default()
            },
            isolation: Isolation::InProcess,
            deadline: None,
        }
    }
}

impl Dispatcher {
    /// Runs a loose piece of source code once. Nothing of it stays: its folder, its process and
    /// all that it left in them are gone when this returns. If its future is dropped, its folder
    /// goes at once and the rest soon.
    ///
    /// It is no loaded extension: nobody can call it, and it is in no list. It may call what is
    /// loaded, as far as its permissions let it.
    ///
    /// # Errors
    /// If it could not be run at all: no runtime takes its language, or none keeps to its limits,
    /// permissions and isolation, or its worker did not start. What it fails with itself is in
    /// [`Executed::result`].
    pub async fn execute(&self, snippet: Snippet) -> Result<Executed, Error> {
        let (runtime, language) = self.core.language(&snippet.language)?;
        let manifest = manifest(runtime, language, &snippet)?;
        // Here, so that it goes with the caller's future.
        let folder = folder(language, &snippet.source).map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("there is no place for the source: {error}"))
        })?;
        let root = folder.path().canonicalize().map_err(|error| {
            Error::new(ErrorCode::LoadFailed, format!("the place of the source is gone: {error}"))
        })?;
        let core = Arc::clone(&self.core);
        self.core.on_executor(async move { core.execute(snippet, manifest, root).await }).await
    }

    /// The languages that [`Dispatcher::execute`] takes, by their own names.
    pub fn languages(&self) -> Vec<&'static str> {
        self.core.languages().map(|(_, language)| language.names[0]).collect()
    }
}

/// A snippet that has been loaded. Dropped, it ends.
struct Loose {
    core: Arc<Core>,
    slot: Option<Arc<Slot>>,
}

impl Core {
    fn languages(&self) -> impl Iterator<Item = (&dyn Runtime, &'static Language)> {
        let mut kinds: Vec<_> = self.runtimes.iter().collect();
        kinds.sort_unstable_by_key(|(kind, _)| *kind);
        let runtimes = kinds.into_iter().filter_map(|(_, levels)| levels.first());
        runtimes.flat_map(|runtime| runtime.languages().iter().map(|language| (&**runtime, language)))
    }

    async fn execute(
        self: &Arc<Self>,
        snippet: Snippet,
        manifest: Manifest,
        root: PathBuf,
    ) -> Result<Executed, Error> {
        let options = LoadOptions {
            grant: Grant::Requested,
            isolation: Some(snippet.isolation),
            ..LoadOptions::default()
        };
        let ward = Ward::new(manifest.extension.id.clone(), options.grant.clone(), true, &self.trail);
        let mut loose = Loose { core: Arc::clone(self), slot: None };
        let slot = self.instantiate(root, Arc::new(manifest), options, Arc::clone(&ward)).await?;
        loose.slot = Some(Arc::clone(&slot));
        let begun = Instant::now();
        let result = self.run(&slot, &snippet).await;
        let executed = Executed {
            result,
            isolation: slot.isolation,
            layers: slot.instance.layers(),
            load_time: slot.load_time,
            run_time: begun.elapsed(),
            usage: slot.sample(),
            decisions: ward.log.read(&DecisionFilter::default()),
        };
        loose.end().await;
        Ok(executed)
    }

    fn language(&self, name: &str) -> Result<(&dyn Runtime, &'static Language), Error> {
        if let Some(found) = self.languages().find(|(_, language)| language.names.contains(&name)) {
            return Ok(found);
        }
        if self.runtimes.keys().any(|kind| kind.as_str() == name) {
            let message = format!("runtime {name} runs what has been compiled, not source");
            let hint = "build it, put it into a folder with a quadriga.toml, and load that";
            return Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint));
        }
        let names: Vec<_> = self.languages().map(|(_, language)| language.names[0]).collect();
        let message = format!("no runtime here runs source in {name:?}");
        let hint = format!(
            "{}; what has to be compiled is built first and loaded as an extension",
            suggest(name, &names, "those are")
        );
        Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint))
    }

    async fn run(self: &Arc<Self>, slot: &Arc<Slot>, snippet: &Snippet) -> Result<Bytes, Error> {
        let gone = || Error::new(ErrorCode::ExtensionStopped, "it ended before it began");
        let before = slot.gate.enter().ok_or_else(gone)?;
        let options = CallOptions { deadline: snippet.deadline, ..CallOptions::default() };
        let parameters = snippet.parameters.clone();
        let admitted = self.admit_to(Arc::clone(slot), before, Tick::now(), METHOD, parameters, options)?;
        self.detach(admitted).await
    }
}

impl Loose {
    async fn end(mut self) {
        if let Some(slot) = self.slot.take() {
            retire(slot, self.core.policy.drain_timeout).await;
        }
    }
}

impl Drop for Loose {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            self.core.executor().spawn(retire(slot, self.core.policy.drain_timeout));
        }
    }
}

/// What says to a runtime what the snippet is.
fn manifest(runtime: &dyn Runtime, language: &Language, snippet: &Snippet) -> Result<Manifest, Error> {
    let (kind, entry) = (runtime.kind(), language.entry);
    let number = fastrand::u32(..);
    let text = format!(
        "[extension]\nid = 'snippet.n{number}'\nversion = '0.0.0'\n[runtime]\nkind = '{kind}'\nentry = '{entry}'\n"
    );
    let mut manifest = Manifest::parse(&text, "snippet")
        .map_err(|error| Error::new(ErrorCode::Internal, format!("the language cannot be used: {error}")))?;
    manifest.permissions = snippet.permissions.clone();
    manifest.limits = snippet.limits.clone();
    Ok(manifest)
}

fn folder(language: &Language, source: &str) -> std::io::Result<TemporaryFolder> {
    let folder = TemporaryFolder::new()?;
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(Path::new(name)), text);
    write(language.entry, language.wrapper)?;
    write(language.file, source)?;
    Ok(folder)
}
