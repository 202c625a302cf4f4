//! MessagePack to engine values and back, without a tree between.

use std::fmt;

use deno_core::v8;
use quadriga_abi::msgpack::{Depth, Reader, Token, write};
use quadriga_abi::{Timestamp, ValueError};

use crate::state::{Helpers, State};

/// The largest integer that a JS number holds exactly.
const MAX_SAFE: i64 = (1 << 53) - 1;

/// The most milliseconds from 1970 that a `Date` holds.
const MAX_DATE: f64 = 8.64e15;

/// The most bytes that stand before the bytes of a value.
const HEAD: usize = 5;

/// In nanoseconds.
const MILLISECOND: u32 = 1_000_000;

/// Why a value did not cross.
#[derive(Debug)]
pub(crate) enum ConvertError {
    /// It has no place in the value table. The path to it is collected innermost first.
    NoPlace { path: Vec<String>, why: String },
    /// The guest's own code threw, in a getter or a proxy; the exception is in the `TryCatch`.
    Threw,
}

impl ConvertError {
    fn new(why: impl Into<String>) -> Self {
        Self::NoPlace { path: Vec::new(), why: why.into() }
    }

    fn at(mut self, step: impl FnOnce() -> String) -> Self {
        if let Self::NoPlace { path, .. } = &mut self {
            path.push(step());
        }
        self
    }
}

impl From<ValueError> for ConvertError {
    fn from(error: ValueError) -> Self {
        Self::new(error.to_string())
    }
}

impl fmt::Display for ConvertError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::NoPlace { path, why } = self else {
            return f.write_str("a getter threw");
        };
        // A cycle gives a path as deep as the depth limit; its head tells enough.
        let head: String = path.iter().rev().take(8).map(String::as_str).collect();
        let more = if path.len() > 8 { "..." } else { "" };
        match head.as_str() {
            "" => f.write_str(why),
            head => write!(f, "{why}, at {}{more}", head.trim_start_matches('.')),
        }
    }
}

/// Reads one value.
pub(crate) fn decode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    reader: &mut Reader<'_>,
    depth: Depth,
) -> Result<v8::Local<'s, v8::Value>, ConvertError> {
    let token = reader.token()?;
    rest(scope, token, reader, depth)
}

/// Reads what follows a token.
fn rest<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    token: Token<'_>,
    reader: &mut Reader<'_>,
    depth: Depth,
) -> Result<v8::Local<'s, v8::Value>, ConvertError> {
    Ok(match token {
        Token::Nil => v8::null(scope).into(),
        Token::Bool(b) => v8::Boolean::new(scope, b).into(),
        Token::Int(n) => match i32::try_from(n) {
            Ok(small) => v8::Integer::new(scope, small).into(),
            Err(_) if (-MAX_SAFE..=MAX_SAFE).contains(&n) => v8::Number::new(scope, n as f64).into(),
            Err(_) => v8::BigInt::new_from_i64(scope, n).into(),
        },
        Token::UInt(n) => v8::BigInt::new_from_u64(scope, n).into(),
        Token::Float(x) => v8::Number::new(scope, x).into(),
        Token::Text(text) => string(scope, text)?.into(),
        Token::Bytes(bytes) => uint8_array(scope, bytes)?.into(),
        Token::Timestamp(time) => timestamp(scope, time)?,
        Token::List(n) => {
            let depth = depth.enter()?;
            let items = (0..n).map(|_| decode(scope, reader, depth)).collect::<Result<Vec<_>, _>>()?;
            v8::Array::new_with_elements(scope, &items).into()
        }
        Token::Map(n) => map(scope, n, reader, depth.enter()?)?,
    })
}

