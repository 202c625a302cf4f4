//! The extension as a WebAssembly component.

use std::time::Duration;

use quadriga_abi::{Error, ErrorCode, ErrorParts};

use self::bindings::exports::quadriga::extension::guest;
use self::bindings::quadriga::extension::{host, types};
use crate::method::{self, Extension};

/// What wit-bindgen makes of the contract.
#[allow(missing_docs, unsafe_code, unreachable_pub, clippy::all, reason = "generated")]
pub mod bindings {
    wit_bindgen::generate!({
        path: "../../abi/wit/since-v0.1",
        world: "extension",
        pub_export_macro: true,
        default_bindings_module: "quadriga_sdk::__private::bindings",
    });
}

/// Makes this component an extension.
#[doc(hidden)]
#[macro_export]
macro_rules! __export {
    ($extension:ident) => {
        impl $crate::__private::bindings::exports::quadriga::extension::guest::Guest for $extension {
            fn describe() -> $crate::__private::bindings::exports::quadriga::extension::guest::Description {
                $crate::__private::describe::<$extension>()
            }

            fn call(
                method: String,
                arguments: Vec<u8>,
            ) -> Result<Vec<u8>, $crate::__private::bindings::quadriga::extension::types::Error> {
                $crate::__private::call::<$extension>(&method, &arguments)
            }
        }

        $crate::__private::bindings::export!($extension with_types_in $crate::__private::bindings);
    };
}

/// The component's `describe`.
pub fn describe<E: Extension>() -> guest::Description {
    let description = method::describe::<E>();
    let parameter = |parameter: quadriga_abi::Parameter| guest::Parameter {
        name: parameter.name,
        ty: parameter.ty,
        optional: parameter.optional,
    };
    let methods = description.methods.into_iter().map(|method| guest::Method {
        name: method.name,
        doc: method.doc,
        parameters: method.parameters.into_iter().map(parameter).collect(),
        returns: method.returns,
        streams: method.streams,
        input: method.input.map(|schema| schema.to_string()),
        output: method.output.map(|schema| schema.to_string()),
    });
    guest::Description {
        protocol: description.protocol.to_string(),
        sdk: description.sdk,
        features: vec!["host-calls".to_owned()],
        methods: methods.collect(),
    }
}

/// The component's `call`.
pub fn call<E: Extension>(method: &str, arguments: &[u8]) -> Result<Vec<u8>, types::Error> {
    let found = E::METHODS.iter().find(|known| known.name == method);
    let result = found.ok_or_else(|| method::unknown(method)).and_then(|found| method::run(found, arguments));
    result.map_err(|error| {
        let error = error.into_parts();
        types::Error {
            code: error.code.as_str().to_owned(),
            message: error.message,
            hint: error.hint,
            extension: error.extension,
            stack: error.stack,
            cause: error.cause.map(|cause| cause.to_bytes()),
        }
    })
}

pub(crate) fn call_other<T>(
    extension: &str,
    method: &str,
    arguments: &[u8],
    read: impl FnOnce(Result<&[u8], Error>) -> Result<T, Error>,
) -> Result<T, Error> {
    match host::call(extension, method, arguments) {
        Ok(reply) => read(Ok(&reply)),
        Err(error) => read(Err(received(error))),
    }
}

fn received(error: types::Error) -> Error {
    let parts = ErrorParts {
        code: ErrorCode::from_text(&error.code),
        message: error.message,
        hint: error.hint,
        extension: error.extension,
        stack: error.stack,
        cause: error.cause.map(|cause| Error::from_bytes(&cause)),
    };
    parts.into()
}

pub(crate) fn emit(item: &[u8]) -> Result<(), Error> {
    host::emit(item).map_err(received)
}

pub(crate) fn next() -> Result<Option<Vec<u8>>, Error> {
    host::next().map_err(received)
}

/// A call with streams.
pub(crate) struct Channel(host::Channel);

pub(crate) fn start(
    extension: &str,
    method: &str,
    arguments: &[u8],
    input: bool,
    output: bool,
) -> Result<Channel, Error> {
    Ok(Channel(host::Channel::new(extension, method, arguments, input, output)))
}

impl Channel {
    pub(crate) fn read(&mut self) -> Result<Option<Vec<u8>>, Error> {
        self.0.read().map_err(received)
    }

    pub(crate) fn write(&mut self, item: &[u8]) -> Result<(), Error> {
        self.0.write(item).map_err(received)
    }

    pub(crate) fn finish(&mut self) {
        self.0.finish();
    }
}

/// Waits for the first of the channels, the input, or the end of the time. Gives the places of what
/// can be read; the input comes last.
pub(crate) fn wait(
    channels: &mut [&mut Channel],
    input: bool,
    timeout: Option<Duration>,
) -> Result<Vec<usize>, Error> {
    let channels: Vec<_> = channels.iter().map(|channel| &channel.0).collect();
    let timeout = timeout.map(|timeout| u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX));
    let ready = host::wait(&channels, input, timeout).map_err(received)?;
    Ok(ready.into_iter().map(|place| place as usize).collect())
}

/// Ends a wait from another thread, of which there are none here.
#[derive(Default)]
pub(crate) struct Bell;

#[expect(clippy::unused_self, reason = "the native one needs it")]
impl Bell {
    pub(crate) fn open(&self) {}
    pub(crate) fn close(&self) {}
    pub(crate) fn ring(&self) {}
}

pub(crate) fn log(level: u8, message: &str) {
    let level = match level {
        0 => host::Level::Trace,
        1 => host::Level::Debug,
        2 => host::Level::Info,
        3 => host::Level::Warn,
        _ => host::Level::Error,
    };
    host::log(level, message);
}

pub(crate) fn config() -> Result<Vec<u8>, Error> {
    Ok(host::config())
}

pub(crate) fn cancelled() -> bool {
    host::cancelled()
}
