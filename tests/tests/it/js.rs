//! JavaScript and TypeScript extensions: what they can do, what goes wrong with them, and what
//! stays out of reach. All of it holds on V8 and on QuickJS.

mod failures;
mod limits;

use std::fs;
use std::path::Path;

use quadriga::abi::{Error, Timestamp, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host, repository};
use tempfile::TempDir;

const RELAY: &str = "relay.js";

/// Writes a package of these files, with `main.js` or `main.ts` as its entry.
fn package(id: &str, files: &[(&str, &str)], limits: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let entry =
        files.iter().map(|(name, _)| *name).find(|name| name.starts_with("main.")).unwrap_or("main.js");
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
async fn timestamps_are_dates_with_nanoseconds() {
    let source = r#"
        import { Timestamp } from "quadriga";
        export function check(time) {
            let refused = 0;
            for (const n of [-1, 1e6, 0.5, NaN]) {
                try { new Timestamp(0, n); } catch (error) { refused += error instanceof RangeError; }
            }
            const seen = [time instanceof Date, time.nanosecond, time.toISOString(), JSON.stringify({ time })];
            return [...seen, refused, new Timestamp(time, time.nanosecond + 1)];
        }
    "#;
    let (host, _dir) = with(source).await;
    let time = Value::Timestamp(Timestamp::new(1_709_209_800, 5_000_007).unwrap());
    let seen = call(&host, "test.js", "check", vec![time]).await.unwrap();
    let iso = "2024-02-29T12:30:00.005000007Z";
    let json = format!("{{\"time\":\"{iso}\"}}");
    let later = Value::Timestamp(Timestamp::new(1_709_209_800, 5_000_008).unwrap());
    let expect = [Value::Bool(true), Value::Int(7), text(iso), text(&json), Value::Int(4), later];
    assert_eq!(seen, Value::List(expect.to_vec()));
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
        (
            "main.ts",
            "import { twice } from './lib/twice.ts';\nimport data from './data.json' with { type: 'json' };\n\
                     export const f = (n: number) => twice(n) + data.more;\n\
                     export const later = async () => (await import('./lib/twice.ts')).twice(4);\n\
                     export const url = () => import.meta.url;",
        ),
        (
            "lib/twice.ts",
            "import { two } from '../two.js';\nexport const twice = (n: number): number => n * two;",
        ),
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
    let shown: Vec<String> = status
        .methods
        .iter()
        .map(|method| {
            let parameters =
                method.parameters.iter().map(|p| format!("{}{}", p.name, if p.optional { "?" } else { "" }));
            format!("{}({})", method.name, parameters.collect::<Vec<_>>().join(", "))
        })
        .collect();
    assert_eq!(shown, ["f(a, b?, c?)", "a()", "arrow(x, y?)"]);
    assert_eq!(status.methods[0].parameters[1].ty.as_deref(), Some("number"));
    assert_eq!(call(&host, "typed.js", "f", vec![text("a")]).await.unwrap(), Value::Nil);
}

#[tokio::test]
async fn the_example_greets() {
    let host = host();
    load(&host, &repository().join("examples/hello/js")).await.unwrap();
    assert_eq!(call(&host, "hello.js", "greet", vec![text("Ada")]).await.unwrap(), text("Hello, Ada!"));
}