/// A plain object if every key is text, else a `Map`.
fn map<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    n: usize,
    reader: &mut Reader<'_>,
    depth: Depth,
) -> Result<v8::Local<'s, v8::Value>, ConvertError> {
    let mut names = Vec::with_capacity(n);
    let mut pairs = Vec::with_capacity(n);
    for _ in 0..n {
        let token = reader.token()?;
        if let Token::Text(name) = token {
            names.push(name);
        }
        pairs.push((rest(scope, token, reader, depth)?, decode(scope, reader, depth)?));
    }
    let twice = || ConvertError::new("two keys of a map are equal in JavaScript");
    if names.len() == n {
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(twice());
        }
        let object = v8::Object::new(scope);
        for (key, value) in pairs {
            let key = key.cast::<v8::Name>();
            // Not `set`: a key such as `__proto__` must stay data.
            object.create_data_property(scope, key, value).ok_or(ConvertError::Threw)?;
        }
        return Ok(object.into());
    }
    let map = v8::Map::new(scope);
    for (key, value) in pairs {
        map.set(scope, key, value).ok_or(ConvertError::Threw)?;
    }
    if map.size() < n { Err(twice()) } else { Ok(map.into()) }
}

/// A `Date` where its milliseconds are enough, else a `Timestamp`.
fn timestamp<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    time: Timestamp,
) -> Result<v8::Local<'s, v8::Value>, ConvertError> {
    let ms = time.seconds() as f64 * 1e3 + f64::from(time.nanos() / MILLISECOND);
    let rest = time.nanos() % MILLISECOND;
    if ms.abs() > MAX_DATE || (ms == MAX_DATE && rest > 0) {
        return Err(ConvertError::new("the timestamp is outside of what a Date holds"));
    }
    if rest == 0 {
        return Ok(v8::Date::new(scope, ms).ok_or(ConvertError::Threw)?.into());
    }
    let arguments = [v8::Number::new(scope, ms).into(), v8::Integer::new_from_unsigned(scope, rest).into()];
    helper(scope, |helpers| &helpers.timestamp, &arguments)
}

/// Calls a function of the bootstrap script.
fn helper<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    which: impl FnOnce(&Helpers) -> &v8::Global<v8::Function>,
    arguments: &[v8::Local<'s, v8::Value>],
) -> Result<v8::Local<'s, v8::Value>, ConvertError> {
    let state = State::current();
    let helpers = state.helpers.get().ok_or(ConvertError::Threw)?;
    let function = v8::Local::new(scope, which(helpers));
    let undefined = v8::undefined(scope).into();
    function.call(scope, undefined, arguments).ok_or(ConvertError::Threw)
}

/// A JS string.
pub(crate) fn string<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    text: &str,
) -> Result<v8::Local<'s, v8::String>, ConvertError> {
    v8::String::new(scope, text)
        .ok_or_else(|| ConvertError::new("the text is longer than a JS string can be"))
}

fn uint8_array<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    bytes: &[u8],
) -> Result<v8::Local<'s, v8::Uint8Array>, ConvertError> {
    let store = v8::ArrayBuffer::new_backing_store_from_boxed_slice(bytes.into()).make_shared();
    let buffer = v8::ArrayBuffer::with_backing_store(scope, &store);
    v8::Uint8Array::new(scope, buffer, 0, bytes.len()).ok_or(ConvertError::Threw)
}

/// Appends a value. Runs guest code where an object has getters, so the scope needs a `TryCatch`.
pub(crate) fn encode<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
    out: &mut Vec<u8>,
    depth: Depth,
) -> Result<(), ConvertError> {
    if value.is_null_or_undefined() {
        write(out, Token::Nil)?;
    } else if value.is_boolean() {
        write(out, Token::Bool(value.is_true()))?;
    } else if value.is_number() {
        write(out, number(value.cast::<v8::Number>().value()))?;
    } else if value.is_string() {
        text(scope, value.cast(), out)?;
    } else if value.is_big_int() {
        write(out, big_int(value.cast())?)?;
    } else if value.is_array() {
        list(scope, value.cast(), out, depth.enter()?)?;
    } else if value.is_uint8_array() || value.is_uint8_clamped_array() || value.is_data_view() {
        view(value.cast(), out)?;
    } else if value.is_map() {
        entries(scope, value.cast(), out, depth.enter()?)?;
    } else if value.is_date() {
        let nanos = helper(scope, |helpers| &helpers.nanosecond, &[value])?.cast::<v8::Number>().value();
        write(out, Token::Timestamp(date(value.cast(), nanos as u32)?))?;
    } else if is_plain(scope, value)? {
        properties(scope, value.cast(), out, depth.enter()?)?;
    } else if value.is_array_buffer() {
        let buffer = value.cast::<v8::ArrayBuffer>();
        let bytes = v8::Uint8Array::new(scope, buffer, 0, buffer.byte_length()).ok_or(ConvertError::Threw)?;
        view(bytes.into(), out)?;
    } else {
        let instead = if value.is_typed_array() {
            "; send its numbers, `Array.from(x)`, or its bytes, `x.buffer`"
        } else if value.is_set() {
            "; send a list, `[...x]`"
        } else {
            ""
        };
        let kind = kind(scope, value);
        return Err(ConvertError::new(format!("{kind} has no place in the value table{instead}")));
    }
    Ok(())
}

