//! What the attacks aim at.

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use quadriga::abi::{Envelope, Kind};
use tempfile::TempDir;

pub(super) struct Canaries {
    folder: TempDir,
    tcp: TcpListener,
    unix: UnixListener,
    hidden: UnixListener,
    process: Child,
    /// The worker of somebody else.
    sibling: u32,
}

impl Canaries {
    pub(super) fn new(sibling: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let name = SocketAddr::from_abstract_name(Self::name()).unwrap();
        let hidden = UnixListener::bind_addr(&name).unwrap();
        tcp.set_nonblocking(true).unwrap();
        unix.set_nonblocking(true).unwrap();
        hidden.set_nonblocking(true).unwrap();
        let process = Command::new("sleep").arg("600").env("QUADRIGA_CANARY", "canary").spawn().unwrap();
        let canaries = Self { folder, tcp, unix, hidden, process, sibling };
        fs::create_dir_all(canaries.home().join(".ssh")).unwrap();
        fs::write(canaries.secret(), "canary").unwrap();
        fs::create_dir(canaries.inside()).unwrap();
        canaries
    }

    fn name() -> String {
        format!("quadriga-canary-{}", std::process::id())
    }

    /// Somebody's home.
    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn secret(&self) -> PathBuf {
        self.home().join(".ssh/id_ed25519")
    }

    fn outside(&self) -> PathBuf {
        self.home().join("outside")
    }

    /// A folder that is granted, for those who have files.
    pub(super) fn inside(&self) -> PathBuf {
        self.folder.path().join("inside")
    }

    /// What is granted as it was at first, with links that lead out of it.
    pub(super) fn plant(&self) {
        fs::remove_dir_all(self.inside()).unwrap();
        fs::create_dir(self.inside()).unwrap();
        fs::write(self.inside().join("own"), "own").unwrap();
        symlink(self.secret(), self.inside().join("link")).unwrap();
        symlink(self.home(), self.inside().join("way")).unwrap();
        symlink("../home", self.inside().join("relative")).unwrap();
    }

    /// The arguments with what was planted in them, as a list of MessagePack.
    pub(super) fn arguments(&self, template: &str) -> Vec<u8> {
        let text = |path: &Path| path.display().to_string();
        let text = template
            .replace("$SECRET", &text(&self.secret()))
            .replace("$OUTSIDE", &text(&self.outside()))
            .replace("$INSIDE", &text(&self.inside()))
            .replace("$HOME", &text(&self.home()))
            .replace("$UNIX", &text(&self.folder.path().join("socket")))
            .replace("$ABSTRACT", &Self::name())
            .replace("$PORT", &self.tcp.local_addr().unwrap().port().to_string())
            .replace("$PID", &self.process.id().to_string())
            .replace("$SIBLING", &self.sibling.to_string())
            .replace("$GIANT", &format!("{:?}", [0xff; 16]))
            .replace("$GARBAGE", &format!("{:?}", [&[40, 0, 0, 0][..], &[0xc1; 52]].concat()))
            .replace("$STRAY_REPLY", &format!("{:?}", frame(Kind::Reply, 1 << 40, b"\xc0")))
            .replace("$SECOND_HELLO", &format!("{:?}", frame(Kind::Hello, 0, b"\xc0")))
            .replace("$STRAY_PING", &format!("{:?}", frame(Kind::Ping, 7, b"")));
        let arguments: serde_json::Value = serde_json::from_str(&text).unwrap();
        rmp_serde::to_vec(&arguments).unwrap()
    }

    /// Nobody has come near.
    pub(super) fn are_well(&mut self, attack: &str) {
        assert_eq!(fs::read_to_string(self.secret()).unwrap(), "canary", "{attack}");
        assert!(!self.outside().exists(), "{attack}");
        assert!(self.process.try_wait().unwrap().is_none(), "{attack}: the process is gone");
        let none = |error: std::io::Error| error.kind() == ErrorKind::WouldBlock;
        assert!(self.tcp.accept().is_err_and(none), "{attack}: a TCP connection");
        assert!(self.unix.accept().is_err_and(none), "{attack}: a connection by path");
        assert!(self.hidden.accept().is_err_and(none), "{attack}: a connection by name");
    }
}

impl Drop for Canaries {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A message as workers send them: its length, no flags, no parent, and what it says.
fn frame(kind: Kind, id: u64, payload: &'static [u8]) -> Vec<u8> {
    let mut body = Vec::new();
    Envelope::new(kind, id, payload).encode_header(&mut body);
    body.extend(payload);
    [&(body.len() as u32).to_le_bytes()[..], &[0; 12], &body].concat()
}
