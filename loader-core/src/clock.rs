//! The processor time of threads, for runtimes that hold calls to a limit of it.
#![expect(unsafe_code, reason = "the clocks of threads have no safe interface")]

use std::time::Duration;

/// The clock of one thread of this process. It shows the processor time that the thread has used,
/// and stands while the thread waits.
#[derive(Debug, Clone, Copy)]
pub struct ThreadClock(libc::clockid_t);

impl ThreadClock {
    /// Whether this system has such clocks. Where it has none, the time of calls cannot be limited.
    pub const EXISTS: bool = cfg!(target_os = "linux");

    /// The clock of the calling thread, for any thread to read.
    pub fn current() -> Self {
        #[cfg(target_os = "linux")]
        // SAFETY: no precondition.
        let thread = unsafe { libc::gettid() };
        #[cfg(not(target_os = "linux"))]
        let thread = 0;
        Self::of(thread)
    }

    /// The clock of a thread by the number that the kernel gives it.
    pub fn of(thread: i32) -> Self {
        /// `CPUCLOCK_SCHED` and `CPUCLOCK_PERTHREAD_MASK` of the kernel, which are part of its ABI.
        const OF_THREAD: i32 = 2 | 4;
        Self((!thread << 3) | OF_THREAD)
    }

    /// What it shows; `None` if the thread is gone.
    pub fn read(self) -> Option<Duration> {
        if Self::EXISTS { read(self.0) } else { None }
    }

    /// What the clock of the calling thread shows, more quickly.
    pub fn now() -> Duration {
        read(libc::CLOCK_THREAD_CPUTIME_ID).unwrap_or_default()
    }
}

fn read(clock: libc::clockid_t) -> Option<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to `time` alone, and fails for a thread that is gone.
    let failed = unsafe { libc::clock_gettime(clock, &raw mut time) } != 0;
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    (!failed).then(|| Duration::new(time.tv_sec.unsigned_abs(), nanos))
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_clock_goes_while_its_thread_works_and_stands_while_it_waits() {
        let (tell, told) = mpsc::channel();
        let (go, wait) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            tell.send(ThreadClock::current()).unwrap();
            wait.recv().unwrap();
            let (begun, before) = (Instant::now(), ThreadClock::now());
            while ThreadClock::now() - before < Duration::from_millis(20) {
                assert!(begun.elapsed() < Duration::from_secs(20));
            }
            tell.send(ThreadClock::current()).unwrap();
            wait.recv().unwrap();
        });
        let clock = told.recv().unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let idle = clock.read().unwrap();
        assert!(idle < Duration::from_millis(20), "{idle:?}");
        go.send(()).unwrap();
        told.recv().unwrap();
        let worked = clock.read().unwrap() - idle;
        assert!(worked >= Duration::from_millis(20), "{worked:?}");
        go.send(()).unwrap();
        thread.join().unwrap();
        assert_eq!(clock.read(), None);
    }
}
