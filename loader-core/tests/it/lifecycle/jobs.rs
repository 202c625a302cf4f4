//! What extensions do by the clock.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use quadriga_core::abi::{Bytes, codec};
use quadriga_core::{JobStatus, KvAction, KvChange, KvKey, KvQuota, KvStore as _, MemoryKv};
use serde_json::Value as Json;

use super::*;
use crate::common::{package, until};

/// Whose it is in a store when jobs were due.
const OWNER: &str = "quadriga.schedule";

fn job(host: &Dispatcher) -> JobStatus {
    host.jobs().remove(0)
}

/// Guests whose job answers once it is let; and what it was called with.
fn working() -> (MockRuntime, Arc<Mutex<Vec<Json>>>, Arc<AtomicBool>) {
    let (seen, go) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
    let (calls, may) = (Arc::clone(&seen), Arc::clone(&go));
    let runtime = MockRuntime::new().method("work", move |_, call| {
        let (run,): (Json,) = codec::from_arguments(&call.envelope.payload).unwrap();
        calls.lock().unwrap().push(run);
        let may = Arc::clone(&may);
        Outcome::Pending(Box::pin(async move {
            while !may.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Bytes::from_static(&[0xc0]))
        }))
    });
    (runtime, seen, go)
}

#[tokio::test]
async fn slow_calls_that_overlap_are_left_out_or_wait_or_not() {
    // How many are under way when the third one is due.
    for (overlap, running, skipped) in [("skip", 1, 2), ("wait", 1, 1), ("allow", 3, 0)] {
        let (runtime, seen, go) = working();
        let host = host(runtime, Policy::default());
        let more = format!("[schedule.tidy]\nmethod = 'work'\nevery = '1s'\noverlap = '{overlap}'");
        let _dir = load(&host, "a.b", &more, Grant::Nothing).await;
        let status = job(&host);
        assert_eq!((status.name.as_str(), status.when.as_str(), status.done.runs), ("tidy", "every 1s", 0));
        until(async || {
            let JobStatus { done, .. } = job(&host);
            u64::from(done.running) + done.skipped >= running + skipped
        })
        .await;
        let record = job(&host).done;
        assert_eq!((u64::from(record.running), record.skipped), (running, skipped), "{overlap}");
        go.store(true, SeqCst);
        until(async || job(&host).done.runs > running).await;
        let record = job(&host).done;
        assert_eq!((record.failures, record.missed, record.error), (0, 0, None), "{overlap}");
        assert!(record.last.is_some() && record.took.is_some());
        let first = seen.lock().unwrap()[0].clone();
        assert_eq!((&first["job"], &first["missed"]), (&Json::from("tidy"), &Json::from(0)));
        assert!(first["due"].as_str().unwrap().ends_with('Z'), "{first}");
        host.unload("a.b").await.unwrap();
        assert!(host.jobs().is_empty());
    }
}

#[tokio::test]
async fn one_that_fails_is_called_again_and_tells_why() {
    let runtime =
        MockRuntime::new().method("work", |_, _| Error::new(ErrorCode::ExtensionError, "not today").into());
    let host = host(runtime, Policy::default());
    let more = "[schedule.tidy]\nmethod = 'work'\nevery = '1s'";
    let dir = load(&host, "a.b", more, Grant::Nothing).await;
    until(async || job(&host).done.failures == 1).await;
    assert_eq!(job(&host).done.error.unwrap().message, "not today");
    // A reload goes on where it was, another time begins anew.
    host.reload("a.b").await.unwrap();
    assert!(job(&host).done.failures >= 1);
    until(async || job(&host).done.failures >= 2).await;
    write(dir.path(), "a.b", "[schedule.tidy]\nmethod = 'work'\nevery = '1h'");
    host.reload("a.b").await.unwrap();
    assert_eq!((job(&host).when.as_str(), job(&host).done.failures), ("every 1h", 0));
}

