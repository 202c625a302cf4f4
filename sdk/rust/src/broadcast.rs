use quadriga_abi::{ErrorCode, Value};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Error, Result};

/// For whom a broadcast is: the extensions for which all that is said here holds.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct To {
    /// What runs them: `javascript`, `python`, `webassembly`, `native`.
    pub runtime: Option<String>,
    /// One of the `tags` in their manifests.
    pub tag: Option<String>,
    /// A capability that they provide, such as `cache` or `cache@^1.2`.
    pub provides: Option<String>,
    /// Seconds that all of it may take; 30 if left out.
    pub timeout: Option<f64>,
    /// Seconds that each extension may take.
    pub each: Option<f64>,
    /// How many are called at the same time, up to 64; 16 if left out.
    pub parallel: Option<usize>,
}

/// What one extension answered to a broadcast.
#[derive(Debug)]
pub struct Answer<R> {
    /// Its id.
    pub extension: String,
    /// Its result, or why there is none: also if it is no `R`.
    pub result: Result<R>,
}

/// The same as it comes.
#[derive(Deserialize)]
pub(crate) struct Answered {
    extension: String,
    #[serde(default, deserialize_with = "present")]
    value: Option<Value>,
    #[serde(default)]
    error: Option<Failed>,
}

#[derive(Deserialize)]
struct Failed {
    code: String,
    message: String,
    hint: Option<String>,
}

/// Nil is a value too.
fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(from).map(Some)
}

impl<R: DeserializeOwned> From<Answered> for Answer<R> {
    fn from(Answered { extension, value, error }: Answered) -> Self {
        let result = match (value, error) {
            (_, Some(Failed { code, message, hint })) => {
                let error = Error::with_code(ErrorCode::from_text(&code), message);
                Err(match hint {
                    Some(hint) => error.with_hint(hint),
                    None => error,
                })
            }
            (value, None) => value.unwrap_or(Value::Nil).to().map_err(|error| {
                let message =
                    format!("the answer of {extension} is no {}: {error}", std::any::type_name::<R>());
                Error::with_code(ErrorCode::InvalidValue, message)
            }),
        };
        Self { extension, result }
    }
}
