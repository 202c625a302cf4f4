//! `quadriga.calls`: extensions call many others at once.

use std::sync::Arc;
use std::time::Duration;

use quadriga_abi::limits::ByteSize;
use quadriga_abi::msgpack::{Reader, Token, write};
use quadriga_abi::{Bytes, Error, ErrorCode, RuntimeKind, codec};
use serde::{Deserialize, Serialize};

use super::{Service, unknown_method};
use crate::broadcast::{Answer, Broadcast};
use crate::{BoxFuture, Bridge, BroadcastFilter, BroadcastOptions, CallContext, Outcome};

/// The most calls of one broadcast of an extension that are under way at the same time.
const AT_ONCE: usize = 64;

/// The service.
pub(crate) struct Calls;

/// The first argument: for whom it is, and how it is made. Times are in seconds.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct To {
    runtime: Option<RuntimeKind>,
    tag: Option<String>,
    provides: Option<String>,
    timeout: Option<f64>,
    each: Option<f64>,
    parallel: Option<usize>,
}

/// Why an extension has no result.
#[derive(Serialize)]
struct Failed<'a> {
    code: &'static str,
    message: &'a str,
    hint: Option<&'a str>,
}

impl Service for Calls {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let begun = match method {
            "broadcast" => broadcast(caller, parent, &arguments),
            _ => Err(unknown_method("calls", method, &["broadcast"])),
        };
        begun.map_or_else(Outcome::from, Outcome::Pending)
    }
}

fn broadcast(
    caller: &Bridge,
    parent: &CallContext,
    arguments: &Bytes,
) -> Result<BoxFuture<'static, Result<Bytes, Error>>, Error> {
    let (to, method, arguments) = read(arguments).map_err(|why| {
        let message = format!("quadriga.calls/broadcast: the arguments: {why}");
        Error::new(ErrorCode::InvalidArguments, message)
    })?;
    Broadcast::check(caller, parent, &method)?;
    let (core, _) = caller.here()?;
    let defaults = BroadcastOptions::default();
    let options = BroadcastOptions {
        timeout: to.timeout.map_or(defaults.timeout, span),
        each: to.each.map(span),
        at_once: to.parallel.unwrap_or(defaults.at_once).min(AT_ONCE),
        trace: None,
    };
    let mut ids =
        core.audience(&BroadcastFilter { runtime: to.runtime, tag: to.tag, provides: to.provides })?;
    ids.retain(|id| id != caller.extension());
    // One that is still being loaded has no limits of its own yet.
    let own = core.routes.load().get(caller.extension()).map(|slot| slot.caps.message_size());
    let room = own.unwrap_or(core.policy.message_size);
    let by = Some((caller.clone(), *parent));
    let broadcast = Broadcast { method, arguments, options, by, room };
    Ok(Box::pin(async move { encode(&Arc::clone(&core).broadcast(ids, broadcast).await, room) }))
}

/// Reads a map, a method, and a list of arguments for it.
fn read(bytes: &Bytes) -> Result<(To, String, Bytes), String> {
    const NONE: Bytes = Bytes::from_static(&[0x90]);
    let shape = || "it takes a map that says for whom it is, a method, and a list of arguments".to_owned();
    let mut reader = Reader::new(bytes);
    let Ok(Token::List(count @ 2..=3)) = reader.token() else { return Err(shape()) };
    let begin = reader.rest();
    reader.skip().map_err(|_| shape())?;
    let to = &begin[..begin.len() - reader.rest().len()];
    let to: Option<To> = codec::from_bytes(to).map_err(|error| error.to_string())?;
    let to = to.unwrap_or_default();
    for (name, seconds) in [("timeout", to.timeout), ("each", to.each)] {
        if seconds.is_some_and(|seconds| !(seconds > 0.0 && seconds.is_finite())) {
            return Err(format!("{name}: it is no number of seconds above 0"));
        }
    }
    if to.parallel == Some(0) {
        return Err("parallel: expected 1 or more".to_owned());
    }
    let Ok(Token::Text(method)) = reader.token() else { return Err(shape()) };
    let arguments = match count {
        2 => NONE,
        _ => {
            let list = bytes.slice(bytes.len() - reader.rest().len()..);
            match reader.token() {
                Ok(Token::Nil) => NONE,
                Ok(Token::List(items)) => {
                    (0..items).try_for_each(|_| reader.skip()).map_err(|error| error.to_string())?;
                    list.slice(..list.len() - reader.rest().len())
                }
                _ => return Err(shape()),
            }
        }
    };
    reader.finish().map_err(|error| error.to_string())?;
    Ok((to, method.to_owned(), arguments))
}

fn span(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

/// A list of maps: `extension`, and `value` or `error`.
fn encode(answers: &[Answer], room: u64) -> Result<Bytes, Error> {
    let failed = |error: &dyn std::fmt::Display| Error::new(ErrorCode::Internal, error.to_string());
    let mut out = Vec::new();
    write(&mut out, Token::List(answers.len())).map_err(|error| failed(&error))?;
    for answer in answers {
        append(&mut out, answer).map_err(|error| failed(&error))?;
    }
    if out.len() as u64 > room {
        let [size, most] = [out.len() as u64, room].map(ByteSize);
        let message = format!("the answers take {size} together, more than {most}");
        return Err(Error::new(ErrorCode::MessageTooLarge, message).with_hint("raise [limits] message-size"));
    }
    Ok(out.into())
}

fn append(out: &mut Vec<u8>, Answer { extension, result }: &Answer) -> Result<(), codec::EncodeError> {
    // A map of two.
    out.push(0x82);
    codec::append(out, "extension")?;
    codec::append(out, extension.as_str())?;
    match result {
        Ok(value) => {
            codec::append(out, "value")?;
            out.extend_from_slice(value);
            Ok(())
        }
        Err(error) => {
            codec::append(out, "error")?;
            let (code, hint) = (error.code.as_str(), error.hint.as_deref());
            codec::append(out, &Failed { code, message: &error.message, hint })
        }
    }
}
