//! Deadlines: ends one call, and no other, by an exception that the interpreter raises in it.
//!
//! A [`Running`] call changes only under the interpreter's lock, which also guards against ending
//! the next call on the same thread. C code that does not return to the interpreter cannot be
//! ended.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::ffi::c_long;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel as queue};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{ffi, intern};
use quadriga_abi::limits::{Limit, Span};
use quadriga_abi::{Error, ErrorCode};
use quadriga_core::{CallContext, ThreadClock};

use crate::config::{Engine, engine};
use crate::cpu::{self, Allowance, Meter};

/// What the runtime enforces by itself.
pub(crate) const ENFORCED: &[Limit] = match ThreadClock::EXISTS {
    true => &[Limit::CallTimeout, Limit::CpuTime],
    false => &[Limit::CallTimeout],
};

/// How often the calls to interrupt are looked at.
const TICK: Duration = Duration::from_millis(5);

/// A guest that swallows the exception gets it again after so many ticks: time to clean up.
const AGAIN: u32 = 20;

/// A guest that is never seen in its own code gets the exception wherever it is.
const PATIENCE: u32 = 400;

thread_local! {
    /// The calls on this thread, innermost last.
    static STACK: RefCell<Vec<Arc<Running>>> = const { RefCell::new(Vec::new()) };
}

/// A call that has started.
pub(crate) struct Running {
    pub(crate) context: CallContext,
    /// The extension, by the number that the runtime gave it.
    space: u64,
    /// Where it runs; for a task once it has begun.
    thread: AtomicI64,
    /// Its own code is on top of its thread's stack, no callee's.
    on_top: AtomicBool,
    done: AtomicBool,
    interrupted: AtomicBool,
    /// Measures its processor time, if that is limited.
    pub(crate) meter: Option<Meter>,
    /// It used that up.
    used_up: AtomicBool,
    /// Ticks to let pass before the exception is raised again.
    pause: AtomicU32,
    /// Ticks on which it could not be raised.
    missed: AtomicU32,
    /// The event loop that its coroutine runs on, alone.
    event_loop: Mutex<Option<Py<PyAny>>>,
    /// The loop of its extension and its task there, if it runs among others.
    task: Mutex<Option<(Py<PyAny>, Py<PyAny>)>>,
    /// It runs, or will run, as a task.
    is_task: bool,
}

/// A call that runs as a task, for the Python code that runs it.
#[pyclass(frozen)]
pub(crate) struct Task(pub(crate) Arc<Running>);

#[pymethods]
impl Task {
    /// The task begins; not if its caller has gone.
    fn enter(&self, event_loop: Py<PyAny>, task: Py<PyAny>) -> bool {
        self.0.thread.store(thread_ident(), Relaxed);
        self.0.go();
        *self.0.task.lock() = Some((event_loop, task));
        !self.0.interrupted.load(Relaxed)
    }

    /// The task is over: from now on nothing ends it.
    fn leave(&self, py: Python<'_>) {
        self.0.done.store(true, Relaxed);
        self.0.halt();
        self.0.clear(py);
        *self.0.task.lock() = None;
    }
}

/// How many calls that were interrupted before they began are remembered.
const REMEMBERED: usize = 1024;

/// The calls of one instance that can be interrupted.
#[derive(Default)]
pub(crate) struct Calls(Mutex<List>, pub(crate) Allowance);

#[derive(Default)]
struct List {
    /// Few, so that a list is quicker than a map.
    running: Vec<Arc<Running>>,
    /// The ids of those that were not running when their end was asked for: they have ended, or
    /// wait for the interpreter.
    missed: VecDeque<u64>,
}

/// Sends calls to the thread that interrupts them.
pub(crate) type Interrupter = Sender<Arc<Running>>;

/// The two ends of the queue of calls to interrupt.
pub(crate) fn channel() -> (Interrupter, Receiver<Arc<Running>>) {
    queue()
}

/// Interrupts what comes through the queue, until each call has ended.
pub(crate) fn watch(requests: &Receiver<Arc<Running>>) {
    let mut open: Vec<Arc<Running>> = Vec::new();
    loop {
        let next = if open.is_empty() {
            requests.recv().map_err(|_| ())
        } else {
            requests.recv_timeout(TICK).map_err(|_| ())
        };
        open.extend(next.into_iter().chain(requests.try_iter()));
        if let Ok(engine) = engine() {
            Python::attach(|py| open.retain(|running| running.raise(py, engine)));
        }
    }
}

