//! How much an extension may log and print.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Without drops for so long, the output is taken to be within its rate again.
const SPELL: Duration = Duration::from_secs(1);

/// Lets so many bytes pass per second, and no more than those of one second at once. What goes
/// beyond is dropped: nobody waits and nothing is kept.
pub(crate) struct Spout {
    /// Bytes per second; [`u64::MAX`] for no limit, which needs no lock.
    rate: AtomicU64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// How many bytes may pass at `at`; `None` before the first.
    left: Option<(f64, Instant)>,
    lost: Lost,
    dropped_at: Option<Instant>,
}

/// What was dropped in one spell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) lines: u64,
    pub(crate) bytes: u64,
}

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passage {
    Passes,
    /// It passes as the first one after a spell in which others did not.
    PassesAfter(Lost),
    /// It is dropped, as the first of a spell if the rate is told: bytes per second.
    Dropped {
        first: Option<u64>,
    },
}

impl Default for Spout {
    fn default() -> Self {
        Self { rate: AtomicU64::new(u64::MAX), state: Mutex::default() }
    }
}

impl Spout {
    /// From now on so many bytes pass per second.
    pub(crate) fn set(&self, rate: u64) {
        self.rate.store(rate, Relaxed);
    }

    pub(crate) fn pass(&self, line: usize) -> Passage {
        match self.rate.load(Relaxed) {
            u64::MAX => Passage::Passes,
            rate => self.state.lock().pass(line as u64, rate, Instant::now()),
        }
    }
}

impl State {
    fn pass(&mut self, line: u64, rate: u64, now: Instant) -> Passage {
        let most = rate as f64;
        let left = self.left.map_or(most, |(left, at)| {
            (left + now.saturating_duration_since(at).as_secs_f64() * most).min(most)
        });
        // Empty lines would be free otherwise.
        let cost = (line + 1) as f64;
        if cost > left {
            let first = (self.lost.lines == 0).then_some(rate);
            self.left = Some((left, now));
            self.dropped_at = Some(now);
            self.lost.lines += 1;
            self.lost.bytes += line;
            return Passage::Dropped { first };
        }
        self.left = Some((left - cost, now));
        let over = self.dropped_at.is_some_and(|at| now.saturating_duration_since(at) >= SPELL);
        if !over {
            return Passage::Passes;
        }
        self.dropped_at = None;
        Passage::PassesAfter(std::mem::take(&mut self.lost))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_s_worth_passes_and_the_rest_is_counted_and_told_twice() {
        let begun = Instant::now();
        let at = |millis| begun + Duration::from_millis(millis);
        let mut state = State::default();
        let dropped = Passage::Dropped { first: None };
        let steps = [
            (0, 59, Passage::Passes),
            (0, 39, Passage::Passes),
            (0, 9, Passage::Dropped { first: Some(100) }),
            (0, 0, dropped),
            // A tenth of a second later there is room for ten bytes.
            (100, 9, Passage::Passes),
            (100, 1, dropped),
            // Longer than a second's worth never passes.
            (500, 100, dropped),
            (1499, 9, Passage::Passes),
            (1500, 9, Passage::PassesAfter(Lost { lines: 4, bytes: 110 })),
            (1500, 9, Passage::Passes),
            (1500, 99, Passage::Dropped { first: Some(100) }),
        ];
        for (step, (millis, line, expected)) in steps.into_iter().enumerate() {
            assert_eq!(state.pass(line, 100, at(millis)), expected, "step {step}");
        }
    }

    #[test]
    fn without_a_rate_all_passes() {
        let spout = Spout::default();
        assert_eq!(spout.pass(usize::MAX), Passage::Passes);
        spout.set(0);
        assert_eq!(spout.pass(0), Passage::Dropped { first: Some(0) });
    }
}
