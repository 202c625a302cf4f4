//! Takes samples of what is loaded, and looks at them by the policy's rules.

use std::sync::Arc;
use std::time::SystemTime;

use quadriga_abi::Error;
use tokio::sync::broadcast;

use crate::dispatcher::Core;
use crate::event::KeptEvent;
use crate::route::Slot;
use crate::ward::{Action, Activity, Alert, Counter, DecisionFilter, Reason, Trigger};
use crate::{Dispatcher, State};

impl Dispatcher {
    /// What an extension did since it was loaded, as far as it is kept.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn activity(&self, extension: &str) -> Result<Activity, Error> {
        let slot = self.core.route(extension)?;
        let ward = &slot.reach.ward;
        let (series, alerts) = ward
            .history
            .with(|kept| (kept.series.iter().copied().collect(), kept.alerts.iter().cloned().collect()));
        Ok(Activity {
            accesses: ward.tallies(),
            log_lines: slot.reach.meter.read(Counter::LogLines),
            output_dropped: slot.reach.meter.read(Counter::OutputDropped),
            recent: ward.log.read(&DecisionFilter::default()),
            series,
            alerts,
        })
    }

    /// Alerts of all extensions from now on. A receiver that falls behind by more than 256 misses
    /// the oldest, and is told how many.
    pub fn alerts(&self) -> broadcast::Receiver<Alert> {
        self.core.alerts.subscribe()
    }
}

impl Core {
    /// Takes samples from now on, if the policy wants any.
    pub(crate) fn monitor(self: &Arc<Self>) {
        let Some(interval) = self.policy.samples_every() else { return };
        let core = Arc::downgrade(self);
        self.executor().spawn(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(core) = core.upgrade() else { return };
                for slot in core.routes.load().values().filter(|slot| slot.source.is_some()) {
                    core.look(slot);
                }
                core.look_at_total();
            }
        });
    }

    /// Takes a sample of one extension, and acts on what is out of the ordinary.
    fn look(&self, slot: &Slot) {
        let (sample, monitor) = (slot.sample(), &self.policy.monitor);
        let alerts = slot.reach.ward.history.with(|kept| {
            kept.push(sample, monitor.history);
            monitor
                .rules
                .iter()
                .enumerate()
                .filter_map(|(place, rule)| {
                    kept.due(place, &rule.trigger).map(|(evidence, samples)| Alert {
                        extension: slot.id.clone(),
                        rule: rule.name.clone(),
                        evidence,
                        samples,
                        at: sample.at,
                        action: rule.action,
                    })
                })
                .collect::<Vec<Alert>>()
        });
        alerts.into_iter().for_each(|alert| self.raise(slot, alert));
    }

    /// Raises the alerts that the end of an instance leads to.
    pub(crate) fn alert_of_end(&self, slot: &Slot, how: &str) {
        for rule in self.policy.monitor.rules.iter().filter(|rule| rule.trigger == Trigger::Ended) {
            let alert = Alert {
                extension: slot.id.clone(),
                rule: rule.name.clone(),
                evidence: how.to_owned(),
                samples: Vec::new(),
                at: SystemTime::now(),
                action: rule.action,
            };
            self.raise(slot, alert);
        }
    }

    /// Raises the alerts that an event leads to that was given up for an extension.
    pub(crate) fn alert_of_letter(&self, letter: &KeptEvent) {
        let Some(slot) = self.routes.load().get(&letter.subscriber).cloned() else { return };
        for (place, rule) in self.policy.monitor.rules.iter().enumerate() {
            let Trigger::DeadLetters { count, within } = rule.trigger else { continue };
            let seen = slot.reach.ward.history.with(|kept| kept.letter(place, count, within));
            let Some(seen) = seen else { continue };
            let KeptEvent { pattern, method, topic, attempts, error, .. } = letter;
            let events = if seen == 1 { "1 event was".to_owned() } else { format!("{seen} events were") };
            let why = error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            let evidence = format!(
                "{events} given up within {within:?}; the last, on {topic} for {pattern} ({method}), at attempt {attempts}{why}"
            );
            let alert = Alert {
                extension: slot.id.clone(),
                rule: rule.name.clone(),
                evidence,
                samples: Vec::new(),
                at: SystemTime::now(),
                action: rule.action,
            };
            self.raise(&slot, alert);
        }
    }

    /// Keeps an alert, tells of it and does what it asks for.
    pub(crate) fn raise(&self, slot: &Slot, alert: Alert) {
        tracing::warn!(target: "quadriga::audit", extension = slot.id.as_str(), rule = alert.rule, evidence = alert.evidence, "alert");
        slot.reach.ward.history.with(|kept| kept.alert(alert.clone()));
        slot.act(&alert);
        // Nobody may listen.
        let _ = self.alerts.send(alert);
    }
}

impl Slot {
    /// Does what an alert asks for, unless the extension is held already.
    fn act(&self, alert: &Alert) {
        let reason = format!("{}: {}", alert.rule, alert.evidence);
        let is_up = |state| matches!(state, State::Running | State::Throttled);
        let _ = match alert.action {
            Action::None => Ok(()),
            Action::Throttle { calls_per_second } => self.throttle(calls_per_second, reason, Reason::Alert),
            Action::Pause => self.hold(State::Paused, reason, Reason::Alert, is_up),
            Action::Quarantine => {
                self.hold(State::Quarantined, reason, Reason::Alert, |state| state != State::Quarantined)
            }
        };
    }
}
