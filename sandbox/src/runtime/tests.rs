//! Workers that lie, babble and fall silent. Each is a shell script that sends what a test wrote
//! for it: first a hello, and the rest once a call is under way, whose id is 1.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use parking_lot::Mutex;
use quadriga_abi::{Bytes, Description, Envelope, ErrorCode, Kind, Method, Target};
use quadriga_core::{
    Action, CallOptions, Dispatcher, Grant, LoadOptions, MockRuntime, Policy, Recovery, State, Supervision,
    TotalMemory,
};
use tempfile::TempDir;

use super::*;
use crate::confine::Report;
use crate::frame::{FROM_GUEST, Frame, INPUT};
use crate::job::{Greeting, Hello as _};

const SCRIPT: &str = r#"#!/bin/sh
cat "$0.hello" >&0
while [ ! -e "$0.go" ]; do sleep 0.01; done
cat "$0.rest" >&0
exec sleep 60
"#;

fn bytes(frame: &Frame) -> Vec<u8> {
    [frame.head(), frame.envelope.payload.to_vec()].concat()
}

fn frame(kind: Kind, id: u64, payload: &[u8]) -> Vec<u8> {
    bytes(&Frame::new(kind, id, payload.to_vec()))
}

fn error(id: u64, message: &str) -> Vec<u8> {
    frame(Kind::Error, id, &Error::new(ErrorCode::ExtensionError, message).to_bytes())
}

fn hello() -> Vec<u8> {
    let methods = vec![Method::named("call"), Method { streams: true, ..Method::named("stream") }];
    let greeting = Greeting::new(
        Description::new("test", methods),
        Report { isolation: Isolation::Process, layers: Vec::new() },
    );
    frame(Kind::Hello, 0, &greeting.to_bytes().unwrap())
}

/// A hello with another version in the so-manieth place where it says one.
fn lie(place: usize) -> Vec<u8> {
    let (mut hello, truth) = (hello(), env!("CARGO_PKG_VERSION").as_bytes());
    assert_eq!(truth, quadriga_abi::PROTOCOL.to_string().as_bytes(), "release and contract look alike");
    let found = hello.windows(truth.len()).enumerate().filter(|(_, bytes)| *bytes == truth).nth(place);
    let (at, _) = found.unwrap();
    hello[at..at + truth.len()].copy_from_slice(b"9.9.9");
    hello
}

/// A host with one extension in such a worker, beside one that has nothing to do with it.
struct Stage {
    folder: TempDir,
    host: Dispatcher,
    kept: Arc<Mutex<Option<Arc<dyn Instance>>>>,
}

/// A runtime whose workers send what was written for them, and where that and an extension are.
fn scripted(mock: &Arc<MockRuntime>, hello: &[u8], rest: &[u8]) -> (TempDir, ProcessRuntime) {
    let folder = TempDir::new().unwrap();
    let program = folder.path().join("worker");
    fs::write(&program, SCRIPT).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(folder.path().join("worker.hello"), hello).unwrap();
    fs::write(folder.path().join("worker.rest"), rest).unwrap();
    fs::write(folder.path().join("main"), "").unwrap();
    let (mock, exec) = (Arc::clone(mock), ExecMemory::Libraries);
    (folder, ProcessRuntime::new(mock, Isolation::Process, exec, Some(program)).unforked())
}

