//! Python extensions: what they can do, what goes wrong with them, and what stays out of reach.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use quadriga::abi::{Error, ErrorCode, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host};
use tempfile::TempDir;

const RELAY: &str = "relay.python";

/// Writes a package: its files, and a manifest unless one is among them.
fn package(id: &str, files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let manifest = format!(
        "[extension]\nid = \"{id}\"\nversion = \"0.1.0\"\n[runtime]\nkind = \"python\"\nentry = \"main.py\"\n\
         [permissions]\ncall = [\"*\"]\n[limits]\nload-timeout = \"1s\"\n"
    );
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    for (name, text) in files {
        let file = dir.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    dir
}

async fn load(host: &Dispatcher, dir: &Path) -> Result<String, Error> {
    host.load(dir, granted()).await.map(|id| id.to_string())
}

/// A host with the relay.
async fn relay() -> Dispatcher {
    let host = host();
    assert_eq!(load(&host, &guest("relay", "python")).await.unwrap(), RELAY);
    host
}

/// A host with one more extension, made of these files.
async fn with(id: &str, files: &[(&str, &str)]) -> (Dispatcher, TempDir) {
    let host = relay().await;
    let dir = package(id, files);
    load(&host, dir.path()).await.unwrap();
    (host, dir)
}

async fn call(host: &Dispatcher, id: &str, method: &str, arguments: Vec<Value>) -> Result<Value, Error> {
    call_with(host, id, method, arguments, CallOptions::default()).await
}

async fn call_with(
    host: &Dispatcher,
    id: &str,
    method: &str,
    arguments: Vec<Value>,
    options: CallOptions,
) -> Result<Value, Error> {
    let arguments = Value::List(arguments).to_bytes().unwrap();
    host.call(id, method, arguments, options).await.map(|reply| Value::from_bytes(&reply).unwrap())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

fn list(items: &[&str]) -> Value {
    Value::List(items.iter().map(|item| text(item)).collect())
}

async fn still_answers(host: &Dispatcher) {
    assert_eq!(call(host, RELAY, "add", vec![Value::Int(2), Value::Int(3)]).await.unwrap(), Value::Int(5));
}

#[tokio::test(flavor = "multi_thread")]
async fn loads_and_calls() {
    let host = relay().await;
    still_answers(&host).await;
    assert_eq!(call(&host, RELAY, "greet", vec![text("Ada")]).await.unwrap(), text("Hello, Ada, from python"));
    assert_eq!(call(&host, RELAY, "setting", vec![text("colour")]).await.unwrap(), text("green"));
    let sum: i64 = host.invoke(RELAY, "add", &(40, 2)).await.unwrap();
    assert_eq!(sum, 42);
}
