//! The native vtable: how a host and a Rust library built elsewhere call each other in one process.
//!
//! Plain functions that pass bytes; no trait objects and no futures cross. `abi_stable` compares
//! the layout of everything here when a library is loaded. New fields are only ever appended.

#![expect(unsafe_code, reason = "derived: how a field that an older host lacks is looked for")]

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RSlice, RStr, RVec};
use abi_stable::type_layout::TypeLayout;

/// What a library exports, once per process.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ExtensionModuleRef, prefix_fields = ExtensionModulePrefix)))]
#[sabi(missing_field(panic))]
pub struct ExtensionModule {
    /// MessagePack of a [`Description`](crate::Description). Asked once, before any call.
    pub describe: extern "C" fn() -> RVec<u8>,
    /// Calls the method with this index in the description. May be called from many threads at
    /// once. The arguments are lent until it returns. It may end the call before it returns, or
    /// keep the [`HostCall`] and end it later, from any thread.
    pub call: extern "C" fn(method: u32, arguments: RSlice<'_, u8>, call: HostCall),
    /// [`needs`]: what the library takes the host's functions for.
    #[sabi(last_prefix_field)]
    pub needs: extern "C" fn() -> &'static TypeLayout,
}

/// What the crate that calls this knows of [`HostFunctions`]. A host compares it with what it has,
/// which may be more: it checks the other way round than what a library exports.
pub extern "C" fn needs() -> &'static TypeLayout {
    HostFunctionsRef::LAYOUT
}

impl RootModule for ExtensionModuleRef {
    abi_stable::declare_root_module_statics! {ExtensionModuleRef}
    const BASE_NAME: &'static str = "quadriga_extension";
    const NAME: &'static str = "quadriga_extension";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
}

/// How a call ended.
#[repr(u8)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, StableAbi)]
pub enum Outcome {
    /// The bytes are the encoded result.
    Reply,
    /// The bytes are an encoded [`Error`](crate::Error).
    Error,
    /// There is nothing more to read; no bytes.
    End,
}

/// One call, as the extension holds it: where its result goes, and what it may ask of its host.
/// Dropped without a result, it fails the call.
#[repr(C)]
#[derive(StableAbi)]
pub struct HostCall {
    state: *const (),
    // Compared by `needs`, so that the host's may grow.
    #[sabi(unsafe_opaque_field)]
    functions: HostFunctionsRef,
}

