use quadriga_abi::msgpack::{MAX_DEPTH, Reader, Token};
use quadriga_abi::{Error, ErrorCode};
use rmp::Marker;
use rmp_serde::Deserializer;
use rmp_serde::decode::{self, ReadRefReader};
use serde::Deserialize;

use crate::method::Method;

const NIL: &[u8] = &[0xc0];

/// The arguments of one call, taken one after the other.
pub struct Arguments<'a> {
    method: &'static Method,
    given: usize,
    payload: &'a [u8],
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
        Ok(Self { method, given, payload, rest: deserializer(reader.rest()) })
    }

    /// The argument for a parameter. One that was left out is nil.
    pub fn take<T: Deserialize<'a>>(&mut self, index: usize) -> Result<T, Error> {
        let decoded = if index < self.given {
            T::deserialize(&mut self.rest)
        } else {
            T::deserialize(&mut deserializer(NIL))
        };
        decoded.map_err(|error| {
            let (method, parameter) = (self.method.name, &self.method.parameters[index]);
            let (position, why) = (index + 1, self.why(index, &error));
            invalid(format!("argument {position} of `{method}`, {}: {}, {why}", parameter.name, parameter.ty))
        })
    }

    /// Why an argument was refused. rmp-serde would name markers of MessagePack.
    fn why(&self, index: usize, error: &decode::Error) -> String {
        let decode::Error::TypeMismatch(found) = error else {
            return format!("does not fit: {error}");
        };
        let mut reader = Reader::new(self.payload);
        let ahead = reader.token().and_then(|_| (0..index).try_for_each(|_| reader.skip()));
        let first = ahead.ok().and_then(|()| reader.rest().first().copied());
        let (whole, found) = (first.map(|byte| kind(Marker::from_u8(byte))), kind(*found));
        match whole {
            Some(whole @ ("a list" | "a map")) if whole != found => {
                format!("is {whole} with {found} where that does not fit")
            }
            _ => format!("cannot be {found}"),
        }
    }
}

fn kind(marker: Marker) -> &'static str {
    match marker {
        Marker::Null | Marker::Reserved => "nil",
        Marker::True | Marker::False => "a bool",
        Marker::FixPos(_) | Marker::FixNeg(_) => "an integer",
        Marker::U8 | Marker::U16 | Marker::U32 | Marker::U64 => "an integer",
        Marker::I8 | Marker::I16 | Marker::I32 | Marker::I64 => "an integer",
        Marker::F32 | Marker::F64 => "a float",
        Marker::FixStr(_) | Marker::Str8 | Marker::Str16 | Marker::Str32 => "text",
        Marker::Bin8 | Marker::Bin16 | Marker::Bin32 => "bytes",
        Marker::FixArray(_) | Marker::Array16 | Marker::Array32 => "a list",
        Marker::FixMap(_) | Marker::Map16 | Marker::Map32 => "a map",
        _ => "a timestamp",
    }
}

/// Decodes one whole value.
pub(crate) fn value<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, decode::Error> {
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

#[cfg(test)]
mod tests {
    use quadriga_abi::Value;

    use super::Arguments;
    use crate::method::{Method, Parameter, ReplyWithValue, Returned, run};

    static REPEAT: Method = Method {
        name: "repeat",
        doc: "",
        parameters: &[
            Parameter { name: "text", ty: "&str", optional: false },
            Parameter { name: "times", ty: "Option<usize>", optional: true },
        ],
        required: 1,
        returns: "String",
        streams: false,
        schemas: |_| {},
        run: |mut arguments: Arguments<'_>, out| {
            let (text, times): (&str, Option<usize>) = (arguments.take(0)?, arguments.take(1)?);
            Returned(text.repeat(times.unwrap_or(2))).reply(out)
        },
    };

    fn check(arguments: Vec<Value>, expected: Result<&str, &str>) {
        let result = run(&REPEAT, &Value::List(arguments).to_bytes().unwrap());
        let result = result.map(|reply| Value::from_bytes(&reply).unwrap()).map_err(|error| error.message);
        assert_eq!(result, expected.map(|text| Value::Text(text.to_owned())).map_err(str::to_owned));
    }

    #[test]
    fn arguments_are_checked_one_by_one() {
        let text = || Value::Text("ab".to_owned());
        check(vec![text()], Ok("abab"));
        check(vec![text(), Value::Nil], Ok("abab"));
        check(vec![text(), Value::Int(1)], Ok("ab"));
        let takes = "`repeat` takes 1 to 2 arguments (text: &str, times: Option<usize>)";
        check(vec![], Err(&format!("{takes}, 0 given")));
        check(vec![Value::Nil; 3], Err(&format!("{takes}, 3 given")));
        check(
            vec![Value::Bool(true)],
            Err(
                "argument 1 of `repeat`, text: &str, does not fit: invalid type: boolean `true`, expected a borrowed string",
            ),
        );
        check(vec![text(), text()], Err("argument 2 of `repeat`, times: Option<usize>, cannot be text"));
        let inside = Value::List(vec![text()]);
        check(vec![text(), inside], Err("argument 2 of `repeat`, times: Option<usize>, cannot be a list"));
    }
}
