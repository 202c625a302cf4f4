//! A client of typed.python 1.2.0. `quadriga bindgen` wrote it: do not edit.
//!
//! Load typed.python before calling it.
#![allow(dead_code, missing_docs, unreachable_pub, unused_imports, clippy::all)]

use std::collections::BTreeMap;

use quadriga::Dispatcher;
use quadriga::abi::{Error, Timestamp, Value};
use serde::{Deserialize, Serialize};

/// The extension that is called.
pub const EXTENSION: &str = "typed.python";

/// Someone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Person {
    pub name: String,
    pub tags: Vec<String>,
    pub friends: Vec<Person>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age: Option<i64>,
}

/// Someone.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PersonResult {
    pub name: String,
    pub tags: Vec<String>,
    pub friends: Vec<PersonResult>,
    pub age: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub size: i64,
    pub at: Timestamp,
    pub counts: BTreeMap<String, i64>,
}

/// The extension behind a dispatcher.
#[derive(Clone)]
pub struct Client {
    dispatcher: Dispatcher,
}

impl Client {
    /// Calls through a dispatcher that has loaded the extension.
    pub fn new(dispatcher: &Dispatcher) -> Self {
        Self { dispatcher: dispatcher.clone() }
    }

    /// Greets someone, perhaps more than once.
    pub async fn greet(&self, person: &Person, times: Option<i64>) -> Result<String, Error> {
        if times.is_some() {
            return self.dispatcher.invoke(EXTENSION, "greet", &(person, times,)).await;
        }
        self.dispatcher.invoke(EXTENSION, "greet", &(person,)).await
    }

    /// Returns someone who is older, and the friends with them.
    pub async fn older(&self, person: &Person, years: i64) -> Result<PersonResult, Error> {
        self.dispatcher.invoke(EXTENSION, "older", &(person, years,)).await
    }

    /// Tells the size of data, and when it came.
    pub async fn measure(&self, data: &[u8], at: Timestamp) -> Result<Measured, Error> {
        self.dispatcher.invoke(EXTENSION, "measure", &(data, at,)).await
    }

    /// Returns something else than it says.
    pub async fn lie(&self) -> Result<i64, Error> {
        self.dispatcher.invoke(EXTENSION, "lie", &()).await
    }
}
