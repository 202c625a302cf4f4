//! Programs that the host runs for its extensions: who may have them run, and what ends them. What
//! confines them is another crate's.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::permission::{FsMode, FsPermission, Permissions};
use quadriga_core::abi::{Error, ErrorCode, Isolation, RuntimeKind, Value, codec};
use quadriga_core::{
    BoxFuture, Bridge, CallOptions, DecisionFilter, Dispatcher, Effect, Ended, Grant, Instance, Launch,
    Launcher, LoadOptions, MockRuntime, Policy, Runtime, Subject, Support, Unit, Verdict,
};
use serde::Serialize;

use crate::common::{host, load, package, told, until, wanted};

const ASKS: &str = "[permissions]\nsubprocess = ['sh', 'sleep']\nfs = [{ path = 'data', mode = 'rw' }]";

/// Says what it was given; `sleep` goes on until it is ended.
#[derive(Clone, Default)]
struct Stub {
    given: Arc<Mutex<Option<Launch>>>,
    running: Arc<AtomicUsize>,
}

struct Runs(Arc<AtomicUsize>);

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Launcher for Stub {
    fn run(&self, launch: Launch, bridge: Bridge) -> BoxFuture<'static, Result<Ended, Error>> {
        assert_eq!(bridge.extension(), &launch.unit.manifest.extension.id);
        let sleeps = launch.program == "sleep";
        *self.given.lock().unwrap() = Some(launch);
        self.running.fetch_add(1, Ordering::SeqCst);
        let runs = Runs(Arc::clone(&self.running));
        Box::pin(async move {
            let _runs = runs;
            if sleeps {
                std::future::pending::<()>().await;
            }
            Ok(Ended { status: Some(3), signal: None, stdout: b"out".to_vec(), stderr: vec![0xff] })
        })
    }
}

/// Runs guests without a barrier to the host.
struct Trusted(MockRuntime);

impl Runtime for Trusted {
    fn kind(&self) -> RuntimeKind {
        self.0.kind()
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::None, ..self.0.support() }
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        self.0.load(unit, bridge)
    }
}

fn with(stub: &Stub) -> Dispatcher {
    let runtime = told().mediates(&["fs"]);
    Dispatcher::builder().runtime(runtime).launcher(stub.clone()).build().unwrap()
}

async fn run(
    host: &Dispatcher,
    way: &str,
    arguments: impl Serialize,
    options: CallOptions,
) -> Result<Value, Error> {
    let arguments = wanted("quadriga.process", "run", arguments);
    let reply = host.call("a.x", way, arguments, options).await?;
    Ok(Value::from_bytes(&reply).unwrap())
}

