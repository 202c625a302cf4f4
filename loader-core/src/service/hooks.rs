//! `quadriga.hooks`: extensions take up hook points of the host while they run.

use quadriga_abi::manifest::Hook;
use quadriga_abi::permission::{Access, is_topic};
use quadriga_abi::{Bytes, Error, ErrorCode, Value, codec};

use super::{Service, unknown_method};
use crate::{BoxFuture, Bridge, CallContext, Outcome};

/// The service.
pub(crate) struct HookService;

impl Service for HookService {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        Outcome::Ready(match method {
            "handle" => handle(caller, parent, &arguments),
            "unhandle" => unhandle(caller, &arguments),
            "proceed" => match proceed(caller, parent, &arguments) {
                Ok(work) => return Outcome::Pending(work),
                Err(error) => Err(error),
            },
            _ => Err(unknown_method("hooks", method, &["handle", "proceed", "unhandle"])),
        })
    }
}

/// A hook point, and what the manifest would say of it in `[hooks."POINT"]`.
fn handle(caller: &Bridge, parent: &CallContext, arguments: &[u8]) -> Result<Bytes, Error> {
    let read = codec::from_arguments::<(String, Hook)>(arguments);
    let (point, hook) = read.map_err(|error| wrong("handle", &error.to_string()))?;
    if !is_topic(&point) {
        return Err(wrong(
            "handle",
            "a hook point has 1 to 256 bytes, and no *, blanks or control characters",
        ));
    }
    hook.check().map_err(|(key, why)| wrong("handle", &format!("{key}: {why}")))?;
    caller.check(parent, &Access::Hook(&point))?;
    let (core, reach) = caller.here()?;
    if reach.ward.loose {
        return Err(Error::new(ErrorCode::Unsupported, "loose code has nothing that a hook could reach"));
    }
    // One that is still being loaded has no methods that are known.
    if let Some(slot) = core.routes.load().get(caller.extension()) {
        slot.method(&hook.method)?;
    }
    core.hooks.handle(&reach.ward, &point, hook, core.policy.hooks.handlers)?;
    Ok(codec::to_bytes(&()).unwrap_or_default().into())
}

/// A hook point and a method; says whether there was such a handler.
fn unhandle(caller: &Bridge, arguments: &[u8]) -> Result<Bytes, Error> {
    let read = codec::from_arguments::<(String, String)>(arguments);
    let (point, method) = read.map_err(|error| wrong("unhandle", &error.to_string()))?;
    let (core, reach) = caller.here()?;
    Ok(codec::to_bytes(&core.hooks.unhandle(&reach.ward, &point, &method)).unwrap_or_default().into())
}

/// A change of the context, or nothing; gives what comes of the work that the handler stands around.
fn proceed(
    caller: &Bridge,
    parent: &CallContext,
    arguments: &[u8],
) -> Result<BoxFuture<'static, Result<Bytes, Error>>, Error> {
    let read = codec::from_arguments::<(Option<Value>,)>(arguments);
    let read =
        read.or_else(|error| codec::from_arguments::<()>(arguments).map(|()| (None,)).map_err(|_| error));
    let (patch,) = read.map_err(|error| wrong("proceed", &error.to_string()))?;
    let patch = patch.map(|patch| patch.to_bytes()).transpose();
    let patch = patch.map_err(|error| wrong("proceed", &error.to_string()))?.map(Bytes::from);
    let (core, _) = caller.here()?;
    core.hooks.turns().proceed(parent.id, caller.extension(), patch)
}

fn wrong(method: &str, why: &str) -> Error {
    Error::new(ErrorCode::InvalidArguments, format!("quadriga.hooks/{method}: the arguments: {why}"))
}
