//! What an extension may use up. A limit that is declared is enforced, or the load is refused.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The limits of one extension. `None` means the host's default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "manifest", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// Memory of all its instances together, such as `"64MiB"`.
    pub memory: Option<ByteSize>,
    /// Share of the machine's processors: 0.5 is half of one core, 2.0 two cores.
    pub cpu_share: Option<f64>,
    /// Processor time of one call, such as `"2s"`.
    pub cpu_time: Option<Span>,
    /// Wall-clock time of one call.
    pub call_timeout: Option<Span>,
    /// Wall-clock time of a load.
    pub load_timeout: Option<Span>,
    /// Open files.
    pub open_files: Option<u32>,
    /// Processes and threads.
    pub processes: Option<u32>,
    /// Bytes in its scratch folder.
    pub disk: Option<ByteSize>,
    /// Bytes of log and output per second.
    pub output_rate: Option<ByteSize>,
    /// Bytes of one message.
    pub message_size: Option<ByteSize>,
    /// Calls in flight and waiting.
    pub queue_depth: Option<u32>,
    /// How many extensions may stand above a call to this one.
    pub call_depth: Option<u16>,
}

/// The name of one field of [`Limits`], to say which of them a runtime can enforce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the fields of Limits say it")]
pub enum Limit {
    Memory,
    CpuShare,
    CpuTime,
    CallTimeout,
    LoadTimeout,
    OpenFiles,
    Processes,
    Disk,
    OutputRate,
    MessageSize,
    QueueDepth,
    CallDepth,
}

impl Limits {
    /// These limits, each lowered to its ceiling where there is one.
    pub fn at_most(&self, ceilings: &Self) -> Self {
        fn lower<T: PartialOrd + Copy>(ours: Option<T>, ceiling: Option<T>) -> Option<T> {
            match (ours, ceiling) {
                (Some(a), Some(b)) => Some(if b < a { b } else { a }),
                (ours, ceiling) => ours.or(ceiling),
            }
        }
        Self {
            memory: lower(self.memory, ceilings.memory),
            cpu_share: lower(self.cpu_share, ceilings.cpu_share),
            cpu_time: lower(self.cpu_time, ceilings.cpu_time),
            call_timeout: lower(self.call_timeout, ceilings.call_timeout),
            load_timeout: lower(self.load_timeout, ceilings.load_timeout),
            open_files: lower(self.open_files, ceilings.open_files),
            processes: lower(self.processes, ceilings.processes),
            disk: lower(self.disk, ceilings.disk),
            output_rate: lower(self.output_rate, ceilings.output_rate),
            message_size: lower(self.message_size, ceilings.message_size),
            queue_depth: lower(self.queue_depth, ceilings.queue_depth),
            call_depth: lower(self.call_depth, ceilings.call_depth),
        }
    }

    /// These limits, but those of `other` where it declares one.
    pub fn overlaid(&self, other: &Self) -> Self {
        Self {
            memory: other.memory.or(self.memory),
            cpu_share: other.cpu_share.or(self.cpu_share),
            cpu_time: other.cpu_time.or(self.cpu_time),
            call_timeout: other.call_timeout.or(self.call_timeout),
            load_timeout: other.load_timeout.or(self.load_timeout),
            open_files: other.open_files.or(self.open_files),
            processes: other.processes.or(self.processes),
            disk: other.disk.or(self.disk),
            output_rate: other.output_rate.or(self.output_rate),
            message_size: other.message_size.or(self.message_size),
            queue_depth: other.queue_depth.or(self.queue_depth),
            call_depth: other.call_depth.or(self.call_depth),
        }
    }

    /// Those of the limits that are wanted.
    pub fn only(&self, wanted: impl Fn(Limit) -> bool) -> Self {
        Self {
            memory: self.memory.filter(|_| wanted(Limit::Memory)),
            cpu_share: self.cpu_share.filter(|_| wanted(Limit::CpuShare)),
            cpu_time: self.cpu_time.filter(|_| wanted(Limit::CpuTime)),
            call_timeout: self.call_timeout.filter(|_| wanted(Limit::CallTimeout)),
            load_timeout: self.load_timeout.filter(|_| wanted(Limit::LoadTimeout)),
            open_files: self.open_files.filter(|_| wanted(Limit::OpenFiles)),
            processes: self.processes.filter(|_| wanted(Limit::Processes)),
            disk: self.disk.filter(|_| wanted(Limit::Disk)),
            output_rate: self.output_rate.filter(|_| wanted(Limit::OutputRate)),
            message_size: self.message_size.filter(|_| wanted(Limit::MessageSize)),
            queue_depth: self.queue_depth.filter(|_| wanted(Limit::QueueDepth)),
            call_depth: self.call_depth.filter(|_| wanted(Limit::CallDepth)),
        }
    }

    /// The limits that are declared, with their names in the manifest.
    pub fn declared(&self) -> impl Iterator<Item = (Limit, &'static str)> {
        Limit::ALL.into_iter().filter(|limit| self.declares(*limit)).map(|limit| (limit, limit.name()))
    }

