//! Values compared with the schemas of the methods.

use std::fmt;

use jsonschema::error::ValidationErrorKind;
use jsonschema::paths::{Location, LocationSegment};
use jsonschema::{Draft, Keyword, PatternOptions, ValidationError, Validator};
use quadriga_abi::contract::{BYTES, INT_KEY, TIMESTAMP, shape};
use quadriga_abi::manifest::Check;
use quadriga_abi::msgpack::{Reader, Token};
use quadriga_abi::{Error, ErrorCode, Method, Value, ValueError};
use serde_json::{Map, Value as Json};

use super::view::{Sort, view};

/// Bytes that the program of a pattern may take.
const PATTERN_SIZE: usize = 1 << 20;

/// Letters of a message, which may repeat a whole value.
const LONGEST: usize = 300;

/// The schemas of an extension, ready to be compared with values.
pub(crate) struct Checks {
    methods: Vec<MethodChecks>,
}

struct MethodChecks {
    name: String,
    parameters: Vec<String>,
    streams: bool,
    arguments: Option<Schema>,
    /// Of the result, or of each of its items if the method streams.
    result: Option<Schema>,
}

struct Schema {
    source: Json,
    validator: Validator,
}

impl Checks {
    /// Compiles what is to be checked; `None` if nothing is.
    ///
    /// # Errors
    /// Names the method whose schema cannot be used.
    pub(crate) fn new(check: Check, methods: &[Method]) -> Result<Option<Self>, Error> {
        if check == Check::None {
            return Ok(None);
        }
        let compile = |wanted: bool, schema: &Option<Json>, name: &str, what| match schema {
            Some(schema) if wanted => Schema::compile(schema).map(Some).map_err(|why| {
                let message = format!("the schema of the {what} of {name:?} cannot be used: {why}");
                Error::new(ErrorCode::ProtocolViolation, message)
            }),
            _ => Ok(None),
        };
        let methods = methods.iter().map(|method| {
            Ok(MethodChecks {
                name: method.name.clone(),
                parameters: method.parameters.iter().map(|parameter| parameter.name.clone()).collect(),
                arguments: compile(check.arguments(), &method.input, &method.name, "arguments")?,
                streams: method.streams,
                result: compile(check.results(), &method.output, &method.name, "result")?,
            })
        });
        Ok(Some(Self { methods: methods.collect::<Result<_, Error>>()? }))
    }

    /// Compares the arguments of a call.
    #[cold]
    pub(crate) fn arguments(&self, method: usize, payload: &[u8]) -> Result<(), Error> {
        let Some(method) = self.methods.get(method) else { return Ok(()) };
        let Some(schema) = &method.arguments else { return Ok(()) };
        let wrong = |why: String| Error::new(ErrorCode::InvalidArguments, format!("{}: {why}", method.name));
        schema.check(payload, Some(&method.parameters)).map_err(wrong)
    }

    /// Compares the result of a call. That of a method that streams is none of its items.
    #[cold]
    pub(crate) fn result(&self, method: usize, payload: &[u8]) -> Result<(), Error> {
        self.given(method, false, payload)
    }

    /// Compares an item that a method streams.
    #[cold]
    pub(crate) fn item(&self, method: usize, payload: &[u8]) -> Result<(), Error> {
        self.given(method, true, payload)
    }

    fn given(&self, method: usize, streamed: bool, payload: &[u8]) -> Result<(), Error> {
        let method = self.methods.get(method).filter(|method| method.streams == streamed);
        let Some((method, schema)) = method.and_then(|method| Some((method, method.result.as_ref()?))) else {
            return Ok(());
        };
        schema.check(payload, None).map_err(|why| {
            let what = if streamed { "an item" } else { "the result" };
            let message = format!("{}: {what} is not what its contract says: {why}", method.name);
            Error::new(ErrorCode::InvalidValue, message)
        })
    }
}

impl fmt::Debug for Checks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Checks")
    }
}

