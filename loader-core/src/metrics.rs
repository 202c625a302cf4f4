//! What calls to an extension come to: how many, how they end, and how long they take.

mod prometheus;
mod series;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{LazyLock, OnceLock};
use std::time::{Duration, SystemTime};

use histogram::{AtomicHistogram, Histogram};
pub use prometheus::{PROMETHEUS_TYPE, prometheus};
use quadriga_abi::{Error, ErrorCode, ExtensionId, Isolation, RuntimeKind};
use serde::Serialize;
#[cfg(feature = "otlp")]
pub(crate) use series::Series;
pub(crate) use series::{COUNTERS, GAUGES};

use crate::route::Slot;
use crate::{Counter, Dispatcher, State, Usage};

/// Buckets of latencies are at most 2^-`WIDTH` of their start wide.
const WIDTH: u8 = 5;

/// Latencies are told apart below 2^`LONGEST` ns, which is almost five hours.
const LONGEST: u8 = 44;

/// Calls that finished and that go on, and how long they took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Metrics {
    /// Calls that finished, well or not.
    pub calls: u64,
    /// Calls that finished with an error.
    pub errors: u64,
    /// Calls that have not finished.
    pub in_flight: u32,
    /// Half of the calls took no longer. Zero before the first call.
    pub p50: Duration,
    /// Nine of ten calls took no longer.
    pub p90: Duration,
    /// 99 of 100 calls took no longer.
    pub p99: Duration,
}

/// What one extension does and uses. What is counted begins anew with each generation.
#[derive(Debug, Clone, Serialize)]
pub struct ExtensionMetrics {
    /// Its id.
    pub id: ExtensionId,
    /// Its version.
    pub version: semver::Version,
    /// What runs it.
    pub runtime: RuntimeKind,
    /// The isolation that was reached.
    pub isolation: Isolation,
    /// How far it is in its life.
    pub state: State,
    /// Counts the loads of this host: a reload has a higher one.
    pub generation: u64,
    /// How long its instance has been there.
    pub uptime: Duration,
    /// How often it was started again after its instance had ended.
    pub restarts: u32,
    /// All of its calls.
    pub total: Metrics,
    /// When one finished last.
    pub last: Option<SystemTime>,
    /// How many calls may be in flight and wait together.
    pub queue_depth: u32,
    /// What it uses now.
    pub usage: Usage,
    /// Accesses that were denied.
    pub denied: u64,
    /// Bytes that it sent over the network, as far as its runtime counts them.
    pub egress: u64,
    /// Bytes that it got over the network, as far as its runtime counts them.
    pub ingress: u64,
    /// Attempts to start programs, as far as its runtime counts them.
    pub spawns: u64,
    /// Events that are kept for it and wait, of subscriptions that want each at least once.
    pub kept_events: u64,
    /// Dead letters: those of them that were given up.
    pub dead_letters: u64,
    /// By name, those of its methods that were called. Who calls a method that it does not have makes
    /// none.
    pub methods: BTreeMap<String, MethodMetrics>,
}

/// What the calls of one method came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MethodMetrics {
    /// All of them.
    #[serde(flatten)]
    pub total: Metrics,
    /// When one finished last.
    pub last: Option<SystemTime>,
    /// How many finished with each code.
    pub errors_by_code: BTreeMap<&'static str, u64>,
    /// How long all of them took together, to within 1/64: it is taken from fine buckets.
    pub duration: Duration,
    /// How many took no longer than each of several bounds, which grow by a factor of four.
    pub buckets: Vec<Bucket>,
}

/// How many calls took no longer than a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Bucket {
    /// The bound.
    pub at_most: Duration,
    /// How many.
    pub calls: u64,
}

