//! The test guest that every language has for programs that the host runs.

#[quadriga_sdk::extension]
mod process {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use quadriga_sdk::host::process::Program;
    use quadriga_sdk::{Error, Value};

    /// Has a program run, and says how it ended.
    pub fn run(
        program: String,
        args: Vec<String>,
        stdin: Option<String>,
        env: Option<BTreeMap<String, String>>,
        timeout: Option<f64>,
        folder: Option<String>,
    ) -> Result<Vec<Value>, Error> {
        let mut wanted = Program::new(program).args(args).stdin(stdin.unwrap_or_default());
        for (name, value) in env.unwrap_or_default() {
            wanted = wanted.env(name, value);
        }
        if let Some(seconds) = timeout {
            wanted = wanted.timeout(Duration::from_secs_f64(seconds));
        }
        if let Some(folder) = folder {
            wanted = wanted.folder(folder);
        }
        let ended = wanted.run()?;
        let number = |number: Option<i32>| number.map_or(Value::Nil, |number| Value::Int(number.into()));
        let [status, signal] = [ended.status, ended.signal].map(number);
        Ok(vec![status, signal, Value::Bytes(ended.stdout), Value::Bytes(ended.stderr)])
    }

    /// What code that catches sees of a program that it may not have run.
    pub fn caught(program: String) -> Vec<String> {
        match Program::new(program).run() {
            Ok(_) => Vec::new(),
            Err(error) => vec![error.code.to_string(), error.message.clone()],
        }
    }

    /// Has a program run again and again until that is denied, in one call.
    pub fn persist(program: String) -> String {
        for _ in 0..100_000 {
            if let Err(error) = Program::new(&program).run() {
                return error.code.to_string();
            }
        }
        "never".to_owned()
    }
}
