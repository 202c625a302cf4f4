//! The conformance guest: what each case of tests/conformance/values.toml is in Rust.

mod helpers;
#[rustfmt::skip]
mod literals;

#[quadriga_sdk::extension]
mod conformance {
    use quadriga_sdk::{Error, Value, host};

    use crate::helpers::Named;

    /// Returns the literal of a case.
    pub fn make(name: String) -> Named {
        Named(name)
    }

    /// Whether a value is the literal, in value and in type.
    pub fn matches(name: String, value: Value) -> Result<bool, Error> {
        Named(name).matches(&value)
    }

    /// Returns its argument.
    pub fn echo(value: Value) -> Value {
        value
    }

    /// Calls another extension.
    pub fn relay(extension: &str, method: &str, value: Value) -> Result<Value, Error> {
        host::call(extension, method, (value,))
    }

    /// Passes the literal of a case to another extension.
    pub fn send(extension: &str, method: &str, name: String) -> Result<Value, Error> {
        host::call(extension, method, (Named(name),))
    }
}
