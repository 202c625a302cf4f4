use std::fmt::{self, Display};

use serde::de::{
    self, Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

use crate::msgpack::{Depth, Reader, STREAM_KIND, TIMESTAMP, Token};
use crate::value::EXTENSION;
use crate::{Timestamp, ValueError};

const NIL: u8 = 0xc0;

/// Takes one value after the other out of MessagePack.
pub struct Decoder<'de> {
    reader: Reader<'de>,
    depth: Depth,
}

impl<'de> Decoder<'de> {
    /// Starts where a reader stands.
    pub fn new(reader: Reader<'de>) -> Self {
        Self { reader, depth: Depth::default() }
    }

    /// The next value.
    ///
    /// # Errors
    /// If there is none, or if it does not fit the type.
    pub fn value<T: Deserialize<'de>>(&mut self) -> Result<T, DecodeError> {
        T::deserialize(self)
    }

    /// Fails unless everything has been read.
    ///
    /// # Errors
    /// If something is left.
    pub fn finish(&self) -> Result<(), DecodeError> {
        Ok(self.reader.finish()?)
    }

    fn visit<V: Visitor<'de>>(&mut self, token: Token<'de>, visitor: V) -> Result<V::Value, DecodeError> {
        match token {
            Token::Nil => visitor.visit_unit(),
            Token::Bool(b) => visitor.visit_bool(b),
            Token::Int(n) => visitor.visit_i64(n),
            Token::UInt(n) => visitor.visit_u64(n),
            Token::Float(x) => visitor.visit_f64(x),
            Token::Text(text) => visitor.visit_borrowed_str(text),
            Token::Bytes(bytes) => visitor.visit_borrowed_bytes(bytes),
            Token::List(n) => self.nested(n, |items| visitor.visit_seq(items)),
            Token::Map(n) => self.nested(n, |pairs| visitor.visit_map(pairs)),
            Token::Timestamp(timestamp) => visitor.visit_newtype_struct(Parts::new(timestamp)),
        }
    }

    /// One level down, for so many items or pairs; all of them must be taken.
    fn nested<T>(
        &mut self,
        n: usize,
        visit: impl FnOnce(&mut Nested<'_, 'de>) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let above = self.depth;
        self.depth = above.enter()?;
        let mut nested = Nested { key: self.reader.clone(), decoder: self, left: n, taken: 0 };
        let visited = visit(&mut nested)?;
        let left = nested.left;
        self.depth = above;
        if left > 0 {
            return Err(DecodeError::custom(format_args!("{left} of {n} items have no place here")));
        }
        Ok(visited)
    }

    fn unless_bytes<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.reader.token()? {
            // A `Vec<u8>` asks for a list.
            Token::Bytes(bytes) => {
                let mut items = de::value::SeqDeserializer::<_, DecodeError>::new(bytes.iter().copied());
                let visited = visitor.visit_seq(&mut items)?;
                items.end()?;
                Ok(visited)
            }
            token => self.visit(token, visitor),
        }
    }
}

/// Decodes exactly one value.
pub(super) fn exactly<'de, T: Deserialize<'de>>(bytes: &'de [u8], depth: Depth) -> Result<T, DecodeError> {
    let mut decoder = Decoder { reader: Reader::new(bytes), depth };
    let value = decoder.value()?;
    decoder.finish()?;
    Ok(value)
}

/// Why bytes do not decode as a type, and where in them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodeError {
    /// Keys and indices, outermost first.
    path: String,
    message: String,
}

impl DecodeError {
    fn inside(mut self, place: impl Display) -> Self {
        self.path.insert_str(0, &place.to_string());
        self
    }
}

impl Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "at {}: ", self.path.trim_start_matches('.'))?;
        }
        f.write_str(&self.message)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    fn custom<T: Display>(message: T) -> Self {
        Self { path: String::new(), message: message.to_string() }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {}", Found(found)))
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }
}

impl From<ValueError> for DecodeError {
    fn from(error: ValueError) -> Self {
        Self::custom(error)
    }
}

/// What was found, in the words of the value table. Text and bytes are not repeated: they may be
/// long, or a secret.
struct Found<'a>(Unexpected<'a>);

impl Display for Found<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Unexpected::Unit | Unexpected::Option => f.write_str("nil"),
            Unexpected::Bool(b) => write!(f, "{b}"),
            Unexpected::Signed(n) => write!(f, "the integer {n}"),
            Unexpected::Unsigned(n) => write!(f, "the integer {n}"),
            Unexpected::Float(x) => write!(f, "the float {x}"),
            Unexpected::Str(_) => f.write_str("text"),
            Unexpected::Bytes(_) => f.write_str("bytes"),
            Unexpected::Seq => f.write_str("a list"),
            Unexpected::Map => f.write_str("a map"),
            Unexpected::NewtypeStruct => f.write_str("a timestamp"),
            other => write!(f, "{other}"),
        }
    }
}

