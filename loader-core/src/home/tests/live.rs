//! What runs changes with the home.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use quadriga_abi::{Bytes, Description, Isolation, Method, RuntimeKind, codec};

use super::*;
use crate::home::start;
use crate::{
    BoxFuture, Bridge, Call, CallOptions, Instance, LoadOptions, Outcome, Policy, Runtime, State, Support,
    Unit, Usage,
};

const NONE: Bytes = Bytes::from_static(b"\x90");

/// A runtime whose guests count. What a guest does wrong is in its version: `2.0.0-mute` is mute.
#[derive(Clone, Default)]
struct Counting {
    /// Calls that came to an instance that had been shut down.
    late: Arc<AtomicU64>,
    /// Instances that were not shut down.
    alive: Arc<AtomicU64>,
}

struct Counter {
    description: Description,
    bridge: Bridge,
    version: String,
    count: Arc<AtomicU64>,
    stopped: AtomicBool,
    of: Counting,
}

impl Runtime for Counting {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("mock")
    }

    fn support(&self) -> Support {
        Support { isolation: Isolation::InProcess, limits: &[], permissions: &["kv"] }
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        let version = unit.manifest.extension.version.0.to_string();
        Box::pin(async move {
            if version.ends_with("-broken") {
                return Err(Error::new(ErrorCode::LoadFailed, "it is broken"));
            }
            let methods = ["add", "later", "version", "ask", "setting", "agree", "snapshot", "restore"];
            let description = Description::new("mock", methods.map(Method::named).to_vec());
            self.alive.fetch_add(1, SeqCst);
            let (count, stopped, of) = (Arc::default(), AtomicBool::new(false), self.clone());
            let counter: Arc<dyn Instance> =
                Arc::new(Counter { description, bridge, version, count, stopped, of });
            Ok(counter)
        })
    }
}

impl Counter {
    fn answer(&self, call: &Call) -> Result<Bytes, Error> {
        Ok(match call.method {
            0 => encoded(&(self.version.clone(), self.count.fetch_add(1, SeqCst) + 1)),
            2 => encoded(&self.version.clone()),
            4 => {
                let all: serde_json::Value = codec::from_bytes(&self.bridge.config()).unwrap();
                encoded(&all["a"].as_u64())
            }
            5 if self.version.ends_with("-stubborn") => {
                return Err(Error::new(ErrorCode::ExtensionError, "no"));
            }
            5 => encoded(&()),
            6 => encoded(&self.count.load(SeqCst)),
            7 => {
                let (count,): (u64,) = codec::from_arguments(&call.envelope.payload).unwrap();
                match self.version.split_once('-').map(|(_, flaw)| flaw) {
                    Some("forgetful") => return Err(Error::new(ErrorCode::ExtensionError, "it forgot")),
                    Some("fragile") => return Err(Error::new(ErrorCode::ExtensionCrashed, "it crashed")),
                    _ => self.count.store(count, SeqCst),
                }
                encoded(&())
            }
            method => panic!("{method}"),
        })
    }
}

fn encoded(value: &impl serde::Serialize) -> Bytes {
    codec::to_bytes(value).unwrap().into()
}

impl Instance for Counter {
    fn describe(&self) -> &Description {
        &self.description
    }

    fn call(&self, call: Call) -> Outcome {
        if self.stopped.load(SeqCst) {
            self.of.late.fetch_add(1, SeqCst);
        }
        match call.method {
            1 => {
                let (count, version) = (Arc::clone(&self.count), self.version.clone());
                Outcome::Pending(Box::pin(async move {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    Ok(encoded(&(version, count.fetch_add(1, SeqCst) + 1)))
                }))
            }
            3 => self.bridge.call(&call.context(), "a.b", "version", NONE),
            _ => Outcome::Ready(self.answer(&call)),
        }
    }

    fn blocks(&self) -> bool {
        true
    }

    fn interrupt(&self, _: u64) {}

    fn usage(&self) -> Usage {
        Usage::default()
    }

    fn permissions_changed(&self, _: &Permissions) -> bool {
        // It takes nothing back.
        false
    }

