//! Python extensions: what they can do, what goes wrong with them, and what stays out of reach.

mod bad;
mod calls;
mod contracts;
mod modules;
mod time;
mod together;

use std::fs;
use std::path::Path;

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
         [permissions]\ncall = [\"*\"]\n[limits]\nload-timeout = \"3s\"\n"
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
    // The list of arguments is no level of any of them.
    let mut payload = vec![0x90 | u8::try_from(arguments.len()).unwrap()];
    for argument in arguments {
        payload.extend(argument.to_bytes().unwrap());
    }
    host.call(id, method, payload, options).await.map(|reply| Value::from_bytes(&reply).unwrap())
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
    assert_eq!(
        call(&host, RELAY, "greet", vec![text("Ada")]).await.unwrap(),
        text("Hello, Ada, from python")
    );
    assert_eq!(call(&host, RELAY, "setting", vec![text("colour")]).await.unwrap(), text("green"));
    let sum: i64 = host.invoke(RELAY, "add", &(40, 2)).await.unwrap();
    assert_eq!(sum, 42);
}

#[tokio::test(flavor = "multi_thread")]
async fn describes_itself() {
    let main = "def area(width: int, height: 'int' = 1, *more: float) -> float:\n    \"\"\"Multiplies.\"\"\"\n\
                \ndef _hidden(): pass\nfrom os.path import join\nclass Thing: pass\n";
    let (host, _dir) = with("test.describe", &[("main.py", main)]).await;
    let methods = host.status("test.describe").unwrap().methods;
    assert_eq!(methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>(), ["area"]);
    let area = &methods[0];
    assert_eq!((area.doc.as_str(), area.returns.as_deref()), ("Multiplies.", Some("float")));
    let parameters = area.parameters.iter();
    let parameters: Vec<_> = parameters.map(|p| (p.name.as_str(), p.ty.as_deref(), p.optional)).collect();
    let expected =
        [("width", Some("int"), false), ("height", Some("int"), true), ("*more", Some("float"), true)];
    assert_eq!(parameters, expected);

    let main = "__all__ = ['join']\nfrom posixpath import join\ndef other(): pass\n";
    let (host, _dir) = with("test.listed", &[("main.py", main)]).await;
    let methods = host.status("test.listed").unwrap().methods;
    assert_eq!(methods.iter().map(|method| method.name.as_str()).collect::<Vec<_>>(), ["join"]);
    assert_eq!(call(&host, "test.listed", "join", vec![text("a"), text("b")]).await.unwrap(), text("a/b"));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_round_trip() {
    let host = relay().await;
    let check = async |value: Value, comes_back: Value| {
        assert_eq!(call(&host, RELAY, "echo", vec![value.clone()]).await.unwrap(), comes_back, "{value:?}");
    };
    let mut deep = Value::Nil;
    for _ in 0..128 {
        deep = Value::List(vec![deep]);
    }
    let keys =
        [Value::Nil, Value::Bool(true), Value::Int(7), text("k"), Value::Bytes(vec![1]), Value::Float(0.5)];
    for value in [
        Value::Nil,
        Value::Bool(true),
        Value::Int(0),
        Value::Int(i64::MIN),
        Value::Int(-1),
        Value::Int(i64::MAX),
        Value::UInt(u64::MAX),
        Value::Int(1 << 53),
        Value::Float(0.1),
        Value::Float(f64::INFINITY),
        Value::Float(2.0),
        text(""),
        text("naïve 🐎\0"),
        Value::Bytes(vec![]),
        Value::Bytes((0..=255).collect()),
        Value::List(vec![]),
        Value::List(vec![Value::Int(1), Value::List(vec![text("a")])]),
        Value::Map(keys.into_iter().map(|key| (key, Value::Int(1))).collect()),
        Value::Map(vec![(Value::List(vec![Value::Int(1), Value::Int(2)]), text("pair"))]),
        Value::Timestamp(Timestamp::new(0, 0).unwrap()),
        Value::Timestamp(Timestamp::new(1_700_000_000, 123_456_000).unwrap()),
        Value::Timestamp(Timestamp::new(-62_135_596_800, 0).unwrap()),
        Value::Timestamp(Timestamp::new(253_402_300_799, 999_999_000).unwrap()),
        Value::Timestamp(Timestamp::new(1, 999_999_999).unwrap()),
        deep.clone(),
    ] {
        check(value.clone(), value).await;
    }
    let nan = call(&host, RELAY, "echo", vec![Value::Float(f64::NAN)]).await.unwrap();
    assert!(matches!(nan, Value::Float(x) if x.is_nan()));
    let zero = call(&host, RELAY, "echo", vec![Value::Float(-0.0)]).await.unwrap();
    assert!(matches!(zero, Value::Float(x) if x.is_sign_negative()));
    for bad in [
        Value::Map(vec![(Value::Int(1), Value::Nil), (Value::Float(1.0), Value::Nil)]),
        Value::Map(vec![(Value::Map(vec![]), Value::Nil)]),
        Value::Timestamp(Timestamp::new(300_000_000_000, 0).unwrap()),
    ] {
        let error = call(&host, RELAY, "echo", vec![bad]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{error:?}");
        assert!(error.message.contains("argument 1"), "{error}");
    }
    let too_deep = [vec![0x91; 130], vec![0xc0]].concat();
    let error = host.call(RELAY, "echo", too_deep, CallOptions::default()).await.unwrap_err();
    assert!(error.message.contains("deeper than 128"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn other_types_of_python_find_their_place() {
    let main = r#"
import collections, datetime, enum

class Colour(enum.IntEnum):
    RED = 1

class Name(str):
    pass

def many():
    zone = datetime.timezone(datetime.timedelta(hours=2))
    return [
        (1, 2), bytearray(b"a"), memoryview(b"b"), Colour.RED, Name("n"),
        collections.OrderedDict(a=1), datetime.datetime(1970, 1, 1, 2, tzinfo=zone),
    ]
"#;
    let (host, _dir) = with("test.types", &[("main.py", main)]).await;
    let expected = Value::List(vec![
        Value::List(vec![Value::Int(1), Value::Int(2)]),
        Value::Bytes(b"a".to_vec()),
        Value::Bytes(b"b".to_vec()),
        Value::Int(1),
        text("n"),
        Value::Map(vec![(text("a"), Value::Int(1))]),
        Value::Timestamp(Timestamp::new(0, 0).unwrap()),
    ]);
    assert_eq!(call(&host, "test.types", "many", vec![]).await.unwrap(), expected);
}
