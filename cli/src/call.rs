use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
use quadriga::abi::{Bytes, Error, ErrorCode, Value, ValueError};
use quadriga::{CallOptions, Configuration, Dispatcher, LoadOptions};
use serde_json::{Value as Json, json};

use crate::args::CallArgs;
use crate::failure::Failure;
use crate::home;
use crate::host;
use crate::inspect;
use crate::output::{Output, duration, millis};
use crate::report::{self, Report};
use crate::secrets;

/// How much longer than the timeout a guest may take that cannot be interrupted.
const GRACE: Duration = Duration::from_secs(1);

/// Loads an extension and calls one of its methods.
pub(crate) fn run(args: CallArgs, output: Output) -> Result<ExitCode> {
    let limits = report::limits(&args.limits)?;
    let dispatcher =
        host::start_with(args.host.isolation, host::LOAD_TIMEOUT, limits, secrets::read(&args.secrets)?)?;
    host::run(async move {
        let grant = args.grant.into();
        let others = LoadOptions { grant, ..LoadOptions::default() };
        host::load_all(&dispatcher, &args.host.with, &others).await?;
        let (dir, own, kept) = match home::installed(&args.dir, &args.home, &dispatcher).await? {
            Some(it) => (it.current.folder.clone(), it.permitted()?, Some(it.config)),
            None => (args.dir, others, None),
        };
        let manifest = inspect::read(&dir)?;
        let layers = args.settings.layers(&manifest, kept.as_ref())?;
        let config = Configuration::resolve(&manifest, layers)?.values();
        let id = dispatcher.load(dir, LoadOptions { config, ..own }).await?;
        let status = dispatcher.status(id.as_str())?;
        if output.verbose > 0 {
            let (runtime, isolation, took) = (&status.runtime, status.isolation, duration(status.load_time));
            output.note(&format!("loaded {id} on {runtime} in {took}; isolation {isolation}"));
        }

        let arguments = encode(args.arguments)?;
        let started = Instant::now();
        let result = call(&dispatcher, id.as_str(), &args.method, arguments, args.timeout).await;
        let elapsed = started.elapsed();
        if output.verbose > 0 {
            output.note(&format!("called {} in {}", args.method, duration(elapsed)));
        }
        let report = args.report.then(|| Report::of(&dispatcher, id.as_str())).transpose()?;
        if output.json {
            let (key, value) = match &result {
                Ok(result) => ("result", result.clone()),
                Err(error) => ("error", serde_json::to_value(Failure::from(error))?),
            };
            let mut object = json!({
                key: value,
                "extension": id,
                "runtime": status.runtime,
                "isolation": status.isolation,
                "ms": millis(elapsed),
            });
            if let Some(report) = &report {
                object["report"] = serde_json::to_value(report)?;
            }
            output.value(&object)?;
            if result.is_err() {
                return Ok(ExitCode::FAILURE);
            }
        } else {
            if let Some(report) = &report {
                output.note(&report.text());
            }
            output.value(&result?)?;
        }
        dispatcher.shutdown().await;
        Ok(ExitCode::SUCCESS)
    })
}

/// A JSON array is the list of arguments, any other value the only one.
pub(crate) fn encode(arguments: Option<Json>) -> Result<Bytes, Error> {
    let arguments = match arguments {
        None => Vec::new(),
        Some(Json::Array(arguments)) => arguments,
        Some(argument) => vec![argument],
    };
    Value::from(Json::Array(arguments)).to_bytes().map(Bytes::from).map_err(|error| invalid(&error))
}

/// Calls with JSON, and gives up on a guest that cannot be interrupted.
pub(crate) async fn call(
    dispatcher: &Dispatcher,
    id: &str,
    method: &str,
    arguments: Bytes,
    timeout: Duration,
) -> Result<Json, Error> {
    let (dispatcher, extension, method) = (dispatcher.clone(), id.to_owned(), method.to_owned());
    // A task of its own: some guests hold the thread that calls them, and cannot be interrupted.
    let call = tokio::spawn(async move {
        let options = CallOptions::default().timeout(timeout);
        let reply = dispatcher.call(&extension, &method, arguments, options).await?;
        Value::from_bytes(&reply).map(|value| value.to_json()).map_err(|error| invalid(&error))
    });
    match tokio::time::timeout(timeout.saturating_add(GRACE), call).await {
        Ok(Ok(result)) => result,
        Ok(Err(_)) => Err(Error::new(ErrorCode::Internal, "the call panicked")),
        Err(_) => {
            let message = "the call took longer than it was given, and its runtime could not end it";
            Err(Error::new(ErrorCode::DeadlineExceeded, message)
                .with_hint("give it more time with --timeout"))
        }
    }
}

fn invalid(error: &ValueError) -> Error {
    Error::new(ErrorCode::InvalidValue, error.to_string())
}
