//! Starts programs as any Rust program does.

#[quadriga_sdk::extension]
mod programs {
    use std::io;
    use std::process::Command;

    /// Runs a program to its end, and says its status and what it printed.
    pub fn run(argv: Vec<String>) -> io::Result<String> {
        let (program, arguments) = argv.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let done = Command::new(program).args(arguments).output()?;
        let text = |bytes| String::from_utf8(bytes).unwrap_or_default();
        let status = done.status.code().unwrap_or(-1);
        Ok(format!("{status} {}{}", text(done.stdout), text(done.stderr)))
    }
}
