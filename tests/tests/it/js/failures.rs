//! What goes wrong with JavaScript, and how it is told.

use std::fs;

use quadriga::abi::{ErrorCode, Timestamp, Value};

use super::{RELAY, call, load, package, relay, text, unharmed, with};

/// What is wrong, the files, the code and the words of the error.
type Bad = (&'static str, &'static [(&'static str, &'static str)], ErrorCode, &'static str);

#[tokio::test]
async fn values_without_a_place_are_refused() {
    let source = r#"
        class Point { x = 1 }
        const cyclic = {}; cyclic.self = cyclic;
        export const cases = (which) => ({
            fn: () => () => 1,
            symbol: () => Symbol("s"),
            class: () => ({ deep: [new Point()] }),
            surrogate: () => "\ud800",
            key: () => ({ "\udc00": 1 }),
            big: () => 2n ** 64n,
            regexp: () => /x/,
            set: () => new Set(),
            date: () => new Date(NaN),
            promise: () => [Promise.resolve(1)],
            error: () => new Error("no"),
            cycle: () => cyclic,
            proxy: () => new Proxy({}, {}),
        })[which]();
        export const getter = () => ({ get a() { throw new TypeError("from a getter") } });
    "#;
    let (host, _dir) = with(source).await;
    let cases = [
        ("fn", "a function has no place"),
        ("symbol", "a symbol has no place"),
        ("class", "an object of the class Point has no place in the value table, at deep[0]"),
        ("surrogate", "lone surrogate"),
        ("key", "lone surrogate"),
        ("big", "beyond 64 bits"),
        ("regexp", "RegExp"),
        ("set", "Set"),
        ("date", "invalid Date"),
        ("promise", "Promise"),
        ("error", "Error"),
        ("cycle", "nested deeper than 128 levels, at self.self."),
        ("proxy", "no place"),
    ];
    for (case, words) in cases {
        let error = call(&host, "test.js", "cases", vec![text(case)]).await.expect_err(case);
        assert_eq!(error.code, ErrorCode::InvalidValue, "{case}: {error}");
        assert!(error.message.contains(words), "{case}: {error}");
    }
    let error = call(&host, "test.js", "getter", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "from a getter"));
    let error = call(&host, RELAY, "unplaced", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidValue, "{error}");
}

#[tokio::test]
async fn errors_carry_the_guests_own_stack() {
    let host = relay().await;
    let error = call(&host, RELAY, "fail", vec![text("on purpose")]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "on purpose"));
    let stack = error.stack.as_deref().unwrap();
    assert!(stack.starts_with("Error: on purpose\n    at fail (main.ts:"), "{stack}");
    assert!(!stack.contains("package:") && !stack.contains("ext:"), "{stack}");

    let error = call(&host, RELAY, "crash", vec![]).await.unwrap_err();
    assert_eq!(error.message, "crashed on purpose");
    #[cfg(feature = "js-v8")] // QuickJS keeps a stack for errors only, not for other things thrown.
    assert!(error.stack.as_deref().is_some_and(|stack| stack.contains("at crash (main.ts:")), "{error:?}");

    // The places are those of the TypeScript as it was written.
    let source = "interface A {\n  b: number;\n}\nexport function f(a: A): never { throw new RangeError(`${a.b}`); }\n";
    let dir = package("typed.js", &[("main.ts", source)], "");
    load(&host, dir.path()).await.unwrap();
    let argument = Value::Map(vec![(text("b"), Value::Int(7))]);
    let error = call(&host, "typed.js", "f", vec![argument]).await.unwrap_err();
    let stack = error.stack.as_deref().unwrap();
    assert!(stack.starts_with("RangeError: 7\n    at f (main.ts:4:4"), "{stack}");
}

#[tokio::test]
async fn errors_of_host_calls_are_caught_and_passed_on() {
    let source = r#"
        import { host, QuadrigaError } from "quadriga";
        export async function caught(method) {
            try {
                await host.call("relay.js", method, "inner");
            } catch (e) {
                return [e instanceof QuadrigaError, e instanceof Error, e.name, e.code, e.message, e.extension ?? null,
                    e.stack.includes("main.js"), e.cause.stack?.includes("main.ts") ?? null];
            }
        }
        export async function passed() { await host.call("relay.js", "fail", "inner"); }
        export async function wrapped() {
            try { await passed() } catch (e) { throw new Error("outer", { cause: e }) }
        }
        export async function unknown() { await host.call("no.such", "method"); }
        export async function unplaced() { await host.call("relay.js", "echo", () => 1); }
        export function forged() { throw new QuadrigaError("x", []); }
    "#;
    let (host, _dir) = with(source).await;
    let seen = call(&host, "test.js", "caught", vec![text("fail")]).await.unwrap();
    let expect = [
        Value::Bool(true),
        Value::Bool(true),
        text("QuadrigaError"),
        text("extension_error"),
        text("inner"),
        text("relay.js"),
        Value::Bool(true),
        Value::Bool(true),
    ];
    assert_eq!(seen, Value::List(expect.to_vec()));

    let error = call(&host, "test.js", "passed", vec![]).await.unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ErrorCode::ExtensionError, "inner"));
    assert!(error.stack.as_deref().unwrap().contains("main.js"), "{error:?}");
    assert_eq!(error.extension.as_deref(), Some("test.js"));
    let cause = error.cause.as_ref().unwrap();
    assert_eq!((cause.message.as_str(), cause.extension.as_deref()), ("inner", Some("relay.js")));
    assert!(cause.stack.as_deref().unwrap().contains("at fail (main.ts:"), "{cause:?}");

    let error = call(&host, "test.js", "wrapped", vec![]).await.unwrap_err();
    let messages: Vec<_> = error.chain().map(|error| error.message.as_str()).collect();
    assert_eq!(messages, ["outer", "inner", "inner"]);

    let cases = [
        ("unknown", ErrorCode::UnknownExtension),
        ("unplaced", ErrorCode::InvalidValue),
        ("forged", ErrorCode::ExtensionError),
    ];
    for (method, code) in cases {
        let error = call(&host, "test.js", method, vec![]).await.unwrap_err();
        assert_eq!(error.code, code, "{method}: {error}");
    }
}

