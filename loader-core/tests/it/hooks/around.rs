//! Handlers around the work of the host.

use quadriga_core::{Finished, HookWork};

use super::*;
use crate::common;

impl HookWork for Execute {
    type Outcome = i64;

    fn outcome_schema() -> quadriga_core::abi::schemars::Schema {
        quadriga_core::abi::schemars::json_schema!({ "type": "integer" })
    }
}

/// Guests that stand around the work, each in a way of its own.
fn around() -> MockRuntime {
    let proceed = |bridge: &quadriga_core::Bridge, call: &quadriga_core::Call, patch: Json| {
        let arguments = codec::arguments(&(Value::from(patch),)).unwrap();
        bridge.call_detached(&call.context(), "quadriga.hooks", "proceed", arguments.into())
    };
    let number = |value: i64| Outcome::Ready(Ok(codec::to_bytes(&value).unwrap().into()));
    told()
        .blocking(false)
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "as it was told to").into())
        .method("hang", |_, _| Outcome::Pending(Box::pin(std::future::pending())))
        .method("nothing", |_, _| Outcome::Ready(Ok(Bytes::from_static(b"\xc0"))))
        .method("text", |_, _| Outcome::Ready(Ok(codec::to_bytes(&"no number").unwrap().into())))
        .method("cached", move |_, _| number(-1))
        .method("through", move |bridge, call| {
            let work = proceed(bridge, &call, json!(null));
            Outcome::Pending(Box::pin(async move { work.await.map(|_| Bytes::from_static(b"\xc0")) }))
        })
        .method("more", move |bridge, call| {
            let work = proceed(bridge, &call, json!({ "title": "longer title" }));
            Outcome::Pending(Box::pin(async move {
                let made: i64 = codec::from_bytes(&work.await?).unwrap();
                Ok(codec::to_bytes(&(made * 10)).unwrap().into())
            }))
        })
        .method("patch", move |bridge, call| {
            let work = proceed(bridge, &call, json!({ "title": "longer title" }));
            Outcome::Pending(Box::pin(async move { work.await.map(|_| Bytes::from_static(b"\xc0")) }))
        })
        .method("owner", move |bridge, call| {
            Outcome::Pending(proceed(bridge, &call, json!({ "owner": "bob" })))
        })
        .method("rescue", move |bridge, call| {
            let work = proceed(bridge, &call, json!(null));
            Outcome::Pending(Box::pin(async move {
                Ok(work.await.unwrap_or_else(|_| codec::to_bytes(&7).unwrap().into()))
            }))
        })
        .method("mistake", move |bridge, call| {
            let work = proceed(bridge, &call, json!(null));
            Outcome::Pending(Box::pin(async move {
                let _ = work.await;
                Ok(codec::to_bytes(&"no number").unwrap().into())
            }))
        })
        .method("twice", move |bridge, call| {
            let (one, two) = (proceed(bridge, &call, json!(null)), proceed(bridge, &call, json!(null)));
            Outcome::Pending(Box::pin(async move {
                assert_eq!(two.await.unwrap_err().code, ErrorCode::InvalidArguments);
                one.await
            }))
        })
        .method("break", move |bridge, call| {
            let work = proceed(bridge, &call, json!(null));
            Outcome::Pending(Box::pin(async move {
                work.await?;
                Err(Error::new(ErrorCode::ExtensionError, "after it"))
            }))
        })
        .method("leave", move |bridge, call| {
            // Begins the work and does not wait for it.
            drop(bridge.call(&call.context(), "quadriga.hooks", "proceed", common::NONE));
            Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
        })
        .method("stay", move |bridge, call| {
            let work = proceed(bridge, &call, json!(null));
            Outcome::Pending(Box::pin(async move {
                work.await?;
                std::future::pending().await
            }))
        })
}

fn around_it(method: &str, failure: &str) -> String {
    hook("plan.execute", method, &format!("mode = 'around'\non-failure = '{failure}'\ndeadline = '300ms'"))
}

