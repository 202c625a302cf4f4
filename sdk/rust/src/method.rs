use quadriga_abi::{Description, Error, ErrorCode, codec};
use serde::Serialize;

use crate::Stream;
use crate::decode::Arguments;
use crate::schema::Schemas;

/// What the attribute macro makes of a module.
pub trait Extension: 'static {
    /// The `pub fn`s, in the order of the source.
    const METHODS: &'static [Method];
}

/// A method.
#[expect(missing_docs, reason = "the fields of quadriga_abi::Method say it")]
pub struct Method {
    pub name: &'static str,
    pub doc: &'static str,
    pub parameters: &'static [Parameter],
    pub required: usize,
    pub returns: &'static str,
    pub streams: bool,
    pub schemas: fn(&mut Schemas),
    pub run: fn(Arguments<'_>, &mut Vec<u8>) -> Result<(), Error>,
}

/// A parameter of a method.
#[expect(missing_docs, reason = "the fields of quadriga_abi::Parameter say it")]
pub struct Parameter {
    pub name: &'static str,
    pub ty: &'static str,
    pub optional: bool,
}

/// What a function returned. Its `reply` is the one of `Result`s if it is one.
pub struct Returned<T>(pub T);

impl<T, E> Returned<Result<T, E>> {
    /// Encodes the `Ok`, or fails with the `Err`.
    pub fn reply(self, out: &mut Vec<u8>) -> Result<(), Error>
    where
        T: Serialize,
        E: Into<crate::Error>,
    {
        match self.0 {
            Ok(value) => encode_reply(&value, out),
            Err(error) => Err(error.into().into_wire()),
        }
    }
}

impl<T: Serialize> Returned<Stream<T>> {
    /// Hands the items on; the reply itself is nil.
    pub fn stream(self, out: &mut Vec<u8>) -> Result<(), Error> {
        self.0.emit()?;
        encode_reply(&(), out)
    }
}

impl<T: Serialize, E: Into<crate::Error>> Returned<Result<Stream<T>, E>> {
    /// Hands the items on, or fails with the `Err`.
    pub fn stream(self, out: &mut Vec<u8>) -> Result<(), Error> {
        match self.0 {
            Ok(stream) => Returned(stream).stream(out),
            Err(error) => Err(error.into().into_wire()),
        }
    }
}

/// The `reply` of everything else.
pub trait ReplyWithValue {
    /// Encodes the value.
    fn reply(self, out: &mut Vec<u8>) -> Result<(), Error>;
}

impl<T: Serialize> ReplyWithValue for Returned<T> {
    fn reply(self, out: &mut Vec<u8>) -> Result<(), Error> {
        encode_reply(&self.0, out)
    }
}

/// What the extension says of itself.
pub(crate) fn describe<E: Extension>() -> Description {
    let methods = E::METHODS.iter().map(|method| {
        let (input, output) = Schemas::of(method);
        quadriga_abi::Method {
            name: method.name.to_owned(),
            doc: method.doc.to_owned(),
            parameters: method
                .parameters
                .iter()
                .map(|parameter| quadriga_abi::Parameter {
                    name: parameter.name.to_owned(),
                    ty: Some(parameter.ty.to_owned()),
                    optional: parameter.optional,
                })
                .collect(),
            returns: Some(method.returns.to_owned()),
            streams: method.streams,
            input,
            output,
        }
    });
    Description::new(concat!("quadriga-sdk ", env!("CARGO_PKG_VERSION"), " for Rust"), methods.collect())
}

/// Decodes the arguments, runs the function and encodes its result.
pub(crate) fn run(method: &'static Method, payload: &[u8]) -> Result<Vec<u8>, Error> {
    // Enough for most replies, and for an echo in particular, without growing.
    let mut out = Vec::with_capacity(payload.len().min(4096) + 16);
    (method.run)(Arguments::new(method, payload)?, &mut out)?;
    Ok(out)
}

pub(crate) fn unknown(method: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::UnknownMethod, format!("there is no method {method}"))
}

fn encode_reply<T: Serialize>(value: &T, out: &mut Vec<u8>) -> Result<(), Error> {
    codec::append(out, value).map_err(|error| {
        Error::new(ErrorCode::InvalidValue, format!("the result has no place in the value table: {error}"))
    })
}