impl Calls {
    /// Whether any call is running.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.lock().running.is_empty()
    }

    /// Asks for the end of a call, be it running or about to.
    pub(crate) fn interrupt(&self, id: u64) {
        let mut list = self.0.lock();
        if let Some(running) = list.running.iter().find(|running| running.context.id == id) {
            running.interrupt();
            return;
        }
        if list.missed.len() == REMEMBERED {
            list.missed.pop_front();
        }
        list.missed.push_back(id);
    }

    /// Asks for the end of every call.
    pub(crate) fn interrupt_all(&self) {
        self.0.lock().running.iter().for_each(Running::interrupt);
    }

    fn add(&self, running: &Arc<Running>) {
        let mut list = self.0.lock();
        list.running.push(Arc::clone(running));
        if list.missed.contains(&running.context.id) {
            running.interrupt();
        }
        drop(list);
        cpu::measure(running);
    }

    /// Runs guest code as the call `context`. The error says that it was interrupted.
    pub(crate) fn run<T>(
        &self,
        py: Python<'_>,
        space: u64,
        context: CallContext,
        f: impl FnOnce(&Arc<Running>) -> T,
    ) -> Result<T, Error> {
        let running = Running::start(py, space, context, self.1.meter());
        self.add(&running);
        let result = f(&running);
        self.remove(&running);
        running.finish(py).map(|()| result)
    }

    /// A call that will run as a task, until [`Calls::remove`].
    pub(crate) fn task(&self, space: u64, context: CallContext) -> Arc<Running> {
        let running = Arc::new(Running::new(space, context, true, self.1.meter()));
        self.add(&running);
        running
    }

    pub(crate) fn remove(&self, running: &Arc<Running>) {
        self.0.lock().running.retain(|other| !Arc::ptr_eq(other, running));
    }
}

impl Running {
    /// Starts a call on this thread, on top of those that run there.
    pub(crate) fn start(
        _py: Python<'_>,
        space: u64,
        context: CallContext,
        meter: Option<Meter>,
    ) -> Arc<Self> {
        let running = Arc::new(Self::new(space, context, false, meter));
        running.thread.store(thread_ident(), Relaxed);
        running.go();
        STACK.with_borrow_mut(|stack| stack.push(Arc::clone(&running)));
        running
    }

    fn new(space: u64, context: CallContext, is_task: bool, meter: Option<Meter>) -> Self {
        Self {
            context,
            space,
            thread: AtomicI64::new(0),
            on_top: AtomicBool::new(true),
            done: AtomicBool::new(false),
            interrupted: AtomicBool::new(false),
            meter,
            used_up: AtomicBool::new(false),
            pause: AtomicU32::new(0),
            missed: AtomicU32::new(0),
            event_loop: Mutex::new(None),
            task: Mutex::new(None),
            is_task,
        }
    }

    /// Ends the call. The error says that it was interrupted.
    pub(crate) fn finish(&self, py: Python<'_>) -> Result<(), Error> {
        STACK.with_borrow_mut(Vec::pop);
        self.done.store(true, Relaxed);
        self.halt();
        if self.interrupted.load(Relaxed) {
            self.clear(py);
        }
        self.verdict()
    }

    /// Whether it was interrupted, and why.
    pub(crate) fn verdict(&self) -> Result<(), Error> {
        if !self.interrupted.load(Relaxed) {
            return Ok(());
        }
        if let Some(meter) = self.meter.as_ref().filter(|_| self.used_up.load(Relaxed)) {
            let message = format!("the call used more than its {} of processor time", Span(meter.limit));
            return Err(Error::new(ErrorCode::CpuLimit, message).with_hint("raise [limits] cpu-time"));
        }
        let late = self.context.deadline.is_some_and(|deadline| deadline <= Instant::now());
        Err(if late {
            Error::new(ErrorCode::DeadlineExceeded, "the deadline passed")
        } else {
            Error::new(ErrorCode::Cancelled, "the caller gave up")
        })
    }

    /// The call of this extension that this thread is running, or for whose task it runs.
    pub(crate) fn current(py: Python<'_>, space: u64) -> Option<Arc<Self>> {
        let top = STACK.with_borrow(|stack| stack.last().cloned());
        let task = || {
            let task = engine().ok()?.current_task.bind(py).call0().ok()?;
            Some(Arc::clone(&task.cast::<Task>().ok()?.get().0))
        };
        top.filter(|running| running.space == space)
            .or_else(|| task().filter(|running| running.space == space && !running.done.load(Relaxed)))
    }

