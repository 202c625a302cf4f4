//! What a worker tells of its guest: which accesses it let pass or not, and what it counted. The
//! host takes it for the word of that extension. It cannot be flooded: a frame holds so many records,
//! of which so many per second are kept one by one, and the others are counted.

use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quadriga_abi::permission::{Access, AccessKind};
use quadriga_core::{Bridge, CallContext, Counter};
use serde::{Deserialize, Serialize};

/// Records in one frame.
const RECORDS: usize = 64;

/// Checks that a worker tells one by one in a frame; the others it counts.
const CHECKS: usize = 32;

/// Bytes of the records of a frame.
const SIZE: usize = 64 << 10;

/// Bytes of one check that is told one by one.
const LONGEST: usize = 2 << 10;

/// The most that one record may count.
const MOST: u64 = 1 << 20;

/// How long a worker gathers, at most.
pub(crate) const GATHER: Duration = Duration::from_millis(50);

/// Checks of a worker that the host keeps one by one: so many per second, and as many at once.
const KEPT: u32 = 256;

/// A list of these is the payload of a frame.
#[derive(Serialize, Deserialize)]
enum Record<'a> {
    /// An access in the course of a call, and whether it was let pass.
    Check(u64, #[serde(borrow)] Access<'a>, bool),
    /// So many accesses of a kind that were let pass, and that were not.
    More(AccessKind, u64, u64),
    /// So many attempts to start a program.
    Spawns(u64),
}

/// What a worker has gathered and not told.
#[derive(Default)]
pub(crate) struct Gathered {
    pending: Mutex<Pending>,
    /// Held while it is told.
    telling: Mutex<()>,
}

#[derive(Default)]
struct Pending {
    records: Vec<u8>,
    checks: usize,
    more: [(u64, u64); AccessKind::ALL.len()],
    spawns: u64,
    /// Somebody will tell it soon.
    due: bool,
}

impl Gathered {
    pub(crate) fn check(&self, call: u64, access: &Access<'_>, allowed: bool) {
        let mut pending = self.pending.lock();
        let record = match pending.checks < CHECKS {
            true => rmp_serde::to_vec(&Record::Check(call, *access, allowed)).ok(),
            false => None,
        };
        match record.filter(|record| record.len() <= LONGEST) {
            Some(record) => {
                pending.records.extend(record);
                pending.checks += 1;
            }
            None => {
                let (passed, denied) = &mut pending.more[access.kind() as usize];
                *if allowed { passed } else { denied } += 1;
            }
        }
    }

    pub(crate) fn spawns(&self, amount: u64) {
        let mut pending = self.pending.lock();
        pending.spawns = pending.spawns.saturating_add(amount);
    }

    /// Whether somebody has to be found to tell it after [`GATHER`]; not if there is one already.
    pub(crate) fn is_due(&self) -> bool {
        !std::mem::replace(&mut self.pending.lock().due, true)
    }

    /// The one who tells it is at it.
    pub(crate) fn told(&self) {
        self.pending.lock().due = false;
    }

    /// Sends what there is to tell, if anything. When it returns, all that was gathered before has been
    /// sent, also what somebody else was just at: an answer that follows finds it on the record.
    pub(crate) fn tell(&self, send: impl FnOnce(Vec<u8>)) {
        let _one = self.telling.lock();
        if let Some(claims) = self.take() {
            send(claims);
        }
    }

