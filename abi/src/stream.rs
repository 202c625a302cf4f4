use std::fmt;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Stands among the arguments of a call for the stream that comes with it: written as
/// [`msgpack::STREAM`](crate::msgpack::STREAM).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamMark;

const KIND: i8 = crate::msgpack::STREAM_KIND;

const EXTENSION: &str = crate::value::EXTENSION;

impl Serialize for StreamMark {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(EXTENSION, &(KIND, serde_bytes::Bytes::new(&[])))
    }
}

impl<'de> Deserialize<'de> for StreamMark {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mark;

        impl<'de> Visitor<'de> for Mark {
            type Value = StreamMark;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a stream")
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, d: D) -> Result<StreamMark, D::Error> {
                let (kind, data): (i8, serde_bytes::ByteBuf) = Deserialize::deserialize(d)?;
                if kind == KIND && data.is_empty() {
                    Ok(StreamMark)
                } else {
                    Err(de::Error::custom("expected a stream"))
                }
            }
        }

        deserializer.deserialize_newtype_struct(EXTENSION, Mark)
    }
}

#[cfg(test)]
mod tests {
    use super::StreamMark;
    use crate::msgpack::{Reader, STREAM, Token};

    #[test]
    fn it_is_written_as_the_contract_says() {
        let bytes = rmp_serde::to_vec(&(StreamMark, 7)).unwrap();
        let mut reader = Reader::new(&bytes);
        assert_eq!(reader.token().unwrap(), Token::List(2));
        assert!(reader.rest().starts_with(STREAM));
        assert!(reader.take_stream() && !reader.take_stream());
        assert_eq!(reader.token().unwrap(), Token::Int(7));
        assert_eq!(crate::codec::arguments(&(StreamMark, 7)).unwrap(), bytes);
        let back: (StreamMark, i64) = crate::codec::from_arguments(&bytes).unwrap();
        assert_eq!(back, (StreamMark, 7));
        assert!(crate::codec::from_bytes::<crate::Value>(STREAM).is_err());
        let back: (StreamMark, i64) = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(back, (StreamMark, 7));
        assert!(rmp_serde::from_slice::<StreamMark>(&[0xc7, 0, 2]).is_err());
    }
}
