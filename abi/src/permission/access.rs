use std::fmt;

use serde::{Deserialize, Serialize};

use super::FsMode;
use crate::limits::Span;

/// One thing that an extension tries, and that its permissions may cover.
///
/// The Display says it as what follows "may not", such as `connect to api.example.org:443`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access<'a> {
    /// Calls a method of another extension.
    Call {
        /// Its id.
        extension: &'a str,
        /// The method's name.
        method: &'a str,
    },
    /// Connects to a host.
    Net {
        /// A name or an address, as the extension gave it.
        host: &'a str,
        /// The port.
        port: u16,
    },
    /// Opens, lists or changes a path.
    Fs {
        /// A relative one starts in the package.
        path: &'a str,
        /// What is to be done there.
        mode: FsMode,
    },
    /// Reads an environment variable.
    Env(&'a str),
    /// Starts a program.
    Subprocess(&'a str),
    /// Reads a secret.
    Secret(&'a str),
    /// Emits an event on a topic.
    Emit(&'a str),
    /// Subscribes to a topic.
    Subscribe(&'a str),
    /// Answers a hook point of the host.
    Hook(&'a str),
    /// Sees a sensitive field of a hook's context: `POINT:FIELD`.
    Sensitive(&'a str),
    /// Adds a function to an API of the host: `API.FUNCTION`.
    Api(&'a str),
    /// Uses the key-value store.
    Kv,
    /// Reads or changes a store that several extensions share.
    Store {
        /// Its name.
        name: &'a str,
        /// What is to be done there.
        mode: FsMode,
    },
    /// Reads a field of the host's data.
    Data {
        /// The source.
        source: &'a str,
        /// The field's name; `*` for all of them.
        field: &'a str,
    },
    /// Reads a clock of this resolution.
    Clock(Span),
}

/// What sort of access: one for each key of `[permissions]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the variants of Access say it")]
pub enum AccessKind {
    Call,
    Net,
    Fs,
    Env,
    Subprocess,
    Secrets,
    Emit,
    Subscribe,
    Hooks,
    Sensitive,
    Api,
    Kv,
    Stores,
    Data,
    Clock,
}

impl AccessKind {
    /// All of them, in the order of the manifest.
    pub const ALL: [Self; 15] = [
        Self::Call,
        Self::Net,
        Self::Fs,
        Self::Env,
        Self::Subprocess,
        Self::Secrets,
        Self::Emit,
        Self::Subscribe,
        Self::Hooks,
        Self::Sensitive,
        Self::Api,
        Self::Kv,
        Self::Stores,
        Self::Data,
        Self::Clock,
    ];

    /// The key in `[permissions]`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Net => "net",
            Self::Fs => "fs",
            Self::Env => "env",
            Self::Subprocess => "subprocess",
            Self::Secrets => "secrets",
            Self::Emit => "emit",
            Self::Subscribe => "subscribe",
            Self::Hooks => "hooks",
            Self::Sensitive => "sensitive",
            Self::Api => "api",
            Self::Kv => "kv",
            Self::Stores => "stores",
            Self::Data => "data",
            Self::Clock => "clock",
        }
    }
}

impl Access<'_> {
    /// Its kind.
    pub fn kind(&self) -> AccessKind {
        match self {
            Self::Call { .. } => AccessKind::Call,
            Self::Net { .. } => AccessKind::Net,
            Self::Fs { .. } => AccessKind::Fs,
            Self::Env(_) => AccessKind::Env,
            Self::Subprocess(_) => AccessKind::Subprocess,
            Self::Secret(_) => AccessKind::Secrets,
            Self::Emit(_) => AccessKind::Emit,
            Self::Subscribe(_) => AccessKind::Subscribe,
            Self::Hook(_) => AccessKind::Hooks,
            Self::Sensitive(_) => AccessKind::Sensitive,
            Self::Api(_) => AccessKind::Api,
            Self::Kv => AccessKind::Kv,
            Self::Store { .. } => AccessKind::Stores,
            Self::Data { .. } => AccessKind::Data,
            Self::Clock(_) => AccessKind::Clock,
        }
    }

    /// The line of `[permissions]` that asks for it, such as `env = ["LANG"]`.
    pub fn request(&self) -> String {
        let key = self.kind().as_str();
        match self {
            Self::Call { extension, method } => format!("{key} = [\"{extension}/{method}\"]"),
            Self::Net { host, port } if host.contains(':') && !host.starts_with('[') => {
                format!("{key} = [\"[{host}]:{port}\"]")
            }
            Self::Net { host, port } => format!("{key} = [\"{host}:{port}\"]"),
            Self::Fs { path, mode } => format!("{key} = [{{ path = {path:?}, mode = \"{mode}\" }}]"),
            Self::Env(name)
            | Self::Subprocess(name)
            | Self::Secret(name)
            | Self::Emit(name)
            | Self::Subscribe(name)
            | Self::Hook(name)
            | Self::Sensitive(name)
            | Self::Api(name) => format!("{key} = [{name:?}]"),
            Self::Kv => format!("{key} = true"),
            Self::Store { name, mode } => format!("{key} = [\"{name}:{mode}\"]"),
            Self::Data { source, field } => format!("{key} = [\"{source}:{field}\"]"),
            Self::Clock(finest) => format!("{key} = \"{finest}\""),
        }
    }
}

impl fmt::Display for AccessKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Access<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call { extension, method } => write!(f, "call {extension}/{method}"),
            Self::Net { host, port } => write!(f, "connect to {host}:{port}"),
            Self::Fs { path, mode: FsMode::ReadOnly } => write!(f, "read {path}"),
            Self::Fs { path, mode: FsMode::ReadWrite } => write!(f, "write {path}"),
            Self::Env(name) => write!(f, "read the environment variable {name}"),
            Self::Subprocess(program) => write!(f, "start {program}"),
            Self::Secret(name) => write!(f, "read the secret {name}"),
            Self::Emit(topic) => write!(f, "emit on {topic}"),
            Self::Subscribe(topic) => write!(f, "subscribe to {topic}"),
            Self::Hook(point) => write!(f, "answer the hook {point}"),
            Self::Sensitive(field) => write!(f, "see the sensitive {field}"),
            Self::Api(function) => write!(f, "add {function} to an API of the host"),
            Self::Kv => f.write_str("use the key-value store"),
            Self::Store { name, mode: FsMode::ReadOnly } => write!(f, "read the store {name}"),
            Self::Store { name, mode: FsMode::ReadWrite } => write!(f, "change the store {name}"),
            Self::Data { source, field: "*" } => write!(f, "read the data {source}"),
            Self::Data { source, field } => write!(f, "read the field {field} of {source}"),
            Self::Clock(finest) => write!(f, "read a clock of {finest}"),
        }
    }
}