    fn ping(&self) -> BoxFuture<'static, Result<(), Error>> {
        let is_mute = self.version.ends_with("-mute");
        Box::pin(std::future::ready(match is_mute {
            true => Err(Error::new(ErrorCode::ExtensionCrashed, "it is mute")),
            false => Ok(()),
        }))
    }

    fn shutdown(&self) -> BoxFuture<'_, ()> {
        if !self.stopped.swap(true, SeqCst) {
            self.of.alive.fetch_sub(1, SeqCst);
        }
        Box::pin(std::future::ready(()))
    }
}

/// A home and a host that change together.
struct Place {
    folder: TempDir,
    home: Home,
    host: Dispatcher,
    runtime: Counting,
}

impl Place {
    /// With some packages in version 1.0.0, installed and enabled.
    async fn new(packages: &[(&str, &str)]) -> Self {
        let (folder, runtime) = (TempDir::new().unwrap(), Counting::default());
        let host = Dispatcher::builder().runtime(runtime.clone()).policy(Policy::default()).build().unwrap();
        let home = Home::open(folder.path().join("home")).await.unwrap().attach(&host);
        let place = Self { folder, home, host, runtime };
        for (id, more) in packages {
            install(&place.home, &place.pack(id, "1.0.0", more)).await.unwrap();
            enable(&place.home, id).await.unwrap();
        }
        place
    }

    fn pack(&self, id: &str, version: &str, more: &str) -> PathBuf {
        package(self.folder.path(), id, version, more)
    }

    async fn version(&self, id: &str) -> String {
        self.host.invoke(id, "version", &()).await.unwrap()
    }

    async fn add(&self) -> (String, u64) {
        self.host.invoke("a.b", "add", &()).await.unwrap()
    }

    /// What is loaded, each with its version.
    fn loaded(&self) -> Vec<String> {
        self.host.list().iter().map(|it| format!("{} {}", it.id, it.version)).collect()
    }
}

/// What a caller got: a version and a number.
type Answer = (String, u64);

