//! A process that becomes a program, once it is confined.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use quadriga_abi::{Bytes, Error, ErrorCode, Kind};
use rustix::net::SendFlags;

use super::start::confine;
use crate::frame::{Frame, write};
use crate::job::{Hello as _, Task};

/// Confines this process and has it run the program of a task, which reads `stdin`. Returns only if
/// that does not come to be, and the host has been told why. One that was forked says from which
/// process.
pub(super) fn run(
    task: &[u8],
    stdin: Option<OwnedFd>,
    socket: &OwnedFd,
    parent: Option<u32>,
) -> io::Result<()> {
    let Err(error) = become_program(task, stdin, socket, parent);
    say(socket, &Frame::answer(Kind::Error, 0, Err(error)))
}

fn become_program(
    task: &[u8],
    stdin: Option<OwnedFd>,
    socket: &OwnedFd,
    parent: Option<u32>,
) -> Result<Infallible, Error> {
    let mut task = Task::from_bytes(task)?;
    let failed = |what: &str, error: io::Error| Error::new(ErrorCode::LoadFailed, format!("{what}: {error}"));
    let stdin = stdin.ok_or_else(|| failed("its input", io::ErrorKind::NotFound.into()))?;
    rustix::stdio::dup2_stdin(&stdin).map_err(|error| failed("its input", error.into()))?;
    drop(stdin);
    task.plan.parent = parent.unwrap_or(task.plan.parent);
    task.plan.keep_fds = vec![0, 1, 2, socket.as_raw_fd()];
    confine(&task.plan, socket)?;
    if let Some(folder) = &task.folder {
        let folder = OsStr::from_bytes(folder);
        std::env::set_current_dir(folder)
            .map_err(|error| failed(&format!("the folder {}", folder.display()), error))?;
    }
    say(socket, &Frame::new(Kind::Hello, 0, Bytes::new()))
        .map_err(|error| failed("the host is out of reach", error))?;
    // The connection closes with that, and the host knows that all went well.
    let mut program = Command::new(OsStr::from_bytes(&task.path));
    let error = program.arg0(&task.name).args(&task.arguments).exec();
    Err(failed(&format!("{} cannot be run", task.name), error))
}

fn say(socket: &OwnedFd, frame: &Frame) -> io::Result<()> {
    let head = frame.head();
    match write(socket, [&head, &frame.envelope.payload], None, SendFlags::empty())? {
        written if written == head.len() + frame.envelope.payload.len() => Ok(()),
        _ => Err(io::ErrorKind::WriteZero.into()),
    }
}
