//! A process that becomes a worker by forking, as often as its host asks for one.
//!
//! It has one thread, always, and knows nothing of any extension. It is the parent of its workers
//! and says how they ended. The kernel ends it when its host ends, and them when it ends itself.
//!
//! If its engine can rehearse a start, one more child does so ahead of the next order, and waits for
//! it (`spare.rs`).

use std::collections::{BTreeSet, HashMap};
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use quadriga_abi::{Error, ErrorCode, RuntimeKind};
use quadriga_core::Warm;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, set_parent_process_death_signal, wait,
};

use super::Engine;
use super::spare::{self, Spare};
use super::start::libraries;
use crate::confine::{fds, process, sys};
use crate::zygote::{Order, Report, receive, send};

/// How many files of an order are the worker's own.
const OWN: usize = 3;

/// What a worker has of the zygote that it was forked from.
pub(super) struct Born {
    /// The zygote's pid.
    pub(super) parent: u32,
    /// The engine that was started there.
    pub(super) engine: Option<Box<dyn Warm>>,
    /// The folders of the libraries that are loaded.
    pub(super) libraries: BTreeSet<PathBuf>,
}

struct Zygote {
    pid: u32,
    control: OwnedFd,
    /// Readable when a child has ended.
    ended: OwnedFd,
    engine: Option<Box<dyn Warm>>,
    /// The folders of the libraries that are loaded, here and in all children.
    libraries: BTreeSet<PathBuf>,
    /// The orders that the children were started for.
    children: HashMap<Pid, u64>,
    /// The child that waits for the next order.
    spare: Option<Spare>,
    /// Whether there should be one, once nothing else is to be done.
    lacks_spare: bool,
}

/// Takes orders until the host is gone. Returns in each worker, and at the end with `None`.
pub(super) fn live(engines: &[Engine], control: OwnedFd) -> io::Result<Option<(OwnedFd, Born)>> {
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
    let libraries = libraries()?;
    let mut zygote = Zygote {
        pid,
        control,
        ended,
        engine,
        libraries,
        children: HashMap::new(),
        spare: None,
        lacks_spare: false,
    };
    loop {
        let patience = zygote.lacks_spare.then_some(Timespec { tv_sec: 0, tv_nsec: 0 });
        let of = |fd| PollFd::from_borrowed_fd(fd, PollFlags::IN);
        let mut waiting = [of(zygote.control.as_fd()), of(zygote.ended.as_fd())];
        match poll(&mut waiting, patience.as_ref()) {
            Err(rustix::io::Errno::INTR) => continue,
            Ok(0) => {
                if let Some((orders, name)) = zygote.make_spare() {
                    return zygote.wait(orders, &name);
                }
                continue;
            }
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

/// The files of an order: the worker's own, and those of its cgroups.
fn own_and_doors(mut files: Vec<OwnedFd>) -> io::Result<([OwnedFd; OWN], Vec<OwnedFd>)> {
    let doors = files.split_off(files.len().min(OWN));
    let own = files.try_into().map_err(|_| io::Error::other("a worker did not get its files"))?;
    Ok((own, doors))
}

fn say(control: &OwnedFd, report: &Report) -> io::Result<()> {
    send(control, report, &[], SendFlags::empty())
}

impl Zygote {
    /// Forks. In the child, returns the files of the order: its own, and those of its cgroups.
    fn start(
        &mut self,
        number: u64,
        files: Vec<OwnedFd>,
    ) -> io::Result<Option<([OwnedFd; OWN], Vec<OwnedFd>)>> {
        if files.len() < OWN {
            let why = "its files did not arrive: too many are open".to_owned();
            return say(&self.control, &Report::Refused(number, why)).map(|()| None);
        }
        self.lacks_spare = self.engine.is_some();
        if let Some(spare) = self.spare.take()
            && spare.send(number, &files).is_ok()
        {
            self.children.insert(spare.child, number);
            return Ok(None);
        }
        match self.fork() {
            Ok(None) => return own_and_doors(files).map(Some),
            Ok(Some(child)) => _ = self.children.insert(child, number),
            Err(why) => say(&self.control, &Report::Refused(number, why))?,
        }
        Ok(None)
    }

    /// `None` is the child.
    fn fork(&mut self) -> Result<Option<Pid>, String> {
        alone()?;
        if let Some(engine) = &mut self.engine {
            engine.before_fork();
        }
        let forked = sys::fork();
        if !matches!(forked, Ok(None))
            && let Some(engine) = &mut self.engine
        {
            engine.in_parent();
        }
        forked.map_err(|error| error.to_string())
    }

    /// Forks the child that waits for the next order. In it, returns where that comes from, and what
    /// it is called then.
    fn make_spare(&mut self) -> Option<(OwnedFd, CString)> {
        // Where it cannot be had, orders do without, and the next one has it tried again.
        self.lacks_spare = false;
        let (socket, orders) = Spare::connection().ok()?;
        let name = spare::rename().ok()?;
        let forked = self.fork();
        if matches!(forked, Ok(None)) {
            return Some((orders, name));
        }
        let _ = rustix::thread::set_name(&name);
        self.spare = forked.ok().flatten().map(|child| Spare { child, socket });
        None
    }

    /// Is the child that waits for the next order, which comes from `orders`.
    fn wait(mut self, orders: OwnedFd, name: &CStr) -> io::Result<Option<(OwnedFd, Born)>> {
        let Some((number, files)) = spare::wait(&orders, name, self.engine.as_deref_mut())? else {
            return Ok(None);
        };
        let (files, doors) = own_and_doors(files)?;
        self.born(number, files, &doors).map(Some)
    }

    /// Tells of the children that have ended.
    fn reap(&mut self) -> io::Result<()> {
        // One signal may stand for several ends.
        let _ = rustix::io::read(&self.ended, &mut [0; 128]);
        while let Ok(Some((child, status))) = wait(WaitOptions::NOHANG) {
            if self.spare.as_ref().is_some_and(|spare| spare.child == child) {
                self.spare = None;
            }
            if let Some(number) = self.children.remove(&child) {
                say(&self.control, &Report::Exited(number, status.as_raw()))?;
            }
        }
        Ok(())
    }

    /// Tells the host that it is there, returns its connection to it, and leaves everything behind
    /// that is the zygote's.
    fn born(self, number: u64, files: [OwnedFd; OWN], doors: &[OwnedFd]) -> io::Result<(OwnedFd, Born)> {
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
        Ok((socket, Born { parent: self.pid, engine: self.engine, libraries: self.libraries }))
    }
}
