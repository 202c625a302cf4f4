//! Processes are killed in the middle of what they do to a home.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quadriga_abi::{Bytes, Error};
use tempfile::TempDir;

use super::{
    ME, copy, enable, install, nothing_else, offer, options, package, permissions, settings, state, update,
};
use crate::home::{
    Dependents, Home, InstallOptions, LicensePolicy, Needs, Offer, Terms, TrustLevel, fault, start,
};
use crate::{Dispatcher, KvAction, KvChange, KvKey, KvQuota, KvStore as _, MockRuntime};

/// What the process that is killed does, and with which home and packages.
const CHILD: &str = "QUADRIGA_HOME_TEST";

/// What is done to a home in which `a.b` 1.0.0 is installed and enabled, and was before 0.9.0, `a.c` needs
/// it, and the disabled `a.g` needs the disabled `a.e`. With the last entry of the audit trail.
const OPERATIONS: [(&str, &str); 19] = [
    ("install", "install"),
    ("install several", "enable"),
    ("update", "update"),
    ("update several", "update"),
    ("rollback", "rollback"),
    ("enable", "enable"),
    ("enable several", "enable"),
    ("disable", "disable"),
    ("uninstall", "uninstall"),
    ("grant", "grant"),
    ("revoke", "revoke"),
    ("configure", "configure"),
    ("pin", "pin"),
    ("trust", "trust"),
    ("terms", "trust policy"),
    ("licences", "licence policy"),
    ("live update", "update"),
    ("live rollback", "rollback"),
    ("live disable", "disable"),
];

async fn operate(home: &Home, packages: &Path, operation: &str) -> Result<(), Error> {
    let kv = permissions(serde_json::json!({ "kv": true }));
    let offers = |names: &[&str]| -> Vec<Offer> {
        names.iter().flat_map(|name| offer(&packages.join(format!("{name}.qx")))).collect()
    };
    match operation.trim_start_matches("live ") {
        "install several" => {
            let with = InstallOptions { enable: true, needs: Needs::Enable, ..options() };
            home.install(offers(&["a.f-1.0.0", "a.d-1.0.0", "a.d-2.0.0"]), with).await.map(drop)
        }
        "update several" => {
            let with = InstallOptions { dependents: Dependents::Disable, ..options() };
            home.update(offers(&["a.b-3.0.0", "a.e-2.0.0"]), with).await.map(drop)
        }
        "enable several" => home.enable("a.g", Needs::Enable, ME).await.map(drop),
        "install" => install(home, &packages.join("a.d-1.0.0.qx")).await.map(drop),
        "update" => update(home, &packages.join("a.b-2.0.0.qx")).await.map(drop),
        "rollback" => home.rollback("a.b", Dependents::Refuse, ME).await.map(drop),
        "enable" => enable(home, "a.e").await.map(drop),
        "disable" => home.disable("a.b", Dependents::Disable, ME).await.map(drop),
        "uninstall" => home.uninstall("a.b", Dependents::Disable, ME).await.map(drop),
        "grant" => home.grant("a.b", &kv, ME).await.map(drop),
        "revoke" => home.revoke("a.e", &kv, ME).await.map(drop),
        "pin" => home.pin("a.b", None, ME).await.map(drop),
        "trust" => {
            let key = "RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3".parse().unwrap();
            home.trust(&key, "a", TrustLevel::High, ME).await.map(drop)
        }
        "terms" => {
            home.set_terms(TrustLevel::Low, Terms { signature: true, ..Terms::of(TrustLevel::Low) }, ME).await
        }
        "licences" => {
            let policy = LicensePolicy { unknown: false, ..LicensePolicy::default() };
            home.set_license_policy(policy, ME).await.map(drop)
        }
        _ => home.configure("a.b", settings(serde_json::json!({ "a": 1 })), &[], ME).await.map(drop),
    }
}

/// The process that is killed: it does one operation, if it was asked to.
#[tokio::test]
async fn child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let [operation, home, packages, count] = asked.split('|').collect::<Vec<_>>()[..] else {
        panic!("{asked}")
    };
    let mut home = Home::open(home).await.unwrap();
    if operation.starts_with("live ") {
        // Together with a host in which all of it runs.
        let host = Dispatcher::builder().runtime(MockRuntime::new()).build().unwrap();
        let started = start(&host, &home.list().await.unwrap()).await;
        assert_eq!((started, host.list().len()), (Vec::new(), 2));
        home = home.attach(&host);
    }
    fault::die_at(count.parse().unwrap());
    operate(&home, Path::new(packages), operation).await.unwrap();
}

/// Has a process do an operation and be killed, at a place by its number or after a time. Says whether
/// it was killed.
fn killed(operation: &str, home: &Path, packages: &Path, at: Result<u32, Duration>) -> bool {
    let asked = format!("{operation}|{}|{}|{}", home.display(), packages.display(), at.unwrap_or(0));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "home::tests::kill::child", "--nocapture"])
        .env(CHILD, asked)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    if let Err(after) = at {
        std::thread::sleep(after);
        // It may be done by now.
        let _ = child.kill();
    }
    use std::os::unix::process::ExitStatusExt as _;
    let status = child.wait().unwrap();
    assert!(status.success() || status.signal() == Some(libc::SIGKILL), "{operation} {at:?}: {status}");
    !status.success()
}