    /// Whether it shares its thread with others.
    pub(crate) fn is_task(&self) -> bool {
        self.is_task
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Relaxed)
    }

    /// The loop and the task that it runs as, once it has begun.
    pub(crate) fn task(&self, py: Python<'_>) -> Option<(Py<PyAny>, Py<PyAny>)> {
        self.task.lock().as_ref().map(|(on, task)| (on.clone_ref(py), task.clone_ref(py)))
    }

    /// Asks for its end because it used up its processor time.
    pub(crate) fn use_up(self: &Arc<Self>) {
        self.used_up.store(true, Relaxed);
        self.interrupt();
    }

    /// Its own code runs on this thread from now on.
    fn go(&self) {
        if let Some(meter) = &self.meter {
            meter.go();
        }
    }

    /// It does not any more.
    fn halt(&self) {
        if let Some(meter) = &self.meter {
            meter.stop(!self.is_task);
        }
    }

    /// Asks for the end of this call. Never waits.
    pub(crate) fn interrupt(self: &Arc<Self>) {
        if let (false, Ok(engine)) = (self.interrupted.swap(true, Relaxed), engine()) {
            // The other end is gone only with the process.
            let _ = engine.interrupter.send(Arc::clone(self));
        }
    }

    /// Leaves the guest's code to wait for a callee.
    pub(crate) fn leave(&self, py: Python<'_>) -> PyResult<()> {
        self.on_top.store(false, Relaxed);
        self.check(py).inspect_err(|_| self.on_top.store(true, Relaxed))?;
        self.halt();
        Ok(())
    }

    /// Comes back to the guest's code.
    pub(crate) fn come_back(&self, py: Python<'_>) -> PyResult<()> {
        self.on_top.store(true, Relaxed);
        self.go();
        self.check(py)
    }

    /// Names the event loop on which the call can be cancelled.
    pub(crate) fn set_event_loop(&self, event_loop: Py<PyAny>) {
        *self.event_loop.lock() = Some(event_loop);
    }

    fn check(&self, py: Python<'_>) -> PyResult<()> {
        if !self.interrupted.load(Relaxed) {
            return Ok(());
        }
        self.clear(py);
        let interrupted = engine().map(|engine| engine.interrupted.bind(py).call0());
        Err(match interrupted {
            Ok(exception) => PyErr::from_value(exception?),
            Err(error) => PyErr::new::<PyBaseException, _>(error.to_string()),
        })
    }

    /// Raises the exception if the call's own code is running. Whether the call goes on.
    fn raise(&self, py: Python<'_>, engine: &Engine) -> bool {
        if self.done.load(Relaxed) {
            return false;
        }
        let pause = self.pause.load(Relaxed);
        self.pause.store(pause.saturating_sub(1), Relaxed);
        if pause > 0 || !self.on_top.load(Relaxed) {
            return true;
        }
        let event_loop = self.event_loop.lock().as_ref().map(|found| found.clone_ref(py));
        if let Some(event_loop) = event_loop {
            // Fails only where the loop has ended.
            let _ = engine.cancel.call1(py, (event_loop,));
            self.pause.store(AGAIN, Relaxed);
        }
        let task = self.task(py);
        if self.is_task {
            let Some(task) = task else { return true };
            self.pause.store(AGAIN, Relaxed);
            match engine.cancel_task.call1(py, task).and_then(|running| running.extract(py)) {
                Ok(Some(true)) => {}
                Ok(Some(false)) | Err(_) => return true,
                Ok(None) => return false,
            }
        }
        let there = self.in_own_code(py, engine).unwrap_or_default();
        // The loop's Python code may have let the call finish or leave; what came after did not.
        if self.done.load(Relaxed) || !self.on_top.load(Relaxed) {
            return true;
        }
        if there || self.missed.fetch_add(1, Relaxed) >= PATIENCE {
            self.set_exception(engine.interrupted.as_ptr());
            self.pause.store(AGAIN, Relaxed);
        }
        true
    }

    /// Whether the thread will go on in a guest's code. An exception raised elsewhere could leave a
    /// lock of the standard library taken for ever: that of the import system, for one. Runs no
    /// Python code, so that the answer holds for as long as the interpreter's lock does.
    fn in_own_code(&self, py: Python<'_>, engine: &Engine) -> PyResult<bool> {
        let frames = engine.current_frames.bind(py).call0()?;
        let frame = frames.get_item(self.thread.load(Relaxed))?;
        if frame.getattr(intern!(py, "f_builtins"))?.contains(intern!(py, "__quadriga__"))? {
            return Ok(true);
        }
        // Shared libraries have no builtins of their own.
        let file = frame.getattr(intern!(py, "f_code"))?.getattr(intern!(py, "co_filename"))?;
        let file = file.cast::<PyString>()?.to_str()?;
        Ok(!file.starts_with('<') && !file.starts_with(&engine.standard_library))
    }

    /// Takes back an exception that has not been raised yet.
    fn clear(&self, _py: Python<'_>) {
        self.set_exception(std::ptr::null_mut());
    }

    #[expect(unsafe_code, reason = "pyo3 does not wrap asynchronous exceptions")]
    fn set_exception(&self, exception: *mut ffi::PyObject) {
        // SAFETY: the callers hold the interpreter's lock, and the class lives as long as it.
        unsafe { ffi::PyThreadState_SetAsyncExc(self.thread.load(Relaxed) as c_long, exception) };
    }
}

#[expect(unsafe_code, reason = "pyo3 does not wrap the thread's identity")]
fn thread_ident() -> i64 {
    // SAFETY: no precondition.
    unsafe { ffi::PyThread_get_thread_ident() as i64 }
}
