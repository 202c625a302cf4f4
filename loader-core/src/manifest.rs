//! Reads a manifest, and compares what it says with what is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quadriga_abi::manifest::{FILE_NAME, Manifest};
use quadriga_abi::{Description, Error, ErrorCode, PROTOCOL};

use crate::route::suggest;

pub(crate) fn read_manifest(folder: &Path) -> Result<(PathBuf, Arc<Manifest>), Error> {
    let invalid = |path: &Path, error| {
        let message = format!("{} cannot be read: {error}", path.display());
        Error::new(ErrorCode::InvalidManifest, message)
            .with_hint(format!("an extension is a folder with a {FILE_NAME}"))
    };
    let root = fs::canonicalize(folder).map_err(|error| invalid(folder, error))?;
    let path = root.join(FILE_NAME);
    let text = fs::read_to_string(&path).map_err(|error| invalid(&path, error))?;
    let manifest = Manifest::parse(&text, path.display().to_string())
        .map_err(|error| Error::new(ErrorCode::InvalidManifest, error.to_string()))?;
    Ok((root, Arc::new(manifest)))
}

pub(crate) fn entry(root: &Path, manifest: &Manifest) -> Result<PathBuf, Error> {
    let (id, name) = (&manifest.extension.id, &manifest.runtime.entry);
    let wrong = |why: String| Error::new(ErrorCode::EntryInvalid, why).in_extension(id.as_str());
    let path = fs::canonicalize(root.join(name.as_path())).map_err(|error| {
        wrong(format!("the entry {name} of {id} cannot be read: {error}")).with_hint("has it been built?")
    })?;
    if !path.starts_with(root) {
        return Err(wrong(format!("the entry {name} of {id} is a link that leaves the package")));
    }
    if !path.is_file() {
        return Err(wrong(format!("the entry {name} of {id} is not a file")));
    }
    Ok(path)
}

pub(crate) fn check_description(manifest: &Manifest, description: &Description) -> Result<(), Error> {
    let id = &manifest.extension.id;
    let theirs = description.protocol;
    if !PROTOCOL.serves(theirs) {
        let message = format!("{id} was built for contract {theirs}; this host speaks {PROTOCOL}");
        let hint = format!("build it with an SDK for contract {PROTOCOL}, or take a host for {theirs}");
        return Err(Error::new(ErrorCode::IncompatibleVersion, message).with_hint(hint));
    }
    let hooks = manifest.hooks.iter().map(|(name, hook)| (format!("[hooks.{name}]"), &hook.method));
    let functions = manifest.api.iter().flat_map(|(api, functions)| {
        functions.iter().map(move |(name, function)| (format!("[api.{api}.{name}]"), &function.method))
    });
    let promises = manifest.contract.methods.keys().map(|name| (format!("[contract.methods.{name}]"), name));
    let events = manifest.events.iter().map(|(topic, it)| (format!("[events.{topic:?}]"), &it.method));
    let config = manifest.config.method.iter().map(|method| ("[config]".to_owned(), method));
    let health = manifest.health.iter().filter_map(|health| health.method.as_ref());
    let jobs = manifest.schedule.iter().map(|(name, job)| (format!("[schedule.{name}]"), &job.method));
    let config = config.chain(health.map(|method| ("[health]".to_owned(), method))).chain(jobs);
    for (section, method) in hooks.chain(functions).chain(promises).chain(events).chain(config) {
        if !description.methods.iter().any(|there| there.name == *method) {
            let names: Vec<&str> = description.methods.iter().map(|method| method.name.as_str()).collect();
            let message = format!("{id}: {section} names the method {method:?}, which it does not export");
            let error = Error::new(ErrorCode::InvalidManifest, message);
            return Err(error.with_hint(suggest(method, &names, "it exports")));
        }
    }
    Ok(())
}
