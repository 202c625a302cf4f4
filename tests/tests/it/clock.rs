//! The permission `clock`: no extension reads a finer one than it was granted.

use std::fs;

use quadriga::abi::ErrorCode;
use quadriga::abi::Isolation::{self, InProcess, Process};
use quadriga::{Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest, host, with};
use tempfile::TempDir;

const SCRIPT: &str = r#"
    const read = (times, clock) => Array.from({ length: times }, clock);
    const options = { fractionalSecondDigits: 3, second: "numeric" };
    const parts = globalThis.Intl && new Intl.DateTimeFormat("en", options);
    const clocks = {
        wall: () => BigInt(Date.now()) * 1_000_000n,
        constructed: () => BigInt(new Date().getTime()) * 1_000_000n,
        origin: () => BigInt(performance.timeOrigin) * 1_000_000n,
        monotonic: () => Math.round(performance.now() * 1e6),
        event: () => Math.round(new Event("a").timeStamp * 1e6),
        instant: () => Temporal.Now.instant().epochNanoseconds,
        zoned: () => Temporal.Now.zonedDateTimeISO().epochNanoseconds,
        plain: () => Temporal.Now.plainTimeISO().microsecond * 1000 + Temporal.Now.plainTimeISO().nanosecond,
        formatted: () => Number(Intl && parts.format().replace(/\D/g, "").slice(-3)) * 1_000_000,
        inParts: () => Number(Intl && parts.formatToParts().find(({ type }) => type === "fractionalSecond").value) * 1_000_000,
    };
    export const has = (name) => {
        try { return clocks[name]() >= 0; } catch (error) { if (error instanceof ReferenceError) return false; throw error; }
    };
    export const look = (name, times) => read(times, clocks[name]);
    export const dates = () => [new Date(5).getTime(), new Date(2000, 0).getFullYear(), Date.UTC(1970, 0), Date.length,
        Date.name, new Date() instanceof Date, typeof Date(), new (class extends Date {})(7).getTime()].map(String);
"#;

fn script(clock: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "[extension]\nid = 'test.clock'\nversion = '0.1.0'\n\
                    [runtime]\nkind = 'javascript'\nentry = 'main.js'\n[permissions]\n";
    fs::write(folder.path().join("quadriga.toml"), format!("{manifest}{clock}\n")).unwrap();
    fs::write(folder.path().join("main.js"), SCRIPT).unwrap();
    folder
}

/// What was read is in steps of so many nanoseconds, and goes on.
fn assert_steps(case: &str, read: &[u64], step: u64) {
    assert!(read.iter().all(|time| time % step == 0), "{case}: {read:?}");
    assert!(read.windows(2).all(|pair| pair[0] <= pair[1]), "{case}: {read:?}");
}

async fn load(
    host: &Dispatcher,
    package: &TempDir,
    isolation: Isolation,
) -> Result<String, quadriga::abi::Error> {
    let options = LoadOptions { isolation: Some(isolation), ..granted() };
    host.load(package.path(), options).await.map(|id| id.to_string())
}

/// What is in the manifest, and the steps in nanoseconds.
const GRANTS: [(&str, u64); 4] = [
    ("", 1_000_000),
    ("clock = '1ms'", 1_000_000),
    ("clock = '10us'", 10_000),
    ("clock = '50ms'", 50_000_000),
];

#[tokio::test]
async fn components_read_it_in_steps() {
    let host = host();
    for isolation in [InProcess, Process] {
        for (clock, step) in GRANTS {
            let package = with(&guest("wasi", "wasm"), &format!("[permissions]\n{clock}"));
            let id = load(&host, &package, isolation).await.unwrap();
            for method in ["wall", "monotonic"] {
                let read: Vec<u64> = host.invoke(&id, method, &(2000,)).await.unwrap();
                assert_steps(&format!("{method} at {isolation}: {clock}"), &read, step);
            }
            host.unload(&id).await.unwrap();
        }
    }
    let package = with(&guest("wasi", "wasm"), "[permissions]\nclock = '0us'");
    let id = load(&host, &package, InProcess).await.unwrap();
    let read: Vec<u64> = host.invoke(&id, "wall", &(2000,)).await.unwrap();
    assert!(read.iter().any(|time| time % 10_000 != 0), "the machine's own clock is finer: {read:?}");
}

#[tokio::test]
async fn scripts_read_it_in_steps() {
    let host = host();
    for isolation in [InProcess, Process] {
        for (clock, step) in GRANTS {
            let id = load(&host, &script(clock), isolation).await.unwrap();
            for name in [
                "wall",
                "constructed",
                "origin",
                "monotonic",
                "event",
                "instant",
                "zoned",
                "plain",
                "formatted",
                "inParts",
            ] {
                let case = format!("{name} at {isolation}: {clock}");
                // QuickJS has no Intl, and Temporal no time zones.
                if host.invoke(&id, "has", &(name,)).await.unwrap() {
                    let read: Vec<u64> = host.invoke(&id, "look", &(name, 500)).await.unwrap();
                    let within = if name == "plain" { step.min(1_000_000) } else { step };
                    let read: Vec<u64> = if matches!(name, "plain" | "formatted" | "inParts") {
                        // Only the part below a second: it may begin anew.
                        read.into_iter().map(|time| time % within).collect()
                    } else {
                        read
                    };
                    assert_steps(&case, &read, within);
                } else {
                    assert!(
                        cfg!(feature = "js-quickjs")
                            && !["wall", "constructed", "origin", "monotonic", "event"].contains(&name),
                        "{case}"
                    );
                }
            }
            let dates: Vec<String> = host.invoke(&id, "dates", &()).await.unwrap();
            assert_eq!(dates, ["5", "2000", "0", "7", "Date", "true", "string", "7"], "{clock}");
            host.unload(&id).await.unwrap();
        }
    }
}

/// Whoever has the machine's clock cannot be kept from reading it.
#[tokio::test]
async fn what_cannot_be_held_to_it_is_refused() {
    let host = host();
    for language in ["python", "native"] {
        let package = with(&guest("counter", language), "[permissions]\nclock = '1ms'");
        let error = load(&host, &package, Process).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
        assert!(error.message.contains("clock"), "{error:?}");
        for fine in ["", "clock = '0us'"] {
            let package = with(&guest("counter", language), &format!("[permissions]\n{fine}"));
            let id = load(&host, &package, Process).await.unwrap();
            host.unload(&id).await.unwrap();
        }
    }
}
