//! The host's side of a call: where the result goes, and what the extension may ask.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Poll, Waker};
use std::time::Instant;

use abi_stable::prefix_type::PrefixTypeTrait;
use abi_stable::std_types::{RSlice, RStr, RVec};
use parking_lot::Mutex;
use quadriga_abi::vtable::{HostCall, HostFunctions, HostFunctionsRef, Outcome, ReplySink};
use quadriga_abi::{Bytes, Error, ErrorCode};
use quadriga_core::{Bridge, Call, CallContext, LogLevel, Streams};

use crate::half::Half;
use crate::stream;
use crate::wait::{self, Waiting, Wakes};

static FUNCTIONS: LazyLock<HostFunctionsRef> = LazyLock::new(|| {
    HostFunctions {
        finish,
        release,
        call,
        log,
        config,
        cancelled,
        emit: stream::emit,
        next: stream::next,
        start: stream::start,
        read: stream::read,
        write: stream::write,
        finish_input: stream::finish_input,
        drop_channel: stream::drop_channel,
        wait: wait::wait,
        wake: wait::wake,
    }
    .leak_into_prefix()
});

/// What the calls of one extension share.
pub(crate) struct Hub {
    pub(crate) bridge: Bridge,
    pub(crate) waiting: Waiting,
}

/// A call: one half of it is its extension's, the other is ours.
pub(crate) struct CallState {
    pub(crate) hub: Arc<Hub>,
    pub(crate) context: CallContext,
    pub(crate) streams: Option<Box<Streams>>,
    /// What ends its `wait`.
    pub(crate) wakes: Wakes,
    progress: Mutex<Progress>,
    /// Whether it has a result: spares whoever would give it another the lock.
    has_result: AtomicBool,
}

/// Replies up to so many bytes are copied, which takes less time than to keep track of whose they are.
const COPIED: usize = 1024;

enum Progress {
    /// Nobody waits yet, or this one does.
    Running(Option<Waker>),
    Ended(Result<Bytes, Error>),
    /// The result has been taken away.
    Over,
}

impl CallState {
    /// Our half, and the extension's, which it has until it drops it.
    #[expect(unsafe_code, reason = "raw pointers cross the seam")]
    pub(crate) fn lend(hub: Arc<Hub>, call: &mut Call) -> (Half<Self>, HostCall) {
        let (context, streams) = (call.context(), call.streams.take());
        let progress = Mutex::new(Progress::Running(None));
        let (wakes, has_result) = (Wakes::default(), AtomicBool::new(false));
        let [ours, theirs] = Half::pair(Self { hub, context, streams, wakes, progress, has_result });
        // SAFETY: `FUNCTIONS` take the pointer for what it is, and `release` gives it back.
        (ours, unsafe { HostCall::new(theirs.into_raw(), *FUNCTIONS) })
    }

    pub(crate) fn id(&self) -> u64 {
        self.context.id
    }

    /// The result, if the extension has ended the call and let go of it.
    pub(crate) fn ended(this: &mut Half<Self>) -> Option<Result<Bytes, Error>> {
        match std::mem::replace(this.get_mut()?.progress.get_mut(), Progress::Over) {
            Progress::Ended(result) => Some(result),
            Progress::Running(_) | Progress::Over => Some(Err(let_go())),
        }
    }

    /// The result, or a wake-up when it is there.
    pub(crate) fn poll(&self, waker: &Waker) -> Poll<Result<Bytes, Error>> {
        let mut progress = self.progress.lock();
        match std::mem::replace(&mut *progress, Progress::Over) {
            Progress::Ended(result) => Poll::Ready(result),
            Progress::Running(_) => {
                *progress = Progress::Running(Some(waker.clone()));
                Poll::Pending
            }
            Progress::Over => Poll::Pending,
        }
    }

    /// Ends a call whose caller no longer waits, whatever its extension still does.
    pub(crate) fn interrupt(&self) {
        self.end(|| Err(self.given_up()));
    }

