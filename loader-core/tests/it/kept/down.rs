//! Events that are emitted while their subscriber is not there.

use std::sync::atomic::AtomicBool;
use std::time::Duration;

use quadriga_core::{Recovery, State, Supervision};

use super::*;
use crate::common;

/// A host that starts again, after so many milliseconds, what has ended, so many times.
fn host_that(recovers: Recovery, after: u64, restarts: u32, guests: &Guests) -> Dispatcher {
    let first_delay = Duration::from_millis(after);
    let supervision = Supervision { recovery: recovers, restarts, first_delay, ..Supervision::default() };
    let builder = Dispatcher::builder().runtime(guests.runtime()).event_store(Store::default());
    builder.policy(Policy { supervision, ..Policy::default() }).build().unwrap()
}

#[tokio::test]
async fn what_is_emitted_while_it_is_down_waits_for_it() {
    // What is done about an end, after which time, how often, and the state while the event is emitted.
    let table = [
        (Recovery::Restart, 200, 5, State::Failed),
        (Recovery::Reload, 200, 5, State::Failed),
        (Recovery::Disable, 1, 5, State::Disabled),
        (Recovery::Quarantine, 1, 5, State::Quarantined),
        (Recovery::Restart, 1, 0, State::Quarantined),
        // Its host stops it.
        (Recovery::Restart, 1, 5, State::Stopped),
    ];
    for (recovery, after, restarts, state) in table {
        let guests = Guests::default();
        guests.crash.store(true, SeqCst);
        let host = host_that(recovery, after, restarts, &guests);
        let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
        emit(&host, 1).unwrap();
        until(async || guests.taken() == [1]).await;
        if state == State::Stopped {
            host.stop("x.a").await.unwrap();
        } else {
            let error = common::call(&host, "x.a", "crash").await.unwrap_err();
            assert_eq!(error.code, ErrorCode::ExtensionCrashed);
        }
        until(async || host.status("x.a").unwrap().state == state).await;
        for number in 2..5 {
            assert_eq!(emit(&host, number).unwrap(), Emitted { queued: 1, dropped: 0 });
        }
        match state {
            State::Failed => {}
            State::Stopped => host.start("x.a").await.unwrap(),
            _ => {
                tokio::time::sleep(Duration::from_millis(30)).await;
                assert_eq!((guests.taken(), one(&host, "x.a").queued), (vec![1], 3), "{recovery:?}");
                host.resume("x.a").await.unwrap();
            }
        }
        until(async || guests.taken() == [1, 2, 3, 4]).await;
        // That it was not there is no attempt.
        assert!(guests.taken.lock().unwrap().iter().all(|got| got.attempt == 1), "{recovery:?} {state}");
        assert_eq!((one(&host, "x.a").failed, one(&host, "x.a").dead), (0, 0));
    }
}

#[tokio::test]
async fn who_wants_events_is_there_when_the_host_loads_lazily() {
    let guests = Guests::default();
    let host = host(&guests, &Store::default());
    let dir = package("x.a", &keeps(""));
    let options = LoadOptions { grant: Grant::Requested, lazy: true, ..LoadOptions::default() };
    host.load(dir.path(), options).await.unwrap();
    emit(&host, 1).unwrap();
    until(async || guests.taken() == [1]).await;
    // A reload that fails leaves it as it was.
    write(dir.path(), "x.a", &keeps("").replace("'take'", "'nobody'"));
    assert!(host.reload("x.a").await.is_err());
    emit(&host, 2).unwrap();
    until(async || guests.taken() == [1, 2]).await;
}

/// Guests that keep the numbers that they were told in their state.
fn stateful(state: &Arc<Mutex<Vec<i64>>>, restoring: &Arc<AtomicBool>, gate: &Arc<Mutex<()>>) -> MockRuntime {
    let (taken, given, restored) = (Arc::clone(state), Arc::clone(state), Arc::clone(state));
    let (restoring, gate) = (Arc::clone(restoring), Arc::clone(gate));
    told()
        .method("take", move |_, call| {
            let (got,): (Got,) = codec::from_arguments(&call.envelope.payload).unwrap();
            taken.lock().unwrap().push(got.data);
            Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
        })
        .method("snapshot", move |_, _| {
            Outcome::Ready(Ok(codec::to_bytes(&*given.lock().unwrap()).unwrap().into()))
        })
        .method("restore", move |_, call| {
            let (numbers,): (Vec<i64>,) = codec::from_arguments(&call.envelope.payload).unwrap();
            restoring.store(true, SeqCst);
            drop(gate.lock().unwrap());
            *restored.lock().unwrap() = numbers;
            Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_comes_while_the_state_is_handed_over_goes_to_who_has_it_then() {
    for blocks in [true, false] {
        let (state, restoring, gate) = (Arc::default(), Arc::default(), Arc::new(Mutex::new(())));
        let runtime = stateful(&state, &restoring, &gate).blocking(blocks);
        let host = Dispatcher::builder().runtime(runtime).event_store(Store::default()).build().unwrap();
        let _a = load(&host, "x.a", &keeps("attempts = 1"), Grant::Requested).await;
        emit(&host, 1).unwrap();
        until(async || one(&host, "x.a").delivered == 1).await;
        let reloading = {
            let shut = gate.lock().unwrap();
            let reloading = tokio::spawn({
                let host = host.clone();
                async move { host.reload("x.a").await }
            });
            until(async || restoring.load(SeqCst)).await;
            emit(&host, 2).unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert_eq!(one(&host, "x.a").queued, 1, "who takes it now loses it");
            drop(shut);
            reloading
        };
        reloading.await.unwrap().unwrap();
        until(async || one(&host, "x.a").queued == 0).await;
        assert_eq!((&*state.lock().unwrap(), one(&host, "x.a").failed), (&vec![1, 2], 0));
    }
}
