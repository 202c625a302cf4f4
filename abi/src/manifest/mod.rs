//! `quadriga.toml`: what an extension says of itself before any of its code runs.
//!
//! Reading is strict. An unknown key, a malformed value, a duplicate or an entry outside the
//! package is an error with file, line and column, and what was expected.

mod contract;
mod error;
mod event;
mod fields;
mod health;
mod hook;
mod schedule;

use std::collections::BTreeMap;

pub use contract::{Check, Contract, Dependency, MethodContract, NeededMethod};
pub use error::ManifestError;
pub use event::{Retry, Subscription};
pub use fields::{EntryPath, Hint, License, UniqueList, Version, VersionReq};
pub use health::HealthCheck;
pub use hook::{Hook, HookMode, OnFailure};
pub use schedule::{CronText, Job, Missed, Overlap, Timing};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
pub use toml::{Table, Value as TomlValue};

use crate::limits::Limits;
use crate::permission::{self, Access, Permissions};
use crate::{ExtensionId, Isolation, RuntimeKind};

/// The name of the manifest in a package's top folder.
pub const FILE_NAME: &str = "quadriga.toml";

/// A whole `quadriga.toml`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
#[schemars(title = "Quadriga extension manifest")]
pub struct Manifest {
    /// Who and what the extension is.
    pub extension: Extension,
    /// What runs it.
    pub runtime: Runtime,
    /// The hosts that it works in.
    #[serde(default)]
    pub host: Host,
    /// Extensions that it needs, by id, each with a range of versions and perhaps a contract.
    #[serde(default)]
    pub dependencies: BTreeMap<ExtensionId, Dependency>,
    /// Extensions that it uses when they are there.
    #[serde(default)]
    pub optional_dependencies: BTreeMap<ExtensionId, Dependency>,
    /// What it offers to others and needs from any of them.
    #[serde(default)]
    pub capabilities: Capabilities,
    /// What it asks to be allowed.
    #[serde(default)]
    pub permissions: Permissions,
    /// What it may use up.
    #[serde(default)]
    pub limits: Limits,
    /// The hook points that it answers, by name.
    #[serde(default)]
    pub hooks: BTreeMap<String, Hook>,
    /// The topics that it is subscribed to, each with the method that gets the events.
    #[serde(default)]
    pub events: BTreeMap<String, Subscription>,
    /// The host APIs that it extends: by API, then by function.
    #[serde(default)]
    pub api: BTreeMap<String, BTreeMap<String, ApiFunction>>,
    /// How far its own contract is kept to.
    #[serde(default)]
    pub contract: Contract,
    /// Its settings.
    #[serde(default)]
    pub config: Config,
    /// How its host looks on a schedule whether it does well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health: Option<HealthCheck>,
    /// What it does by the clock, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub schedule: BTreeMap<String, Job>,
}

/// `[extension]`: who and what the extension is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Extension {
    /// `publisher.name`.
    pub id: ExtensionId,
    /// Semantic version.
    pub version: Version,
    /// The name that people read; the id if it is left out.
    #[serde(default)]
    pub display_name: Option<String>,
    /// What it does, in a sentence.
    #[serde(default)]
    pub description: String,
    /// SPDX licence expression.
    #[serde(default)]
    pub license: Option<License>,
    /// Its authors: `"Name <address>"`.
    #[serde(default)]
    pub authors: UniqueList,
    /// Where to read about it.
    #[serde(default)]
    pub homepage: Option<String>,
    /// Where its source is.
    #[serde(default)]
    pub repository: Option<String>,
    /// What sort of extension it is.
    #[serde(default, rename = "type")]
    pub ty: ExtensionType,
    /// A heading to list it under.
    #[serde(default)]
    pub category: Option<String>,
    /// Words to find it by.
    #[serde(default)]
    pub tags: UniqueList,
}

/// What sort of extension it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "the names say it")]
pub enum ExtensionType {
    Protocol,
    Service,
    Ui,
    Integration,
    Analytics,
    Security,
    Workflow,
    #[default]
    Custom,
}

/// `[runtime]`: what runs the extension.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Runtime {
    /// `javascript`, `python`, `webassembly`, `native`, or a kind that the host brings.
    pub kind: RuntimeKind,
    /// The file to load, relative to the manifest.
    pub entry: EntryPath,
    /// The versions of the contract that it works with; any that the entry's own handshake fits
    /// if it is left out.
    #[serde(default)]
    pub api: Option<VersionReq>,
    /// The weakest isolation that it may run in.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// How many instances or workers may run at once.
    #[serde(default)]
    pub concurrency: Option<std::num::NonZeroU16>,
}

/// `[host]`: the hosts that the extension works in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Host {
    /// The oldest host version.
    pub min: Option<Version>,
    /// The newest host version.
    pub max: Option<Version>,
}

/// `[capabilities]`: what the extension offers to others and needs from any of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Capabilities {
    /// `name@version`, such as `"tokenizer@1.2.0"`.
    pub provides: UniqueList,
    /// `name@range`, such as `"tokenizer@^1"`.
    pub requires: UniqueList,
    /// Contract files in the package, by the name of the required capability: what provides it
    /// has to have the methods in them.
    pub contracts: BTreeMap<String, EntryPath>,
}

/// `[api.API.FUNCTION]`: a function that the extension adds to a host API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ApiFunction {
    /// The exported method that answers.
    pub method: String,
    /// What it does, in a sentence.
    #[serde(default)]
    pub description: String,
    /// The versions of the API that it is for; any if left out.
    #[serde(default)]
    pub version: Option<VersionReq>,
}

