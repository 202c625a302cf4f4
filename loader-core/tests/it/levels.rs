//! Which of several runtimes of one kind takes an extension.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::sync::Arc;

use quadriga_core::abi::limits::Limit;
use quadriga_core::abi::{Error, ErrorCode, Isolation, RuntimeKind};
use quadriga_core::{
    BoxFuture, Bridge, Dispatcher, Grant, Instance, LoadOptions, MockRuntime, Policy, Runtime, Support, Unit,
};
use tempfile::TempDir;

/// A mock that isolates further than others, and keeps to other limits.
struct Level(MockRuntime, Isolation, &'static [Limit]);

impl Runtime for Level {
    fn kind(&self) -> RuntimeKind {
        self.0.kind()
    }

    fn support(&self) -> Support {
        let permissions: &[&str] = if self.1 == Isolation::Process { &["net"] } else { &[] };
        Support { isolation: self.1, limits: self.2, permissions }
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        self.0.load(unit, bridge)
    }
}

/// Three levels, registered in no order. Only that of processes bounds processor time and mediates
/// the network.
fn host(minimum_isolation: Isolation) -> Dispatcher {
    let level = |isolation, limits| Level(MockRuntime::new().echo("echo"), isolation, limits);
    Dispatcher::builder()
        .runtime(level(Isolation::Process, &[Limit::CpuTime]))
        .runtime(level(Isolation::None, &[]))
        .runtime(level(Isolation::InProcess, &[]))
        .policy(Policy { minimum_isolation, ..Policy::default() })
        .build()
        .unwrap()
}

fn package(runtime: &str, more: &str) -> TempDir {
    let dir = TempDir::new().unwrap();
    let manifest = format!(
        "[extension]\nid = 'a.b'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{runtime}\n{more}\n"
    );
    fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(dir.path().join("main"), "").unwrap();
    dir
}

fn options(isolation: Option<Isolation>) -> LoadOptions {
    LoadOptions { grant: Grant::Requested, isolation, ..LoadOptions::default() }
}

#[tokio::test]
async fn the_weakest_that_is_strong_enough_takes_it() {
    use Isolation::{InProcess, None as Open, Process};
    let cases = [
        ("", "", None, Open, Open),
        ("", "", None, InProcess, InProcess),
        ("isolation = 'in-process'", "", None, Open, InProcess),
        ("isolation = 'in-process'", "", Some(Process), Open, Process),
        ("isolation = 'process'", "", Some(InProcess), Open, Process),
        ("", "", Some(InProcess), Process, Process),
        ("", "[limits]\ncpu-time = '1s'", None, Open, Process),
        // What shares our memory cannot be denied anything.
        ("", "[permissions]\nenv = ['A']", None, Open, Open),
        // But connections are made by its host, or not at all.
        ("", "[permissions]\nnet = ['a:1']", None, Open, Process),
    ];
    for (runtime, more, load, policy, reached) in cases {
        let (host, dir) = (host(policy), package(runtime, more));
        host.load(dir.path(), options(load)).await.unwrap();
        let status = host.status("a.b").unwrap();
        assert_eq!(status.isolation, reached, "{runtime} {more} {load:?} {policy}");
        host.reload("a.b").await.unwrap();
        assert_eq!(host.status("a.b").unwrap().isolation, reached, "a reload keeps the level");
    }
}

#[tokio::test]
async fn what_none_can_keep_to_says_what_each_can() {
    let cases = [
        ("isolation = 'vm'", "", ErrorCode::IsolationUnavailable, "reaches none and in-process and process"),
        (
            "isolation = 'in-process'",
            "[limits]\nmemory = '1MiB'",
            ErrorCode::Unsupported,
            "cannot enforce the limit memory at isolation in-process; a.b: runtime mock cannot enforce the \
             limit memory at isolation process",
        ),
        (
            "isolation = 'in-process'",
            "[permissions]\nfs = [{ path = '/srv', mode = 'ro' }]",
            ErrorCode::Unsupported,
            "does not offer the permission fs",
        ),
    ];
    let host = host(Isolation::None);
    for (runtime, more, code, words) in cases {
        let dir = package(runtime, more);
        let error = host.load(dir.path(), options(None)).await.unwrap_err();
        assert!(error.code == code && error.message.contains(words), "{runtime} {more}: {error:?}");
    }
}

#[tokio::test]
async fn a_later_one_of_the_same_level_takes_the_place_of_the_first() {
    let level = |method| Level(MockRuntime::new().echo(method), Isolation::Process, &[]);
    let host = Dispatcher::builder().runtime(level("old")).runtime(level("new")).build().unwrap();
    assert_eq!(host.runtimes().len(), 1);
    host.load(package("", "").path(), options(None)).await.unwrap();
    assert_eq!(host.status("a.b").unwrap().methods[0].name, "new");
}
