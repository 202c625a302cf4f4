//! Writes what serde can read out of a value as MessagePack, by the value table: structs as maps,
//! slices of `u8` as bytes, and an error where a value has no place in the table.

use std::any::type_name;
use std::fmt::{self, Display};

use quadriga_abi::ValueError;
use quadriga_abi::msgpack::{Depth, Token, write};
use serde::ser::{self, Serialize, Serializer};

use self::compound::Compound;

mod byte;
mod compound;

/// Appends a value.
pub(crate) fn value<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), EncodeError> {
    value.serialize(Encoder { out, depth: Depth::default() })
}

/// Why a value cannot be written, and where in it.
#[derive(Debug)]
pub(crate) struct EncodeError {
    /// Field names and indices, outermost first.
    path: String,
    message: String,
}

impl EncodeError {
    fn inside(mut self, place: impl Display) -> Self {
        self.path.insert_str(0, &place.to_string());
        self
    }
}

impl Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "at {}: ", self.path.trim_start_matches('.'))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for EncodeError {}

impl ser::Error for EncodeError {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: String::new(), message: message.to_string() }
    }
}

impl From<ValueError> for EncodeError {
    fn from(error: ValueError) -> Self {
        ser::Error::custom(error)
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    depth: Depth,
}

impl<'a> Encoder<'a> {
    fn token(self, token: Token<'_>) -> Result<(), EncodeError> {
        Ok(write(self.out, token)?)
    }

    fn list(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        Compound::start(self, len, false)
    }

    fn map(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        Compound::start(self, len, true)
    }

    /// An enum's variant with data: a map of one pair.
    fn variant(self, variant: &str) -> Result<Self, EncodeError> {
        let depth = self.depth.enter()?;
        write(self.out, Token::Map(1))?;
        write(self.out, Token::Text(variant))?;
        Ok(Self { out: self.out, depth })
    }
}

impl<'a> Serializer for Encoder<'a> {
    type Ok = ();
    type Error = EncodeError;
    type SerializeSeq = Compound<'a>;
    type SerializeTuple = Compound<'a>;
    type SerializeTupleStruct = Compound<'a>;
    type SerializeTupleVariant = Compound<'a>;
    type SerializeMap = Compound<'a>;
    type SerializeStruct = Compound<'a>;
    type SerializeStructVariant = Compound<'a>;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn serialize_bool(self, b: bool) -> Result<(), EncodeError> {
        self.token(Token::Bool(b))
    }

    fn serialize_i8(self, n: i8) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_i16(self, n: i16) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_i32(self, n: i32) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_i64(self, n: i64) -> Result<(), EncodeError> {
        self.token(Token::Int(n))
    }

    fn serialize_i128(self, n: i128) -> Result<(), EncodeError> {
        match (i64::try_from(n), u64::try_from(n)) {
            (Ok(n), _) => self.token(Token::Int(n)),
            (_, Ok(n)) => self.token(Token::UInt(n)),
            _ => Err(ser::Error::custom(format_args!("{n} does not fit 64 bits"))),
        }
    }

    fn serialize_u8(self, n: u8) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_u16(self, n: u16) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_u32(self, n: u32) -> Result<(), EncodeError> {
        self.token(Token::Int(n.into()))
    }

    fn serialize_u64(self, n: u64) -> Result<(), EncodeError> {
        self.token(Token::UInt(n))
    }

    fn serialize_u128(self, n: u128) -> Result<(), EncodeError> {
        match u64::try_from(n) {
            Ok(n) => self.token(Token::UInt(n)),
            Err(_) => Err(ser::Error::custom(format_args!("{n} does not fit 64 bits"))),
        }
    }

    fn serialize_f32(self, x: f32) -> Result<(), EncodeError> {
        self.token(Token::Float(x.into()))
    }

    fn serialize_f64(self, x: f64) -> Result<(), EncodeError> {
        self.token(Token::Float(x))
    }

