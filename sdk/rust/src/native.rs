//! The extension as a native library: a root module that `abi_stable` checks, and the host's
//! functions by pointer.

mod panic;

use std::cell::Cell;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use abi_stable::library::LibHeader;
use abi_stable::library::{CheckTypeLayout, RootModuleResult};
use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RVec};
use quadriga_abi::vtable::{self, ExtensionModule, ExtensionModuleRef, HostCall, Outcome};
use quadriga_abi::{Error, ErrorCode};

use crate::method::{self, Extension};

thread_local! {
    /// The call that runs on this thread; null between calls.
    static CURRENT: Cell<*const HostCall> = const { Cell::new(ptr::null()) };
}

/// Makes this library an extension. The name is the one under which `abi_stable` looks.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($extension:ident) => {
        #[unsafe(export_name = "_1as_0lib_1header_0root_bmodule_bloader")]
        static HEADER: $crate::__private::LibHeader = $crate::__private::header::<$extension>();
    };
}

/// What the host looks for.
#[expect(unsafe_code, reason = "abi_stable cannot see the type behind the constructor")]
pub const fn header<E: Extension>() -> LibHeader {
    // SAFETY: `construct` makes an `ExtensionModuleRef`.
    unsafe { LibHeader::from_constructor::<ExtensionModuleRef>(construct::<E>, CheckTypeLayout::Yes) }
}

extern "C" fn construct<E: Extension>() -> RootModuleResult {
    fn module<E: Extension>() -> ExtensionModuleRef {
        ExtensionModule { describe: describe::<E>, call: call::<E>, needs: vtable::needs }.leak_into_prefix()
    }
    abi_stable::library::__call_root_module_loader(module::<E>)
}

extern "C" fn describe<E: Extension>() -> RVec<u8> {
    panic::install_hook();
    // Texts and lists only: encoding into memory cannot fail.
    rmp_serde::to_vec_named(&method::describe::<E>()).unwrap_or_default().into()
}

extern "C" fn call<E: Extension>(method: u32, arguments: RSlice<'_, u8>, call: HostCall) {
    let entered = Entered::new(&call);
    let result = catch_unwind(AssertUnwindSafe(|| match E::METHODS.get(method as usize) {
        Some(method) => method::run(method, arguments.as_slice()),
        None => Err(method::unknown(method)),
    }));
    drop(entered);
    match result {
        Ok(Ok(reply)) => call.finish(Outcome::Reply, reply),
        Ok(Err(error)) => call.finish(Outcome::Error, error.to_bytes()),
        Err(payload) => {
            let error = panic::error(&*payload);
            // A payload may panic again when it is dropped, and nothing could catch that.
            mem::forget(payload);
            call.finish(Outcome::Error, error.to_bytes());
        }
    }
}

/// Makes a call the current one, and the one before it again at the end: calls nest.
struct Entered(*const HostCall);

impl Entered {
    fn new(call: &HostCall) -> Self {
        Self(CURRENT.replace(call))
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.0);
    }
}

fn is_in_call() -> bool {
    !CURRENT.get().is_null()
}

#[expect(unsafe_code, reason = "the current call lies on the stack of `call`")]
fn with_current<T>(use_call: impl FnOnce(&HostCall) -> T) -> Result<T, Error> {
    // SAFETY: the pointer is set while `call` holds what it points to, on this thread, and reset
    // before it lets go.
    match unsafe { CURRENT.get().as_ref() } {
        Some(call) => Ok(use_call(call)),
        None => Err(Error::new(ErrorCode::Unsupported, "the host cannot be reached from here")
            .with_hint("use the host's functions on the thread that runs a call")),
    }
}

pub(crate) fn call_other<T>(
    extension: &str,
    method: &str,
    arguments: &[u8],
    read: impl FnOnce(Result<&[u8], Error>) -> Result<T, Error>,
) -> Result<T, Error> {
    let read = |outcome, bytes: &[u8]| match outcome {
        Outcome::Reply => read(Ok(bytes)),
        Outcome::Error | Outcome::End => read(Err(Error::from_bytes(bytes))),
    };
    with_current(|call| call.call(extension, method, arguments, read))?.unwrap_or_else(no_answer)
}

