//! Which contracts this host serves: extensions that were built for a released one load as they are,
//! and what claims another is refused with both versions and what to do.

use std::fs;

use quadriga::abi::{ErrorCode, PROTOCOL, StreamMark};
use quadriga::{CallOptions, Dispatcher, Feed};
use quadriga_tests::{copy, granted, guest, host, with};
use tempfile::TempDir;

use crate::wasm::component::Component;

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// What `xtask` built from the sources of the release.
fn fixture(case: &str, language: &str) -> std::path::PathBuf {
    guest(&format!("since-v0.1/{case}"), language)
}

/// Fixtures, and beside them what the same sources are today: `now-<case>.<language>`.
async fn then_and_now(cases: &[&str]) -> Dispatcher {
    let host = host();
    for case in cases {
        for language in LANGUAGES {
            host.load(fixture(case, language), granted()).await.expect(language);
            let today = with(&guest(case, language), "");
            let manifest = today.path().join("quadriga.toml");
            let id = format!("{case}.{language}");
            let text = fs::read_to_string(&manifest).unwrap();
            fs::write(&manifest, text.replacen(&id, &format!("now-{id}"), 1)).unwrap();
            host.load(today.path(), granted()).await.expect(language);
        }
    }
    host
}

/// A case in each language, as of then and of now.
fn both(case: &str) -> Vec<String> {
    let ids = LANGUAGES.map(|language| format!("{case}.{language}"));
    ids.iter().cloned().chain(ids.iter().map(|id| format!("now-{id}"))).collect()
}

#[tokio::test]
async fn extensions_of_contract_0_1_answer_and_call_what_there_is_today() {
    let host = then_and_now(&["relay"]).await;
    for language in LANGUAGES {
        let id = format!("relay.{language}");
        let built_for = host.status(&id).unwrap().contract;
        assert_eq!((built_for.major, built_for.minor), (0, 1), "{language}");
        let echo: (String, u64) = host.invoke(&id, "echo", &(("Grüße", u64::MAX),)).await.expect(language);
        assert_eq!(echo, ("Grüße".to_owned(), u64::MAX), "{language}");
        let colour: String = host.invoke(&id, "setting", &("colour",)).await.expect(language);
        assert_eq!(colour, "green", "{language}");
        host.invoke::<()>(&id, "log", &("a line",)).await.expect(language);
        let error = host.invoke::<()>(&id, "fail", &("too bad",)).await.expect_err(language);
        assert_eq!(error.code, ErrorCode::ExtensionError, "{language}: {error:?}");
        assert!(error.message.contains("too bad"), "{language}: {error:?}");
    }
    for from in both("relay") {
        for to in both("relay") {
            let language = to.rsplit('.').next().unwrap();
            let reply: String = host.invoke(&from, "relay", &(&to, "greet", ["Ada"])).await.expect(&from);
            assert_eq!(reply, format!("Hello, Ada, from {language}"), "{from} calls {to}");
        }
    }
}

#[tokio::test]
async fn extensions_of_contract_0_1_stream_to_and_from_what_there_is_today() {
    let host = then_and_now(&["flow"]).await;
    for from in both("flow") {
        for to in both("flow") {
            let case = format!("{from} and {to}");
            let read: u64 = host.invoke(&from, "total", &(&to, 100)).await.expect(&case);
            let sent: u64 = host.invoke(&from, "send", &(&to, 100)).await.expect(&case);
            assert_eq!((read, sent), (4950, 4950), "{case}");
        }
        let (feed, input) = Feed::new();
        let doubled = rmp_serde::to_vec(&(StreamMark,)).unwrap();
        let mut items = host.stream(&from, "double", doubled, CallOptions::default().input(input));
        for n in 0..3_u64 {
            feed.send(rmp_serde::to_vec(&n).unwrap()).await.unwrap();
            assert_eq!(items.next().await.unwrap().unwrap(), rmp_serde::to_vec(&(2 * n)).unwrap(), "{from}");
        }
        feed.finish();
        assert!(items.next().await.is_none(), "{from}");
    }
}