/// The host's functions. They live as long as the process; `state` is the host's own word for the
/// call, valid until `release`. Any thread may use them.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostFunctionsRef, prefix_fields = HostFunctionsPrefix)))]
pub struct HostFunctions {
    /// Ends the call. Only the first time counts.
    pub finish: unsafe extern "C" fn(state: *const (), outcome: Outcome, bytes: RVec<u8>),
    /// Gives the call back to the host, which fails it if it has not ended.
    pub release: unsafe extern "C" fn(state: *const ()),
    /// Calls a method of another extension, waits, and gives the result to `sink` before it
    /// returns.
    pub call: unsafe extern "C" fn(
        state: *const (),
        extension: RStr<'_>,
        method: RStr<'_>,
        arguments: RSlice<'_, u8>,
        sink: ReplySink,
    ),
    /// Writes a line to the log. Levels: 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    pub log: unsafe extern "C" fn(state: *const (), level: u8, message: RStr<'_>),
    /// The extension's settings: a MessagePack map.
    pub config: unsafe extern "C" fn(state: *const ()) -> RVec<u8>,
    /// Whether the caller no longer waits.
    pub cancelled: unsafe extern "C" fn(state: *const ()) -> bool,
    /// Hands on an item of the call's result, and waits while its consumer has enough to read. The
    /// sink gets an empty reply or an error.
    pub emit: unsafe extern "C" fn(state: *const (), item: RSlice<'_, u8>, sink: ReplySink),
    /// Waits for the next item of the stream among the call's arguments.
    pub next: unsafe extern "C" fn(state: *const (), sink: ReplySink),
    /// Begins a call that runs while its caller goes on: with a stream beside its arguments
    /// (`input`), with one in place of its result (`stream`). Returns the host's own word for it,
    /// valid until `drop_channel`.
    pub start: unsafe extern "C" fn(
        state: *const (),
        extension: RStr<'_>,
        method: RStr<'_>,
        arguments: RSlice<'_, u8>,
        input: bool,
        stream: bool,
    ) -> *mut (),
    /// Waits for the next item of such a call, which is its result if it does not stream.
    pub read: unsafe extern "C" fn(channel: *mut (), sink: ReplySink),
    /// Sends such a call an item of its input, and waits while it has enough to read. The sink gets
    /// an empty reply or an error.
    pub write: unsafe extern "C" fn(channel: *mut (), item: RSlice<'_, u8>, sink: ReplySink),
    /// Says that the input has no more items.
    pub finish_input: unsafe extern "C" fn(channel: *mut ()),
    /// Lets go of such a call, which is given up if it still runs.
    // Older extensions know what is above, and must find the same mandatory part: what came later
    // may be missing.
    #[sabi(last_prefix_field)]
    pub drop_channel: unsafe extern "C" fn(channel: *mut ()),
    /// Waits until one of these calls can be read without waiting, or, with `input`, the stream
    /// among the call's arguments; until `timeout` nanoseconds are over, unless it is `u64::MAX`; or
    /// until `wake`. The sink gets a byte for each of them and one for the input, 1 if it can be
    /// read; or an error when the call must end.
    pub wait: unsafe extern "C" fn(
        state: *const (),
        channels: RSlice<'_, *mut ()>,
        input: bool,
        timeout: u64,
        sink: ReplySink,
    ),
    /// Ends the `wait` of a call, or the next one if there is none.
    pub wake: unsafe extern "C" fn(state: *const ()),
}

/// Where the result of an extension's own call goes.
#[repr(C)]
#[derive(StableAbi)]
pub struct ReplySink {
    /// The extension's own word for it.
    pub state: *mut (),
    /// Takes the result. The bytes are only lent.
    pub take: unsafe extern "C" fn(state: *mut (), outcome: Outcome, bytes: RSlice<'_, u8>),
}

impl HostCall {
    /// Hands a call to an extension.
    ///
    /// # Safety
    /// `state` must be what `functions` expect, from any thread, until they are asked to release
    /// it.
    #[expect(unsafe_code, reason = "raw pointers cross the seam")]
    pub unsafe fn new(state: *const (), functions: HostFunctionsRef) -> Self {
        Self { state, functions }
    }

    /// Ends the call with a reply or an encoded error. Only the first time counts.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn finish(&self, outcome: Outcome, bytes: Vec<u8>) {
        // SAFETY: whoever made `self` promised that the two fit; `release` comes with the drop.
        unsafe { self.functions.finish()(self.state, outcome, bytes.into()) }
    }

    /// Calls a method of another extension, waits, and reads the result where the host has it.
    /// `None` only if the host breaks its promise to give one.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn call<T, F>(&self, extension: &str, method: &str, arguments: &[u8], read: F) -> Option<T>
    where
        F: FnOnce(Outcome, &[u8]) -> T,
    {
        // SAFETY: as in `finish`.
        receive(read, |sink| unsafe {
            self.functions.call()(self.state, extension.into(), method.into(), arguments.into(), sink);
        })
    }

    /// Hands on an item of the call's result, and waits while its consumer has enough to read.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn emit<T>(&self, item: &[u8], read: impl FnOnce(Outcome, &[u8]) -> T) -> Option<T> {
        // SAFETY: as in `finish`.
        receive(read, |sink| unsafe { self.functions.emit()(self.state, item.into(), sink) })
    }

    /// Waits for the next item of the stream among the call's arguments.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn next<T>(&self, read: impl FnOnce(Outcome, &[u8]) -> T) -> Option<T> {
        // SAFETY: as in `finish`.
        receive(read, |sink| unsafe { self.functions.next()(self.state, sink) })
    }

