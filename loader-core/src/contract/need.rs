//! What an extension needs of others: that they are there, in versions and with methods that fit.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use quadriga_abi::contract::Contract;
use quadriga_abi::manifest::{Dependency, EntryPath, Manifest};
use quadriga_abi::{Error, ErrorCode, ExtensionId, Method};
use semver::VersionReq;

use super::compare::{self, Misfit};
use crate::route::{Routes, Slot, suggest};

/// What one extension needs of those that are loaded before it.
#[derive(Debug, Clone)]
pub(crate) struct Needs {
    extension: ExtensionId,
    needs: Vec<Need>,
}

#[derive(Debug, Clone)]
struct Need {
    provider: Provider,
    range: VersionReq,
    /// Whether it can do without.
    optional: bool,
    methods: Vec<Method>,
}

#[derive(Debug, Clone)]
enum Provider {
    Extension(ExtensionId),
    Capability(String),
}

impl Needs {
    /// Reads the manifest, and the contract files that it names.
    pub(crate) fn read(root: &Path, manifest: &Manifest) -> Result<Self, Error> {
        let extension = manifest.extension.id.clone();
        let mut needs = Vec::new();
        for (dependencies, optional) in
            [(&manifest.dependencies, false), (&manifest.optional_dependencies, true)]
        {
            for (id, dependency) in dependencies {
                let Dependency { version, contract, methods } = dependency;
                let mut needed: Vec<Method> =
                    methods.iter().map(|(name, method)| method.named(name)).collect();
                if let Some(file) = contract {
                    let contract = read(&extension, root, file)?;
                    if contract.extension != *id {
                        let message = format!(
                            "{extension}: {file} is the contract of {}, not of {id}",
                            contract.extension
                        );
                        return Err(Error::new(ErrorCode::InvalidManifest, message));
                    }
                    needed.extend(contract.methods);
                }
                let provider = Provider::Extension(id.clone());
                needs.push(Need { provider, range: version.0.clone(), optional, methods: needed });
            }
        }
        for (name, range) in manifest.requires() {
            let contract = manifest.capabilities.contracts.get(name);
            let contract = contract.map(|file| read(&extension, root, file)).transpose()?;
            let methods = contract.map(|contract| contract.methods).unwrap_or_default();
            let provider = Provider::Capability(name.to_owned());
            needs.push(Need { provider, range, optional: false, methods });
        }
        Ok(Self { extension, needs })
    }

    /// Whether all of it is there.
    pub(crate) fn check(&self, routes: &Routes) -> Result<(), Error> {
        self.needs.iter().try_for_each(|need| match &need.provider {
            Provider::Extension(id) => self.check_extension(need, id, routes),
            Provider::Capability(name) => self.check_capability(need, name, routes),
        })
    }

    fn check_extension(&self, need: &Need, provider: &ExtensionId, routes: &Routes) -> Result<(), Error> {
        let (id, range) = (&self.extension, &need.range);
        match routes.get(provider) {
            Some(slot) if range.matches(&slot.version) => self.compare(need, slot),
            _ if need.optional => Ok(()),
            None => Err(missing(format!("{id} needs {provider} {range}, which is not loaded"))),
            Some(slot) => Err(missing(format!("{id} needs {provider} {range}; loaded is {}", slot.version))),
        }
    }

    /// Any provider of the version will do whose methods fit.
    fn check_capability(&self, need: &Need, name: &str, routes: &Routes) -> Result<(), Error> {
        let mut reason = None;
        let mut providers: Vec<&Arc<Slot>> =
            routes.values().filter(|slot| provides(slot, name, &need.range)).collect();
        providers.sort_by(|a, b| a.id.cmp(&b.id));
        for slot in providers {
            match self.compare(need, slot) {
                Ok(()) => return Ok(()),
                Err(error) => reason = reason.or(Some(error)),
            }
        }
        let (id, range) = (&self.extension, &need.range);
        Err(reason.unwrap_or_else(|| {
            missing(format!("{id} needs the capability {name}@{range}, which nothing provides"))
        }))
    }

