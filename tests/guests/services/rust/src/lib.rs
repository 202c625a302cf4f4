//! The test guest that every language has for the services of the host.

#[quadriga_sdk::extension]
mod services {
    use std::sync::{Mutex, PoisonError};

    use quadriga_sdk::host::data::{Is, Query};
    use quadriga_sdk::host::kv::{self, Put};
    use quadriga_sdk::{Delivery, Emitted, Error, Event, Overflow, Subscribe, Value, host};

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

    /// Fails as often as it is told to, and says which attempt it is then.
    pub fn keep(event: Event<u32>) -> Result<(), Error> {
        let attempt = event.attempt.unwrap_or(0);
        if attempt <= event.data {
            return Err(Error::new(format!("no {attempt}")));
        }
        let mut heard = HEARD.lock().unwrap_or_else(PoisonError::into_inner);
        heard.push((event.id.unwrap_or_default(), None, Value::Int(attempt.into())));
        Ok(())
    }

    pub fn listen_kept(topic: String) -> Result<(), Error> {
        let (delivery, first_delay) = (Delivery::AtLeastOnce, Some("1ms".to_owned()));
        let kept = Subscribe { delivery, first_delay, attempts: Some(4), ..Subscribe::default() };
        host::subscribe_with(&topic, "keep", &kept)
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

    /// Counts on from what is there, whatever others do meanwhile.
    pub fn count(key: String, times: u32) -> Result<(), Error> {
        let mut done = 0;
        while done < times {
            let entry = kv::entry::<i64>(&key)?;
            let (value, version) = entry.map_or((0, 0), |entry| (entry.value, entry.version));
            let put = Put { version: Some(version), ..Put::default() };
            done += u32::from(kv::put_with(&key, value + 1, put)?);
        }
        Ok(())
    }

    /// Has a value in another place, if there is one and nothing is there yet.
    pub fn relocate(key: String, to: (String, String)) -> Result<bool, Error> {
        let Some(entry) = kv::entry::<Value>(&key)? else { return Ok(false) };
        let put = Put { version: Some(0), ..Put::default() };
        kv::Batch::new().delete_if(key, entry.version).put_with(to, entry.value, put).commit()
    }

    pub fn brief(key: String, value: Value) -> Result<bool, Error> {
        let put = Put { ttl: Some(std::time::Duration::from_millis(50)), ..Put::default() };
        kv::put_with(key, value, put)
    }

    pub fn page(namespace: String, most: usize) -> Result<Vec<(String, Value)>, Error> {
        let entries = kv::entries::<Value>((namespace, ""), None, Some(most))?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    pub fn share(store: String, key: String, value: Value) -> Result<(), Error> {
        kv::store(store).put(("shared", key), value)
    }

    pub fn shared(store: String) -> Result<Vec<(String, Value)>, Error> {
        let entries = kv::store(store).entries::<Value>(("shared", ""), None, None)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }

    pub fn older(age: i64, fields: Option<Vec<String>>) -> Result<Vec<Value>, Error> {
        let query = Query::new("people").filter("age", Is::Above, age)?.order_by_descending("age");
        let query = match fields {
            Some(fields) => query.fields(fields),
            None => query,
        };
        Ok(query.page()?.rows)
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
