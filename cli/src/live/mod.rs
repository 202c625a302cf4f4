//! A host that runs a home, and the commands that ask it how it does.

pub(crate) mod args;
mod client;
mod http;
mod protocol;
mod run;
mod server;
mod show;
mod top;

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value as Json;

use crate::output::{Output, harmless};
use args::{HealthArgs, JobsArgs, MetricsArgs, ReloadArgs, SomeArgs, StatusArgs};
pub(crate) use client::{ask, is_absent, runs};
pub(crate) use protocol::Request;
pub(crate) use run::run;
pub(crate) use top::top;

impl SomeArgs {
    fn ask(&self, request: impl FnOnce(Option<String>) -> Request) -> Result<Json> {
        client::ask(&self.home.path()?, &request(self.id.clone()))
    }
}

/// Shows how extensions do.
pub(crate) fn status(args: &StatusArgs, output: Output) -> Result<ExitCode> {
    let answer = args.some.ask(|id| Request::Status { id })?;
    match output.json {
        true => output.value(&answer)?,
        false if args.some.id.is_some() => output.text(&show::one(answer)?)?,
        false => output.text(&show::all(answer)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows whether extensions are alive and ready.
pub(crate) fn health(args: &HealthArgs, output: Output) -> Result<ExitCode> {
    let answer = args.some.ask(|id| Request::Health { id })?;
    let ready = answer["ready"] == true;
    match output.json {
        true => output.value(&answer)?,
        false => output.text(&show::health(answer)?)?,
    }
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Shows what methods were called.
pub(crate) fn metrics(args: &MetricsArgs, output: Output) -> Result<ExitCode> {
    let prometheus = args.prometheus;
    let answer = args.some.ask(|id| Request::Metrics { id, prometheus })?;
    match (output.json, answer) {
        (false, Json::String(text)) => output.text(&text)?,
        (true, answer) => output.value(&answer)?,
        (false, answer) => output.text(&show::metrics(answer)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows what is done by the clock.
pub(crate) fn jobs(args: &JobsArgs, output: Output) -> Result<ExitCode> {
    let answer = args.some.ask(|id| Request::Jobs { id })?;
    match output.json {
        true => output.value(&answer)?,
        false => output.text(&show::jobs(answer)?)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Has an extension loaded anew.
pub(crate) fn reload(args: &ReloadArgs, output: Output) -> Result<ExitCode> {
    let answer = client::ask(&args.home.path()?, &Request::Reload { id: args.id.clone() })?;
    match output.json {
        true => output.value(&answer)?,
        false => {
            let version = answer["version"].as_str().unwrap_or_default();
            output.text(&harmless(&format!("{} {version} is loaded anew", args.id)))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
