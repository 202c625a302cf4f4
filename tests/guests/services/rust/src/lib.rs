//! The test guest that every language has for the services of the host.

#[quadriga_sdk::extension]
mod services {
    use std::sync::{Mutex, PoisonError};

    use quadriga_sdk::{Emitted, Error, Event, Overflow, Value, host};

    static HEARD: Mutex<Vec<(String, Option<String>, Value)>> = Mutex::new(Vec::new());

    pub fn tell(topic: String, data: Value) -> Result<Emitted, Error> {
        host::emit(&topic, data)
    }

    pub fn listen(topic: String) -> Result<(), Error> {
        host::subscribe(&topic, "hear", Overflow::DropOldest)
    }

    pub fn unlisten(topic: String) -> Result<bool, Error> {
        host::unsubscribe(&topic, "hear")
    }

    pub fn hear(event: Event<Value>) {
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push((event.topic, event.source, event.data));
    }

    pub fn heard() -> Vec<(String, Option<String>, Value)> {
        HEARD.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn get(key: String) -> Result<Option<Value>, Error> {
        host::kv::get(&key)
    }

    pub fn put(key: String, value: Value) -> Result<(), Error> {
        host::kv::put(&key, value)
    }

    pub fn remove(key: String) -> Result<bool, Error> {
        host::kv::delete(&key)
    }

    pub fn keys(prefix: String, after: Option<String>) -> Result<Vec<String>, Error> {
        host::kv::list(&prefix, after.as_deref())
    }

    pub fn secret(name: String) -> Result<String, Error> {
        host::secrets::get(&name)
    }

    /// What code that catches sees of a secret that it does not get.
    pub fn caught(name: String) -> Vec<String> {
        match host::secrets::get(&name) {
            Ok(_) => Vec::new(),
            Err(error) => vec![error.code.to_string(), error.message.clone()],
        }
    }

    /// Reads until that is denied, in one call.
    pub fn persist() -> String {
        for _ in 0..10_000_000 {
            if let Err(error) = host::kv::get::<Value>("k") {
                return error.code.to_string();
            }
        }
        "never".to_owned()
    }
}