impl Dispatcher {
    /// What an extension does and uses, as of now.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn metrics(&self, extension: &str) -> Result<ExtensionMetrics, Error> {
        self.core.route(extension).map(|slot| slot.metrics())
    }

    /// The same for all that is loaded, by id.
    pub fn all_metrics(&self) -> Vec<ExtensionMetrics> {
        let mut all: Vec<_> = self.core.routes.load().values().map(|slot| slot.metrics()).collect();
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }
}

impl Slot {
    fn metrics(&self) -> ExtensionMetrics {
        let methods = self.instance.describe().methods.iter().zip(&self.counters.cells);
        let called = methods.filter_map(|(method, cell)| Some((method.name.clone(), cell.get()?.read())));
        let methods: BTreeMap<String, MethodMetrics> = called.collect();
        let meter = &self.reach.meter;
        let (kept_events, dead_letters) = self.reach.ward.kept();
        ExtensionMetrics {
            id: self.id.clone(),
            version: self.version.clone(),
            runtime: self.kind.clone(),
            isolation: self.isolation,
            state: self.state(),
            generation: self.generation,
            uptime: self.uptime(),
            restarts: self.reach.ward.standing.with(|standing| standing.restarts),
            total: self.counters.read(self.gate.inside()),
            last: methods.values().filter_map(|method| method.last).max(),
            queue_depth: self.caps.queue_depth(),
            usage: self.usage(),
            denied: meter.denied.load(Relaxed),
            egress: meter.read(Counter::Egress),
            ingress: meter.read(Counter::Ingress),
            spawns: meter.read(Counter::Spawns),
            kept_events,
            dead_letters,
            methods,
        }
    }
}

/// Reads the processor's counter where that is steady, in a third of the time that `Instant` takes.
static CLOCK: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// Ties ticks to the calendar.
pub(crate) static BEGUN: LazyLock<(Tick, SystemTime)> = LazyLock::new(|| (Tick::now(), SystemTime::now()));

/// A moment to measure from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) fn now() -> Self {
        Self(CLOCK.raw())
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        CLOCK.delta(earlier.0, self.0)
    }

    pub(crate) fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    /// When that was.
    fn time(self) -> SystemTime {
        BEGUN.1 + self.since(BEGUN.0)
    }
}

/// Counts the calls of one generation, without a lock.
pub(crate) struct Counters {
    /// By place in the description; made by the first call of a method.
    cells: Box<[OnceLock<Box<Cell>>]>,
}

/// Counts the calls of one method.
struct Cell {
    begun: AtomicU64,
    /// The tick at which one finished last; 0 before that.
    last: AtomicU64,
    /// By the number of the code.
    errors: [AtomicU64; ErrorCode::ALL.len()],
    nanos: AtomicHistogram,
}

impl Counters {
    /// For so many methods.
    pub(crate) fn new(methods: usize) -> Self {
        LazyLock::force(&BEGUN);
        Self { cells: (0..methods).map(|_| OnceLock::new()).collect() }
    }

    /// Counts a call of a method that was let in.
    pub(crate) fn begin(&self, method: usize) {
        if let Some(cell) = self.cell(method) {
            cell.begun.fetch_add(1, Relaxed);
        }
    }

    /// Counts that it finished.
    pub(crate) fn record(&self, method: usize, started: Tick, failed: Option<ErrorCode>) {
        let Some(cell) = self.cell(method) else { return };
        if let Some(errors) = failed.and_then(|code| cell.errors.get(code as usize)) {
            errors.fetch_add(1, Relaxed);
        }
        let now = Tick::now();
        cell.last.store(now.0, Relaxed);
        let nanos = CLOCK.delta_as_nanos(started.0, now.0).min((1 << LONGEST) - 1);
        // The value is in range, so this cannot fail.
        let _ = cell.nanos.increment(nanos);
    }

    fn cell(&self, method: usize) -> Option<&Cell> {
        self.cells.get(method).map(|cell| &**cell.get_or_init(Box::default))
    }

    fn called(&self) -> impl Iterator<Item = &Cell> {
        self.cells.iter().filter_map(|cell| cell.get().map(AsRef::as_ref))
    }

