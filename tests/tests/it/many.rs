//! Many worker processes: how quickly they start, how many there can be, and what is left of them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use quadriga::abi::Isolation;
use quadriga::{Dispatcher, LoadOptions};
use quadriga_tests::{granted, guest, host};

use crate::workers::{children, held, wait_until, worker_of, workers};
use crate::zygotes::python;

const TINY: &str = "
def add(a: int, b: int) -> int:
    return a + b
";

/// So many are alive at once.
const MANY: usize = 500;

fn in_process() -> LoadOptions {
    LoadOptions { isolation: Some(Isolation::Process), ..granted() }
}

async fn answers(host: &Dispatcher, id: &str) {
    let sum: i64 = host.invoke(id, "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5);
}

/// A number from a file of `/proc`, in KiB.
fn kibibytes(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').trim().trim_end_matches(" kB").parse().unwrap()
}

fn pss(pid: u32) -> u64 {
    kibibytes(Path::new(&format!("/proc/{pid}/smaps_rollup")), "Pss")
}

/// The folders of cgroups that this host has made, and what is mounted where it runs.
fn around() -> (usize, usize) {
    fn folders(of: &Path, depth: u32, mark: &str) -> usize {
        let all = fs::read_dir(of).into_iter().flatten().flatten();
        let dirs = all.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
        dirs.map(|entry| {
            let below = if depth > 0 { folders(&entry.path(), depth - 1, mark) } else { 0 };
            let name = entry.file_name();
            let name = name.to_string_lossy();
            usize::from(name.starts_with("quadriga-") && name.contains(mark)) + below
        })
        .sum()
    }
    let mark = format!("-{}-", std::process::id());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap().lines().count();
    (folders(Path::new("/sys/fs/cgroup"), 3, &mark), mounts)
}

/// The figures are printed: `--no-capture` shows them.
#[tokio::test(flavor = "multi_thread")]
async fn slow_workers_start_soon() {
    let tiny = python("test.tiny", TINY);
    for language in ["python", "native", "js", "wasm"] {
        let (dir, id) = match language {
            "python" => (tiny.path().to_owned(), "test.tiny".to_owned()),
            language => (guest("relay", language), format!("relay.{language}")),
        };
        let host = host();
        let mut took = Vec::new();
        for _ in 0..21 {
            let begun = Instant::now();
            host.load(&dir, in_process()).await.unwrap();
            took.push(begun.elapsed());
            answers(&host, &id).await;
            host.unload(&id).await.unwrap();
        }
        let first = took.remove(0);
        took.sort_unstable();
        let (least, median) = (took[0], took[10]);
        eprintln!("{language}: first {first:.1?}; then least {least:.1?}, median {median:.1?}");
        if language == "python" {
            // Ten times what it should be: machines are shared.
            assert!(least < Duration::from_millis(100), "{took:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_five_hundred_workers_live_at_once() {
    let own = std::process::id().to_string();
    let raised = Command::new("prlimit").args(["--pid", &own, "--nofile=8192:"]).status().unwrap();
    assert!(raised.success(), "each worker takes five open files of its host");
    let host = host();
    let begun = Instant::now();
    let mut loading = tokio::task::JoinSet::new();
    for start in 0..4 {
        let host = host.clone();
        loading.spawn(async move {
            for n in (start..MANY).step_by(4) {
                let id = format!("test.n{n}");
                let package = python(&id, TINY);
                host.load(package.path(), in_process()).await.unwrap();
            }
        });
    }
    loading.join_all().await;
    let started = begun.elapsed();
    for n in 0..MANY {
        answers(&host, &format!("test.n{n}")).await;
    }
    let all = workers(std::process::id());
    assert_eq!(all.len(), MANY);
    let total: u64 = all.iter().map(|pid| pss(*pid)).sum();
    let zygote = pss(children(std::process::id())[0]);
    let each = total / MANY as u64;
    eprintln!("{MANY} workers in {started:.1?}: {each} KiB each (Pss), and {zygote} KiB for the zygote");
    assert!(each < 32 << 10, "{each} KiB");
    host.shutdown().await;
    drop(host);
    wait_until("the end of all", || workers(std::process::id()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_nothing_is_left_of_a_thousand_workers() {
    let tiny = python("test.tiny", TINY);
    for (dir, id) in [(guest("relay", "native"), "relay.native"), (tiny.path().to_owned(), "test.tiny")] {
        let host = host();
        let round = async || {
            host.load(&dir, in_process()).await.unwrap();
            answers(&host, id).await;
            host.unload(id).await.unwrap();
        };
        // The first ones start what stays, and fill what is kept.
        for _ in 0..20 {
            round().await;
        }
        host.load(&dir, in_process()).await.unwrap();
        let worker = worker_of(&host, id);
        let zygote = children(std::process::id()).into_iter().find(|pid| children(*pid).contains(&worker));
        host.unload(id).await.unwrap();
        let zygote = zygote.unwrap();
        let resident = |pid: &str| kibibytes(&Path::new("/proc").join(pid).join("status"), "VmRSS");
        let zygote = zygote.to_string();
        let (before, place) = (held(), around());
        let memory = (resident("self"), resident(&zygote));
        for _ in 0..1000 {
            round().await;
        }
        wait_until("that all is given back", || {
            let after = held();
            after.0 <= before.0 && after.1 <= before.1 && after.2 <= before.2
        });
        assert_eq!(around(), place, "{id}: cgroups and mounts");
        let now = (resident("self"), resident(&zygote));
        eprintln!(
            "{id}: the host had {} KiB and has {}, its zygote {} and {}",
            memory.0, now.0, memory.1, now.1
        );
        assert!(now.0 < memory.0 + (16 << 10), "{id}: {memory:?} KiB, then {now:?}");
        assert!(now.1 < memory.1 + (4 << 10), "{id}: {memory:?} KiB, then {now:?}");
    }
}
