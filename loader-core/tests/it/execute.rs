//! Loose pieces of source code, with a runtime that needs no engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quadriga_abi::limits::{ByteSize, Limit, Limits, Span};
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, Isolation, Value};
use quadriga_core::{Dispatcher, Language, MockRuntime, Outcome, Policy, Snippet};

const TALK: Language =
    Language { names: &["talk", "tk"], file: "said.tk", entry: "main.tk", wrapper: "run it" };

/// The folders that sources were put into.
type Folders = Arc<Mutex<Vec<PathBuf>>>;

/// A host whose language comes to what the source says: an error, a wait, or itself.
fn host() -> (Dispatcher, Folders) {
    let folders = Folders::default();
    let (seen, read) = (Arc::clone(&folders), Arc::clone(&folders));
    let mock = MockRuntime::new()
        .languages(&[TALK])
        .limits(&[Limit::CallTimeout, Limit::Memory])
        .mediates(&["env"])
        .on_load(move |unit| {
            assert_eq!(std::fs::read_to_string(&unit.entry).unwrap(), "run it");
            seen.lock().unwrap().push(unit.root.clone());
            match std::fs::read_to_string(unit.root.join("said.tk")).unwrap().as_str() {
                "no load" => Err(Error::new(ErrorCode::LoadFailed, "it did not load")),
                _ => Ok(()),
            }
        })
        .method("run", move |bridge, call| {
            let folder = read.lock().unwrap().last().unwrap().clone();
            let source = std::fs::read_to_string(folder.join("said.tk")).unwrap();
            match source.as_str() {
                "fail" => Error::new(ErrorCode::ExtensionError, "it failed").with_stack("said.tk:1").into(),
                "wait" => Outcome::Pending(Box::pin(std::future::pending())),
                "env" => match bridge.check(&call.context(), &Access::Env("HOME")) {
                    Ok(()) => Outcome::Ready(Ok(Bytes::from_static(b"\xc3"))),
                    Err(error) => error.into(),
                },
                _ => Outcome::Ready(Ok(call.envelope.payload)),
            }
        });
    (Dispatcher::builder().runtime(mock).policy(Policy::default()).build().unwrap(), folders)
}

fn gone(folders: &Folders) -> bool {
    let folders = folders.lock().unwrap();
    assert!(!folders.is_empty());
    folders.iter().all(|folder| !folder.exists())
}

#[tokio::test]
async fn source_is_run_once_and_nothing_of_it_stays() {
    let (host, folders) = host();
    let mut snippet = Snippet::new("talk", "echo");
    snippet.parameters = Value::List(vec![Value::Int(7)]).to_bytes().unwrap().into();
    for name in ["talk", "tk"] {
        let executed = host.execute(Snippet { language: name.to_owned(), ..snippet.clone() }).await.unwrap();
        assert_eq!(&executed.result.unwrap()[..], b"\x91\x07");
        assert_eq!((executed.isolation, executed.usage.calls), (Isolation::InProcess, 1));
    }
    let failed = host.execute(Snippet::new("talk", "fail")).await.unwrap().result.unwrap_err();
    assert_eq!(failed.stack.as_deref(), Some("said.tk:1"));
    let error = host.execute(Snippet::new("talk", "no load")).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LoadFailed);
    assert!(gone(&folders), "{folders:?}");
    assert!(host.list().is_empty());
    assert_eq!(host.languages(), ["talk"]);
}

#[tokio::test]
async fn it_may_do_what_it_is_let_and_no_more() {
    let (host, _) = host();
    let mut snippet = Snippet::new("talk", "env");
    let executed = host.execute(snippet.clone()).await.unwrap();
    assert_eq!(executed.result.unwrap_err().code, ErrorCode::PermissionDenied);
    assert_eq!(executed.decisions.len(), 1, "{:?}", executed.decisions);
    assert_eq!(executed.usage.denied, 1);
    snippet.permissions.env = vec!["HOME".to_owned()];
    assert_eq!(&host.execute(snippet).await.unwrap().result.unwrap()[..], b"\xc3");
}

#[tokio::test]
async fn its_time_is_bounded_and_a_dropped_future_ends_it() {
    let (host, folders) = host();
    let mut snippet = Snippet::new("talk", "wait");
    snippet.limits.call_timeout = Some(Span(Duration::from_millis(30)));
    let executed = host.execute(snippet.clone()).await.unwrap();
    assert_eq!(executed.result.unwrap_err().code, ErrorCode::DeadlineExceeded);
    assert!(gone(&folders));
    snippet.limits.call_timeout = Some(Span(Duration::from_secs(600)));
    let running = tokio::time::timeout(Duration::from_millis(200), host.execute(snippet)).await;
    assert!(running.is_err(), "{running:?}");
    let until = Instant::now() + Duration::from_secs(10);
    while !gone(&folders) {
        assert!(Instant::now() < until, "{folders:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert_eq!(folders.lock().unwrap().len(), 2);
}

#[tokio::test]
async fn what_cannot_be_run_is_refused() {
    let (host, _) = host();
    let unlimited = Limits { cpu_share: Some(0.5), memory: Some(ByteSize(1)), ..Limits::default() };
    let plain = Snippet::new("talk", "echo");
    let cases = [
        (Snippet::new("cobol", ""), "no runtime here runs source in \"cobol\"", "those are: talk"),
        (Snippet::new("tlak", ""), "no runtime here runs source in \"tlak\"", "did you mean \"talk\"?"),
        (Snippet::new("mock", ""), "runtime mock runs what has been compiled", "build it"),
        (Snippet { limits: unlimited, ..plain.clone() }, "cannot enforce the limit cpu-share", ""),
        (Snippet { isolation: Isolation::Vm, ..plain }, "must run at isolation vm or stronger", ""),
    ];
    for (snippet, message, hint) in cases {
        let error = host.execute(snippet).await.unwrap_err();
        assert!(error.message.contains(message), "{error:?}");
        assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    }
}