/// How schemas of extensions are read: they are strangers' too.
pub(crate) fn schema_options<'a>() -> jsonschema::ValidationOptions<'a> {
    let patterns = PatternOptions::regex().size_limit(PATTERN_SIZE).dfa_size_limit(PATTERN_SIZE);
    let options = jsonschema::options().with_draft(Draft::Draft202012);
    options.with_pattern_options(patterns).should_validate_formats(true)
}

impl Schema {
    fn compile(source: &Json) -> Result<Self, String> {
        let validator = schema_options()
            .with_keyword("type", |parent, value, _| Ok(Box::new(Type::read(parent, value))))
            .with_format(INT_KEY, |key: &str| key.parse::<i128>().is_ok())
            .build(source)
            .map_err(|error| error.to_string())?;
        Ok(Self { source: source.clone(), validator })
    }

    fn check(&self, payload: &[u8], parameters: Option<&[String]>) -> Result<(), String> {
        let value = match parameters {
            Some(_) => arguments(payload),
            None => Value::from_bytes(payload),
        };
        let value = value.map_err(|error| error.to_string())?;
        if let (Value::List(arguments), Some(_)) = (&value, parameters) {
            self.count(arguments.len())?;
        }
        let view = view(value)?;
        let Err(error) = self.validator.validate(&view) else { return Ok(()) };
        let error = deepest(&error);
        let mut message = self.words(error, &view);
        if let Some((end, _)) = message.char_indices().nth(LONGEST) {
            message.truncate(end);
            message.push('…');
        }
        let place = place(error.instance_path(), parameters);
        Err(if place.is_empty() { message } else { format!("{place}: {message}") })
    }

    /// A wrong number of arguments has better words than a list of the wrong length.
    fn count(&self, given: usize) -> Result<(), String> {
        let number = |key| self.source.get(key).and_then(Json::as_u64).and_then(|n| usize::try_from(n).ok());
        let listed = self.source.get("prefixItems").and_then(Json::as_array).map(Vec::len);
        let listed = listed.filter(|_| self.source.get("items") == Some(&Json::Bool(false)));
        let (least, most) = (number("minItems").unwrap_or(0), number("maxItems").or(listed));
        if given >= least && most.is_none_or(|most| given <= most) {
            return Ok(());
        }
        let takes = match most {
            Some(most) if most == least => format!("{most}"),
            Some(most) => format!("{least} to {most}"),
            None => format!("{least} or more"),
        };
        Err(format!("takes {takes} arguments, {given} given"))
    }

    fn words(&self, error: &ValidationError<'_>, whole: &Json) -> String {
        let value = whole.pointer(error.instance_path().as_str()).unwrap_or(whole);
        match error.kind() {
            ValidationErrorKind::Custom { message, .. } => message.clone(),
            ValidationErrorKind::AnyOf { .. }
            | ValidationErrorKind::OneOfNotValid { .. }
            | ValidationErrorKind::FalseSchema => {
                let path = error.schema_path().as_str();
                let schema = path.rfind('/').and_then(|end| self.source.pointer(&path[..end]));
                let expected =
                    schema.map_or("something else".to_owned(), |schema| shape(&self.source, schema));
                format!("{} is not {expected}", short(value))
            }
            _ => error.to_string(),
        }
    }
}

/// The arguments of a call. A stream among them is not looked into: it counts as nil.
fn arguments(payload: &[u8]) -> Result<Value, ValueError> {
    let mut reader = Reader::new(payload);
    let Token::List(count) = reader.token()? else { return Value::from_bytes(payload) };
    let mut arguments = Vec::new();
    for _ in 0..count {
        if reader.take_stream() {
            arguments.push(Value::Nil);
            continue;
        }
        let rest = reader.rest();
        reader.skip()?;
        arguments.push(Value::from_bytes(&rest[..rest.len() - reader.rest().len()])?);
    }
    reader.finish()?;
    Ok(Value::List(arguments))
}

/// The first of some values that does not fit a part of a schema.
pub(super) fn first_misfit<'a>(root: &Json, part: &Json, values: &[&'a Json]) -> Option<&'a Json> {
    let mut schema = part.clone();
    if let (Json::Object(schema), Some(definitions)) = (&mut schema, root.get("$defs")) {
        schema.insert("$defs".to_owned(), definitions.clone());
    }
    match Schema::compile(&schema) {
        Ok(schema) => values.iter().find(|value| !schema.validator.is_valid(value)).copied(),
        Err(_) => values.first().copied(),
    }
}

