use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use quadriga::abi::Value;
use quadriga::abi::limits::{Limits, Span};
use quadriga::abi::permission::Permissions;
use quadriga::{Executed, Snippet};
use serde_json::{Map, Value as Json, json};

use crate::args::ExecArgs;
use crate::call::encode;
use crate::failure::{Advice, Failure};
use crate::host;
use crate::output::{Output, duration, millis};
use crate::report::{self, Report};
use crate::secrets;

/// Runs a loose piece of source code once.
pub(crate) fn run(args: ExecArgs, output: Output) -> Result<ExitCode> {
    let source = read(args.file.as_deref())?;
    let mut snippet = Snippet::new(&args.language, source);
    snippet.isolation = args.isolation;
    snippet.permissions = permissions(args.permissions)?;
    snippet.limits.call_timeout = Some(Span(args.timeout));
    let cleared = args.limits.iter().filter(|limit| limit.value.is_none()).map(|limit| limit.name.as_str());
    for name in cleared {
        match name {
            "memory" => snippet.limits.memory = None,
            "call-timeout" => snippet.limits.call_timeout = None,
            _ => {}
        }
    }
    snippet.limits = snippet.limits.overlaid(&report::limits(&args.limits)?);
    snippet.parameters = encode(Some(Json::Array(args.params)))?;
    let secrets = secrets::read(&args.secrets)?;
    let dispatcher = host::start_with(args.isolation, host::LOAD_TIMEOUT, Limits::default(), secrets)?;
    host::run(async move {
        let executed = dispatcher.execute(snippet).await?;
        dispatcher.shutdown().await;
        show(&args.language, &executed, args.report, output)
    })
}

fn show(language: &str, executed: &Executed, full: bool, output: Output) -> Result<ExitCode> {
    let result = executed.result.as_ref().map(|value| Value::from_bytes(value).map(|value| value.to_json()));
    let report = full.then(|| Report::of_executed(executed));
    if output.json {
        let (key, value) = match &result {
            Ok(value) => ("result", value.clone()?),
            Err(error) => ("error", serde_json::to_value(Failure::from(*error))?),
        };
        let mut object = json!({
            key: value,
            "language": language,
            "isolation": executed.isolation,
            "load_ms": millis(executed.load_time),
            "ms": millis(executed.run_time),
        });
        if let Some(report) = &report {
            object["report"] = serde_json::to_value(report)?;
        }
        output.value(&object)?;
        return Ok(if result.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if output.verbose > 0 {
        let (load, run) = (duration(executed.load_time), duration(executed.run_time));
        output.note(&format!("ready in {load}, run in {run}; isolation {}", executed.isolation));
    }
    if let Some(report) = &report {
        output.note(&report.text());
    }
    match &executed.result {
        Ok(_) => output.value(&result.map_err(Clone::clone)??)?,
        Err(error) => return Err(error.clone().into()),
    }
    Ok(ExitCode::SUCCESS)
}

/// The source: a file, or the standard input.
fn read(file: Option<&Path>) -> Result<String> {
    match file.filter(|file| *file != Path::new("-")) {
        Some(file) => {
            std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
        }
        None => {
            let mut source = String::new();
            std::io::stdin().read_to_string(&mut source).context("the standard input cannot be read")?;
            Ok(source)
        }
    }
}

fn permissions(given: Vec<(String, Json)>) -> Result<Permissions> {
    let given: Map<String, Json> = given.into_iter().collect();
    serde_json::from_value(Json::Object(given)).map_err(|error| {
        let hint = "write them as in [permissions] of a manifest, as JSON: --permission 'env=[\"LANG\"]'";
        Advice::new(format!("these permissions cannot be granted: {error}"), hint).into()
    })
}
