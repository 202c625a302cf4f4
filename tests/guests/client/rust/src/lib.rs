//! Calls another extension through a client that bindgen wrote.

#[rustfmt::skip]
mod typed;

#[quadriga_sdk::extension]
mod client {
    use quadriga_sdk::{Error, Timestamp, Value};

    use super::typed::{Person, greet, lie, measure, older};

    /// Calls every method of the typed guest, and tells what came of it.
    pub fn visit(name: String) -> Result<Vec<Value>, Error> {
        let friend = Person {
            name: "Bob".to_owned(),
            tags: vec!["friend".to_owned()],
            friends: Vec::new(),
            age: None,
        };
        let person = Person { name, tags: Vec::new(), friends: vec![friend.clone()], age: Some(36) };
        let aged = older(&person, 1)?;
        let measured = measure(&[7, 7], Timestamp::new(1, 0)?)?;
        let refused = match lie() {
            Ok(number) => number.to_string(),
            Err(error) => error.code.to_string(),
        };
        let int = |number: Option<i64>| number.map_or(Value::Nil, Value::Int);
        Ok(vec![
            Value::Text(greet(&friend, None)?),
            Value::Text(greet(&person, Some(2))?),
            int(aged.age),
            int(aged.friends[0].age),
            Value::Int(measured.size),
            int(measured.counts.get("7").copied()),
            Value::Int(measured.at.seconds() * 1000),
            Value::Text(refused),
        ])
    }
}
