use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant,
};

use super::encode::{EncodeError, Encoder};
use crate::msgpack::{Depth, Reader, Token, write};

/// A list or map that is being written.
pub(super) struct Compound<'a> {
    out: &'a mut Vec<u8>,
    depth: Depth,
    /// How many items or pairs were announced, if that was known.
    announced: Option<usize>,
    /// Where the count is to go otherwise.
    count_at: usize,
    written: usize,
    key: String,
}

impl<'a> Compound<'a> {
    pub(super) fn start(encoder: Encoder<'a>, len: Option<usize>, is_map: bool) -> Result<Self, EncodeError> {
        let Encoder { out, depth } = encoder;
        let depth = depth.enter()?;
        match len {
            Some(len) => write(out, if is_map { Token::Map(len) } else { Token::List(len) })?,
            None => out.extend([if is_map { 0xdf } else { 0xdd }, 0, 0, 0, 0]),
        }
        let count_at = out.len().saturating_sub(4);
        Ok(Self { out, depth, announced: len, count_at, written: 0, key: String::new() })
    }

    pub(super) fn item<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), EncodeError> {
        let index = self.written;
        self.written += 1;
        self.value(item).map_err(|error| error.inside(format_args!("[{index}]")))
    }

    pub(super) fn finish(self) -> Result<(), EncodeError> {
        match self.announced {
            Some(announced) if announced == self.written => Ok(()),
            Some(announced) => Err(EncodeError::custom(format_args!(
                "a list or map of {announced} was announced, but {} were written",
                self.written
            ))),
            None => {
                let count = u32::try_from(self.written).map_err(EncodeError::custom)?;
                self.out[self.count_at..self.count_at + 4].copy_from_slice(&count.to_be_bytes());
                Ok(())
            }
        }
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), EncodeError> {
        self.written += 1;
        write(self.out, Token::Text(key))?;
        self.value(value).map_err(|error| error.inside(format_args!(".{key}")))
    }

    fn value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        value.serialize(Encoder { out: self.out, depth: self.depth })
    }
}

impl SerializeMap for Compound<'_> {
    type Ok = ();
    type Error = EncodeError;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), EncodeError> {
        self.written += 1;
        let start = self.out.len();
        self.value(key).map_err(|error| error.inside(".(a key)"))?;
        // Kept for the message about the value, should there be one.
        self.key.clear();
        if let Ok(Token::Text(text)) = Reader::new(&self.out[start..]).token() {
            self.key.push_str(text);
        }
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), EncodeError> {
        let result = self.value(value);
        result.map_err(|error| error.inside(format_args!(".{}", self.key)))
    }

    fn end(self) -> Result<(), EncodeError> {
        self.finish()
    }
}

macro_rules! items {
    ($($trait:ident::$method:ident),*) => {$(
        impl $trait for Compound<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn $method<T: Serialize + ?Sized>(&mut self, item: &T) -> Result<(), EncodeError> {
                self.item(item)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        }
    )*};
}

macro_rules! fields {
    ($($trait:ident),*) => {$(
        impl $trait for Compound<'_> {
            type Ok = ();
            type Error = EncodeError;

            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), EncodeError> {
                self.field(key, value)
            }

            fn end(self) -> Result<(), EncodeError> {
                self.finish()
            }
        }
    )*};
}

items!(
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field
);
fields!(SerializeStruct, SerializeStructVariant);
