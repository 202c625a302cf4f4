//! Every limit in every runtime, in the host's process and in one of its own: it bites, from the load
//! on and when it is lowered at run time, or the load is refused by its name.

mod cases;

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quadriga::abi::limits::{Limit, Limits};
use quadriga::abi::{Bytes, Error, ErrorCode, Isolation, RuntimeKind, codec};
use quadriga::{
    Action, BoxFuture, Bridge, CallOptions, Dispatcher, Instance, LoadOptions, MockRuntime, Policy, Recovery,
    Runtime, Supervision, Support, TotalMemory, Unit,
};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

use cases::Case;

const NONE: Bytes = Bytes::from_static(b"\x90");

/// How long what is quick may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);

/// One runtime of a host, so that nothing else takes what it refuses.
struct Alone {
    host: Dispatcher,
    kind: RuntimeKind,
    isolation: Isolation,
}

impl Alone {
    fn runtime(&self) -> &dyn Runtime {
        let mut all = self.host.runtimes().into_iter();
        all.find(|one| one.kind() == self.kind && one.support().isolation == self.isolation).unwrap()
    }
}

impl Runtime for Alone {
    fn kind(&self) -> RuntimeKind {
        self.kind.clone()
    }

    fn support(&self) -> Support {
        self.runtime().support()
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        self.runtime().load(unit, bridge)
    }
}

/// A guest of one language at one level, and somebody beside it.
struct Place {
    host: Dispatcher,
    language: &'static str,
    isolation: Isolation,
    id: String,
    beside: TempDir,
}

impl Place {
    async fn new(language: &'static str, isolation: Isolation) -> Self {
        let kind = match language {
            "js" => "javascript",
            "wasm" => "webassembly",
            language => language,
        };
        let alone = Alone { host: host(), kind: RuntimeKind::new(kind), isolation };
        let beside = MockRuntime::new().echo("echo").method("ask", |bridge, call| {
            let (extension, method): (String, String) = codec::from_bytes(&call.envelope.payload).unwrap();
            bridge.call(&call.context(), &extension, &method, NONE)
        });
        let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
        let host = Dispatcher::builder().runtime(alone).runtime(beside).policy(policy).build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let manifest = "[extension]\nid = 'test.beside'\nversion = '1.0.0'\n\
                        [runtime]\nkind = 'mock'\nentry = 'main'\n[permissions]\ncall = ['*']";
        fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
        fs::write(folder.path().join("main"), "").unwrap();
        host.load(folder.path(), granted()).await.unwrap();
        Self { host, language, isolation, id: format!("hostile.{language}"), beside: folder }
    }

    fn is_process(&self) -> bool {
        self.isolation >= Isolation::Process
    }

    /// Whether this runtime says that it keeps to a limit, or the dispatcher does.
    fn keeps(&self, limit: Limit) -> bool {
        let ours = [Limit::LoadTimeout, Limit::MessageSize, Limit::QueueDepth, Limit::CallDepth];
        let runtimes = self.host.runtimes();
        let theirs = runtimes.iter().find(|runtime| runtime.kind().as_str() != "mock").unwrap().support();
        ours.contains(&limit) || theirs.limits.contains(&limit)
    }

    /// Whether its engine is told this when it starts, and not again.
    fn has_fixed(&self, limit: Limit) -> bool {
        let quickjs = cfg!(feature = "js-quickjs") && self.language == "js" && !self.is_process();
        quickjs && limit == Limit::Memory
    }

    /// One that the guest may read.
    fn some_file(&self) -> String {
        match self.language {
            "wasm" => self.beside.path().join("main").display().to_string(),
            _ => "/dev/null".to_owned(),
        }
    }

    async fn load(&self, limits: &str) -> Result<(), Error> {
        // A component has no files but those that were granted.
        let files = match self.language {
            "wasm" => format!("[permissions]\nfs = [{{ path = {:?}, mode = 'ro' }}]", self.beside.path()),
            _ => String::new(),
        };
        let package = with(&guest("hostile", self.language), &format!("[limits]\n{limits}\n{files}"));
        let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
        let options = LoadOptions { supervision: Some(supervision), ..granted() };
        self.host.load(package.path(), options).await.map(drop)
    }

