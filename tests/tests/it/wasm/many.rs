//! How many there can be.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use quadriga_tests::{granted, host};

use super::{like, resident};

const MANY: u32 = 10_000;

/// Far more than each was seen to take, and far less than a process.
const MEMORY: usize = 256 << 10;

/// A package for each, around one and the same file.
fn packages(folder: &Path) -> Vec<PathBuf> {
    let first = like("counter", "many.first", "");
    let entry = folder.join("entry.wasm");
    fs::copy(first.path().join("entry.wasm"), &entry).unwrap();
    let manifest = fs::read_to_string(first.path().join("quadriga.toml")).unwrap();
    let package = |number: u32| {
        let package = folder.join(number.to_string());
        fs::create_dir(&package).unwrap();
        let manifest = manifest.replace("many.first", &format!("many.number-{number}"));
        fs::write(package.join("quadriga.toml"), manifest).unwrap();
        fs::hard_link(&entry, package.join("entry.wasm")).unwrap();
        package
    };
    (0..MANY).map(package).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_ten_thousand_sandboxes_are_there_at_once_and_each_answers() {
    // It looks at the whole process, so it must have it for itself.
    if std::env::var_os("NEXTEST").is_none() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let packages = packages(folder.path());
    let host = host();
    host.load(&packages[0], granted()).await.unwrap();
    let (before, begun) = (resident(), Instant::now());
    for package in &packages[1..] {
        host.load(package, granted()).await.unwrap();
    }
    let loaded = begun.elapsed();
    assert_eq!(host.list().iter().map(|status| status.usage.instances).sum::<u32>(), MANY);
    let begun = Instant::now();
    for round in 1..=2 {
        for number in 0..MANY {
            // Each has a state of its own.
            let count: i64 = host.invoke(&format!("many.number-{number}"), "add", &(number,)).await.unwrap();
            assert_eq!(count, i64::from(number * round), "{number}");
        }
    }
    let called = begun.elapsed() / 2 / MANY;
    let each = resident().saturating_sub(before) / MANY as usize;
    println!("{MANY} sandboxes: {:?} to load each, {called:?} a call, {each} bytes each", loaded / MANY);
    assert!(each < MEMORY, "{each} bytes each");
    host.shutdown().await;
    assert!(host.list().is_empty());
}
