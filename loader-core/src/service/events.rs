//! `quadriga.events`: extensions emit on topics, and subscribe to them.

use std::num::NonZeroU32;

use quadriga_abi::limits::Span;
use quadriga_abi::manifest::Subscription;
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Delivery, Error, ErrorCode, Overflow, codec};
use serde::Deserialize;

use super::{Service, pair, unknown_method};
use crate::event::{check_pattern, check_topic};
use crate::{Bridge, CallContext, Outcome};

/// The service.
pub(crate) struct Events;

/// The third argument of `subscribe`: what the manifest would say of the topic.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default, rename_all = "kebab-case")]
struct Options {
    overflow: Overflow,
    delivery: Delivery,
    attempts: Option<NonZeroU32>,
    first_delay: Option<Span>,
    longest_delay: Option<Span>,
}

impl Service for Events {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        Outcome::Ready(match method {
            "emit" => return emit(caller, parent, &arguments).unwrap_or_else(Outcome::from),
            "subscribe" => subscribe(caller, parent, &arguments),
            "unsubscribe" => unsubscribe(caller, &arguments),
            _ => Err(unknown_method("events", method, &["emit", "subscribe", "unsubscribe"])),
        })
    }
}

fn emit(caller: &Bridge, parent: &CallContext, arguments: &[u8]) -> Result<Outcome, Error> {
    let none = || wrong("emit", "it takes a topic and a value");
    let (topic, data) = pair(arguments).ok_or_else(none)?;
    check_topic(topic).map_err(|why| wrong("emit", &why))?;
    caller.check(parent, &Access::Emit(topic))?;
    let (core, _) = caller.here()?;
    let source = Some(caller.extension().clone());
    let (emitted, written) = core.emit(source, topic, data, parent.depth + 1, parent.trace)?;
    Ok(match written {
        None => Outcome::Ready(encoded(&emitted)),
        Some(written) => Outcome::Pending(Box::pin(async move {
            written.await?;
            encoded(&emitted)
        })),
    })
}

fn subscribe(caller: &Bridge, parent: &CallContext, arguments: &[u8]) -> Result<Bytes, Error> {
    let read = || match codec::from_arguments::<(String, String)>(arguments) {
        Ok((topic, method)) => Ok((topic, method, Options::default())),
        Err(_) => codec::from_arguments(arguments),
    };
    let (topic, method, options) = read().map_err(|error| wrong("subscribe", &error.to_string()))?;
    check_pattern(&topic).map_err(|why| wrong("subscribe", &why))?;
    caller.check(parent, &Access::Subscribe(&topic))?;
    let (core, reach) = caller.here()?;
    if reach.ward.loose {
        return Err(Error::new(ErrorCode::Unsupported, "loose code has nothing that events could reach"));
    }
    // One that is still being loaded has no methods that are known.
    if let Some(slot) = core.routes.load().get(caller.extension()) {
        slot.method(&method)?;
    }
    let Options { overflow, delivery, attempts, first_delay, longest_delay } = options;
    let wanted = Subscription { method, overflow, delivery, attempts, first_delay, longest_delay };
    core.subscribe(&reach.ward, &topic, &wanted)?;
    encoded(&())
}

fn unsubscribe(caller: &Bridge, arguments: &[u8]) -> Result<Bytes, Error> {
    let read = codec::from_arguments::<(String, String)>(arguments);
    let (topic, method) = read.map_err(|error| wrong("unsubscribe", &error.to_string()))?;
    let (core, reach) = caller.here()?;
    encoded(&core.bus.unsubscribe(&reach.ward, &topic, &method))
}

fn wrong(method: &str, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArguments, format!("quadriga.events/{method}: the arguments: {why}"))
}

fn encoded(value: &impl serde::Serialize) -> Result<Bytes, Error> {
    let bytes = codec::to_bytes(value).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
    Ok(bytes.into())
}