/// `[config]`: the extension's settings.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A JSON Schema (2020-12) of the settings, as a table.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub schema: Table,
    /// The method that is asked before the extension is given other settings while it runs: it gets all
    /// of them as its argument, and an error refuses them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// The settings where the operator sets nothing.
    #[schemars(with = "BTreeMap<String, serde_json::Value>")]
    pub defaults: Table,
}

impl Manifest {
    /// Reads a manifest. `file` is the name that errors give.
    ///
    /// ```
    /// use quadriga_abi::manifest::Manifest;
    /// let text = "[extension]\nid = 'acme.hello'\nversion = 'one'\n";
    /// let error = Manifest::parse(text, "quadriga.toml").unwrap_err();
    /// assert_eq!((error.line, error.column), (3, 11));
    /// ```
    pub fn parse(text: &str, file: impl Into<String>) -> Result<Self, ManifestError> {
        let file = file.into();
        let manifest: Self =
            toml::from_str(text).map_err(|error| ManifestError::from_toml(&error, text, &file))?;
        match manifest.check() {
            Ok(()) => Ok(manifest),
            Err((path, message)) => Err(ManifestError::at_path(text, &file, &path, message)),
        }
    }

    /// The rules that look at more than one field: each error with the path of the field to blame.
    fn check(&self) -> Result<(), (Vec<&str>, String)> {
        if let (Some(min), Some(max)) = (&self.host.min, &self.host.max)
            && min.0 > max.0
        {
            return Err((vec!["host", "max"], format!("max {max} is older than min {min}")));
        }
        let id = &self.extension.id;
        for section in ["dependencies", "optional-dependencies"] {
            let ids =
                if section == "dependencies" { &self.dependencies } else { &self.optional_dependencies };
            if ids.contains_key(id) {
                return Err((vec![section, id.as_str()], "the extension depends on itself".into()));
            }
        }
        if let Some(id) = self.dependencies.keys().find(|id| self.optional_dependencies.contains_key(*id)) {
            let message = format!("{id} is a duplicate: it stands in [dependencies] too");
            return Err((vec!["optional-dependencies", id.as_str()], message));
        }
        for provided in self.capabilities.provides.iter() {
            fields::capability::<semver::Version>(provided)
                .map_err(|message| (vec!["capabilities", "provides"], message))?;
        }
        for required in self.capabilities.requires.iter() {
            fields::capability::<semver::VersionReq>(required)
                .map_err(|message| (vec!["capabilities", "requires"], message))?;
        }
        let required: Vec<&str> = self.requires().map(|(name, _)| name).collect();
        if let Some(name) = self.capabilities.contracts.keys().find(|name| !required.contains(&name.as_str()))
        {
            let message = format!("{name:?} is not among the capabilities that are required");
            return Err((vec!["capabilities", "contracts", name], message));
        }
        if let Some(wrong) = self.permissions.fs.iter().find(|fs| permission::normal(&fs.path).is_none()) {
            let message = format!("{:?} is no path: it is empty, or leaves where it starts", wrong.path);
            return Err((vec!["permissions", "fs"], message));
        }
        if let Some(wrong) = self.permissions.subprocess.iter().find(|name| !permission::is_program(name)) {
            let message = format!("{wrong:?} is no program: expected a plain name or an absolute path");
            return Err((vec!["permissions", "subprocess"], message));
        }
        for (topic, subscription) in &self.events {
            if !permission::is_topic_pattern(topic) {
                let message = format!("{topic:?} is no topic: 1 to 256 bytes, no blanks, * only at the end");
                return Err((vec!["events", topic], message));
            }
            let access = Access::Subscribe(topic);
            if !self.permissions.allows(&access) {
                let message = format!("[permissions] {} is missing", access.request());
                return Err((vec!["events", topic], message));
            }
            subscription.retry().map_err(|(key, message)| (vec!["events", topic, key], message))?;
        }
        for (point, hook) in &self.hooks {
            if !permission::is_topic(point) {
                let message = format!("{point:?} is no hook point: 1 to 256 bytes, no blanks, no *");
                return Err((vec!["hooks", point], message));
            }
            hook.check().map_err(|(key, message)| (vec!["hooks", point, key], message))?;
        }
        if let Some(health) = &self.health {
            health.check().map_err(|(key, message)| (vec!["health", key], message))?;
        }
        for (name, job) in &self.schedule {
            schedule::check_name(name).map_err(|message| (vec!["schedule", name], message))?;
            job.check().map_err(|(key, message)| (vec!["schedule", name, key], message))?;
        }
        if let Some(share) = self.limits.cpu_share
            && !(share > 0.0 && share.is_finite())
        {
            return Err((vec!["limits", "cpu-share"], "expected a number above 0".into()));
        }
        Ok(())
    }

    /// The capabilities that it provides: names and versions.
    pub fn provides(&self) -> impl Iterator<Item = (&str, semver::Version)> {
        self.capabilities.provides.iter().filter_map(|text| fields::capability(text).ok())
    }

    /// The capabilities that it requires: names and ranges.
    pub fn requires(&self) -> impl Iterator<Item = (&str, semver::VersionReq)> {
        self.capabilities.requires.iter().filter_map(|text| fields::capability(text).ok())
    }

    /// The JSON Schema of the file, for editors.
    pub fn json_schema() -> serde_json::Value {
        schemars::schema_for!(Self).into()
    }
}

#[cfg(test)]
mod tests;