    /// How many calls finished.
    pub(crate) fn calls(&self) -> u64 {
        self.called().map(|cell| calls(&cell.nanos.load())).sum()
    }

    /// How many of them with an error.
    pub(crate) fn errors(&self) -> u64 {
        self.called().map(Cell::errors).sum()
    }

    pub(crate) fn read(&self, in_flight: u32) -> Metrics {
        let mut all = empty();
        for cell in self.called() {
            // They are all alike, and a sum of calls has room.
            let _ = all.checked_add_assign(&cell.nanos.load());
        }
        summary(&all, self.errors(), in_flight)
    }
}

impl Default for Cell {
    fn default() -> Self {
        // The parameters are constant and valid.
        #[expect(clippy::expect_used, reason = "constant parameters")]
        let nanos = AtomicHistogram::new(WIDTH, LONGEST).expect("valid histogram parameters");
        let errors = std::array::from_fn(|_| AtomicU64::new(0));
        Self { begun: AtomicU64::new(0), last: AtomicU64::new(0), errors, nanos }
    }
}

impl Cell {
    fn errors(&self) -> u64 {
        self.errors.iter().map(|count| count.load(Relaxed)).sum()
    }

    fn read(&self) -> MethodMetrics {
        // In this order, so that no more have finished than begun.
        let nanos = self.nanos.load();
        let in_flight = self.begun.load(Relaxed).saturating_sub(calls(&nanos));
        let counts = ErrorCode::ALL.iter().zip(&self.errors);
        let by_code = counts.map(|(code, count)| (code.as_str(), count.load(Relaxed)));
        let last = self.last.load(Relaxed);
        MethodMetrics {
            total: summary(&nanos, self.errors(), u32::try_from(in_flight).unwrap_or(u32::MAX)),
            last: (last > 0).then(|| Tick(last).time()),
            errors_by_code: by_code.filter(|(_, count)| *count > 0).collect(),
            duration: duration(&nanos),
            buckets: buckets(&nanos),
        }
    }
}

fn empty() -> Histogram {
    #[expect(clippy::expect_used, reason = "constant parameters")]
    Histogram::new(WIDTH, LONGEST).expect("valid histogram parameters")
}

/// Each call is in one of the buckets.
fn calls(nanos: &Histogram) -> u64 {
    nanos.as_slice().iter().sum()
}

fn summary(nanos: &Histogram, errors: u64, in_flight: u32) -> Metrics {
    let percentile = |q| {
        let bucket = nanos.quantile_bucket(q).ok().flatten();
        Duration::from_nanos(bucket.map_or(0, |bucket| bucket.end()))
    };
    let (p50, p90, p99) = (percentile(0.5), percentile(0.9), percentile(0.99));
    Metrics { calls: calls(nanos), errors, in_flight, p50, p90, p99 }
}

/// The sum of all values, each taken as the middle of its bucket.
fn duration(nanos: &Histogram) -> Duration {
    let middle = |bucket: histogram::Bucket| bucket.start() + (bucket.end() - bucket.start()) / 2;
    let sum = nanos
        .iter()
        .fold(0_u64, |sum, bucket| sum.saturating_add(bucket.count().saturating_mul(middle(bucket))));
    Duration::from_nanos(sum)
}

fn buckets(nanos: &Histogram) -> Vec<Bucket> {
    // From a microsecond to more than a minute. A power of two is where a fine bucket begins, so what is
    // below it is known exactly.
    let bounds = (10..=36).step_by(2).map(|power| (1_u64 << power) - 1);
    let below = |bound: u64| nanos.iter().take_while(|it| it.end() <= bound).map(|it| it.count()).sum();
    bounds.map(|bound| Bucket { at_most: Duration::from_nanos(bound), calls: below(bound) }).collect()
}

#[cfg(test)]
mod tests;