    async fn call(&self, method: &str, arguments: Bytes, timeout: Duration) -> Result<Bytes, Error> {
        let options = CallOptions::default().timeout(timeout).detached();
        self.host.call(&self.id, method, arguments, options).await
    }

    /// Everybody else goes on, and so does the guest itself, or the one that is loaded next.
    async fn is_well(&self, after: &str) {
        let reply = self.host.call("test.beside", "echo", NONE, CallOptions::default()).await;
        assert_eq!(reply.unwrap(), NONE, "{after}");
        let mut pong = self.call("ping", NONE, PATIENCE).await;
        if pong.is_err() {
            self.host.unload(&self.id).await.unwrap();
            self.load("").await.unwrap_or_else(|error| panic!("{after}: {error:?}"));
            pong = self.call("ping", NONE, PATIENCE).await;
        }
        assert_eq!(codec::from_bytes::<String>(&pong.unwrap()).unwrap(), "pong", "{after}");
        self.host.unload(&self.id).await.unwrap();
    }
}

/// The limits that each runtime keeps to beside those of the dispatcher. In a process of their own
/// it is all of them, as far as there are cgroups.
fn in_the_hosts_process(language: &str) -> &'static [Limit] {
    match language {
        "js" | "wasm" => &[Limit::Memory, Limit::CpuTime, Limit::CallTimeout, Limit::OutputRate],
        "python" => &[Limit::CpuTime, Limit::CallTimeout],
        _ => &[],
    }
}

async fn kept_or_refused(language: &'static str, isolation: Isolation) {
    let place = Place::new(language, isolation).await;
    let ours = [Limit::LoadTimeout, Limit::MessageSize, Limit::QueueDepth, Limit::CallDepth];
    let by_cgroup = [Limit::Memory, Limit::CpuShare, Limit::Processes];
    for limit in Limit::ALL {
        let what = format!("{} of {language} at {isolation}", limit.name());
        let kept = match place.is_process() {
            true => place.keeps(limit) || !by_cgroup.contains(&limit),
            false => ours.contains(&limit) || in_the_hosts_process(language).contains(&limit),
        };
        let loaded = place.load(&cases::wide(limit)).await;
        if kept {
            loaded.unwrap_or_else(|error| panic!("{what}: {error:?}"));
            place.is_well(&what).await;
            continue;
        }
        let error = loaded.expect_err(&what);
        assert_eq!(error.code, ErrorCode::Unsupported, "{what}: {error:?}");
        let words = format!("cannot enforce the limit {}", limit.name());
        assert!(error.message.contains(&words), "{what}: {error:?}");
    }
}

/// A limit that is kept is seen to bite.
async fn bites(language: &'static str, isolation: Isolation, limit: Limit, at_run_time: bool) {
    let place = Place::new(language, isolation).await;
    let when = if at_run_time { "lowered" } else { "loaded" };
    let what = format!("{} of {language} at {isolation}, {when}", limit.name());
    if !place.keeps(limit) {
        return;
    }
    let Case { tight, sight } = cases::case(limit, &place);
    if limit == Limit::LoadTimeout {
        if !at_run_time {
            let error = place.load(&tight).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{what}: {error:?}");
        }
        return;
    }
    place.load(&if at_run_time { cases::wide(limit) } else { tight.clone() }).await.unwrap();
    if at_run_time {
        let limits: Limits = serde_json::from_value(cases::json(&tight)).unwrap();
        match place.host.set_limits(&place.id, &limits) {
            // What a process or an engine is told when it starts.
            Err(error) if [Limit::OpenFiles, Limit::Disk].contains(&limit) || place.has_fixed(limit) => {
                assert_eq!(error.code, ErrorCode::Unsupported, "{what}: {error:?}");
                assert!(error.message.contains(limit.name()), "{what}: {error:?}");
                return place.is_well(&what).await;
            }
            changed => changed.unwrap_or_else(|error| panic!("{what}: {error:?}")),
        }
        assert!(place.host.limits(&place.id).unwrap().declared().any(|(set, _)| set == limit));
    }
    sight.check(&place, &what).await;
    place.is_well(&what).await;
}