fn view(view: v8::Local<'_, v8::ArrayBufferView>, out: &mut Vec<u8>) -> Result<(), ConvertError> {
    // Only small ones have no memory of their own, and are copied here first.
    let mut small = [0; v8::TYPED_ARRAY_MAX_SIZE_IN_HEAP];
    let bytes = view.get_contents(&mut small);
    out.reserve(bytes.len() + HEAD);
    Ok(write(out, Token::Bytes(bytes))?)
}

/// An integer where the number is one exactly.
fn number(x: f64) -> Token<'static> {
    let whole = x.trunc() == x && x.abs() <= MAX_SAFE as f64 && !(x == 0.0 && x.is_sign_negative());
    if whole { Token::Int(x as i64) } else { Token::Float(x) }
}

fn big_int(value: v8::Local<'_, v8::BigInt>) -> Result<Token<'static>, ConvertError> {
    match (value.i64_value(), value.u64_value()) {
        ((n, true), _) => Ok(Token::Int(n)),
        (_, (n, true)) => Ok(Token::UInt(n)),
        _ => Err(ConvertError::new("a BigInt beyond 64 bits has no place in the value table")),
    }
}

fn text<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::String>,
    out: &mut Vec<u8>,
) -> Result<(), ConvertError> {
    let mut buffer = [std::mem::MaybeUninit::uninit(); 512];
    let text = value.to_rust_cow_lossy(scope, &mut buffer);
    // Lone surrogates became U+FFFD, which may also have been there before.
    if text.contains('\u{fffd}') && !is_well_formed(scope, value) {
        return Err(ConvertError::new("the text has a lone surrogate"));
    }
    Ok(write(out, Token::Text(&text))?)
}

/// Whether a string is Unicode text. Asks the guest's engine, the only one to know on QuickJS.
fn is_well_formed<'s>(scope: &mut v8::PinScope<'s, '_>, value: v8::Local<'s, v8::String>) -> bool {
    helper(scope, |helpers| &helpers.well_formed, &[value.into()]).is_ok_and(|answer| answer.is_true())
}

fn list<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    array: v8::Local<'s, v8::Array>,
    out: &mut Vec<u8>,
    depth: Depth,
) -> Result<(), ConvertError> {
    let length = array.length();
    write(out, Token::List(length as usize))?;
    for index in 0..length {
        let item = array.get_index(scope, index).ok_or(ConvertError::Threw)?;
        encode(scope, item, out, depth).map_err(|error| error.at(|| format!("[{index}]")))?;
    }
    Ok(())
}

fn entries<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    map: v8::Local<'s, v8::Map>,
    out: &mut Vec<u8>,
    depth: Depth,
) -> Result<(), ConvertError> {
    let flat = map.as_array(scope);
    write(out, Token::Map(flat.length() as usize / 2))?;
    for index in 0..flat.length() {
        let item = flat.get_index(scope, index).ok_or(ConvertError::Threw)?;
        let step = || format!("[{} {}]", if index % 2 == 0 { "key" } else { "value" }, index / 2);
        encode(scope, item, out, depth).map_err(|error| error.at(step))?;
    }
    Ok(())
}

