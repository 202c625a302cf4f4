use std::any::type_name;
use std::fmt::{self, Display};

use serde::ser::{self, Serialize, Serializer};

use super::byte;
use super::compound::Compound;
use crate::ValueError;
use crate::msgpack::{Depth, Token, write};
use crate::value::EXTENSION;

/// Appends a value that stands at a depth.
pub(super) fn append<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    depth: Depth,
) -> Result<(), EncodeError> {
    value.serialize(Encoder { out, depth })
}

/// Why a value cannot be written, and where in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodeError {
    /// Field names and indices, outermost first.
    path: String,
    message: String,
}

impl EncodeError {
    pub(super) fn inside(mut self, place: impl Display) -> Self {
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

pub(super) struct Encoder<'a> {
    pub(super) out: &'a mut Vec<u8>,
    pub(super) depth: Depth,
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
        if name == EXTENSION {
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
