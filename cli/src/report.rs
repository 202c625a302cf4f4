//! What operators want to know of a call: what was tried and decided, what was used, and what held
//! the extension.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;
use quadriga::abi::limits::Limits;
use quadriga::abi::permission::AccessKind;
use quadriga::abi::{Error, Isolation};
use quadriga::{Decision, Dispatcher, Executed, Failure, Layer, Sample, Tally};
use serde::Serialize;
use serde_json::{Map, Value as Json};

use crate::failure::Advice;
use crate::output::{duration, harmless, table};

/// A limit as it is typed: `memory=64MiB`, or `memory=none` for none.
#[derive(Debug, Clone)]
pub(crate) struct LimitArg {
    pub(crate) name: String,
    pub(crate) value: Option<String>,
}

/// What became of an extension in the course of one command.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    isolation: Isolation,
    layers: Vec<Layer>,
    usage: Sample,
    /// How often each kind of access was tried, where there was any.
    #[serde(skip_serializing_if = "Option::is_none")]
    accesses: Option<BTreeMap<AccessKind, Tally>>,
    decisions: Vec<Decision>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failures: Vec<Failure>,
}

impl Report {
    pub(crate) fn of(dispatcher: &Dispatcher, extension: &str) -> Result<Self, Error> {
        let status = dispatcher.status(extension)?;
        let mut accesses = dispatcher.accesses(extension)?;
        accesses.retain(|_, tally| *tally != Tally::default());
        Ok(Self {
            isolation: status.isolation,
            layers: status.layers,
            usage: dispatcher.usage(extension)?,
            accesses: Some(accesses),
            decisions: dispatcher.decisions(extension, &Default::default())?,
            failures: dispatcher.failures(extension)?,
        })
    }

    pub(crate) fn of_executed(executed: &Executed) -> Self {
        Self {
            isolation: executed.isolation,
            layers: executed.layers.clone(),
            usage: executed.usage,
            accesses: None,
            decisions: executed.decisions.clone(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        let usage = &self.usage;
        let memory = usage.memory.map_or_else(|| "not known".to_owned(), |bytes| format!("{bytes} bytes"));
        let _ = writeln!(out, "Isolation    {}", self.isolation);
        let _ = writeln!(
            out,
            "Usage        memory {memory}; {} calls, {} errors, {} denied; up {}",
            usage.calls,
            usage.errors,
            usage.denied,
            duration(usage.uptime)
        );
        let mut section = |header: &[&str], rows: Vec<Vec<String>>| {
            if !rows.is_empty() {
                let _ = writeln!(out, "\n{}", table(header, &[], rows));
            }
        };
        let text = |text: &dyn ToString| harmless(&text.to_string());
        let layers = self.layers.iter();
        let layers = layers.map(|layer| vec![text(&layer.name), text(&layer.state), text(&layer.note)]);
        section(&["Layer", "State", "Note"], layers.collect());
        let decisions = self.decisions.iter().map(|decision| {
            let reason = serde_json::to_value(decision.reason).unwrap_or_default();
            let reason = reason.as_str().map_or_else(|| "revoked".to_owned(), str::to_owned);
            vec![format!("{:?}", decision.verdict).to_lowercase(), text(&decision.what), reason]
        });
        section(&["Decision", "What", "Why"], decisions.collect());
        let failures = self.failures.iter();
        let failures = failures.map(|failure| vec![text(&failure.error.code), text(&failure.error.message)]);
        section(&["Failure", "Message"], failures.collect());
        out.trim_end().to_owned()
    }
}

/// Reads `NAME=VALUE`.
pub(crate) fn limit(text: &str) -> Result<LimitArg, String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => {
            let value = (value != "none").then(|| value.to_owned());
            Ok(LimitArg { name: name.to_owned(), value })
        }
        _ => Err("expected NAME=VALUE, such as memory=64MiB".to_owned()),
    }
}

/// The limits that have a value, as in `[limits]` of a manifest.
pub(crate) fn limits(given: &[LimitArg]) -> Result<Limits> {
    let value = |text: &String| match serde_json::from_str(text) {
        Ok(number @ Json::Number(_)) => number,
        _ => Json::String(text.clone()),
    };
    let fields =
        given.iter().map(|limit| (limit.name.clone(), limit.value.as_ref().map_or(Json::Null, value)));
    let fields: Map<String, Json> = fields.collect();
    serde_json::from_value(Json::Object(fields)).map_err(|error| {
        let hint =
            "limits are named as in [limits] of a manifest: --limit memory=64MiB --limit cpu-share=0.5";
        Advice::new(format!("these limits cannot be set: {error}"), hint).into()
    })
}
