//! The handshake: what a host gives a worker to do, and how the worker answers.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use crate::confine::{Plan, Report};
use quadriga_abi::limits::Limits;
use quadriga_abi::manifest::{Config, Manifest};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{
    Bytes, Description, Error, ErrorCode, ExtensionId, Feature, PROTOCOL, ProtocolVersion, RuntimeKind,
};
use quadriga_core::{Bridge, Launch, Unit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The release, which host and worker must share: what is in a [`Job`] is no part of the contract.
const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// What every hello begins with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Version {
    release: String,
    protocol: ProtocolVersion,
    features: Vec<Feature>,
}

/// The hello of a host: the one extension that the worker is for.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    version: Version,
    pub(crate) runtime: RuntimeKind,
    /// As JSON, without the settings: those are in `config`.
    manifest: String,
    root: Vec<u8>,
    entry: Vec<u8>,
    limits: Limits,
    permissions: Permissions,
    config: Vec<u8>,
    /// The certificates that TLS believes beside those of everybody, in PEM.
    trusted: Vec<u8>,
    /// A file comes with this: what the runtime in the host has prepared.
    pub(crate) prepared: bool,
    /// What the worker confines itself to before it does anything of the rest.
    pub(crate) plan: Plan,
}

/// The hello of a host to a process that is to become a program.
#[derive(Serialize, Deserialize)]
pub(crate) struct Task {
    version: Version,
    pub(crate) plan: Plan,
    /// The file to run.
    pub(crate) path: Vec<u8>,
    /// What it is called by.
    pub(crate) name: String,
    pub(crate) arguments: Vec<String>,
    pub(crate) folder: Option<Vec<u8>>,
}

/// The hello of a worker, once the extension is loaded.
#[derive(Serialize, Deserialize)]
pub(crate) struct Greeting {
    version: Version,
    pub(crate) description: Description,
    /// How far the worker is confined, by its own word before the extension was there.
    pub(crate) report: Report,
}

impl Version {
    fn ours() -> Self {
        Self { release: RELEASE.to_owned(), protocol: PROTOCOL, features: vec![Feature::HostCalls] }
    }

    fn check(&self, who: &str) -> Result<(), Error> {
        if self.release == RELEASE && PROTOCOL.serves(self.protocol) {
            return Ok(());
        }
        let (release, protocol) = (&self.release, self.protocol);
        let message = format!(
            "the {who} is release {release} and speaks contract {protocol}; this is {RELEASE} and {PROTOCOL}"
        );
        Err(Error::new(ErrorCode::IncompatibleVersion, message)
            .with_hint("let the worker program be of the same release as the host"))
    }
}

impl Job {
    pub(crate) fn new(unit: &Unit, bridge: &Bridge, plan: Plan) -> Result<Self, Error> {
        let bare = Manifest { config: Config::default(), ..(*unit.manifest).clone() };
        let manifest = serde_json::to_string(&bare).map_err(|error| {
            Error::new(ErrorCode::Internal, format!("the manifest cannot be handed over: {error}"))
        })?;
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        Ok(Self {
            version: Version::ours(),
            runtime: unit.manifest.runtime.kind.clone(),
            manifest,
            root: bytes(&unit.root),
            entry: bytes(&unit.entry),
            limits: unit.limits.clone(),
            permissions: unit.permissions.clone(),
            config: bridge.config().to_vec(),
            trusted: bridge.trusted_certificates().to_vec(),
            prepared: unit.prepared.is_some(),
            plan,
        })
    }

    /// What the worker's runtime gets: the last are those of [`Bridge::remote`].
    pub(crate) fn unit(
        self,
        deadline: Instant,
        prepared: Option<File>,
    ) -> Result<(Unit, ExtensionId, [Bytes; 2]), Error> {
        let manifest: Manifest = serde_json::from_str(&self.manifest).map_err(|error| {
            Error::new(ErrorCode::ProtocolViolation, format!("the host's manifest cannot be read: {error}"))
        })?;
        let id = manifest.extension.id.clone();
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let (manifest, root, entry) = (Arc::new(manifest), path(self.root), path(self.entry));
        let (limits, permissions, prepared) = (self.limits, self.permissions, prepared.map(Arc::new));
        let unit = Unit { manifest, root, entry, limits, permissions, deadline, prepared };
        Ok((unit, id, [self.config.into(), self.trusted.into()]))
    }
}

impl Task {
    pub(crate) fn new(plan: Plan, path: &Path, launch: &Launch) -> Self {
        let bytes = |path: &Path| path.as_os_str().as_bytes().to_vec();
        let folder = launch.folder.as_deref().map(bytes);
        let (name, arguments) = (launch.program.clone(), launch.arguments.clone());
        Self { version: Version::ours(), plan, path: bytes(path), name, arguments, folder }
    }
}

impl Greeting {
    pub(crate) fn new(description: Description, report: Report) -> Self {
        Self { version: Version::ours(), description, report }
    }
}

/// A hello that can be checked.
pub(crate) trait Hello: Serialize + DeserializeOwned {
    /// Who sends it.
    const FROM: &str;

    fn to_bytes(&self) -> Result<Vec<u8>, Error> {
        let failed = |error| Error::new(ErrorCode::Internal, format!("the hello cannot be written: {error}"));
        rmp_serde::to_vec_named(self).map_err(failed)
    }

    fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        /// All of it that every release can read.
        #[derive(Deserialize)]
        struct Any {
            version: Version,
        }

        let from = Self::FROM;
        let unreadable = |error| {
            Error::new(
                ErrorCode::ProtocolViolation,
                format!("the hello of the {from} cannot be read: {error}"),
            )
        };
        let any: Any = rmp_serde::from_slice(bytes).map_err(unreadable)?;
        any.version.check(from)?;
        rmp_serde::from_slice(bytes).map_err(unreadable)
    }
}

impl Hello for Job {
    const FROM: &str = "host";
}

impl Hello for Task {
    const FROM: &str = "host";
}

impl Hello for Greeting {
    const FROM: &str = "worker";
}
