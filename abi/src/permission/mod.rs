//! What an extension asks for. What it gets is this, cut by what the host grants.

mod access;
mod call;
mod data;
mod net;
mod path;
mod pattern;
mod store;
#[cfg(test)]
mod tests;

pub use access::{Access, AccessKind};
pub use call::CallPattern;
pub use data::DataPattern;
pub use net::NetPattern;
pub use path::{FsMode, FsPermission, is_program, normal};
pub use pattern::{TopicPattern, is_topic, is_topic_pattern};
use pattern::{join, meet, over, part};
use std::time::Duration;
pub use store::{StorePattern, is_plain_name};

use serde::{Deserialize, Serialize};

use crate::limits::Span;

/// The permissions of one extension. Empty means none: deny is the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Permissions {
    /// Extensions and methods to call: `"acme.tokenizer/split"`, `"acme.tokenizer/*"`, `"*"`.
    pub call: Vec<CallPattern>,
    /// Hosts to connect to: `"api.example.org:443"`, `"*.example.org:*"`.
    pub net: Vec<NetPattern>,
    /// Folders and files outside the package.
    pub fs: Vec<FsPermission>,
    /// Environment variables to read.
    pub env: Vec<String>,
    /// Programs to start: plain names, which are looked for in the system's folders, or absolute paths.
    pub subprocess: Vec<String>,
    /// Secrets to read, by name.
    pub secrets: Vec<String>,
    /// Topics to emit events on: `"orders.placed"`, `"orders.*"`, `"*"`.
    pub emit: Vec<TopicPattern>,
    /// Topics to subscribe to, written in the same way.
    pub subscribe: Vec<TopicPattern>,
    /// Hook points of the host to answer: `"plan.before_execution"`, `"plan.*"`, `"*"`.
    pub hooks: Vec<TopicPattern>,
    /// Sensitive fields of their contexts to see: `"plan.before_execution:token"`, `"plan.*"`.
    pub sensitive: Vec<TopicPattern>,
    /// Functions to add to APIs of the host: `"plan.analyse"`, `"plan.*"`, `"*"`.
    pub api: Vec<TopicPattern>,
    /// The key-value store.
    pub kv: bool,
    /// Stores that several extensions share: `"orders:ro"`, `"cache:rw"`.
    pub stores: Vec<StorePattern>,
    /// Fields of the host's data to read: `"customers:name,city"`, `"customers:*"`.
    pub data: Vec<DataPattern>,
    /// The finest clock it may read: `"10us"`, or `"0us"` for the machine's own.
    pub clock: Option<Span>,
}

/// The finest clock of those that were granted none, where a runtime can hold them to it.
const CLOCK: Duration = Duration::from_millis(1);

impl Permissions {
    /// All of them, by their names in the manifest.
    pub const NAMES: [&'static str; 15] = [
        "call",
        "net",
        "fs",
        "env",
        "subprocess",
        "secrets",
        "emit",
        "subscribe",
        "hooks",
        "sensitive",
        "api",
        "kv",
        "stores",
        "data",
        "clock",
    ];

    /// Whether they cover an access. Paths and hosts are compared as they are written: whoever
    /// follows links or resolves names does so first.
    pub fn allows(&self, access: &Access<'_>) -> bool {
        let named = |names: &[String], wanted: &str| names.iter().any(|name| name == wanted);
        match *access {
            Access::Call { extension, method } => {
                self.call.iter().any(|pattern| pattern.allows(extension, method))
            }
            Access::Net { host, port } => self.net.iter().any(|pattern| pattern.allows(host, port)),
            Access::Fs { path, mode } => self.fs.iter().any(|permission| permission.allows(path, mode)),
            Access::Env(name) => named(&self.env, name),
            Access::Subprocess(program) => named(&self.subprocess, program),
            Access::Secret(name) => named(&self.secrets, name),
            Access::Emit(topic) => self.emit.iter().any(|pattern| pattern.allows(topic)),
            Access::Subscribe(topic) => self.subscribe.iter().any(|pattern| pattern.allows(topic)),
            Access::Hook(point) => self.hooks.iter().any(|pattern| pattern.allows(point)),
            Access::Sensitive(field) => self.sensitive.iter().any(|pattern| pattern.allows(field)),
            Access::Api(function) => self.api.iter().any(|pattern| pattern.allows(function)),
            Access::Kv => self.kv,
            Access::Store { name, mode } => self.stores.iter().any(|store| store.allows(name, mode)),
            Access::Data { source, field } => self.data.iter().any(|data| data.allows(source, field)),
            Access::Clock(finest) => self.clock.is_some_and(|ours| ours <= finest),
        }
    }

    /// In steps of what time the clocks go that it may read; zero is as fine as the machine has
    /// them. For runtimes that mediate clocks.
    pub fn clock_step(&self) -> Duration {
        self.clock.map_or(CLOCK, |Span(step)| step)
    }

    /// What both allow.
    pub fn intersect(&self, other: &Self) -> Self {
        Self {
            call: meet(&self.call, &other.call),
            net: meet(&self.net, &other.net),
            fs: meet(&self.fs, &other.fs),
            env: meet(&self.env, &other.env),
            subprocess: meet(&self.subprocess, &other.subprocess),
            secrets: meet(&self.secrets, &other.secrets),
            emit: meet(&self.emit, &other.emit),
            subscribe: meet(&self.subscribe, &other.subscribe),
            hooks: meet(&self.hooks, &other.hooks),
            sensitive: meet(&self.sensitive, &other.sensitive),
            api: meet(&self.api, &other.api),
            kv: self.kv && other.kv,
            stores: meet(&self.stores, &other.stores),
            data: meet(&self.data, &other.data),
            // The coarser clock; none means none.
            clock: self.clock.zip(other.clock).map(|(ours, theirs)| ours.max(theirs)),
        }
    }

