//! The processes that workers are forked from: what they hold, what they hand on, and how they end.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use quadriga::abi::{ErrorCode, Isolation, Value};
use quadriga::{LoadOptions, State};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

use crate::workers::{begin, children, host_with, is_spare, kill, wait_until, worker_of, workers};

/// The extension of a test in Python, with this code.
pub(crate) fn python(id: &str, code: &str) -> TempDir {
    let package = with(&guest("relay", "python"), "");
    let manifest = package.path().join("quadriga.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    fs::write(&manifest, text.replace("relay.python", id)).unwrap();
    fs::write(package.path().join("main.py"), code).unwrap();
    package
}

fn in_process() -> LoadOptions {
    LoadOptions { isolation: Some(Isolation::Process), ..granted() }
}

/// What the kernel says of a process, such as its parent (`PPid`).
fn status(pid: u32, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    value.unwrap().trim().to_owned()
}

fn parent(pid: u32) -> u32 {
    status(pid, "PPid").parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_zygote_has_one_thread_and_holds_nothing_of_its_workers() {
    for language in ["js", "python", "wasm", "native"] {
        let (host, id) = host_with("relay", language).await;
        let worker = worker_of(&host, &id);
        let zygote = parent(worker);
        assert_eq!(parent(zygote), std::process::id(), "{language}");
        assert_eq!(status(zygote, "Threads"), "1", "{language}");
        let rehearses = language == "python";
        if rehearses {
            spare_of(zygote);
        }
        let files = fs::read_dir(format!("/proc/{zygote}/fd")).unwrap();
        let mut files: Vec<String> =
            files.map(|file| fs::read_link(file.unwrap().path()).unwrap().display().to_string()).collect();
        files.retain(|file| file != "/dev/null");
        files.sort_unstable();
        // Its standard error is the host's own.
        let of_host = fs::read_link("/proc/self/fd/2").unwrap().display().to_string();
        files.retain(|file| *file != of_host);
        let kinds: Vec<&str> = files.iter().map(|file| file.split(':').next().unwrap()).collect();
        // The host, what has ended, and the spare.
        let wanted: &[&str] =
            if rehearses { &["anon_inode", "socket", "socket"] } else { &["anon_inode", "socket"] };
        assert_eq!(kinds, wanted, "{language}: {files:?}");
        let environment = fs::read(format!("/proc/{zygote}/environ")).unwrap();
        let variables = environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
        let names: Vec<&[u8]> =
            variables.map(|text| text.split(|byte| *byte == b'=').next().unwrap()).collect();
        assert!(names.iter().all(|name| *name == b"PATH"), "{language}: {names:?}");
        host.unload(&id).await.unwrap();
        let left: Vec<u32> = children(zygote).into_iter().filter(|pid| !is_spare(*pid)).collect();
        assert!(left.is_empty(), "{language}: a zombie, or a worker that lives on");
        assert_eq!(children(zygote).len(), usize::from(rehearses), "{language}: spares");
    }
}

/// The child of a zygote that waits for its order, as soon as there is one.
fn spare_of(zygote: u32) -> u32 {
    let mut spares = Vec::new();
    wait_until("a spare", || {
        spares = children(zygote);
        spares.retain(|pid| is_spare(*pid));
        !spares.is_empty()
    });
    assert_eq!(spares.len(), 1);
    spares[0]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spare_becomes_the_next_worker_and_is_confined_like_the_first() {
    let host = host();
    let load = async |id: &str| {
        let package = python(id, LOOK);
        host.load(package.path(), in_process()).await.unwrap();
        worker_of(&host, id)
    };
    let first = load("look.one").await;
    let spare = spare_of(parent(first));
    assert_eq!(status(spare, "Threads"), "1");
    assert_eq!(status(spare, "Seccomp"), "0", "it is not confined before there is a plan");
    let second = load("look.two").await;
    assert_eq!(second, spare);
    assert!(!is_spare(second));
    for name in ["Seccomp", "Seccomp_filters", "NoNewPrivs", "CapEff", "CapBnd"] {
        assert_eq!(status(second, name), status(first, name), "{name}");
    }
    for kind in ["mnt", "ipc", "net"] {
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_ne!(space(second), space(first), "{kind}");
        assert_ne!(space(second), space(std::process::id()), "{kind}");
    }
    let layers = |id: &str| {
        let layers = host.status(id).unwrap().layers;
        layers.into_iter().map(|layer| (layer.name, layer.state)).collect::<Vec<_>>()
    };
    assert_eq!(layers("look.two"), layers("look.one"));
    let groups = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let held = |pid: u32| groups(pid).lines().filter(|line| line.contains("quadriga-")).count();
    assert_eq!(held(second), held(first));
    // One that ends while it waits is not missed, and the one that follows ends with its zygote.
    let zygote = parent(first);
    let spare = spare_of(zygote);
    kill(spare);
    wait_until("its end", || !children(zygote).contains(&spare));
    let third = load("look.three").await;
    assert_eq!(parent(third), zygote);
    // On the way into a container it forks twice more.
    let spare = spare_of(zygote);
    let package = python("look.four", LOOK);
    let contained = LoadOptions { isolation: Some(Isolation::Container), ..granted() };
    host.load(package.path(), contained).await.unwrap();
    assert_eq!(worker_of(&host, "look.four"), spare);
    let look: serde_json::Value = host.invoke("look.four", "look", &()).await.unwrap();
    assert_eq!(look["main"], true);
    let spare = spare_of(zygote);
    kill(zygote);
    wait_until("the end of the spare", || !Path::new(&format!("/proc/{spare}")).exists());
    host.shutdown().await;
}

/// What a worker finds in the interpreter that was there before it.
const LOOK: &str = "
import os
import random
import sys
import threading
from typing import Any

def look() -> dict[str, Any]:
    return {
        'environment': dict(os.environ),
        'random': random.random(),
        'main': threading.main_thread() in threading.enumerate(),
        'threads': len(os.listdir('/proc/self/task')),
        'here': os.getcwd(),
        'home': os.path.expanduser('~'),
        'files': [os.readlink(f'/proc/self/fd/{name}') for name in os.listdir('/proc/self/fd') if name in '012'],
        'argv': sys.argv,
        # The first is forked for it, and the second was a spare.
        'modules': sorted(name for name in sys.modules if not name.startswith('@look-')),
    }
";

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_was_forked_is_like_one_that_was_started() {
    let host = host();
    let mut seen = Vec::new();
    for id in ["look.one", "look.two"] {
        let package = python(id, LOOK);
        host.load(package.path(), in_process()).await.unwrap();
        spare_of(parent(worker_of(&host, id)));
        let look: serde_json::Value = host.invoke(id, "look", &()).await.unwrap();
        let environment = look["environment"].as_object().unwrap();
        let names: HashSet<&str> = environment.keys().map(String::as_str).collect();
        assert_eq!(names, HashSet::from(["HOME", "LANG", "PATH", "TMPDIR"]));
        assert_eq!(look["home"], environment["HOME"]);
        assert_eq!(look["here"], environment["HOME"]);
        assert_eq!(look["main"], true);
        assert_eq!(look["argv"], serde_json::json!([""]));
        let files = look["files"].as_array().unwrap();
        assert_eq!(files[0], "/dev/null", "{files:?}");
        assert!(files[1..].iter().all(|file| file.as_str().unwrap().starts_with("pipe:")), "{files:?}");
        seen.push((worker_of(&host, id), look));
    }
    let [(first, one), (second, two)] = <[_; 2]>::try_from(seen).unwrap();
    assert_ne!(one["random"], two["random"]);
    assert_ne!(one["environment"]["HOME"], two["environment"]["HOME"]);
    assert_eq!(one["modules"], two["modules"]);
    assert_eq!(parent(first), parent(second), "both are forked from one process");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_zygote_ends_its_workers_and_the_next_ones_get_another() {
    let host = host();
    for (case, language) in [("flow", "python"), ("flow", "native"), ("relay", "python")] {
        host.load(guest(case, language), in_process()).await.unwrap();
    }
    let call = begin(&host, "flow.python", "pause");
    wait_until("the call", || host.status("flow.python").unwrap().metrics.in_flight == 1);
    let (python, native) = (worker_of(&host, "flow.python"), worker_of(&host, "flow.native"));
    let (zygote, other) = (parent(python), parent(native));
    assert_ne!(zygote, other);
    kill(zygote);
    let error = call.await.unwrap().unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}");
    // A load at that moment is none the worse for it.
    let package = python_of_its_own();
    host.load(package.path(), in_process()).await.unwrap();
    for id in ["flow.python", "relay.python", "look.late"] {
        wait_until("the next worker", || {
            let status = host.status(id).unwrap();
            status.state == State::Running && status.usage.process.is_some_and(|pid| pid != python)
        });
    }
    let next = parent(worker_of(&host, "flow.python"));
    assert_ne!(next, zygote);
    assert_eq!(parent(worker_of(&host, "relay.python")), next);
    assert_eq!(worker_of(&host, "flow.native"), native, "who was forked elsewhere is not affected");
    let sum: i64 = host.invoke("relay.python", "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5);
    wait_until("the end of the first", || !Path::new(&format!("/proc/{zygote}")).exists());
    host.shutdown().await;
    wait_until("the end of the workers", || workers(std::process::id()).is_empty());
}

fn python_of_its_own() -> TempDir {
    python("look.late", LOOK)
}

/// A worker can neither end nor read the process that it was forked from. In a container it does not
/// even see it.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_cannot_reach_its_zygote() {
    for isolation in [Isolation::Process, Isolation::Container] {
        let host = host();
        host.load(guest("hostile", "python"), LoadOptions { isolation: Some(isolation), ..granted() })
            .await
            .unwrap();
        let zygote = children(std::process::id())[0];
        let spare = spare_of(zygote);
        for (method, with_pid) in [
            ("send_signal", true),
            ("signal_parent", false),
            ("trace", true),
            ("read_memory", true),
            ("process_memory", true),
        ] {
            let said: Vec<String> = match with_pid {
                true => vec![
                    host.invoke("hostile.python", method, &(zygote,)).await.unwrap(),
                    host.invoke("hostile.python", method, &(spare,)).await.unwrap(),
                ],
                false => vec![host.invoke("hostile.python", method, &()).await.unwrap()],
            };
            assert!(said.iter().all(|said| said.starts_with("denied")), "{isolation} {method}: {said:?}");
        }
        assert_eq!(status(zygote, "Threads"), "1");
        assert!(is_spare(spare));
        let value: Value = host.invoke("hostile.python", "ping", &()).await.unwrap();
        assert!(matches!(value, Value::Text(_)), "{value:?}");
        host.shutdown().await;
        kill(zygote);
        wait_until("its end", || children(std::process::id()).is_empty());
    }
}
