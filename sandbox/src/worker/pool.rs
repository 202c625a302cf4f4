//! The threads that run guests. One of them leads: it reads what the host sends, and runs a call
//! itself, so that calls begin in the order in which they came and none changes threads. Another
//! takes the lead when that call waits, or has had its share of time.

use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use quadriga_core::ThreadClock;

use super::server::{End, Server};
use crate::frame::{Next, Reader};

/// The threads that may run guests at once. A call beyond them is refused rather than queued: the
/// threads may all be waiting for it.
const MOST: usize = 480;

/// As much as the main thread of most programs has.
const STACK: usize = 8 << 20;

/// How often is looked whether a call has had its share.
const TICK: Duration = Duration::from_millis(1);

/// The processor time that a call gets before the next one begins.
const SHARE: Duration = Duration::from_micros(500);

/// When the next one begins at the latest: the call may be asleep.
const PATIENCE: Duration = Duration::from_millis(20);

/// Ticks without a call after which nobody looks until there is one.
const QUIET: u32 = 10;

thread_local! {
    /// The pool that this thread leads while it runs a call, and the turn in which it does.
    static LEADING: RefCell<Option<(Arc<Pool>, u64)>> = const { RefCell::new(None) };
}

pub(super) struct Pool {
    server: Arc<Server>,
    reader: Mutex<Reader>,
    /// Even while the leader reads, odd while it runs a call, and one more with each change. Who
    /// makes it even takes or keeps the lead.
    turn: AtomicU64,
    /// The thread that leads, for its clock.
    leader: AtomicI32,
    state: Mutex<State>,
    vacant: Condvar,
    /// The monitor looks.
    watching: AtomicBool,
    monitor: Thread,
}

#[derive(Default)]
struct State {
    /// Threads that wait for the lead.
    idle: usize,
    threads: usize,
    /// The lead is to be taken.
    vacancy: bool,
}

impl Pool {
    /// Starts the first thread, and the one that watches over the lead.
    pub(super) fn start(reader: Reader, server: Arc<Server>) -> io::Result<()> {
        let (send, pool) = std::sync::mpsc::channel::<Arc<Self>>();
        let watch = move || {
            if let Ok(pool) = pool.recv() {
                pool.watch();
            }
        };
        let monitor = thread::Builder::new().name("quadriga-monitor".to_owned()).spawn(watch)?;
        let pool = Arc::new(Self {
            server,
            reader: Mutex::new(reader),
            turn: AtomicU64::new(0),
            leader: AtomicI32::new(0),
            state: Mutex::default(),
            vacant: Condvar::new(),
            watching: AtomicBool::new(false),
            monitor: monitor.thread().clone(),
        });
        let _ = send.send(Arc::clone(&pool));
        pool.state.lock().vacancy = true;
        pool.spawn()
    }

    fn spawn(self: &Arc<Self>) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = thread::Builder::new().name("quadriga-guest".to_owned()).stack_size(STACK);
        thread.spawn(move || pool.follow())?;
        self.state.lock().threads += 1;
        Ok(())
    }

    /// The body of each thread: waits for the lead, and leads while it has it.
    fn follow(self: Arc<Self>) {
        loop {
            {
                let mut state = self.state.lock();
                state.idle += 1;
                while !state.vacancy {
                    self.vacant.wait(&mut state);
                }
                state.vacancy = false;
                state.idle -= 1;
            }
            if !self.lead() {
                return;
            }
        }
    }

    /// Reads and runs calls until another thread has the lead; false if there is nothing to read any more.
    fn lead(self: &Arc<Self>) -> bool {
        self.leader.store(rustix::thread::gettid().as_raw_nonzero().get(), Ordering::Relaxed);
        let mut called = false;
        loop {
            // Who has called may do so again at once.
            let next = match std::mem::take(&mut called) {
                true => self.reader.lock().next_soon(),
                false => self.reader.lock().next(),
            };
            let frame = match next {
                Ok(Next::Frame(frame)) => frame,
                // What the host sends is whole; what is not ends with it.
                Ok(Next::End | Next::Nothing) | Err(_) => {
                    self.server.host.end(End::Lost);
                    return false;
                }
            };
            let Some(work) = self.server.take(frame) else { continue };
            if !self.follower() {
                self.server.refuse(&work);
                continue;
            }
            let turn = self.turn.fetch_add(1, Ordering::SeqCst) + 1;
            if work.waits {
                self.pass(turn);
            } else {
                LEADING.set(Some((Arc::clone(self), turn)));
                if !self.watching.swap(true, Ordering::SeqCst) {
                    self.monitor.unpark();
                }
            }
            self.server.run(work);
            LEADING.set(None);
            if self.turn.compare_exchange(turn, turn + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                return true;
            }
            called = true;
        }
    }

    /// Makes sure that a thread is there to take the lead.
    fn follower(self: &Arc<Self>) -> bool {
        let state = self.state.lock();
        if state.idle > 0 {
            return true;
        }
        let room = state.threads < MOST;
        drop(state);
        room && self.spawn().is_ok()
    }

    /// Lets another thread take the lead, if the turn is still this one.
    fn pass(&self, turn: u64) {
        if self.turn.compare_exchange(turn, turn + 1, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            self.state.lock().vacancy = true;
            self.vacant.notify_one();
        }
    }

    /// The body of the monitor: passes the lead on when a call has had its share.
    fn watch(&self) {
        loop {
            while !self.watching.load(Ordering::Acquire) {
                thread::park();
            }
            // The turn that is looked at, since when, and the processor time by then.
            let mut seen = (0, Instant::now(), Duration::ZERO);
            let mut quiet = 0;
            while quiet < QUIET {
                thread::sleep(TICK);
                let turn = self.turn.load(Ordering::Acquire);
                if turn.is_multiple_of(2) {
                    quiet += 1;
                    continue;
                }
                quiet = 0;
                let used = processor_time(self.leader.load(Ordering::Relaxed));
                if turn != seen.0 {
                    seen = (turn, Instant::now(), used);
                } else if used.saturating_sub(seen.2) >= SHARE || seen.1.elapsed() >= PATIENCE {
                    self.pass(turn);
                }
            }
            self.watching.store(false, Ordering::SeqCst);
            // A call may have begun between the last look and that.
            if !self.turn.load(Ordering::SeqCst).is_multiple_of(2) {
                self.watching.store(true, Ordering::SeqCst);
            }
        }
    }
}

/// Lets another thread read while this one waits, if it has the lead.
pub(super) fn step_aside() {
    // Taken out, because a wait may come within a wait.
    if let Some((pool, turn)) = LEADING.take() {
        pool.pass(turn);
    }
}

/// The processor time that a thread of this process has used.
fn processor_time(thread: i32) -> Duration {
    ThreadClock::of(thread).read().unwrap_or_default()
}
