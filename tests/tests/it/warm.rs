//! Starts that begin with what an earlier one has left.

use std::fs;
use std::time::{Duration, Instant};

use quadriga::abi::{Isolation, Value};
use quadriga::{CallOptions, Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

async fn load(host: &Dispatcher, package: &TempDir, isolation: Isolation) -> Duration {
    let options = LoadOptions { isolation: Some(isolation), ..granted() };
    let begun = Instant::now();
    host.load(package.path(), options).await.unwrap();
    begun.elapsed()
}

/// A component like no other, by a custom section at its end.
fn unique(id: &str, mark: &[u8; 16]) -> TempDir {
    let package = with(&guest("counter", "wasm"), "");
    let manifest = package.path().join("quadriga.toml");
    let text = fs::read_to_string(&manifest).unwrap().replace("\"counter.wasm\"", &format!("\"{id}\""));
    fs::write(manifest, text).unwrap();
    let entry = package.path().join("guest_counter.wasm");
    let mut bytes = fs::read(&entry).unwrap();
    bytes.extend([0, 21, 4]);
    bytes.extend(b"mark");
    bytes.extend(mark);
    fs::write(entry, bytes).unwrap();
    package
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_gets_the_code_that_its_host_compiled() {
    let host = host();
    let mark = fs::read("/proc/sys/kernel/random/uuid").unwrap()[..16].try_into().unwrap();
    let mut packages = vec![unique("test.first", &mark)];
    let compiled = load(&host, &packages[0], Isolation::InProcess).await;
    let mut least = Duration::MAX;
    for (id, isolation) in [
        ("test.second", Isolation::Process),
        ("test.third", Isolation::Process),
        ("test.fourth", Isolation::Container),
        ("test.fifth", Isolation::InProcess),
    ] {
        let package = unique(id, &mark);
        let took = load(&host, &package, isolation).await;
        packages.push(package);
        least = least.min(took);
        let count: i64 = host.invoke(id, "add", &(3,)).await.unwrap();
        assert_eq!(count, 3, "{id}");
        println!("{id} at {isolation}: {took:?}; compiled in {compiled:?}");
    }
    assert!(least < compiled / 2, "{least:?}; it took {compiled:?} to compile");
    // Its state is its own, and it starts again as it did.
    host.reload("test.second").await.unwrap();
    let count: i64 = host.invoke("test.second", "add", &(4,)).await.unwrap();
    assert_eq!(count, 7);
}

/// What an extension in JavaScript sees of the engine, and what it does with the host.
const SEEN: &str = r#"
    import { host } from "quadriga";
    const names = (object) => Reflect.ownKeys(object).map(String).sort();
    const chain = (object) => {
        const all = [];
        for (let o = object; o !== null && all.length < 5; o = Object.getPrototypeOf(o)) all.push(...names(o));
        return all;
    };
    export const globals = () => names(globalThis);
    export const prototypes = () => names(globalThis).flatMap((name) => {
        const value = globalThis[name];
        const inner = (typeof value === "function" || typeof value === "object") && value !== null ? value : {};
        return [name, typeof value, ...names(inner), ...(inner.prototype ? chain(inner.prototype) : [])];
    });
    export const frozen = () => [Object, Array, Promise, Error].map((f) => Object.isFrozen(f) || Object.isFrozen(f.prototype)).map(String);
    export const stack = () => { try { null.x; } catch (error) { return error.stack.replace(/:\d+:\d+/g, ""); } };
    export const random = () => Math.random();
    export const timer = async () => { await new Promise((done) => setTimeout(done, 5)); return "rang"; };
    export const texts = () => new TextDecoder().decode(new TextEncoder().encode("Zürich 🐎")) + structuredClone({ a: [1n] }).a[0];
    export const wrong = () => { throw new TypeError("on purpose", { cause: new Error("deep") }); };
    export const reached = async () => (await host.call("relay.js", "add", 2, 3)) + "";
    export async function* items() { for (let i = 0; i < 3; i++) yield i; }
    export const late = () => Promise.reject(new RangeError("later"));
    export const lone = () => [..."ab"].map((c) => c.charCodeAt(0)).join();
"#;

fn script() -> TempDir {
    let package = tempfile::tempdir().unwrap();
    let manifest = "[extension]\nid = 'test.seen'\nversion = '0.1.0'\n\
                    [runtime]\nkind = 'javascript'\nentry = 'seen.js'\n[permissions]\ncall = ['*']\n";
    fs::write(package.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(package.path().join("seen.js"), SEEN).unwrap();
    package
}

async fn seen(host: &Dispatcher, isolation: Isolation) -> Vec<(&'static str, String)> {
    load(host, &script(), isolation).await;
    let mut all = Vec::new();
    for method in [
        "globals",
        "prototypes",
        "frozen",
        "stack",
        "timer",
        "texts",
        "wrong",
        "reached",
        "items",
        "late",
        "lone",
    ] {
        let reply = host.call("test.seen", method, vec![0x90], CallOptions::default()).await;
        let said = match reply {
            Ok(reply) => format!("{:?}", Value::from_bytes(&reply).unwrap()),
            Err(error) => format!("{error:?}"),
        };
        all.push((method, said));
    }
    host.unload("test.seen").await.unwrap();
    all
}

/// An isolate that is made of a copy is like one that ran everything itself, as in a worker.
#[tokio::test(flavor = "multi_thread")]
async fn a_script_cannot_tell_how_its_isolate_was_made() {
    let host = host();
    host.load(guest("relay", "js"), granted()).await.unwrap();
    let warm = seen(&host, Isolation::InProcess).await;
    let cold = seen(&host, Isolation::Process).await;
    assert_eq!(warm, cold);
    assert!(warm.contains(&("reached", format!("{:?}", Value::Text("5".to_owned())))), "{warm:?}");
}

/// They are made of the same bytes, but draw other numbers.
#[tokio::test(flavor = "multi_thread")]
async fn isolates_draw_numbers_of_their_own() {
    let host = host();
    // Loads do not need this, and may come after it.
    host.warm_up().await;
    let mut drawn = Vec::new();
    for _ in 0..5 {
        load(&host, &script(), Isolation::InProcess).await;
        drawn.push(host.invoke::<f64>("test.seen", "random", &()).await.unwrap().to_bits());
        host.unload("test.seen").await.unwrap();
    }
    drawn.sort_unstable();
    drawn.dedup();
    assert_eq!(drawn.len(), 5);
}
