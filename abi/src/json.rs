//! Values as JSON and back. What JSON lacks is an object with one key, a tag.

use std::fmt;

use serde_json::{Map, Value as Json, json};

use crate::{Timestamp, Value};

/// Why JSON is no value: a tag with something else in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JsonError {
    place: String,
    why: &'static str,
}

impl JsonError {
    fn new(why: &'static str) -> Self {
        Self { place: String::new(), why }
    }

    fn under(self, outer: impl fmt::Display) -> Self {
        Self { place: format!("{outer}{}", self.place), ..self }
    }

    /// Where in the JSON it stands: `[0].key.$bytes[3]`; empty for the whole.
    pub fn place(&self) -> &str {
        self.place.strip_prefix('.').unwrap_or(&self.place)
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place(), self.why)
    }
}

impl std::error::Error for JsonError {}

impl Value {
    /// The value as JSON. Bytes become `{"$bytes": [...]}`, timestamps
    /// `{"$timestamp": [seconds, nanoseconds]}`, floats that JSON lacks `{"$float": "NaN"}`, and a
    /// map with keys other than text `{"$map": [[key, value], ...]}`.
    ///
    /// Two things do not show: a map whose only key is one of these tags looks like what the tag
    /// stands for, and of equal keys in a map the last one is left.
    pub fn to_json(&self) -> Json {
        match self {
            Self::Nil => Json::Null,
            Self::Bool(b) => json!(b),
            Self::Int(n) => json!(n),
            Self::UInt(n) => json!(n),
            Self::Float(x) if x.is_finite() => json!(x),
            Self::Float(x) => json!({ "$float": x.to_string() }),
            Self::Text(text) => json!(text),
            Self::Bytes(bytes) => json!({ "$bytes": bytes }),
            Self::Timestamp(t) => json!({ "$timestamp": [t.seconds(), t.nanos()] }),
            Self::List(items) => items.iter().map(Self::to_json).collect(),
            Self::Map(pairs) => {
                let texts = pairs.iter().map(|(key, value)| match key {
                    Self::Text(key) => Some((key.clone(), value.to_json())),
                    _ => None,
                });
                texts.collect::<Option<Map<_, _>>>().map_or_else(
                    || {
                        let pairs = pairs.iter().map(|(k, v)| json!([k.to_json(), v.to_json()]));
                        json!({ "$map": pairs.collect::<Vec<_>>() })
                    },
                    Json::Object,
                )
            }
        }
    }

    /// Reads what [`Value::to_json`] writes. A map whose only key is a tag has to come as a `$map`.
    ///
    /// # Errors
    /// If an object has a tag as its only key, and not in it what belongs there.
    pub fn from_json(json: Json) -> Result<Self, JsonError> {
        match json {
            Json::Array(items) => each(items, Self::from_json).map(Self::List),
            Json::Object(pairs) => object(pairs),
            plain => Ok(plain.into()),
        }
    }
}

impl From<Json> for Value {
    /// Plain JSON, where `$bytes` and its like are keys as any others. [`Value::from_json`] reads them.
    fn from(json: Json) -> Self {
        match json {
            Json::Null => Self::Nil,
            Json::Bool(b) => Self::Bool(b),
            Json::Number(n) => n
                .as_i64()
                .map(Self::Int)
                .or_else(|| n.as_u64().map(Self::UInt))
                .unwrap_or_else(|| Self::Float(n.as_f64().unwrap_or(f64::NAN))),
            Json::String(text) => Self::Text(text),
            Json::Array(items) => Self::List(items.into_iter().map(Self::from).collect()),
            Json::Object(pairs) => {
                Self::Map(pairs.into_iter().map(|(k, v)| (Self::Text(k), v.into())).collect())
            }
        }
    }
}

type Read = fn(Json) -> Result<Value, JsonError>;

const TAGS: [(&str, Read); 4] =
    [("$bytes", bytes), ("$timestamp", timestamp), ("$float", float), ("$map", map)];

