//! A component that uses what the standard library gets from WASI, and holds memory and state.

#[quadriga_sdk::extension]
mod wasi {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::{Duration, Instant, SystemTime};
    use std::{env, fs, hint, io, process, thread};

    use quadriga_sdk::{Error, host};

    static CALLS: AtomicU32 = AtomicU32::new(0);

    /// Reads a file.
    pub fn read(path: &str) -> io::Result<String> {
        fs::read_to_string(path)
    }

    /// Writes a file.
    pub fn write(path: &str, text: &str) -> io::Result<()> {
        fs::write(path, text)
    }

    /// Returns an environment variable.
    pub fn env(name: &str) -> Option<String> {
        env::var(name).ok()
    }

    /// Prints to both streams.
    #[expect(clippy::print_stdout, clippy::print_stderr, reason = "that is what it tests")]
    pub fn print(text: &str) {
        println!("{text}");
        eprint!("{text}");
    }

    /// Sleeps, and returns how long.
    pub fn sleep(milliseconds: u64) -> u64 {
        thread::sleep(Duration::from_millis(milliseconds));
        milliseconds
    }

    /// Reads the time so often: nanoseconds since 1970.
    pub fn wall(times: u32) -> Vec<u64> {
        let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        (0..times).map(|_| now().as_nanos() as u64).collect()
    }

    /// Reads the other clock so often: nanoseconds since the first look.
    pub fn monotonic(times: u32) -> Vec<u64> {
        let begun = Instant::now();
        (0..times).map(|_| begun.elapsed().as_nanos() as u64).collect()
    }

    /// Fills so many MiB, and returns how many bytes that were.
    pub fn hold(mebibytes: usize) -> usize {
        hint::black_box(vec![1_u8; mebibytes << 20]).len()
    }

    /// Fills so many MiB and, while it has them, lets another extension fill more.
    pub fn hold_both(mebibytes: usize, extension: &str, more: usize) -> Result<usize, Error> {
        let held = hint::black_box(vec![1_u8; mebibytes << 20]);
        let others: usize = host::call(extension, "hold", (more,))?;
        Ok(hint::black_box(held).len() + others)
    }

    /// Calls itself so often.
    pub fn recurse(depth: u64) -> u64 {
        if depth == 0 { 0 } else { hint::black_box(recurse(hint::black_box(depth - 1))) + 1 }
    }

    /// Counts the calls that reached this instance before.
    pub fn count() -> u32 {
        CALLS.fetch_add(1, Ordering::Relaxed)
    }

    /// Ends the program.
    pub fn exit(status: i32) {
        process::exit(status);
    }
}
