//! The bare engine: what a benchmark compares this runtime with.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use quadriga_abi::{Error, ErrorCode};

use crate::{config, thread};

/// A Python function that returns its argument, called through nothing but pyo3.
pub struct Echo(Py<PyAny>);

impl Echo {
    /// Defines the function, in the interpreter that extensions use.
    ///
    /// # Errors
    /// If Python cannot be started.
    pub fn new() -> Result<Self, Error> {
        config::engine()?;
        let function = thread::attach(|py| {
            let code = c"def echo(value):\n    return value\n";
            let module = PyModule::from_code(py, code, c"bare.py", c"bare")?;
            module.getattr("echo").map(Bound::unbind)
        });
        function.map(Self).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))
    }

    /// Sends a payload there and back.
    pub fn call(&self, payload: &[u8]) {
        thread::attach(|py| {
            let reply = self.0.bind(py).call1((PyBytes::new(py, payload),));
            debug_assert!(reply.is_ok());
            std::hint::black_box(reply.ok());
        });
    }
}