/// Where no cgroup can hold all workers together, each says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_total_that_no_cgroup_keeps_is_told_with_the_layers() {
    let (folder, runtime) = scripted(&Arc::new(MockRuntime::new()), &hello(), b"");
    let runtime = Arc::new(runtime);
    let total_memory = Some(TotalMemory { most: 1 << 40, action: Action::None });
    let policy = Policy { total_memory, load_timeout: Duration::from_secs(10), ..Policy::default() };
    let host = Dispatcher::builder().runtime(Arc::clone(&runtime)).policy(policy).build().unwrap();
    let refused = |_: &str, _| Err(confine::Error::NoCgroup("the test says so".to_owned()));
    assert!(runtime.around(refused).unwrap().is_err());
    let manifest = "[extension]\nid = 'a.worker'\nversion = '1.0.0'\n\
                    [runtime]\nkind = 'mock'\nentry = 'main'\nisolation = 'process'\n";
    fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
    host.load(folder.path(), LoadOptions::default()).await.unwrap();
    let layers = host.status("a.worker").unwrap().layers;
    let layer = layers.iter().find(|layer| layer.name.contains("around all workers")).unwrap();
    assert_eq!((layer.state.as_str(), layer.note.as_str()), ("not-reached", "no cgroup: the test says so"));
    assert!(layers.iter().any(|layer| layer.name == "a cgroup"));
}

impl Stage {
    async fn new(hello: &[u8], rest: &[u8]) -> (Self, Result<(), Error>) {
        Self::asking("", hello, rest).await
    }

    /// One whose extension is granted what it asks for in its manifest.
    async fn asking(request: &str, hello: &[u8], rest: &[u8]) -> (Self, Result<(), Error>) {
        let mock = Arc::new(MockRuntime::new().echo("echo"));
        let (folder, runtime) = scripted(&mock, hello, rest);
        let kept = Arc::default();
        let host = Dispatcher::builder()
            .runtime(Kept(runtime, Arc::clone(&kept)))
            .runtime(mock)
            .policy(Policy { load_timeout: Duration::from_secs(10), ..Policy::default() })
            .build()
            .unwrap();
        let stage = Self { folder, host, kept };
        let loaded = stage.load("a.worker", &format!("isolation = 'process'\n{request}")).await;
        stage.load("a.other", "").await.unwrap();
        (stage, loaded)
    }

    async fn load(&self, id: &str, more: &str) -> Result<(), Error> {
        let manifest = format!(
            "[extension]\nid = '{id}'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{more}\n"
        );
        fs::write(self.folder.path().join("quadriga.toml"), manifest).unwrap();
        let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
        let options =
            LoadOptions { supervision: Some(supervision), grant: Grant::Requested, ..LoadOptions::default() };
        self.host.load(self.folder.path(), options).await.map(drop)
    }

    async fn call(&self, extension: &str, method: &str) -> Result<Bytes, Error> {
        let options = CallOptions::default().timeout(Duration::from_secs(10));
        self.host.call(extension, method, Bytes::from_static(b"\x90"), options).await
    }

    /// What a call comes to in whose course the worker sends the rest.
    async fn perform(&self, method: &str) -> Result<Bytes, Error> {
        let go = async {
            while self.host.status("a.worker").unwrap().metrics.in_flight == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            fs::write(self.folder.path().join("worker.go"), "").unwrap();
        };
        tokio::join!(self.call("a.worker", method), go).0
    }

    /// Nobody else has come to harm.
    async fn is_well(&self) {
        assert_eq!(self.host.status("a.other").unwrap().state, State::Running);
        assert_eq!(&self.call("a.other", "echo").await.unwrap()[..], b"\x90");
        self.host.shutdown().await;
    }
}

/// Keeps the instance that another runtime has loaded.
struct Kept(ProcessRuntime, Arc<Mutex<Option<Arc<dyn Instance>>>>);

impl Runtime for Kept {
    fn kind(&self) -> RuntimeKind {
        self.0.kind()
    }

    fn support(&self) -> Support {
        self.0.support()
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        Box::pin(async move {
            let instance = self.0.load(unit, bridge).await?;
            *self.1.lock() = Some(Arc::clone(&instance));
            Ok(instance)
        })
    }
}

/// The worker is ended, and the error says why.
fn assert_ended(error: &Error, words: &str) {
    assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{words}: {error:?}");
    let cause = error.cause.as_ref().expect("a cause");
    assert_eq!(cause.code, ErrorCode::ProtocolViolation, "{error:?}");
    assert!(cause.message.contains(words), "{words:?} is not in {error:?}");
}

