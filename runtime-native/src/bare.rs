//! The bare engine, to measure against: the same guest function through the same root module, with
//! a host behind it that does nothing.

use std::fs;
use std::path::Path;
use std::ptr;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RStr, RVec};
use quadriga_abi::manifest::{FILE_NAME, Manifest};
use quadriga_abi::vtable::{HostCall, HostFunctions, HostFunctionsRef, Outcome, ReplySink};
use quadriga_abi::{Description, Error, ErrorCode};

use crate::library::Library;
use crate::{stream, wait};

/// The method `echo` of an extension, without a dispatcher.
pub struct Echo {
    library: Library,
    method: u32,
    functions: HostFunctionsRef,
}

impl Echo {
    /// Loads the extension in a folder.
    ///
    /// # Errors
    /// If it cannot be loaded, or has no `echo`.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let invalid = |text: String| Error::new(ErrorCode::EntryInvalid, text);
        let path = folder.join(FILE_NAME);
        let text =
            fs::read_to_string(&path).map_err(|error| invalid(format!("{}: {error}", path.display())))?;
        let manifest = Manifest::parse(&text, path.display().to_string())
            .map_err(|error| Error::new(ErrorCode::InvalidManifest, error.to_string()))?;
        let library = Library::open(&folder.join(manifest.runtime.entry.as_path()))?;
        let description: Description = rmp_serde::from_slice(&library.module.describe()())
            .map_err(|error| invalid(format!("the description cannot be read: {error}")))?;
        let method = description.methods.iter().zip(0..).find(|(method, _)| method.name == "echo");
        let (_, method) = method.ok_or_else(|| Error::new(ErrorCode::UnknownMethod, "there is no echo"))?;
        // An echo asks for no streams.
        let functions = HostFunctions {
            finish,
            release,
            call,
            log,
            config,
            cancelled,
            emit: stream::emit,
            next: stream::next,
            start: stream::start,
            read: stream::read,
            write: stream::write,
            finish_input: stream::finish_input,
            drop_channel: stream::drop_channel,
            wait: wait::wait,
            wake: wait::wake,
        }
        .leak_into_prefix();
        Ok(Self { library, method, functions })
    }

    /// Calls it with encoded arguments, and drops the reply.
    #[expect(unsafe_code, reason = "raw pointers cross the seam")]
    pub fn call(&self, arguments: &[u8]) {
        // SAFETY: none of the functions below uses the pointer.
        let call = unsafe { HostCall::new(ptr::null(), self.functions) };
        self.library.module.call()(self.method, arguments.into(), call);
    }
}

extern "C" fn finish(_: *const (), _: Outcome, bytes: RVec<u8>) {
    std::hint::black_box(bytes);
}

extern "C" fn release(_: *const ()) {}

extern "C" fn call(_: *const (), _: RStr<'_>, _: RStr<'_>, _: RSlice<'_, u8>, _: ReplySink) {}

extern "C" fn log(_: *const (), _: u8, _: RStr<'_>) {}

extern "C" fn config(_: *const ()) -> RVec<u8> {
    RVec::new()
}

extern "C" fn cancelled(_: *const ()) -> bool {
    false
}
