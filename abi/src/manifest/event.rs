use std::num::NonZeroU32;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::limits::Span;
use crate::{Delivery, Overflow};

/// `[events."TOPIC"]`: what an extension is subscribed to, from its load on. The topic may be the
/// beginning of several, with a final `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Subscription {
    /// The exported method that gets each event.
    pub method: String,
    /// What becomes of events that find its queue full. With `at-least-once` none is dropped: whoever emits
    /// is told that it is full.
    #[serde(default)]
    pub overflow: Overflow,
    /// How sure it is that each event arrives.
    #[serde(default)]
    pub delivery: Delivery,
    /// With `at-least-once`: how often the method is called for one event before that is a dead letter; 5 if
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<NonZeroU32>,
    /// With `at-least-once`: how long after the first failure the next attempt comes, at most; twice as long
    /// after each further one. `"1s"` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_delay: Option<Span>,
    /// With `at-least-once`: the longest time between two attempts; `"1min"` if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longest_delay: Option<Span>,
}

/// How an event is handed over again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// How often the method is called for one event.
    pub attempts: u32,
    /// The time after the first failure.
    pub first_delay: Duration,
    /// The longest time.
    pub longest_delay: Duration,
}

impl Subscription {
    /// How its events are handed over again; `None` if they are not.
    ///
    /// # Errors
    /// The key that does not fit the others, and why.
    pub fn retry(&self) -> Result<Option<Retry>, (&'static str, String)> {
        let given = [
            ("attempts", self.attempts.is_some()),
            ("first-delay", self.first_delay.is_some()),
            ("longest-delay", self.longest_delay.is_some()),
        ];
        if self.delivery == Delivery::AtMostOnce {
            return match given.into_iter().find(|(_, given)| *given) {
                Some((key, _)) => Err((key, "it is for delivery = \"at-least-once\" alone".to_owned())),
                None => Ok(None),
            };
        }
        if self.overflow == Overflow::DropOldest {
            return Err(("overflow", "nothing is dropped with delivery = \"at-least-once\"".to_owned()));
        }
        let span = |given: Option<Span>, seconds| given.map_or(Duration::from_secs(seconds), |Span(it)| it);
        let (first_delay, longest_delay) = (span(self.first_delay, 1), span(self.longest_delay, 60));
        let longest_delay = match self.longest_delay {
            Some(longest) if longest_delay < first_delay => {
                return Err(("longest-delay", format!("\"{longest}\" is shorter than first-delay")));
            }
            _ => longest_delay.max(first_delay),
        };
        let attempts = self.attempts.map_or(5, NonZeroU32::get);
        Ok(Some(Retry { attempts, first_delay, longest_delay }))
    }
}

impl Retry {
    /// How long to wait at most after so many failures.
    pub fn delay(&self, failures: u32) -> Duration {
        let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
        self.first_delay.saturating_mul(doubled).min(self.longest_delay)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retry(more: &str) -> Result<Option<Retry>, String> {
        let subscription: Subscription =
            toml::from_str(&format!("method = 'm'\n{more}")).map_err(|error| error.message().to_owned())?;
        subscription.retry().map_err(|(key, why)| format!("{key}: {why}"))
    }

    #[test]
    fn what_is_said_of_delivery() {
        let says = |attempts, first, longest| {
            let [first_delay, longest_delay] = [first, longest].map(Duration::from_millis);
            Ok(Some(Retry { attempts, first_delay, longest_delay }))
        };
        let wrong = |text: &str| Err(text.to_owned());
        let kept = "delivery = 'at-least-once'";
        for (more, expected) in [
            ("", Ok(None)),
            ("delivery = 'at-most-once'\noverflow = 'drop-oldest'", Ok(None)),
            (kept, says(5, 1000, 60_000)),
            (&format!("{kept}\nattempts = 1\nfirst-delay = '2ms'\nlongest-delay = '3ms'"), says(1, 2, 3)),
            (&format!("{kept}\nfirst-delay = '2h'"), says(5, 7_200_000, 7_200_000)),
            ("attempts = 2", wrong("attempts: it is for delivery = \"at-least-once\" alone")),
            ("first-delay = '1s'", wrong("first-delay: it is for delivery = \"at-least-once\" alone")),
            (
                &format!("{kept}\noverflow = 'drop-oldest'"),
                wrong("overflow: nothing is dropped with delivery = \"at-least-once\""),
            ),
            (
                &format!("{kept}\nlongest-delay = '1ms'"),
                wrong("longest-delay: \"1ms\" is shorter than first-delay"),
            ),
        ] {
            assert_eq!(retry(more), expected, "{more}");
        }
        for more in ["delivery = 'once'", "delivery = 'at-least-once'\nattempts = 0", "tries = 1"] {
            assert!(retry(more).is_err(), "{more}");
        }
    }

    #[test]
    fn delays_grow_up_to_the_longest() {
        let retry = retry("delivery = 'at-least-once'").unwrap().unwrap();
        let delays: Vec<u64> = (1..9).map(|failures| retry.delay(failures).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(retry.delay(u32::MAX), Duration::from_secs(60));
    }
}
