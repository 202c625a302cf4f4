use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use quadriga_abi::limits::{ByteSize, Limits, Span};
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Description, Error, ErrorCode};
use quadriga_core::{BoxFuture, Call, Instance, Outcome, Pause, Usage};
use tokio::sync::{mpsc, oneshot};

use crate::cpu::Cpu;
use crate::isolate::Command;
use crate::state::Shared;
use crate::{config, limits};

/// A loaded extension, as other threads see it: a queue of commands to its own thread.
pub(crate) struct JsInstance {
    pub(crate) description: Description,
    pub(crate) line: Line,
    /// The steps of the clock that it was given.
    pub(crate) step: Duration,
}

/// The way to an isolate's thread. Ends it when dropped.
pub(crate) struct Line {
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) thread: Mutex<Option<(oneshot::Receiver<()>, JoinHandle<()>)>>,
}

impl Line {
    /// Ends the thread and waits until everything it held is free.
    pub(crate) async fn end(&self) {
        self.stop();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some((done, thread)) = thread {
            let _ = done.await;
            if !self.shared.stranded.load(Ordering::Acquire) {
                // `done` is the last thing that the thread does: this does not wait to speak of.
                let _ = thread.join();
            }
        }
    }

    fn park(&self, parked: bool) {
        self.shared.parked.store(parked, Ordering::Release);
        let _ = self.commands.send(Command::Wake);
    }

    fn stop(&self) {
        self.shared.stop();
        let _ = self.commands.send(Command::Wake);
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Instance for JsInstance {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, call: Call) -> Outcome {
        let (reply, answer) = oneshot::channel();
        if self.line.commands.send(Command::Call(call, reply)).is_err() {
            return self.line.shared.gone().into();
        }
        let waits = Cpu::wait(&self.line.shared);
        Outcome::Pending(Box::pin(async move { answer.await.unwrap_or_else(|_| Err(waits.gone())) }))
    }

    fn blocks(&self) -> bool {
        false
    }

    fn interrupt(&self, call: u64) {
        // The command finds the call if the thread is free, the interrupt if guest code has it.
        self.line.shared.interrupts.fetch_add(1, Ordering::Release);
        let _ = self.line.commands.send(Command::Interrupt(call));
        if let Some(handle) = self.line.shared.handle.get() {
            limits::interrupt(handle, call);
        }
    }

    fn usage(&self) -> Usage {
        let memory = self.line.shared.memory.load(Ordering::Relaxed);
        let alive = self.line.shared.death.get().is_none();
        let memory = Some(if alive { memory } else { 0 });
        Usage { memory, instances: u32::from(alive), ..Usage::default() }
    }

    fn pause(&self) -> Result<Pause, Error> {
        self.line.park(true);
        Ok(Pause::Parked)
    }

    fn resume(&self) -> Result<(), Error> {
        self.line.park(false);
        Ok(())
    }

    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        let (alive, answer) = oneshot::channel();
        let _ = self.line.commands.send(Command::Ping(alive));
        let shared = Arc::clone(&self.line.shared);
        Box::pin(async move { answer.await.map_err(|_| shared.gone()) })
    }

    /// The host checks calls and connections each time; the clock stays what it was given.
    fn permissions_changed(&self, permissions: &Permissions) -> bool {
        self.step == permissions.clock_step()
    }

    fn set_limits(&self, limits: &Limits) -> Result<(), Error> {
        if let Some(ByteSize(limit)) = limits.memory {
            let refused = |message| Err(Error::new(ErrorCode::Unsupported, message));
            if cfg!(feature = "quickjs") {
                return refused("QuickJS is given its memory when it starts, and not again".to_owned());
            }
            let least = ByteSize(config::LEAST_MEMORY as u64);
            if limit < least.0 {
                return refused(format!("memory cannot be less than {least}, which the engine needs"));
            }
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let _ = self.line.commands.send(Command::Memory(limit));
        }
        if let Some(Span(limit)) = limits.cpu_time {
            self.line.shared.cpu.set(limit);
        }
        Ok(())
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        Box::pin(self.line.end())
    }
}
