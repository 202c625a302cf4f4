//! Looking for what comes next before sleeping until it does. To be woken takes many times as long as
//! a short call, so both ends of a connection look for a moment, where that is not in vain.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

/// How long to look: about as long as it takes to be woken.
const PATIENCE: Duration = Duration::from_micros(15);

/// After so many looks in vain, only each 256th time is looked.
const MOST: u32 = 8;

/// Whoever looks keeps the only processor from those that are looked for.
static ALONE: LazyLock<bool> =
    LazyLock::new(|| thread::available_parallelism().is_ok_and(|processors| processors.get() == 1));

/// Whether to look. Where the machine is busy, or calls take long or are rare, it is in vain: with
/// each time that it is, it is left out twice as often.
#[derive(Debug, Default)]
pub(crate) struct Spin {
    vain: u32,
    left_out: u32,
}

impl Spin {
    /// Has `look` called until it finds something, if that is likely to be soon.
    pub(crate) fn look<T>(&mut self, look: impl FnMut() -> Option<T>) -> Option<T> {
        if *ALONE { None } else { self.look_for(PATIENCE, look) }
    }

    fn look_for<T>(&mut self, patience: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if self.left_out > 0 {
            self.left_out -= 1;
            return None;
        }
        let until = Instant::now() + patience;
        loop {
            if let Some(found) = look() {
                self.vain = self.vain.saturating_sub(1);
                return Some(found);
            }
            if Instant::now() >= until {
                break;
            }
            std::hint::spin_loop();
        }
        self.vain = (self.vain + 1).min(MOST);
        self.left_out = (1 << self.vain) - 1;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_looked_for_in_vain_is_looked_for_less_and_less() {
        let mut spin = Spin::default();
        let mut looked = Vec::new();
        for time in 0..1100 {
            let mut once = false;
            assert_eq!(
                spin.look_for(Duration::ZERO, || -> Option<()> {
                    once = true;
                    None
                }),
                None
            );
            looked.extend(once.then_some(time));
        }
        assert_eq!(looked, [0, 2, 6, 14, 30, 62, 126, 254, 510, 766, 1022]);
        // It takes as many finds to look each time again.
        let mut times = 0;
        while spin.vain > 0 {
            times += u32::from(spin.look_for(Duration::ZERO, || Some(())).is_some());
        }
        assert_eq!(times, MOST);
        assert_eq!(spin.look_for(Duration::ZERO, || Some(7)), Some(7));
    }

    #[test]
    fn a_look_ends() {
        let begun = Instant::now();
        assert_eq!(Spin::default().look_for(PATIENCE, || None::<()>), None);
        assert!(begun.elapsed() >= PATIENCE);
    }
}