fn properties<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    object: v8::Local<'s, v8::Object>,
    out: &mut Vec<u8>,
    depth: Depth,
) -> Result<(), ConvertError> {
    let names = v8::GetPropertyNamesArgs {
        mode: v8::KeyCollectionMode::OwnOnly,
        property_filter: v8::PropertyFilter::ONLY_ENUMERABLE | v8::PropertyFilter::SKIP_SYMBOLS,
        index_filter: v8::IndexFilter::IncludeIndices,
        key_conversion: v8::KeyConversionMode::ConvertToString,
    };
    let names = object.get_own_property_names(scope, names).ok_or(ConvertError::Threw)?;
    write(out, Token::Map(names.length() as usize))?;
    for index in 0..names.length() {
        let name = names.get_index(scope, index).ok_or(ConvertError::Threw)?;
        text(scope, name.cast(), out).map_err(|error| error.at(|| "a key".to_owned()))?;
        let value = object.get(scope, name).ok_or(ConvertError::Threw)?;
        if let Err(error) = encode(scope, value, out, depth) {
            let name = name.to_rust_string_lossy(scope);
            return Err(error.at(|| format!(".{name}")));
        }
    }
    Ok(())
}

fn date(value: v8::Local<'_, v8::Date>, nanos: u32) -> Result<Timestamp, ConvertError> {
    let ms = value.value_of();
    if ms.is_nan() {
        return Err(ConvertError::new("an invalid Date has no place in the value table"));
    }
    // A Date is a whole number of milliseconds, within 8.64e15.
    let ms = ms as i64;
    Ok(Timestamp::new(ms.div_euclid(1000), ms.rem_euclid(1000) as u32 * MILLISECOND + nanos)?)
}

/// Whether it is an object that a literal could have made: nothing else has a meaning elsewhere.
fn is_plain<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    value: v8::Local<'s, v8::Value>,
) -> Result<bool, ConvertError> {
    // The engine shows no prototype of a proxy; asking its handler would run guest code.
    if !value.is_object() || value.is_function() || value.is_proxy() {
        return Ok(false);
    }
    let prototype = value.cast::<v8::Object>().get_prototype(scope).ok_or(ConvertError::Threw)?;
    if prototype.is_null() {
        return Ok(true);
    }
    let root = v8::Object::new(scope).get_prototype(scope).ok_or(ConvertError::Threw)?;
    Ok(prototype.strict_equals(root))
}

/// What to call a value in a message.
fn kind<'s>(scope: &mut v8::PinScope<'s, '_>, value: v8::Local<'s, v8::Value>) -> String {
    if value.is_function() {
        return "a function".to_owned();
    }
    if value.is_symbol() {
        return "a symbol".to_owned();
    }
    match value.to_object(scope) {
        Some(object) => {
            let name = object.get_constructor_name().to_rust_string_lossy(scope);
            format!("an object of the class {name}")
        }
        None => "a value".to_owned(),
    }
}

/// Reads a list of arguments. `input` makes the one that stands for the call's stream.
pub(crate) fn arguments<'s>(
    scope: &mut v8::PinScope<'s, '_>,
    payload: &[u8],
    input: impl Fn(&mut v8::PinScope<'s, '_>) -> Option<v8::Local<'s, v8::Value>>,
) -> Result<Vec<v8::Local<'s, v8::Value>>, ConvertError> {
    let mut reader = Reader::new(payload);
    let Token::List(n) = reader.token()? else {
        return Err(ConvertError::new("the arguments are not a list"));
    };
    let list = (0..n)
        .map(|index| {
            let argument = if reader.take_stream() {
                input(scope).ok_or_else(|| ConvertError::new("no stream came with the call"))
            } else {
                decode(scope, &mut reader, Depth::default())
            };
            argument.map_err(|error| error.at(|| format!("[{index}]")))
        })
        .collect::<Result<Vec<_>, _>>()?;
    reader.finish()?;
    Ok(list)
}