/// Does the work, which is as long as the title, with these handlers around it: the methods, the
/// outermost first.
async fn execute(methods: &[(&str, &str)], fails: bool) -> (Result<Finished<i64>, Stopped>, usize) {
    let host = host(around(), calm());
    let mut dirs = Vec::new();
    for (place, (method, failure)) in methods.iter().enumerate() {
        let id = format!("x.a{place}");
        dirs.push(load(&host, &id, &around_it(method, failure), Grant::Requested).await);
    }
    let done = AtomicUsize::new(0);
    let work = |plan: Execute| {
        done.fetch_add(1, SeqCst);
        async move {
            match fails {
                true => Err(Error::new(ErrorCode::ExtensionError, "the work failed")),
                false => Ok(i64::try_from(plan.title.len()).unwrap()),
            }
        }
    };
    let result = host.hook_around(Execute::new(), CallOptions::default(), work).await;
    host.shutdown().await;
    (result, done.into_inner())
}

type Case = (&'static [(&'static str, &'static str)], bool, Result<i64, &'static str>, usize, Vec<Did>);

#[tokio::test(flavor = "multi_thread")]
async fn handlers_stand_around_the_work() {
    let (nothing, replaced) = (|| Did::Nothing, || Did::Replaced);
    // Methods, whether the work fails, the outcome, how often it was done, and what each did.
    let table: Vec<Case> = vec![
        (&[], false, Ok(4), 1, vec![]),
        (&[], true, Err("the work failed"), 1, vec![]),
        (&[("through", "closed")], false, Ok(4), 1, vec![nothing()]),
        (&[("through", "closed")], true, Err("the work failed"), 1, vec![nothing()]),
        (&[("leave", "closed")], false, Ok(4), 1, vec![nothing()]),
        (&[("patch", "closed")], false, Ok(12), 1, vec![says("/title")]),
        (&[("more", "closed")], false, Ok(120), 1, vec![replaced()]),
        (&[("more", "closed"), ("through", "closed")], false, Ok(120), 1, vec![replaced(), nothing()]),
        (&[("more", "closed"), ("more", "open")], false, Ok(1200), 1, vec![replaced(), replaced()]),
        (&[("cached", "closed"), ("more", "closed")], false, Ok(-1), 0, vec![replaced()]),
        (&[("more", "closed"), ("cached", "closed")], false, Ok(-10), 0, vec![replaced(), replaced()]),
        (&[("rescue", "closed"), ("through", "closed")], true, Ok(7), 1, vec![replaced(), nothing()]),
        (&[("twice", "closed")], false, Ok(4), 1, vec![replaced()]),
    ];
    for (methods, fails, expected, times, did) in table {
        let (result, done) = execute(methods, fails).await;
        let (outcome, account) = match result {
            Ok(finished) => (Ok(finished.outcome), finished.account),
            Err(stopped) => (Err(stopped.error.message.clone()), stopped.account),
        };
        assert_eq!(outcome, expected.map_err(str::to_owned), "{methods:?}");
        assert_eq!((done, account.worked), (times, times == 1), "{methods:?}");
        assert_eq!(account.steps.into_iter().map(|step| step.did).collect::<Vec<_>>(), did, "{methods:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_around_the_work_fails_open_or_closed() {
    // What it does, how often the work is done if it fails open and if it fails closed, and why it failed.
    let table = [
        ("fail", 1, 0, "as it was told to"),
        ("nothing", 1, 0, "to proceed"),
        ("text", 1, 0, "no outcome"),
        ("hang", 1, 0, "took longer"),
        ("owner", 1, 0, "may not change the field"),
        ("break", 1, 1, "after it"),
        ("stay", 1, 1, "took longer"),
    ];
    for (method, open, closed, words) in table {
        let (result, done) = execute(&[("through", "closed"), (method, "open")], false).await;
        let finished = result.unwrap();
        assert_eq!((finished.outcome, done), (4, open), "{method}");
        let Did::Failed(error) = &finished.account.steps[1].did else { panic!("{:?}", finished.account) };
        assert!(error.message.contains(words), "{method}: {error:?}");

        let (result, done) = execute(&[("through", "open"), (method, "closed")], false).await;
        let stopped = result.unwrap_err();
        assert_eq!((stopped.error.code, done), (ErrorCode::HookFailed, closed), "{method}");
        assert_eq!(stopped.account.worked, closed == 1, "{method}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_outcome_after_the_work_is_a_failure() {
    // Whether the work fails, what comes of it if the handler fails open, and the code if it fails closed.
    for (fails, open) in [(false, Ok(4)), (true, Err("the work failed"))] {
        let (result, done) = execute(&[("mistake", "open")], fails).await;
        let (outcome, account) = match result {
            Ok(finished) => (Ok(finished.outcome), finished.account),
            Err(stopped) => (Err(stopped.error.message.clone()), stopped.account),
        };
        assert_eq!((outcome, done), (open.map_err(str::to_owned), 1));
        let Did::Failed(error) = &account.steps[0].did else { panic!("{fails}: {account:?}") };
        assert!(error.message.contains("no outcome"), "{error}");

        let (result, done) = execute(&[("mistake", "closed")], fails).await;
        let stopped = result.unwrap_err();
        assert_eq!((stopped.error.code, done), (ErrorCode::HookFailed, 1), "{fails}");
        assert!(stopped.account.worked);
    }
    // It counts as one of those after which the handler is not called any more.
    let host = host(around(), calm());
    let _dir = load(&host, "x.a", &around_it("mistake", "open"), Grant::Requested).await;
    let work = |_| async { Err(Error::new(ErrorCode::ExtensionError, "the work failed")) };
    let _ = host.hook_around(Execute::new(), CallOptions::default(), work).await.unwrap_err();
    assert_eq!(host.hooks()[0].failures, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn others_answer_before_the_work_and_a_veto_keeps_it_from_being_done() {
    let seen = Seen::default();
    let replies = [("title", json!({ "title": "much better" })), ("veto", json!("no"))];
    let runtime = guests(&seen, &replies);
    let host = host(runtime, calm());
    let _one = load(&host, "x.a", &hook("plan.execute", "title", MODIFY), Grant::Requested).await;
    let work = |plan: Execute| async move { Ok(i64::try_from(plan.title.len()).unwrap()) };
    let finished = host.hook_around(Execute::new(), CallOptions::default(), work).await.unwrap();
    assert_eq!(finished.outcome, 11);
    let _two = load(&host, "x.b", &hook("plan.execute", "veto", CLOSED), Grant::Requested).await;
    let stopped = host.hook_around(Execute::new(), CallOptions::default(), work).await.unwrap_err();
    assert_eq!((stopped.error.code, stopped.account.worked), (ErrorCode::HookVetoed, false));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_host_does_no_work_who_stands_around_it_fails() {
    for (failure, stops) in [("open", false), ("closed", true)] {
        let host = host(around(), calm());
        let _dir = load(&host, "x.a", &around_it("through", failure), Grant::Requested).await;
        let result = host.hook(Execute::new()).await;
        assert_eq!(result.is_err(), stops);
        let [(_, Did::Failed(error))] = &did(&result)[..] else { panic!("{result:?}") };
        assert_eq!(error.code, ErrorCode::Unsupported);
    }
}

#[test]
fn no_executor_of_the_host_is_needed() {
    let executor = tokio::runtime::Runtime::new().unwrap();
    let (host, _dirs) = executor.block_on(async {
        let host = host(around(), calm());
        let hangs = load(&host, "x.a", &around_it("hang", "open"), Grant::Requested).await;
        let more = load(&host, "x.b", &around_it("more", "closed"), Grant::Requested).await;
        (host, [hangs, more])
    });
    let work = |plan: Execute| async move { Ok(i64::try_from(plan.title.len()).unwrap()) };
    let result = quadriga_core::block_on(host.hook_around(Execute::new(), CallOptions::default(), work));
    assert_eq!(result.unwrap().outcome, 120);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_proceeds_outside_of_a_handler() {
    let host = host(around(), calm());
    let _dir = load(&host, "x.a", "[permissions]\nhooks = ['*']", Grant::Requested).await;
    let error = common::call(&host, "x.a", "through").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error:?}");
}
