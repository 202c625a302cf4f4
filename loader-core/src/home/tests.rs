use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode};
use quadriga_package::{Bounds, PackOptions, Package, SecretKey, pack};
use tempfile::TempDir;

use super::*;

/// What the process that is killed does, and with which home and packages.
const CHILD: &str = "QUADRIGA_HOME_TEST";

const ME: &str = "the test";

/// Packs an extension with some lines more in its manifest.
fn package(folder: &Path, id: &str, version: &str, more: &str) -> PathBuf {
    let (source, packed) = (TempDir::new().unwrap(), folder.join(format!("{id}-{version}.qx")));
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '{version}'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{more}\n"
    );
    fs::write(source.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(source.path().join("main"), version).unwrap();
    fs::create_dir(source.path().join("data")).unwrap();
    fs::write(source.path().join("data/large"), vec![b'x'; 100_000]).unwrap();
    pack(source.path(), |_| packed.clone(), &PackOptions::default(), &mut |_, _| quadriga_package::GO_ON)
        .unwrap();
    packed
}

fn open(path: &Path) -> Package {
    Package::open(path, &Bounds::default()).unwrap()
}

fn options() -> InstallOptions {
    InstallOptions { actor: ME.to_owned(), ..InstallOptions::default() }
}

async fn install(home: &Home, path: &Path) -> Result<Installed, Error> {
    home.install(open(path), options()).await
}

async fn update(home: &Home, path: &Path) -> Result<Updated, Error> {
    home.update(open(path), options()).await
}

fn permissions(json: serde_json::Value) -> Permissions {
    serde_json::from_value(json).unwrap()
}

/// All files below a folder but for those of the database.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for entry in entries(folder).unwrap() {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if entry.is_dir() {
            list.extend(files(&entry));
            list.push(entry);
        } else if !name.starts_with("store.sqlite") {
            list.push(entry);
        }
    }
    list
}

/// What is installed, without the times.
async fn state(home: &Home) -> Vec<String> {
    let list = home.list().await.unwrap();
    let version = |it: &InstalledVersion| {
        let main = fs::read_to_string(it.folder.join("main")).unwrap();
        assert_eq!(main, it.version.to_string());
        assert_eq!(fs::metadata(it.folder.join("data/large")).unwrap().len(), 100_000);
        format!("{} {}", it.version, &it.digest[..12])
    };
    let line = |it: &Installed| {
        let (current, previous) = (version(&it.current), it.previous.as_ref().map(version));
        format!("{} {:?} {current} {previous:?} {:?}", it.id, it.state, it.grant)
    };
    list.iter().map(line).collect()
}

/// The folders of versions are those that are named, and nothing else is there.
async fn nothing_else(home: &Home) {
    let mut named = Vec::new();
    for it in home.list().await.unwrap() {
        let versions = [Some(it.current), it.previous];
        named.extend(versions.into_iter().flatten().map(|version| version.folder));
    }
    named.sort_unstable();
    let packages = home.path().join("packages");
    let there: Vec<PathBuf> =
        entries(&packages).unwrap().iter().flat_map(|id| entries(id).unwrap()).collect();
    assert_eq!(there, named);
    assert!(entries(&packages).unwrap().iter().all(|id| !entries(id).unwrap().is_empty()));
    assert!(entries(&home.path().join("staging")).unwrap().is_empty());
}

