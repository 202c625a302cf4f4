//! The guest that takes its process with it.

#[quadriga_sdk::extension]
mod deadly {
    use std::io::Write as _;

    /// Ends the process as a failed assertion of C code does.
    pub fn abort() -> i64 {
        std::process::abort()
    }

    /// Ends the process with an exit code.
    pub fn exit(code: i32) -> i64 {
        std::process::exit(code)
    }

    /// Overflows the stack, which no unwinding catches.
    pub fn overflow(depth: u64) -> u64 {
        // Never so deep; but the compiler is not to know.
        if depth == u64::MAX {
            0
        } else {
            std::hint::black_box(overflow(std::hint::black_box(depth) + 1)) + 1
        }
    }

    /// Prints past the host's log, to both outputs.
    pub fn print(line: &str) -> bool {
        let out = writeln!(std::io::stdout(), "{line} to stdout").is_ok();
        out && writeln!(std::io::stderr(), "{line} to stderr").is_ok()
    }

    /// Goes on, whatever it is told.
    pub fn spin() -> i64 {
        loop {
            std::hint::spin_loop();
        }
    }

    /// Shows that it is alive.
    pub fn add(a: i64, b: i64) -> i64 {
        a + b
    }

    /// The names of the variables of its environment.
    pub fn variables() -> Vec<String> {
        std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).collect()
    }

    /// What its process has open: the targets of the links in `/proc/self/fd`.
    pub fn files() -> Vec<String> {
        let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
        let links = entries.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        links.map(|link| link.display().to_string()).collect()
    }
}