    fn serialize_char(self, c: char) -> Result<(), EncodeError> {
        self.token(Token::Text(c.encode_utf8(&mut [0; 4])))
    }

    fn serialize_str(self, text: &str) -> Result<(), EncodeError> {
        self.token(Token::Text(text))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), EncodeError> {
        self.token(Token::Bytes(bytes))
    }

    fn serialize_none(self) -> Result<(), EncodeError> {
        self.token(Token::Nil)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), EncodeError> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<(), EncodeError> {
        self.token(Token::Nil)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), EncodeError> {
        self.token(Token::Nil)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), EncodeError> {
        self.token(Token::Text(variant))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        if name == rmp_serde::MSGPACK_EXT_STRUCT_NAME {
            // How a `Timestamp` comes: rmp-serde knows the rest of its convention.
            return rmp_serde::Serializer::new(self.out)
                .serialize_newtype_struct(name, value)
                .map_err(ser::Error::custom);
        }
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), EncodeError> {
        value.serialize(self.variant(variant)?).map_err(|error| error.inside(format_args!(".{variant}")))
    }

    fn serialize_seq(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        self.list(len)
    }

    fn serialize_tuple(self, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.list(Some(len))
    }

    fn serialize_tuple_struct(self, _: &'static str, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.list(Some(len))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        self.variant(variant)?.list(Some(len))
    }

