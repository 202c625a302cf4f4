//! Functions of the host whose types have schemas.

use quadriga_abi::codec::{self, Decoder};
use quadriga_abi::contract::FunctionSchemas;
use quadriga_abi::msgpack::{Reader, Token};
use quadriga_abi::schemars::{JsonSchema, Schema, SchemaGenerator};
use quadriga_abi::{Error, ErrorCode, Method, Parameter};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Provided, encoded};

const NIL: &[u8] = &[0xc0];

/// A tuple of arguments whose types have schemas, for [`Provided::typed`]: `()`, `(A,)` and so on, up to eight.
pub trait Arguments<const N: usize>: Sized {
    /// The schema of each, and whether it may be left out.
    #[doc(hidden)]
    fn parameters(takes: &mut SchemaGenerator) -> [(Schema, bool); N];

    /// Takes one after the other.
    #[doc(hidden)]
    fn take(given: &mut Given<'_>) -> Result<Self, Error>;
}

/// The arguments of one call.
#[doc(hidden)]
pub struct Given<'a> {
    /// The function, as errors call it.
    function: &'a str,
    parameters: &'a [Parameter],
    count: usize,
    taken: usize,
    rest: Decoder<'a>,
}

impl Provided {
    /// Adds a function that says what it takes and returns: the names of its parameters are given here, and
    /// the schemas are those of its types. `Dispatcher::apis` has them, and the OpenAPI document. It runs as
    /// one of [`Provided::function`] does, and takes a tuple of as many arguments as there are names; those at
    /// the end may be left out whose types take nil, such as an `Option`.
    ///
    /// ```
    /// use quadriga_core::Provided;
    ///
    /// let math = Provided::new("app.math")?
    ///     .typed("add", ["a", "b"], |(a, b): (i64, i64)| Ok(a + b))
    ///     .doc("Adds two numbers.")
    ///     .typed("pi", [], |()| Ok(3.14));
    /// # Ok::<(), quadriga_core::abi::NameError>(())
    /// ```
    pub fn typed<const N: usize, A: Arguments<N>, R: Serialize + JsonSchema>(
        mut self,
        name: &str,
        parameters: [&str; N],
        function: impl Fn(A) -> Result<R, Error> + Send + Sync + 'static,
    ) -> Self {
        let mut schemas = FunctionSchemas::default();
        let types = A::parameters(schemas.takes());
        let required = types.iter().rposition(|(_, optional)| !optional).map_or(0, |last| last + 1);
        let parameter = |(place, name): (usize, &str)| Parameter {
            name: name.to_owned(),
            ty: None,
            optional: place >= required,
        };
        let listed: Vec<_> = parameters.into_iter().enumerate().map(parameter).collect();
        let input = schemas.input(parameters.into_iter().zip(types.map(|(schema, _)| schema)), required);
        let output = schemas.gives().subschema_for::<R>();
        let output = schemas.output(output);
        self.description.methods.push(Method {
            parameters: listed.clone(),
            input: Some(input),
            output: Some(output),
            ..Method::named(name)
        });
        let called = format!("{}/{name}", self.id);
        self.functions.push(Box::new(move |_, payload| {
            let mut given = Given::new(&called, &listed, &payload)?;
            let arguments = A::take(&mut given)?;
            given.finish()?;
            encoded(&called, &function(arguments)?)
        }));
        self
    }

    /// Says in words what the function does that was added last.
    pub fn doc(mut self, text: &str) -> Self {
        if let Some(method) = self.description.methods.last_mut() {
            text.clone_into(&mut method.doc);
        }
        self
    }
}

impl<'a> Given<'a> {
    /// Checks that a payload is a list of as many items as a function takes.
    fn new(function: &'a str, parameters: &'a [Parameter], payload: &'a [u8]) -> Result<Self, Error> {
        let mut reader = Reader::new(payload);
        let count = match reader.token() {
            Ok(Token::List(count)) => count,
            Ok(_) => return Err(invalid(function, "the arguments are no list")),
            Err(error) => return Err(invalid(function, &format!("the arguments: {error}"))),
        };
        let required = parameters.iter().filter(|parameter| !parameter.optional).count();
        if count < required || count > parameters.len() {
            let takes = takes(required, parameters);
            return Err(invalid(function, &format!("it takes {takes}, {count} given")));
        }
        Ok(Self { function, parameters, count, taken: 0, rest: Decoder::new(reader) })
    }

    /// The next one. What was left out is nil.
    fn next<T: DeserializeOwned>(&mut self) -> Result<T, Error> {
        let place = self.taken;
        self.taken += 1;
        let value = if place < self.count { self.rest.value() } else { codec::from_bytes(NIL) };
        let name = &self.parameters[place].name;
        value.map_err(|error| invalid(self.function, &format!("{name}: {error}")))
    }

    fn finish(&self) -> Result<(), Error> {
        self.rest.finish().map_err(|error| invalid(self.function, &format!("the arguments: {error}")))
    }
}

fn takes(required: usize, parameters: &[Parameter]) -> String {
    let most = parameters.len();
    let count = match (required, most) {
        (_, 0) => return "no arguments".to_owned(),
        (1, 1) => "1 argument".to_owned(),
        _ if required == most => format!("{most} arguments"),
        _ => format!("{required} to {most} arguments"),
    };
    let names: Vec<_> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
    format!("{count} ({})", names.join(", "))
}

fn invalid(function: &str, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArguments, format!("{function}: {why}"))
}

fn parameter<T: DeserializeOwned + JsonSchema>(takes: &mut SchemaGenerator) -> (Schema, bool) {
    (takes.subschema_for::<T>(), codec::from_bytes::<T>(NIL).is_ok())
}

impl Arguments<0> for () {
    fn parameters(_: &mut SchemaGenerator) -> [(Schema, bool); 0] {
        []
    }

    fn take(_: &mut Given<'_>) -> Result<Self, Error> {
        Ok(())
    }
}

macro_rules! tuples {
    ($($count:literal: $($type:ident)+;)+) => {$(
        impl<$($type: DeserializeOwned + JsonSchema),+> Arguments<$count> for ($($type,)+) {
            fn parameters(takes: &mut SchemaGenerator) -> [(Schema, bool); $count] {
                [$(parameter::<$type>(takes)),+]
            }

            fn take(given: &mut Given<'_>) -> Result<Self, Error> {
                Ok(($(given.next::<$type>()?,)+))
            }
        }
    )+};
}

tuples! {
    1: A;
    2: A B;
    3: A B C;
    4: A B C D;
    5: A B C D E;
    6: A B C D E F;
    7: A B C D E F G;
    8: A B C D E F G H;
}