fn object(mut object: Map<String, Json>) -> Result<Value, JsonError> {
    let only = object.keys().next().filter(|_| object.len() == 1);
    let tag = only.and_then(|key| TAGS.into_iter().find(|(tag, _)| tag == key));
    let within =
        |key: &str, read: Read, inner| read(inner).map_err(|error| error.under(format_args!(".{key}")));
    if let Some((tag, read)) = tag {
        return within(tag, read, object.remove(tag).unwrap_or_default());
    }
    let pair = |(key, value): (String, Json)| {
        let value = within(&key, Value::from_json, value)?;
        Ok((Value::Text(key), value))
    };
    object.into_iter().map(pair).collect::<Result<_, _>>().map(Value::Map)
}

fn bytes(json: Json) -> Result<Value, JsonError> {
    let byte = |item: Json| {
        let byte = item.as_u64().and_then(|byte| u8::try_from(byte).ok());
        byte.ok_or(JsonError::new("it is no integer from 0 to 255"))
    };
    match json {
        Json::Array(items) => each(items, byte).map(Value::Bytes),
        _ => Err(JsonError::new("it is no list of bytes")),
    }
}

fn timestamp(json: Json) -> Result<Value, JsonError> {
    let parts = json.as_array().and_then(|parts| match &parts[..] {
        [seconds, nanos] => Some((seconds.as_i64()?, u32::try_from(nanos.as_u64()?).ok()?)),
        _ => None,
    });
    let timestamp = parts.and_then(|(seconds, nanos)| Timestamp::new(seconds, nanos).ok());
    let wrong = JsonError::new("it is no list of two integers, seconds and nanoseconds below 1000000000");
    timestamp.map(Value::Timestamp).ok_or(wrong)
}

fn float(json: Json) -> Result<Value, JsonError> {
    match json.as_str() {
        Some("NaN") => Ok(Value::Float(f64::NAN)),
        Some("inf") => Ok(Value::Float(f64::INFINITY)),
        Some("-inf") => Ok(Value::Float(f64::NEG_INFINITY)),
        _ => Err(JsonError::new("it is none of \"NaN\", \"inf\" and \"-inf\"")),
    }
}

fn map(json: Json) -> Result<Value, JsonError> {
    let pair = |pair: Json| {
        let wrong = JsonError::new("it is no list of a key and a value");
        let Json::Array(pair) = pair else { return Err(wrong) };
        let pair = <[Value; 2]>::try_from(each(pair, Value::from_json)?).map_err(|_| wrong)?;
        Ok(pair.into())
    };
    match json {
        Json::Array(pairs) => each(pairs, pair).map(Value::Map),
        _ => Err(JsonError::new("it is no list of pairs")),
    }
}