#[tokio::test]
async fn extensions_of_contract_0_1_hand_their_state_on() {
    let host = host();
    for language in LANGUAGES {
        let id = format!("counter.{language}");
        let folder = with(&fixture("counter", language), "");
        host.load(folder.path(), granted()).await.expect(language);
        let add = async |n: i64| host.invoke::<i64>(&id, "add", &(n,)).await.expect(language);
        assert_eq!(add(3).await, 3, "{language}");
        host.reload(&id).await.expect(language);
        assert_eq!(add(1).await, 4, "{language}: from one of then to the next");
        copy(&guest("counter", language), folder.path()).unwrap();
        host.reload(&id).await.expect(language);
        assert_eq!(add(1).await, 5, "{language}: from then to now");
        copy(&fixture("counter", language), folder.path()).unwrap();
        host.reload(&id).await.expect(language);
        assert_eq!(add(1).await, 6, "{language}: and back");
    }
}

/// A package whose code claims a protocol and a feature.
fn claiming(language: &str, protocol: &str, feature: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let (kind, code) = match language {
        "wasm" => ("webassembly", Component::new().protocol(protocol).feature(feature).build()),
        _ => ("native", library(protocol, feature)),
    };
    let manifest = format!(
        "[extension]\nid = 'future.{language}'\nversion = '0.1.0'\n\
         [runtime]\nkind = '{kind}'\nentry = 'entry.so'\n"
    );
    fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(folder.path().join("entry.so"), code).unwrap();
    folder
}

/// A copy of a library that says what is written into it.
fn library(protocol: &str, feature: &str) -> Vec<u8> {
    const CLAIM: &[u8] = b"claim: 0.1.0 host-calls         ";
    let mut code = fs::read(guest("future", "native").join("guest_future.so")).unwrap();
    let place = code.windows(CLAIM.len()).position(|bytes| bytes == CLAIM).expect("a claim to overwrite");
    let claim = format!("{:<width$}", format!("claim: {protocol} {feature}"), width = CLAIM.len());
    code[place..place + CLAIM.len()].copy_from_slice(claim.as_bytes());
    code
}

/// Each of the words is in the message or the hint.
async fn refused(case: &str, folder: &TempDir, words: &[&str]) {
    let host = host();
    let error = host.load(folder.path(), granted()).await.expect_err(case);
    assert_eq!(error.code, ErrorCode::IncompatibleVersion, "{case}: {error:?}");
    let hint = error.hint.as_deref().expect(case);
    let both = format!("{}\n{hint}", error.message);
    for word in words {
        assert!(both.contains(word), "{case}: {word:?} is not in {both}");
    }
    assert!(host.list().is_empty(), "{case}");
}

#[tokio::test]
async fn what_asks_for_another_host_is_refused() {
    let ours = PROTOCOL.to_string();
    let host = env!("CARGO_PKG_VERSION");
    let cases: [(&str, &[&str]); 5] = [
        ("api = '^0.2'", &["contract ^0.2", &ours, "take a version of it for contract"]),
        ("api = '^1'", &["contract ^1", &ours, "or a host that speaks ^1"]),
        ("api = '<0.1'", &["contract <0.1", &ours, "or a host that speaks <0.1"]),
        ("[host]\nmin = '99.0.0'", &["host 99.0.0 or newer", host, "update the host to 99.0.0"]),
        ("[host]\nmax = '0.0.1'", &["host 0.0.1 or older", host, "take a newer version of counter."]),
    ];
    for language in LANGUAGES {
        for (more, words) in cases {
            refused(&format!("{language}: {more}"), &with(&guest("counter", language), more), words).await;
        }
        let today = format!("api = '^{ours}'\n[host]\nmin = '{host}'\nmax = '{host}'");
        self::host().load(with(&guest("counter", language), &today).path(), granted()).await.expect(language);
    }
}

/// JavaScript and Python say nothing of a contract: their engines read the source, and describe it.
#[tokio::test]
async fn what_claims_another_contract_is_refused() {
    let ours = PROTOCOL.to_string();
    for language in ["wasm", "native"] {
        for theirs in ["0.0.9", "0.2.0", "1.0.0", "7.0.0"] {
            let folder = claiming(language, theirs, "host-calls");
            let words = [theirs, &ours, "build it with an SDK for contract", "take a host"];
            refused(&format!("{language}: {theirs}"), &folder, &words).await;
        }
    }
}

/// A feature is what an extension can use, not what it must have: the contract's version says that.
#[tokio::test]
async fn a_feature_that_the_host_lacks_is_not_used() {
    for language in ["wasm", "native"] {
        let folder = claiming(language, &PROTOCOL.to_string(), "teleporting");
        let host = host();
        host.load(folder.path(), granted()).await.expect(language);
        host.invoke::<()>(&format!("future.{language}"), "nil", &()).await.expect(language);
    }
}
