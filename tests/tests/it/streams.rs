//! Streams that go on for long: memory stays where it is.

use quadriga::CallOptions;
use quadriga_tests::{granted, guest, host};

/// Bytes that this process keeps in memory.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4096
}

async fn slow_ten_gigabytes(language: &str) {
    const BLOCK: u64 = 60_000;
    const BLOCKS: u64 = 10_000_000_000 / BLOCK;
    let host = host();
    host.load(guest("flow", language), granted()).await.unwrap();
    let arguments = rmp_serde::to_vec(&(BLOCKS, BLOCK)).unwrap();
    let mut items = host.stream(&format!("flow.{language}"), "blocks", arguments, CallOptions::default());
    let (mut read, mut most) = (0, 0);
    let mut least = u64::MAX;
    while let Some(item) = items.next().await {
        read += item.unwrap().len() as u64;
        // The engine's own heap grows to its working size first.
        if read > 100_000_000 && (read / BLOCK).is_multiple_of(1000) {
            let now = resident();
            (least, most) = (least.min(now), most.max(now));
        }
    }
    assert!(read > BLOCKS * BLOCK, "{read}");
    // An engine with a garbage collector lets go of old blocks in its own time.
    assert!(most - least < 256 << 20, "memory went from {least} to {most} bytes");
}

#[tokio::test]
async fn slow_ten_gigabytes_from_js() {
    slow_ten_gigabytes("js").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_python() {
    slow_ten_gigabytes("python").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_wasm() {
    slow_ten_gigabytes("wasm").await;
}

#[tokio::test]
async fn slow_ten_gigabytes_from_native() {
    slow_ten_gigabytes("native").await;
}
