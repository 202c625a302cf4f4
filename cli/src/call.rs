use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Result;
#[cfg(unix)]
use quadriga::abi::Isolation;
use quadriga::abi::{Bytes, Error, ErrorCode, ExtensionId, Value, ValueError};
use quadriga::{CallOptions, Configuration, Dispatcher, LoadOptions};
use serde_json::{Value as Json, json};

use crate::args::CallArgs;
#[cfg(unix)]
use crate::args::{HostArgs, SettingArgs};
use crate::failure::Failure;
use crate::home;
use crate::host;
use crate::inspect;
#[cfg(unix)]
use crate::live::Request;
use crate::output::{Output, duration, millis};
use crate::report::{self, Report};
use crate::secrets;

/// How much longer than the timeout a guest may take that cannot be interrupted.
const GRACE: Duration = Duration::from_secs(1);

/// Calls a method of an extension: of one that a host runs already there, and of any other one here, loaded
/// for that.
pub(crate) fn run(args: CallArgs, output: Output) -> Result<ExitCode> {
    #[cfg(unix)]
    if let Some(id) = home::id_of(&args.dir).filter(|_| args.leaves_it_as_it_runs())
        && crate::live::runs(&args.home.path()?)
    {
        return there(id, args, output);
    }
    here(args, output)
}

impl CallArgs {
    /// Whether nothing is said about how it is loaded.
    #[cfg(unix)]
    fn leaves_it_as_it_runs(&self) -> bool {
        let HostArgs { with, isolation } = &self.host;
        let SettingArgs { config, config_file } = &self.settings;
        let nothing = with.is_empty() && config.is_empty() && config_file.is_empty();
        nothing
            && self.limits.is_empty()
            && self.secrets.is_empty()
            && !self.report
            && *isolation == Isolation::None
    }
}

/// Calls in the host that runs it.
#[cfg(unix)]
fn there(id: ExtensionId, args: CallArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        home::enabled(&args.home, &id).await?;
        let path = args.home.path()?;
        let timeout = u64::try_from(args.timeout.as_millis()).ok();
        let (name, method, arguments) = (id.to_string(), args.method, args.arguments);
        let call = Request::Call { id: name.clone(), method: method.clone(), arguments, timeout };
        let (result, elapsed, status) = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let result = crate::live::ask(&path, &call);
            let elapsed = started.elapsed();
            // What is not loaded has no status.
            (result, elapsed, crate::live::ask(&path, &Request::Status { id: Some(name) }))
        })
        .await?;
        if output.verbose > 0 {
            output.note(&format!("called {method} in {}", duration(elapsed)));
        }
        if !output.json || result.is_err() && status.is_err() {
            return output.value(&result?).map(|()| ExitCode::SUCCESS);
        }
        let status = status.unwrap_or_default();
        let [runtime, isolation] = ["runtime", "isolation"].map(|key| status[key].clone());
        said(&result, About { id, runtime, isolation }, elapsed, None, output)
    })
}

/// Loads an extension and calls it.
fn here(args: CallArgs, output: Output) -> Result<ExitCode> {
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
        let result = result.map_err(anyhow::Error::from);
        if output.json {
            let about = About { id, runtime: json!(status.runtime), isolation: json!(status.isolation) };
            if said(&result, about, elapsed, report.as_ref(), output)? != ExitCode::SUCCESS {
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

/// What was called.
struct About {
    id: ExtensionId,
    runtime: Json,
    isolation: Json,
}

/// Says as JSON what came of a call.
fn said(
    result: &Result<Json>,
    About { id, runtime, isolation }: About,
    elapsed: Duration,
    report: Option<&Report>,
    output: Output,
) -> Result<ExitCode> {
    let (key, value) = match result {
        Ok(result) => ("result", result.clone()),
        Err(error) => ("error", serde_json::to_value(Failure::from(error))?),
    };
    let ms = millis(elapsed);
    let mut object =
        json!({ key: value, "extension": id, "runtime": runtime, "isolation": isolation, "ms": ms });
    if let Some(report) = report {
        object["report"] = serde_json::to_value(report)?;
    }
    output.value(&object)?;
    Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
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
