//! The clocks of a guest.

use std::time::Duration;

use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

/// A clock that shows no more than every so-manieth moment of another.
pub(crate) struct Stepwise<C> {
    clock: C,
    step: Duration,
}

impl<C> Stepwise<C> {
    /// Zero leaves the clock as it is.
    pub(crate) fn new(clock: C, step: Duration) -> Self {
        Self { clock, step }
    }

    fn show(&self, now: u128) -> u128 {
        now - now % self.step.as_nanos().max(1)
    }
}

impl<C: HostWallClock> HostWallClock for Stepwise<C> {
    fn resolution(&self) -> Duration {
        self.clock.resolution().max(self.step)
    }

    fn now(&self) -> Duration {
        let shown = self.show(self.clock.now().as_nanos());
        let (seconds, rest) = (shown / 1_000_000_000, shown % 1_000_000_000);
        Duration::new(seconds as u64, rest as u32)
    }
}

impl<C: HostMonotonicClock> HostMonotonicClock for Stepwise<C> {
    fn resolution(&self) -> u64 {
        self.clock.resolution().max(self.step.as_nanos() as u64)
    }

    fn now(&self) -> u64 {
        self.show(self.clock.now().into()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(u64);

    impl HostWallClock for Fixed {
        fn resolution(&self) -> Duration {
            Duration::from_nanos(1)
        }

        fn now(&self) -> Duration {
            Duration::from_nanos(self.0)
        }
    }

    impl HostMonotonicClock for Fixed {
        fn resolution(&self) -> u64 {
            1
        }

        fn now(&self) -> u64 {
            self.0
        }
    }

    #[test]
    fn a_clock_goes_in_steps() {
        let cases = [
            (Duration::ZERO, 1_234_567_891, 1_234_567_891, 1),
            (Duration::from_micros(1), 1_234_567_891, 1_234_567_000, 1_000),
            (Duration::from_millis(1), 1_234_567_891, 1_234_000_000, 1_000_000),
            (Duration::from_secs(2), 7_234_567_891, 6_000_000_000, 2_000_000_000),
        ];
        for (step, now, shown, resolution) in cases {
            let clock = Stepwise::new(Fixed(now), step);
            assert_eq!(HostWallClock::now(&clock), Duration::from_nanos(shown), "{step:?}");
            assert_eq!(HostMonotonicClock::now(&clock), shown, "{step:?}");
            assert_eq!(HostWallClock::resolution(&clock), Duration::from_nanos(resolution), "{step:?}");
            assert_eq!(HostMonotonicClock::resolution(&clock), resolution, "{step:?}");
        }
    }
}