    fn serialize_map(self, len: Option<usize>) -> Result<Compound<'a>, EncodeError> {
        self.map(len)
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Compound<'a>, EncodeError> {
        self.map(Some(len))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        len: usize,
    ) -> Result<Compound<'a>, EncodeError> {
        self.variant(variant)?.map(Some(len))
    }

    /// Slices of `u8` come here item by item: serde cannot tell them from other slices. The name of
    /// the iterator's type can; were it ever to change, bytes would go as a list of integers, which
    /// reads back as well.
    fn collect_seq<I>(self, items: I) -> Result<(), EncodeError>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        if type_name::<I::IntoIter>() == type_name::<std::slice::Iter<'_, u8>>() {
            let bytes =
                items.into_iter().map(|item| item.serialize(byte::Byte)).collect::<Result<Vec<_>, _>>()?;
            return self.token(Token::Bytes(&bytes));
        }
        let items = items.into_iter();
        let len = match items.size_hint() {
            (low, Some(high)) if low == high => Some(low),
            _ => None,
        };
        let mut list = self.list(len)?;
        for item in items {
            list.item(&item)?;
        }
        list.finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, HashSet};

    use quadriga_abi::{Timestamp, Value};
    use serde::{Deserialize, Serialize};

    use super::value;
    use crate::decode;

    fn encoded<T: Serialize + ?Sized>(item: &T) -> Value {
        let mut out = Vec::new();
        value(item, &mut out).unwrap();
        Value::from_bytes(&out).unwrap()
    }

    fn refused<T: Serialize + ?Sized>(item: &T) -> String {
        value(item, &mut Vec::new()).unwrap_err().to_string()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.to_owned())
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Record {
        name: String,
        body: Vec<u8>,
        kind: Kind,
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    enum Kind {
        Plain,
        Sized(u32),
        Named { at: i8 },
        Pair(bool, char),
    }

    #[test]
    fn bytes_travel_as_bytes() {
        let bytes = |bytes: &[u8]| Value::Bytes(bytes.to_vec());
        assert_eq!(encoded(&vec![1_u8, 2, 255]), bytes(&[1, 2, 255]));
        assert_eq!(encoded(&Vec::<u8>::new()), bytes(&[]));
        assert_eq!(encoded(&[7_u8][..]), bytes(&[7]));
        assert_eq!(encoded(&Some(vec![1_u8])), bytes(&[1]));
        assert_eq!(encoded(&vec![vec![1_u8]]), Value::List(vec![bytes(&[1])]));
        assert_eq!(encoded(&serde_bytes::Bytes::new(&[3])), bytes(&[3]));
        assert_eq!(encoded(&Value::Bytes(vec![3])), bytes(&[3]));
        let list = Value::List(vec![Value::Int(1)]);
        assert_eq!(encoded(&vec![1_u16]), list);
        assert_eq!(encoded(&HashSet::from([1_u8])), list);
        assert_eq!(encoded(&Vec::<Value>::new()), Value::List(vec![]));

        let out = Value::Bytes(vec![1, 2]).to_bytes().unwrap();
        assert_eq!(decode::value::<Vec<u8>>(&out).unwrap(), [1, 2]);
        assert_eq!(decode::value::<&[u8]>(&out).unwrap(), [1, 2]);
        assert_eq!(decode::value::<serde_bytes::ByteBuf>(&out).unwrap(), [1, 2]);
        assert_eq!(decode::value::<Vec<u8>>(&[0x91, 0x05]).unwrap(), [5]);
    }

    #[test]
    fn structs_and_enums_read_back() {
        let kinds = [Kind::Plain, Kind::Sized(7), Kind::Named { at: -1 }, Kind::Pair(true, 'ß')];
        for kind in kinds {
            let record = Record { name: "n".into(), body: vec![1], kind };
            let mut out = Vec::new();
            value(&record, &mut out).unwrap();
            assert_eq!(decode::value::<Record>(&out).unwrap(), record);
        }
        let map = Value::Map(vec![(text("at"), Value::Int(1))]);
        assert_eq!(encoded(&Kind::Named { at: 1 }), Value::Map(vec![(text("Named"), map)]));
        assert_eq!(encoded(&BTreeMap::from([(1, "x")])), Value::Map(vec![(Value::Int(1), text("x"))]));
    }

    #[test]
    fn scalars_take_their_place() {
        let now = Timestamp::new(1_700_000_000, 5).unwrap();
        assert_eq!(encoded(&now), Value::Timestamp(now));
        assert_eq!(encoded(&vec![Value::Timestamp(now)]), Value::List(vec![Value::Timestamp(now)]));
        assert_eq!(encoded(&()), Value::Nil);
        assert_eq!(encoded(&1.5_f32), Value::Float(1.5));
        assert_eq!(encoded(&u64::MAX), Value::UInt(u64::MAX));
        assert_eq!(encoded(&5_u128), Value::Int(5));
        assert_eq!(encoded(&i128::from(i64::MIN)), Value::Int(i64::MIN));
        assert_eq!(encoded(&(0..3).filter(|n| n % 2 == 0).collect::<Vec<_>>()), encoded(&[0, 2]));
    }

    #[test]
    fn what_has_no_place_is_refused_by_its_path() {
        assert_eq!(refused(&u128::MAX), format!("{} does not fit 64 bits", u128::MAX));
        let nested = BTreeMap::from([("sizes", vec![1, i128::MIN])]);
        assert_eq!(refused(&nested), format!("at sizes[1]: {} does not fit 64 bits", i128::MIN));
        let deep = (0..129).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
        assert!(refused(&deep).ends_with("the value is nested deeper than 128 levels"));
        let deepest = (0..128).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
        assert_eq!(encoded(&deepest), deepest);
        assert_eq!(decode::value::<Value>(&deepest.to_bytes().unwrap()).unwrap(), deepest);
        let deeper = [&[0x91], &deepest.to_bytes().unwrap()[..]].concat();
        assert!(decode::value::<Value>(&deeper).is_err());
    }

    #[test]
    fn lists_of_unknown_length_read_back() {
        struct Odd;
        impl Serialize for Odd {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_seq((0..5).filter(|n| n % 2 == 1))
            }
        }
        assert_eq!(encoded(&Odd), Value::List(vec![Value::Int(1), Value::Int(3)]));
    }
}
