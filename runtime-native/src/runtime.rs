use std::sync::Arc;
use std::thread;

use quadriga_abi::{Description, Error, ErrorCode, Isolation, RuntimeKind};
use quadriga_core::{BoxFuture, Bridge, Instance, Runtime, Support, Unit};
use tokio::sync::oneshot;

use crate::instance::NativeInstance;
use crate::library::Library;

/// Runs extensions of kind `native`.
#[derive(Debug, Default)]
pub struct NativeRuntime {
    in_place: bool,
}

impl NativeRuntime {
    /// A runtime. All its work comes with the loads.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that loads each library where it is and makes no copy: for a process that ends with the
    /// one library that it loads, and may have no place to write that can be run.
    pub fn in_place() -> Self {
        Self { in_place: true }
    }
}

impl Runtime for NativeRuntime {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("native")
    }

    fn engine(&self) -> String {
        "abi_stable 0.11.3".to_owned()
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::None, limits: &[], permissions: &[] }
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            let (deadline, in_place) = (unit.deadline, self.in_place);
            let (done, loaded) = oneshot::channel();
            // A thread of its own: one whose library never returns is lost, and must not be one
            // that the host waits for when it ends.
            thread::Builder::new()
                .name("quadriga-native-load".to_owned())
                .spawn(move || done.send(open(&unit, in_place)))
                .map_err(|error| {
                    Error::new(ErrorCode::LoadFailed, format!("no thread to load on: {error}"))
                })?;
            let (library, description) = match tokio::time::timeout_at(deadline.into(), loaded).await {
                Ok(Ok(opened)) => opened?,
                Ok(Err(_)) => return Err(Error::new(ErrorCode::LoadFailed, "the library panicked on load")),
                Err(_) => {
                    let late = "the library did not return from its load in time";
                    return Err(Error::new(ErrorCode::DeadlineExceeded, late)
                        .with_hint("its thread cannot be stopped, and is lost until the host ends"));
                }
            };
            Ok(Arc::new(NativeInstance::new(library, description, bridge)) as Arc<dyn Instance>)
        })
    }
}

fn open(unit: &Unit, in_place: bool) -> Result<(Library, Description), Error> {
    let library = if in_place { Library::open_in_place(&unit.entry)? } else { Library::open(&unit.entry)? };
    let bytes = library.module.describe()();
    let description = rmp_serde::from_slice(&bytes).map_err(|error| {
        Error::new(ErrorCode::ProtocolViolation, format!("the description cannot be read: {error}"))
    })?;
    Ok((library, description))
}
