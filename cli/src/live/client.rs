//! Asks the host that runs a home.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use anyhow::Result;
use quadriga::abi::{Error, ErrorCode};
use serde_json::Value as Json;

use serde::Serialize;

use super::protocol;
use crate::failure::Told;

/// The longest answer that is read, in bytes.
const LONGEST: u64 = 256 << 20;

/// Paths of sockets are shorter than that: `sun_path` has 104 bytes, or a few more.
const PATH: usize = 100;

/// Asks, and waits for the answer.
pub(crate) fn ask(home: &Path, request: &impl Serialize) -> Result<Json> {
    let mut socket = connect(home)?;
    let broken = |error: io::Error| {
        let message = format!("the host of {} does not answer: {error}", home.display());
        Error::new(ErrorCode::ConnectionFailed, message)
    };
    socket.write_all(protocol::ask(request)?.as_bytes()).map_err(broken)?;
    let mut line = Vec::new();
    BufReader::new(socket.take(LONGEST)).read_until(b'\n', &mut line).map_err(broken)?;
    if line.is_empty() {
        return Err(broken(ErrorKind::UnexpectedEof.into()).into());
    }
    Ok(protocol::answered(&line).map_err(Told)?)
}

/// Whether a host runs there.
pub(crate) fn runs(home: &Path) -> bool {
    connect(home).is_ok()
}

/// Whether no host was there to be asked.
pub(crate) fn is_absent(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Error>().is_some_and(|error| error.code == ErrorCode::HostNotRunning)
}

fn connect(home: &Path) -> Result<UnixStream, Error> {
    let path = protocol::socket(home);
    at(&path, |path| UnixStream::connect(path)).map_err(|error| match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            let message = format!("no host runs {}", home.display());
            let hint = format!("start one: quadriga run --home {}", home.display());
            Error::new(ErrorCode::HostNotRunning, message).with_hint(hint)
        }
        _ => Error::new(ErrorCode::ConnectionFailed, format!("{}: {error}", path.display())),
    })
}

/// Does something with the path of a socket, or with a shorter one for the same.
pub(super) fn at<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    match (path.parent(), path.file_name()) {
        (Some(folder), Some(name)) if path.as_os_str().len() > PATH && cfg!(target_os = "linux") => {
            let folder = File::open(folder)?;
            act(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name))
        }
        _ => act(path),
    }
}
