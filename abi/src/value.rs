use serde::de::{self, Deserialize, DeserializeOwned, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::codec;
use crate::msgpack::{Depth, Reader, Token, write};

/// Any value that can cross between languages. docs/values.md says what each becomes where.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer that fits an `i64`.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A 64-bit float.
    Float(f64),
    /// Text.
    Text(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    List(Vec<Self>),
    /// Pairs in the order they were written; keys may be any value.
    Map(Vec<(Self, Self)>),
    /// A point in time.
    Timestamp(Timestamp),
}

/// Why bytes are no value, or a value cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ValueError {
    /// The bytes end inside a value.
    #[error("the value is cut off")]
    Truncated,
    /// The one MessagePack marker that means nothing.
    #[error("the byte 0xc1 starts no value")]
    Reserved,
    /// An extension type other than the timestamp.
    #[error("MessagePack extension type {0} is not in the value table")]
    Extension(i8),
    /// A timestamp whose parts are out of range.
    #[error("the timestamp is malformed")]
    Timestamp,
    /// Text that is not UTF-8.
    #[error("the text is not UTF-8")]
    NotUtf8,
    /// Nested beyond [`MAX_DEPTH`](crate::msgpack::MAX_DEPTH).
    #[error("the value is nested deeper than 128 levels")]
    TooDeep,
    /// A text, list or map of 4 GiB or more.
    #[error("a part of the value is 4 GiB or larger")]
    TooLarge,
    /// Bytes after the value.
    #[error("{0} bytes follow the value")]
    Trailing(usize),
}

/// Nanoseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: u32,
}

impl Value {
    /// Decodes exactly one value.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ValueError> {
        let mut reader = Reader::new(bytes);
        let value = Self::read(&mut reader, Depth::default())?;
        reader.finish()?;
        Ok(value)
    }

    /// Encodes as MessagePack.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ValueError> {
        let mut out = Vec::new();
        self.write(&mut out, Depth::default())?;
        Ok(out)
    }

    /// What a Rust value is as a value of the table.
    ///
    /// # Errors
    /// If it has no place in the table.
    pub fn of<T: Serialize + ?Sized>(value: &T) -> Result<Self, codec::EncodeError> {
        let bytes = codec::to_bytes(value)?;
        Self::from_bytes(&bytes).map_err(serde::ser::Error::custom)
    }

    /// The value as a Rust type.
    ///
    /// # Errors
    /// If it does not fit the type.
    pub fn to<T: DeserializeOwned>(&self) -> Result<T, codec::DecodeError> {
        codec::from_bytes(&self.to_bytes()?)
    }

    fn read(reader: &mut Reader<'_>, depth: Depth) -> Result<Self, ValueError> {
        Ok(match reader.token()? {
            Token::Nil => Self::Nil,
            Token::Bool(b) => Self::Bool(b),
            Token::Int(n) => Self::Int(n),
            Token::UInt(n) => Self::UInt(n),
            Token::Float(x) => Self::Float(x),
            Token::Text(text) => Self::Text(text.to_owned()),
            Token::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
            Token::Timestamp(timestamp) => Self::Timestamp(timestamp),
            Token::List(n) => {
                let depth = depth.enter()?;
                (0..n).map(|_| Self::read(reader, depth)).collect::<Result<_, _>>().map(Self::List)?
            }
            Token::Map(n) => {
                let depth = depth.enter()?;
                let pair = |_| Ok((Self::read(reader, depth)?, Self::read(reader, depth)?));
                (0..n).map(pair).collect::<Result<_, ValueError>>().map(Self::Map)?
            }
        })
    }

    fn write(&self, out: &mut Vec<u8>, depth: Depth) -> Result<(), ValueError> {
        match self {
            Self::Nil => write(out, Token::Nil),
            Self::Bool(b) => write(out, Token::Bool(*b)),
            Self::Int(n) => write(out, Token::Int(*n)),
            Self::UInt(n) => write(out, Token::UInt(*n)),
            Self::Float(x) => write(out, Token::Float(*x)),
            Self::Text(text) => write(out, Token::Text(text)),
            Self::Bytes(bytes) => write(out, Token::Bytes(bytes)),
            Self::Timestamp(timestamp) => write(out, Token::Timestamp(*timestamp)),
            Self::List(items) => {
                let depth = depth.enter()?;
                write(out, Token::List(items.len()))?;
                items.iter().try_for_each(|item| item.write(out, depth))
            }
            Self::Map(pairs) => {
                let depth = depth.enter()?;
                write(out, Token::Map(pairs.len()))?;
                pairs.iter().try_for_each(|(key, value)| {
                    key.write(out, depth)?;
                    value.write(out, depth)
                })
            }
        }
    }
}

