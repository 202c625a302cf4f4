//! What the replies of handlers say.

use quadriga_abi::manifest::HookMode;
use quadriga_abi::{Error, ErrorCode, codec};

use super::merge::Doc;
use super::run::Said;
use super::table::Handler;
use super::{Did, HookPoint};

/// MessagePack, <https://github.com/msgpack/msgpack/blob/master/spec.md>.
const EMPTY_MAP: u8 = 0x80;
const NIL: u8 = 0xc0;
const FALSE: u8 = 0xc2;
const TRUE: u8 = 0xc3;

/// Reads the reply of a handler that does not stand around the work.
pub(super) fn read(point: &HookPoint, handler: &Handler, reply: &[u8], withheld: &[&'static str]) -> Said {
    let failed = |why: String| Said::Did(Did::Failed(wrong(handler, &why)));
    match (handler.hook.mode, reply) {
        (HookMode::Observe | HookMode::Around, _) | (HookMode::Modify, [NIL | EMPTY_MAP]) => {
            Said::Did(Did::Nothing)
        }
        (HookMode::Validate, [NIL | TRUE]) => Said::Did(Did::Allowed),
        (HookMode::Validate, [FALSE]) => Said::Did(Did::Vetoed("it gives no reason".to_owned())),
        (HookMode::Validate, _) => match codec::from_bytes::<String>(reply) {
            Ok(reason) => Said::Did(Did::Vetoed(reason)),
            Err(_) => failed("it has to return nothing or true to allow, a reason or false to veto".into()),
        },
        (HookMode::Modify, _) => patch(point, reply, withheld).map_or_else(failed, Said::Patch),
    }
}

/// Reads a change of the context, if it is one that the handler may make.
///
/// # Errors
/// Why not.
pub(super) fn patch(point: &HookPoint, bytes: &[u8], withheld: &[&'static str]) -> Result<Doc, String> {
    let patch = Doc::read(bytes).map_err(|why| format!("the patch: {why}"))?;
    let Some(fields) = patch.fields() else {
        return Err("it has to return nothing, or a map of what it changes".to_owned());
    };
    let may = |name: &str| {
        let field = point.fields.iter().find(|field| field.name == name);
        field.is_some_and(|field| field.changeable) && !withheld.contains(&name)
    };
    match fields.keys().find(|name| !may(name)) {
        Some(name) => Err(format!("it may not change the field {name:?}")),
        None => Ok(patch),
    }
}

/// Whether a reply says nothing.
pub(super) fn is_nothing(reply: &[u8]) -> bool {
    reply == [NIL]
}

/// What is wrong with a reply.
pub(super) fn wrong(handler: &Handler, why: &str) -> Error {
    Error::new(ErrorCode::InvalidValue, format!("{}/{}: {why}", handler.extension, handler.method))
}
