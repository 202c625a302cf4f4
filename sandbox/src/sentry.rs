//! Answers what the kernel asks about a worker, always with no, and records each attempt as what the
//! host has seen. A worker that goes on trying waits for its answers.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use quadriga_core::{Bridge, Counter};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use crate::claims::Allowance;
use crate::confine::Refusal;
use crate::confine::watch::{self, Asked, is_watch};

/// How long whoever asks too often waits for the next answer: there are 256 in a second.
const PAUSE: Duration = Duration::from_millis(4);

/// Serves what a worker handed over, until the task is aborted.
pub(crate) fn serve(watch: OwnedFd, bridge: Bridge, handle: &Handle) -> io::Result<AbortHandle> {
    if !is_watch(&watch) {
        return Err(io::Error::other("a file of another sort"));
    }
    let _entered = handle.enter();
    #[expect(unsafe_code, reason = "tokio asks for a descriptor that stays")]
    // SAFETY: an owned descriptor is open until it is dropped, and always the same.
    let watch = unsafe { AsyncFd::register_with_interest(watch, Interest::READABLE) }?;
    Ok(handle.spawn(answer(watch, bridge)).abort_handle())
}

async fn answer(watch: AsyncFd<OwnedFd>, bridge: Bridge) {
    let allowance = Allowance::default();
    while let Ok(mut ready) = watch.readable().await {
        match watch::next(watch.get_ref()) {
            Ok(Asked::For(Refusal { what, is_spawn }, question)) => {
                // On record before the answer.
                bridge.refused(&what);
                if is_spawn {
                    bridge.report(Counter::Spawns, 1);
                }
                while !allowance.keeps() {
                    tokio::time::sleep(PAUSE).await;
                }
                watch::refuse(watch.get_ref(), question);
            }
            Ok(Asked::Gone) => {}
            Ok(Asked::Nothing) => ready.clear_ready(),
            // Whoever asks from now on is refused by the kernel alone.
            Ok(Asked::End) | Err(_) => return,
        }
    }
}
