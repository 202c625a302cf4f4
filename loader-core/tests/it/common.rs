//! What the tests of the dispatcher share.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use quadriga_core::abi::permission::{CallPattern, Permissions};
use quadriga_core::abi::{Bytes, Error, Value, codec};
use quadriga_core::{
    CallOptions, Dispatcher, Feed, Grant, Language, LoadOptions, MockRuntime, Outcome, Policy,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// An empty list of arguments.
pub(crate) const NONE: Bytes = Bytes::from_static(b"\x90");

/// Writes an extension of kind `mock` and returns its folder.
pub(crate) fn package(id: &str, more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    write(dir.path(), id, more);
    dir
}

/// Writes its manifest anew.
pub(crate) fn write(dir: &Path, id: &str, more: &str) {
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '1.2.3'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{more}\n"
    );
    fs::write(dir.join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.join("main"), "").unwrap();
}

pub(crate) fn host(runtime: MockRuntime, policy: Policy) -> Dispatcher {
    Dispatcher::builder().runtime(runtime).policy(policy).build().unwrap()
}

pub(crate) async fn load(host: &Dispatcher, id: &str, more: &str, grant: Grant) -> TempDir {
    let dir = package(id, more);
    host.load(dir.path(), LoadOptions { grant, ..LoadOptions::default() }).await.unwrap();
    dir
}

pub(crate) async fn call(host: &Dispatcher, extension: &str, method: &str) -> Result<Bytes, Error> {
    host.call(extension, method, NONE, CallOptions::default()).await
}

/// A runtime whose guests call `echo` of an extension (`ask`), or wait until they are told.
pub(crate) fn asking() -> MockRuntime {
    MockRuntime::new().echo("echo").method("ask", |bridge, call| {
        let (extension,): (String,) = rmp_serde::from_slice(&call.envelope.payload).unwrap();
        bridge.call(&call.context(), &extension, "echo", NONE)
    })
}

/// Has one extension call `echo` of another.
pub(crate) async fn ask(host: &Dispatcher, caller: &str, callee: &str) -> Result<(), Error> {
    let arguments = rmp_serde::to_vec(&(callee,)).unwrap();
    host.call(caller, "ask", arguments, CallOptions::default()).await.map(drop)
}

/// Never finishes by itself.
pub(crate) fn forever() -> Outcome {
    Outcome::Pending(Box::pin(std::future::pending()))
}

pub(crate) fn calls(patterns: &[&str]) -> Permissions {
    let call = patterns.iter().map(|text| CallPattern::try_from((*text).to_owned()).unwrap()).collect();
    Permissions { call, ..Permissions::default() }
}

/// Waits until something is so.
pub(crate) async fn until<F: Future<Output = bool>>(mut so: impl FnMut() -> F) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("it never became so");
}

const LANGUAGE: Language = Language { names: &["mock"], file: "source", entry: "main", wrapper: "" };

/// A method of a service, and its arguments.
type Wanted = (String, String, Value);

/// Guests that call what they are told to: here and now, detached, and as a stream of one item.
pub(crate) fn told() -> MockRuntime {
    let wanted = |arguments: &[u8]| {
        let (service, method, arguments): Wanted = codec::from_arguments(arguments).unwrap();
        (service, method, Bytes::from(arguments.to_bytes().unwrap()))
    };
    MockRuntime::new()
        .method("call", move |bridge, call| {
            let (service, method, arguments) = wanted(&call.envelope.payload);
            bridge.call(&call.context(), &service, &method, arguments)
        })
        .method("detached", move |bridge, call| {
            let (service, method, arguments) = wanted(&call.envelope.payload);
            Outcome::Pending(bridge.call_detached(&call.context(), &service, &method, arguments))
        })
        .method("start", move |bridge, call| {
            let (service, method, arguments) = wanted(&call.envelope.payload);
            let mut items = bridge.start(&call.context(), &service, &method, arguments, None, true);
            Outcome::Pending(Box::pin(async move { items.next().await.unwrap() }))
        })
        .method("feed", move |bridge, call| {
            let (service, method, arguments) = wanted(&call.envelope.payload);
            let (_, input) = Feed::new();
            let mut items = bridge.start(&call.context(), &service, &method, arguments, Some(input), false);
            Outcome::Pending(Box::pin(async move { items.next().await.unwrap() }))
        })
        .method("large", |bridge, call| {
            let pair = codec::arguments(&("k", Value::Bytes(vec![0; 3000]))).unwrap();
            bridge.call(&call.context(), "quadriga.kv", "put", pair.into())
        })
        // For loose code.
        .method("run", move |bridge, call| {
            let (service, method, arguments) = wanted(&call.envelope.payload);
            bridge.call(&call.context(), &service, &method, arguments)
        })
        .languages(&[LANGUAGE])
}

/// Tells it to call a method of a service.
pub(crate) fn wanted(service: &str, method: &str, arguments: impl Serialize) -> Bytes {
    let arguments = Value::from_bytes(&codec::arguments(&arguments).unwrap()).unwrap();
    codec::arguments(&(service, method, arguments)).unwrap().into()
}

/// Has an extension use the key-value store.
pub(crate) async fn kv<R: DeserializeOwned>(
    host: &Dispatcher,
    extension: &str,
    method: &str,
    arguments: impl Serialize,
) -> Result<R, Error> {
    let arguments = wanted("quadriga.kv", method, arguments);
    let reply = host.call(extension, "call", arguments, CallOptions::default()).await?;
    Ok(codec::from_bytes(&reply).unwrap())
}

pub(crate) fn only_kv() -> Permissions {
    Permissions { kv: true, ..Permissions::default() }
}
