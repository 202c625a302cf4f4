//! The test guest that every language has: it echoes, computes, fails, and passes calls on.

#[quadriga_sdk::extension]
mod relay {
    use std::collections::HashMap;

    use quadriga_sdk::{Answer, Error, To, Value, host};

    /// An extension, its value, and its code.
    type Answered = (String, Option<Value>, Option<String>);

    const LANGUAGE: &str = if cfg!(target_family = "wasm") { "wasm" } else { "native" };

    /// Returns its argument.
    pub fn echo(value: Value) -> Value {
        value
    }

    /// Adds two integers.
    pub fn add(a: i64, b: i64) -> Result<i64, Error> {
        a.checked_add(b).ok_or_else(|| Error::new("the sum does not fit 64 bits"))
    }

    /// Greets someone, and says in which language.
    pub fn greet(name: &str) -> String {
        format!("Hello, {name}, from {LANGUAGE}")
    }

    /// Calls a method of another extension.
    pub fn relay(extension: &str, method: &str, args: Vec<Value>) -> Result<Value, Error> {
        host::call(extension, method, args)
    }

    /// Calls many at once, and lists what they answered: a value, or a code.
    pub fn broadcast(tag: Option<String>, method: &str, args: Vec<Value>) -> Result<Vec<Answered>, Error> {
        let to = To { tag, ..To::default() };
        let answers = host::broadcast(&to, method, args)?;
        let answered = |Answer { extension, result }| match result {
            Ok(value) => (extension, Some(value), None),
            Err(error) => (extension, None, Some(error.code.to_string())),
        };
        Ok(answers.into_iter().map(answered).collect())
    }

    /// Calls `chain` of the first extension with the rest, and lists the languages on the way.
    pub fn chain(path: Vec<String>) -> Result<Vec<String>, Error> {
        let mut languages = vec![LANGUAGE.to_owned()];
        if let Some((next, rest)) = path.split_first() {
            let further: Vec<String> = host::call(next, "chain", (rest,))?;
            languages.extend(further);
        }
        Ok(languages)
    }

    /// Fails with a message.
    pub fn fail(message: String) -> Result<(), Error> {
        Err(Error::new(message))
    }

    /// Panics, in a frame of its own.
    #[inline(never)]
    pub fn crash() {
        panic!("the guest panicked on purpose");
    }

    /// Never returns.
    pub fn spin() {
        loop {
            std::hint::spin_loop();
        }
    }

    /// Returns what no other language could read.
    pub fn unplaced() -> u128 {
        u128::MAX
    }

    /// Writes to the host's log.
    pub fn log(message: &str) {
        host::log::info(message);
    }

    /// Returns one of its settings.
    pub fn setting(name: &str) -> Result<Option<Value>, Error> {
        let mut settings: HashMap<String, Value> = host::config()?;
        Ok(settings.remove(name))
    }
}
