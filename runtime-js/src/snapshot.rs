//! The heap that isolates begin with. The engine's own scripts take most of the time in which an
//! isolate starts, and leave the same behind in each: they run once in a process, and each isolate
//! begins with a copy of what they left. Nothing of ours and nothing of a guest is in it.
//!
//! The isolates of a process share the part of the heap that is only read. So it is made before there
//! is any isolate, and then all of them are made of it, or none is.
//!
//! The bytes stay in this process: whoever could change them could run code in it.

use std::panic::catch_unwind;
use std::sync::OnceLock;

use deno_core::{JsRuntimeForSnapshot, RuntimeOptions};

use crate::platform;

/// For good, because isolates use it as long as they live. `None` if they start without.
static HEAP: OnceLock<Option<&'static [u8]>> = OnceLock::new();

/// The heap of this process. The first who asks says whether there is one, and makes it. Only on a
/// thread on which the engine works, and before each isolate.
pub(crate) fn heap(wanted: bool) -> Option<&'static [u8]> {
    // QuickJS starts as it always did.
    let possible = cfg!(not(feature = "quickjs"));
    *HEAP.get_or_init(|| if wanted && possible { make() } else { None })
}

/// Has the heap made, if it is not there, and waits for it.
pub(crate) fn wait() {
    let make = || {
        heap(true);
    };
    if let Ok(making) = platform::spawn("quadriga-js-heap", Box::new(make)) {
        // Whoever loads something sees what came of it.
        let _ = making.join();
    }
}

fn make() -> Option<&'static [u8]> {
    let make = || {
        let engine = JsRuntimeForSnapshot::try_new(RuntimeOptions::default()).ok()?;
        Some(&*Box::leak(engine.snapshot()))
    };
    catch_unwind(make).ok().flatten()
}
