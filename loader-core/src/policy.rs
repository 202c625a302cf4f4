use std::time::Duration;

use quadriga_abi::Isolation;
use quadriga_abi::limits::{Limits, Span};
use quadriga_abi::manifest::Check;
use quadriga_abi::permission::Permissions;

use crate::service::beside_calls;
use crate::{EventQuota, HookPolicy, KvQuota, Monitor, Recycle, Supervision, Support, TotalMemory};

/// What a host demands of every extension.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The weakest isolation that an extension may run in. [`Isolation::None`] is for hosts that
    /// trust everything they load.
    pub minimum_isolation: Isolation,
    /// Ceilings: an extension gets its manifest's limit or this, whichever is lower.
    pub limits: Limits,
    /// The most that may be granted; `None` leaves it to each grant.
    pub permissions: Option<Permissions>,
    /// Whether names, and patterns of the permission `net` that cover more than one host, may lead to
    /// addresses that are not public: this machine and its own networks. An address that is granted
    /// as such, and `localhost`, may be reached in any case.
    pub private_networks: bool,
    /// How long nothing may move on a connection of an extension before it is closed.
    pub connection_idle: Duration,
    /// Certificates in PEM of those whom TLS believes, beside the authorities of Mozilla's list: that
    /// of a company, or of a server that signs for itself.
    pub trusted_certificates: String,
    /// Which values of calls are compared with the schemas of the methods, beside those for which
    /// the extension's own manifest asks.
    pub check: Check,
    /// How long a load may take where neither the manifest nor `limits` says it.
    pub load_timeout: Duration,
    /// How many extensions may stand above a call where neither says it.
    pub call_depth: u16,
    /// How many calls one extension may have in flight where neither says it.
    pub queue_depth: u32,
    /// Bytes in the arguments or the result of a call where neither says it.
    pub message_size: u64,
    /// How long an unload waits for the calls in flight.
    pub drain_timeout: Duration,
    /// What becomes of an extension whose instance ends.
    pub supervision: Supervision,
    /// When the workers of extensions in processes of their own are replaced by fresh ones.
    pub recycle: Recycle,
    /// What is watched in extensions while they run.
    pub monitor: Monitor,
    /// How much memory all extensions may use together; `None` for no such limit.
    pub total_memory: Option<TotalMemory>,
    /// How much each extension may keep in the key-value store. A store of the host's own
    /// ([`Builder::kv`](crate::Builder::kv)) is told, and may have bounds of its own.
    pub kv: KvQuota,
    /// How many events may wait for each subscriber, and how long it may take for one.
    pub events: EventQuota,
    /// How long handlers of hooks may take, and when they are given up.
    pub hooks: HookPolicy,
}

/// What a host grants one extension.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Grant {
    /// Nothing: the default.
    #[default]
    Nothing,
    /// All that its manifest asks for.
    Requested,
    /// What its manifest asks for, as far as it is in here.
    Only(Box<Permissions>),
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            minimum_isolation: Isolation::InProcess,
            limits: Limits::default(),
            permissions: None,
            private_networks: false,
            connection_idle: Duration::from_secs(300),
            trusted_certificates: String::new(),
            check: Check::None,
            load_timeout: Duration::from_secs(10),
            call_depth: 64,
            queue_depth: 1024,
            message_size: 128 << 20,
            drain_timeout: Duration::from_secs(10),
            supervision: Supervision::default(),
            recycle: Recycle::default(),
            monitor: Monitor::default(),
            total_memory: None,
            kv: KvQuota::default(),
            events: EventQuota::default(),
            hooks: HookPolicy::default(),
        }
    }
}

impl Policy {
    /// How often samples of what is loaded are taken, if at all.
    pub(crate) fn samples_every(&self) -> Option<Duration> {
        self.monitor.every().or(self.total_memory.map(|_| Duration::from_secs(1)))
    }
}

/// The name of the first permission that a runtime does not mediate. Code that shares our memory
/// without a barrier has what the host process has; the grant says so, and nothing can be mediated.
/// But the network is: whoever asks for some of it goes where that holds. An engine that keeps
/// extensions inside has no programs for them, so it is the host that runs those, if it `launches` any.
pub(crate) fn unmediated(
    permissions: &Permissions,
    support: &Support,
    launches: bool,
) -> Option<&'static str> {
    // To read the machine's own clock nobody has to be held to anything.
    let any_clock = permissions.clock.is_some_and(|Span(step)| step.is_zero());
    let mediated = |name: &&str| {
        let open = support.isolation == Isolation::None && *name != "net";
        open || (*name == "clock" && any_clock)
            || (*name == "subprocess" && launches)
            || support.permissions.contains(name)
    };
    beside_calls(permissions).requested().find(|name| !mediated(name))
}
