//! Native libraries: what only they do, and the ways in which they can be wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use quadriga::abi::{Error, ErrorCode, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{example, granted, guest, host};
use tempfile::TempDir;

/// The one library in a package.
fn library(package: &Path) -> PathBuf {
    let files = fs::read_dir(package).unwrap().map(|file| file.unwrap().path());
    files.into_iter().find(|file| file.extension().is_some_and(|ending| ending == "so")).expect("a library")
}

/// A package of its own around a library.
fn package(id: &str, library: &[u8]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[extension]\nid = {id:?}\nversion = \"0.1.0\"\n[runtime]\nkind = \"native\"\nentry = \"entry.so\"\n"
    );
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("entry.so"), library).unwrap();
    dir
}

fn relay() -> Vec<u8> {
    fs::read(library(&guest("relay", "native"))).unwrap()
}

/// A copy in which `old` is overwritten, everywhere, by `new` at an offset from its start.
fn patched(mut data: Vec<u8>, old: &[u8], offset: usize, new: &[u8]) -> Vec<u8> {
    let places: Vec<usize> =
        data.windows(old.len()).enumerate().filter(|(_, w)| *w == old).map(|(at, _)| at).collect();
    assert!(!places.is_empty(), "nothing to patch");
    for place in places {
        data[place + offset..place + offset + new.len()].copy_from_slice(new);
    }
    data
}

async fn loaded() -> Dispatcher {
    let host = host();
    host.load(guest("relay", "native"), granted()).await.unwrap();
    host
}

#[track_caller]
fn expect(case: &str, error: &Error, code: ErrorCode, words: &[&str]) {
    let hint = error.hint.as_deref().unwrap_or_default();
    let text = format!("{}\n{hint}", error.message);
    assert_eq!(error.code, code, "{case}: {text}");
    for word in words {
        assert!(text.contains(word), "{case}: {word:?} is not in {text}");
    }
}

/// Loads a bad library, and shows that the host and its extensions are none the worse for it.
async fn check(host: &Dispatcher, case: &str, library: &[u8], code: ErrorCode, words: &[&str]) {
    let package = package("bad.library", library);
    let error = host.load(package.path(), granted()).await.expect_err(case);
    expect(case, &error, code, words);
    assert_eq!(error.extension.as_deref(), Some("bad.library"), "{case}");
    let greeting: String = host.invoke("relay.native", "greet", &("Ada",)).await.unwrap();
    assert_eq!(greeting, "Hello, Ada, from native", "{case}");
}

#[tokio::test]
async fn bad_libraries_are_refused() {
    use ErrorCode::{EntryInvalid, IncompatibleVersion};
    let host = loaded().await;
    let good = relay();
    let len = good.len();
    let symbol = b"_1as_0lib_1header_0root_bmodule_bloader";
    let magic = b"abi stable library for Rust";
    let other_symbol = patched(good.clone(), symbol, 0, b"_9");
    let other_abi = patched(good.clone(), magic, 36, &99_u32.to_le_bytes());
    let other_machine = [&good[..18], &[0xb7, 0], &good[20..]].concat();
    let other_layout = fs::read(library(&guest("bad", "native"))).unwrap();
    let cases: [(&str, &[u8], ErrorCode, &[&str]); 11] = [
        ("empty", b"", EntryInvalid, &["entry.so", "not a library"]),
        ("text", b"#!/bin/sh\necho hello\n", EntryInvalid, &["entry.so", "not a library"]),
        ("cut in the header", &good[..40], EntryInvalid, &["entry.so", "cut off"]),
        ("cut in the code", &good[..len / 10], EntryInvalid, &["cut off"]),
        ("cut in the middle", &good[..len / 2], EntryInvalid, &["cut off"]),
        ("cut at the end", &good[..len - 1], EntryInvalid, &["cut off"]),
        ("an object file", &patched_type(&good), EntryInvalid, &["not a dynamic library", "cdylib"]),
        ("another machine", &other_machine, EntryInvalid, &["Aarch64", std::env::consts::ARCH]),
        ("no extension", &other_symbol, EntryInvalid, &["not an extension", "quadriga-sdk"]),
        ("another abi_stable", &other_abi, IncompatibleVersion, &["abi_stable 0.99", "0.11", "rebuild it"]),
        (
            "another layout",
            &other_layout,
            IncompatibleVersion,
            &["version 0.1.0", "rebuild it with quadriga-sdk"],
        ),
    ];
    for (case, library, code, words) in cases {
        check(&host, case, library, code, words).await;
    }
}