macro_rules! suites {
    ($($name:ident: $language:literal, $isolation:ident;)*) => {
        $(
            mod $name {
                use super::*;

                #[tokio::test(flavor = "multi_thread")]
                async fn slow_every_limit_is_kept_or_refused_by_its_name() {
                    kept_or_refused($language, Isolation::$isolation).await;
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn slow_every_limit_bites() {
                    for limit in Limit::ALL {
                        bites($language, Isolation::$isolation, limit, false).await;
                    }
                }

                #[tokio::test(flavor = "multi_thread")]
                async fn slow_every_limit_that_is_lowered_bites() {
                    for limit in Limit::ALL {
                        bites($language, Isolation::$isolation, limit, true).await;
                    }
                }
            }
        )*
    };
}

suites! {
    js: "js", InProcess;
    python: "python", None;
    wasm: "wasm", InProcess;
    native: "native", None;
    js_in_a_process: "js", Process;
    python_in_a_process: "python", Process;
    wasm_in_a_process: "wasm", Process;
    native_in_a_process: "native", Process;
}

/// Who waits uses no processor time, however long that is.
#[tokio::test(flavor = "multi_thread")]
async fn slow_waiting_is_not_charged() {
    for (language, isolation) in [
        ("js", Isolation::InProcess),
        ("python", Isolation::None),
        ("python", Isolation::Process),
        ("native", Isolation::Process),
    ] {
        let place = Place::new(language, isolation).await;
        place.load("cpu-time = '100ms'").await.unwrap();
        let error = place.call("never_reply", NONE, Duration::from_millis(800)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{language} at {isolation}: {error:?}");
    }
}

/// What no limit of its own keeps from growing is kept by the limit of all.
#[tokio::test(flavor = "multi_thread")]
async fn workers_are_held_to_the_memory_of_all() {
    if !Place::new("python", Isolation::Process).await.keeps(Limit::Memory) {
        return;
    }
    let total_memory = Some(TotalMemory { most: 256 << 20, action: Action::None });
    let policy = Policy { minimum_isolation: Isolation::None, total_memory, ..Policy::default() };
    let host = quadriga::builder().policy(policy).build().unwrap();
    host.load(guest("relay", "js"), granted()).await.unwrap();
    let supervision = Supervision { recovery: Recovery::Disable, ..Supervision::default() };
    let isolation = Some(Isolation::Process);
    let options = LoadOptions { isolation, supervision: Some(supervision), ..granted() };
    host.load(guest("hostile", "python"), options).await.unwrap();
    let error = host.invoke::<String>("hostile.python", "grow_heap", &(1024,)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
    let sum: i64 = host.invoke("relay.js", "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5);
}

/// What a host asks of the dispatcher while extensions are busy.
#[tokio::test(flavor = "multi_thread")]
async fn usage_and_limits_are_told_at_once() {
    for (language, isolation) in [
        ("js", Isolation::InProcess),
        ("wasm", Isolation::InProcess),
        ("python", Isolation::None),
        ("native", Isolation::None),
        ("python", Isolation::Process),
    ] {
        let place = Place::new(language, isolation).await;
        place.load("queue-depth = 100").await.unwrap();
        place.call("ping", NONE, PATIENCE).await.unwrap();
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..200 {
            let begun = Instant::now();
            place.host.limits(&place.id).unwrap();
            took[0].push(begun.elapsed());
            let begun = Instant::now();
            place.host.usage(&place.id).unwrap();
            took[1].push(begun.elapsed());
        }
        let [limits, usage] = took.map(|mut times| {
            times.sort_unstable();
            times[times.len() / 2]
        });
        eprintln!("{language} at {isolation}: limits {limits:?}, usage {usage:?}");
        assert!(limits < Duration::from_millis(10) && usage < Duration::from_millis(10));
    }
}