fn map(pairs: &[(&str, Value)]) -> Value {
    Value::Map(pairs.iter().map(|(key, value)| (text(key), value.clone())).collect())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn programs(names: &[&str]) -> Permissions {
    let subprocess = names.iter().map(|name| (*name).to_owned()).collect();
    Permissions { subprocess, ..Permissions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_asked_for_is_launched() {
    let stub = Stub::default();
    let host = with(&stub);
    let package = load(&host, "a.x", ASKS, Grant::Requested).await;
    let root = package.path().canonicalize().unwrap();
    let given = || stub.given.lock().unwrap().take().unwrap();
    for way in ["call", "detached", "start"] {
        let ended = run(&host, way, ("sh",), CallOptions::default()).await.unwrap();
        let fields = [
            ("status", Value::Int(3)),
            ("signal", Value::Nil),
            ("stdout", Value::Bytes(b"out".to_vec())),
            ("stderr", Value::Bytes(vec![0xff])),
        ];
        assert_eq!(ended, map(&fields), "{way}");
    }
    let Launch { unit, isolation, program, arguments, env, folder, stdin, most } = given();
    assert_eq!((&*program, arguments.len(), env.len(), folder, stdin.len()), ("sh", 0, 0, None, 0));
    assert_eq!((isolation, most), (Isolation::Process, 16 << 20));
    assert_eq!(
        (&unit.root, &unit.permissions.subprocess[..]),
        (&root, &["sh", "sleep"].map(str::to_owned)[..])
    );

    let options = map(&[
        ("stdin", Value::Bytes(vec![1, 2])),
        ("env", map(&[("A", text("b"))])),
        ("timeout", Value::Int(20)),
        ("folder", text("data")),
    ]);
    run(&host, "call", ("sh", ["-c", "x"], options), CallOptions::default()).await.unwrap();
    let launch = given();
    assert_eq!((&launch.arguments[..], &launch.env["A"][..]), (&["-c", "x"].map(str::to_owned)[..], "b"));
    assert_eq!((&launch.stdin[..], launch.folder), (&[1, 2][..], Some(root.join("data"))));

    // What it may do at this moment, by whatever name it asks.
    assert_eq!(host.revoke("a.x", &programs(&["sleep"])).unwrap(), Effect::Now);
    let sh = quadriga_core::find_program("sh").unwrap();
    let options = map(&[("stdin", text("in")), ("env", Value::Nil)]);
    let asked = (sh.to_str().unwrap(), Value::Nil, options);
    run(&host, "call", asked, CallOptions::default()).await.unwrap();
    let launch = given();
    assert_eq!(
        (&launch.unit.permissions.subprocess[..], &launch.stdin[..]),
        (&["sh".to_owned()][..], &b"in"[..])
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused() {
    let stub = Stub::default();
    let host = with(&stub);
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let list = |items: &[Value]| Value::List(items.to_vec());
    let option = |name: &str, value| list(&[text("sh"), Value::Nil, map(&[(name, value)])]);
    let long = list(&[text(&"x".repeat(40 << 10)), text(&"x".repeat(40 << 10))]);
    let cases = [
        (list(&[]), "the program is no text"),
        (list(&[Value::Int(1)]), "the program is no text"),
        (list(&[text("")]), "\"\" is no program"),
        (list(&[text("./sh")]), "\"./sh\" is no program: it takes a plain name or an absolute path"),
        (list(&[text("/bin/../sh")]), "is no program"),
        (list(&[text("s\nh")]), "is no program"),
        (list(&[text("sh"), text("-c")]), "args: "),
        (list(&[text("sh"), list(&[Value::Int(1)])]), "args: "),
        (list(&[text("sh"), list(&[text("a\0")])]), "there is a zero byte in them"),
        (list(&[text("sh"), long]), "have at most 65536 bytes, these have 81925"),
        (list(&[text("sh"), Value::Nil, text("x")]), "options: "),
        (option("stdni", text("x")), "options: "),
        (option("stdin", Value::Int(1)), "stdin: it is neither text nor bytes"),
        (option("env", map(&[("", text("x"))])), "env: a name is empty"),
        (option("env", map(&[("A=B", text("x"))])), "env: a name is empty, or has a = in it"),
        (option("env", map(&[("A", Value::Int(1))])), "options: "),
        (option("timeout", Value::Int(0)), "timeout: it is no number of seconds above 0"),
        (option("timeout", Value::Float(f64::NAN)), "timeout: it is no number"),
        (option("folder", text("a\0")), "there is a zero byte in them"),
        (
            list(&[text("sh"), Value::Nil, Value::Nil, Value::Nil]),
            "it takes a program, its arguments and options",
        ),
        (text("sh"), "they are no list"),
    ];
    for (arguments, says) in cases {
        let wanted = codec::arguments(&("quadriga.process", "run", &arguments)).unwrap();
        let error = host.call("a.x", "call", wanted, CallOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{arguments:?}: {error:?}");
        assert!(error.message.starts_with("quadriga.process/run: the arguments: "), "{error:?}");
        assert!(error.message.contains(says), "{arguments:?}: {error:?}");
    }
    let unknown = wanted("quadriga.process", "start", ("sh",));
    let error = host.call("a.x", "call", unknown, CallOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownMethod, "{error:?}");
    assert!(stub.given.lock().unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_denied_and_both_are_on_record() {
    let stub = Stub::default();
    let host = with(&stub);
    let _x = load(&host, "a.x", ASKS, Grant::Only(Box::new(programs(&["sh"])))).await;
    for program in ["sleep", "cat", "/nowhere/sh"] {
        let error = run(&host, "call", (program,), CallOptions::default()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        assert_eq!(error.message, format!("a.x may not start {program}"));
    }
    assert!(stub.given.lock().unwrap().is_none());
    run(&host, "call", ("sh",), CallOptions::default()).await.unwrap();
    let decisions = host.decisions("a.x", &DecisionFilter::default()).unwrap();
    let told: Vec<_> = decisions.iter().map(|one| (&*one.what, one.verdict, one.claimed)).collect();
    let expected = [
        ("start sleep", Verdict::Denied, false),
        ("start cat", Verdict::Denied, false),
        ("start /nowhere/sh", Verdict::Denied, false),
        ("start sh", Verdict::Allowed, false),
    ];
    assert_eq!(told, expected);
    assert!(decisions.iter().all(|one| matches!(one.subject, Subject::Access(_)) && one.call > 0));
    assert_eq!(host.usage("a.x").unwrap().spawns, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_something_that_confines_nobody_has_programs_run() {
    let none = host(told().mediates(&["fs"]), Policy::default());
    let dir = package("a.x", ASKS);
    let options = || LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    let error = none.load(dir.path(), options()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
    assert!(error.message.contains("does not offer the permission subprocess"), "{error:?}");
    // Code that has what the host's process has is loaded all the same.
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    let none = Dispatcher::builder().runtime(Trusted(told())).policy(policy).build().unwrap();
    none.load(dir.path(), options()).await.unwrap();
    let error = run(&none, "call", ("sh",), CallOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
    assert_eq!(error.message, "this host runs no programs for extensions: it has nothing that confines them");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_with_what_it_was_allowed_by() {
    let stub = Stub::default();
    let host = with(&stub);
    let running = async |count| until(|| async { stub.running.load(Ordering::SeqCst) == count }).await;
    let sleep = |timeout: Option<f64>, options: CallOptions| {
        let host = host.clone();
        let options_of = timeout.map(|seconds| map(&[("timeout", Value::Float(seconds))]));
        tokio::spawn(async move { run(&host, "call", ("sleep", Value::Nil, options_of), options).await })
    };
    let forever = || sleep(None, CallOptions::default());
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;

    let late = sleep(Some(0.02), CallOptions::default()).await.unwrap().unwrap_err();
    assert_eq!(late.code, ErrorCode::DeadlineExceeded, "{late:?}");
    assert_eq!(late.message, "sleep did not end within its timeout");
    let options = CallOptions::default().timeout(Duration::from_millis(20));
    let late = sleep(None, options).await.unwrap().unwrap_err();
    assert_eq!(late.code, ErrorCode::DeadlineExceeded, "{late:?}");
    let given_up = forever();
    running(1).await;
    given_up.abort();
    running(0).await;

    let data = FsPermission { path: "data".to_owned(), mode: FsMode::ReadWrite };
    let data = Permissions { fs: vec![data], ..Permissions::default() };
    // Each takes something back that the program could do.
    let revoked = [programs(&["sleep"]), programs(&["sh"]), data.clone()];
    for gone in &revoked {
        let ended = forever();
        running(1).await;
        let _ = host.revoke("a.x", gone).unwrap();
        let error = ended.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        let says = "the program was ended: the extension may no longer do all that it could";
        assert_eq!(error.message, says);
        running(0).await;
        let _ = host.grant("a.x", gone).unwrap();
    }
    let goes_on = forever();
    running(1).await;
    let _ = host.revoke("a.x", &Permissions { kv: true, ..Permissions::default() }).unwrap();
    let _ = host.grant("a.x", &data).unwrap();
    assert!(!goes_on.is_finished());
    let _ = host.quarantine("a.x", "for a test");
    assert_eq!(goes_on.await.unwrap().unwrap_err().code, ErrorCode::PermissionDenied);
    running(0).await;

    host.unload("a.x").await.unwrap();
    let policy = Policy { drain_timeout: Duration::from_millis(20), ..Policy::default() };
    let runtime = told().mediates(&["fs"]);
    let host = Dispatcher::builder().runtime(runtime).launcher(stub.clone()).policy(policy).build().unwrap();
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let stopped = tokio::spawn({
        let host = host.clone();
        async move { run(&host, "call", ("sleep",), CallOptions::default()).await }
    });
    running(1).await;
    host.unload("a.x").await.unwrap();
    let error = stopped.await.unwrap().unwrap_err();
    assert!([ErrorCode::ExtensionStopped, ErrorCode::Cancelled].contains(&error.code), "{error:?}");
    running(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn few_run_at_once() {
    let stub = Stub::default();
    let host = with(&stub);
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let sleeping: Vec<_> = (0..8)
        .map(|_| {
            let host = host.clone();
            tokio::spawn(async move { run(&host, "detached", ("sleep",), CallOptions::default()).await })
        })
        .collect();
    until(|| async { stub.running.load(Ordering::SeqCst) == 8 }).await;
    let error = run(&host, "call", ("sh",), CallOptions::default()).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Overloaded, "a.x runs 8 programs already"));
    sleeping.iter().for_each(|one| one.abort());
    until(|| async { stub.running.load(Ordering::SeqCst) == 0 }).await;
    run(&host, "call", ("sh",), CallOptions::default()).await.unwrap();
}