#[tokio::test]
async fn slow_a_load_that_hangs_is_given_up() {
    let host = loaded().await;
    let good = fs::read(library(&guest("bad", "native"))).unwrap();
    let package = package("bad.library", &patched(good, b"constructor: go!", 13, b"no"));
    let manifest = package.path().join("quadriga.toml");
    let text = fs::read_to_string(&manifest).unwrap() + "[limits]\nload-timeout = \"200ms\"\n";
    fs::write(&manifest, text).unwrap();
    let started = Instant::now();
    let error = host.load(package.path(), granted()).await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    expect("hang", &error, ErrorCode::DeadlineExceeded, &["did not return from its load", "lost until"]);
    let sum: i64 = host.invoke("relay.native", "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5);
}

/// As if it were a relocatable object: `ET_REL` in the header.
fn patched_type(library: &[u8]) -> Vec<u8> {
    [&library[..16], &[1, 0], &library[18..]].concat()
}

#[tokio::test]
async fn calls_fail_with_a_reason() {
    use ErrorCode::{ExtensionError, ExtensionPanicked, InvalidArguments, InvalidValue, UnknownMethod};
    let host = loaded().await;
    let text = |text: &str| Value::Text(text.to_owned());
    let cases: [(&str, Vec<Value>, ErrorCode, &[&str]); 11] = [
        ("ech", vec![], UnknownMethod, &["ech", "echo"]),
        (
            "add",
            vec![Value::Int(1)],
            InvalidArguments,
            &["`add` takes 2 arguments (a: i64, b: i64), 1 given"],
        ),
        ("add", vec![Value::Nil; 3], InvalidArguments, &["3 given"]),
        (
            "add",
            vec![Value::Int(1), text("x")],
            InvalidArguments,
            &["argument 2 of `add`, b: i64: expected i64, found text"],
        ),
        (
            "add",
            vec![Value::UInt(u64::MAX), Value::Int(1)],
            InvalidArguments,
            &["argument 1 of `add`, a: i64"],
        ),
        ("greet", vec![Value::Int(7)], InvalidArguments, &["argument 1 of `greet`, name: &str", "string"]),
        ("chain", vec![Value::List(vec![Value::Nil])], InvalidArguments, &["path: Vec<String>: at [0]"]),
        ("fail", vec![text("out of cheese")], ExtensionError, &["out of cheese"]),
        ("crash", vec![], ExtensionPanicked, &["the guest panicked on purpose"]),
        ("add", vec![Value::Int(i64::MAX), Value::Int(1)], ExtensionError, &["does not fit 64 bits"]),
        (
            "unplaced",
            vec![],
            InvalidValue,
            &["no place in the value table", "340282366920938463463374607431768211455"],
        ),
    ];
    for (method, arguments, code, words) in cases {
        let arguments = Value::List(arguments).to_bytes().unwrap();
        let error =
            host.call("relay.native", method, arguments, CallOptions::default()).await.expect_err(method);
        expect(method, &error, code, words);
        if code != UnknownMethod {
            assert_eq!(error.extension.as_deref(), Some("relay.native"), "{method}");
        }
        let sum: i64 = host.invoke("relay.native", "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5, "{method}");
    }
    let error = host.call("relay.native", "echo", &b"\x01"[..], CallOptions::default()).await.unwrap_err();
    expect("no list", &error, InvalidArguments, &["not a list"]);
}

#[tokio::test]
async fn errors_carry_the_guests_own_stack() {
    let host = loaded().await;
    let panic = host.invoke::<()>("relay.native", "crash", &()).await.unwrap_err();
    let stack = panic.stack.as_deref().unwrap();
    assert!(stack.starts_with("panicked at ") && stack.contains("rust/src/lib.rs:"), "{stack}");
    assert!(stack.contains("relay::crash"), "{stack}");
    assert!(!stack.contains("quadriga_sdk") && !stack.contains("panicking"), "{stack}");
    let failure = host.invoke::<()>("relay.native", "fail", &("x",)).await.unwrap_err();
    let stack = failure.stack.as_deref().unwrap();
    assert!(stack.contains("rust/src/lib.rs:"), "{stack}");
}

#[tokio::test]
async fn errors_of_others_come_through_in_a_chain() {
    let host = loaded().await;
    let inner = ("relay.native", "fail", ["deep down"]);
    let error =
        host.invoke::<()>("relay.native", "relay", &("relay.native", "relay", inner)).await.unwrap_err();
    let chain: Vec<_> = error.chain().collect();
    assert_eq!(chain.len(), 3, "{error:?}");
    for link in chain {
        assert_eq!((link.code, link.message.as_str()), (ErrorCode::ExtensionError, "deep down"));
        assert_eq!(link.extension.as_deref(), Some("relay.native"));
        assert!(link.stack.as_ref().is_some_and(|stack| stack.contains("rust/src/lib.rs:")), "{link:?}");
    }

    let nobody = ("no.one", "echo", [1]);
    let error = host.invoke::<()>("relay.native", "relay", &nobody).await.unwrap_err();
    expect("nobody", &error, ErrorCode::UnknownExtension, &["no.one"]);
    assert_eq!(error.cause.as_ref().unwrap().code, ErrorCode::UnknownExtension);
    let panicked = ("relay.native", "crash", [0; 0]);
    let error = host.invoke::<()>("relay.native", "relay", &panicked).await.unwrap_err();
    expect("panic below", &error, ErrorCode::ExtensionPanicked, &["on purpose"]);
    assert!(error.cause.as_ref().unwrap().stack.as_deref().unwrap().contains("relay::crash"));
}

#[tokio::test]
async fn values_come_back_as_they_went() {
    let host = loaded().await;
    let text = |text: &str| Value::Text(text.to_owned());
    let deepest = (0..127).fold(Value::Nil, |inner, _| Value::List(vec![inner]));
    let values = [
        Value::Nil,
        Value::Bool(true),
        Value::Int(i64::MIN),
        Value::Int(-1),
        Value::Int(i64::MAX),
        Value::UInt(u64::MAX),
        Value::Float(-0.0),
        Value::Float(f64::INFINITY),
        Value::Float(f64::NAN),
        text(""),
        text("zażółć 🦀"),
        Value::Bytes(vec![]),
        Value::Bytes((0..=255).collect()),
        Value::Bytes(vec![7; 1 << 20]),
        Value::Timestamp(Timestamp::new(-1, 999_999_999).unwrap()),
        Value::List(vec![Value::Int(1), text("two"), Value::Bytes(vec![3])]),
        Value::Map(vec![(Value::Int(1), Value::Nil), (text("k"), Value::List(vec![]))]),
        deepest,
    ];
    for value in values {
        let (arguments, expected) = (Value::List(vec![value.clone()]), value.to_bytes().unwrap());
        let arguments = arguments.to_bytes().unwrap();
        let reply = host.call("relay.native", "echo", arguments, CallOptions::default()).await.unwrap();
        assert_eq!(reply, expected, "{value:?}");
    }
}

#[tokio::test]
async fn libraries_live_side_by_side() {
    let host = loaded().await;
    host.load(example("hello", "native"), granted()).await.unwrap();
    let twin = package("relay.twin", &relay());
    host.load(twin.path(), granted()).await.unwrap();
    let greet = async |id: &str| host.invoke::<String>(id, "greet", &("Ada",)).await.unwrap();
    assert_eq!(greet("relay.native").await, "Hello, Ada, from native");
    assert_eq!(greet("hello.native").await, "Hello, Ada");
    assert_eq!(greet("relay.twin").await, "Hello, Ada, from native");
    host.unload("relay.native").await.unwrap();
    assert_eq!(greet("relay.twin").await, "Hello, Ada, from native");
}

#[tokio::test]
async fn a_reload_runs_the_new_code() {
    let host = host();
    let hello = fs::read(library(&example("hello", "native"))).unwrap();
    let package = package("changing.one", &hello);
    host.load(package.path(), granted()).await.unwrap();
    let greet = async || host.invoke::<String>("changing.one", "greet", &("Ada",)).await.unwrap();
    assert_eq!(greet().await, "Hello, Ada");

    // In place, as a compiler or `cp` would: the file that is loaded keeps its inode.
    fs::write(package.path().join("entry.so"), relay()).unwrap();
    assert_eq!(greet().await, "Hello, Ada");
    host.reload("changing.one").await.unwrap();
    assert_eq!(greet().await, "Hello, Ada, from native");

    fs::write(package.path().join("entry.so"), &hello[..hello.len() / 2]).unwrap();
    let error = host.reload("changing.one").await.unwrap_err();
    expect("cut off", &error, ErrorCode::EntryInvalid, &["cut off"]);
    assert_eq!(greet().await, "Hello, Ada, from native");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 8)]
async fn many_threads_call_at_once() {
    let host = loaded().await;
    let threads = (0..8).map(|thread: i64| {
        let host = host.clone();
        tokio::spawn(async move {
            for n in 0..1000 {
                let sum: i64 = host.invoke("relay.native", "add", &(thread, n)).await.unwrap();
                assert_eq!(sum, thread + n);
            }
        })
    });
    for thread in threads.collect::<Vec<_>>() {
        thread.await.unwrap();
    }
    assert_eq!(host.status("relay.native").unwrap().metrics.calls, 8000);
}

#[tokio::test]
async fn a_library_calls_itself_through_the_host() {
    let host = loaded().await;
    let languages: Vec<String> = host.invoke("relay.native", "chain", &(["relay.native"; 7],)).await.unwrap();
    assert_eq!(languages, ["native"; 8]);
}

#[tokio::test]
async fn settings_and_log_are_at_hand() {
    let host = loaded().await;
    let setting = async |name: &str| host.invoke::<Value>("relay.native", "setting", &(name,)).await.unwrap();
    assert_eq!(setting("colour").await, Value::Text("green".to_owned()));
    assert_eq!(setting("size").await, Value::Nil);
    host.invoke::<()>("relay.native", "log", &("hello",)).await.unwrap();
}

#[tokio::test]
async fn methods_describe_themselves() {
    let host = loaded().await;
    let status = host.status("relay.native").unwrap();
    let add = status.methods.iter().find(|method| method.name == "add").unwrap();
    assert_eq!(add.doc, "Adds two integers.");
    assert_eq!(add.returns.as_deref(), Some("Result<i64, Error>"));
    let parameters: Vec<_> = add.parameters.iter().map(|p| (p.name.as_str(), p.ty.as_deref())).collect();
    assert_eq!(parameters, [("a", Some("i64")), ("b", Some("i64"))]);
}

#[tokio::test]
async fn structs_cross_as_maps_and_slices_as_bytes() {
    let host = host();
    host.load(example("site", "assets"), granted()).await.unwrap();
    let site = tempfile::tempdir().unwrap();
    let dir = site.path().to_str().unwrap();
    for content in [&b"body {}"[..], b""] {
        let asset: serde_json::Value =
            host.invoke("site.assets", "write", &(dir, "site.css", content)).await.unwrap();
        assert_eq!(asset["bytes"], content.len());
        assert_eq!(fs::read(site.path().join(asset["path"].as_str().unwrap())).unwrap(), content);
    }
    let error = host.invoke::<()>("site.assets", "page", &(dir, "../x.html", "x")).await.unwrap_err();
    expect("outside", &error, ErrorCode::ExtensionError, &["\"../x.html\" is not a path inside the site"]);
}