/// Many call while versions go back and forth.
async fn switched_under_load(switches: u64, callers: usize) {
    let relay = "[permissions]\ncall = ['a.b/version']";
    let place = Arc::new(Place::new(&[("a.b", ""), ("a.relay", relay)]).await);
    place
        .home
        .grant("a.relay", &permissions(serde_json::json!({ "call": ["a.b/version"] })), ME)
        .await
        .unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let begun = Instant::now();
    let caller = |method: &'static str| {
        let (place, over) = (Arc::clone(&place), Arc::clone(&over));
        tokio::spawn(async move {
            let mut answers: Vec<Answer> = Vec::new();
            while !over.load(SeqCst) {
                let reply = place.host.call("a.b", method, NONE, CallOptions::default()).await;
                answers.push(codec::from_bytes(&reply.unwrap()).unwrap());
                tokio::task::yield_now().await;
            }
            answers
        })
    };
    let counting: Vec<_> = (0..callers).map(|at| caller(if at % 8 == 0 { "later" } else { "add" })).collect();
    // Another extension calls too.
    let relaying = {
        let (place, over) = (Arc::clone(&place), Arc::clone(&over));
        tokio::spawn(async move {
            let mut versions = Vec::new();
            while !over.load(SeqCst) {
                versions.push(place.host.invoke::<String>("a.relay", "ask", &()).await.unwrap());
                tokio::task::yield_now().await;
            }
            versions
        })
    };
    let mut seen = BTreeSet::from(["1.0.0".to_owned()]);
    for at in 0..switches {
        let now = match at % 2 {
            0 => {
                let next = format!("{}.0.0", at + 2);
                let path = place.pack("a.b", &next, "");
                let came = update(&place.home, &path).await.unwrap();
                std::fs::remove_file(path).unwrap();
                came.installed
            }
            _ => place.home.rollback("a.b", Dependents::Refuse, ME).await.unwrap().came.remove(0).installed,
        };
        let now = now.current.version.to_string();
        // Whoever calls after the switch gets the new one.
        assert_eq!(place.version("a.b").await, now);
        seen.insert(now);
    }
    over.store(true, SeqCst);
    let took = begun.elapsed();
    let mut numbers = Vec::new();
    for task in counting {
        for (version, number) in task.await.unwrap() {
            assert!(seen.contains(&version), "{version}");
            numbers.push(number);
        }
    }
    let relayed = relaying.await.unwrap();
    assert!(relayed.iter().all(|version| seen.contains(version)) && !relayed.is_empty());
    let calls = numbers.len() + relayed.len();
    // Each call counted once, in a state that went along with all versions.
    numbers.sort_unstable();
    let gap = numbers.iter().zip(1..).find(|(number, due)| **number != *due);
    assert_eq!(gap, None, "of {}", numbers.len());
    assert_eq!(place.add().await.1, numbers.len() as u64 + 1);
    assert_eq!(place.runtime.late.load(SeqCst), 0);
    assert_eq!(place.runtime.alive.load(SeqCst), 2);
    let rate = calls as f64 / took.as_secs_f64();
    eprintln!("{calls} calls in {took:.1?}, {rate:.0} per second, over {switches} switches");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_version_is_replaced_while_it_is_called() {
    switched_under_load(4, 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn slow_no_call_is_lost_in_fifty_updates_and_roll_backs() {
    switched_under_load(50, 64).await;
}

#[tokio::test]
async fn a_version_that_does_not_serve_leaves_the_one_before_it_with_its_state() {
    let place = Place::new(&[("a.b", "")]).await;
    assert_eq!(place.add().await, ("1.0.0".to_owned(), 1));
    let before = state(&place.home).await;
    let cases = [
        ("2.0.0-broken", "", ErrorCode::LoadFailed),
        ("2.0.0-mute", "", ErrorCode::ExtensionCrashed),
        ("2.0.0-stubborn", "[health]\nmethod = 'agree'", ErrorCode::ExtensionError),
        ("2.0.0-forgetful", "", ErrorCode::ExtensionError),
        ("2.0.0-fragile", "", ErrorCode::ExtensionCrashed),
        ("2.0.1", "[limits]\ncpu-time = '1s'", ErrorCode::Unsupported),
        ("2.0.2", "[hooks.h]\nmethod = 'none'", ErrorCode::InvalidManifest),
    ];
    for (at, (version, more, code)) in cases.into_iter().enumerate() {
        let path = place.pack("a.b", version, more);
        let error = update(&place.home, &path).await.unwrap_err();
        assert_eq!(error.code, code, "{version} {more}: {error}");
        assert_eq!(state(&place.home).await, before, "{version} {more}");
        nothing_else(&place.home).await;
        assert_eq!(place.add().await, ("1.0.0".to_owned(), at as u64 + 2), "{version} {more}");
        assert_eq!(place.host.status("a.b").unwrap().state, State::Running);
        // What was loaded in vain ends by itself.
        while place.runtime.alive.load(SeqCst) > 1 {
            tokio::task::yield_now().await;
        }
    }
    // A paused one stands still as before.
    place.host.pause("a.b").unwrap();
    update(&place.home, &place.pack("a.b", "2.0.3-forgetful", "")).await.unwrap_err();
    assert_eq!(place.host.status("a.b").unwrap().state, State::Paused);
    update(&place.home, &place.pack("a.b", "3.0.0", "")).await.unwrap();
    assert_eq!(place.add().await, ("3.0.0".to_owned(), 9));
    let trail = place.home.audit().await.unwrap();
    assert_eq!(trail.iter().rfind(|entry| entry.actor == ME).unwrap().action, "update");
}

#[tokio::test]
async fn what_runs_follows_each_operation() {
    let needs = |range: &str| format!("[dependencies]\n'a.p' = '{range}'");
    let asks = "[permissions]\nkv = true\n[config]\nmethod = 'agree'\n[config.schema.properties]\na = {}";
    let place = Place::new(&[("a.p", ""), ("a.c", &needs("^1")), ("a.b", asks)]).await;
    let (home, host) = (&place.home, &place.host);
    assert_eq!(place.loaded(), ["a.b 1.0.0", "a.c 1.0.0", "a.p 1.0.0"]);
    // Those that need each other come together.
    let offers =
        [("a.p", "".to_owned()), ("a.c", needs("^2"))].map(|(id, more)| place.pack(id, "2.0.0", &more));
    home.update(offers.iter().map(|path| Offer::from(open(path))), options()).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0", "a.c 2.0.0", "a.p 2.0.0"]);
    // One that does not fit those that need it takes them along.
    let three = place.pack("a.p", "3.0.0", "");
    assert_eq!(update(home, &three).await.unwrap_err().code, ErrorCode::Needed);
    let disabling = InstallOptions { dependents: Dependents::Disable, ..options() };
    home.update(offer(&three), disabling).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0", "a.p 3.0.0"]);
    home.rollback("a.p", Dependents::Refuse, ME).await.unwrap();
    enable(home, "a.c").await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0", "a.c 2.0.0", "a.p 2.0.0"]);
    home.disable("a.p", Dependents::Disable, ME).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0"]);
    home.enable("a.c", Needs::Enable, ME).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0", "a.c 2.0.0", "a.p 2.0.0"]);
    home.uninstall("a.p", Dependents::Disable, ME).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 1.0.0"]);
    // Permissions hold from the next access on; what the runtime cannot take back ends with its instance.
    let kv = permissions(serde_json::json!({ "kv": true }));
    place.add().await;
    for (granted, grant) in [(true, kv.clone()), (false, Permissions::default())] {
        match granted {
            true => home.grant("a.b", &kv, ME).await.unwrap(),
            false => home.revoke("a.b", &kv, ME).await.unwrap(),
        };
        assert_eq!(*host.permissions("a.b").unwrap(), grant);
    }
    // Settings are asked about first, and the state stays.
    let set = |a: u64| settings(serde_json::json!({ "a": a }));
    home.configure("a.b", set(1), &[], ME).await.unwrap();
    assert_eq!(host.invoke::<u64>("a.b", "setting", &()).await.unwrap(), 1);
    update(home, &place.pack("a.b", "2.0.0-stubborn", asks)).await.unwrap();
    let error = home.configure("a.b", set(2), &[], ME).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConfigRefused);
    assert_eq!(home.show("a.b").await.unwrap().config, set(1));
    assert_eq!(host.invoke::<u64>("a.b", "setting", &()).await.unwrap(), 1);
    assert_eq!(place.add().await, ("2.0.0-stubborn".to_owned(), 2));
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(place.loaded().is_empty());
    // What was loaded from elsewhere stays.
    let elsewhere = place.home.show("a.b").await.unwrap().current.folder;
    copy(&elsewhere, &place.folder.path().join("mine"));
    host.load(place.folder.path().join("mine"), LoadOptions::default()).await.unwrap();
    assert_eq!(enable(home, "a.b").await.unwrap_err().code, ErrorCode::AlreadyLoaded);
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(place.loaded(), ["a.b 2.0.0-stubborn"]);
    assert_eq!(place.runtime.alive.load(SeqCst), 1);
}

#[tokio::test]
async fn an_operation_goes_on_when_nobody_waits_for_it() {
    for _ in 0..20 {
        let place = Place::new(&[("a.b", "")]).await;
        place.add().await;
        let path = place.pack("a.b", "2.0.0", "");
        let after = Duration::from_micros(fastrand::u64(..20_000));
        let _ = tokio::time::timeout(after, update(&place.home, &path)).await;
        // Once it is over, both say the same.
        let now = place.home.show("a.b").await.unwrap().current.version.to_string();
        while place.version("a.b").await != now {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(place.add().await, (now, 2));
        let Place { folder, home, host, .. } = place;
        let path = home.path().to_owned();
        home.close().await;
        drop(host);
        let home = Home::open(path).await.unwrap();
        nothing_else(&home).await;
        home.close().await;
        drop(folder);
    }
}

#[tokio::test]
async fn what_is_enabled_starts_and_is_then_attached() {
    let place = Place::new(&[("a.b", "")]).await;
    let Place { folder, home, runtime, host } = place;
    host.shutdown().await;
    let path = home.path().to_owned();
    home.close().await;
    let host = Dispatcher::builder().runtime(runtime.clone()).build().unwrap();
    let home = Home::open(path).await.unwrap().attach(&host);
    assert_eq!(start(&host, &home.list().await.unwrap()).await, []);
    let place = Place { folder, home, runtime, host };
    update(&place.home, &place.pack("a.b", "2.0.0", "")).await.unwrap();
    assert_eq!(place.add().await, ("2.0.0".to_owned(), 1));
}