#[tokio::test]
async fn what_is_paused_is_not_called_and_what_sleeps_is_woken() {
    let (runtime, seen, go) = working();
    go.store(true, SeqCst);
    let host = host(runtime, Policy::default());
    let dir = package("a.b", "[schedule.tidy]\nmethod = 'work'\nevery = '1s'");
    host.load(dir.path(), LoadOptions { lazy: true, ..LoadOptions::default() }).await.unwrap();
    host.pause("a.b").unwrap();
    until(async || job(&host).done.missed >= 1).await;
    assert_eq!(seen.lock().unwrap().len(), 0);
    host.resume("a.b").await.unwrap();
    assert_eq!(state(&host), State::Asleep);
    until(async || job(&host).done.runs >= 1).await;
    assert_eq!(state(&host), State::Running);
}

#[tokio::test]
async fn a_method_that_is_not_there_fails_the_load() {
    let host = host(MockRuntime::new().echo("work"), Policy::default());
    let dir = package("a.b", "[schedule.tidy]\nmethod = 'wrk'\nevery = '1s'");
    let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidManifest);
    assert!(error.message.contains("[schedule.tidy] names the method \"wrk\""), "{error}");
}

#[tokio::test]
async fn the_next_host_knows_what_was_missed() {
    // It outlasts the hosts.
    let disk = Arc::new(MemoryKv::default());
    let key = KvKey { namespace: "a.b".to_owned(), key: "tidy".to_owned() };
    // Two days ago, as if the host had ended then.
    let then = std::time::SystemTime::now() - Duration::from_secs(48 * 3600);
    let then = jiff::Timestamp::try_from(then).unwrap();
    let put = |when: &str| {
        let value = codec::to_bytes(&(when, then.to_string())).unwrap().into();
        let action = KvAction::Put { value, expires: None };
        let change = KvChange { key: key.clone(), version: None, action };
        disk.write(OWNER, &[change], KvQuota::NONE, 1).unwrap();
    };
    for (missed, kept, runs) in
        [("once", "0 * * * * UTC", 1), ("skip", "0 * * * * UTC", 0), ("once", "5 * * * * UTC", 0)]
    {
        put(kept);
        let (runtime, seen, go) = working();
        go.store(true, SeqCst);
        let host = Dispatcher::builder().runtime(runtime).kv(disk.clone()).build().unwrap();
        let more = format!("[schedule.tidy]\nmethod = 'work'\ncron = '0 * * * *'\nmissed = '{missed}'");
        let _dir = load(&host, "a.b", &more, Grant::Nothing).await;
        if kept.starts_with('5') {
            // That was kept for another time.
            tokio::time::sleep(Duration::from_millis(50)).await;
            assert_eq!(job(&host).done.missed, 0);
            continue;
        }
        // The last one is late by an hour at most, and by a minute at least but for the first in an hour.
        until(async || job(&host).done.missed >= 47).await;
        if runs == 1 {
            until(async || job(&host).done.runs == 1).await;
            assert_eq!(seen.lock().unwrap()[0]["missed"], 47);
        }
        until(async || {
            let now = disk.get(OWNER, &key, 1).unwrap().unwrap();
            let (when, at): (String, String) = codec::from_bytes(&now.value).unwrap();
            when == kept && at != then.to_string()
        })
        .await;
    }
}

#[tokio::test]
async fn an_interval_goes_on_in_the_next_host() {
    let disk = Arc::new(MemoryKv::default());
    let mut due = Vec::new();
    for _ in 0..2 {
        let host = Dispatcher::builder()
            .runtime(MockRuntime::new().echo("work"))
            .kv(Arc::clone(&disk))
            .build()
            .unwrap();
        let _dir = load(&host, "a.b", "[schedule.tidy]\nmethod = 'work'\nevery = '1h'", Grant::Nothing).await;
        until(async || job(&host).next.is_some()).await;
        due.push(job(&host).next);
        let key = KvKey { namespace: "a.b".to_owned(), key: "tidy".to_owned() };
        until(async || disk.get(OWNER, &key, 1).unwrap().is_some()).await;
    }
    assert_eq!(due[0], due[1]);
}
