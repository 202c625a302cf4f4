//! Modules: each extension has its own, libraries included, and loses them when it goes.

use std::fs;
use std::path::Path;

use quadriga::abi::{ErrorCode, Value};
use quadriga_tests::{example, host};

use super::{call, list, load, package, relay, text, with};

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
        let lazy =
            Value::List(vec![at("late"), at("sub"), at("other"), Value::Bool(true), Value::Bool(true)]);
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
    let dir = package(
        "test.gone",
        &[
            ("main.py", "import helpers, typing\nclass C: pass\nX = typing.List[C]\ndef f(): pass\n"),
            ("helpers.py", "import main"),
        ],
    );
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
        let dir =
            package(id, &[("main.py", main), ("vendor/fast/__init__.py", &fast), ("vendor/pure.py", "")]);
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
    assert_eq!(
        (error.code, error.message.as_str()),
        (ErrorCode::ExtensionError, "ValueError: asked to explode")
    );
    let styles: String = host.invoke("site.highlight", "styles", &()).await.unwrap();
    assert!(styles.contains(".k {") && styles.contains("prefers-color-scheme: dark"), "{styles}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_greets() {
    let host = host();
    load(&host, &example("hello", "python")).await.unwrap();
    assert_eq!(host.invoke::<String>("hello.python", "greet", &("Ada",)).await.unwrap(), "Hello, Ada");
}