    /// Why the caller no longer waits.
    pub(crate) fn given_up(&self) -> Error {
        if self.context.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            Error::new(ErrorCode::DeadlineExceeded, "the call took longer than it was given")
        } else {
            Error::new(ErrorCode::Cancelled, "the caller gave up")
        }
    }

    /// Only the first time counts.
    fn end(&self, result: impl FnOnce() -> Result<Bytes, Error>) {
        let mut progress = self.progress.lock();
        if let Progress::Running(waker) = &mut *progress {
            let waker = waker.take();
            *progress = Progress::Ended(result());
            self.has_result.store(true, Ordering::Relaxed);
            drop(progress);
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }
}

/// # Safety
/// `state` must come from `CallState::lend`, and not have been released.
#[expect(unsafe_code, reason = "raw pointers cross the seam")]
pub(crate) unsafe fn state<'a>(state: *const ()) -> &'a CallState {
    // SAFETY: the caller's promise.
    unsafe { Half::peek(state) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn finish(call: *const (), outcome: Outcome, bytes: RVec<u8>) {
    // SAFETY: the extension holds its `HostCall`.
    let call = unsafe { state(call) };
    call.end(|| match outcome {
        Outcome::Reply if bytes.len() <= COPIED => Ok(Bytes::copy_from_slice(&bytes)),
        Outcome::Reply => Ok(Bytes::from_owner(bytes)),
        Outcome::Error => Err(Error::from_bytes(&bytes)),
        Outcome::End => Err(let_go()),
    });
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn release(call: *const ()) {
    // SAFETY: made in `lend`, and given back once, when the `HostCall` drops.
    let call = unsafe { Half::<CallState>::from_raw(call) };
    // Where it is seen too late, the lock finds the result.
    if !call.has_result.load(Ordering::Relaxed) {
        call.end(|| Err(let_go()));
    }
}

fn let_go() -> Error {
    Error::new(ErrorCode::ExtensionCrashed, "the extension let go of the call without a result")
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn call(
    call: *const (),
    extension: RStr<'_>,
    method: RStr<'_>,
    arguments: RSlice<'_, u8>,
    sink: ReplySink,
) {
    // SAFETY: as in `finish`.
    let call = unsafe { state(call) };
    let arguments = Bytes::copy_from_slice(arguments.as_slice());
    let (extension, method) = (extension.as_str(), method.as_str());
    // A panic of ours must not unwind through the extension's frames.
    let result = catch_unwind(AssertUnwindSafe(|| {
        call.hub.bridge.call(&call.context, extension, method, arguments).wait()
    }))
    .unwrap_or_else(|_| Err(Error::new(ErrorCode::Internal, "the host panicked")));
    let (outcome, bytes) = match result {
        Ok(reply) => (Outcome::Reply, reply),
        Err(error) => (Outcome::Error, error.to_bytes().into()),
    };
    // SAFETY: the extension lent `sink` for the time of this call, and it is used once.
    unsafe { (sink.take)(sink.state, outcome, bytes[..].into()) }
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn log(call: *const (), level: u8, message: RStr<'_>) {
    let level = match level {
        0 => LogLevel::Trace,
        1 => LogLevel::Debug,
        2 => LogLevel::Info,
        3 => LogLevel::Warn,
        _ => LogLevel::Error,
    };
    // SAFETY: as in `finish`.
    let call = unsafe { state(call) };
    // What a subscriber of the host does must not unwind through the extension's frames.
    let _ = catch_unwind(AssertUnwindSafe(|| call.hub.bridge.log(&call.context, level, message.as_str())));
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn config(call: *const ()) -> RVec<u8> {
    // SAFETY: as in `finish`.
    unsafe { state(call) }.hub.bridge.config().to_vec().into()
}

#[expect(unsafe_code, reason = "called by the extension with the pointer that it was lent")]
unsafe extern "C" fn cancelled(call: *const ()) -> bool {
    // SAFETY: as in `finish`.
    let call = unsafe { state(call) };
    call.hub.bridge.cancelled(&call.context)
}
