//! The memory of all extensions together.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::ErrorCode;
use quadriga_core::abi::limits::{ByteSize, Limit, Limits};
use quadriga_core::{Action, Grant, LoadOptions, MockRuntime, Monitor, Policy, State, TotalMemory};

use crate::common::{call, host, load, package, until};

type Memory = Arc<Mutex<HashMap<String, u64>>>;

/// Guests that use what they are told here, and 10 bytes if they are not.
fn runtime(memory: &Memory) -> MockRuntime {
    let memory = Arc::clone(memory);
    let runtime = MockRuntime::new().echo("echo").limits(&[Limit::Memory]).on_limits(|_| Ok(()));
    runtime.memory_by(move |id| memory.lock().unwrap().get(id).copied().unwrap_or(10))
}

fn policy(most: u64, action: Action) -> Policy {
    let monitor = Monitor { interval: Some(Duration::from_millis(2)), ..Monitor::default() };
    Policy { monitor, total_memory: Some(TotalMemory { most, action }), ..Policy::default() }
}

#[tokio::test]
async fn nothing_is_loaded_or_raised_above_it() {
    let memory = Memory::default();
    let host = host(runtime(&memory), policy(100, Action::None));
    let set = |id: &str, bytes| memory.lock().unwrap().insert(id.to_owned(), bytes);
    let x = load(&host, "a.x", "[limits]\nmemory = '60B'", Grant::Nothing).await;
    set("a.x", 90);
    let _y = load(&host, "a.y", "", Grant::Nothing).await;
    // It would be within the total before its load, and beyond it after.
    let z = package("a.z", "");
    let refused = host.load(z.path(), LoadOptions::default()).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::MemoryLimit, "{refused:?}");
    assert!(refused.message.contains("use 110B of memory together; the host gives them 100B"), "{refused}");
    let limit = |bytes| Limits { memory: Some(ByteSize(bytes)), ..Limits::default() };
    host.set_limits("a.x", &limit(70)).unwrap();
    set("a.x", 91);
    assert_eq!(host.set_limits("a.x", &limit(80)).unwrap_err().code, ErrorCode::MemoryLimit);
    assert_eq!(host.limits("a.x").unwrap().memory, Some(ByteSize(70)));
    host.set_limits("a.x", &limit(50)).unwrap();
    assert_eq!(host.load(z.path(), LoadOptions::default()).await.unwrap_err().code, ErrorCode::MemoryLimit);
    // The others go on, and a reload, which is how memory is given back, is no further load.
    call(&host, "a.y", "echo").await.unwrap();
    set("a.x", 80);
    host.reload("a.x").await.unwrap();
    host.load(z.path(), LoadOptions::default()).await.unwrap();
    drop(x);
}

#[tokio::test]
async fn the_largest_above_its_share_is_held_and_nobody_below() {
    let memory = Memory::default();
    let host = host(runtime(&memory), policy(100, Action::Pause));
    let mut folders = Vec::new();
    for id in ["a.large", "a.larger", "a.small", "a.tiny"] {
        folders.push(load(&host, id, "", Grant::Nothing).await);
    }
    let mut alerts = host.alerts();
    memory.lock().unwrap().extend([("a.large".to_owned(), 50), ("a.larger".to_owned(), 60)]);
    for id in ["a.larger", "a.large"] {
        let alert = alerts.recv().await.unwrap();
        assert_eq!((alert.extension.as_str(), alert.rule.as_str()), (id, "total memory"), "{alert:?}");
        let state = host.status(id).unwrap();
        assert_eq!(state.state, State::Paused);
        assert!(state.reason.unwrap().contains("they may use 100B"));
    }
    // Samples go on, and nothing else comes of them.
    let samples = || host.activity("a.tiny").unwrap().series.len();
    let before = samples();
    until(async || samples() > before + 20).await;
    assert!(alerts.is_empty());
    for id in ["a.small", "a.tiny"] {
        assert_eq!(host.status(id).unwrap().state, State::Running);
        call(&host, id, "echo").await.unwrap();
    }
    // Resumed, it is left alone for a while, for its operator to see to.
    host.resume("a.large").await.unwrap();
    let before = samples();
    until(async || samples() > before + 20).await;
    assert_eq!(host.status("a.large").unwrap().state, State::Running);
}