    fn declares(&self, limit: Limit) -> bool {
        match limit {
            Limit::Memory => self.memory.is_some(),
            Limit::CpuShare => self.cpu_share.is_some(),
            Limit::CpuTime => self.cpu_time.is_some(),
            Limit::CallTimeout => self.call_timeout.is_some(),
            Limit::LoadTimeout => self.load_timeout.is_some(),
            Limit::OpenFiles => self.open_files.is_some(),
            Limit::Processes => self.processes.is_some(),
            Limit::Disk => self.disk.is_some(),
            Limit::OutputRate => self.output_rate.is_some(),
            Limit::MessageSize => self.message_size.is_some(),
            Limit::QueueDepth => self.queue_depth.is_some(),
            Limit::CallDepth => self.call_depth.is_some(),
        }
    }
}

impl Limit {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Memory,
        Self::CpuShare,
        Self::CpuTime,
        Self::CallTimeout,
        Self::LoadTimeout,
        Self::OpenFiles,
        Self::Processes,
        Self::Disk,
        Self::OutputRate,
        Self::MessageSize,
        Self::QueueDepth,
        Self::CallDepth,
    ];

    /// Its name in the manifest, such as `call-timeout`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::CpuShare => "cpu-share",
            Self::CpuTime => "cpu-time",
            Self::CallTimeout => "call-timeout",
            Self::LoadTimeout => "load-timeout",
            Self::OpenFiles => "open-files",
            Self::Processes => "processes",
            Self::Disk => "disk",
            Self::OutputRate => "output-rate",
            Self::MessageSize => "message-size",
            Self::QueueDepth => "queue-depth",
            Self::CallDepth => "call-depth",
        }
    }
}

/// A number of bytes, written `"512B"`, `"64KiB"`, `"64MiB"` or `"2GiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ByteSize(pub u64);

/// A length of time, written `"250ms"`, `"5s"`, `"2min"` or `"1h"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Span(pub Duration);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const SPANS: [(&str, u64); 5] =
    [("h", 3_600_000_000), ("min", 60_000_000), ("s", 1_000_000), ("ms", 1000), ("us", 1)];

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render(self.0, &SIZES, "B", f)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        render(self.0.as_micros() as u64, &SPANS, "us", f)
    }
}

fn render(n: u64, units: &[(&str, u64)], zero: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match units.iter().find(|(_, size)| n >= *size && n.is_multiple_of(*size)) {
        Some((unit, size)) => write!(f, "{}{unit}", n / size),
        None => write!(f, "{n}{zero}"),
    }
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let (_, size) = units.iter().find(|(name, _)| *name == unit)?;
    number.parse::<u64>().ok()?.checked_mul(*size)
}

impl TryFrom<String> for ByteSize {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text, &SIZES).map(Self).ok_or_else(|| {
            format!("{text:?} is no size: expected a whole number and B, KiB, MiB or GiB, such as \"64MiB\"")
        })
    }
}

impl TryFrom<String> for Span {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse(&text, &SPANS).map(|us| Self(Duration::from_micros(us))).ok_or_else(|| {
            format!(
                "{text:?} is no time span: expected a whole number and us, ms, s, min or h, such as \"5s\""
            )
        })
    }
}

impl From<ByteSize> for String {
    fn from(size: ByteSize) -> Self {
        size.to_string()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{ByteSize, Limit, Limits, Span};

    #[test]
    fn the_list_of_all_limits_has_each_field_by_its_name() {
        let all = Limits {
            memory: Some(ByteSize(1)),
            cpu_share: Some(1.0),
            cpu_time: Some(Span(Duration::ZERO)),
            call_timeout: Some(Span(Duration::ZERO)),
            load_timeout: Some(Span(Duration::ZERO)),
            open_files: Some(1),
            processes: Some(1),
            disk: Some(ByteSize(1)),
            output_rate: Some(ByteSize(1)),
            message_size: Some(ByteSize(1)),
            queue_depth: Some(1),
            call_depth: Some(1),
        };
        let fields = serde_json::to_value(&all).unwrap();
        let fields = fields.as_object().unwrap();
        assert_eq!(fields.len(), Limit::ALL.len());
        assert_eq!(all.declared().count(), Limit::ALL.len());
        for limit in Limit::ALL {
            assert!(fields.contains_key(limit.name()), "{limit:?}");
            let only = all.only(|wanted| wanted == limit);
            assert_eq!(only.declared().collect::<Vec<_>>(), [(limit, limit.name())]);
            assert_eq!(only.at_most(&Limits::default()), only);
            assert_eq!(Limits::default().overlaid(&only), only);
        }
    }

    #[test]
    fn sizes_and_spans_read_back() {
        for text in ["0B", "512B", "64KiB", "64MiB", "3GiB", "1025B"] {
            assert_eq!(ByteSize::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["1us", "250ms", "5s", "2min", "1h", "90s"] {
            let span = Span::try_from(text.to_owned()).unwrap();
            assert_eq!(Span::try_from(span.to_string()).unwrap(), span);
        }
        for text in ["", "5", "MiB", "-1B", "1.5s", "5 s", "99999999999999GiB", "1mb"] {
            assert!(ByteSize::try_from(text.to_owned()).is_err(), "{text}");
            assert!(Span::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
