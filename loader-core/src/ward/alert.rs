//! Explicit rules for what is out of the ordinary, and what they lead to.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use quadriga_abi::ExtensionId;
use serde::Serialize;

use super::activity::Sample;

/// Of how many dead letters of an extension the times are known, at least as many as its rule counts.
const LETTERS: usize = 1024;

/// What a host watches in the extensions that it loads.
#[derive(Debug, Clone, PartialEq)]
pub struct Monitor {
    /// How often samples are taken; `None` for never, or every second if there are rules that look at them.
    pub interval: Option<Duration>,
    /// How many samples are kept of each extension; at least two.
    pub history: usize,
    /// What leads to an alert. By default only [`AlertRule::dead_letters`].
    pub rules: Vec<AlertRule>,
}

/// When to raise an alert, and what to do then.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AlertRule {
    /// The name that its alerts carry.
    pub name: String,
    /// When.
    pub trigger: Trigger,
    /// What to do to the extension.
    pub action: Action,
}

/// What is out of the ordinary. Each looks at the samples of the last span of time, and at those
/// of one generation alone.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Trigger {
    /// So many accesses were denied.
    DenialBurst {
        /// How many.
        count: u64,
        /// In which time.
        within: Duration,
    },
    /// A share of the calls failed, and it is so many times the share of the span before.
    ErrorRate {
        /// The share, from 0 to 1.
        share: f64,
        /// How many times that of the span before; 0 if that doesn't matter.
        factor: f64,
        /// How many calls there must be at least.
        calls: u64,
        /// In which time.
        within: Duration,
    },
    /// Memory rose and fell so many times: who is stopped at its limit and starts anew.
    MemorySawtooth {
        /// How many times it fell.
        falls: u32,
        /// By which share of what was used, from 0 to 1, each fall and each rise before it.
        share: f64,
        /// In which time.
        within: Duration,
    },
    /// So many bytes left over the network, and so many times those of the span before.
    EgressSpike {
        /// How many bytes.
        bytes: u64,
        /// How many times those of the span before; 0 if that doesn't matter.
        factor: f64,
        /// In which time.
        within: Duration,
    },
    /// Its instance ended by itself: it crashed, broke the contract, or was ended by the kernel. The
    /// evidence says how, by the signal if it was one.
    Ended,
    /// It tried so many times to start a program.
    SpawnAttempts {
        /// How many times.
        count: u64,
        /// In which time.
        within: Duration,
    },
    /// So many events were given up ([`Dispatcher::dead_letters`](crate::Dispatcher::dead_letters)), of all its
    /// subscriptions and generations. Looks at no samples: it is raised with the last of them, whose
    /// subscription, attempts and error are in the evidence.
    DeadLetters {
        /// How many.
        count: u64,
        /// In which time.
        within: Duration,
    },
}

/// What an alert does to its extension, beside being raised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Action {
    /// Nothing.
    #[default]
    None,
    /// Lets it take so many calls per second: see [`Dispatcher::throttle`](crate::Dispatcher::throttle).
    Throttle {
        /// How many.
        calls_per_second: u32,
    },
    /// Takes no more calls for it: see [`Dispatcher::pause`](crate::Dispatcher::pause).
    Pause,
    /// Takes no more calls for it and denies what it tries: see
    /// [`Dispatcher::quarantine`](crate::Dispatcher::quarantine).
    Quarantine,
}

/// Something out of the ordinary, by the rule of a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Alert {
    /// In which extension.
    pub extension: ExtensionId,
    /// The rule's name.
    pub rule: String,
    /// What was seen, in a sentence.
    pub evidence: String,
    /// The samples that were looked at, oldest first.
    pub samples: Vec<Sample>,
    /// When.
    pub at: SystemTime,
    /// What was done.
    pub action: Action,
}

impl Default for Monitor {
    fn default() -> Self {
        Self { interval: None, history: 120, rules: vec![AlertRule::dead_letters()] }
    }
}

impl Monitor {
    /// How often samples are taken, if at all.
    pub(crate) fn every(&self) -> Option<Duration> {
        let looks = self.rules.iter().any(|rule| rule.trigger.looks());
        let by_rules = looks.then_some(Duration::from_secs(1));
        self.interval.or(by_rules).filter(|interval| !interval.is_zero())
    }
}

impl AlertRule {
    /// An alert when ten events of an extension were given up in a minute, and nothing else.
    pub fn dead_letters() -> Self {
        let trigger = Trigger::DeadLetters { count: 10, within: Duration::from_secs(60) };
        Self { name: "dead letters".to_owned(), trigger, action: Action::None }
    }
}

impl Trigger {
    /// Whether it looks at samples, rather than being raised by what happens.
    fn looks(&self) -> bool {
        !matches!(self, Self::Ended | Self::DeadLetters { .. })
    }

