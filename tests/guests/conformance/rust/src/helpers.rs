//! What the literals are written with.

use quadriga_sdk::serde::de::DeserializeOwned;
use quadriga_sdk::serde::ser::Error as _;
use quadriga_sdk::serde::{Deserialize, Serialize, Serializer};
use quadriga_sdk::{Error, Timestamp, Value};

use crate::literals;

/// Takes a literal of whatever type.
pub(crate) trait Take {
    type Out;

    fn take<T: Serialize + DeserializeOwned>(self, literal: T) -> Self::Out;
}

/// The literal of a case.
pub(crate) struct Named(pub(crate) String);

impl Named {
    /// Whether a value decodes as the literal's type, and is then the literal.
    pub(crate) fn matches(&self, value: &Value) -> Result<bool, Error> {
        let equal = literals::give(&self.0, Compare(value));
        equal.unwrap_or_else(|| Err(Error::new(format!("there is no case {}", self.0))))
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let written = literals::give(&self.0, Write(serializer));
        written.unwrap_or_else(|| Err(S::Error::custom(format_args!("there is no case {}", self.0))))
    }
}

struct Write<S>(S);

impl<S: Serializer> Take for Write<S> {
    type Out = Result<S::Ok, S::Error>;

    fn take<T: Serialize + DeserializeOwned>(self, literal: T) -> Self::Out {
        literal.serialize(self.0)
    }
}

struct Compare<'a>(&'a Value);

impl Take for Compare<'_> {
    type Out = Result<bool, Error>;

    fn take<T: Serialize + DeserializeOwned>(self, literal: T) -> Self::Out {
        let literal = Value::of(&literal)?.to_bytes()?;
        let received = Value::of(&self.0.to::<T>()?)?.to_bytes()?;
        Ok(received == literal && self.0.to_bytes()? == literal)
    }
}

pub(crate) fn text(text: &str) -> String {
    text.to_owned()
}

pub(crate) fn time(seconds: i64, nanos: u32) -> Timestamp {
    Timestamp::new(seconds, nanos).expect("the literals are in range")
}

/// A map in this order, of keys and values of any type.
pub(crate) fn map<K: Serialize, V: Serialize>(pairs: impl IntoIterator<Item = (K, V)>) -> Value {
    let value = |item: Result<Value, _>| item.expect("the literals have a place");
    Value::Map(pairs.into_iter().map(|(k, v)| (value(Value::of(&k)), value(Value::of(&v)))).collect())
}

pub(crate) fn nested(depth: usize) -> Value {
    (0..depth).fold(Value::Nil, |inner, _| Value::List(vec![inner]))
}

pub(crate) fn nested_maps(depth: usize) -> Value {
    (0..depth).fold(Value::Nil, |inner, _| map([("k", inner)]))
}

#[derive(Serialize, Deserialize)]
#[serde(crate = "quadriga_sdk::serde")]
pub(crate) struct Point {
    pub(crate) a: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(crate = "quadriga_sdk::serde")]
pub(crate) enum Shape {
    Point,
    Circle(u8),
}
