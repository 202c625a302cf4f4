//! Extensions with several worker processes, and workers that are replaced while they serve.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use quadriga::abi::limits::Limits;
use quadriga::abi::{ErrorCode, Isolation};
use quadriga::{CallOptions, Dispatcher, LoadOptions, Recycle, State};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

use crate::workers::{NONE, kill, wait_until, workers};
use crate::zygotes::python;

/// An extension that says in which of its workers it runs.
const CODE: &str = r"
import os
import random
import time
from collections.abc import Iterator

NAME = random.random()
kept = []
state = 0


def name(seconds: float) -> float:
    time.sleep(seconds)
    return NAME


def pid(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


def spin() -> None:
    while True:
        pass


def names() -> Iterator[float]:
    for _ in range(20_000):
        yield NAME


def keep(mebibytes: int) -> int:
    kept.append(os.urandom(1024) * (1024 * mebibytes))
    return len(kept)


def put(value: int) -> None:
    global state
    state = value


def get(seconds: float) -> list[float]:
    time.sleep(seconds)
    return [NAME, state]


def snapshot() -> int:
    return state


def restore(value: int) -> None:
    global state
    state = value + 100
";

const ID: &str = "test.team";

/// The extension, with so many workers.
fn package(workers: usize, more: &str) -> TempDir {
    let package = with(python(ID, CODE).path(), more);
    let manifest = package.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("[runtime]", &format!("[runtime]\nconcurrency = {workers}"));
    std::fs::write(&manifest, text).unwrap();
    package
}

fn at(isolation: Isolation) -> LoadOptions {
    LoadOptions { isolation: Some(isolation), ..granted() }
}

/// A host with the extension, and its folder.
async fn team(workers: usize, isolation: Isolation) -> (Dispatcher, TempDir) {
    let (host, package) = (host(), package(workers, ""));
    host.load(package.path(), at(isolation)).await.unwrap();
    (host, package)
}

/// So many calls at once, each of which takes that long.
async fn at_once(host: &Dispatcher, calls: usize, method: &'static str, seconds: f64) -> Vec<f64> {
    let call = |_| {
        let host = host.clone();
        tokio::spawn(async move { host.invoke::<f64>(ID, method, &(seconds,)).await.unwrap() })
    };
    let calls: Vec<_> = (0..calls).map(call).collect();
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap());
    }
    answers
}

fn name(item: &[u8]) -> f64 {
    rmp_serde::from_slice(item).unwrap()
}