/// Reads all items of a list, and says which one cannot be.
fn each<T>(items: Vec<Json>, read: impl Fn(Json) -> Result<T, JsonError>) -> Result<Vec<T>, JsonError> {
    let one = |(index, item)| read(item).map_err(|error| error.under(format_args!("[{index}]")));
    items.into_iter().enumerate().map(one).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::TAGS;
    use crate::Value;
    use crate::value::tests::any_value;

    /// Values in maps by text, as most are, some keys of which are tags.
    fn any_tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            any_value(),
            prop::sample::select(vec![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0])
                .prop_map(Value::Float),
        ];
        let key = prop_oneof![".*", prop::sample::select(TAGS.map(|(tag, _)| tag.to_owned()).to_vec())];
        leaf.prop_recursive(4, 32, 4, move |inner| {
            let by_text = prop::collection::btree_map(key.clone(), inner.clone(), 0..4);
            let map = |(key, value)| (Value::Text(key), value);
            prop_oneof![
                by_text.prop_map(move |pairs| Value::Map(pairs.into_iter().map(map).collect())),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Value::Map),
            ]
        })
    }

    /// Whether JSON shows all of a value: see [`Value::to_json`].
    fn shows(value: &Value) -> bool {
        match value {
            Value::List(items) => items.iter().all(shows),
            Value::Map(pairs) => {
                let text = |(key, _): &(Value, Value)| match key {
                    Value::Text(key) => Some(key.clone()),
                    _ => None,
                };
                let ambiguous = pairs.iter().map(text).collect::<Option<Vec<_>>>().is_some_and(|mut keys| {
                    let tag = keys.len() == 1 && TAGS.iter().any(|(tag, _)| *tag == keys[0]);
                    keys.sort();
                    tag || keys.windows(2).any(|two| two[0] == two[1])
                });
                !ambiguous && pairs.iter().all(|(key, value)| shows(key) && shows(value))
            }
            _ => true,
        }
    }

    proptest! {
        #[test]
        fn json_reads_back(value in any_tree().prop_filter("it does not show in JSON", shows)) {
            let again = Value::from_json(value.to_json()).unwrap();
            // By their bytes, as a NaN is not equal to itself.
            prop_assert_eq!(again.to_bytes(), value.to_bytes(), "{:?}", value);
        }
    }

    #[test]
    fn each_tag_is_written_and_read() {
        let text = |text: &str| Value::Text(text.into());
        let value = Value::Map(vec![
            (text("bytes"), Value::Bytes(vec![1, 2])),
            (text("nan"), Value::Float(f64::NAN)),
            (text("odd"), Value::Map(vec![(Value::Int(1), Value::Nil)])),
            (text("time"), Value::Timestamp(crate::Timestamp::new(-1, 5).unwrap())),
        ]);
        let json = r#"{"bytes":{"$bytes":[1,2]},"nan":{"$float":"NaN"},"odd":{"$map":[[1,null]]},"time":{"$timestamp":[-1,5]}}"#;
        assert_eq!(value.to_json().to_string(), json);
        let read = Value::from_json(serde_json::from_str(json).unwrap()).unwrap();
        assert_eq!(read.to_bytes(), value.to_bytes());
    }

    #[test]
    fn what_only_looks_like_a_tag() {
        let map = |key: &str, value| Value::Map(vec![(Value::Text(key.into()), value)]);
        // Such a map does not show as one, but can be said.
        let poses = map("$bytes", Value::List(vec![Value::Int(1)]));
        assert_eq!(Value::from_json(poses.to_json()), Ok(Value::Bytes(vec![1])));
        assert_eq!(Value::from_json(json!({ "$map": [["$bytes", [1]]] })), Ok(poses));
        assert_eq!(Value::from_json(json!({ "$other": 1 })), Ok(map("$other", Value::Int(1))));
        let two = json!({ "$bytes": [1], "$map": "a" });
        assert_eq!(Value::from_json(two.clone()), Ok(two.into()));
        assert_eq!(Value::from_json(json!({})), Ok(Value::Map(vec![])));
    }

    #[test]
    fn malformed_tags_are_refused_with_their_place() {
        let table = [
            (json!({ "$bytes": "YQ==" }), "$bytes: it is no list of bytes"),
            (json!([7, { "a": { "$bytes": [1, 256] } }]), "[1].a.$bytes[1]: it is no integer from 0 to 255"),
            (json!({ "$bytes": [-1] }), "$bytes[0]: it is no integer"),
            (json!({ "$bytes": [1.5] }), "$bytes[0]: it is no integer"),
            (json!([{ "$timestamp": "2020-01-01" }]), "[0].$timestamp: it is no list of two"),
            (json!({ "$timestamp": [1] }), "$timestamp: it is no list of two"),
            (json!({ "$timestamp": [1, 2, 3] }), "$timestamp: it is no list of two"),
            (json!({ "$timestamp": [1, -1] }), "$timestamp: it is no list of two"),
            (json!({ "$timestamp": [1, 1_000_000_000] }), "$timestamp: it is no list of two"),
            (json!({ "$timestamp": [u64::MAX, 0] }), "$timestamp: it is no list of two"),
            (json!({ "$float": 1.5 }), "$float: it is none of"),
            (json!({ "$float": "1.5" }), "$float: it is none of"),
            (json!({ "$map": { "a": 1 } }), "$map: it is no list of pairs"),
            (json!({ "$map": [[1, 2], [1]] }), "$map[1]: it is no list of a key"),
            (json!({ "$map": [[1, 2, 3]] }), "$map[0]: it is no list of a key"),
            (json!({ "$map": [7] }), "$map[0]: it is no list of a key"),
            (json!({ "$map": [[1, { "$float": 1 }]] }), "$map[0][1].$float: it is none of"),
        ];
        for (json, words) in table {
            let error = Value::from_json(json.clone()).unwrap_err().to_string();
            assert!(error.starts_with(words), "{json}: {error}");
        }
    }
}
