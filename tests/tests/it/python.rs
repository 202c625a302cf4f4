//! Python extensions: what they can do, what goes wrong with them, and what stays out of reach.

use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quadriga::abi::{Error, ErrorCode, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{example, granted, guest, host};
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
    assert_eq!(call(&host, RELAY, "greet", vec![text("Ada")]).await.unwrap(), text("Hello, Ada, from python"));
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
async fn bad_packages_are_refused() {
    use ErrorCode::{DeadlineExceeded, EntryInvalid, LoadFailed};
    let host = relay().await;
    let check = async |files: &[(&str, &str)], code: ErrorCode, words: &[&str]| {
        let dir = package("test.bad", files);
        let started = Instant::now();
        let error = load(&host, dir.path()).await.unwrap_err();
        let all = format!("{error} {}", error.stack.as_deref().unwrap_or_default());
        assert_eq!(error.code, code, "{files:?}: {error:?}");
        for word in words {
            assert!(all.contains(word), "{files:?}: {word:?} is not in {all}");
        }
        assert!(!all.contains("@test-bad"), "{all}");
        assert!(started.elapsed() < Duration::from_secs(4), "{files:?}");
        still_answers(&host).await;
    };
    check(&[], EntryInvalid, &["main.py"]).await;
    check(&[("main.py", "def answer(")], EntryInvalid, &["main.py:1", "'(' was never closed"]).await;
    check(&[("main.py", "x = 1\n\ndef f(:\n  pass\n")], EntryInvalid, &["main.py:3", "def f(:"]).await;
    check(&[("main.py", "x = 1\0")], EntryInvalid, &["null bytes"]).await;
    let files = [("main.py", "import helpers"), ("helpers.py", "if x:\n")];
    check(&files, EntryInvalid, &["helpers.py:1", "expected an indented block"]).await;
    let words = ["ModuleNotFoundError: No module named 'nowhere'", "File \"main.py\", line 2"];
    check(&[("main.py", "\nimport nowhere")], LoadFailed, &words).await;
    // The host's own packages are out of reach.
    check(&[("main.py", "import pip")], LoadFailed, &["No module named 'pip'"]).await;
    let files = [("main.py", "import pkg.nowhere"), ("pkg/__init__.py", "")];
    check(&files, LoadFailed, &["No module named 'pkg.nowhere'"]).await;
    let files = [("main.py", "from pkg import nowhere"), ("pkg/__init__.py", "")];
    check(&files, LoadFailed, &["cannot import name 'nowhere' from 'pkg'"]).await;
    let main = "def f():\n    raise ValueError('no luck')\nf()\n";
    check(&[("main.py", main)], LoadFailed, &["ValueError: no luck", "line 2, in f", "line 3, in <module>"]).await;
    check(&[("main.py", "import sys\nsys.exit(3)")], LoadFailed, &["SystemExit(3)"]).await;
    check(&[("main.py", "__all__ = ['gone']")], LoadFailed, &["__all__ lists 'gone'"]).await;
    check(&[("main.py", "while True: pass")], DeadlineExceeded, &["did not end in time"]).await;
    let stubborn = "while True:\n  try:\n    while True: pass\n  except BaseException: pass\n";
    let mut stubborn_once = stubborn.replace("while True:\n  try", "for _ in range(3):\n  try");
    stubborn_once.push_str("def f(): pass\n");
    check(&[("main.py", &stubborn_once)], DeadlineExceeded, &["did not end in time"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_calls_fail_alone() {
    use ErrorCode::{ExtensionError, ExtensionPanicked, InvalidArguments, InvalidValue, UnknownMethod};
    let main = r#"
import datetime, functools

def inner():
    return len(5)

def typo():
    return inner()

def huge():
    return {"n": [1, 2**64]}

def surrogate():
    return "\ud800"

def naive():
    return [datetime.datetime(2020, 1, 1)]

def generator():
    yield 1

def cyclic():
    x = []
    x.append(x)
    return x

def keys():
    return {object: 1}

class Odd(Exception):
    def __str__(self):
        raise RuntimeError("odd indeed")

def odd():
    raise Odd

class Own(ValueError):
    pass

def own():
    try:
        inner()
    except TypeError as error:
        raise Own("mine") from error

def quit():
    raise KeyboardInterrupt

@functools.lru_cache
def cached(a):
    return a

def keyword(*, a):
    return a
"#;
    let (host, _dir) = with("test.calls", &[("main.py", main)]).await;
    let check = async |id: &str, method: &str, arguments: Vec<Value>, code: ErrorCode, words: &[&str]| {
        let error = call(&host, id, method, arguments).await.unwrap_err();
        assert_eq!(error.code, code, "{method}: {error:?}");
        let all = format!("{error} {}", error.stack.as_deref().unwrap_or_default());
        for word in words {
            assert!(all.contains(word), "{method}: {word:?} is not in {all}");
        }
        assert!(!all.contains("@test") && !all.contains("/tmp"), "{all}");
        still_answers(&host).await;
    };
    check(RELAY, "gret", vec![], UnknownMethod, &["gret"]).await;
    check(RELAY, "greet", vec![], InvalidArguments, &["greet(name: str)", "missing", "'name'"]).await;
    check(RELAY, "greet", vec![Value::Nil; 3], InvalidArguments, &["greet(name: str)", "too many"]).await;
    check("test.calls", "cached", vec![], InvalidArguments, &["cached(a)"]).await;
    check("test.calls", "keyword", vec![Value::Nil], InvalidArguments, &["keyword(*, a)"]).await;
    let words = ["unplaced", "object has no place among values"];
    check(RELAY, "unplaced", vec![], InvalidValue, &words).await;
    check(RELAY, "fail", vec![text("boom")], ExtensionError, &["boom", "File \"main.py\", line ", "in fail"]).await;
    check(RELAY, "crash", vec![], ExtensionPanicked, &["the guest gave up", "in crash"]).await;
    check("test.calls", "quit", vec![], ExtensionPanicked, &["KeyboardInterrupt"]).await;
    let words = ["TypeError: object of type 'int'", "line 5, in inner", "line 8, in typo"];
    check("test.calls", "typo", vec![], ExtensionError, &words).await;
    check("test.calls", "huge", vec![], InvalidValue, &["['n'][1]", "beyond 64 bits"]).await;
    check("test.calls", "surrogate", vec![], InvalidValue, &["lone surrogate"]).await;
    check("test.calls", "naive", vec![], InvalidValue, &["[0]", "without a time zone"]).await;
    check("test.calls", "generator", vec![], InvalidValue, &["generator"]).await;
    check("test.calls", "cyclic", vec![], InvalidValue, &["deeper than 128"]).await;
    check("test.calls", "keys", vec![], InvalidValue, &["the key", "type"]).await;
    check("test.calls", "odd", vec![], ExtensionError, &["Odd"]).await;
    check("test.calls", "own", vec![], ExtensionError, &["Own: mine", "direct cause", "in inner"]).await;
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
    let keys = [Value::Nil, Value::Bool(true), Value::Int(7), text("k"), Value::Bytes(vec![1]), Value::Float(0.5)];
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
        deep.clone(),
    ] {
        check(value.clone(), value).await;
    }
    check(
        Value::Timestamp(Timestamp::new(1, 999_999_999).unwrap()),
        Value::Timestamp(Timestamp::new(1, 999_999_000).unwrap()),
    )
    .await;
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
        assert_eq!(error.code, ErrorCode::InvalidValue, "{error:?}");
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

#[tokio::test(flavor = "multi_thread")]
async fn modules_of_the_same_name_stay_apart() {
    let main = r#"
import dataclasses, importlib, pickle, sys, threading, typing
import helpers, lib
from lib import version

@dataclasses.dataclass
class Point:
    x: "Number"

Number = int

def eager():
    return [helpers.NAME, version.VERSION, lib.version.VERSION]

def lazy():
    import late
    from lib import sub
    named = __import__("lib.other", None, None, ["*"])
    found = importlib.import_module("lib.sub")
    relative = importlib.import_module(".sub", "lib")
    spec = importlib.util.find_spec("lib.sub") is not None
    module = sys.modules[Point.__module__]
    return [late.NAME, sub.NAME, named.NAME, found is sub and relative is sub and spec, module.Number is int]

def threaded():
    out = []
    threads = [threading.Thread(target=lambda: out.append(lazy())) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    return out

def standard():
    point = pickle.loads(pickle.dumps(Point(3)))
    return [point == Point(3), typing.get_type_hints(Point)["x"] is int]
"#;
    let files = |name: &'static str| {
        let text = |at: &str| format!("NAME = VERSION = '{name}{at}'\n");
        vec![
            ("main.py", main.to_owned()),
            ("helpers.py", text(" helpers")),
            ("late.py", text(" late")),
            ("vendor/lib/__init__.py", "from . import version\n".to_owned()),
            ("vendor/lib/version.py", text(" version")),
            ("vendor/lib/sub.py", format!("from lib.version import VERSION\n{}", text(" sub"))),
            ("vendor/lib/other.py", text(" other")),
        ]
    };
    let host = relay().await;
    let mut kept = Vec::new();
    for name in ["one", "two"] {
        let files = files(name);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let dir = package(&format!("test.{name}"), &files);
        load(&host, dir.path()).await.unwrap();
        kept.push(dir);
    }
    for name in ["one", "two"] {
        let id = format!("test.{name}");
        let at = |place: &str| text(&format!("{name} {place}"));
        let eager = Value::List(vec![at("helpers"), at("version"), at("version")]);
        assert_eq!(call(&host, &id, "eager", vec![]).await.unwrap(), eager);
        let lazy = Value::List(vec![at("late"), at("sub"), at("other"), Value::Bool(true), Value::Bool(true)]);
        assert_eq!(call(&host, &id, "threaded", vec![]).await.unwrap(), Value::List(vec![lazy.clone(); 4]));
        assert_eq!(call(&host, &id, "lazy", vec![]).await.unwrap(), lazy);
        let yes = Value::List(vec![Value::Bool(true), Value::Bool(true)]);
        assert_eq!(call(&host, &id, "standard", vec![]).await.unwrap(), yes);
    }
    // A reload sees what is in the folder now.
    fs::write(kept[0].path().join("helpers.py"), "NAME = 'new'\n").unwrap();
    host.reload("test.one").await.unwrap();
    let eager: Vec<String> = host.invoke("test.one", "eager", &()).await.unwrap();
    assert_eq!(eager[0], "new");
    let eager: Vec<String> = host.invoke("test.two", "eager", &()).await.unwrap();
    assert_eq!(eager[0], "two helpers");
}

#[tokio::test(flavor = "multi_thread")]
async fn unloading_frees_the_modules() {
    let main = r#"
import gc, sys, types

def modules():
    gc.collect()
    alive = [m.__name__ for m in gc.get_objects() if isinstance(m, types.ModuleType)]
    return sorted(n for n in {*alive, *sys.modules} if n.startswith("@test-gone"))
"#;
    let (host, _dir) = with("test.observer", &[("main.py", main)]).await;
    let dir = package("test.gone", &[("main.py", "import helpers, typing\nclass C: pass\nX = typing.List[C]\ndef f(): pass\n"), ("helpers.py", "import main")]);
    let modules = async || host.invoke::<Vec<String>>("test.observer", "modules", &()).await.unwrap();
    assert!(modules().await.is_empty());
    for _ in 0..3 {
        load(&host, dir.path()).await.unwrap();
        let loaded = modules().await;
        for name in [".main", ".helpers"] {
            assert!(loaded.iter().any(|module| module.ends_with(name)), "{loaded:?}");
        }
        host.unload("test.gone").await.unwrap();
        assert_eq!(modules().await, Vec::<String>::new());
    }
    fs::write(dir.path().join("main.py"), "import helpers\nraise ValueError\n").unwrap();
    load(&host, dir.path()).await.unwrap_err();
    assert_eq!(modules().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn deadlines_end_one_call_alone() {
    let main = r#"
import asyncio, time
from quadriga import host

def stubborn():
    while True:
        try:
            while True: pass
        except BaseException: pass

def swallow():
    try:
        while True: pass
    except BaseException:
        return "gave in"

async def asleep():
    await asyncio.sleep(60)

def through():
    return host.call("relay.python", "spin")

def caught():
    try:
        host.call("relay.python", "spin")
    except Exception as error:
        return error.code

def count():
    end = time.monotonic() + 0.6
    n = 0
    while time.monotonic() < end: n += 1
    return "done"
"#;
    let (host, _dir) = with("test.slow", &[("main.py", main)]).await;
    let late = async |id: &str, method: &str| {
        let started = Instant::now();
        let options = CallOptions::default().timeout(Duration::from_millis(200));
        let error = call_with(&host, id, method, vec![], options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{method}: {error:?}");
        assert!(started.elapsed() < Duration::from_secs(2), "{method}: {:?}", started.elapsed());
        still_answers(&host).await;
    };
    // A sibling on another thread goes on, and so does the next call on this one.
    let sibling = {
        let host = host.clone();
        tokio::spawn(async move { call(&host, "test.slow", "count", vec![]).await })
    };
    late(RELAY, "spin").await;
    assert_eq!(sibling.await.unwrap().unwrap(), text("done"));
    for method in ["swallow", "asleep", "through", "caught"] {
        late("test.slow", method).await;
    }
    for _ in 0..20 {
        still_answers(&host).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn coroutines_run_to_their_end() {
    let main = r#"
import asyncio
from quadriga import host

async def twice(n):
    """Waits a little."""
    await asyncio.sleep(0.01)
    return await asyncio.gather(part(n), part(n + 1))

async def part(n):
    return n * 2

async def nested(depth):
    return host.call("test.wait", "nested", depth - 1) + 1 if depth else 0

async def fails():
    await asyncio.sleep(0)
    raise ValueError("later")
"#;
    let (host, _dir) = with("test.wait", &[("main.py", main)]).await;
    assert_eq!(host.invoke::<Vec<i64>>("test.wait", "twice", &(2,)).await.unwrap(), [4, 6]);
    assert_eq!(host.invoke::<i64>("test.wait", "nested", &(3,)).await.unwrap(), 3);
    let error = call(&host, "test.wait", "fails", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "ValueError: later"));
    assert!(error.stack.unwrap().contains("in fails"));
}

#[test]
fn eight_threads_call_at_once() {
    let executor = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let host = executor.block_on(relay());
    std::thread::scope(|scope| {
        for thread in 0..8_i64 {
            let (host, executor) = (&host, &executor);
            scope.spawn(move || {
                for n in 0..200 {
                    let sum: i64 = executor.block_on(host.invoke(RELAY, "add", &(thread, n))).unwrap();
                    assert_eq!(sum, thread + n);
                }
            });
        }
    });
    assert_eq!(host.status(RELAY).unwrap().metrics.calls, 1600);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_go_through_one_extension_into_another_and_itself() {
    let (host, _dir) = with("test.other", &[("main.py", "from quadriga import host\ndef chain(path):\n    rest = host.call(path[0], 'chain', path[1:]) if path else []\n    return ['other', *rest]\n")]).await;
    let path = list(&["test.other", RELAY, RELAY, "test.other", RELAY, "test.other", RELAY]);
    let languages = list(&["python", "other", "python", "python", "other", "python", "other", "python"]);
    assert_eq!(call(&host, RELAY, "chain", vec![path]).await.unwrap(), languages);
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_the_host_and_of_others_keep_their_chain() {
    let main = r#"
from quadriga import QuadrigaError, host

def caught(extension, method):
    try:
        host.call(extension, method, "boom")
    except QuadrigaError as error:
        return [error.code, error.message, error.extension, "in fail" in (error.stack or ""), str(error)]

def through():
    host.call("relay.python", "fail", "boom")

def wrapped():
    try:
        host.call("relay.python", "fail", "boom")
    except QuadrigaError as error:
        raise ValueError("outer") from error

def own():
    raise QuadrigaError("permission_denied", "not today", hint="come back")

def unplaced():
    host.call("relay.python", "echo", {"a": object()})
"#;
    let (host, _dir) = with("test.errors", &[("main.py", main)]).await;
    let caught = call(&host, "test.errors", "caught", vec![text(RELAY), text("fail")]).await.unwrap();
    let yes = Value::Bool(true);
    let expected = vec![text("extension_error"), text("boom"), text(RELAY), yes, text("boom")];
    assert_eq!(caught, Value::List(expected));
    let caught = call(&host, "test.errors", "caught", vec![text("no.one"), text("fail")]).await.unwrap();
    assert!(matches!(caught, Value::List(fields) if fields[0] == text("unknown_extension")));

    let error = call(&host, "test.errors", "through", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "boom"));
    assert_eq!(error.extension.as_deref(), Some("test.errors"));
    assert!(error.stack.as_ref().unwrap().contains("in through"), "{error:?}");
    let cause = error.cause.unwrap();
    assert_eq!((cause.message.as_str(), cause.extension.as_deref()), ("boom", Some(RELAY)));
    assert!(cause.stack.as_ref().unwrap().contains("in fail"), "{cause:?}");
    assert!(cause.cause.is_none());

    let error = call(&host, "test.errors", "wrapped", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "ValueError: outer"));
    assert_eq!(error.cause.unwrap().extension.as_deref(), Some(RELAY));

    let error = call(&host, "test.errors", "own", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.hint.as_deref()), (ErrorCode::PermissionDenied, Some("come back")));

    let error = call(&host, "test.errors", "unplaced", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidValue);
    assert!(error.message.contains("argument 1['a']"), "{error}");
}

#[test]
fn prints_go_to_the_log() {
    let main = r#"
import sys, threading, warnings
from quadriga import host

def speak():
    print("one", "two", end=" ")
    print("three\nfour")
    print("to stderr", file=sys.stderr)
    host.log.debug("five")
    thread = threading.Thread(target=print, args=("a thread",))
    thread = threading.Thread(target=lambda: print("six"))
    thread.start()
    thread.join()
    print("seven", end="")
"#;
    let lines = Lines::default();
    let writer = lines.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
        .with_ansi(false)
        .without_time()
        .with_writer(move || writer.clone())
        .finish();
    let guard = tracing::subscriber::set_default(subscriber);
    // One thread for everything, since the subscriber is this thread's.
    let executor = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    executor.block_on(async {
        let (host, _dir) = with("test.print", &[("main.py", main)]).await;
        call(&host, "test.print", "speak", vec![]).await.unwrap();
        call(&host, RELAY, "log", vec![text("hello")]).await.unwrap();
        host.shutdown().await;
    });
    drop(guard);
    let log = lines.text();
    for line in [
        "INFO quadriga::guest: one two three extension=\"test.print\"",
        "INFO quadriga::guest: four extension=\"test.print\"",
        "WARN quadriga::guest: to stderr extension=\"test.print\"",
        "DEBUG quadriga::guest: five extension=\"test.print\"",
        "INFO quadriga::guest: hello extension=\"relay.python\"",
    ] {
        assert!(log.contains(line), "{line:?} is not in:\n{log}");
    }
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl std::io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn compiled_libraries_are_shared_and_a_second_copy_is_refused() {
    let find = r#"
import importlib.util
def compiled():
    for name in ["_queue", "_lsprof", "_multibytecodec", "_asyncio", "termios", "_ctypes"]:
        origin = importlib.util.find_spec(name).origin
        if origin != "built-in":
            return [name, origin]
"#;
    let (host, _dir) = with("test.find", &[("main.py", find)]).await;
    let [name, origin]: [String; 2] = host.invoke("test.find", "compiled", &()).await.unwrap();
    let file = Path::new(&origin).file_name().unwrap().to_str().unwrap().to_owned();
    let make = |id: &str, version: &str| {
        let main = "import fast, pure\ndef version(): return [fast.VERSION, fast.__name__, pure.__name__]\n";
        let fast = format!("from fast import {name}\nimport pure\nVERSION = {version:?}\n");
        let dir = package(id, &[("main.py", main), ("vendor/fast/__init__.py", &fast), ("vendor/pure.py", "")]);
        fs::copy(&origin, dir.path().join("vendor/fast").join(&file)).unwrap();
        dir
    };
    let expected = ["1", "fast", "pure"];
    let first = make("test.first", "1");
    let other = make("test.second", "2");
    let same = make("test.third", "1");
    load(&host, first.path()).await.unwrap();
    assert_eq!(host.invoke::<[String; 3]>("test.first", "version", &()).await.unwrap(), expected);
    let error = load(&host, other.path()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LoadFailed);
    assert!(error.message.contains("compiled code") && error.message.contains("'fast'"), "{error}");
    load(&host, same.path()).await.unwrap();
    assert_eq!(host.invoke::<[String; 3]>("test.third", "version", &()).await.unwrap(), expected);
    host.reload("test.first").await.unwrap();
    assert_eq!(host.invoke::<[String; 3]>("test.first", "version", &()).await.unwrap(), expected);
    // Nobody else sees it.
    let dir = package("test.fourth", &[("main.py", "import fast")]);
    let error = load(&host, dir.path()).await.unwrap_err();
    assert!(error.message.contains("No module named 'fast'"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn libraries_find_their_own_metadata_and_files() {
    let main = r#"
import importlib.metadata, importlib.resources
import lib

def about():
    return [importlib.metadata.version("lib"), importlib.resources.files("lib").joinpath("data.txt").read_text(), lib.plugins()]
"#;
    let lib = "import importlib, pkgutil\ndef plugins():\n    return [importlib.import_module('lib.' + m.name).NAME for m in pkgutil.iter_modules(__path__)]\n";
    let files = [
        ("main.py", main),
        ("vendor/lib/__init__.py", lib),
        ("vendor/lib/plugin.py", "NAME = 'plugged'"),
        ("vendor/lib/data.txt", "data"),
        ("vendor/lib-3.2.dist-info/METADATA", "Metadata-Version: 2.1\nName: lib\nVersion: 3.2\n"),
    ];
    let (host, _dir) = with("test.meta", &files).await;
    let expected = Value::List(vec![text("3.2"), text("data"), list(&["plugged"])]);
    assert_eq!(call(&host, "test.meta", "about", vec![]).await.unwrap(), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn highlights_code_with_pygments() {
    let host = host();
    load(&host, &example("site", "highlight")).await.unwrap();
    let highlight = async |code: &str, language: &str| {
        call(&host, "site.highlight", "highlight", vec![text(code), text(language)]).await
    };
    for (code, language, html) in [
        ("def f(): pass", "python", "<span class=\"k\">def</span>"),
        ("fn main() {}", "rust", "<span class=\"k\">fn</span>"),
        ("a <b>", "no such language", "a &lt;b&gt;"),
    ] {
        let reply = highlight(code, language).await.unwrap();
        assert!(matches!(&reply, Value::Text(reply) if reply.contains(html)), "{language}: {reply:?}");
    }
    let error = highlight("x", "explode").await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "ValueError: asked to explode"));
    let styles: String = host.invoke("site.highlight", "styles", &()).await.unwrap();
    assert!(styles.contains(".k {") && styles.contains("prefers-color-scheme: dark"), "{styles}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_greets() {
    let host = host();
    load(&host, &example("hello", "python")).await.unwrap();
    assert_eq!(host.invoke::<String>("hello.python", "greet", &("Ada",)).await.unwrap(), "Hello, Ada");
}
