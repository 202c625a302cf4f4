use std::process::ExitCode;

use anyhow::Result;
use quadriga::abi::manifest::Manifest;

use crate::output::Output;

/// Prints the JSON Schema of `quadriga.toml`.
pub(crate) fn run(output: Output) -> Result<ExitCode> {
    output.value(&Manifest::json_schema())?;
    Ok(ExitCode::SUCCESS)
}
