//! MessagePack as the contract uses it: tokens in, tokens out, no tree between.
//!
//! Runtimes transcode straight between these tokens and their engine's values. The format is that
//! of <https://github.com/msgpack/msgpack/blob/master/spec.md>, with the timestamp extension (-1).

use rmp::Marker;
use rmp::decode::{self, RmpRead};
use rmp::encode;

use crate::{Timestamp, ValueError};

/// How deep lists and maps may be nested. A scalar has depth 0.
pub const MAX_DEPTH: usize = 128;

pub(crate) const TIMESTAMP: i8 = -1;

pub(crate) const STREAM_KIND: i8 = 1;

/// There are many NaNs, and engines do not keep them apart. This one stands for all: quiet, without
/// sign and payload.
const NAN: f64 = f64::from_bits(0x7ff8_0000_0000_0000);

/// What stands among the arguments of a call for the stream that comes with it: an empty extension
/// of type 1. It is no value, so it has no place inside of one, nor in a result.
pub const STREAM: &[u8] = &[0xc7, 0, 1];

/// One item of a MessagePack text. After `List(n)` come n items, after `Map(n)` n keys each with
/// its value.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Token<'a> {
    /// Nothing.
    Nil,
    /// A truth value.
    Bool(bool),
    /// An integer that fits an `i64`.
    Int(i64),
    /// An integer above `i64::MAX`.
    UInt(u64),
    /// A 64-bit float; 32-bit ones are widened.
    Float(f64),
    /// UTF-8 text.
    Text(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list of so many items.
    List(usize),
    /// A map of so many pairs.
    Map(usize),
    /// A point in time.
    Timestamp(Timestamp),
}

/// Reads tokens from a slice. A count that the rest of the slice cannot hold is an error, so a
/// reader may allocate by it.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// Starts at the beginning of a slice.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The next token.
    pub fn token(&mut self) -> Result<Token<'a>, ValueError> {
        let marker = decode::read_marker(&mut self.rest).map_err(|_| ValueError::Truncated)?;
        Ok(match marker {
            Marker::Null => Token::Nil,
            Marker::True => Token::Bool(true),
            Marker::False => Token::Bool(false),
            Marker::FixPos(n) => Token::Int(n.into()),
            Marker::FixNeg(n) => Token::Int(n.into()),
            Marker::U8 => Token::Int(self.number::<1>()?[0].into()),
            Marker::U16 => Token::Int(u16::from_be_bytes(self.number()?).into()),
            Marker::U32 => Token::Int(u32::from_be_bytes(self.number()?).into()),
            Marker::U64 => {
                let n = u64::from_be_bytes(self.number()?);
                i64::try_from(n).map_or(Token::UInt(n), Token::Int)
            }
            Marker::I8 => Token::Int(i8::from_be_bytes(self.number()?).into()),
            Marker::I16 => Token::Int(i16::from_be_bytes(self.number()?).into()),
            Marker::I32 => Token::Int(i32::from_be_bytes(self.number()?).into()),
            Marker::I64 => Token::Int(i64::from_be_bytes(self.number()?)),
            Marker::F32 => float(f32::from_be_bytes(self.number()?).into()),
            Marker::F64 => float(f64::from_be_bytes(self.number()?)),
            Marker::FixStr(n) => self.text(n.into())?,
            Marker::Str8 => {
                let n = self.length::<1>()?;
                self.text(n)?
            }
            Marker::Str16 => {
                let n = self.length::<2>()?;
                self.text(n)?
            }
            Marker::Str32 => {
                let n = self.length::<4>()?;
                self.text(n)?
            }
            Marker::Bin8 => {
                let n = self.length::<1>()?;
                Token::Bytes(self.take(n)?)
            }
            Marker::Bin16 => {
                let n = self.length::<2>()?;
                Token::Bytes(self.take(n)?)
            }
            Marker::Bin32 => {
                let n = self.length::<4>()?;
                Token::Bytes(self.take(n)?)
            }
            Marker::FixArray(n) => self.count(n.into(), 1).map(Token::List)?,
            Marker::Array16 => {
                let n = self.length::<2>()?;
                self.count(n, 1).map(Token::List)?
            }
            Marker::Array32 => {
                let n = self.length::<4>()?;
                self.count(n, 1).map(Token::List)?
            }
            Marker::FixMap(n) => self.count(n.into(), 2).map(Token::Map)?,
            Marker::Map16 => {
                let n = self.length::<2>()?;
                self.count(n, 2).map(Token::Map)?
            }
            Marker::Map32 => {
                let n = self.length::<4>()?;
                self.count(n, 2).map(Token::Map)?
            }
            Marker::FixExt1 => self.extension(1)?,
            Marker::FixExt2 => self.extension(2)?,
            Marker::FixExt4 => self.extension(4)?,
            Marker::FixExt8 => self.extension(8)?,
            Marker::FixExt16 => self.extension(16)?,
            Marker::Ext8 => {
                let n = self.length::<1>()?;
                self.extension(n)?
            }
            Marker::Ext16 => {
                let n = self.length::<2>()?;
                self.extension(n)?
            }
            Marker::Ext32 => {
                let n = self.length::<4>()?;
                self.extension(n)?
            }
            Marker::Reserved => return Err(ValueError::Reserved),
        })
    }

    /// Takes what stands for a stream, if that comes next.
    pub fn take_stream(&mut self) -> bool {
        let rest = self.rest.strip_prefix(STREAM);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Skips one whole value, however deep.
    pub fn skip(&mut self) -> Result<(), ValueError> {
        let mut pending = 1_usize;
        while pending > 0 {
            pending -= 1;
            // A count never exceeds the bytes that are left, so the sum cannot overflow.
            pending += match self.token()? {
                Token::List(n) => n,
                Token::Map(n) => 2 * n,
                _ => 0,
            };
        }
        Ok(())
    }

    /// Fails unless everything has been read.
    pub fn finish(&self) -> Result<(), ValueError> {
        if self.rest.is_empty() { Ok(()) } else { Err(ValueError::Trailing(self.rest.len())) }
    }

    fn number<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let mut bytes = [0; N];
        self.rest.read_exact_buf(&mut bytes).map_err(|_| ValueError::Truncated)?;
        Ok(bytes)
    }

    fn length<const N: usize>(&mut self) -> Result<usize, ValueError> {
        Ok(self.number::<N>()?.iter().fold(0, |n, &byte| n << 8 | usize::from(byte)))
    }

    fn count(&self, n: usize, bytes_each: usize) -> Result<usize, ValueError> {
        if n.saturating_mul(bytes_each) > self.rest.len() { Err(ValueError::Truncated) } else { Ok(n) }
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8], ValueError> {
        let (taken, rest) = self.rest.split_at_checked(n).ok_or(ValueError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn text(&mut self, n: usize) -> Result<Token<'a>, ValueError> {
        std::str::from_utf8(self.take(n)?).map(Token::Text).map_err(|_| ValueError::NotUtf8)
    }

    fn extension(&mut self, n: usize) -> Result<Token<'a>, ValueError> {
        let [kind] = self.number::<1>()?;
        let data = self.take(n)?;
        match i8::from_be_bytes([kind]) {
            TIMESTAMP => Timestamp::from_extension(data).map(Token::Timestamp),
            kind => Err(ValueError::Extension(kind)),
        }
    }
}

