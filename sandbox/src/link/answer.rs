//! How a caller waits for its answer. It is often there sooner than the thread that reads could wake
//! up and pass it on, so the caller looks for it itself first.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use quadriga_abi::{Bytes, Error};
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::unconstrained;

use super::Link;
use crate::frame::Next;

/// How long a caller looks, at most: a quick call is over by then. It sleeps meanwhile, so that the
/// worker can have its processor.
const PATIENCE: Duration = Duration::from_micros(50);

/// The same for the largest arguments, which take the worker longer: so many bytes a nanosecond.
const LONG_PATIENCE: Duration = Duration::from_micros(500);
const BYTES: u64 = 3;

/// The answer to a call.
pub(super) struct Answer {
    link: Arc<Link>,
    answered: oneshot::Receiver<Result<Bytes, Error>>,
    /// It has been looked for once.
    looked: bool,
    patience: Duration,
}

impl Answer {
    /// To a call with so many bytes of arguments.
    pub(super) fn new(
        link: Arc<Link>,
        answered: oneshot::Receiver<Result<Bytes, Error>>,
        sent: usize,
    ) -> Self {
        let patience = (PATIENCE + Duration::from_nanos(sent as u64 / BYTES)).min(LONG_PATIENCE);
        Self { link, answered, looked: false, patience }
    }
}

impl Future for Answer {
    type Output = Result<Bytes, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { link, answered, looked, patience } = &mut *self;
        if !std::mem::replace(looked, true)
            && let Some(answer) = link.look(answered, *patience)
        {
            return Poll::Ready(answer);
        }
        // A guest may wait for it on a thread of tokio's, which then never gets a new budget.
        let mut answered = std::pin::pin!(unconstrained(answered));
        answered.as_mut().poll(context).map(|answer| answer.unwrap_or_else(|_| Err(link.gone())))
    }
}

impl Link {
    /// Reads what comes until the answer is there, for a moment, if this is the only call and nobody
    /// reads.
    fn look(
        self: &Arc<Self>,
        answered: &mut oneshot::Receiver<Result<Bytes, Error>>,
        patience: Duration,
    ) -> Option<Result<Bytes, Error>> {
        if self.calls.lock().len() > 1 {
            return None;
        }
        let mut reader = self.reading.reader.try_lock()?;
        let until = Instant::now() + patience;
        let answer = loop {
            match answered.try_recv() {
                Ok(answer) => break Some(answer),
                Err(TryRecvError::Closed) => break Some(Err(self.gone())),
                Err(TryRecvError::Empty) => {}
            }
            match reader.next_until(until) {
                Ok(Next::Frame(frame)) => {
                    if let Err(violation) = self.take(frame) {
                        self.end(self.broke(&violation));
                    }
                }
                Err(broken) => self.end(self.broke(&broken.to_string())),
                // Its end is for the thread that reads.
                Ok(Next::Nothing | Next::End) => break None,
            }
        };
        drop(reader);
        self.reading.looked(answer.is_some() && self.calls.lock().is_empty());
        answer
    }
}
