//! Entries that are not what they should be.

use std::time::{Duration, Instant};

use quadriga::abi::ErrorCode;
use quadriga::{CallOptions, LoadOptions};
use quadriga_tests::{granted, guest, host};

use super::component::Component;
use super::{assert_error, package};

/// Loads a bad entry and checks the error; then shows that the host and its extensions are well.
async fn check(case: &str, entry: &[u8], code: ErrorCode, words: &[&str]) {
    let host = host();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let bad = package("test.bad", entry, "[limits]\nload-timeout = '300ms'");
    let started = Instant::now();
    let error = host.load(bad.path(), granted()).await.expect_err(case);
    assert!(started.elapsed() < Duration::from_secs(5), "{case}: {:?}", started.elapsed());
    assert_error(case, &error, code, words);
    assert_eq!(host.list().len(), 1, "{case}");
    let reply: String = host.invoke("relay.wasm", "echo", &("well",)).await.unwrap();
    assert_eq!(reply, "well", "{case}");
    host.shutdown().await;
}

#[tokio::test]
async fn slow_bad_entries() {
    use ErrorCode::{
        DeadlineExceeded, EntryInvalid, ExtensionPanicked, IncompatibleVersion, ProtocolViolation,
    };
    let whole = Component::new().build();
    let wat = |text: &str| wat::parse_str(text).unwrap();
    let cases: Vec<(&str, Vec<u8>, ErrorCode, &[&str])> = vec![
        ("empty", vec![], EntryInvalid, &["entry.wasm", "no WebAssembly"]),
        ("text", b"(component)".to_vec(), EntryInvalid, &["no WebAssembly", "binary component"]),
        ("cut in the header", whole[..6].to_vec(), EntryInvalid, &["entry.wasm", "no valid component"]),
        (
            "cut in the middle",
            whole[..whole.len() / 2].to_vec(),
            EntryInvalid,
            &["no valid component", "offset"],
        ),
        (
            "core module",
            wat("(module)"),
            EntryInvalid,
            &["core module", "wasm32-wasip2", "wasm-tools component new"],
        ),
        (
            "exports nothing",
            wat("(component)"),
            EntryInvalid,
            &["quadriga:extension/guest", "exports nothing"],
        ),
        (
            "exports another interface",
            wat(r#"(component (instance $i) (export "acme:clock/time@1.0.0" (instance $i)))"#),
            EntryInvalid,
            &["quadriga:extension/guest", "acme:clock/time@1.0.0"],
        ),
        (
            "exports half of it",
            wat(r#"(component (instance $i) (export "quadriga:extension/guest@0.1.0" (instance $i)))"#),
            EntryInvalid,
            &["describe"],
        ),
        (
            "imports what no one provides",
            wat(r#"(component
                (import "acme:clock/time@1.0.0" (instance (export "now" (func (result u64)))))
                (import "wasi:http/incoming-handler@0.2.0" (instance)))"#),
            EntryInvalid,
            &["acme:clock/time@1.0.0, wasi:http/incoming-handler@0.2.0", "no one provides"],
        ),
        (
            "imports more than the host has",
            wat(
                r#"(component (import "quadriga:extension/host@0.1.0" (instance (export "launch" (func)))))"#,
            ),
            EntryInvalid,
            &["quadriga:extension/guest"],
        ),
        (
            "built for a later contract",
            wat(r#"(component (import "quadriga:extension/host@9.0.0" (instance)))"#),
            IncompatibleVersion,
            &["9.0.0", "0.1.0", "entry.wasm"],
        ),
        (
            "exports a later contract",
            wat(r#"(component (instance $i) (export "quadriga:extension/guest@0.2.0" (instance $i)))"#),
            IncompatibleVersion,
            &["0.2.0", "0.1.0"],
        ),
        ("loops at the start", Component::new().start("(loop br 0)").build(), DeadlineExceeded, &[]),
        (
            "traps at the start",
            Component::new().start("unreachable").build(),
            ExtensionPanicked,
            &["unreachable"],
        ),
        (
            "loops in describe",
            Component::new().describe("(loop br 0) unreachable").build(),
            DeadlineExceeded,
            &[],
        ),
        (
            "traps in describe",
            Component::new().describe("unreachable").build(),
            ExtensionPanicked,
            &["unreachable"],
        ),
        (
            "recurses in describe",
            Component::new().describe("call $describe").build(),
            ExtensionPanicked,
            &["call stack exhausted"],
        ),
        (
            "describes what is outside its memory",
            Component::new().describe("i32.const 0x7fffff00").build(),
            ExtensionPanicked,
            &["out of bounds"],
        ),
        (
            "says no protocol",
            Component::new().protocol("soon").build(),
            ProtocolViolation,
            &["soon", "MAJOR.MINOR.PATCH"],
        ),
        (
            "speaks a later protocol",
            Component::new().protocol("7.0.0").build(),
            IncompatibleVersion,
            &["7.0.0", "0.1.0"],
        ),
    ];
    for (case, entry, code, words) in cases {
        check(case, &entry, code, words).await;
    }
}

#[tokio::test]
async fn a_good_component_without_any_sdk_loads() {
    let host = host();
    let good = package("test.plain", &Component::new().build(), "");
    host.load(good.path(), LoadOptions::default()).await.unwrap();
    assert_eq!(host.status("test.plain").unwrap().methods.len(), 1);
    assert_eq!(host.call("test.plain", "nil", vec![0x90], CallOptions::default()).await.unwrap(), vec![0xc0]);
}
