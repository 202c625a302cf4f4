//! A process that becomes a worker by forking, as often as its host asks for one.
//!
//! It has one thread, always, and knows nothing of any extension. It is the parent of its workers
//! and says how they ended. The kernel ends it when its host ends, and them when it ends itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use quadriga_abi::{Error, ErrorCode, RuntimeKind};
use quadriga_core::Warm;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, set_parent_process_death_signal, wait,
};

use super::Engine;
use crate::confine::{fds, process, sys};
use crate::zygote::{Order, Report, receive, send};

/// What a worker has of the zygote that it was forked from.
pub(super) struct Born {
    /// The connection to the host.
    pub(super) socket: OwnedFd,
    /// The zygote's pid.
    pub(super) parent: u32,
    /// The engine that was started there.
    pub(super) engine: Option<Box<dyn Warm>>,
}

struct Zygote {
    pid: u32,
    control: OwnedFd,
    /// Readable when a child has ended.
    ended: OwnedFd,
    engine: Option<Box<dyn Warm>>,
    /// The orders that the children were started for.
    children: HashMap<Pid, u64>,
}

/// Takes orders until the host is gone. Returns in each worker, and at the end with `None`.
pub(super) fn live(engines: &[Engine], control: OwnedFd) -> io::Result<Option<Born>> {
    // Before the first look at the connection: if the host has gone already, that has ended.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    fds::close_all_but(&[0, 1, 2, control.as_raw_fd()])?;
    // What is typed to end the host is not for this.
    process::new_session()?;
    let Some((Order::Warm(kind), _)) = receive(&control, RecvFlags::empty())? else { return Ok(None) };
    let engine = match warm(engines, &kind) {
        Ok(engine) => engine,
        Err(error) => {
            say(&control, &Report::Unfit(error))?;
            return Ok(None);
        }
    };
    let ended = sys::hold_signal(libc::SIGCHLD)?;
    say(&control, &Report::Ready)?;
    let pid = std::process::id();
    let mut zygote = Zygote { pid, control, ended, engine, children: HashMap::new() };
    loop {
        let of = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut waiting = [of(zygote.control.as_fd()), of(zygote.ended.as_fd())];
        match poll(&mut waiting, None) {
            Err(rustix::io::Errno::INTR) => continue,
            polled => polled?,
        };
        let [ordered, ended] = waiting.map(|fd| !fd.revents().is_empty());
        if ended {
            zygote.reap()?;
        }
        if ordered {
            let Some((order, files)) = receive(&zygote.control, RecvFlags::empty())? else { return Ok(None) };
            let Order::Start(number) = order else { continue };
            if let Some((files, doors)) = zygote.start(number, files)? {
                return zygote.born(number, files, &doors).map(Some);
            }
        }
    }
}

/// Does what all workers of a kind begin with, if there is something.
fn warm(engines: &[Engine], kind: &RuntimeKind) -> Result<Option<Box<dyn Warm>>, Error> {
    // What the program does not have, each worker says to its host.
    let engine = engines.iter().find(|engine| engine.kind == kind.as_str());
    let warm = engine.and_then(|engine| engine.warm).map(|warm| warm()).transpose()?;
    alone().map_err(|why| Error::new(ErrorCode::Internal, why))?;
    Ok(warm)
}

/// Of several threads only one would be there after a fork, and whatever the others had locked
/// would stay so.
fn alone() -> Result<(), String> {
    match process::threads() {
        Ok(1) => Ok(()),
        Ok(threads) => Err(format!("a zygote has {threads} threads, and cannot fork")),
        Err(error) => Err(error.to_string()),
    }
}

fn say(control: &OwnedFd, report: &Report) -> io::Result<()> {
    send(control, report, &[], SendFlags::empty())
}

impl Zygote {
    /// Forks. In the child, returns the files of the order: its own, and those of its cgroups.
    fn start(
        &mut self,
        number: u64,
        mut files: Vec<OwnedFd>,
    ) -> io::Result<Option<([OwnedFd; 3], Vec<OwnedFd>)>> {
        let doors = files.split_off(files.len().min(3));
        let refuse = |why: String| say(&self.control, &Report::Refused(number, why)).map(|()| None);
        let Ok(files) = <[OwnedFd; 3]>::try_from(files) else {
            return refuse("its files did not arrive: too many are open".to_owned());
        };
        if let Err(why) = alone() {
            return refuse(why);
        }
        if let Some(engine) = &mut self.engine {
            engine.before_fork();
        }
        let forked = sys::fork();
        if matches!(forked, Ok(None)) {
            return Ok(Some((files, doors)));
        }
        if let Some(engine) = &mut self.engine {
            engine.in_parent();
        }
        let started = forked.and_then(|child| child.ok_or_else(|| io::ErrorKind::Other.into()));
        match started {
            Ok(child) => {
                self.children.insert(child, number);
                Ok(None)
            }
            Err(error) => refuse(error.to_string()),
        }
    }

    /// Tells of the children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        // One signal may stand for several ends.
        let _ = rustix::io::read(&self.ended, &mut [0; 128]);
        while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
            if let Some(number) = self.children.remove(&child) {
                say(&self.control, &Report::Exited(number, status.as_raw()))?;
            }
        }
        Ok(())
    }

    /// Tells the host that it is there, and leaves everything behind that is the zygote's.
    fn born(self, number: u64, files: [OwnedFd; 3], doors: &[OwnedFd]) -> io::Result<Born> {
        let [socket, stdout, stderr] = files;
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // Where that fails, its host moves it.
        doors.iter().for_each(|door| _ = rustix::io::write(door, b"0"));
        let descriptor = pidfd_open(rustix::process::getpid(), PidfdFlags::empty())?;
        let started = Report::Started(number, std::process::id());
        send(&self.control, &started, &[descriptor.as_fd()], SendFlags::empty())?;
        drop(descriptor);
        rustix::stdio::dup2_stdout(&stdout)?;
        rustix::stdio::dup2_stderr(&stderr)?;
        sys::release_signal(libc::SIGCHLD)?;
        Ok(Born { socket, parent: self.pid, engine: self.engine })
    }
}
