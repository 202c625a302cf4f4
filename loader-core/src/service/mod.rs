//! The services of the host itself: extensions call them under ids of a publisher that none of them
//! can have.

mod calls;
mod data;
mod events;
mod hooks;
mod kv;
mod process;
mod secrets;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use quadriga_abi::limits::ByteSize;
use quadriga_abi::msgpack::{Reader, Token};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId};

use crate::call::LATE;
use crate::detached::spawned;
use crate::dispatcher::Core;
use crate::route::suggest;
use crate::{Bridge, CallContext, Outcome};

pub(crate) use calls::Calls;
pub(crate) use data::Data;
pub(crate) use events::Events;
pub(crate) use hooks::HookService;
pub(crate) use kv::Kv;
pub use process::{Ended, Launch, Launcher};
pub(crate) use process::{Process, Runs};
pub(crate) use secrets::Secrets;

/// The publisher of the host's services.
const PUBLISHER: &str = "quadriga";

/// Something that the host does for its extensions, under an id of the publisher `quadriga`.
///
/// A guest calls it like an extension, such as `host.call("quadriga.kv", "get", key)`, in whatever
/// language it is written and in whatever process it runs; the call arrives here in the process of
/// the dispatcher. The permission `call` plays no part: each service asks for one of its own.
///
/// The dispatcher has one of each as long as it lives, and calls it from many threads at once.
pub trait Service: Send + Sync + 'static {
    /// Does what an extension asks of it.
    ///
    /// `caller` speaks for the extension and may be cloned: who it is ([`Bridge::extension`]), what
    /// it may do ([`Bridge::check`]), its log, its counters. To be checked, with `parent`, before each
    /// thing that is done on its behalf, also after a wait: a denial is recorded there, and a
    /// revocation holds from the next one on.
    ///
    /// `parent` is the call of the extension in the course of which it asks: its id (0 outside of
    /// any) and when its caller stops waiting. `arguments` are a MessagePack list, no larger than
    /// [`Policy::message_size`](crate::Policy::message_size), but otherwise as the guest made them;
    /// the result is one value.
    ///
    /// It runs on the thread of its caller, which may be an event loop, so it must not wait there.
    /// What takes longer comes back as [`Outcome::Pending`]: that future is polled on the dispatcher's
    /// tokio runtime, and dropped when the deadline passes or the guest no longer waits, such as when
    /// its call is given up. A panic in either becomes `internal`.
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome;
}

/// By name.
pub(crate) type Services = HashMap<String, Arc<dyn Service>>;

/// The name of a service, if an id is kept for services.
pub(crate) fn service_name(id: &str) -> Option<&str> {
    id.strip_prefix(PUBLISHER)?.strip_prefix('.')
}

/// Refuses an id that is kept for services.
pub(crate) fn not_a_service(id: &ExtensionId, code: ErrorCode) -> Result<(), Error> {
    if service_name(id.as_str()).is_none() {
        return Ok(());
    }
    let message = format!("{id}: the publisher {PUBLISHER} is kept for the services of the host");
    Err(Error::new(code, message).with_hint("choose another publisher"))
}

/// The permissions that runtimes see to. The others are asked for at every call of an extension or a
/// service, whatever runs it.
pub fn beside_calls(permissions: &Permissions) -> Permissions {
    Permissions {
        call: Vec::new(),
        kv: false,
        stores: Vec::new(),
        data: Vec::new(),
        secrets: Vec::new(),
        emit: Vec::new(),
        subscribe: Vec::new(),
        hooks: Vec::new(),
        sensitive: Vec::new(),
        api: Vec::new(),
        ..permissions.clone()
    }
}

/// Refuses a method that a service does not have.
pub(crate) fn unknown_method(service: &str, method: &str, there: &[&str]) -> Error {
    let message = format!("{PUBLISHER}.{service} has no method {method:?}");
    Error::new(ErrorCode::UnknownMethod, message).with_hint(suggest(method, there, "it has"))
}

/// A name and a value, out of a list of the two.
pub(crate) fn pair(arguments: &[u8]) -> Option<(&str, &[u8])> {
    let mut reader = Reader::new(arguments);
    let (Ok(Token::List(2)), Ok(Token::Text(name))) = (reader.token(), reader.token()) else {
        return None;
    };
    let value = reader.rest();
    reader.skip().ok()?;
    reader.finish().ok()?;
    Some((name, value))
}

impl Core {
    /// Has a service do something for an extension.
    pub(crate) fn serve(
        &self,
        caller: &Bridge,
        parent: &CallContext,
        service: &str,
        method: &str,
        arguments: Bytes,
    ) -> Outcome {
        let Some(found) = self.services.get(service) else {
            let mut names: Vec<&str> = self.services.keys().map(String::as_str).collect();
            names.sort_unstable();
            let message = format!("this host has no service {PUBLISHER}.{service}");
            let error = Error::new(ErrorCode::UnknownExtension, message);
            return error.with_hint(suggest(service, &names, "it has")).into();
        };
        if arguments.len() as u64 > self.policy.message_size {
            let [size, most] = [arguments.len() as u64, self.policy.message_size].map(ByteSize);
            let message = format!("the arguments for {PUBLISHER}.{service} take {size}, more than {most}");
            return Error::new(ErrorCode::MessageTooLarge, message).into();
        }
        let call = || found.call(caller, parent, method, arguments);
        // It must not reach the stack of a guest.
        match catch_unwind(AssertUnwindSafe(call)) {
            Ok(Outcome::Pending(later)) => {
                let deadline = parent.deadline;
                Outcome::Pending(spawned(&self.handle, async move {
                    let Some(deadline) = deadline else { return later.await };
                    let late = |_| Err(Error::new(ErrorCode::DeadlineExceeded, LATE));
                    tokio::time::timeout_at(deadline.into(), later).await.unwrap_or_else(late)
                }))
            }
            Ok(ready) => ready,
            Err(_) => Error::new(ErrorCode::Internal, format!("{PUBLISHER}.{service} panicked")).into(),
        }
    }
}
