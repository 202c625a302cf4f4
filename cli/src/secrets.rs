//! Secrets for extensions, from where the command line names them.

use std::collections::HashMap;
use std::env::{self, VarError};
use std::fs;

use anyhow::Result;
use quadriga::SecretString;

use crate::failure::Advice;

/// By name.
pub(crate) type Secrets = HashMap<String, SecretString>;

/// Reads what `--secret` names. What was typed is in no error, in case it is a secret itself.
pub(crate) fn read(given: &[String]) -> Result<Secrets> {
    let mut secrets = Secrets::new();
    for text in given {
        let (name, place) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or_else(misused)?;
        let secret = match place.split_once(':').ok_or_else(misused)? {
            ("file", path) => file(name, path)?,
            ("env", variable) => variable_of(name, variable)?,
            _ => return Err(misused().into()),
        };
        if secrets.insert(name.to_owned(), SecretString::from(secret)).is_some() {
            return Err(Advice::new(format!("the secret {name} is given twice"), "give it once").into());
        }
    }
    Ok(secrets)
}

fn misused() -> Advice {
    let hint = "the text of a secret is not typed: others could see it in the list of processes";
    Advice::new("--secret takes NAME=file:PATH or NAME=env:VARIABLE", hint)
}

/// The content of a file, without the end of its last line.
fn file(name: &str, path: &str) -> Result<String, Advice> {
    let text = fs::read_to_string(path).map_err(|error| {
        let message = format!("the secret {name} cannot be read from {path}: {error}");
        Advice::new(message, "its file holds the secret as UTF-8, and nothing else")
    })?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    Ok(text.strip_suffix('\r').unwrap_or(text).to_owned())
}

fn variable_of(name: &str, variable: &str) -> Result<String, Advice> {
    // Its own error would show the value.
    env::var(variable).map_err(|error| {
        let why = match error {
            VarError::NotPresent => "is not set",
            VarError::NotUnicode(_) => "is not UTF-8",
        };
        let message = format!("the environment variable {variable} {why}");
        Advice::new(message, format!("the secret {name} is to be read from it"))
    })
}