    /// What either allows.
    pub fn union(&self, other: &Self) -> Self {
        Self {
            call: join(&self.call, &other.call),
            net: join(&self.net, &other.net),
            fs: join(&self.fs, &other.fs),
            env: join(&self.env, &other.env),
            subprocess: join(&self.subprocess, &other.subprocess),
            secrets: join(&self.secrets, &other.secrets),
            emit: join(&self.emit, &other.emit),
            subscribe: join(&self.subscribe, &other.subscribe),
            hooks: join(&self.hooks, &other.hooks),
            sensitive: join(&self.sensitive, &other.sensitive),
            api: join(&self.api, &other.api),
            kv: self.kv || other.kv,
            stores: join(&self.stores, &other.stores),
            data: join(&self.data, &other.data),
            clock: self.clock.into_iter().chain(other.clock).min(),
        }
    }

    /// These without all that `gone` covers.
    ///
    /// # Errors
    /// The entries that cover some of `gone` and more: no list of entries says "all but this".
    pub fn without(&self, gone: &Self) -> Result<Self, Vec<String>> {
        let mut wider = Vec::new();
        let left = Self {
            call: part("call", &self.call, &gone.call, &mut wider),
            net: part("net", &self.net, &gone.net, &mut wider),
            fs: part("fs", &self.fs, &gone.fs, &mut wider),
            env: part("env", &self.env, &gone.env, &mut wider),
            subprocess: part("subprocess", &self.subprocess, &gone.subprocess, &mut wider),
            secrets: part("secrets", &self.secrets, &gone.secrets, &mut wider),
            emit: part("emit", &self.emit, &gone.emit, &mut wider),
            subscribe: part("subscribe", &self.subscribe, &gone.subscribe, &mut wider),
            hooks: part("hooks", &self.hooks, &gone.hooks, &mut wider),
            sensitive: part("sensitive", &self.sensitive, &gone.sensitive, &mut wider),
            api: part("api", &self.api, &gone.api, &mut wider),
            kv: self.kv && !gone.kv,
            stores: part("stores", &self.stores, &gone.stores, &mut wider),
            data: part("data", &self.data, &gone.data, &mut wider),
            clock: part("clock", self.clock.as_slice(), gone.clock.as_slice(), &mut wider).pop(),
        };
        if wider.is_empty() { Ok(left) } else { Err(wider) }
    }

    /// The entries that `most` does not cover as a whole, as `net "api.example.org:443"`.
    pub fn beyond(&self, most: &Self) -> Vec<String> {
        let mut list = Vec::new();
        over("call", &self.call, &most.call, &mut list);
        over("net", &self.net, &most.net, &mut list);
        over("fs", &self.fs, &most.fs, &mut list);
        over("env", &self.env, &most.env, &mut list);
        over("subprocess", &self.subprocess, &most.subprocess, &mut list);
        over("secrets", &self.secrets, &most.secrets, &mut list);
        over("emit", &self.emit, &most.emit, &mut list);
        over("subscribe", &self.subscribe, &most.subscribe, &mut list);
        over("hooks", &self.hooks, &most.hooks, &mut list);
        over("sensitive", &self.sensitive, &most.sensitive, &mut list);
        over("api", &self.api, &most.api, &mut list);
        if self.kv && !most.kv {
            list.push("kv".to_owned());
        }
        over("stores", &self.stores, &most.stores, &mut list);
        over("data", &self.data, &most.data, &mut list);
        over("clock", self.clock.as_slice(), most.clock.as_slice(), &mut list);
        list
    }

    /// Those of some names, as in the manifest.
    pub fn only(&self, wanted: impl Fn(&str) -> bool) -> Self {
        fn list<T: Clone>(list: &[T], wanted: bool) -> Vec<T> {
            if wanted { list.to_vec() } else { Vec::new() }
        }
        Self {
            call: list(&self.call, wanted("call")),
            net: list(&self.net, wanted("net")),
            fs: list(&self.fs, wanted("fs")),
            env: list(&self.env, wanted("env")),
            subprocess: list(&self.subprocess, wanted("subprocess")),
            secrets: list(&self.secrets, wanted("secrets")),
            emit: list(&self.emit, wanted("emit")),
            subscribe: list(&self.subscribe, wanted("subscribe")),
            hooks: list(&self.hooks, wanted("hooks")),
            sensitive: list(&self.sensitive, wanted("sensitive")),
            api: list(&self.api, wanted("api")),
            kv: self.kv && wanted("kv"),
            stores: list(&self.stores, wanted("stores")),
            data: list(&self.data, wanted("data")),
            clock: self.clock.filter(|_| wanted("clock")),
        }
    }

    /// The permissions that are asked for, by their names in the manifest.
    pub fn requested(&self) -> impl Iterator<Item = &'static str> {
        [
            ("call", !self.call.is_empty()),
            ("net", !self.net.is_empty()),
            ("fs", !self.fs.is_empty()),
            ("env", !self.env.is_empty()),
            ("subprocess", !self.subprocess.is_empty()),
            ("secrets", !self.secrets.is_empty()),
            ("emit", !self.emit.is_empty()),
            ("subscribe", !self.subscribe.is_empty()),
            ("hooks", !self.hooks.is_empty()),
            ("sensitive", !self.sensitive.is_empty()),
            ("api", !self.api.is_empty()),
            ("kv", self.kv),
            ("stores", !self.stores.is_empty()),
            ("data", !self.data.is_empty()),
            ("clock", self.clock.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, asked)| asked.then_some(name))
    }
}