#[tokio::test]
async fn an_extension_comes_is_updated_goes_back_and_goes() {
    let folder = TempDir::new().unwrap();
    let [one, two, three] =
        ["1.0.0", "2.0.0", "3.0.0"].map(|version| package(folder.path(), "a.b", version, ""));
    let home = Home::open(folder.path().join("home")).await.unwrap();
    assert!(home.list().await.unwrap().is_empty());
    let installed = install(&home, &one).await.unwrap();
    assert_eq!(installed.state, InstalledState::Disabled);
    assert_eq!(home.show("a.b").await.unwrap(), installed);
    assert_eq!(install(&home, &two).await.unwrap_err().code, ErrorCode::AlreadyInstalled);
    assert_eq!(home.enable("a.b", ME).await.unwrap().state, InstalledState::Enabled);
    let updated = update(&home, &two).await.unwrap();
    assert_eq!((updated.from.to_string(), updated.wider.len()), ("1.0.0".to_owned(), 0));
    assert_eq!(updated.installed.state, InstalledState::Enabled);
    nothing_else(&home).await;
    assert_eq!(update(&home, &two).await.unwrap_err().code, ErrorCode::AlreadyInstalled);
    // Back, and forth again.
    for version in ["1.0.0", "2.0.0"] {
        let back = home.rollback("a.b", ME).await.unwrap();
        assert_eq!(back.current.version.to_string(), version);
    }
    // The one before the last is kept, and none before that.
    let updated = update(&home, &three).await.unwrap().installed;
    assert_eq!(updated.previous.unwrap().version.to_string(), "2.0.0");
    nothing_else(&home).await;
    // To an older one on request alone.
    assert_eq!(update(&home, &one).await.unwrap_err().code, ErrorCode::ConsentRequired);
    nothing_else(&home).await;
    let consent = InstallOptions { consent: true, ..options() };
    home.update(open(&one), consent).await.unwrap();
    // It outlasts the process.
    let (before, path) = (state(&home).await, home.path().to_owned());
    drop(home);
    let home = Home::open(path).await.unwrap();
    assert_eq!(state(&home).await, before);
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    nothing_else(&home).await;
    for error in [
        home.show("a.b").await.unwrap_err(),
        home.enable("a.b", ME).await.unwrap_err(),
        home.rollback("a.b", ME).await.unwrap_err(),
        home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap_err(),
        update(&home, &one).await.unwrap_err(),
    ] {
        assert_eq!(error.code, ErrorCode::NotInstalled, "{error}");
    }
    let done: Vec<String> = home.audit().await.unwrap().into_iter().map(|entry| entry.action).collect();
    let all = "install enable update rollback rollback update update uninstall";
    assert_eq!(done.join(" "), all);
}

#[tokio::test]
async fn what_is_refused_leaves_nothing_behind() {
    let folder = TempDir::new().unwrap();
    let asks = "[permissions]\nkv = true\nenv = ['A']";
    let good = package(folder.path(), "a.b", "1.0.0", asks);
    let [mut damaged, cut] = [fs::read(&good).unwrap(), fs::read(&good).unwrap()];
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    let [damaged, cut] = [("damaged", &damaged[..]), ("cut", &cut[..cut.len() - 20])].map(|(name, bytes)| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    });
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let empty = files(home.path());
    let [ours, theirs] = [SecretKey::generate().unwrap(), SecretKey::generate().unwrap()];
    let signed = |by: &SecretKey| Some((open(&good).sign(by, "").unwrap(), ours.public()));
    let more = permissions(serde_json::json!({ "kv": true, "env": ["B"] }));
    let cases = [
        (&damaged, options(), ErrorCode::InvalidPackage),
        (&cut, options(), ErrorCode::InvalidPackage),
        (&good, InstallOptions { signed: signed(&theirs), ..options() }, ErrorCode::InvalidPackage),
        (&good, InstallOptions { grant: Some(more.clone()), ..options() }, ErrorCode::PermissionDenied),
    ];
    for (path, options, code) in cases {
        let error = home.install(open(path), options).await.unwrap_err();
        assert_eq!(error.code, code, "{}: {error}", path.display());
        assert_eq!(files(home.path()), empty, "{}", path.display());
    }
    let options = InstallOptions { signed: signed(&ours), ..options() };
    let installed = home.install(open(&good), options).await.unwrap();
    assert_eq!(installed.current.signer, Some(signed(&ours).unwrap().0.key_id()));
    assert_eq!(home.audit().await.unwrap().len(), 1);
}

#[tokio::test]
async fn nobody_gets_more_than_was_asked_for_and_agreed_to() {
    let folder = TempDir::new().unwrap();
    let one = package(folder.path(), "a.b", "1.0.0", "[permissions]\nkv = true\nenv = ['A']");
    let two = package(folder.path(), "a.b", "2.0.0", "[permissions]\nenv = ['A', 'B']");
    let home = Home::open(folder.path().join("home")).await.unwrap();
    assert_eq!(install(&home, &one).await.unwrap().grant, Permissions::default());
    let [all, env, b] = [
        serde_json::json!({ "kv": true, "env": ["A"] }),
        serde_json::json!({ "env": ["A"] }),
        serde_json::json!({ "env": ["B"] }),
    ]
    .map(permissions);
    assert_eq!(home.grant("a.b", &all, ME).await.unwrap().grant, all);
    assert_eq!(home.grant("a.b", &b, ME).await.unwrap_err().code, ErrorCode::PermissionDenied);
    let error = update(&home, &two).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ConsentRequired);
    assert_eq!(error.message, "a.b 2.0.0 asks for more than 1.0.0: env \"B\"");
    let consent = InstallOptions { consent: true, ..options() };
    let updated = home.update(open(&two), consent).await.unwrap();
    // What it no longer asks for it no longer has; what it asks for now it does not have yet.
    assert_eq!((updated.wider, updated.installed.grant), (vec!["env \"B\"".to_owned()], env.clone()));
    assert_eq!(home.revoke("a.b", &env, ME).await.unwrap().grant, Permissions::default());
    assert_eq!(home.rollback("a.b", ME).await.unwrap().grant, Permissions::default());
}

