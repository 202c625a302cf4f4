//! The life of an isolate's thread, and how other threads end it.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use quadriga_abi::{Error, ErrorCode};
use quadriga_core::{Bridge, Unit};
use tokio::sync::{mpsc, oneshot};

use crate::isolate::{Command, Done, Isolate};
use crate::load;
use crate::modules::PackageLoader;
use crate::state::{Shared, State};

pub(crate) type Loaded = Result<Vec<quadriga_abi::Method>, Error>;

/// The body of an isolate's thread.
pub(crate) fn run(
    unit: &Unit,
    bridge: Bridge,
    shared: &Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    loaded: oneshot::Sender<Loaded>,
    heap: bool,
) {
    shared.cpu.on_this_thread();
    let body = || {
        let executor = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let executor = match executor {
            Ok(executor) => executor,
            Err(error) => {
                let _ = loaded.send(Err(Error::new(ErrorCode::Internal, error.to_string())));
                return;
            }
        };
        executor.block_on(live(unit, bridge, shared, commands, loaded, heap));
    };
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_err() {
        shared.bury(Error::new(ErrorCode::Internal, "the JavaScript runtime panicked"));
        State::clear();
    }
    if let Some(done) = shared.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
        let _ = done.send(());
    }
}

async fn live(
    unit: &Unit,
    bridge: Bridge,
    shared: &Arc<Shared>,
    commands: mpsc::UnboundedReceiver<Command>,
    loaded: oneshot::Sender<Loaded>,
    heap: bool,
) {
    let loader = Rc::new(PackageLoader::new(&unit.root, &unit.entry));
    let isolate = Isolate::new(unit, bridge, Arc::clone(shared), commands, Rc::clone(&loader), heap);
    let mut isolate = match isolate {
        Ok(isolate) => isolate,
        Err(error) => {
            let _ = loaded.send(Err(error));
            return;
        }
    };
    match load::load(&mut isolate, unit, &loader).await {
        Ok(methods) => {
            isolate.measure();
            if loaded.send(Ok(methods)).is_err() {
                return;
            }
        }
        Err(error) => {
            let _ = loaded.send(Err(error));
            return;
        }
    }
    if let Done::Died(death) = isolate.serve().await {
        shared.bury(death);
        let calls: Vec<u64> = isolate.state.calls.borrow().keys().copied().collect();
        for call in calls {
            isolate.state.answer(call, Err(shared.gone()));
        }
    }
}

impl Shared {
    /// Makes the isolate end, from any thread, whatever it is doing.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.get() {
            handle.terminate_execution();
        }
        self.cpu.over();
    }

    /// Whether the isolate is gone, or about to be.
    pub(crate) fn is_over(&self) -> bool {
        self.stop.load(Ordering::Acquire) || self.death.get().is_some()
    }

    /// Notes why the isolate is gone; the first reason stays.
    pub(crate) fn bury(&self, death: Error) {
        let _ = self.death.set(death);
        self.cpu.over();
    }

    /// Gives up the thread, which can never end: only a last resort against an engine that would
    /// otherwise end the process.
    pub(crate) fn strand(&self) {
        self.stranded.store(true, Ordering::Release);
        if let Some(done) = self.done.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            let _ = done.send(());
        }
    }

    /// What a call answers that finds the isolate gone.
    pub(crate) fn gone(&self) -> Error {
        match self.death.get() {
            Some(death) => Error::new(ErrorCode::ExtensionCrashed, format!("the extension is gone: {death}"))
                .with_cause(death.clone()),
            None => Error::new(ErrorCode::ExtensionStopped, "the extension was stopped"),
        }
    }
}
