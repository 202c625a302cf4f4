//! JavaScript and TypeScript extensions: what they can do, what goes wrong with them, and what
//! stays out of reach. All of it holds on V8 and on QuickJS.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use quadriga::abi::{Error, ErrorCode, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host};
use tempfile::TempDir;

const RELAY: &str = "relay.js";

/// Writes a package of these files, with `main.js` or `main.ts` as its entry.
fn package(id: &str, files: &[(&str, &str)], limits: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let entry = files.iter().map(|(name, _)| *name).find(|name| name.starts_with("main.")).unwrap_or("main.js");
    let manifest = format!(
        "[extension]\nid = \"{id}\"\nversion = \"0.1.0\"\n[runtime]\nkind = \"javascript\"\nentry = \"{entry}\"\n\
         [permissions]\ncall = [\"*\"]\n[limits]\n{limits}\n"
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
    assert_eq!(load(&host, &guest("relay", "js")).await.unwrap(), RELAY);
    host
}

/// A host with the relay and one more extension, `test.js`, made of one file.
async fn with(source: &str) -> (Dispatcher, TempDir) {
    with_limits(source, "").await
}

async fn with_limits(source: &str, limits: &str) -> (Dispatcher, TempDir) {
    let host = relay().await;
    let dir = package("test.js", &[("main.js", source)], limits);
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
    let reply = host.call(id, method, arguments, options).await?;
    Ok(Value::from_bytes(&reply).unwrap())
}

fn text(text: &str) -> Value {
    Value::Text(text.to_owned())
}

/// The relay still answers.
async fn unharmed(host: &Dispatcher) {
    let reply = call(host, RELAY, "add", vec![Value::Int(1), Value::Int(2)]).await;
    assert_eq!(reply.unwrap(), Value::Int(3));
}

#[tokio::test]
async fn the_relay_answers() {
    let host = relay().await;
    let cases = [
        ("greet", vec![text("Ada")], text("Hello, Ada, from js")),
        ("setting", vec![text("colour")], text("green")),
        ("chain", vec![Value::List(vec![])], Value::List(vec![text("js")])),
        ("chain", vec![Value::List(vec![text(RELAY), text(RELAY)])], Value::List(vec![text("js"); 3])),
        ("log", vec![text("a line")], Value::Nil),
    ];
    for (method, arguments, expect) in cases {
        assert_eq!(call(&host, RELAY, method, arguments).await.unwrap(), expect, "{method}");
    }
    let through = vec![text(RELAY), text("add"), Value::List(vec![Value::Int(2), Value::Int(3)])];
    assert_eq!(call(&host, RELAY, "relay", through).await.unwrap(), Value::Int(5));
}

#[tokio::test]
async fn values_read_back() {
    let host = relay().await;
    let time = |seconds, ms: u32| Value::Timestamp(Timestamp::new(seconds, ms * 1_000_000).unwrap());
    let nested = (0..120).fold(Value::Nil, |value, _| Value::List(vec![value]));
    let values = [
        Value::Nil,
        Value::Bool(true),
        Value::Bool(false),
        Value::Int(0),
        Value::Int(-1),
        Value::Int(i64::from(i32::MIN)),
        Value::Int((1 << 53) - 1),
        Value::Int(1 << 53),
        Value::Int(i64::MIN),
        Value::Int(i64::MAX),
        Value::UInt(u64::MAX),
        Value::Float(0.5),
        Value::Float(f64::INFINITY),
        Value::Float(1e300),
        text(""),
        text("plain"),
        text("Zürich"),
        text("日本 🐎"),
        Value::Bytes(vec![]),
        Value::Bytes((0..=255).collect()),
        Value::List(vec![Value::Int(1), text("two"), Value::Nil]),
        Value::Map(vec![(text("a"), Value::Int(1)), (text("__proto__"), Value::Int(2))]),
        Value::Map(vec![(Value::Int(1), text("one")), (text("two"), Value::Int(2))]),
        Value::Map(vec![]),
        time(0, 0),
        time(1_700_000_000, 123),
        time(-1, 999),
        nested,
    ];
    for value in values {
        assert_eq!(call(&host, RELAY, "echo", vec![value.clone()]).await.unwrap(), value);
    }
    let Value::Float(zero) = call(&host, RELAY, "echo", vec![Value::Float(-0.0)]).await.unwrap() else {
        panic!("-0 is a float");
    };
    assert!(zero == 0.0 && zero.is_sign_negative());
    // A float that is whole comes back as the integer that it is to JavaScript.
    assert_eq!(call(&host, RELAY, "echo", vec![Value::Float(2.0)]).await.unwrap(), Value::Int(2));
    let Value::Float(nan) = call(&host, RELAY, "echo", vec![Value::Float(f64::NAN)]).await.unwrap() else {
        panic!("NaN is a float");
    };
    assert!(nan.is_nan());
}

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
        ("cycle", "too deep"),
        ("proxy", "no place"),
    ];
    for (case, words) in cases {
        let error = call(&host, "test.js", "cases", vec![text(case)]).await.unwrap_err();
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
    let stack = error.stack.unwrap();
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
    let stack = error.stack.unwrap();
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
    let cause = error.cause.unwrap();
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
    let cases: [(&str, &[(&str, &str)], ErrorCode, &str); 17] = [
        ("syntax error", &[("main.js", "export function f( {")], ErrorCode::EntryInvalid, "main.js:1:"),
        ("truncated", &[("main.js", "export function f() { return [1, ")], ErrorCode::EntryInvalid, "main.js:1:"),
        ("type syntax error", &[("main.ts", "\nlet a: = 1;")], ErrorCode::EntryInvalid, "main.ts:2:8"),
        ("enum", &[("main.ts", "enum A { B }")], ErrorCode::EntryInvalid, "main.ts:1:1"),
        ("no code", &[("main.css", "a {}")], ErrorCode::EntryInvalid, "main.css is no .js"),
        ("not text", &[("main.js", "export const a = 1;\u{0}\u{1}")], ErrorCode::EntryInvalid, "main.js:1:"),
        ("throws", &[("main.js", "function f() { throw new Error('at once') }\nf();")], ErrorCode::LoadFailed, "at once"),
        ("rejects", &[("main.js", "Promise.reject(new Error('unseen'));")], ErrorCode::LoadFailed, "unseen"),
        ("rejects later", &[("main.js", "await 0; throw new Error('late');")], ErrorCode::LoadFailed, "late"),
        ("waits for nothing", &[("main.js", "await new Promise(() => {});")], ErrorCode::LoadFailed, "await"),
        ("missing import", &[("main.js", "import './gone.js';")], ErrorCode::LoadFailed, "cannot read gone.js"),
        ("missing export", &[("main.js", "import { x } from './a.js';"), ("a.js", "")], ErrorCode::EntryInvalid, "x"),
        ("leaves", &[("main.js", "import '../../etc/passwd';")], ErrorCode::LoadFailed, "outside of the package"),
        ("absolute", &[("main.js", "import '/etc/passwd';")], ErrorCode::LoadFailed, "not part of the package"),
        ("web", &[("main.js", "import 'https://example.org/a.js';")], ErrorCode::LoadFailed, "not part of the package"),
        ("node", &[("lib/a.js", "import 'node:fs';"), ("main.js", "import './lib/a.js';")], ErrorCode::LoadFailed, "lib/a.js imports \"node:fs\""),
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

#[cfg(unix)]
#[tokio::test]
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
    for path in ["./link.js", "../secret.js", "/etc/passwd", "file:///etc/passwd", "ext:core/mod.js", "ext:core/ops"] {
        let error = call(&host, "test.js", "f", vec![text(path)]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionError, "{path}: {error}");
    }
    unharmed(&host).await;
}

#[tokio::test]
async fn the_engines_internals_are_out_of_reach() {
    let source = r#"
        export const names = () => Object.getOwnPropertyNames(globalThis);
        export const kinds = () => [typeof Deno, typeof __bootstrap, typeof process, typeof require];
    "#;
    let (host, _dir) = with(source).await;
    let kinds = call(&host, "test.js", "kinds", vec![]).await.unwrap();
    assert_eq!(kinds, Value::List(vec![text("undefined"); 4]));
    let Value::List(names) = call(&host, "test.js", "names", vec![]).await.unwrap() else { panic!("a list") };
    for name in names {
        let Value::Text(name) = name else { panic!("a name") };
        assert!(!name.starts_with('_') && !name.starts_with("op_") && name != "Deno", "{name}");
    }
}

#[tokio::test]
async fn modules_and_json_are_imported_from_the_package() {
    let host = relay().await;
    let files = [
        ("main.ts", "import { twice } from './lib/twice.ts';\nimport data from './data.json' with { type: 'json' };\n\
                     export const f = (n: number) => twice(n) + data.more;\n\
                     export const later = async () => (await import('./lib/twice.ts')).twice(4);\n\
                     export const url = () => import.meta.url;"),
        ("lib/twice.ts", "import { two } from '../two.js';\nexport const twice = (n: number): number => n * two;"),
        ("two.js", "export const two = 2;"),
        ("data.json", "{ \"more\": 1 }"),
    ];
    let dir = package("modules.js", &files, "");
    load(&host, dir.path()).await.unwrap();
    assert_eq!(call(&host, "modules.js", "f", vec![Value::Int(20)]).await.unwrap(), Value::Int(41));
    assert_eq!(call(&host, "modules.js", "later", vec![]).await.unwrap(), Value::Int(8));
    // Nothing tells where the package is.
    assert_eq!(call(&host, "modules.js", "url", vec![]).await.unwrap(), text("package:///main.ts"));
}

#[tokio::test]
async fn web_platform_pieces() {
    let source = r#"
        const order = [];
        export async function timers() {
            const log = [];
            await new Promise((done) => {
                const never = setTimeout(() => log.push("never"), 5);
                clearTimeout(never);
                setTimeout((a) => log.push(a), 10, "second");
                setTimeout(() => log.push("first"), 1);
                let n = 0;
                const id = setInterval(() => { if (++n === 3) { clearInterval(id); done(); } }, 10);
                queueMicrotask(() => log.push("micro"));
            });
            return log;
        }
        export function clone() {
            const a = { b: [1, new Date(5)], c: new Map([[1, 2]]) };
            const copy = structuredClone(a);
            a.b[0] = 9;
            return copy;
        }
        export function text() {
            const bytes = new TextEncoder().encode("Zürich 🐎");
            const decoder = new TextDecoder();
            let parts = "";
            for (const byte of bytes) parts += decoder.decode(new Uint8Array([byte]), { stream: true });
            parts += decoder.decode();
            let refused = false;
            try { new TextDecoder("utf-8", { fatal: true }).decode(new Uint8Array([255])) } catch { refused = true }
            const lossy = new TextDecoder().decode(new Uint8Array([0xef, 0xbb, 0xbf, 65, 255]));
            return [new TextDecoder().decode(bytes), parts, refused, lossy];
        }
        export function say() { console.log("a", 1, { b: [true] }); console.error(new Error("shown")); }
    "#;
    let (host, _dir) = with(source).await;
    let timers = call(&host, "test.js", "timers", vec![]).await.unwrap();
    assert_eq!(timers, Value::List(vec![text("micro"), text("first"), text("second")]));
    let clone = call(&host, "test.js", "clone", vec![]).await.unwrap();
    let date = Value::Timestamp(Timestamp::new(0, 5_000_000).unwrap());
    let map = Value::Map(vec![(Value::Int(1), Value::Int(2))]);
    let expect = vec![(text("b"), Value::List(vec![Value::Int(1), date])), (text("c"), map)];
    assert_eq!(clone, Value::Map(expect));
    let said = call(&host, "test.js", "text", vec![]).await.unwrap();
    let expect = [text("Zürich 🐎"), text("Zürich 🐎"), Value::Bool(true), text("A\u{fffd}")];
    assert_eq!(said, Value::List(expect.to_vec()));
    assert_eq!(call(&host, "test.js", "say", vec![]).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn methods_are_described() {
    let source = "export function f(a: string, b?: number, ...c: string[]) {}\nexport class C {}\nexport const n = 1;\n\
                  export async function a() {}\nexport const arrow = (x, y = 1) => x;\n";
    let host = relay().await;
    let dir = package("typed.js", &[("main.ts", source)], "");
    load(&host, dir.path()).await.unwrap();
    let status = host.status("typed.js").unwrap();
    let shown: Vec<String> = status.methods.iter().map(|method| {
        let parameters = method.parameters.iter().map(|p| {
            format!("{}{}", p.name, if p.optional { "?" } else { "" })
        });
        format!("{}({})", method.name, parameters.collect::<Vec<_>>().join(", "))
    }).collect();
    assert_eq!(shown, ["f(a, b?, c?)", "a()", "arrow(x, y?)"]);
    assert_eq!(status.methods[0].parameters[1].ty.as_deref(), Some("number"));
    assert_eq!(call(&host, "typed.js", "f", vec![text("a")]).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn many_calls_are_in_flight_at_once() {
    let source = r#"
        import { host } from "quadriga";
        const gate = Promise.withResolvers?.() ?? (() => { let resolve; const promise = new Promise((r) => resolve = r); return { promise, resolve } })();
        let waiting = 0;
        export async function meet(n) {
            if (++waiting === 64) gate.resolve();
            await gate.promise;
            return await host.call("relay.js", "add", n, 1);
        }
        export const slow = () => new Promise((done) => setTimeout(done, 500));
        export const quick = () => 1;
    "#;
    let (host, _dir) = with(source).await;
    let calls = (0..64).map(|n| {
        let host = host.clone();
        tokio::spawn(async move { (n, call(&host, "test.js", "meet", vec![Value::Int(n)]).await) })
    });
    for task in calls.collect::<Vec<_>>() {
        let (n, reply) = task.await.unwrap();
        assert_eq!(reply.unwrap(), Value::Int(n + 1));
    }
    let slow = { let host = host.clone(); tokio::spawn(async move { call(&host, "test.js", "slow", vec![]).await }) };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    assert_eq!(call(&host, "test.js", "quick", vec![]).await.unwrap(), Value::Int(1));
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    slow.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_deadline_ends_its_call_alone() {
    let source = r#"
        import { host } from "quadriga";
        export function spin() { for (;;); }
        export async function spinLater() { await host.call("relay.js", "add", 1, 2); for (;;); }
        export const hang = () => new Promise(() => {});
        export const hangOn = () => host.call("test.js", "hang");
        export const slow = async (ms) => { await new Promise((done) => setTimeout(done, ms)); return "done"; };
        export function stray() { setTimeout(() => { for (;;); }, 1); }
        export async function asked() {
            await new Promise((done) => setTimeout(done, 150));
            return host.cancelled();
        }
    "#;
    let (host, _dir) = with(source).await;
    for method in ["spin", "spinLater", "hang", "hangOn"] {
        let sibling = {
            let host = host.clone();
            tokio::spawn(async move { call(&host, "test.js", "slow", vec![Value::Int(400)]).await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        let begun = Instant::now();
        let options = CallOptions::default().timeout(Duration::from_millis(150));
        let error = call_with(&host, "test.js", method, vec![], options).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{method}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(2), "{method}: {:?}", begun.elapsed());
        assert_eq!(sibling.await.unwrap().unwrap(), text("done"), "{method}");
        unharmed(&host).await;
    }
    // What a call leaves behind cannot keep others from running for longer than their own time.
    call(&host, "test.js", "stray", vec![]).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let options = CallOptions::default().timeout(Duration::from_millis(100));
    let error = call_with(&host, "test.js", "slow", vec![Value::Int(1)], options).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error}");
    assert_eq!(call(&host, "test.js", "slow", vec![Value::Int(1)]).await.unwrap(), text("done"));
    // A caller that goes away.
    let gone = call(&host, "test.js", "spin", vec![]);
    assert!(tokio::time::timeout(Duration::from_millis(100), gone).await.is_err());
    assert_eq!(call(&host, "test.js", "slow", vec![Value::Int(1)]).await.unwrap(), text("done"));
    assert_eq!(call(&host, "test.js", "asked", vec![]).await.unwrap(), Value::Bool(false));
}

#[tokio::test]
async fn the_memory_limit_ends_the_extension_alone() {
    let many = "const kept = [];\nexport function eat() { for (;;) kept.push(new Array(10000).fill(kept.length)); }";
    let texts = "let text = 'x';\nexport function eat() { const all = []; for (;;) { text += text + all.length; all.push([...text]); } }";
    let huge = "export function eat() { const all = []; for (;;) all.push(new Array(1 << 24).fill(1.5)); }";
    let later = "const kept = [];\nexport async function eat() { for (;;) { await 0; kept.push(new Array(10000).fill(kept.length)); } }";
    for (case, source) in [("many", many), ("texts", texts), ("huge", huge), ("later", later)] {
        let (host, _dir) = with_limits(source, "memory = \"64MiB\"").await;
        let error = call(&host, "test.js", "eat", vec![]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::MemoryLimit, "{case}: {error:?}");
        assert!(error.message.contains("64MiB"), "{case}: {error}");
        let error = call(&host, "test.js", "eat", vec![]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{case}: {error:?}");
        unharmed(&host).await;
        // A new load replaces it.
        host.reload("test.js").await.unwrap();
    }
    // Buffers are not on the heap. A refused one is an exception that the guest may catch.
    let buffers = "export function eat() { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }\n\
                   export function careful() { try { eat() } catch (e) { return e instanceof RangeError } }";
    let (host, _dir) = with_limits(buffers, "memory = \"64MiB\"").await;
    let error = call(&host, "test.js", "eat", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
    assert_eq!(call(&host, "test.js", "careful", vec![]).await.unwrap(), Value::Bool(true));
}

#[tokio::test]
async fn later_rejections_are_logged_and_harm_nothing() {
    let source = r#"
        export function reject() { Promise.reject(new Error("no one sees this")); return 1; }
        export function timer() { setTimeout(() => { throw new Error("nor this") }, 1); return 2; }
        export function deep() { const f = (n) => n === 0 ? 0 : 1 + f(n - 1); return f(1e6); }
        export const slow = () => new Promise((done) => setTimeout(() => done(3), 50));
    "#;
    let (host, _dir) = with(source).await;
    assert_eq!(call(&host, "test.js", "reject", vec![]).await.unwrap(), Value::Int(1));
    assert_eq!(call(&host, "test.js", "timer", vec![]).await.unwrap(), Value::Int(2));
    assert_eq!(call(&host, "test.js", "slow", vec![]).await.unwrap(), Value::Int(3));
    let error = call(&host, "test.js", "deep", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionError, "{error}");
    assert_eq!(call(&host, "test.js", "slow", vec![]).await.unwrap(), Value::Int(3));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn unloading_gives_the_threads_back() {
    fn threads() -> usize {
        fs::read_dir("/proc/self/task").unwrap().count()
    }
    let host = relay().await;
    unharmed(&host).await;
    host.unload(RELAY).await.unwrap();
    let before = threads();
    for round in 0..10 {
        load(&host, &guest("relay", "js")).await.unwrap();
        unharmed(&host).await;
        assert!(host.status(RELAY).unwrap().usage.memory.unwrap() > 0, "{round}");
        host.unload(RELAY).await.unwrap();
    }
    // The last thread may still be on its way out.
    for _ in 0..50 {
        if threads() <= before {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(threads() <= before, "{} threads, {before} before", threads());
}