impl<'de> Deserializer<'de> for &mut Decoder<'de> {
    type Error = DecodeError;

    fn is_human_readable(&self) -> bool {
        false
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let token = self.reader.token()?;
        self.visit(token, visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        if self.reader.rest().first() == Some(&NIL) {
            self.reader.token()?;
            return visitor.visit_none();
        }
        visitor.visit_some(self)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.reader.token()? {
            // No arguments.
            Token::List(0) => visitor.visit_unit(),
            token => self.visit(token, visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        if name != EXTENSION {
            return visitor.visit_newtype_struct(self);
        }
        if self.reader.take_stream() {
            return visitor.visit_newtype_struct(Parts::stream());
        }
        match self.reader.token()? {
            Token::Timestamp(timestamp) => visitor.visit_newtype_struct(Parts::new(timestamp)),
            token => Err(DecodeError::invalid_type(unexpected(token), &visitor)),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.unless_bytes(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, DecodeError> {
        self.unless_bytes(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        match self.reader.token()? {
            Token::Text(variant) => visitor.visit_enum(variant.into_deserializer()),
            Token::Map(1) => self.nested(1, |pair| visitor.visit_enum(pair)),
            token => Err(DecodeError::invalid_type(unexpected(token), &visitor)),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.reader.skip()?;
        visitor.visit_unit()
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf
        unit_struct tuple_struct map struct identifier
    }
}

fn unexpected(token: Token<'_>) -> Unexpected<'_> {
    match token {
        Token::Nil => Unexpected::Unit,
        Token::Bool(b) => Unexpected::Bool(b),
        Token::Int(n) => Unexpected::Signed(n),
        Token::UInt(n) => Unexpected::Unsigned(n),
        Token::Float(x) => Unexpected::Float(x),
        Token::Text(text) => Unexpected::Str(text),
        Token::Bytes(bytes) => Unexpected::Bytes(bytes),
        Token::List(_) => Unexpected::Seq,
        Token::Map(_) => Unexpected::Map,
        Token::Timestamp(_) => Unexpected::NewtypeStruct,
    }
}

/// The items of a list, the pairs of a map, or the variant of an enum.
struct Nested<'a, 'de> {
    decoder: &'a mut Decoder<'de>,
    left: usize,
    taken: usize,
    /// Where the last key began.
    key: Reader<'de>,
}

impl<'de> SeqAccess<'de> for &mut Nested<'_, 'de> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.taken += 1;
        let index = self.taken - 1;
        let item = seed.deserialize(&mut *self.decoder);
        item.map(Some).map_err(|error| error.inside(format_args!("[{index}]")))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

impl<'de> MapAccess<'de> for &mut Nested<'_, 'de> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, DecodeError> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.key = self.decoder.reader.clone();
        seed.deserialize(&mut *self.decoder).map(Some).map_err(|error| error.inside(".(a key)"))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, DecodeError> {
        seed.deserialize(&mut *self.decoder).map_err(|error| error.inside(Key(self.key.clone())))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left)
    }
}

/// The key that stands at a place.
struct Key<'a>(Reader<'a>);

impl Display for Key<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.clone().token() {
            Ok(Token::Text(key)) => write!(f, ".{key}"),
            Ok(Token::Int(key)) => write!(f, "[{key}]"),
            _ => f.write_str(".(a key)"),
        }
    }
}

impl<'a, 'b, 'de> EnumAccess<'de> for &'a mut Nested<'b, 'de> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), DecodeError> {
        self.left = 0;
        self.key = self.decoder.reader.clone();
        let variant = seed.deserialize(&mut *self.decoder)?;
        Ok((variant, self))
    }
}

impl<'de> VariantAccess<'de> for &mut Nested<'_, 'de> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        self.newtype_variant_seed(std::marker::PhantomData)
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, DecodeError> {
        seed.deserialize(&mut *self.decoder).map_err(|error| error.inside(Key(self.key.clone())))
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, DecodeError> {
        let fields = self.decoder.deserialize_tuple(len, visitor);
        fields.map_err(|error| error.inside(Key(self.key.clone())))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let fields = self.decoder.deserialize_map(visitor);
        fields.map_err(|error| error.inside(Key(self.key.clone())))
    }
}

/// A timestamp, or what stands for a stream, the way that it passes through serde: the type of the
/// extension, and its bytes.
struct Parts {
    kind: i8,
    data: [u8; 12],
    len: usize,
    taken: u8,
}

impl Parts {
    fn new(timestamp: Timestamp) -> Self {
        let (data, len) = timestamp.to_extension();
        Self { kind: TIMESTAMP, data, len, taken: 0 }
    }

    fn stream() -> Self {
        Self { kind: STREAM_KIND, data: [0; 12], len: 0, taken: 0 }
    }
}

impl<'de> Deserializer<'de> for Parts {
    type Error = DecodeError;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        visitor.visit_seq(self)
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit
        unit_struct newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> SeqAccess<'de> for Parts {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        self.taken += 1;
        match self.taken {
            1 => seed.deserialize(self.kind.into_deserializer()).map(Some),
            2 => seed.deserialize(de::value::BytesDeserializer::new(&self.data[..self.len])).map(Some),
            _ => Ok(None),
        }
    }
}