pub(crate) fn emit(item: &[u8]) -> Result<(), Error> {
    with_current(|call| call.emit(item, received))?.unwrap_or_else(no_answer).map(drop)
}

pub(crate) fn next() -> Result<Option<Vec<u8>>, Error> {
    with_current(|call| call.next(received))?.unwrap_or_else(no_answer)
}

/// A call with streams.
pub(crate) struct Channel(vtable::Channel);

pub(crate) fn start(
    extension: &str,
    method: &str,
    arguments: &[u8],
    input: bool,
    output: bool,
) -> Result<Channel, Error> {
    with_current(|call| Channel(call.start(extension, method, arguments, input, output)))
}

impl Channel {
    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.0.read(received).unwrap_or_else(no_answer)
    }

    pub(crate) fn write(&mut self, item: &[u8]) -> Result<(), Error> {
        self.0.write(item, received).unwrap_or_else(no_answer).map(drop)
    }

    pub(crate) fn finish(&mut self) {
        self.0.finish();
    }
}

fn received(outcome: Outcome, bytes: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    match outcome {
        Outcome::Reply => Ok(Some(bytes.to_vec())),
        Outcome::End => Ok(None),
        Outcome::Error => Err(Error::from_bytes(bytes)),
    }
}

fn no_answer<T>() -> Result<T, Error> {
    Err(Error::new(ErrorCode::ProtocolViolation, "the host gave no result"))
}

/// Waits for the first of the channels, the input, the end of the time, or a [`Bell`]. Gives the
/// places of what can be read; the input comes last.
pub(crate) fn wait(
    channels: &mut [&mut Channel],
    input: bool,
    timeout: Option<Duration>,
) -> Result<Vec<usize>, Error> {
    let mut channels: Vec<_> = channels.iter_mut().map(|channel| &mut channel.0).collect();
    let timeout = timeout.and_then(|timeout| u64::try_from(timeout.as_nanos()).ok()).unwrap_or(u64::MAX);
    let ready = with_current(|call| call.wait(&mut channels, input, timeout, received))?;
    let ready = ready.unwrap_or_else(no_answer)?.unwrap_or_default();
    Ok(ready.iter().enumerate().filter(|(_, ready)| **ready != 0).map(|(place, _)| place).collect())
}

/// Ends the waits of a call, from any thread, as long as it is open.
#[derive(Default)]
pub(crate) struct Bell(Mutex<Option<Lent>>);

struct Lent(*const HostCall);

// SAFETY: any thread may use a `HostCall`; `Bell` sees to it that there still is one.
#[expect(unsafe_code, reason = "the current call lies on the stack of `call`")]
unsafe impl Send for Lent {}

impl Bell {
    fn lent(&self) -> MutexGuard<'_, Option<Lent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Belongs to the current call from now on. Whoever opens it closes it before the call ends.
    pub(crate) fn open(&self) {
        *self.lent() = Some(CURRENT.get()).filter(|call| !call.is_null()).map(Lent);
    }

    pub(crate) fn close(&self) {
        *self.lent() = None;
    }

    #[expect(unsafe_code, reason = "the current call lies on the stack of `call`")]
    pub(crate) fn ring(&self) {
        if let Some(Lent(call)) = &*self.lent() {
            // SAFETY: the call goes on while the bell is open, and `close` waits for this lock.
            unsafe { &**call }.wake();
        }
    }
}

pub(crate) fn log(level: u8, message: &str) {
    // Outside a call there is nowhere to write to.
    let _ = with_current(|call| call.log(level, message));
}

pub(crate) fn config() -> Result<RVec<u8>, Error> {
    with_current(HostCall::config)
}

pub(crate) fn cancelled() -> bool {
    with_current(HostCall::cancelled).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_header_has_the_name_that_is_looked_for() {
        let name = "_1as_0lib_1header_0root_bmodule_bloader";
        assert_eq!(abi_stable::library::ROOT_MODULE_LOADER_NAME, name);
    }
}