/// The value as a message repeats it.
fn short(value: &Json) -> String {
    match Sort::of(value) {
        Sort::Nil => "nil".to_owned(),
        Sort::Bytes => "bytes".to_owned(),
        Sort::Bool | Sort::Int | Sort::Float | Sort::Text if !value.is_object() => value.to_string(),
        sort => format!("a {}", sort.name()),
    }
}

/// Of the branches of a union that a value fits nowhere, the error that lies deepest in the value:
/// it comes from the branch that was meant.
fn deepest<'a>(error: &'a ValidationError<'a>) -> &'a ValidationError<'a> {
    let (ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context }) =
        error.kind()
    else {
        return error;
    };
    let depth = |error: &ValidationError<'_>| error.instance_path().segments().count();
    let inner = context.iter().flatten().map(|inner| deepest(inner)).max_by_key(|inner| depth(inner));
    inner.filter(|inner| depth(inner) > depth(error)).unwrap_or(error)
}

/// Where in the arguments or the result a value stands: `person.tags[3]`.
fn place(path: &Location, parameters: Option<&[String]>) -> String {
    let mut place = String::new();
    for (level, segment) in path.segments().enumerate() {
        match (segment, parameters) {
            (LocationSegment::Index(index), Some(parameters)) if level == 0 => match parameters.get(index) {
                Some(name) => place.push_str(name),
                None => place.push_str(&format!("argument {}", index + 1)),
            },
            (LocationSegment::Index(index), _) => place.push_str(&format!("[{index}]")),
            (LocationSegment::Property(name), _) => {
                if !place.is_empty() {
                    place.push('.');
                }
                place.push_str(&name);
            }
        }
    }
    place
}

/// The keyword `type`, for values of the value table.
struct Type {
    types: Vec<String>,
    format: Option<&'static str>,
}

impl Type {
    fn read(parent: &Map<String, Json>, value: &Json) -> Self {
        let types = match value {
            Json::Array(types) => types.iter().filter_map(Json::as_str).map(str::to_owned).collect(),
            other => other.as_str().map(str::to_owned).into_iter().collect(),
        };
        let format = match parent.get("format").and_then(Json::as_str) {
            Some(BYTES) => Some(BYTES),
            Some(TIMESTAMP) => Some(TIMESTAMP),
            _ => None,
        };
        Self { types, format }
    }

    fn takes(&self, sort: Sort) -> bool {
        self.types.iter().any(|ty| match ty.as_str() {
            "null" => sort == Sort::Nil,
            "boolean" => sort == Sort::Bool,
            "integer" => sort == Sort::Int,
            "number" => matches!(sort, Sort::Int | Sort::Float),
            "string" => match self.format {
                Some(BYTES) => sort == Sort::Bytes,
                Some(_) => sort == Sort::Timestamp,
                None => sort == Sort::Text,
            },
            "array" => sort == Sort::List,
            "object" => sort == Sort::Map,
            _ => false,
        })
    }

    fn words(&self) -> String {
        let word = |ty: &String| match (ty.as_str(), self.format) {
            ("null", _) => "nil",
            ("boolean", _) => "bool",
            ("integer", _) => "int",
            ("string", Some(format)) => format,
            ("string", None) => "text",
            ("array", _) => "list",
            ("object", _) => "map",
            _ => "number",
        };
        self.types.iter().map(word).collect::<Vec<_>>().join(" or ")
    }
}

impl<'i> Keyword<'i> for Type {
    fn validate(&self, value: &'i Json) -> Result<(), ValidationError<'i>> {
        let sort = Sort::of(value);
        if self.takes(sort) {
            return Ok(());
        }
        Err(ValidationError::custom(format!("{} is not {}", short(value), self.words())))
    }

    fn is_valid(&self, value: &'i Json) -> bool {
        self.takes(Sort::of(value))
    }
}

#[cfg(test)]
mod tests;