#[tokio::test]
async fn a_worker_that_keeps_to_the_contract_is_believed() {
    let (stage, loaded) = Stage::new(&hello(), &frame(Kind::Reply, 1, b"\x2a")).await;
    loaded.unwrap();
    assert_eq!(&stage.perform("call").await.unwrap()[..], b"\x2a");
    stage.is_well().await;
    let (stage, loaded) = Stage::new(&hello(), &error(1, "no hay")).await;
    loaded.unwrap();
    assert_eq!(stage.perform("call").await.unwrap_err().message, "no hay");
    stage.is_well().await;
}

#[tokio::test]
async fn what_is_no_hello_fails_the_load() {
    let crashed = ErrorCode::ExtensionCrashed;
    let cases: [(Vec<u8>, ErrorCode, &str); 9] = [
        (vec![0xff; 64], crashed, "a frame of 4294967295 bytes"),
        (
            frame(Kind::Hello, 0, b"\xc1"),
            ErrorCode::ProtocolViolation,
            "the hello of the worker cannot be read",
        ),
        (
            frame(Kind::Hello, 0, b"\x80"),
            ErrorCode::ProtocolViolation,
            "the hello of the worker cannot be read",
        ),
        (lie(1), ErrorCode::IncompatibleVersion, "the worker is release 9.9.9 and speaks contract 0.1.0"),
        (lie(2), ErrorCode::IncompatibleVersion, "the worker is release 0.1.0 and speaks contract 9.9.9"),
        (lie(3), ErrorCode::IncompatibleVersion, "a.worker was built for contract 9.9.9"),
        (frame(Kind::Reply, 1, b"\xc0"), crashed, "an answer to call 1, which is not under way"),
        (frame(Kind::Call, 1, b"\x90"), crashed, "a message of kind Call, which no worker sends"),
        (error(0, "no hay"), ErrorCode::ExtensionError, "no hay"),
    ];
    for (hello, code, words) in cases {
        let (stage, loaded) = Stage::new(&hello, &[]).await;
        let error = loaded.expect_err(words);
        assert_eq!(error.code, code, "{words}: {error:?}");
        assert!(error.message.contains(words), "{words:?} is not in {error:?}");
        stage.is_well().await;
    }
}

