//! The socket of a host.

use std::fs::{self, DirBuilder, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::unistd::Uid;
use quadriga::abi::{Error, ErrorCode};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::client::at;
use super::protocol;
use super::run::Host;
use crate::failure::Failure;
use crate::home::actor::user;

/// Clients at the same time; the next one is sent away.
const CLIENTS: usize = 64;

/// How long a client may take to send a request, or to take its answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long to wait after the system had no connection to give.
const AGAIN: Duration = Duration::from_millis(100);

/// A socket that is there as long as this.
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    /// Makes the socket of a home, in the place of one that a killed host left. To be called by who holds
    /// the lock of the home.
    pub(super) fn bind(home: &Path) -> Result<Self> {
        let path = protocol::socket(home);
        let bound = || {
            let folder = path.parent().unwrap_or(home);
            match DirBuilder::new().mode(0o700).create(folder) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
                _ => fs::set_permissions(folder, Permissions::from_mode(0o700))?,
            }
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let listener = at(&path, |path| UnixListener::bind(path))?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            Ok(listener)
        };
        let listener = bound().with_context(|| format!("there is no socket at {}", path.display()))?;
        Ok(Self { listener, path })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Answers for ever, each client on its own.
    pub(super) async fn serve(self: Arc<Self>, host: Arc<Host>) {
        let clients = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let Ok((client, _)) = self.listener.accept().await else {
                tokio::time::sleep(AGAIN).await;
                continue;
            };
            let Ok(place) = Arc::clone(&clients).try_acquire_owned() else {
                // It fits into the buffer of a new connection, or is lost.
                let many = Error::new(ErrorCode::Overloaded, format!("the host has {CLIENTS} clients"));
                let _ = client.try_write(protocol::answer(&Err(Failure::from(&many))).as_bytes());
                continue;
            };
            let host = Arc::clone(&host);
            tokio::spawn(async move {
                // Who breaks off is gone, and what it asked for is done all the same.
                let _ = converse(client, &host).await;
                drop(place);
            });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The next host replaces one that is left.
        let _ = fs::remove_file(&self.path);
    }
}

/// Answers one request after the other, until the client ends, is too slow or asks for too much.
async fn converse(client: UnixStream, host: &Host) -> io::Result<()> {
    let actor = user(Uid::from_raw(client.peer_cred()?.uid()));
    let (reader, mut writer) = client.into_split();
    let mut reader = BufReader::new(reader);
    loop {
        let mut line = Vec::new();
        let mut bounded = (&mut reader).take(protocol::LONGEST);
        timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await??;
        if line.is_empty() {
            return Ok(());
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < protocol::LONGEST;
        let result = match protocol::asked(&line) {
            _ if !whole => {
                let message = format!("a request has {} bytes at most", protocol::LONGEST);
                Err(Error::new(ErrorCode::MessageTooLarge, message).into())
            }
            Ok(request) => host.answer(request, &actor).await,
            Err(error) => Err(error.into()),
        };
        let result = result.map_err(|error| Failure::from(&error));
        drop(line);
        timeout(PATIENCE, writer.write_all(protocol::answer(&result).as_bytes())).await??;
        if !whole {
            return Ok(());
        }
    }
}