    /// What there is to tell, as the payload of a frame.
    pub(crate) fn take(&self) -> Option<Vec<u8>> {
        let mut pending = self.pending.lock();
        let fresh = Pending { due: pending.due, ..Pending::default() };
        let Pending { records, checks, more, spawns, .. } = std::mem::replace(&mut *pending, fresh);
        drop(pending);
        let counts = AccessKind::ALL.into_iter().zip(more).filter(|(_, counts)| *counts != (0, 0));
        let mut last: Vec<Record<'_>> = counts
            .map(|(kind, (passed, denied))| Record::More(kind, passed.min(MOST), denied.min(MOST)))
            .collect();
        if spawns > 0 {
            last.push(Record::Spawns(spawns.min(MOST)));
        }
        let length = u16::try_from(checks + last.len()).ok().filter(|length| *length > 0)?;
        let mut payload = vec![0xdc];
        payload.extend(length.to_be_bytes());
        payload.extend(records);
        for record in &last {
            payload.extend(rmp_serde::to_vec(record).ok()?);
        }
        Some(payload)
    }
}

/// What the host lets a worker have kept.
pub(crate) struct Allowance(Mutex<(f64, Instant)>);

impl Default for Allowance {
    fn default() -> Self {
        Self(Mutex::new((f64::from(KEPT), Instant::now())))
    }
}

impl Allowance {
    /// Takes the records of a frame. `context` says what the host knows of a call. With `guarded`,
    /// the host itself sees what would start a program.
    ///
    /// # Errors
    /// Says how the worker broke the contract.
    pub(crate) fn take(
        &self,
        payload: &[u8],
        bridge: &Bridge,
        guarded: bool,
        context: impl Fn(u64) -> CallContext,
    ) -> Result<(), String> {
        if payload.len() > SIZE {
            return Err(format!("claims of {} bytes, where {SIZE} are the most", payload.len()));
        }
        let records: Vec<Record<'_>> =
            rmp_serde::from_slice(payload).map_err(|error| format!("claims that cannot be read: {error}"))?;
        if records.len() > RECORDS {
            return Err(format!("{} claims in a frame, where {RECORDS} are the most", records.len()));
        }
        for record in records {
            match record {
                Record::Check(call, access, allowed) if self.keeps() => {
                    bridge.claim(&context(call), &access, allowed);
                }
                Record::Check(_, access, allowed) => {
                    bridge.claim_more(access.kind(), u64::from(allowed), u64::from(!allowed));
                }
                Record::More(kind, allowed, denied) if allowed.max(denied) <= MOST => {
                    bridge.claim_more(kind, allowed, denied);
                }
                Record::Spawns(amount) if amount <= MOST && guarded => {}
                Record::Spawns(amount) if amount <= MOST => bridge.report(Counter::Spawns, amount),
                Record::More(..) | Record::Spawns(_) => {
                    return Err(format!("a claim of more than {MOST} at once"));
                }
            }
        }
        Ok(())
    }

    /// Whether one more is kept.
    pub(crate) fn keeps(&self) -> bool {
        let (left, filled) = &mut *self.0.lock();
        let now = Instant::now();
        *left = (*left + (now - *filled).as_secs_f64() * f64::from(KEPT)).min(f64::from(KEPT));
        *filled = now;
        let keeps = *left >= 1.0;
        *left -= if keeps { 1.0 } else { 0.0 };
        keeps
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[test]
    fn an_answer_waits_for_who_is_telling() {
        let gathered = Gathered::default();
        gathered.check(1, &Access::Env("HOME"), false);
        let (taken, begun) = mpsc::channel();
        let (go_on, goes_on) = mpsc::channel();
        let (told, all) = mpsc::channel();
        thread::scope(|scope| {
            let (gathered, first, second) = (&gathered, told.clone(), told);
            scope.spawn(move || {
                gathered.tell(|_| {
                    taken.send(()).unwrap();
                    goes_on.recv().unwrap();
                    first.send("claims").unwrap();
                });
            });
            begun.recv().unwrap();
            scope.spawn(move || {
                gathered.tell(|_| panic!("it was told already"));
                second.send("answer").unwrap();
            });
            // Time for what must not happen.
            assert!(all.recv_timeout(Duration::from_millis(50)).is_err());
            go_on.send(()).unwrap();
            assert_eq!([all.recv().unwrap(), all.recv().unwrap()], ["claims", "answer"]);
        });
    }
}