#[tokio::test]
async fn whoever_breaks_the_contract_is_ended_and_nobody_else() {
    let twice = [frame(Kind::Reply, 1, b"\xc0"), frame(Kind::Reply, 1, b"\xc0")].concat();
    let cut = [&hello()[..], &frame(Kind::Reply, 1, &[0; 100])[..60]].concat();
    let call = |id, payload: &[u8]| frame(Kind::HostCall, id, payload);
    let mut flood = Vec::new();
    for _ in 0..5 {
        flood.extend(frame(Kind::StreamData, 1, &[0xc0; 20 << 10]));
    }
    let cases: [(&str, Vec<u8>, &str); 13] = [
        ("call", vec![0xff; 32], "a frame of"),
        (
            "call",
            vec![4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xc1, 0, 0, 0],
            "a frame that cannot be read",
        ),
        ("call", hello(), "a second hello"),
        ("call", cut, "a second hello"),
        ("call", error(0, "too late"), "an error of the load after its end"),
        ("call", frame(Kind::Reply, 77, b"\xc0"), "an answer to call 77, which is not under way"),
        ("call", frame(Kind::Error, 1, b"\xc1"), "an error that cannot be read"),
        ("call", frame(Kind::Log, 1, b"\xc1"), "a line that cannot be read"),
        ("call", frame(Kind::Shutdown, 0, b""), "a message of kind Shutdown, which no worker sends"),
        ("call", call(5, b"\x92\xa1a\xa1b"), "a call with the id 5, which is not free"),
        ("call", call(FROM_GUEST, b"\xc1"), "a call without a target"),
        ("call", frame(Kind::StreamAck, 1, b"\xc1"), "an acknowledgement that cannot be read"),
        ("call", twice, "an answer to call 1, which is not under way"),
    ];
    for (method, rest, words) in cases {
        let (stage, loaded) = Stage::new(&hello(), &rest).await;
        loaded.expect(words);
        let done = stage.perform(method).await;
        // The first of two answers counts.
        let error = match done {
            Err(error) => error,
            Ok(_) => {
                let last = || stage.host.status("a.worker").unwrap().last_error;
                while last().is_none() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                last().expect(words).error
            }
        };
        assert_ended(&error, words);
        stage.is_well().await;
    }
    // The first of the two calls is to a method that does not answer.
    let mut first = Envelope::new(Kind::HostCall, FROM_GUEST, b"\x90".to_vec());
    let extension = "a.worker".parse().unwrap();
    first.target = Some(Arc::new(Target { extension, method: "call".into() }));
    let rest = [bytes(&first.into()), call(FROM_GUEST, b"\x92\xa1a\xa1b")].concat();
    let (stage, loaded) = Stage::asking("[permissions]\ncall = ['*']", &hello(), &rest).await;
    loaded.unwrap();
    assert_ended(&stage.perform("call").await.unwrap_err(), "which is not free");
    stage.is_well().await;
    // Nobody reads the stream, so that it is full.
    let (stage, loaded) = Stage::new(&hello(), &flood).await;
    loaded.unwrap();
    let mut items =
        stage.host.stream("a.worker", "stream", Bytes::from_static(b"\x90"), CallOptions::default());
    fs::write(stage.folder.path().join("worker.go"), "").unwrap();
    while stage.host.status("a.worker").unwrap().usage.instances > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let end = loop {
        match items.next().await.unwrap() {
            Ok(item) => assert_eq!(item.len(), 20 << 10),
            Err(error) => break error,
        }
    };
    assert_ended(&end, "of a stream with");
    stage.is_well().await;
}

/// Calls by a guest that may call nothing, for a call that is not under way, with a name that is none.
#[tokio::test]
async fn calls_of_a_worker_go_through_its_grant() {
    let mut call = Frame::new(Kind::HostCall, FROM_GUEST | 7, b"\x92\xa1a\xa1b".to_vec());
    (call.flags, call.parent) = (INPUT, 99);
    let rest = [bytes(&call), frame(Kind::Reply, 1, b"\xc0")].concat();
    let (stage, loaded) = Stage::new(&hello(), &rest).await;
    loaded.unwrap();
    stage.perform("call").await.unwrap();
    assert_eq!(stage.host.status("a.other").unwrap().metrics.calls, 0);
    stage.is_well().await;
}

#[tokio::test]
async fn who_asks_is_told_that_a_worker_has_ended_and_why() {
    let (stage, loaded) = Stage::new(&hello(), &[0xff; 32]).await;
    loaded.unwrap();
    let instance = stage.kept.lock().clone().unwrap();
    let mut ended = instance.ended().unwrap();
    let soon = tokio::time::timeout(Duration::from_millis(50), &mut ended).await;
    assert!(soon.is_err(), "it has ended: {soon:?}");
    let error = stage.perform("call").await.unwrap_err();
    let why = tokio::time::timeout(Duration::from_secs(10), ended).await.unwrap();
    assert_ended(&why, "a frame of");
    assert_eq!(why.message, error.message, "what calls fail with");
    // Also who asks late.
    assert_eq!(instance.ended().unwrap().await, why);
    stage.is_well().await;
}

#[tokio::test]
async fn a_hello_that_never_ends_fails_the_load_in_time() {
    let begin = &hello()[..20];
    let (stage, loaded) = Stage::asking("[limits]\nload-timeout = '300ms'", begin, &[]).await;
    let error = loaded.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
    assert!(error.message.contains("did not load"), "{error:?}");
    stage.is_well().await;
}
