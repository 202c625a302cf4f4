//! Calls, errors and state: what callers can rely on whatever runs the extension.

use quadriga::abi::{ErrorCode, Value};

use super::subject::Subject;

/// How many calls are in flight at once.
const MANY: i64 = 200;

pub(super) async fn each_of_many_calls_gets_its_own_answer(subject: &Subject) {
    let host = subject.host_with("relay").await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..MANY {
        let (host, id) = (host.clone(), subject.guest("relay"));
        calls.spawn(async move {
            // Every other one goes through a call of the guest to itself.
            let sum: i64 = if n % 2 == 0 {
                host.invoke(&id, "add", &(n, 1000)).await.unwrap()
            } else {
                host.invoke(&id, "relay", &(&id, "add", (n, 1000))).await.unwrap()
            };
            assert_eq!(sum, n + 1000);
        });
    }
    while let Some(done) = calls.join_next().await {
        done.unwrap();
    }
    let metrics = host.status(&subject.guest("relay")).unwrap().metrics;
    assert_eq!((metrics.errors, metrics.in_flight), (0, 0));
}

pub(super) async fn a_call_that_fails_says_why_and_where(subject: &Subject) {
    let host = subject.host_with("relay").await;
    let id = subject.guest("relay");
    let error = host.invoke::<Value>(&id, "fail", &("too bad",)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionError, "{error:?}");
    assert!(error.message.contains("too bad"), "{error:?}");
    assert_eq!(error.extension.as_deref(), Some(id.as_str()), "{error:?}");
    assert!(error.stack.is_some(), "{error:?}");
    let error = host.invoke::<Value>(&id, "gret", &()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownMethod, "{error:?}");
    assert!(error.hint.as_ref().is_some_and(|hint| hint.contains("greet")), "{error:?}");
    let greeting: String = host.invoke(&id, "greet", &("Ada",)).await.unwrap();
    assert_eq!(greeting, format!("Hello, Ada, from {}", subject.name), "it serves on");
}

pub(super) async fn a_reload_keeps_the_state(subject: &Subject) {
    let host = subject.host_with("counter").await;
    let id = subject.guest("counter");
    let add = async |n: i64| host.invoke::<i64>(&id, "add", &(n,)).await.unwrap();
    assert_eq!(add(3).await, 3);
    let generation = host.status(&id).unwrap().generation;
    host.reload(&id).await.unwrap();
    assert!(host.status(&id).unwrap().generation > generation);
    assert_eq!(add(1).await, 4, "the count goes on");

    // What the next one refuses leaves the old one where it is.
    assert_eq!(add(-5).await, -1);
    let error = host.reload(&id).await.unwrap_err();
    assert!(error.message.contains("not negative"), "{error:?}");
    assert_eq!(error.extension.as_deref(), Some(id.as_str()));
    assert_eq!(add(6).await, 5, "the old one serves on");
    host.reload(&id).await.unwrap();
    assert_eq!(add(0).await, 5);

    // A load from nothing has no state.
    host.unload(&id).await.unwrap();
    subject.load(&host, "counter").await;
    assert_eq!(add(0).await, 0);
}

pub(super) async fn the_state_is_for_the_host_alone(subject: &Subject) {
    let host = subject.host_with("counter").await;
    subject.load(&host, "relay").await;
    let id = subject.guest("counter");
    for (method, arguments) in [("snapshot", vec![]), ("restore", vec![7])] {
        let call = (&id, method, arguments);
        let error = host.invoke::<Value>(&subject.guest("relay"), "relay", &call).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
    }
    let count: i64 = host.invoke(&id, "snapshot", &()).await.unwrap();
    assert_eq!(count, 0);
}