    /// Whether a provider has the methods, with shapes that fit. A shape that either side does not
    /// tell is not compared.
    fn compare(&self, need: &Need, slot: &Slot) -> Result<(), Error> {
        if slot.is_asleep() {
            // Its methods are not known yet. It is not loaded unless they fit.
            return Ok(());
        }
        let (id, provider, version) = (&self.extension, &slot.id, &slot.version);
        let there = &slot.instance.describe().methods;
        let misfit =
            |message, hint: String| Err(Error::new(ErrorCode::IncompatibleVersion, message).with_hint(hint));
        for needed in &need.methods {
            let name = &needed.name;
            let Some(method) = there.iter().find(|method| method.name == *name) else {
                let names: Vec<&str> = there.iter().map(|method| method.name.as_str()).collect();
                let message =
                    format!("{id} needs the method {name} of {provider}; version {version} has none");
                return misfit(message, suggest(name, &names, "it has"));
            };
            // A caller that tells no result may well read a stream.
            if needed.output.is_some() && needed.streams != method.streams {
                let sort = |streams| if streams { "a stream" } else { "one result" };
                let (there, wanted) = (sort(method.streams), sort(needed.streams));
                let message = format!(
                    "{id} does not fit {provider} {version}: {name}: {provider} returns {there}, {id} takes {wanted}"
                );
                return misfit(
                    message,
                    format!("needed is {}; there is {}", needed.signature(), method.signature()),
                );
            }
            let whole = || format!("needed is {}; there is {}", needed.signature(), method.signature());
            if let (Some(sent), Some(taken)) = (&needed.input, &method.input)
                && let Err(Misfit { path, sent, taken, undecided }) = compare::fits(sent, taken)
            {
                let place = if path.is_empty() { "its arguments".to_owned() } else { path };
                let why = reason(undecided);
                let message = format!(
                    "{id} does not fit {provider} {version}: {name}: {place}: {id} passes {sent}, {provider} takes {taken}{why}"
                );
                return misfit(message, whole());
            }
            if let (Some(taken), Some(sent)) = (&needed.output, &method.output)
                && let Err(Misfit { path, sent, taken, undecided }) = compare::fits(sent, taken)
            {
                let place = format!("result{}", path);
                let why = reason(undecided);
                let message = format!(
                    "{id} does not fit {provider} {version}: {name}: {place}: {provider} returns {sent}, {id} takes {taken}{why}"
                );
                return misfit(message, whole());
            }
        }
        Ok(())
    }
}

/// Whether those that are loaded and need an extension can go on with a new generation of it.
pub(crate) fn still_fits(new: &Slot, routes: &Routes) -> Result<(), Error> {
    for slot in routes.values().filter(|slot| slot.id != new.id) {
        let Some(source) = &slot.source else { continue };
        for need in &source.needs.needs {
            if matches!(&need.provider, Provider::Extension(id) if *id == new.id) {
                source.needs.compare(need, new)?;
            }
        }
    }
    Ok(())
}

fn provides(slot: &Slot, name: &str, range: &VersionReq) -> bool {
    slot.source.as_ref().is_some_and(|source| {
        source.manifest.provides().any(|(other, version)| other == name && range.matches(&version))
    })
}

fn missing(message: String) -> Error {
    Error::new(ErrorCode::MissingDependency, message).with_hint("load it first")
}

fn reason(undecided: Option<String>) -> String {
    undecided.map(|why| format!(" ({why})")).unwrap_or_default()
}

/// Reads a contract file of a package.
fn read(extension: &ExtensionId, root: &Path, file: &EntryPath) -> Result<Contract, Error> {
    let wrong = |why: String| {
        Error::new(
            ErrorCode::InvalidManifest,
            format!("{extension}: the contract {file} cannot be used: {why}"),
        )
    };
    let path = fs::canonicalize(root.join(file.as_path())).map_err(|error| wrong(error.to_string()))?;
    if !path.starts_with(root) {
        return Err(wrong("it is a link that leaves the package".to_owned()));
    }
    let text = fs::read_to_string(&path).map_err(|error| wrong(error.to_string()))?;
    Contract::parse(&text).map_err(wrong)
}