/// The home is whole after a kill, and it was done or it was not. Says which.
async fn whole(home: &Path, before: &[String], after: &[String], operation: &str) -> bool {
    let home = Home::open(home).await.unwrap();
    let (now, audited) = (state(&home).await, home.verify_audit(None).await.unwrap());
    nothing_else(&home).await;
    let done = now == after;
    assert!(done || now == before, "{operation}: {now:?}");
    assert_eq!(keeps(&home), !(done && operation == "uninstall"), "{operation}");
    let last = home.audit().await.unwrap().pop().unwrap();
    let action = OPERATIONS.iter().find(|it| it.0 == operation).map(|it| it.1);
    assert_eq!(Some(&*last.action) == action && audited.entries > BASE, done, "{operation}: {last:?}");
    home.close().await;
    done
}

/// Whether `a.b` has what it kept.
fn keeps(home: &Home) -> bool {
    home.data().get("a.b", &KvKey::plain("k"), 1).unwrap().is_some()
}

/// Entries of the audit trail of the home that all operations begin with.
const BASE: usize = 11;

/// Kills in each operation: at each place, and then at any time, a thousand times together.
#[tokio::test]
async fn slow_whatever_kills_it_an_operation_is_wholly_done_or_wholly_not() {
    // In memory where that can be: a killed process loses nothing that it had written.
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let packages = folder.path().join("packages");
    fs::create_dir(&packages).unwrap();
    let asks = "[permissions]\nkv = true";
    for version in ["0.9.0", "1.0.0", "2.0.0", "3.0.0"] {
        package(&packages, "a.b", version, asks);
    }
    package(&packages, "a.c", "1.0.0", "[dependencies]\n'a.b' = '<3'");
    for (id, version) in [("a.d", "1.0.0"), ("a.d", "2.0.0"), ("a.e", "2.0.0")] {
        package(&packages, id, version, "");
    }
    package(&packages, "a.e", "1.0.0", asks);
    package(&packages, "a.f", "1.0.0", "[dependencies]\n'a.d' = '1'\n'a.e' = '*'");
    package(&packages, "a.g", "1.0.0", "[dependencies]\n'a.e' = '*'");
    let base = folder.path().join("base");
    {
        let home = Home::open(&base).await.unwrap();
        for name in ["a.b-0.9.0.qx", "a.c-1.0.0.qx", "a.e-1.0.0.qx", "a.g-1.0.0.qx"] {
            install(&home, &packages.join(name)).await.unwrap();
        }
        enable(&home, "a.b").await.unwrap();
        enable(&home, "a.c").await.unwrap();
        update(&home, &packages.join("a.b-1.0.0.qx")).await.unwrap();
        let kv = permissions(serde_json::json!({ "kv": true }));
        home.grant("a.e", &kv, ME).await.unwrap();
        enable(&home, "a.e").await.unwrap();
        home.disable("a.e", Dependents::Refuse, ME).await.unwrap();
        home.grant("a.e", &kv, ME).await.unwrap();
        assert_eq!(home.audit().await.unwrap().len(), BASE);
        let action = KvAction::Put { value: Bytes::from_static(b"\xc3"), expires: None };
        let change = KvChange { key: KvKey::plain("k"), version: None, action };
        home.data().write("a.b", &[change], KvQuota::NONE, 1).unwrap();
        home.close().await;
    }
    let home = Home::open(&base).await.unwrap();
    let before = state(&home).await;
    home.close().await;
    let (mut runs, begun) = (0, Instant::now());
    for (operation, _) in OPERATIONS {
        let fresh = |n: u32| {
            let home = folder.path().join(format!("{operation}-{n}"));
            copy(&base, &home);
            home
        };
        let home = fresh(0);
        assert!(!killed(operation, &home, &packages, Ok(0)));
        let opened = Home::open(&home).await.unwrap();
        let after = state(&opened).await;
        opened.close().await;
        assert_ne!(after, before, "{operation}");
        let mut outcomes = [0, 0];
        let mut place = 0;
        loop {
            place += 1;
            let home = fresh(place);
            let was_killed = killed(operation, &home, &packages, Ok(place));
            let done = whole(&home, &before, &after, operation).await;
            if !was_killed {
                assert!(done, "{operation}");
                break;
            }
            outcomes[usize::from(done)] += 1;
            if !done {
                // What was left does not stand in the way.
                let home = Home::open(&home).await.unwrap();
                operate(&home, &packages, operation).await.unwrap();
                assert_eq!(state(&home).await, after, "{operation}");
                home.close().await;
            }
            fs::remove_dir_all(&home).unwrap();
        }
        assert!(outcomes.iter().all(|count| *count > 0), "{operation}: {outcomes:?}");
        runs += place;
    }
    let mut outcomes = [0, 0];
    while runs < 1000 {
        let (operation, _) = OPERATIONS[fastrand::usize(..OPERATIONS.len())];
        let home = folder.path().join("random");
        copy(&base, &home);
        killed(operation, &home, &packages, Err(Duration::from_micros(fastrand::u64(..40_000))));
        let opened = Home::open(&home).await.unwrap();
        nothing_else(&opened).await;
        opened.verify_audit(None).await.unwrap();
        let now = state(&opened).await;
        opened.close().await;
        if now != before {
            let other = folder.path().join(format!("{operation}-0"));
            let other = Home::open(&other).await.unwrap();
            assert_eq!(now, state(&other).await, "{operation}");
            other.close().await;
        }
        outcomes[usize::from(now != before)] += 1;
        fs::remove_dir_all(&home).unwrap();
        runs += 1;
    }
    let took = begun.elapsed();
    eprintln!("{runs} runs in {took:.1?}; at any time: {} not done, {} done", outcomes[0], outcomes[1]);
}
