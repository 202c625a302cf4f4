//! The host: the dispatcher with what the modules declare and open.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use futures_util::FutureExt as _;
use quadriga::abi::manifest::FILE_NAME;
use quadriga::abi::{Error, ErrorCode, Isolation, Value};
use quadriga::{
    Builder, Dispatcher, Events, Grant, HookContext, HookPolicy, Hooked, LoadOptions, Policy, Stopped,
};

use crate::context::{Contexts, ParticipantJoined};
use crate::plan::{Plan, Plans, order};
use crate::scenario::{Ask, Command, Scenario, Wrong};
use crate::trace::Trace;
use crate::transcript::{Entry, Transcript};

/// Long enough that a scenario comes out the same on a busy machine, where a load may have to compile
/// and a first call to wait.
const LOAD_TIMEOUT: Duration = Duration::from_secs(120);
const HOOK_DEADLINE: Duration = Duration::from_secs(10);

/// What extensions emit and the platform tells.
const TOPICS: [&str; 2] = ["notice.*", "trace.outlier"];

/// The platform with its extensions.
pub struct Platform {
    pub(crate) host: Dispatcher,
    pub(crate) contexts: Contexts,
    pub(crate) plans: Plans,
    pub(crate) trace: Trace,
    pub(crate) transcript: Transcript,
    events: Vec<Events>,
}

impl Platform {
    /// Starts the platform and loads its extensions, none of them at a weaker isolation than this.
    ///
    /// # Errors
    /// If the dispatcher does not start, or an extension does not load.
    pub async fn start(builder: Builder, isolation: Isolation, extensions: &[PathBuf]) -> Result<Self> {
        let hooks = HookPolicy { deadline: HOOK_DEADLINE, ..HookPolicy::default() };
        let policy =
            Policy { minimum_isolation: isolation, load_timeout: LOAD_TIMEOUT, hooks, ..Policy::default() };
        let host = builder.policy(policy).build().context("the dispatcher could not start its threads")?;
        let (contexts, plans, trace) = (Contexts::default(), Plans::default(), Trace::default());
        for api in [contexts.api()?, plans.api()?, trace.api()?] {
            host.provide(api)?;
        }
        let events = TOPICS.iter().map(|topic| host.subscribe(topic)).collect::<Result<_, _>>()?;
        let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
        for folder in extensions {
            host.load(folder, options.clone()).await?;
        }
        Ok(Self { host, contexts, plans, trace, transcript: Transcript::default(), events })
    }

    /// The dispatcher, to see how its extensions do.
    pub fn host(&self) -> &Dispatcher {
        &self.host
    }

    /// Plays a scenario to its end and tells what happened. What extensions object to or fail at is a
    /// part of that.
    ///
    /// # Errors
    /// At the first line that makes no sense where it stands.
    pub async fn play(&mut self, scenario: &Scenario) -> Result<Transcript, Wrong> {
        for (line, command) in &scenario.lines {
            self.carry_out(*line, command).await.map_err(|message| Wrong {
                file: scenario.file.clone(),
                line: *line,
                message,
            })?;
        }
        Ok(std::mem::take(&mut self.transcript))
    }

    async fn carry_out(&mut self, line: usize, command: &Command) -> Result<(), String> {
        match command {
            Command::Note(note) => self.transcript.note(&note.text),
            Command::Open(terms) => {
                let allows: Vec<_> = terms.allows.iter().map(String::as_str).collect();
                let (context, budget, allows) = (&terms.context, terms.budget, allows.join(", "));
                self.transcript.command(line, format!("open {context}: a budget of {budget}, for {allows}"));
                self.contexts.open(terms);
            }
            Command::Join(joined) => {
                self.contexts.check(joined)?;
                self.transcript.command(line, format!("join {}: {}", joined.context, joined.agent));
                self.join(joined.clone()).await;
            }
            Command::Plan(plan) => self.plan(line, plan)?,
            Command::Execute(execute) => {
                let plan = self.plans.get(&execute.plan)?;
                self.transcript.command(line, format!("execute {}", plan.plan));
                self.execute(plan, &execute.token).await?;
            }
            Command::Ask(ask) => self.ask(line, ask).await,
        }
        Ok(())
    }

    async fn join(&mut self, joined: ParticipantJoined) {
        if let Some(joined) = self.hook(joined).await {
            let skills: Vec<_> =
                joined.skills.iter().map(|(skill, level)| format!("{skill} {level}")).collect();
            let (name, contact, skills) = (&joined.name, &joined.contact, skills.join(", "));
            self.transcript.fact(format!("{name} <{contact}>: {skills}"));
            self.contexts.join(joined);
        }
    }

    fn plan(&mut self, line: usize, plan: &Plan) -> Result<(), String> {
        self.contexts.terms(&plan.context)?;
        let steps = order(&plan.steps)?.join(", ");
        self.transcript.command(line, format!("plan {} in {}: {steps}", plan.plan, plan.context));
        self.plans.put(plan);
        Ok(())
    }

    async fn ask(&mut self, line: usize, Ask { api, function, with }: &Ask) {
        let arguments: Vec<_> = with.iter().map(ToString::to_string).collect();
        self.transcript.command(line, format!("ask {api}.{function}({})", arguments.join(", ")));
        let reply = self.host.invoke::<Value>(&format!("app.{api}"), function, with).await;
        self.transcript.entries.push(match reply {
            Ok(value) => Entry::Reply { value: value.to_json() },
            Err(error) => Entry::Failure { error },
        });
    }

    /// Runs a hook and takes down who did what: the context as they left it, or nothing if they stopped
    /// it.
    pub(crate) async fn hook<T: HookContext>(&mut self, context: T) -> Option<T> {
        let (context, account, stopped) = match self.host.hook(context).await {
            Ok(Hooked { context, account }) => (Some(context), account, None),
            Err(Stopped { error, account }) => (None, account, Some(error)),
        };
        self.transcript.hook(T::POINT.name, account, stopped.as_ref());
        self.hear();
        context
    }

    /// Takes down the events that are there. What a handler emitted before it returned is.
    fn hear(&mut self) {
        for events in &mut self.events {
            while let Some(Some(event)) = events.next().now_or_never() {
                let data = Value::from_bytes(&event.data).map_or(serde_json::Value::Null, |it| it.to_json());
                let (topic, source) = (event.topic.to_string(), event.source);
                self.transcript.entries.push(Entry::Event { topic, source, data });
            }
        }
    }
}

/// The extensions in a folder, by name.
///
/// # Errors
/// If it cannot be read, or holds none.
pub fn folders(dir: &Path) -> Result<Vec<PathBuf>> {
    let read = || fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<Vec<_>>>();
    let none =
        || format!("there are no extensions in {}: build them with `cargo xtask guests`", dir.display());
    let mut found = read().with_context(none)?;
    found.retain(|folder| folder.join(FILE_NAME).is_file());
    found.sort();
    anyhow::ensure!(!found.is_empty(), none());
    Ok(found)
}

/// What an extension is told that asks for what is not there.
pub(crate) fn refused(why: String) -> Error {
    Error::new(ErrorCode::InvalidArguments, why)
}

pub(crate) fn unknown(what: &str, name: &str) -> String {
    format!("there is no {what} {name:?}")
}
