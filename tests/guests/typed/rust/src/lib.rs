//! A guest with a contract: its types derive a schema.

#[quadriga_sdk::extension]
mod typed {
    use std::collections::BTreeMap;

    use quadriga_sdk::serde::{Deserialize, Serialize};
    use quadriga_sdk::{JsonSchema, Timestamp};

    /// Someone.
    #[derive(Deserialize, Serialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Person {
        name: String,
        age: Option<i64>,
        tags: Vec<String>,
        friends: Vec<Person>,
    }

    /// What is known of data.
    #[derive(Serialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Measured {
        size: u64,
        at: Timestamp,
        counts: BTreeMap<String, u64>,
    }

    /// Says that it is an integer, and is none.
    #[derive(Serialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Lie(#[schemars(with = "i64")] String);

    /// Greets someone, perhaps more than once.
    pub fn greet(person: Person, times: Option<usize>) -> String {
        vec![format!("Hello, {}", person.name); times.unwrap_or(1)].join("; ")
    }

    /// Returns someone who is older, and the friends with them.
    pub fn older(mut person: Person, years: i64) -> Person {
        person.age = Some(person.age.unwrap_or(0) + years);
        person.friends = person.friends.into_iter().map(|friend| older(friend, years)).collect();
        person
    }

    /// Tells the size of data, and when it came.
    pub fn measure(data: &[u8], at: Timestamp) -> Measured {
        let mut counts = BTreeMap::new();
        for byte in data {
            *counts.entry(byte.to_string()).or_default() += 1;
        }
        Measured { size: data.len() as u64, at, counts }
    }

    /// Returns something else than it says.
    pub fn lie() -> Lie {
        Lie("no number".to_owned())
    }
}
