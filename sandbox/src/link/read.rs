//! What a worker sends. Whatever it is, it ends that worker at worst.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use quadriga_core::{CallContext, LogLevel};

use super::{Asked, Link};
use crate::frame::{FROM_GUEST, Frame, Next, Reader};
use crate::job::{Greeting, Hello as _};
use crate::nursery::how;

/// How long a worker that was ended may take to be gone.
const GONE: Duration = Duration::from_secs(5);

/// How long the thread that reads leaves that to callers, after one that got its answer.
const PAUSE: Duration = Duration::from_millis(1);

/// How the worker broke the contract.
type Violation = String;

/// Who reads: a thread, unless callers come so often that they do it themselves.
pub(super) struct Reading {
    pub(super) reader: Mutex<Reader>,
    /// How many callers got their answers themselves.
    looks: AtomicU64,
    /// The thread, once it runs.
    thread: OnceLock<Thread>,
    /// It should read on.
    wanted: AtomicBool,
}

impl Reading {
    pub(super) fn new(reader: Reader) -> Self {
        let (looks, wanted) = (AtomicU64::new(0), AtomicBool::new(false));
        Self { reader: Mutex::new(reader), looks, thread: OnceLock::new(), wanted }
    }

    /// A caller has looked: it has got its answer and nothing else is under way, or somebody has to
    /// read on.
    pub(super) fn looked(&self, done: bool) {
        if done {
            self.looks.fetch_add(1, Ordering::Release);
        } else if !self.wanted.swap(true, Ordering::AcqRel)
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// Leaves the reading to callers, as long as they come.
    fn pause(&self) {
        loop {
            let before = self.looks.load(Ordering::Acquire);
            thread::park_timeout(PAUSE);
            if self.wanted.swap(false, Ordering::AcqRel) || self.looks.load(Ordering::Acquire) == before {
                return;
            }
        }
    }
}

impl Link {
    /// The body of the thread that reads, until the worker is gone.
    pub(super) fn read(self: Arc<Self>) {
        let _ = self.reading.thread.set(thread::current());
        let violation = loop {
            // Held until the frame is seen to, so that nobody sees to the next one before.
            let mut reader = self.reading.reader.lock();
            match reader.next() {
                Ok(Next::Frame(frame)) => {
                    let answer = matches!(frame.envelope.kind, Kind::Reply | Kind::Error);
                    if let Err(violation) = self.take(frame) {
                        break Some(violation);
                    }
                    drop(reader);
                    if answer && self.calls.lock().is_empty() {
                        self.reading.pause();
                    }
                }
                Ok(Next::End | Next::Nothing) => break None,
                Err(broken) => break Some(broken.to_string()),
            }
        };
        if let Some(violation) = violation {
            self.die(self.broke(&violation));
        }
        self.strike();
        let status = self.child.wait(GONE);
        self.die(self.exited(status));
        self.over.send_replace(self.fate.get().cloned());
    }

    pub(super) fn broke(&self, violation: &str) -> Error {
        let id = self.bridge.extension();
        let cause = Error::new(ErrorCode::ProtocolViolation, violation);
        Error::new(
            ErrorCode::ExtensionCrashed,
            format!("the worker of {id} broke the contract and was ended: {violation}"),
        )
        .with_cause(cause)
    }

    fn exited(&self, status: Option<ExitStatus>) -> Error {
        let id = self.bridge.extension();
        if self.dismissed.load(Ordering::Acquire) {
            return Error::new(ErrorCode::ExtensionStopped, format!("{id} was stopped"));
        }
        let how = how(status);
        // Others may share the cgroup: it counts who was killed, and not who ended otherwise.
        let killed = status.is_none_or(|status| status.signal() == Some(libc::SIGKILL));
        if killed && self.cgroup.as_ref().is_some_and(|cgroup| cgroup.tell_oom_kill()) {
            let message = format!("the worker of {id} needed more memory than it may have: it {how}");
            return Error::new(ErrorCode::MemoryLimit, message).with_hint("raise [limits] memory");
        }
        Error::new(ErrorCode::ExtensionCrashed, format!("the worker of {id} {how}"))
    }