impl Timestamp {
    /// `nanos` counts forward from `seconds` and is below 1,000,000,000.
    pub fn new(seconds: i64, nanos: u32) -> Result<Self, ValueError> {
        if nanos < 1_000_000_000 { Ok(Self { seconds, nanos }) } else { Err(ValueError::Timestamp) }
    }

    /// Whole seconds, rounded towards the past.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds after [`Timestamp::seconds`].
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    pub(crate) fn from_extension(data: &[u8]) -> Result<Self, ValueError> {
        match *data {
            [a, b, c, d] => Self::new(u32::from_be_bytes([a, b, c, d]).into(), 0),
            [_, _, _, _, _, _, _, _] => {
                let word = data.iter().fold(0_u64, |word, &byte| word << 8 | u64::from(byte));
                // 30 bits of nanoseconds, then 34 bits of seconds: both casts fit.
                Self::new((word & ((1 << 34) - 1)) as i64, (word >> 34) as u32)
            }
            [a, b, c, d, s0, s1, s2, s3, s4, s5, s6, s7] => Self::new(
                i64::from_be_bytes([s0, s1, s2, s3, s4, s5, s6, s7]),
                u32::from_be_bytes([a, b, c, d]),
            ),
            _ => Err(ValueError::Timestamp),
        }
    }

    /// The bytes of the shortest of the three forms, and how many of them count.
    pub(crate) fn to_extension(self) -> ([u8; 12], usize) {
        let mut data = [0; 12];
        let n = match (u64::try_from(self.seconds), self.nanos) {
            (Ok(seconds), 0) if seconds <= u32::MAX.into() => {
                data[..4].copy_from_slice(&(seconds as u32).to_be_bytes());
                4
            }
            (Ok(seconds), nanos) if seconds < 1 << 34 => {
                data[..8].copy_from_slice(&(u64::from(nanos) << 34 | seconds).to_be_bytes());
                8
            }
            _ => {
                data[..4].copy_from_slice(&self.nanos.to_be_bytes());
                data[4..].copy_from_slice(&self.seconds.to_be_bytes());
                12
            }
        };
        (data, n)
    }
}