#[tokio::test]
async fn bad_packages_fail_clearly_and_alone() {
    let host = relay().await;
    let cases: [Bad; 17] = [
        ("syntax error", &[("main.js", "export function f( {")], ErrorCode::EntryInvalid, "main.js:1:"),
        (
            "truncated",
            &[("main.js", "export function f() { return [1, ")],
            ErrorCode::EntryInvalid,
            "main.js:1:",
        ),
        ("type syntax error", &[("main.ts", "\nlet a: = 1;")], ErrorCode::EntryInvalid, "main.ts:2:8"),
        ("enum", &[("main.ts", "enum A { B }")], ErrorCode::EntryInvalid, "main.ts:1:1"),
        ("no code", &[("main.css", "a {}")], ErrorCode::EntryInvalid, "main.css is no .js"),
        ("not text", &[("main.js", "export const a = 1;\u{0}\u{1}")], ErrorCode::EntryInvalid, "main.js:1:"),
        (
            "throws",
            &[("main.js", "function f() { throw new Error('at once') }\nf();")],
            ErrorCode::LoadFailed,
            "at once",
        ),
        ("rejects", &[("main.js", "Promise.reject(new Error('unseen'));")], ErrorCode::LoadFailed, "unseen"),
        ("rejects later", &[("main.js", "await 0; throw new Error('late');")], ErrorCode::LoadFailed, "late"),
        ("waits for nothing", &[("main.js", "await new Promise(() => {});")], ErrorCode::LoadFailed, "await"),
        (
            "missing import",
            &[("main.js", "import './gone.js';")],
            ErrorCode::LoadFailed,
            "cannot read gone.js",
        ),
        (
            "missing export",
            &[("main.js", "import { x } from './a.js';"), ("a.js", "")],
            ErrorCode::EntryInvalid,
            "x",
        ),
        (
            "leaves",
            &[("main.js", "import '../../etc/passwd';")],
            ErrorCode::LoadFailed,
            "outside of the package",
        ),
        (
            "absolute",
            &[("main.js", "import '/etc/passwd';")],
            ErrorCode::LoadFailed,
            "not part of the package",
        ),
        (
            "web",
            &[("main.js", "import 'https://example.org/a.js';")],
            ErrorCode::LoadFailed,
            "not part of the package",
        ),
        (
            "node",
            &[("lib/a.js", "import 'node:fs';"), ("main.js", "import './lib/a.js';")],
            ErrorCode::LoadFailed,
            "lib/a.js imports \"node:fs\"",
        ),
        ("loops", &[("main.js", "while (true);")], ErrorCode::DeadlineExceeded, "the load took longer"),
    ];
    for (case, files, code, words) in cases {
        let dir = package("bad.js", files, "load-timeout = \"1s\"");
        let error = load(&host, dir.path()).await.unwrap_err();
        assert_eq!(error.code, code, "{case}: {error:?}");
        let shown = format!("{error} {}", error.stack.as_deref().unwrap_or_default());
        assert!(shown.contains(words), "{case}: {error:?}");
        assert!(!shown.contains("package:"), "{case}: {error:?}");
        unharmed(&host).await;
    }
    let dir = package("bad.js", &[("main.js", "")], "");
    fs::remove_file(dir.path().join("main.js")).unwrap();
    let error = load(&host, dir.path()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::EntryInvalid, "{error}");
    unharmed(&host).await;
}

#[tokio::test]
async fn wrong_calls_fail_clearly() {
    let host = relay().await;
    let error = call(&host, RELAY, "ad", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownMethod, "{error}");
    let error = call(&host, RELAY, "add", vec![Value::Int(1)]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    assert_eq!(error.message, "add(a, b) takes at least 2 arguments, 1 given");
    let far = Value::Timestamp(Timestamp::new(i64::MAX, 0).unwrap());
    let error = call(&host, RELAY, "echo", vec![far]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    unharmed(&host).await;
}

#[tokio::test]
#[cfg(unix)]
async fn links_out_of_the_package_are_refused() {
    let host = relay().await;
    let outside = tempfile::tempdir().unwrap();
    fs::write(outside.path().join("secret.js"), "export const secret = 1;").unwrap();
    let dir = package("bad.js", &[("main.js", "import './link.js';")], "");
    std::os::unix::fs::symlink(outside.path().join("secret.js"), dir.path().join("link.js")).unwrap();
    let error = load(&host, dir.path()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::LoadFailed, "{error}");
    assert!(error.message.contains("leaves the package"), "{error}");
    // Neither by import() later.
    let source = "export const f = async (path) => { await import(path); };";
    let dir = package("test.js", &[("main.js", source)], "");
    std::os::unix::fs::symlink(outside.path().join("secret.js"), dir.path().join("link.js")).unwrap();
    load(&host, dir.path()).await.unwrap();
    for path in
        ["./link.js", "../secret.js", "/etc/passwd", "file:///etc/passwd", "ext:core/mod.js", "ext:core/ops"]
    {
        let error = call(&host, "test.js", "f", vec![text(path)]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionError, "{path}: {error}");
    }
    unharmed(&host).await;
}
