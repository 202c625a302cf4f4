//! Values as JSON, so that schemas can be compared with them.

use quadriga_abi::Value;
use serde_json::{Map, Number, Value as Json};

/// The key of the only pair that stands for a value that JSON lacks. A key of a guest's own that
/// starts like this gets another zero in front.
const MARK: char = '\0';

/// What a schema's `type` tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    Nil,
    Bool,
    Int,
    Float,
    Text,
    Bytes,
    Timestamp,
    List,
    Map,
}

/// The value as JSON. Bytes, timestamps and floats that JSON lacks become a map with one marked
/// key; keys that are no text become their JSON.
///
/// # Errors
/// Two keys of a map that are alike, which each language would read in another way.
pub(super) fn view(value: Value) -> Result<Json, String> {
    Ok(match value {
        Value::Nil => Json::Null,
        Value::Bool(b) => Json::Bool(b),
        Value::Int(n) => n.into(),
        Value::UInt(n) => n.into(),
        Value::Float(x) => Number::from_f64(x).map_or_else(|| marked(Sort::Float), Json::Number),
        Value::Text(text) => Json::String(text),
        Value::Bytes(_) => marked(Sort::Bytes),
        Value::Timestamp(_) => marked(Sort::Timestamp),
        Value::List(items) => Json::Array(items.into_iter().map(view).collect::<Result<_, _>>()?),
        Value::Map(pairs) => {
            let mut map = Map::new();
            for (key, value) in pairs {
                let key = match key {
                    Value::Text(text) if text.starts_with(MARK) => format!("{MARK}{text}"),
                    Value::Text(text) => text,
                    other => view(other)?.to_string(),
                };
                if map.contains_key(&key) {
                    return Err(format!("the key {key:?} stands twice in a map"));
                }
                map.insert(key, view(value)?);
            }
            Json::Object(map)
        }
    })
}

fn marked(sort: Sort) -> Json {
    Json::Object([(format!("{MARK}{}", sort.name()), Json::Null)].into_iter().collect())
}

impl Sort {
    /// What a view was before.
    pub(super) fn of(view: &Json) -> Self {
        match view {
            Json::Null => Self::Nil,
            Json::Bool(_) => Self::Bool,
            Json::Number(number) if number.is_f64() => Self::Float,
            Json::Number(_) => Self::Int,
            Json::String(_) => Self::Text,
            Json::Array(_) => Self::List,
            Json::Object(map) => match map.keys().next().and_then(|key| key.strip_prefix(MARK)) {
                Some("bytes") if map.len() == 1 => Self::Bytes,
                Some("timestamp") if map.len() == 1 => Self::Timestamp,
                Some("float") if map.len() == 1 => Self::Float,
                _ => Self::Map,
            },
        }
    }

    /// The word for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Nil => "nil",
            Self::Bool => "bool",
            Self::Int => "int",
            Self::Float => "float",
            Self::Text => "text",
            Self::Bytes => "bytes",
            Self::Timestamp => "timestamp",
            Self::List => "list",
            Self::Map => "map",
        }
    }
}

#[cfg(test)]
mod tests {
    use quadriga_abi::{Timestamp, Value};

    use super::{Sort, view};

    #[test]
    fn every_value_keeps_its_sort() {
        let text = |text: &str| Value::Text(text.to_owned());
        let cases = [
            (Value::Nil, Sort::Nil),
            (Value::Bool(true), Sort::Bool),
            (Value::Int(-1), Sort::Int),
            (Value::UInt(u64::MAX), Sort::Int),
            (Value::Float(1.0), Sort::Float),
            (Value::Float(f64::NAN), Sort::Float),
            (text("a"), Sort::Text),
            (Value::Bytes(vec![1]), Sort::Bytes),
            (Value::Timestamp(Timestamp::new(0, 0).unwrap()), Sort::Timestamp),
            (Value::List(vec![]), Sort::List),
            (Value::Map(vec![]), Sort::Map),
            (Value::Map(vec![(text("bytes"), Value::Nil)]), Sort::Map),
            // A map that poses as bytes.
            (Value::Map(vec![(text("\0bytes"), Value::Nil)]), Sort::Map),
        ];
        for (value, sort) in cases {
            assert_eq!(Sort::of(&view(value.clone()).unwrap()), sort, "{value:?}");
        }
    }

    #[test]
    fn keys_become_text_and_stand_once() {
        let map = Value::Map(vec![(Value::Int(1), Value::Nil), (Value::Bool(true), Value::Nil)]);
        assert_eq!(view(map).unwrap(), serde_json::json!({ "1": null, "true": null }));
        let twice = Value::Map(vec![(Value::Int(1), Value::Nil), (Value::Text("1".into()), Value::Nil)]);
        assert!(view(twice).unwrap_err().contains("\"1\""));
    }
}
