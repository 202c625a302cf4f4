//! Attaching threads to the interpreter without paying for a new thread state on each call.

use pyo3::Python;
use pyo3::ffi;

thread_local! {
    static STATE: State = State::new();
}

/// Runs with the interpreter's lock. The interpreter must have been started.
pub(crate) fn attach<T>(f: impl FnOnce(Python<'_>) -> T) -> T {
    // A thread that is just ending has no thread-locals any more, and pays.
    let _ = STATE.try_with(|_| ());
    Python::attach(f)
}

/// Holds the Python thread state of an OS thread until that ends. CPython otherwise makes one for
/// each `PyGILState_Ensure`, at the price of several microseconds.
struct State {
    saved: *mut ffi::PyThreadState,
    ensured: ffi::PyGILState_STATE,
}

impl State {
    #[expect(unsafe_code, reason = "pyo3 offers no thread state that outlives an attach")]
    fn new() -> Self {
        // SAFETY: the interpreter runs. The lock is given up again if it was taken here.
        unsafe {
            let held = ffi::PyGILState_Check() != 0;
            let ensured = ffi::PyGILState_Ensure();
            let saved = if held { std::ptr::null_mut() } else { ffi::PyEval_SaveThread() };
            Self { saved, ensured }
        }
    }
}

impl Drop for State {
    #[expect(unsafe_code, reason = "undoes State::new")]
    fn drop(&mut self) {
        // SAFETY: undoes `new` on the same thread, which is not attached while it ends. A thread that
        // Python started has given up its state by now.
        unsafe {
            let is_ours = !self.saved.is_null() && ffi::Py_IsInitialized() != 0;
            if is_ours && !ffi::PyGILState_GetThisThreadState().is_null() {
                ffi::PyEval_RestoreThread(self.saved);
                ffi::PyGILState_Release(self.ensured);
            }
        }
    }
}
