//! Contracts as the commands take and give them.

use std::path::Path;

use anyhow::{Context as _, Result};
use quadriga::Status;
use quadriga::abi::contract::Contract;

use crate::failure::Advice;

/// What a loaded extension promises.
pub(crate) fn of(status: &Status) -> Contract {
    Contract {
        extension: status.id.clone(),
        version: status.version.to_string(),
        methods: status.methods.clone(),
    }
}

/// Reads a contract file.
pub(crate) fn read(file: &Path) -> Result<Contract> {
    let text = std::fs::read_to_string(file).map_err(|error| {
        let hint = "name an extension's folder, or a file that `quadriga inspect --contract` wrote";
        Advice::new(format!("{} cannot be read: {error}", file.display()), hint)
    })?;
    Contract::parse(&text)
        .map_err(anyhow::Error::msg)
        .with_context(|| format!("{} is of no use", file.display()))
}

/// The contract with only the methods of these names; with all of them if none is named.
pub(crate) fn only(mut contract: Contract, names: &[String]) -> Result<Contract> {
    for name in names {
        if contract.method(name).is_none() {
            let there: Vec<_> = contract.methods.iter().map(|method| method.name.as_str()).collect();
            let message = format!("{} has no method {name:?}", contract.extension);
            return Err(Advice::new(message, format!("it has: {}", there.join(", "))).into());
        }
    }
    contract.methods.retain(|method| names.is_empty() || names.contains(&method.name));
    Ok(contract)
}
