//! Installed extensions in real engines change version while they are called.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use quadriga::home::{Dependents, Home, InstallOptions, Offer};
use quadriga::package::{Bounds, GO_ON, PackOptions, Package, pack};
use quadriga_tests::{copy, guest, host};

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// Packs the counter of a language in a version.
fn package(folder: &std::path::Path, language: &str, version: &str) -> PathBuf {
    let (source, packed) = (tempfile::tempdir().unwrap(), folder.join(format!("{language}-{version}.qx")));
    copy(&guest("counter", language), source.path()).unwrap();
    let manifest = source.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    std::fs::write(&manifest, text.replace("\"0.1.0\"", &format!("\"{version}\""))).unwrap();
    pack(source.path(), |_| packed.clone(), &PackOptions::default(), &mut |_, _| GO_ON).unwrap();
    packed
}

fn offer(path: &std::path::Path) -> Offer {
    Package::open(path, &Bounds::default()).unwrap().into()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_language_goes_to_a_new_version_and_back_while_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let host = host();
    let home = Home::open(folder.path().join("home")).await.unwrap().attach(&host);
    let first = LANGUAGES.map(|language| offer(&package(folder.path(), language, "0.1.0")));
    let enable = InstallOptions { actor: "the test".to_owned(), enable: true, ..InstallOptions::default() };
    home.install(first, enable.clone()).await.unwrap();
    let over = Arc::new(AtomicBool::new(false));
    // One caller each, so that its numbers follow each other.
    let callers = LANGUAGES.map(|language| {
        let (host, over, id) = (host.clone(), Arc::clone(&over), format!("counter.{language}"));
        tokio::spawn(async move {
            let mut numbers = Vec::new();
            while !over.load(Relaxed) {
                numbers.push(host.invoke::<u64>(&id, "add", &(1,)).await.unwrap());
                tokio::task::yield_now().await;
            }
            numbers
        })
    });
    let version = |language: &str| host.status(&format!("counter.{language}")).unwrap().version.to_string();
    for language in LANGUAGES {
        home.update([offer(&package(folder.path(), language, "0.2.0"))], enable.clone()).await.unwrap();
        assert_eq!(version(language), "0.2.0");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for language in LANGUAGES {
        home.rollback(&format!("counter.{language}"), Dependents::Refuse, "the test").await.unwrap();
        assert_eq!(version(language), "0.1.0");
    }
    over.store(true, Relaxed);
    for (language, caller) in LANGUAGES.iter().zip(callers) {
        let numbers = caller.await.unwrap();
        let expected: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert_eq!(numbers, expected, "{language}");
        eprintln!("{language}: {} calls", numbers.len());
    }
    home.uninstall("counter.js", Dependents::Refuse, "the test").await.unwrap();
    assert!(host.status("counter.js").is_err());
}