#[tokio::test]
async fn those_that_need_each_other_come_and_go_in_order() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let needs = |id: &str, range: &str| format!("[dependencies]\n'{id}' = '{range}'");
    for (id, more) in [("a.a", ""), ("a.b", &needs("a.a", "^1")), ("a.c", &needs("a.b", "^1"))] {
        install(&home, &package(folder.path(), id, "1.0.0", more)).await.unwrap();
    }
    let error = home.enable("a.b", ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, "a.b needs a.a ^1"));
    for id in ["a.a", "a.b", "a.c"] {
        home.enable(id, ME).await.unwrap();
    }
    let error = home.disable("a.a", Dependents::Refuse, ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, "a.c, a.b need a.a"));
    let gone = home.disable("a.b", Dependents::Disable, ME).await.unwrap();
    assert_eq!(gone.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a.c", "a.b"]);
    home.enable("a.b", ME).await.unwrap();
    assert_eq!(home.uninstall("a.a", Dependents::Refuse, ME).await.unwrap_err().code, ErrorCode::Needed);
    let gone = home.uninstall("a.a", Dependents::Disable, ME).await.unwrap();
    assert_eq!(gone.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a.b"]);
    assert_eq!(home.show("a.b").await.unwrap().state, InstalledState::Disabled);
    let last = home.audit().await.unwrap().pop().unwrap();
    assert_eq!((&*last.action, &*last.extension), ("uninstall", "a.a"));
}

#[tokio::test]
async fn one_process_at_a_time_works_with_a_home() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path()).await.unwrap();
    assert!(Home::look(folder.path()).await.unwrap().is_empty());
    let error = Home::open(folder.path()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::HomeInUse);
    assert!(error.message.starts_with(&format!("process {} works with", std::process::id())), "{error}");
    drop(home);
    let home = Home::open(folder.path()).await.unwrap();
    // What a newer program wrote an older one leaves alone.
    let newer = "PRAGMA user_version = 1000";
    sqlx::raw_sql(newer).execute(&mut *home.connection().await.unwrap()).await.unwrap();
    drop(home);
    let error = Home::open(folder.path()).await.unwrap_err();
    assert!(error.message.ends_with("was written by a newer version of this program"), "{error}");
}

#[tokio::test]
async fn the_audit_trail_shows_what_was_changed_in_it() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    install(&home, &package(folder.path(), "a.b", "1.0.0", "")).await.unwrap();
    home.enable("a.b", ME).await.unwrap();
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    let whole = home.verify_audit(None).await.unwrap();
    assert_eq!(whole.entries, 3);
    let first = home.audit().await.unwrap()[0].hash.clone();
    for kept in [&whole.head, &first] {
        assert_eq!(home.verify_audit(Some(kept)).await.unwrap(), whole);
    }
    let keep = "CREATE TABLE kept AS SELECT * FROM audit";
    sqlx::raw_sql(keep).execute(&mut *home.connection().await.unwrap()).await.unwrap();
    let cases = [
        ("UPDATE audit SET actor = 'who' WHERE number = 2", 2),
        ("UPDATE audit SET detail = '{}' WHERE number = 2", 2),
        ("UPDATE audit SET at = at + 1 WHERE number = 1", 1),
        ("UPDATE audit SET hash = x'00' WHERE number = 3", 3),
        ("UPDATE audit SET action = 'ena', extension = 'blea.b' WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 1", 1),
        ("DELETE FROM audit WHERE number = 2", 2),
        ("DELETE FROM audit WHERE number = 3", 0),
        ("DELETE FROM audit", 0),
    ];
    for (edit, entry) in cases {
        sqlx::raw_sql(edit).execute(&mut *home.connection().await.unwrap()).await.unwrap();
        // What was cut off at the end only somebody knows who has kept the hash.
        let error = home.verify_audit(Some(&whole.head)).await.unwrap_err();
        let says = match entry {
            0 => "no entry of the audit trail has the hash that was kept".to_owned(),
            entry => format!("entry {entry} of the audit trail "),
        };
        assert!(error.message.starts_with(&says), "{edit}: {error}");
        let undo = "DELETE FROM audit; INSERT INTO audit SELECT * FROM kept";
        sqlx::raw_sql(undo).execute(&mut *home.connection().await.unwrap()).await.unwrap();
        assert_eq!(home.verify_audit(Some(&whole.head)).await.unwrap(), whole);
    }
}

