use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use histogram::AtomicHistogram;
use serde::Serialize;

/// What one extension has done since it was loaded.
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
    /// 99 of 100 calls took no longer.
    pub p99: Duration,
}

/// Reads the processor's counter where that is steady, in a third of the time that `Instant` takes.
static CLOCK: LazyLock<quanta::Clock> = LazyLock::new(quanta::Clock::new);

/// A moment to measure from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tick(u64);

impl Tick {
    pub(crate) fn now() -> Self {
        Self(CLOCK.raw())
    }

    fn elapsed(self) -> Duration {
        Self::now().since(self)
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        CLOCK.delta(earlier.0, self.0)
    }
}

/// Counts without a lock. Latencies are kept in buckets that are at most 1/32 wide.
pub(crate) struct Counters {
    errors: AtomicU64,
    nanos: AtomicHistogram,
}

impl Counters {
    pub(crate) fn new() -> Self {
        // 2^44 ns is almost five hours; the parameters are constant and valid.
        #[expect(clippy::expect_used, reason = "constant parameters")]
        let nanos = AtomicHistogram::new(5, 44).expect("valid histogram parameters");
        Self { errors: AtomicU64::new(0), nanos }
    }

    pub(crate) fn record(&self, started: Tick, failed: bool) {
        if failed {
            self.errors.fetch_add(1, Relaxed);
        }
        let nanos = u64::try_from(started.elapsed().as_nanos()).unwrap_or(u64::MAX).min((1 << 44) - 1);
        // The value is in range, so this cannot fail.
        let _ = self.nanos.increment(nanos);
    }

    /// How many calls finished.
    pub(crate) fn calls(&self) -> u64 {
        // Each call is in one of the buckets.
        self.nanos.load().as_slice().iter().sum()
    }

    /// How many of them with an error.
    pub(crate) fn errors(&self) -> u64 {
        self.errors.load(Relaxed)
    }

    pub(crate) fn read(&self, in_flight: u32) -> Metrics {
        let nanos = self.nanos.load();
        let percentile = |q| {
            let bucket = nanos.quantile_bucket(q).ok().flatten();
            Duration::from_nanos(bucket.map_or(0, |bucket| bucket.end()))
        };
        Metrics {
            // Each call is in one of the buckets.
            calls: nanos.as_slice().iter().sum(),
            errors: self.errors.load(Relaxed),
            in_flight,
            p50: percentile(0.5),
            p99: percentile(0.99),
        }
    }
}
