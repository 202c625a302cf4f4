//! The clocks of a guest: what it reads is rounded down here, where it cannot reach.

use std::time::{Duration, Instant, SystemTime};

use deno_core::op2;

use crate::state::State;

/// What the clocks of one isolate show.
pub(crate) struct Clock {
    step: Duration,
    begun: Instant,
}

impl Clock {
    /// A clock that goes in steps; zero is as fine as the machine has it.
    pub(crate) fn new(step: Duration) -> Self {
        Self { step, begun: Instant::now() }
    }

    fn show(&self, time: Duration) -> u64 {
        let nanos = time.as_nanos();
        (nanos - nanos % self.step.as_nanos().max(1)) as u64
    }
}

/// The steps of the clocks, in milliseconds.
#[op2(fast)]
pub(crate) fn op_qx_clock_step() -> f64 {
    State::current().clock.step.as_secs_f64() * 1e3
}

/// Milliseconds since the isolate was made.
#[op2(fast)]
pub(crate) fn op_qx_monotonic() -> f64 {
    let clock = &State::current().clock;
    clock.show(clock.begun.elapsed()) as f64 / 1e6
}

/// Nanoseconds since 1970.
#[op2(fast)]
#[bigint]
pub(crate) fn op_qx_wall() -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    State::current().clock.show(now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_goes_in_steps() {
        let cases = [
            (0, 1_234_567, 1_234_567),
            (10, 1_234_567, 1_230_000),
            (1000, 1_234_567, 1_000_000),
            (1000, 999, 0),
        ];
        for (micros, now, shown) in cases {
            let clock = Clock::new(Duration::from_micros(micros));
            assert_eq!(clock.show(Duration::from_nanos(now)), shown, "{micros} µs");
        }
    }
}