/// How many are different.
fn kinds(answers: &[f64]) -> usize {
    answers.iter().map(|answer| answer.to_bits()).collect::<HashSet<_>>().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_has_as_many_workers_as_its_manifest_says() {
    for isolation in [Isolation::Process, Isolation::Container] {
        let (host, _package) = team(3, isolation).await;
        let status = host.status(ID).unwrap();
        assert_eq!(status.usage.instances, 3);
        assert!(status.usage.memory.unwrap() > 0);
        let answers = at_once(&host, 3, "name", 0.5).await;
        assert_eq!(kinds(&answers), 3, "each call goes to the worker with the least to do");
        let answers = at_once(&host, 9, "name", 0.5).await;
        assert_eq!(kinds(&answers), 3);
        host.unload(ID).await.unwrap();
        assert!(workers(std::process::id()).is_empty());
    }
    // The others run several calls at a time as they are.
    let host = host();
    let wasm = guest("relay", "wasm");
    let wasm = with(&wasm, "[limits]\nload-timeout = '60s'");
    let manifest = wasm.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("[runtime]", "[runtime]\nconcurrency = 3")).unwrap();
    host.load(wasm.path(), at(Isolation::Process)).await.unwrap();
    assert_eq!(host.status("relay.wasm").unwrap().usage.instances, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_and_deadlines_reach_each_of_several_workers() {
    let (host, _package) = team(3, Isolation::Process).await;
    // Each is more than a window, so none ends before all have begun.
    let mut streams: Vec<_> =
        (0..3).map(|_| host.stream(ID, "names", NONE, CallOptions::default())).collect();
    let mut all = Vec::new();
    for items in &mut streams {
        all.push(name(&items.next().await.unwrap().unwrap()));
    }
    assert_eq!(kinds(&all), 3);
    for (mut items, first) in streams.into_iter().zip(all) {
        let mut names = vec![first];
        while let Some(item) = items.next().await {
            names.push(name(&item.unwrap()));
        }
        assert_eq!((names.len(), kinds(&names)), (20_000, 1), "a stream comes from one worker");
    }
    let before: HashSet<u32> = workers(std::process::id()).into_iter().collect();
    let spin = |_| {
        let host = host.clone();
        let options = CallOptions::default().timeout(Duration::from_millis(300));
        tokio::spawn(async move { host.call(ID, "spin", NONE, options).await.unwrap_err() })
    };
    for call in (0..3).map(spin).collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().code, ErrorCode::DeadlineExceeded);
    }
    // A worker that has not ended what was given up has more to do than one that has.
    let until = Instant::now() + Duration::from_secs(20);
    while kinds(&at_once(&host, 3, "name", 0.3).await) < 3 {
        assert!(Instant::now() < until, "some worker takes no more calls");
    }
    assert_eq!(workers(std::process::id()).into_iter().collect::<HashSet<_>>(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_several_workers_that_ends_is_replaced_and_the_others_go_on() {
    let (host, _package) = team(3, Isolation::Process).await;
    let generation = host.status(ID).unwrap().generation;
    let pids = at_once(&host, 3, "pid", 0.3).await;
    let calls = pids.iter().map(|_| {
        let host = host.clone();
        tokio::spawn(async move { host.invoke::<f64>(ID, "pid", &(2.0,)).await })
    });
    let calls: Vec<_> = calls.collect();
    wait_until("the calls", || host.status(ID).unwrap().metrics.in_flight == 3);
    kill(pids[1] as u32);
    // There is always somebody who takes calls.
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let status = host.status(ID).unwrap();
        assert_eq!(status.state, State::Running);
        let answer = host.invoke::<f64>(ID, "name", &(0.0,)).await;
        // Only who was sent to it before its end was seen shares that.
        assert!(answer.is_ok() || status.last_error.is_none(), "{answer:?}");
        if status.generation > generation {
            assert_eq!((status.restarts, status.usage.instances), (1, 3));
            assert!(status.last_error.unwrap().error.message.contains("SIGKILL"));
            break;
        }
        assert!(Instant::now() < until, "no other was started");
    }
    let mut ended = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Ok(pid) => ended.push(pid),
            Err(error) => assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}"),
        }
    }
    ended.sort_unstable_by(f64::total_cmp);
    let mut others = vec![pids[0], pids[2]];
    others.sort_unstable_by(f64::total_cmp);
    assert_eq!(ended, others, "their calls were finished");
    let now = at_once(&host, 3, "pid", 0.3).await;
    assert!(now.iter().all(|pid| !pids.contains(pid)), "{now:?} and before {pids:?}");
    wait_until("the end of the others", || workers(std::process::id()).len() == 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_permissions_and_state_are_those_of_all_workers() {
    let folder = tempfile::tempdir().unwrap();
    let request = format!("[permissions]\nfs = [{{ path = '{}', mode = 'ro' }}]", folder.path().display());
    let host = host();
    let package = package(2, "");
    let manifest = package.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("[permissions]", &request) + "\n[limits]\nmemory = '512MiB'\n";
    std::fs::write(&manifest, text).unwrap();
    host.load(package.path(), at(Isolation::Process)).await.unwrap();
    // The state is that of the worker that is asked; `restore` is for all.
    host.invoke::<()>(ID, "put", &(7,)).await.unwrap();
    let states = async || {
        let get = |_| {
            let host = host.clone();
            tokio::spawn(async move { host.invoke::<(f64, f64)>(ID, "get", &(0.3,)).await.unwrap() })
        };
        let (mut names, mut states) = (Vec::new(), Vec::new());
        for call in (0..2).map(get).collect::<Vec<_>>() {
            let (name, state) = call.await.unwrap();
            names.push(name);
            states.push(state);
        }
        assert_eq!(kinds(&names), 2);
        states.sort_unstable_by(f64::total_cmp);
        states
    };
    assert_eq!(states().await, [0.0, 7.0]);
    host.reload(ID).await.unwrap();
    let restored = states().await;
    assert!(restored == [100.0, 100.0] || restored == [107.0, 107.0], "{restored:?}");
    // One limit for both.
    let limits: Limits = serde_json::from_str(r#"{"memory": "16MiB"}"#).unwrap();
    let keep = async || host.invoke::<u64>(ID, "keep", &(100,)).await;
    keep().await.unwrap();
    host.set_limits(ID, &limits).unwrap_or(());
    let before: HashSet<u32> = workers(std::process::id()).into_iter().collect();
    let all = host.permissions(ID).unwrap();
    assert_eq!(host.revoke(ID, &all).unwrap(), quadriga::Effect::Now);
    wait_until("two others", || {
        let now = workers(std::process::id());
        now.len() == 2 && now.iter().all(|pid| !before.contains(pid))
    });
}

/// What an extension exports may not depend on who is asked.
#[tokio::test(flavor = "multi_thread")]
async fn workers_that_differ_are_not_loaded() {
    let host = host();
    let package = package(2, "");
    let code = "
import os

try:
    os.mkdir(os.path.expanduser('~/first'))

    def first() -> None: ...
except FileExistsError:

    def second() -> None: ...
";
    std::fs::write(package.path().join("main.py"), code).unwrap();
    let error = host.load(package.path(), at(Isolation::Process)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ProtocolViolation, "{error:?}");
    assert!(error.message.contains("do not export the same methods"), "{error:?}");
    wait_until("their end", || workers(std::process::id()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_workers_are_replaced_after_so_many_calls_and_none_is_lost() {
    for workers_of_it in [1, 2] {
        let host = host();
        let recycle = Some(Recycle { calls: Some(20), memory: None });
        let options = LoadOptions { recycle, ..at(Isolation::Process) };
        let package = package(workers_of_it, "");
        host.load(package.path(), options).await.unwrap();
        let first = host.status(ID).unwrap().generation;
        let slow = {
            let host = host.clone();
            tokio::spawn(async move { host.invoke::<f64>(ID, "name", &(3.0,)).await })
        };
        let until = Instant::now() + Duration::from_secs(20);
        let mut calls = 0;
        while host.status(ID).unwrap().generation < first + 3 {
            at_once(&host, 4, "name", 0.002).await;
            calls += 4;
            assert!(Instant::now() < until, "{calls} calls, and it has not been replaced three times");
        }
        assert!(calls >= 60, "{calls}");
        slow.await.unwrap().unwrap();
        let status = host.status(ID).unwrap();
        assert_eq!((status.restarts, status.metrics.errors), (0, 0));
        // Who is left alone is not replaced.
        wait_until("the end of the earlier ones", || workers(std::process::id()).len() == workers_of_it);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_keeps_much_memory_is_replaced() {
    let host = host();
    let recycle = Some(Recycle { calls: None, memory: Some(128 << 20) });
    let package = package(1, "");
    host.load(package.path(), LoadOptions { recycle, ..at(Isolation::Process) }).await.unwrap();
    let first = host.status(ID).unwrap().generation;
    assert_eq!(host.invoke::<u64>(ID, "keep", &(1,)).await.unwrap(), 1);
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(host.status(ID).unwrap().generation, first, "it keeps little");
    assert_eq!(host.invoke::<u64>(ID, "keep", &(150,)).await.unwrap(), 2);
    wait_until("a fresh one", || host.status(ID).unwrap().generation > first);
    assert_eq!(host.invoke::<u64>(ID, "keep", &(1,)).await.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shares_a_process_is_not_replaced() {
    let recycle = Some(Recycle { calls: Some(1), memory: None });
    let error = host().load(guest("relay", "js"), LoadOptions { recycle, ..granted() }).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
}
