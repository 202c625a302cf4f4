//! The engine's process-wide part, and the threads that isolates run on.

use std::sync::OnceLock;
use std::sync::mpsc::{self, Sender};
use std::thread::{Builder, JoinHandle};

use deno_core::JsRuntime as Engine;
use quadriga_abi::{Error, ErrorCode};

use crate::config::STACK;

type Job = Box<dyn FnOnce() + Send>;
type Order = (String, Job, Sender<std::io::Result<JoinHandle<()>>>);

/// Orders to the thread that started the engine. V8 protects its memory with keys that threads
/// inherit when they are made: only descendants of the thread that initialised it may run guests.
/// `None` if that thread could not be started.
static ORDERS: OnceLock<Option<Sender<Order>>> = OnceLock::new();

/// Starts the engine, once in a process. Later calls return at once.
pub(crate) fn start() {
    ORDERS.get_or_init(|| {
        let (orders, incoming) = mpsc::channel::<Order>();
        let (ready, started) = mpsc::channel();
        let keeper = move || {
            Engine::init_platform(None);
            // `start` waits on the other end.
            let _ = ready.send(());
            for (name, job, answer) in incoming {
                let _ = answer.send(Builder::new().name(name).stack_size(STACK).spawn(job));
            }
        };
        Builder::new().name("quadriga-js".to_owned()).spawn(keeper).ok()?;
        started.recv().ok()?;
        Some(orders)
    });
}

/// Runs a job on a new thread on which the engine works.
pub(crate) fn spawn(name: &str, job: Job) -> Result<JoinHandle<()>, Error> {
    start();
    let failed = |why: String| Error::new(ErrorCode::Internal, format!("no thread for JavaScript: {why}"));
    let orders =
        ORDERS.get().and_then(Option::as_ref).ok_or_else(|| failed("the engine is gone".to_owned()))?;
    let (answer, thread) = mpsc::channel();
    orders.send((name.to_owned(), job, answer)).map_err(|error| failed(error.to_string()))?;
    let thread = thread.recv().map_err(|error| failed(error.to_string()))?;
    thread.map_err(|error| failed(error.to_string()))
}
