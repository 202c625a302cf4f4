use std::sync::{Arc, Mutex};

use quadriga_abi::limits::Span;
use quadriga_abi::{Description, Error, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, Instance, Language, Runtime, Support, Unit};
use tokio::sync::{mpsc, oneshot};

use crate::instance::{JsInstance, Line};
use crate::state::Shared;
use crate::{config, cpu, load, platform, snapshot, thread};

/// Runs extensions of the kind `javascript`.
#[derive(Debug)]
#[non_exhaustive]
pub struct JsRuntime {
    /// Whether isolates start from a heap that is made before the first of them.
    heap: bool,
}

impl JsRuntime {
    /// Starts the engine's own threads, if this is the first in the process.
    ///
    /// The first load makes the heap from which all isolates of the process start. A program that
    /// makes isolates of V8 besides takes [`JsRuntime::for_one`]: they would have to be made of the
    /// same heap.
    pub fn new() -> Self {
        platform::start();
        Self { heap: true }
    }

    /// A runtime for a process that loads one extension, and prepares for no others. The first load
    /// in a process decides for all.
    pub fn for_one() -> Self {
        Self { heap: false, ..Self::new() }
    }
}

impl Default for JsRuntime {
    fn default() -> Self {
        Self::new()
    }
}

impl Runtime for JsRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("javascript")
    }

    fn engine(&self) -> String {
        #[cfg(feature = "v8")]
        return format!("V8 {}", deno_core::v8::VERSION_STRING);
        #[cfg(not(feature = "v8"))]
        return "QuickJS".to_owned();
    }

    fn support(&self) -> Support {
        config::SUPPORT
    }

    fn languages(&self) -> &'static [Language] {
        &config::LANGUAGES
    }

    fn warm_up(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            if self.heap {
                // Without it loads are slower, and that is all.
                let _ = tokio::task::spawn_blocking(snapshot::wait).await;
            }
        })
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            let deadline = unit.deadline;
            let (cpu_time, step) = (unit.limits.cpu_time, unit.permissions.clock_step());
            let (commands, incoming) = mpsc::unbounded_channel();
            let (loaded, answer) = oneshot::channel();
            let (done, finished) = oneshot::channel();
            let shared = Arc::new(Shared { done: Mutex::new(Some(done)), ..Shared::default() });
            let name = format!("js {}", bridge.extension().as_str());
            let heap = self.heap;
            let handle = {
                let shared = Arc::clone(&shared);
                let body = move || thread::run(&unit, bridge, &shared, incoming, loaded, heap);
                platform::spawn(&name, Box::new(body))?
            };
            // From here on a dropped future ends the thread.
            let line = Line { shared, commands, thread: Mutex::new(Some((finished, handle))) };
            let failure = match tokio::time::timeout_at(deadline.into(), answer).await {
                Ok(Ok(Ok(methods))) => {
                    let description = Description::new(config::SDK, methods);
                    if let Some(Span(limit)) = cpu_time {
                        line.shared.cpu.set(limit);
                    }
                    tokio::spawn(cpu::watch(Arc::downgrade(&line.shared)));
                    return Ok(Arc::new(JsInstance { description, line, step }) as Arc<dyn Instance>);
                }
                Ok(Ok(Err(failure))) => failure,
                Ok(Err(_)) => line.shared.gone(),
                Err(_) => load::late(),
            };
            line.end().await;
            Err(failure)
        })
    }
}