    /// Begins a call that runs while its caller goes on, with streams or without.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn start(
        &self,
        extension: &str,
        method: &str,
        arguments: &[u8],
        input: bool,
        stream: bool,
    ) -> Channel {
        let (extension, method, arguments) = (extension.into(), method.into(), arguments.into());
        // SAFETY: as in `finish`.
        let state =
            unsafe { self.functions.start()(self.state, extension, method, arguments, input, stream) };
        Channel { state, functions: self.functions }
    }

    /// Waits for the first of these calls that can be read, for the call's input if `input`, for
    /// `timeout` nanoseconds at most unless it is `u64::MAX`, or for a `wake`. Gives `read` a byte
    /// for each and one for the input. `None` also from a host that is older than this function.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn wait<T>(
        &self,
        channels: &mut [&mut Channel],
        input: bool,
        timeout: u64,
        read: impl FnOnce(Outcome, &[u8]) -> T,
    ) -> Option<T> {
        let wait = self.functions.wait()?;
        let channels: Vec<*mut ()> = channels.iter().map(|channel| channel.state).collect();
        // SAFETY: as in `finish`; the channels are borrowed, so nobody else uses them meanwhile.
        receive(read, |sink| unsafe {
            wait(self.state, channels[..].into(), input, timeout, sink);
        })
    }

    /// Ends the `wait` of this call, or the next one. From any thread.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn wake(&self) {
        if let Some(wake) = self.functions.wake() {
            // SAFETY: as in `finish`.
            unsafe { wake(self.state) }
        }
    }

    /// Writes a line to the log. Levels: 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn log(&self, level: u8, message: &str) {
        // SAFETY: as in `finish`.
        unsafe { self.functions.log()(self.state, level, message.into()) }
    }

    /// The extension's settings: a MessagePack map.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn config(&self) -> RVec<u8> {
        // SAFETY: as in `finish`.
        unsafe { self.functions.config()(self.state) }
    }

    /// Whether the caller no longer waits.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn cancelled(&self) -> bool {
        // SAFETY: as in `finish`.
        unsafe { self.functions.cancelled()(self.state) }
    }
}

impl Drop for HostCall {
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    fn drop(&mut self) {
        // SAFETY: as in `finish`; nothing uses `state` after the drop.
        unsafe { self.functions.release()(self.state) }
    }
}

/// A call that an extension has begun. Dropped, it is given up.
pub struct Channel {
    state: *mut (),
    functions: HostFunctionsRef,
}

impl Channel {
    /// Waits for the next item of the result.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn read<T>(&mut self, read: impl FnOnce(Outcome, &[u8]) -> T) -> Option<T> {
        // SAFETY: `state` is what `start` gave, and nobody else has it.
        receive(read, |sink| unsafe { self.functions.read()(self.state, sink) })
    }

    /// Sends an item of the input, and waits while the other side has enough to read.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn write<T>(&mut self, item: &[u8], read: impl FnOnce(Outcome, &[u8]) -> T) -> Option<T> {
        // SAFETY: as in `read`.
        receive(read, |sink| unsafe { self.functions.write()(self.state, item.into(), sink) })
    }

    /// Says that the input has no more items.
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    pub fn finish(&mut self) {
        // SAFETY: as in `read`.
        unsafe { self.functions.finish_input()(self.state) }
    }
}

impl Drop for Channel {
    #[expect(unsafe_code, reason = "the host's functions take a raw pointer")]
    fn drop(&mut self) {
        // SAFETY: as in `read`; nothing uses `state` after the drop.
        unsafe { self.functions.drop_channel()(self.state) }
    }
}

// SAFETY: the host lets any thread use what `start` gave, one at a time.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Send for Channel {}

// SAFETY: `HostCall::new` asks for a state that any thread may use.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Send for HostCall {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Sync for HostCall {}

/// Lets `read` have what a function of the host gives to its sink. `None` only if the host breaks its
/// promise to give something.
fn receive<T, F>(read: F, ask: impl FnOnce(ReplySink)) -> Option<T>
where
    F: FnOnce(Outcome, &[u8]) -> T,
{
    let mut pending = Pending { read: Some(read), result: None };
    // `pending` is of the types that `take` casts to, and outlives the host's function.
    ask(ReplySink { state: (&raw mut pending).cast(), take: take::<T, F> });
    pending.result.map(|result| result.unwrap_or_else(|panic| resume_unwind(panic)))
}

struct Pending<T, F> {
    read: Option<F>,
    result: Option<std::thread::Result<T>>,
}

/// Keeps a panic of `read` until the host's frames are gone: it must not unwind through them.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe extern "C" fn take<T, F>(state: *mut (), outcome: Outcome, bytes: RSlice<'_, u8>)
where
    F: FnOnce(Outcome, &[u8]) -> T,
{
    // SAFETY: `receive` made `state` from a `Pending<T, F>` that it holds until the host returns.
    let pending = unsafe { &mut *state.cast::<Pending<T, F>>() };
    if let Some(read) = pending.read.take() {
        pending.result = Some(catch_unwind(AssertUnwindSafe(|| read(outcome, bytes.as_slice()))));
    }
}
