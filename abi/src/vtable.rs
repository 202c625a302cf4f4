//! The native vtable: how a host and a Rust library built elsewhere call each other in one process.
//!
//! Plain functions that pass bytes; no trait objects and no futures cross. `abi_stable` compares
//! the layout of everything here when a library is loaded. New fields are only ever appended.

use abi_stable::StableAbi;
use abi_stable::library::RootModule;
use abi_stable::package_version_strings;
use abi_stable::sabi_types::VersionStrings;
use abi_stable::std_types::{RSlice, RStr, RVec};

/// What a library exports, once per process.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ExtensionModuleRef, prefix_fields = ExtensionModulePrefix)))]
#[sabi(missing_field(panic))]
pub struct ExtensionModule {
    /// MessagePack of a [`Description`](crate::Description). Asked once, before any call.
    pub describe: extern "C" fn() -> RVec<u8>,
    /// Calls the method with this index in the description. May be called from many threads at
    /// once. Calls `done` exactly once, from any thread, before or after it returns.
    #[sabi(last_prefix_field)]
    pub call: extern "C" fn(method: u32, arguments: RSlice<'_, u8>, host: HostContext, done: Completion),
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
}

/// Where the result of a call goes. Not `Copy`: it is used once.
#[repr(C)]
#[derive(StableAbi)]
pub struct Completion {
    /// The host's own word for the call.
    pub state: *mut (),
    /// Takes the result. The bytes are only lent.
    pub done: unsafe extern "C" fn(state: *mut (), outcome: Outcome, bytes: RSlice<'_, u8>),
}

/// What a call may ask of its host, valid until the call's completion is used.
#[repr(C)]
#[derive(Clone, Copy, StableAbi)]
pub struct HostContext {
    /// The host's own word for the call.
    pub state: *const (),
    /// The functions, which live as long as the process.
    pub functions: HostFunctionsRef,
}

/// The host's functions.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = HostFunctionsRef, prefix_fields = HostFunctionsPrefix)))]
#[sabi(missing_field(panic))]
pub struct HostFunctions {
    /// Calls a method of another extension, waits, and hands the result to `done` before it
    /// returns.
    pub call: unsafe extern "C" fn(
        state: *const (),
        extension: RStr<'_>,
        method: RStr<'_>,
        arguments: RSlice<'_, u8>,
        done: Completion,
    ),
    /// Writes a line to the log. Levels: 0 trace, 1 debug, 2 info, 3 warn, 4 error.
    pub log: unsafe extern "C" fn(state: *const (), level: u8, message: RStr<'_>),
    /// The extension's settings: a MessagePack map.
    pub config: unsafe extern "C" fn(state: *const ()) -> RVec<u8>,
    /// Whether the caller no longer waits.
    #[sabi(last_prefix_field)]
    pub cancelled: unsafe extern "C" fn(state: *const ()) -> bool,
}

// SAFETY: the host promises that both pointers may be used from any thread until the call's
// completion is used.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Send for Completion {}

// SAFETY: as above; the host's functions may be called from many threads at once.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Send for HostContext {}

// SAFETY: as above.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
unsafe impl Sync for HostContext {}