/// The name by which rmp-serde passes MessagePack extension types through serde.
pub(crate) const EXTENSION: &str = rmp_serde::MSGPACK_EXT_STRUCT_NAME;

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let (data, n) = self.to_extension();
        serializer.serialize_newtype_struct(EXTENSION, &(-1_i8, serde_bytes::Bytes::new(&data[..n])))
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Extension;
        impl<'de> Visitor<'de> for Extension {
            type Value = Timestamp;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a timestamp")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<Timestamp, D::Error> {
                let (kind, data) = <(i8, serde_bytes::ByteBuf)>::deserialize(d)?;
                if kind != -1 {
                    return Err(de::Error::custom(crate::ValueError::Extension(kind)));
                }
                Timestamp::from_extension(&data).map_err(de::Error::custom)
            }
        }
        deserializer.deserialize_newtype_struct(EXTENSION, Extension)
    }
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nil => serializer.serialize_unit(),
            Self::Bool(b) => serializer.serialize_bool(*b),
            Self::Int(n) => serializer.serialize_i64(*n),
            Self::UInt(n) => serializer.serialize_u64(*n),
            Self::Float(x) => serializer.serialize_f64(*x),
            Self::Text(text) => serializer.serialize_str(text),
            Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
            Self::List(items) => items.serialize(serializer),
            Self::Map(pairs) => {
                let mut map = serializer.serialize_map(Some(pairs.len()))?;
                pairs.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
                map.end()
            }
            Self::Timestamp(timestamp) => timestamp.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value of the value table")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nil)
    }

    fn visit_bool<E>(self, b: bool) -> Result<Value, E> {
        Ok(Value::Bool(b))
    }

    fn visit_i64<E>(self, n: i64) -> Result<Value, E> {
        Ok(Value::Int(n))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Value, E> {
        Ok(i64::try_from(n).map_or(Value::UInt(n), Value::Int))
    }

    fn visit_f64<E>(self, x: f64) -> Result<Value, E> {
        Ok(Value::Float(x))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Text(text.to_owned()))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Value, E> {
        Ok(Value::Bytes(bytes.to_vec()))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let (kind, data) = <(i8, serde_bytes::ByteBuf)>::deserialize(deserializer)?;
        if kind != -1 {
            return Err(de::Error::custom(ValueError::Extension(kind)));
        }
        Timestamp::from_extension(&data).map(Value::Timestamp).map_err(de::Error::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut pairs: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(pair) = pairs.next_entry()? {
            map.push(pair);
        }
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::{Timestamp, Value, ValueError};

    pub(crate) fn any_value() -> impl Strategy<Value = Value> {
        let timestamp = (any::<i64>(), 0..1_000_000_000_u32)
            .prop_map(|(seconds, nanos)| Value::Timestamp(Timestamp::new(seconds, nanos).unwrap()));
        let leaf = prop_oneof![
            Just(Value::Nil),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::Int),
            (i64::MAX as u64 + 1..).prop_map(Value::UInt),
            any::<f64>().prop_filter("NaN equals nothing", |x| !x.is_nan()).prop_map(Value::Float),
            ".*".prop_map(Value::Text),
            any::<Vec<u8>>().prop_map(Value::Bytes),
            timestamp,
        ];
        leaf.prop_recursive(6, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::List),
                prop::collection::vec((inner.clone(), inner), 0..8).prop_map(Value::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn values_read_back(value in any_value()) {
            let bytes = value.to_bytes().unwrap();
            prop_assert_eq!(&Value::from_bytes(&bytes).unwrap(), &value);
            prop_assert_eq!(&crate::codec::from_bytes::<Value>(&bytes).unwrap(), &value);
            prop_assert_eq!(&crate::codec::to_bytes(&value).unwrap(), &bytes);
            prop_assert_eq!(&rmp_serde::from_slice::<Value>(&bytes).unwrap(), &value);
            prop_assert_eq!(rmp_serde::to_vec(&value).unwrap(), bytes);
        }

        #[test]
        fn any_bytes_decode_or_fail(bytes in any::<Vec<u8>>()) {
            let _ = Value::from_bytes(&bytes);
            let _ = crate::msgpack::Reader::new(&bytes).skip();
        }
    }

    #[test]
    fn depth_is_limited() {
        let nest = |levels| (0..levels).fold(Value::Nil, |value, _| Value::List(vec![value]));
        let bytes = nest(128).to_bytes().unwrap();
        assert_eq!(Value::from_bytes(&bytes).unwrap(), nest(128));
        assert_eq!(nest(129).to_bytes(), Err(ValueError::TooDeep));
        let deeper = [&[0x91], &bytes[..]].concat();
        assert_eq!(Value::from_bytes(&deeper), Err(ValueError::TooDeep));
    }

    #[test]
    fn malformed_bytes_are_refused() {
        let cases: [(&[u8], ValueError); 9] = [
            (b"", ValueError::Truncated),
            (b"\xc1", ValueError::Reserved),
            (b"\xdd\xff\xff\xff\xff", ValueError::Truncated),
            (b"\xdf\x00\x00\x00\x02\x01\x01", ValueError::Truncated),
            (b"\xc4\x05abc", ValueError::Truncated),
            (b"\xa2\xff\xfe", ValueError::NotUtf8),
            (b"\xd4\x05\x00", ValueError::Extension(5)),
            (b"\xd4\xff\x00", ValueError::Timestamp),
            (b"\x01\x02", ValueError::Trailing(1)),
        ];
        for (bytes, error) in cases {
            assert_eq!(Value::from_bytes(bytes), Err(error), "{bytes:x?}");
        }
    }
}
