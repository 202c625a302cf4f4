//! Time, memory and threads of JavaScript extensions.

use std::fs;
use std::time::{Duration, Instant};

use quadriga::CallOptions;
use quadriga::abi::{ErrorCode, Value};
use quadriga_tests::guest;

use super::{RELAY, call, call_with, load, relay, text, unharmed, with, with_limits};

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
    let slow = {
        let host = host.clone();
        tokio::spawn(async move { call(&host, "test.js", "slow", vec![]).await })
    };
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = Instant::now();
    assert_eq!(call(&host, "test.js", "quick", vec![]).await.unwrap(), Value::Int(1));
    assert!(begun.elapsed() < Duration::from_millis(300), "{:?}", begun.elapsed());
    slow.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn timers_run_while_calls_keep_coming() {
    let source = r#"
        let fired = false;
        export const start = () => { setTimeout(() => { fired = true; }, 0); };
        export const look = () => fired;
    "#;
    let (host, _dir) = with(source).await;
    call(&host, "test.js", "start", vec![]).await.unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let host = host.clone();
        callers.spawn(async move {
            while call(&host, "test.js", "look", vec![]).await.unwrap() == Value::Bool(false) {
                assert!(Instant::now() < until, "the timer never runs");
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.unwrap();
    }
}

#[tokio::test]
async fn a_deadline_ends_its_call_alone() {
    let source = r#"
        import { host } from "quadriga";
        export function spin() { for (;;); }
        export function deaf() { for (;;) try { for (;;); } catch {} finally { continue } }
        export function micro() { const again = () => Promise.resolve().then(again); return again(); }
        export function regexp() { return /^(a+)+$/.test("a".repeat(40) + "b"); }
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
    for method in ["spin", "deaf", "micro", "regexp", "spinLater", "hang", "hangOn"] {
        // QuickJS stops the one promise job that runs when it looks, not a chain of them.
        if method == "micro" && cfg!(feature = "js-quickjs") {
            continue;
        }
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
    let many =
        "const kept = [];\nexport function eat() { for (;;) kept.push(new Array(10000).fill(kept.length)); }";
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
    // What the engine would keep outside of all limits does not exist.
    let outside = "export const resizable = () => new ArrayBuffer(8, { maxByteLength: 1 << 30 });\n\
                   export const shared = () => new SharedArrayBuffer(8, { maxByteLength: 1 << 30 });\n\
                   export const wasm = () => new WebAssembly.Memory({ initial: 1 });";
    let (host, _dir) = with(outside).await;
    for method in ["resizable", "shared", "wasm"] {
        let error = call(&host, "test.js", method, vec![]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionError, "{method}: {error:?}");
    }
    // Buffers are not on the heap, but count.
    let buffers =
        "export function eat() { const all = []; for (;;) all.push(new Uint8Array(1 << 20).fill(1)); }";
    let (host, _dir) = with_limits(buffers, "memory = \"64MiB\"").await;
    let error = call(&host, "test.js", "eat", vec![]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
    unharmed(&host).await;
}

/// The most memory that this process ever had.
#[cfg(target_os = "linux")]
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_heap_at_its_limit_does_not_grow_until_the_guest_has_ended() {
    // It looks at the whole process, so it must have it for itself.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    // Few steps, each of which takes much.
    let grow = "all.push(new Array(100000).fill(1.5));";
    for source in [
        format!("export function eat() {{ const all = []; for (;;) {grow} }}"),
        format!("const all = [];\nexport function eat() {{ for (;;) try {{ {grow} }} catch {{}} }}"),
    ] {
        let (host, _dir) = with_limits(&source, "memory = \"64MiB\"").await;
        let before = peak();
        let error = call(&host, "test.js", "eat", vec![]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::MemoryLimit, "{source}: {error:?}");
        let grown = peak() - before;
        assert!(grown < 256 << 20, "{source}: {grown} bytes more");
    }
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

#[tokio::test]
#[cfg(target_os = "linux")]
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
