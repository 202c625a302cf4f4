//! A client of typed.python 1.2.0. `quadriga bindgen` wrote it: do not edit.
//!
//! The manifest must ask for the calls: `[permissions] call = ["typed.python/*"]`.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports, clippy::all)]

use std::collections::BTreeMap;

use quadriga_sdk::serde::{Deserialize, Serialize};
use quadriga_sdk::{Items, Result, Timestamp, Value, host};

/// The extension that is called.
pub const EXTENSION: &str = "typed.python";

/// Someone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(crate = "quadriga_sdk::serde")]
pub struct Person {
    pub name: String,
    pub tags: Vec<String>,
    pub friends: Vec<Person>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
}

/// Someone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(crate = "quadriga_sdk::serde")]
pub struct PersonResult {
    pub name: String,
    pub tags: Vec<String>,
    pub friends: Vec<PersonResult>,
    pub age: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(crate = "quadriga_sdk::serde")]
pub struct Measured {
    pub size: i64,
    pub at: Timestamp,
    pub counts: BTreeMap<String, i64>,
}

/// Greets someone, perhaps more than once.
pub fn greet(person: &Person, times: Option<i64>) -> Result<String> {
    if times.is_some() {
        return host::call(EXTENSION, "greet", (person, times,));
    }
    host::call(EXTENSION, "greet", (person,))
}

/// Returns someone who is older, and the friends with them.
pub fn older(person: &Person, years: i64) -> Result<PersonResult> {
    host::call(EXTENSION, "older", (person, years,))
}

/// Tells the size of data, and when it came.
pub fn measure(data: &[u8], at: Timestamp) -> Result<Measured> {
    host::call(EXTENSION, "measure", (data, at,))
}

/// Returns something else than it says.
pub fn lie() -> Result<i64> {
    host::call(EXTENSION, "lie", ())
}
