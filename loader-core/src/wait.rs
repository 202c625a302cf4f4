//! How a thread waits for a future.

use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

/// How long to look before sleeping: about as long as it takes to be woken.
const PATIENCE: Duration = Duration::from_micros(20);

/// Looks between two looks at the clock.
const LOOKS: u32 = 32;

/// With one core, what is waited for can only go on once this thread makes way.
static ALONE: LazyLock<bool> = LazyLock::new(|| thread::available_parallelism().is_ok_and(|n| n.get() == 1));

/// Runs a future to its end on the calling thread, which must be one that may block.
///
/// The answer of an extension on another thread is often there in less time than it takes to put
/// this thread to sleep and wake it. So it looks for some 20 µs first, and sleeps then.
///
/// ```
/// assert_eq!(quadriga_core::block_on(async { 42 }), 42);
/// ```
pub fn block_on<F: Future>(future: F) -> F::Output {
    // A task that blocks never gives its budget back: what it waits for must not ask it to yield.
    let mut future = pin!(tokio::task::unconstrained(future));
    let bell = Arc::new(Bell { rang: AtomicBool::new(false), thread: thread::current() });
    let waker = Waker::from(Arc::clone(&bell));
    let mut context = Context::from_waker(&waker);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
        bell.wait();
    }
}

struct Bell {
    rang: AtomicBool,
    thread: Thread,
}

impl Bell {
    fn wait(&self) {
        if !*ALONE && self.look() {
            return;
        }
        while !self.rang.swap(false, Ordering::Acquire) {
            thread::park();
        }
    }

    /// Whether it rang while looked at.
    fn look(&self) -> bool {
        let begun = Instant::now();
        loop {
            for _ in 0..LOOKS {
                if self.rang.load(Ordering::Relaxed) && self.rang.swap(false, Ordering::Acquire) {
                    return true;
                }
                std::hint::spin_loop();
            }
            if begun.elapsed() > PATIENCE {
                return false;
            }
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.thread.unpark();
    }
}
