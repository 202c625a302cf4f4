use std::any::Any;
use std::fmt;
use std::ops::Deref;
use std::panic::Location;

use quadriga_abi::ErrorCode;

/// A result whose error fails the call.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a method failed, or what a call to another extension came back with.
///
/// Every [`std::error::Error`] converts into it, so `?` works; its sources become the causes. An
/// error that came from the host goes on with its code, its message and its own chain. It derefs to
/// the fields that callers see.
pub struct Error(Box<Inner>);

struct Inner {
    error: quadriga_abi::Error,
    from_host: bool,
    at: &'static Location<'static>,
}

impl Error {
    /// An error with the code `extension_error`.
    #[track_caller]
    pub fn new(message: impl fmt::Display) -> Self {
        Self::with_code(ErrorCode::ExtensionError, message)
    }

    /// An error with another code.
    #[track_caller]
    pub fn with_code(code: ErrorCode, message: impl fmt::Display) -> Self {
        Self::own(quadriga_abi::Error::new(code, message.to_string()))
    }

    /// Adds what to do about it.
    pub fn with_hint(mut self, hint: impl fmt::Display) -> Self {
        self.0.error.hint = Some(hint.to_string());
        self
    }

    #[track_caller]
    fn own(error: quadriga_abi::Error) -> Self {
        Self(Box::new(Inner { error, from_host: false, at: Location::caller() }))
    }

    /// What a host function returned.
    #[track_caller]
    pub(crate) fn from_host(error: quadriga_abi::Error) -> Self {
        Self::from_host_at(error, Location::caller())
    }

    /// What a host function returned that was called there.
    pub(crate) fn from_host_at(error: quadriga_abi::Error, at: &'static Location<'static>) -> Self {
        Self(Box::new(Inner { error, from_host: true, at }))
    }

    /// The error as it leaves this extension. One that came from the host becomes the cause.
    pub(crate) fn into_wire(self) -> quadriga_abi::Error {
        let Inner { error, from_host, at } = *self.0;
        let stack = format!("    at {at}");
        if from_host {
            return quadriga_abi::Error::new(error.code, error.message.clone())
                .with_stack(stack)
                .with_cause(error);
        }
        if error.stack.is_some() { error } else { error.with_stack(stack) }
    }
}

impl<E: std::error::Error + 'static> From<E> for Error {
    #[track_caller]
    fn from(error: E) -> Self {
        if let Some(error) = (&error as &dyn Any).downcast_ref::<quadriga_abi::Error>() {
            return Self::own(error.clone());
        }
        let sources = std::iter::successors(error.source(), |source| source.source());
        let mut messages: Vec<_> =
            std::iter::once(error.to_string()).chain(sources.map(ToString::to_string)).collect();
        let innermost = messages.pop().unwrap_or_default();
        let innermost = quadriga_abi::Error::new(ErrorCode::ExtensionError, innermost);
        Self::own(messages.into_iter().rfold(innermost, |cause, message| {
            quadriga_abi::Error::new(ErrorCode::ExtensionError, message).with_cause(cause)
        }))
    }
}

impl Deref for Error {
    type Target = quadriga_abi::Error;

    fn deref(&self) -> &quadriga_abi::Error {
        &self.0.error
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.error.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        self.chain().try_for_each(|error| write!(f, ": {}", error.message))
    }
}

#[cfg(test)]
mod tests {
    use quadriga_abi::ErrorCode;

    use super::{Error, Result};

    #[test]
    fn question_marks_tell_where_they_stand() {
        fn parse() -> Result<i64> {
            Ok("x".parse::<i64>()?)
        }
        let error = parse().unwrap_err().into_wire();
        assert_eq!(error.message, "invalid digit found in string");
        let stack = error.stack.as_deref().unwrap();
        assert!(stack.contains("error.rs:"), "{stack}");
    }

    #[test]
    fn sources_become_causes() {
        let inner = std::io::Error::other("the disk is full");
        let outer = quadriga_abi::ValueError::TooDeep;
        #[derive(Debug)]
        struct Middle(std::io::Error);
        impl std::fmt::Display for Middle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("could not save")
            }
        }
        impl std::error::Error for Middle {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        let error = Error::from(Middle(inner)).into_wire();
        let chain: Vec<_> = error.chain().map(|e| e.message.as_str()).collect();
        assert_eq!(chain, ["could not save", "the disk is full"]);
        assert_eq!(Error::from(outer).code, ErrorCode::ExtensionError);
    }

    #[test]
    fn host_errors_keep_code_and_chain() {
        let came = quadriga_abi::Error::new(ErrorCode::PermissionDenied, "no").with_stack("theirs");
        let error = Error::from_host(came.clone()).into_wire();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::PermissionDenied, "no"));
        assert!(error.stack.as_deref().unwrap().contains("error.rs:"));
        assert_eq!(error.cause, Some(came));
    }
}