/// What is done to a home in which `a.b` 1.0.0 is installed and enabled, and was before 0.9.0, and
/// `a.c` needs it.
const OPERATIONS: [&str; 8] =
    ["install", "update", "rollback", "enable", "disable", "uninstall", "grant", "revoke"];

async fn operate(home: &Home, packages: &Path, operation: &str) -> Result<(), Error> {
    let kv = permissions(serde_json::json!({ "kv": true }));
    match operation {
        "install" => install(home, &packages.join("a.d-1.0.0.qx")).await.map(drop),
        "update" => update(home, &packages.join("a.b-2.0.0.qx")).await.map(drop),
        "rollback" => home.rollback("a.b", ME).await.map(drop),
        "enable" => home.enable("a.e", ME).await.map(drop),
        "disable" => home.disable("a.b", Dependents::Disable, ME).await.map(drop),
        "uninstall" => home.uninstall("a.b", Dependents::Disable, ME).await.map(drop),
        "grant" => home.grant("a.b", &kv, ME).await.map(drop),
        _ => home.revoke("a.e", &kv, ME).await.map(drop),
    }
}

/// The process that is killed: it does one operation, if it was asked to.
#[tokio::test]
async fn child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let [operation, home, packages, count] = asked.split('|').collect::<Vec<_>>()[..] else {
        panic!("{asked}")
    };
    let home = Home::open(home).await.unwrap();
    fault::die_at(count.parse().unwrap());
    operate(&home, Path::new(packages), operation).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in entries(from).unwrap() {
        let to = to.join(entry.file_name().unwrap());
        match entry.is_dir() {
            true => copy(&entry, &to),
            false => drop(fs::copy(&entry, &to).unwrap()),
        }
    }
}

/// Has a process do an operation and be killed, at a place by its number or after a time. Says whether
/// it was killed.
fn killed(operation: &str, home: &Path, packages: &Path, at: Result<u32, Duration>) -> bool {
    let asked = format!("{operation}|{}|{}|{}", home.display(), packages.display(), at.unwrap_or(0));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "home::tests::child", "--nocapture"])
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
    let last = home.audit().await.unwrap().pop().unwrap();
    assert_eq!(last.action == operation && audited.entries > BASE, done, "{operation}: {last:?}");
    home.close().await;
    done
}

/// Entries of the audit trail of the home that all operations begin with.
const BASE: usize = 10;

/// Kills in each operation: at each place, and then at any time, a thousand times together.
#[tokio::test]
async fn slow_whatever_kills_it_an_operation_is_wholly_done_or_wholly_not() {
    // In memory where that can be: a killed process loses nothing that it had written.
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let packages = folder.path().join("packages");
    fs::create_dir(&packages).unwrap();
    let asks = "[permissions]\nkv = true";
    for version in ["0.9.0", "1.0.0", "2.0.0"] {
        package(&packages, "a.b", version, asks);
    }
    package(&packages, "a.c", "1.0.0", "[dependencies]\n'a.b' = '*'");
    package(&packages, "a.d", "1.0.0", "");
    package(&packages, "a.e", "1.0.0", asks);
    let base = folder.path().join("base");
    {
        let home = Home::open(&base).await.unwrap();
        for name in ["a.b-0.9.0.qx", "a.c-1.0.0.qx", "a.e-1.0.0.qx"] {
            install(&home, &packages.join(name)).await.unwrap();
        }
        home.enable("a.b", ME).await.unwrap();
        home.enable("a.c", ME).await.unwrap();
        update(&home, &packages.join("a.b-1.0.0.qx")).await.unwrap();
        let kv = permissions(serde_json::json!({ "kv": true }));
        home.grant("a.e", &kv, ME).await.unwrap();
        home.enable("a.e", ME).await.unwrap();
        home.disable("a.e", Dependents::Refuse, ME).await.unwrap();
        home.grant("a.e", &kv, ME).await.unwrap();
        assert_eq!(home.audit().await.unwrap().len(), BASE);
        home.close().await;
    }
    let home = Home::open(&base).await.unwrap();
    let before = state(&home).await;
    home.close().await;
    let (mut runs, begun) = (0, Instant::now());
    for operation in OPERATIONS {
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
        let operation = OPERATIONS[fastrand::usize(..OPERATIONS.len())];
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
