//! Metrics that are pushed to a collector, by OTLP over HTTP in protobuf:
//! <https://opentelemetry.io/docs/specs/otlp/>.

mod config;
mod map;
mod send;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
pub use config::OtlpConfig;
use map::Mapper;
use prost::Message as _;
use send::{Sender, Sent};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use crate::dispatcher::Core;
use crate::{Dispatcher, ExtensionMetrics};

/// The longest pause before a message is sent again, unless the collector asks for more.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The longest time that a collector can ask for.
const LONGEST_AFTER: Duration = Duration::from_secs(3600);

/// Pushes the metrics of a host until it is ended. Dropped, it stops without a last message.
#[derive(Debug)]
pub struct OtlpExporter {
    /// Takes the last numbers.
    end: oneshot::Sender<Vec<ExtensionMetrics>>,
    task: JoinHandle<()>,
    core: Weak<Core>,
}

impl Dispatcher {
    /// Pushes all metrics to a collector from now on, on threads of the dispatcher's own. Whatever the
    /// collector does, nothing else waits for it: a message is sent again as long as the collector may still
    /// take it and the next one is not due; numbers are sums since their start, so a message that was not
    /// delivered is made up for by the next. At most one waits.
    pub fn export(&self, config: OtlpConfig) -> OtlpExporter {
        let (end, ended) = oneshot::channel();
        let core = Arc::downgrade(&self.core);
        let pusher = Pusher {
            mapper: Mapper::new(&config.resource),
            interval: config.interval,
            pause: config.pause,
            sender: Sender::new(config),
            fails: false,
        };
        let task = self.core.executor().spawn(pusher.run(Weak::clone(&core), ended));
        OtlpExporter { end, task, core }
    }
}

impl OtlpExporter {
    /// Takes the numbers of now, sends them and ends. Waiting for the end is a matter of the caller: it comes
    /// once the collector took them, will not, or `patience` is over.
    pub fn end(self, patience: Duration) -> impl Future<Output = ()> + Send + use<> {
        let last = self.core.upgrade().map(|core| Dispatcher { core }.all_metrics()).unwrap_or_default();
        // It may have ended.
        let _ = self.end.send(last);
        let mut task = self.task;
        async move {
            if tokio::time::timeout(patience, &mut task).await.is_err() {
                task.abort();
            }
        }
    }
}

/// What runs in the background.
struct Pusher {
    mapper: Mapper,
    sender: Sender,
    interval: Duration,
    pause: Duration,
    /// Whether the last message was not delivered, and that was told.
    fails: bool,
}

impl Pusher {
    async fn run(mut self, core: Weak<Core>, mut ended: oneshot::Receiver<Vec<ExtensionMetrics>>) {
        let mut due = Instant::now() + self.interval;
        loop {
            let last = tokio::select! {
                last = &mut ended => Some(last),
                () = sleep_until(due) => None,
            };
            let last = match last {
                None => {
                    let Some(core) = core.upgrade() else { return };
                    let now = Dispatcher { core }.all_metrics();
                    due = Instant::now() + self.interval;
                    let message = self.message(&now);
                    tokio::select! {
                        last = &mut ended => last,
                        not_before = self.deliver(message, Some(due)) => {
                            due = due.max(not_before);
                            continue;
                        }
                    }
                }
                Some(last) => last,
            };
            // Who drops the exporter wants no last message.
            if let Ok(last) = last {
                let message = self.message(&last);
                self.deliver(message, None).await;
            }
            return;
        }
    }

    fn message(&mut self, all: &[ExtensionMetrics]) -> Bytes {
        self.mapper.message(all, SystemTime::now()).encode_to_vec().into()
    }

    /// Sends a message until it is delivered, refused, or a newer one is due. Gives the moment before which
    /// the collector wants none.
    async fn deliver(&mut self, message: Bytes, due: Option<Instant>) -> Instant {
        let mut pause = self.pause;
        loop {
            let (why, after) = match self.sender.send(message.clone()).await {
                Sent::Taken(complaint) => {
                    self.told(complaint.map(|why| format!("the collector says: {why}")));
                    return Instant::now();
                }
                Sent::Refused(why) => {
                    self.told(Some(why));
                    return Instant::now();
                }
                Sent::Later(why, after) => (why, after),
            };
            self.told(Some(why));
            // Many hosts do not come back at one moment.
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            let now = Instant::now();
            let next = now + after.map_or(jittered, |after| after.min(LONGEST_AFTER));
            if due.is_some_and(|due| next >= due) {
                return next;
            }
            sleep(next.saturating_duration_since(now)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Says once that the collector does not take what it is sent, and once that it does again.
    fn told(&mut self, problem: Option<String>) {
        match (&problem, self.fails) {
            (Some(why), false) => tracing::warn!(why, "metrics do not reach the collector"),
            (None, true) => tracing::info!("metrics reach the collector again"),
            _ => {}
        }
        self.fails = problem.is_some();
    }
}
