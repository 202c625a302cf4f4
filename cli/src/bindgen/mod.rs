//! `quadriga bindgen`: a typed client of an extension, from its contract.

mod model;
mod names;
mod python;
mod rust;
mod ts;

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use quadriga::abi::contract::Contract;
use quadriga::{Dispatcher, Grant, LoadOptions};
use serde_json::json;

use crate::args::{BindgenArgs, Language};
use crate::contract;
use crate::host;
use crate::output::Output;
use model::Client;

/// Writes a client.
pub(crate) fn run(args: BindgenArgs, output: Output) -> Result<ExitCode> {
    if args.extension.is_dir() {
        let dispatcher = host::start(args.host.isolation, host::LOAD_TIMEOUT)?;
        return host::run(async move {
            let contract = loaded(&dispatcher, &args).await?;
            dispatcher.shutdown().await;
            write(&args, &contract, output)
        });
    }
    let contract = contract::read(&args.extension)?;
    write(&args, &contract, output)
}

async fn loaded(dispatcher: &Dispatcher, args: &BindgenArgs) -> Result<Contract> {
    let options = LoadOptions { grant: Grant::Nothing, ..LoadOptions::default() };
    host::load_all(dispatcher, &args.host.with, &options).await?;
    let id = dispatcher.load(&args.extension, options).await?;
    Ok(contract::of(&dispatcher.status(id.as_str())?))
}

fn write(args: &BindgenArgs, contract: &Contract, output: Output) -> Result<ExitCode> {
    let contract = contract::only(contract.clone(), &args.methods)?;
    let client = Client::of(&contract);
    let code = match args.lang {
        Language::Ts => ts::write(&client),
        Language::Python => python::write(&client),
        Language::Rust => rust::write(&client, args.for_host),
    };
    if let Some(file) = &args.out {
        save(file, &code)?;
    }
    if output.json {
        output.value(&json!({
            "extension": contract.extension,
            "version": contract.version,
            "methods": contract.methods.iter().map(|method| &method.name).collect::<Vec<_>>(),
            "file": args.out,
            "code": code,
        }))?;
    } else if args.out.is_none() {
        output.text(&code)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn save(file: &Path, code: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    }
    fs::write(file, code).with_context(|| format!("{} cannot be written", file.display()))
}

#[cfg(test)]
mod tests;