    /// Does what a frame asks for, without ever waiting.
    pub(super) fn take(self: &Arc<Self>, frame: Frame) -> Result<(), Violation> {
        let id = frame.envelope.id;
        match frame.envelope.kind {
            Kind::Hello => self.hello(&frame.envelope.payload),
            Kind::Error if id == 0 => {
                let error = decode(&frame.envelope.payload)?;
                let loading = self.loading.lock().take();
                let _ = loading.ok_or("an error of the load after its end")?.send(Err(error));
                Ok(())
            }
            Kind::Reply => self.answered(id, Ok(frame.envelope.payload)),
            Kind::Error => self.answered(id, Err(decode(&frame.envelope.payload)?)),
            Kind::HostCall => self.host_call(frame),
            Kind::Cancel => {
                self.cancel(id);
                Ok(())
            }
            Kind::StreamData | Kind::StreamAck | Kind::StreamEnd => {
                let refused = self.streams.take(&frame)?;
                // That the caller has gone is no failure of the call.
                if let Some(refused) = refused.filter(|error| error.code != ErrorCode::Cancelled)
                    && let Some(asked) = self.calls.lock().get_mut(&id)
                {
                    asked.refused.get_or_insert(refused);
                }
                Ok(())
            }
            Kind::Ping => self.answered_ping(id),
            Kind::Event => {
                let guarded = self.guarded.load(Ordering::Acquire);
                self.allowance.take(&frame.envelope.payload, &self.bridge, guarded, |call| self.context(call))
            }
            Kind::Log => self.log(id, &frame.envelope.payload),
            // Of a newer contract.
            Kind::Unknown => Ok(()),
            kind => Err(format!("a message of kind {kind:?}, which no worker sends")),
        }
    }

    fn hello(&self, payload: &[u8]) -> Result<(), Violation> {
        let loading = self.loading.lock().take().ok_or("a second hello")?;
        let greeting = Greeting::from_bytes(payload);
        let lie = greeting.as_ref().err().map(|error| error.message.clone());
        let _ = loading.send(greeting);
        lie.map_or(Ok(()), Err)
    }

    fn answered(&self, id: u64, result: Result<Bytes, Error>) -> Result<(), Violation> {
        let Asked { reply, context, refused, .. } =
            self.forget(id).ok_or_else(|| format!("an answer to call {id}, which is not under way"))?;
        let late = || context.deadline.is_some_and(|deadline| deadline <= Instant::now());
        let result = match (result, refused) {
            (Ok(_), Some(refused)) => Err(refused),
            // By the worker's clock there was a moment left when it was told to end.
            (Err(mut error), _) if error.code == ErrorCode::Cancelled && late() => {
                error.code = ErrorCode::DeadlineExceeded;
                error.message = "the call took longer than it was given".to_owned();
                Err(error)
            }
            (result, _) => result,
        };
        let used_up = result.as_ref().is_err_and(|error| error.code == ErrorCode::CpuLimit);
        // Its caller may have gone.
        let _ = reply.send(result);
        if used_up && !self.ends_busy_calls {
            self.end_overrun();
        }
        Ok(())
    }

    fn log(&self, call: u64, payload: &[u8]) -> Result<(), Violation> {
        let (level, message): (u8, String) =
            rmp_serde::from_slice(payload).map_err(|error| format!("a line that cannot be read: {error}"))?;
        let level = match level {
            0 => LogLevel::Trace,
            1 => LogLevel::Debug,
            2 => LogLevel::Info,
            3 => LogLevel::Warn,
            _ => LogLevel::Error,
        };
        self.bridge.log(&self.context(call), level, &message);
        Ok(())
    }

    /// What the host knows of a call: it does not take the worker's word for it.
    pub(super) fn context(&self, call: u64) -> CallContext {
        self.calls.lock().get(&call).map(|asked| asked.context).unwrap_or_default()
    }
}

fn decode(payload: &[u8]) -> Result<Error, Violation> {
    rmp_serde::from_slice(payload).map_err(|error| format!("an error that cannot be read: {error}"))
}

/// Ids of calls to guests, as against those of calls by them.
pub(super) fn from_guest(id: u64) -> bool {
    id & FROM_GUEST != 0
}
