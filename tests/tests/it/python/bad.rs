//! Bad packages and bad calls: a clear error, and the rest still works.

use std::time::{Duration, Instant};

use quadriga::abi::{ErrorCode, Value};

use super::{RELAY, call, load, package, relay, still_answers, text, with};

#[tokio::test(flavor = "multi_thread")]
async fn slow_bad_packages_are_refused() {
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
    // Ended in the middle of imports, whose locks what follows needs.
    let main = "import importlib, json\nwhile True: importlib.reload(json)\n";
    check(&[("main.py", main)], DeadlineExceeded, &["did not end in time"]).await;
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
    check(&[("main.py", main)], LoadFailed, &["ValueError: no luck", "line 2, in f", "line 3, in <module>"])
        .await;
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
    return (n for n in [1])

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
    check(RELAY, "fail", vec![text("boom")], ExtensionError, &["boom", "File \"main.py\", line ", "in fail"])
        .await;
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
