//! Handlers that fail, are not there, lead back to their hook, or for which nobody waits.

#![expect(clippy::await_holding_lock, reason = "it holds up a handler, which is on another thread")]

use std::sync::{Arc, Mutex};

use quadriga_core::abi::{Bytes, Error, ErrorCode};
use quadriga_core::{
    DecisionFilter, Did, Grant, HookPolicy, Hooked, Outcome, Policy, Provided, Reason, Stopped, Subject,
};
use serde::Serialize;
use serde_json::json;

use super::{CLOSED, MODIFY, MODIFY_CLOSED, Other, Plan, Seen, VALIDATE, calm, did, guests, hook};
use crate::common::{self, host, load, told, until};

#[tokio::test]
async fn who_fails_again_and_again_is_skipped_and_reported() {
    let hooks = HookPolicy { failures: 3, ..calm().hooks };
    for (more, closed) in [(MODIFY, false), (MODIFY_CLOSED, true)] {
        let policy = Policy { hooks, ..Policy::default() };
        let host = host(guests(&Seen::default(), &[]), policy);
        let _dir = load(&host, "x.a", &hook("plan.before", "fail", more), Grant::Requested).await;
        for round in 0..5 {
            let result = host.hook(Plan::new()).await;
            let [(_, did)] = did(&result).try_into().unwrap();
            assert_eq!(did == Did::Skipped, round >= 3, "{did:?}");
            // Not to be asked is no consent.
            assert_eq!(result.is_err(), closed);
        }
        let [status] = host.hooks().try_into().unwrap();
        assert_eq!((status.skipped, status.calls, status.failures), (true, 3, 3));
        let subject = Some(Subject::Management);
        let log = host.decisions("x.a", &DecisionFilter { subject, ..DecisionFilter::default() }).unwrap();
        let what = "have fail skipped at the hook plan.before: it failed 3 times in a row";
        assert_eq!((log[0].what.as_str(), log[0].reason), (what, Reason::Failures));
        host.reload("x.a").await.unwrap();
        assert!(!host.hooks()[0].skipped);
    }
}

#[tokio::test]
async fn one_in_quarantine_does_not_let_everything_pass() {
    for (more, closed) in [(VALIDATE, false), (CLOSED, true)] {
        let host = host(guests(&Seen::default(), &[("yes", json!(true))]), calm());
        let _dir = load(&host, "x.a", &hook("plan.before", "yes", more), Grant::Requested).await;
        host.quarantine("x.a", "it looks odd").unwrap();
        let result = host.hook(Plan::new()).await;
        assert_eq!(result.is_err(), closed);
        assert!(
            matches!(&did(&result)[0].1, Did::Failed(error) if error.code == ErrorCode::PermissionDenied)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hook_that_leads_to_itself_is_found_out() {
    let runtime = || {
        told()
            .method("again", |bridge, call| bridge.call(&call.context(), "app.host", "plan", common::NONE))
            .method("other", |bridge, call| bridge.call(&call.context(), "app.host", "other", common::NONE))
            // As guests with a thread of their own do it.
            .method("elsewhere", |bridge, call| {
                Outcome::Pending(bridge.call_detached(&call.context(), "app.host", "plan", common::NONE))
            })
    };
    // Handlers of the two hooks, and whether they lead back.
    for (plan, other, recursive) in [
        ("again", "", true),
        ("other", "", false),
        ("other", "again", true),
        ("other", "other", true),
        ("elsewhere", "", true),
    ] {
        let host = host(runtime(), calm());
        let provided = Provided::new("app.host").unwrap();
        let [one, two] = [host.clone(), host.clone()];
        let provided = provided
            .raw("plan", move |_, _| raised(quadriga_core::block_on(one.hook(Plan::new()))))
            .raw("other", move |_, _| raised(quadriga_core::block_on(two.hook(Other::new()))));
        host.provide(provided).unwrap();
        let call = "[permissions]\ncall = ['app.host/*']\nhooks = ['*']";
        let closed = |method: &str| format!("method = '{method}'\n{MODIFY_CLOSED}");
        let mut hooks = format!("{call}\n[hooks.'plan.before']\n{}", closed(plan));
        if !other.is_empty() {
            hooks += &format!("\n[hooks.'other.before']\n{}", closed(other));
        }
        let _dir = load(&host, "x.a", &hooks, Grant::Requested).await;
        let result = host.hook(Plan::new()).await.map_err(|stopped| stopped.error);
        match result {
            Ok(_) => assert!(!recursive, "{plan} {other}"),
            Err(error) => {
                let last = error.chain().last().unwrap();
                assert!(recursive && last.code == ErrorCode::HookRecursion, "{error:?}");
                assert!(last.message.ends_with("led to itself"), "{last}");
            }
        }
    }
}

fn raised<T: Serialize>(result: Result<Hooked<T>, Stopped>) -> Result<Bytes, Error> {
    result.map(|_| Bytes::from_static(b"\xc0")).map_err(Error::from)
}

#[tokio::test]
async fn nobody_waits_for_those_who_are_only_told() {
    let seen = Seen::default();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock().unwrap();
    let waiting = Arc::clone(&gate);
    let runtime = guests(&seen, &[("look", json!(null))]).method("slow", move |_, _| {
        drop(waiting.lock().unwrap());
        Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
    });
    let host = host(runtime, calm());
    let _a = load(&host, "x.a", &hook("plan.before", "slow", ""), Grant::Requested).await;
    let _b = load(&host, "x.b", &hook("plan.before", "look", ""), Grant::Requested).await;
    let hooked = host.hook(Plan::new()).await.unwrap();
    assert!(hooked.account.steps.iter().all(|step| step.did == Did::Told));
    until(async || seen.lock().unwrap().len() == 1).await;
    assert_eq!(host.status("x.a").unwrap().metrics.in_flight, 1);
    drop(held);
    until(async || host.status("x.a").unwrap().metrics.in_flight == 0).await;
}
