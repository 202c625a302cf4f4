//! A worker process, as its host holds it.

use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::net::{Shutdown, shutdown};
use rustix::process::{Signal, pidfd_send_signal};
use tokio::sync::watch;

/// A worker process.
pub(crate) struct Child {
    pub(crate) pid: u32,
    pub(super) pidfd: OwnedFd,
    /// Our end of its connection, shut down once it has exited: a process that it started may
    /// still hold the other.
    socket: Arc<OwnedFd>,
    status: Mutex<Option<ExitStatus>>,
    exited: Condvar,
    /// The same, for who awaits it.
    over: watch::Sender<Option<ExitStatus>>,
}

impl Child {
    pub(super) fn new(pid: u32, pidfd: OwnedFd, socket: Arc<OwnedFd>) -> Arc<Self> {
        let (status, exited, over) = (Mutex::new(None), Condvar::new(), watch::Sender::new(None));
        Arc::new(Self { pid, pidfd, socket, status, exited, over })
    }

    /// Ends it at once. Does nothing if it has exited.
    pub(crate) fn kill(&self) {
        let _ = pidfd_send_signal(&self.pidfd, Signal::KILL);
    }

    /// Sends it a signal. Does nothing if it has exited.
    pub(crate) fn signal(&self, signal: Signal) {
        let _ = pidfd_send_signal(&self.pidfd, signal);
    }

    /// Waits until it has exited.
    pub(crate) fn wait(&self, patience: Duration) -> Option<ExitStatus> {
        let mut status = self.status.lock();
        if status.is_none() {
            self.exited.wait_for(&mut status, patience);
        }
        *status
    }

    /// Resolves once it has exited.
    pub(crate) async fn ended(&self) -> ExitStatus {
        let mut over = self.over.subscribe();
        // The sender is in here.
        let status = over.wait_for(Option::is_some).await.ok().and_then(|status| *status);
        status.unwrap_or_else(|| ExitStatus::from_raw(0))
    }

    pub(super) fn exited(&self, status: ExitStatus) {
        *self.status.lock() = Some(status);
        self.exited.notify_all();
        self.over.send_replace(Some(status));
        let _ = shutdown(&self.socket, Shutdown::Both);
    }
}

/// How a process ended, after its name in a sentence.
pub(crate) fn how(status: Option<ExitStatus>) -> String {
    match status.map(|status| (status.code(), status.signal())) {
        Some((Some(code), _)) => format!("exited with code {code}"),
        Some((_, Some(signal))) => format!("was ended by signal {signal}{}", name(signal)),
        _ => "closed its connection".to_owned(),
    }
}

/// Those that programs end by.
fn name(signal: i32) -> &'static str {
    match signal {
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU: it had used up its processor time)",
        25 => " (SIGXFSZ: it wrote a file that was too large)",
        31 => " (SIGSYS: it made a system call that it may not)",
        _ => "",
    }
}
