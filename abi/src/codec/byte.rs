use serde::ser::{Error as _, Impossible, Serialize, Serializer};

use super::encode::EncodeError;

/// Takes a `u8` out of whatever serializes as one.
pub(super) struct Byte;

macro_rules! refuse {
    ($($method:ident($($ty:ty),*);)*) => {
        $(fn $method(self, $(_: $ty),*) -> Result<u8, EncodeError> { Err(no_byte()) })*
    };
}

impl Serializer for Byte {
    type Ok = u8;
    type Error = EncodeError;
    type SerializeSeq = Impossible<u8, EncodeError>;
    type SerializeTuple = Impossible<u8, EncodeError>;
    type SerializeTupleStruct = Impossible<u8, EncodeError>;
    type SerializeTupleVariant = Impossible<u8, EncodeError>;
    type SerializeMap = Impossible<u8, EncodeError>;
    type SerializeStruct = Impossible<u8, EncodeError>;
    type SerializeStructVariant = Impossible<u8, EncodeError>;

    fn serialize_u8(self, byte: u8) -> Result<u8, EncodeError> {
        Ok(byte)
    }

    refuse! {
        serialize_bool(bool);
        serialize_i8(i8);
        serialize_i16(i16);
        serialize_i32(i32);
        serialize_i64(i64);
        serialize_u16(u16);
        serialize_u32(u32);
        serialize_u64(u64);
        serialize_f32(f32);
        serialize_f64(f64);
        serialize_char(char);
        serialize_str(&str);
        serialize_bytes(&[u8]);
        serialize_none();
        serialize_unit();
        serialize_unit_struct(&'static str);
        serialize_unit_variant(&'static str, u32, &'static str);
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<u8, EncodeError> {
        Err(no_byte())
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: &T,
    ) -> Result<u8, EncodeError> {
        Err(no_byte())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<u8, EncodeError> {
        Err(no_byte())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, EncodeError> {
        Err(no_byte())
    }

    fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, EncodeError> {
        Err(no_byte())
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeSeq, EncodeError> {
        Err(no_byte())
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeSeq, EncodeError> {
        Err(no_byte())
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, EncodeError> {
        Err(no_byte())
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self::SerializeStruct, EncodeError> {
        Err(no_byte())
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self::SerializeStruct, EncodeError> {
        Err(no_byte())
    }
}

fn no_byte() -> EncodeError {
    EncodeError::custom("an item of a byte slice is no byte")
}
