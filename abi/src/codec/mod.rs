//! Between Rust values and MessagePack, by the value table, through serde. Hosts and the Rust SDK
//! use the same, so that a type means the same on both sides.
//!
//! Structs are maps, `Vec<u8>` and `&[u8]` bytes, [`Timestamp`](crate::Timestamp) a point in time,
//! an enum's variant its name, or a map of its name to its data. [`Value`](crate::Value) is
//! anything.

mod byte;
mod compound;
mod decode;
mod encode;

use serde::{Deserialize, Serialize};

pub use self::decode::{DecodeError, Decoder};
pub use self::encode::EncodeError;
use crate::msgpack::{Depth, Reader, Token};

/// Encodes one value.
///
/// # Errors
/// If it has no place in the value table.
pub fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    append(&mut out, value)?;
    Ok(out)
}

/// Appends one value.
///
/// # Errors
/// If it has no place in the value table. What was appended by then is of no use.
pub fn append<T: Serialize + ?Sized>(out: &mut Vec<u8>, value: &T) -> Result<(), EncodeError> {
    encode::append(out, value, Depth::default())
}

/// Encodes a list of arguments: a tuple, `(x,)` for one and `()` for none, or a list.
///
/// # Errors
/// If one has no place in the value table, or if it is no list.
pub fn arguments<T: Serialize + ?Sized>(arguments: &T) -> Result<Vec<u8>, EncodeError> {
    let mut out = Vec::new();
    encode::append(&mut out, arguments, Depth::arguments())?;
    match Reader::new(&out).token() {
        Ok(Token::List(_)) => Ok(out),
        // Serde takes `()` for nothing rather than for an empty tuple.
        Ok(Token::Nil) => Ok(vec![0x90]),
        _ => {
            Err(serde::ser::Error::custom("they are no list; pass a tuple, `(x,)` for one and `()` for none"))
        }
    }
}

/// Decodes exactly one value.
///
/// # Errors
/// If the bytes are no value, or one that does not fit the type.
pub fn from_bytes<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    decode::exactly(bytes, Depth::default())
}

/// Decodes a list of arguments into a tuple.
///
/// # Errors
/// If the bytes are no list of values, or one that does not fit the type.
pub fn from_arguments<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, DecodeError> {
    decode::exactly(bytes, Depth::arguments())
}

#[cfg(test)]
mod tests;
