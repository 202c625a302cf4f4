use quadriga_abi::msgpack::{MAX_DEPTH, Reader, Token};
use quadriga_abi::{Error, ErrorCode};
use rmp_serde::Deserializer;
use rmp_serde::decode::ReadRefReader;
use serde::Deserialize;

use crate::method::Method;

const NIL: &[u8] = &[0xc0];

/// The arguments of one call, taken one after the other.
pub struct Arguments<'a> {
    method: &'static Method,
    given: usize,
    rest: Deserializer<ReadRefReader<'a, [u8]>>,
}

impl<'a> Arguments<'a> {
    /// Checks that the payload is a list of as many items as the method takes.
    pub(crate) fn new(method: &'static Method, payload: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(payload);
        let given = match reader.token() {
            Ok(Token::List(given)) => given,
            Ok(_) => return Err(invalid("the arguments are not a list")),
            Err(error) => return Err(invalid(format!("the arguments cannot be read: {error}"))),
        };
        let (required, most) = (method.required, method.parameters.len());
        if given < required || given > most {
            return Err(invalid(format!("`{}` takes {}, {given} given", method.name, takes(method))));
        }
        Ok(Self { method, given, rest: deserializer(reader.rest()) })
    }

    /// The argument for a parameter. One that was left out is nil.
    pub fn take<T: Deserialize<'a>>(&mut self, index: usize) -> Result<T, Error> {
        let decoded = if index < self.given {
            T::deserialize(&mut self.rest)
        } else {
            T::deserialize(&mut deserializer(NIL))
        };
        decoded.map_err(|error| {
            let (name, parameter) = (self.method.name, &self.method.parameters[index]);
            let position = index + 1;
            invalid(format!(
                "argument {position} of `{name}`, {}: {}, does not fit: {error}",
                parameter.name, parameter.ty
            ))
        })
    }
}

/// Decodes one whole value.
pub(crate) fn value<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, rmp_serde::decode::Error> {
    T::deserialize(&mut deserializer(bytes))
}

fn deserializer(bytes: &[u8]) -> Deserializer<ReadRefReader<'_, [u8]>> {
    let mut deserializer = Deserializer::from_read_ref(bytes);
    // It counts a level more than we do.
    deserializer.set_max_depth(MAX_DEPTH + 1);
    deserializer
}

fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::InvalidArguments, message)
}

fn takes(method: &Method) -> String {
    let (required, most) = (method.required, method.parameters.len());
    let count = match (required, most) {
        (_, 0) => return "no arguments".to_owned(),
        (1, 1) => "1 argument".to_owned(),
        _ if required == most => format!("{most} arguments"),
        _ => format!("{required} to {most} arguments"),
    };
    let listed: Vec<_> = method.parameters.iter().map(|p| format!("{}: {}", p.name, p.ty)).collect();
    format!("{count} ({})", listed.join(", "))
}
