use std::fmt;
use std::net::Ipv6Addr;

use serde::{Deserialize, Serialize};

use super::pattern::Pattern;

/// Where an extension may connect to: `HOST:PORT`.
///
/// The host is a name or an address (IPv6 in brackets), `*.example.org` for all names below
/// `example.org`, which is not among them itself, or `*`. The port is a number from 1 or `*`.
/// Names are compared without regard to case and a final dot, and never resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetPattern {
    host: Host,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// The names that end in this, which starts with a dot.
    Below(String),
    Name(String),
    V6(Ipv6Addr),
}

impl NetPattern {
    /// Whether the pattern covers a port of a host. IPv6 addresses may stand in brackets.
    pub fn allows(&self, host: &str, port: u16) -> bool {
        self.port.is_none_or(|ours| ours == port) && port != 0 && self.host.allows(host)
    }

    /// Whether it names one host, rather than all or those below a name.
    pub fn is_one_host(&self) -> bool {
        matches!(self.host, Host::Name(_) | Host::V6(_))
    }
}

impl Host {
    fn allows(&self, host: &str) -> bool {
        match self {
            Self::Any => !host.is_empty(),
            Self::Below(suffix) => {
                let name = host.strip_suffix('.').unwrap_or(host);
                let start = name.len().checked_sub(suffix.len()).filter(|start| *start > 0);
                start.and_then(|start| name.get(start..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
            Self::Name(ours) => host.strip_suffix('.').unwrap_or(host).eq_ignore_ascii_case(ours),
            Self::V6(ours) => v6(host) == Some(*ours),
        }
    }
}

/// Reads an IPv6 address, in brackets or not.
fn v6(host: &str) -> Option<Ipv6Addr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn is_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(label)
}

impl TryFrom<String> for NetPattern {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = |why: &str| {
            format!(
                "{text:?} is no net permission: {why}; expected \"api.example.org:443\", \"*.example.org:443\" or \"*:*\""
            )
        };
        let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("it has no port"))?;
        let port = match port {
            "*" => None,
            digits => match digits.parse() {
                Ok(port) if port > 0 && digits.bytes().all(|b| b.is_ascii_digit()) => Some(port),
                _ => return Err(wrong("the port is neither a number from 1 to 65535 nor *")),
            },
        };
        let lower = host.to_ascii_lowercase();
        let host = match (lower.as_str(), lower.strip_prefix('*')) {
            ("*", _) => Host::Any,
            // The last label of an address is a number: there is nothing below an address.
            (_, Some(suffix))
                if suffix.strip_prefix('.').is_some_and(is_name)
                    && !suffix
                        .rsplit('.')
                        .next()
                        .is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) =>
            {
                Host::Below(suffix.to_owned())
            }
            (bracketed, _) if bracketed.starts_with('[') && bracketed.ends_with(']') => {
                Host::V6(v6(bracketed).ok_or_else(|| wrong("the address is malformed"))?)
            }
            (name, _) if is_name(name) => Host::Name(lower),
            _ => return Err(wrong("the host is malformed")),
        };
        Ok(Self { host, port })
    }
}

impl fmt::Display for NetPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Any => f.write_str("*:")?,
            Host::Below(suffix) => write!(f, "*{suffix}:")?,
            Host::Name(name) => write!(f, "{name}:")?,
            Host::V6(address) => write!(f, "[{address}]:")?,
        }
        match self.port {
            Some(port) => write!(f, "{port}"),
            None => f.write_str("*"),
        }
    }
}

impl From<NetPattern> for String {
    fn from(pattern: NetPattern) -> Self {
        pattern.to_string()
    }
}

impl Pattern for NetPattern {
    fn meet(&self, other: &Self) -> Option<Self> {
        let port = match (self.port, other.port) {
            (Some(a), Some(b)) if a != b => return None,
            (ours, theirs) => ours.or(theirs),
        };
        let host = match (&self.host, &other.host) {
            (a, b) if a == b => a,
            (Host::Any, host) | (host, Host::Any) => host,
            (Host::Below(a), host @ (Host::Below(b) | Host::Name(b))) if b.ends_with(a.as_str()) => host,
            (host @ (Host::Below(b) | Host::Name(b)), Host::Below(a)) if b.ends_with(a.as_str()) => host,
            _ => return None,
        };
        Some(Self { host: host.clone(), port })
    }
}
