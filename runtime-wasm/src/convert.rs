//! Between the contract's records and ours. Payloads go through as they are.

use quadriga_abi::{Description, Error, ErrorCode, ErrorParts, Feature, Method, Parameter};

use crate::bindings::exports::quadriga::extension::guest;
use crate::bindings::quadriga::extension::types;

pub(crate) fn error_to_guest(error: Error) -> types::Error {
    let error = error.into_parts();
    types::Error {
        code: error.code.as_str().to_owned(),
        message: error.message,
        hint: error.hint,
        extension: error.extension,
        stack: error.stack,
        cause: error.cause.map(|cause| cause.to_bytes()),
    }
}

pub(crate) fn error_from_guest(error: types::Error) -> Error {
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

pub(crate) fn description(description: guest::Description) -> Result<Description, Error> {
    let protocol =
        description.protocol.parse().map_err(|message| Error::new(ErrorCode::ProtocolViolation, message))?;
    let methods = description.methods.into_iter().map(method).collect::<Result<_, _>>()?;
    let feature = |name: String| if name == "host-calls" { Feature::HostCalls } else { Feature::Unknown };
    Ok(Description {
        protocol,
        sdk: description.sdk,
        features: description.features.into_iter().map(feature).collect(),
        methods,
    })
}

fn method(method: guest::Method) -> Result<Method, Error> {
    let parameter = |p: guest::Parameter| Parameter { name: p.name, ty: p.ty, optional: p.optional };
    let schema = |text: Option<String>| {
        text.map(|text| serde_json::from_str(&text)).transpose().map_err(|error| {
            let message = format!("a schema of the method {:?} is no JSON: {error}", method.name);
            Error::new(ErrorCode::ProtocolViolation, message)
        })
    };
    Ok(Method {
        input: schema(method.input)?,
        output: schema(method.output)?,
        name: method.name,
        doc: method.doc,
        parameters: method.parameters.into_iter().map(parameter).collect(),
        returns: method.returns,
        streams: method.streams,
    })
}
