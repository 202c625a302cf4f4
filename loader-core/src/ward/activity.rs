//! What an extension does and uses over time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use quadriga_abi::permission::AccessKind;
use serde::Serialize;

use super::alert::{Alert, Letters, Trigger};
use super::{Decision, Tally};
use crate::dispatcher::lock;

/// How many alerts are kept of each extension.
const ALERTS: usize = 32;

/// How often an alert is raised about the memory of all extensions, at most, if one goes on to use
/// too much of it.
const TELL_TOTAL: Duration = Duration::from_secs(60);

/// Something that a runtime counts on behalf of an extension.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Counter {
    /// Bytes that it sent over the network.
    Egress,
    /// Bytes that it got over the network.
    Ingress,
    /// Attempts to start a program or a process, allowed or not, beside those for which
    /// [`Bridge::check`](crate::Bridge::check) was asked.
    Spawns,
    /// Lines that it wrote to the log, those that were dropped among them.
    LogLines,
    /// Bytes of lines that were dropped, because they went beyond its output rate.
    OutputDropped,
}

/// What an extension did since it was loaded, as far as it is kept.
#[derive(Debug, Clone, Serialize)]
pub struct Activity {
    /// How often it tried each kind of access.
    pub accesses: BTreeMap<AccessKind, Tally>,
    /// Lines that it wrote to the log, those that were dropped among them.
    pub log_lines: u64,
    /// Bytes of lines that were dropped, because they went beyond its output rate.
    pub output_dropped: u64,
    /// What was decided about it last: see [`Dispatcher::decisions`](crate::Dispatcher::decisions).
    pub recent: Vec<Decision>,
    /// What it did and used over time, oldest first: empty unless the policy's
    /// [`Monitor`](crate::Monitor) takes samples.
    pub series: Vec<Sample>,
    /// The last 32 alerts.
    pub alerts: Vec<Alert>,
}

/// What an extension uses at one moment, and has done by then. Counts go up until a reload or
/// restart begins the next generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Sample {
    /// When it was taken.
    pub at: SystemTime,
    /// The generation.
    pub generation: u64,
    /// How long the generation has been there.
    pub uptime: Duration,
    /// Bytes of memory, where the engine can tell.
    pub memory: Option<u64>,
    /// Engine instances.
    pub instances: u32,
    /// Calls that have not finished.
    pub in_flight: u32,
    /// Calls that finished, well or not.
    pub calls: u64,
    /// Calls that finished with an error.
    pub errors: u64,
    /// Accesses that were denied.
    pub denied: u64,
    /// Bytes that it sent over the network, as far as its runtime counts them.
    pub egress: u64,
    /// Bytes that it got over the network, as far as its runtime counts them.
    pub ingress: u64,
    /// Attempts to start programs, as far as its runtime counts them.
    pub spawns: u64,
}

/// Counts for one generation what its runtime reports, and what it was denied.
#[derive(Default)]
pub(crate) struct Meter {
    counters: [AtomicU64; 5],
    pub(crate) denied: AtomicU64,
}

/// The samples and alerts that are kept of one extension.
#[derive(Default)]
pub(crate) struct History(Mutex<Kept>);

#[derive(Default)]
pub(crate) struct Kept {
    pub(crate) series: VecDeque<Sample>,
    pub(crate) alerts: VecDeque<Alert>,
    /// When each rule led to an alert last: generation and uptime.
    fired: Vec<Option<(u64, Duration)>>,
    /// The events that were given up lately, as each rule counts them.
    letters: Vec<Letters>,
    /// When it was told last that it uses too much of the memory of all.
    told_total: Option<Instant>,
}

impl Meter {
    pub(crate) fn add(&self, counter: Counter, amount: u64) {
        self.counters[counter as usize].fetch_add(amount, Relaxed);
    }

    pub(crate) fn read(&self, counter: Counter) -> u64 {
        self.counters[counter as usize].load(Relaxed)
    }
}

impl History {
    pub(crate) fn with<T>(&self, look: impl FnOnce(&mut Kept) -> T) -> T {
        look(&mut lock(&self.0))
    }

    /// The memory of the last sample.
    pub(crate) fn memory(&self) -> Option<u64> {
        self.with(|kept| kept.series.back().and_then(|sample| sample.memory))
    }
}

impl Kept {
    /// Adds a sample and forgets the oldest beyond `most`. Each generation begins with a sample of
    /// nothing, so that what it does before the first real one counts.
    pub(crate) fn push(&mut self, sample: Sample, most: usize) {
        if self.series.back().is_none_or(|last| last.generation != sample.generation) {
            let begun = sample.at.checked_sub(sample.uptime).unwrap_or(sample.at);
            self.keep(Sample::nothing(begun, sample.generation), most);
        }
        self.keep(sample, most);
    }

    fn keep(&mut self, sample: Sample, most: usize) {
        while self.series.len() >= most.max(2) {
            self.series.pop_front();
        }
        self.series.push_back(sample);
    }

    /// What a trigger sees, and in which samples, unless its rule led to an alert within its span.
    pub(crate) fn due(&mut self, rule: usize, trigger: &Trigger) -> Option<(String, Vec<Sample>)> {
        self.fired.resize(self.fired.len().max(rule + 1), None);
        let series = &*self.series.make_contiguous();
        let last = series.last()?;
        let recently = self.fired[rule].is_some_and(|(generation, uptime)| {
            generation == last.generation && last.uptime.saturating_sub(uptime) < trigger.within()
        });
        let (evidence, samples) = trigger.look(series).filter(|_| !recently)?;
        let samples = samples.to_vec();
        self.fired[rule] = Some((last.generation, last.uptime));
        Some((evidence, samples))
    }

    /// Counts an event that is given up now, for the rule in a place: see [`Letters::add`].
    pub(crate) fn letter(&mut self, rule: usize, count: u64, within: Duration) -> Option<usize> {
        self.letters.resize_with(self.letters.len().max(rule + 1), Letters::default);
        self.letters[rule].add(Instant::now(), count, within)
    }

    /// Whether another alert may be raised about the memory of all extensions. There would be one
    /// for each sample otherwise.
    pub(crate) fn may_tell_total(&mut self) -> bool {
        let may = self.told_total.is_none_or(|told| told.elapsed() >= TELL_TOTAL);
        if may {
            self.told_total = Some(Instant::now());
        }
        may
    }

    pub(crate) fn alert(&mut self, alert: Alert) {
        if self.alerts.len() == ALERTS {
            self.alerts.pop_front();
        }
        self.alerts.push_back(alert);
    }
}

impl Sample {
    /// What a generation has done when it begins.
    pub(crate) fn nothing(at: SystemTime, generation: u64) -> Self {
        Self {
            at,
            generation,
            uptime: Duration::ZERO,
            memory: None,
            instances: 0,
            in_flight: 0,
            calls: 0,
            errors: 0,
            denied: 0,
            egress: 0,
            ingress: 0,
            spawns: 0,
        }
    }
}