    /// The span of time that it looks at.
    pub(crate) fn within(&self) -> Duration {
        match *self {
            Self::Ended => Duration::ZERO,
            Self::DenialBurst { within, .. }
            | Self::ErrorRate { within, .. }
            | Self::MemorySawtooth { within, .. }
            | Self::EgressSpike { within, .. }
            | Self::SpawnAttempts { within, .. }
            | Self::DeadLetters { within, .. } => within,
        }
    }

    /// What is out of the ordinary in a series, in words, and the samples that show it, if
    /// anything.
    pub(crate) fn look<'a>(&self, series: &'a [Sample]) -> Option<(String, &'a [Sample])> {
        let last = series.last()?;
        let span = spans(series, self.within());
        let evidence = match *self {
            // Raised when it happens.
            Self::Ended | Self::DeadLetters { .. } => None,
            Self::DenialBurst { count, within } => {
                let denied = last.denied - span.start.denied;
                (denied >= count).then(|| format!("{denied} accesses were denied within {within:?}"))
            }
            Self::SpawnAttempts { count, within } => {
                let spawns = last.spawns - span.start.spawns;
                (spawns >= count)
                    .then(|| format!("it tried {spawns} times within {within:?} to start a program"))
            }
            Self::EgressSpike { bytes, factor, within } => {
                let sent = last.egress - span.start.egress;
                let before = span.start.egress - span.before.egress;
                (sent >= bytes && sent as f64 >= factor * before as f64).then(|| {
                    format!("it sent {sent} bytes within {within:?}, and {before} in the span before")
                })
            }
            Self::ErrorRate { share, factor, calls, within } => {
                let finished = last.calls - span.start.calls;
                let now = ratio(last.errors - span.start.errors, finished);
                let earlier = span.start.calls - span.before.calls;
                let before = ratio(span.start.errors - span.before.errors, earlier);
                (finished >= calls.max(1) && now >= share && now >= factor * before).then(|| {
                    let (now, before) = (now * 100.0, before * 100.0);
                    format!("{now:.0} % of {finished} calls within {within:?} failed, and {before:.0} % in the span before")
                })
            }
            Self::MemorySawtooth { falls, share, within } => {
                let seen = teeth(span.inside.iter().filter_map(|sample| sample.memory), share);
                (seen >= falls.max(1)).then(|| format!("memory rose and fell {seen} times within {within:?}"))
            }
        };
        evidence.map(|evidence| (evidence, span.inside))
    }
}

/// When the last events of an extension were given up, as one rule counts them.
#[derive(Debug, Default)]
pub(crate) struct Letters {
    times: VecDeque<Instant>,
    /// When the rule led to an alert last.
    fired: Option<Instant>,
}

impl Letters {
    /// One more. How many there were in a span of time, if they are enough and the rule has not led to an
    /// alert within it.
    pub(crate) fn add(&mut self, now: Instant, count: u64, within: Duration) -> Option<usize> {
        let is_within = |time: &Instant| now.saturating_duration_since(*time) < within;
        let most = usize::try_from(count).unwrap_or(usize::MAX).max(LETTERS);
        while self.times.len() >= most || self.times.front().is_some_and(|time| !is_within(time)) {
            self.times.pop_front();
        }
        self.times.push_back(now);
        if (self.times.len() as u64) < count || self.fired.as_ref().is_some_and(is_within) {
            return None;
        }
        self.fired = Some(now);
        Some(self.times.len())
    }
}

/// The last span of time of a series, and the one before.
struct Spans<'a> {
    inside: &'a [Sample],
    /// The last sample from before the span, or the first of the generation.
    start: &'a Sample,
    /// The same for the span before.
    before: &'a Sample,
}

/// Cuts a series that is not empty, without earlier generations.
fn spans(series: &[Sample], within: Duration) -> Spans<'_> {
    let last = &series[series.len() - 1];
    let first = series.iter().position(|sample| sample.generation == last.generation).unwrap_or(0);
    let series = &series[first..];
    let at = |back: Duration| {
        let begin = last.uptime.saturating_sub(back);
        series.iter().rposition(|sample| sample.uptime <= begin).unwrap_or(0)
    };
    let (start, before) = (at(within), at(within * 2));
    Spans { inside: &series[start..], start: &series[start], before: &series[before] }
}

fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

/// How often a series rises by a share of its peak, and then falls by as much.
fn teeth(mut values: impl Iterator<Item = u64>, share: f64) -> u32 {
    let Some(first) = values.next() else { return 0 };
    let (mut count, mut valley, mut peak) = (0, first, first);
    for value in values {
        peak = peak.max(value);
        let step = (share * peak as f64).max(1.0);
        let (rise, fall) = (peak - valley, peak - value);
        if rise as f64 >= step && fall as f64 >= step {
            count += 1;
            (valley, peak) = (value, value);
        } else if value < valley {
            (valley, peak) = (value, value);
        }
    }
    count
}

#[cfg(test)]
mod tests;
