//! Guests that attack their host. Each attack is bounded by itself, and aims at canaries only: should
//! a sandbox fail, the test fails and nothing else does.

mod attacks;

use std::fs;
use std::io::ErrorKind;
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quadriga::abi::{Error, Isolation};
use quadriga::{Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

use attacks::Attack;

/// Enough for every engine, and little enough to be reached soon.
const MEMORY: &str = "memory = '192MiB'";

/// Soon for attacks that end by their deadline alone; the others must not meet it, on a busy machine
/// either.
const SOON: &str = "call-timeout = '600ms'";
const LATE: &str = "call-timeout = '10s'";

/// What only a process of its own can be held to.
const OF_PROCESSES: &str = "processes = 64\nopen-files = 128";

/// What the attacks aim at.
struct Canaries {
    folder: TempDir,
    tcp: TcpListener,
    unix: UnixListener,
    hidden: UnixListener,
    process: Child,
}

impl Canaries {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("secret"), "canary").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let unix = UnixListener::bind(folder.path().join("socket")).unwrap();
        let name = SocketAddr::from_abstract_name(Self::name()).unwrap();
        let hidden = UnixListener::bind_addr(&name).unwrap();
        tcp.set_nonblocking(true).unwrap();
        unix.set_nonblocking(true).unwrap();
        hidden.set_nonblocking(true).unwrap();
        let process = Command::new("sleep").arg("600").env("QUADRIGA_CANARY", "canary").spawn().unwrap();
        Self { folder, tcp, unix, hidden, process }
    }

    fn name() -> String {
        format!("quadriga-canary-{}", std::process::id())
    }

    /// The arguments with what was planted in them, as a list of MessagePack.
    fn arguments(&self, template: &str) -> Vec<u8> {
        let path = |name: &str| self.folder.path().join(name).display().to_string();
        let text = template
            .replace("$SECRET", &path("secret"))
            .replace("$OUTSIDE", &path("outside"))
            .replace("$UNIX", &path("socket"))
            .replace("$ABSTRACT", &Self::name())
            .replace("$PORT", &self.tcp.local_addr().unwrap().port().to_string())
            .replace("$PID", &self.process.id().to_string());
        let arguments: serde_json::Value = serde_json::from_str(&text).unwrap();
        rmp_serde::to_vec(&arguments).unwrap()
    }

    /// Nobody has come near.
    fn are_well(&mut self, attack: &str) {
        let secret = fs::read_to_string(self.folder.path().join("secret"));
        assert_eq!(secret.unwrap(), "canary", "{attack}");
        assert!(!self.folder.path().join("outside").exists(), "{attack}");
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

/// Calls somebody else all the time, until told to stop, and returns how often that was.
fn bystander(host: &Dispatcher, over: &Arc<AtomicBool>) -> tokio::task::JoinHandle<Result<u64, Error>> {
    let (host, over) = (host.clone(), Arc::clone(over));
    tokio::spawn(async move {
        let mut calls = 0;
        loop {
            let sum: i64 = host.invoke("relay.js", "add", &(2, 3)).await?;
            assert_eq!(sum, 5);
            calls += 1;
            if over.load(Ordering::Relaxed) {
                return Ok(calls);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// What came of it, in the words of the table.
fn outcome(result: Result<quadriga::abi::Bytes, Error>) -> (String, String) {
    match result {
        Ok(reply) => {
            let text: String = rmp_serde::from_slice(&reply).unwrap();
            (text.split(':').next().unwrap_or_default().to_owned(), text)
        }
        Err(error) => (error.code.as_str().to_owned(), format!("{error:?}")),
    }
}

async fn withstand(language: &str, isolation: Isolation, table: &[Attack]) {
    let mut canaries = Canaries::new();
    let host = host();
    host.load(guest("relay", "js"), granted()).await.unwrap();
    let limits = if isolation >= Isolation::Process { OF_PROCESSES } else { "" };
    let package = |timeout: &str| {
        with(&guest("hostile", language), &format!("[limits]\n{MEMORY}\n{timeout}\n{limits}"))
    };
    let (soon, late) = (package(SOON), package(LATE));
    let id = format!("hostile.{language}");
    for (method, arguments, allowed) in table {
        let attack = format!("{language} at {isolation}: {method}{arguments}");
        let options = LoadOptions { isolation: Some(isolation), ..granted() };
        let package = if allowed.contains("deadline_exceeded") { &soon } else { &late };
        host.load(package.path(), options).await.unwrap_or_else(|error| panic!("{attack}: {error:?}"));
        let over = Arc::new(AtomicBool::new(false));
        let others = bystander(&host, &over);
        let result = host.call(&id, method, canaries.arguments(arguments), Default::default()).await;
        over.store(true, Ordering::Relaxed);
        let (word, told) = outcome(result);
        assert!(allowed.split('|').any(|allowed| allowed == word), "{attack}: {told}");
        assert!(others.await.unwrap().unwrap() > 0, "{attack}: the others were held up");
        canaries.are_well(&attack);
        host.unload(&id).await.unwrap();
        // What comes next is not affected.
        let sum: i64 = host.invoke("relay.js", "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5, "{attack}");
    }
}

macro_rules! suites {
    ($($name:ident: $language:literal, $isolation:ident, $table:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                withstand($language, Isolation::$isolation, attacks::$table).await;
            }
        )*
    };
}

suites! {
    slow_python_in_a_process: "python", Process, PYTHON;
    slow_python_in_a_container: "python", Container, PYTHON;
    slow_native_in_a_process: "native", Process, NATIVE;
    slow_native_in_a_container: "native", Container, NATIVE;
    slow_wasm_in_the_hosts_process: "wasm", InProcess, WASM;
    slow_wasm_in_a_process: "wasm", Process, WASM;
    slow_js_in_the_hosts_process: "js", InProcess, JS;
    slow_js_in_a_process: "js", Process, JS;
}