fn float(x: f64) -> Token<'static> {
    Token::Float(if x.is_nan() { NAN } else { x })
}

/// Appends a token in its shortest form.
pub fn write(out: &mut Vec<u8>, token: Token<'_>) -> Result<(), ValueError> {
    // Writing into a Vec fails only where a length exceeds 32 bits.
    match token {
        Token::Nil => encode::write_nil(out).map_err(|_| ValueError::TooLarge)?,
        Token::Bool(b) => encode::write_bool(out, b).map_err(|_| ValueError::TooLarge)?,
        Token::Int(n) => encode::write_sint(out, n).map(|_| ()).map_err(|_| ValueError::TooLarge)?,
        Token::UInt(n) => encode::write_uint(out, n).map(|_| ()).map_err(|_| ValueError::TooLarge)?,
        Token::Float(x) => {
            encode::write_f64(out, if x.is_nan() { NAN } else { x }).map_err(|_| ValueError::TooLarge)?
        }
        Token::Text(text) => {
            length(text.len())?;
            encode::write_str(out, text).map_err(|_| ValueError::TooLarge)?;
        }
        Token::Bytes(bytes) => {
            length(bytes.len())?;
            encode::write_bin(out, bytes).map_err(|_| ValueError::TooLarge)?;
        }
        Token::List(n) => {
            encode::write_array_len(out, length(n)?).map_err(|_| ValueError::TooLarge)?;
        }
        Token::Map(n) => {
            encode::write_map_len(out, length(n)?).map_err(|_| ValueError::TooLarge)?;
        }
        Token::Timestamp(timestamp) => {
            let (data, n) = timestamp.to_extension();
            let n = u32::try_from(n).map_err(|_| ValueError::TooLarge)?;
            encode::write_ext_meta(out, n, TIMESTAMP).map_err(|_| ValueError::TooLarge)?;
            out.extend_from_slice(&data[..n as usize]);
        }
    }
    Ok(())
}

fn length(n: usize) -> Result<u32, ValueError> {
    u32::try_from(n).map_err(|_| ValueError::TooLarge)
}

/// Counts how deep the reader or writer stands, and refuses to go beyond [`MAX_DEPTH`].
#[derive(Debug, Clone, Copy)]
pub struct Depth {
    left: usize,
}

impl Depth {
    /// Where a list of arguments begins: each of them is a value, and the list no level of its own.
    pub fn arguments() -> Self {
        Self { left: MAX_DEPTH + 1 }
    }

    /// One level down.
    pub fn enter(self) -> Result<Self, ValueError> {
        let left = self.left.checked_sub(1).ok_or(ValueError::TooDeep)?;
        Ok(Self { left })
    }
}

impl Default for Depth {
    /// Where a value begins.
    fn default() -> Self {
        Self { left: MAX_DEPTH }
    }
}
