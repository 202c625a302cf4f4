//! Numbers of calls.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How many numbers a thread takes at once.
const MANY: u64 = 1024;

/// Numbers the calls of one dispatcher, from 1 on. Threads take theirs in blocks, so that they do not
/// fight for one counter: a later call may have a lower number.
pub(crate) struct CallIds {
    /// Tells the dispatchers of this process apart.
    dispatcher: u64,
    untaken: AtomicU64,
}

/// What a thread has left of the block that it took last.
#[derive(Clone, Copy)]
struct Block {
    dispatcher: u64,
    next: u64,
    end: u64,
}

impl CallIds {
    pub(crate) fn new() -> Self {
        static DISPATCHERS: AtomicU64 = AtomicU64::new(1);
        Self { dispatcher: DISPATCHERS.fetch_add(1, Relaxed), untaken: AtomicU64::new(1) }
    }

    /// A number that no other call of this dispatcher has.
    #[inline]
    pub(crate) fn next(&self) -> u64 {
        thread_local! {
            static MINE: Cell<Block> = const { Cell::new(Block { dispatcher: 0, next: 0, end: 0 }) };
        }
        let mut block = MINE.get();
        if block.dispatcher != self.dispatcher || block.next == block.end {
            block = self.take();
        }
        MINE.set(Block { next: block.next + 1, ..block });
        block.next
    }

    #[cold]
    fn take(&self) -> Block {
        let next = self.untaken.fetch_add(MANY, Relaxed);
        Block { dispatcher: self.dispatcher, next, end: next + MANY }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use super::*;

    #[test]
    fn no_two_calls_of_a_dispatcher_have_one_number() {
        // More than one block each time, and each thread turns from one dispatcher to the other and back.
        let each = 2 * MANY as usize + 7;
        let dispatchers = [CallIds::new(), CallIds::new()];
        let numbers = || {
            let turns = [0, 1, 0, 1].into_iter().flat_map(|which| std::iter::repeat_n(which, each));
            turns.map(|which: usize| (which, dispatchers[which].next())).collect::<Vec<_>>()
        };
        let all: Vec<(usize, u64)> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(numbers)).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: HashSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), 4 * 4 * each);
        assert!(all.iter().all(|(_, number)| *number > 0), "0 stands for no call");
    }

    #[test]
    fn each_dispatcher_counts_from_one() {
        let (one, other) = (CallIds::new(), CallIds::new());
        assert_eq!([one.next(), one.next(), other.next(), other.next()], [1, 2, 1, 2]);
        // What was left of the block is not taken up again.
        assert_eq!(one.next(), 1 + MANY);
    }
}
