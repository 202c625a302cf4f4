use quadriga_abi::codec::{self, Decoder};
use quadriga_abi::msgpack::{Reader, Token};
use quadriga_abi::{Error, ErrorCode};
use serde::Deserialize;

use crate::method::Method;

const NIL: &[u8] = &[0xc0];

/// The arguments of one call, taken one after the other.
pub struct Arguments<'a> {
    method: &'static Method,
    given: usize,
    rest: Decoder<'a>,
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
        if most == 0 {
            reader.finish().map_err(|error| invalid(error.to_string()))?;
        }
        Ok(Self { method, given, rest: Decoder::new(reader) })
    }

    /// The argument for a parameter. One that was left out is nil.
    pub fn take<T: Deserialize<'a>>(&mut self, index: usize) -> Result<T, Error> {
        let decoded = if index < self.given { self.rest.value() } else { codec::from_bytes::<T>(NIL) };
        // The last one must also be the end of the payload.
        let last = index + 1 == self.method.parameters.len();
        let decoded =
            decoded.and_then(|value| if last { self.rest.finish().map(|()| value) } else { Ok(value) });
        decoded.map_err(|error| {
            let (method, parameter) = (self.method.name, &self.method.parameters[index]);
            let (position, name, ty) = (index + 1, parameter.name, parameter.ty);
            invalid(format!("argument {position} of `{method}`, {name}: {ty}: {error}"))
        })
    }
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
        let result =
            result.map(|reply| Value::from_bytes(&reply).unwrap()).map_err(|error| error.to_string());
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
            Err("argument 1 of `repeat`, text: &str: expected a borrowed string, found true"),
        );
        check(
            vec![text(), text()],
            Err("argument 2 of `repeat`, times: Option<usize>: expected usize, found text"),
        );
        let inside = Value::List(vec![text()]);
        check(
            vec![text(), inside],
            Err("argument 2 of `repeat`, times: Option<usize>: expected usize, found a list"),
        );
    }
}
