use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use quadriga_package::{Bounds, PackOptions, Package, SecretKey, pack};
use tempfile::TempDir;

use super::*;
use crate::Dispatcher;

mod backup;
mod config;
mod data;
mod decisions;
mod deps;
mod events;
mod kill;
mod licenses;
mod live;
mod needs;
mod trust;

const ME: &str = "the test";

/// Packs an extension with some lines more in its manifest.
fn package(folder: &Path, id: &str, version: &str, more: &str) -> PathBuf {
    package_of(folder, id, version, ["", more], &[])
}

/// The same with lines in the first table of its manifest too, and with further files.
fn package_of(
    folder: &Path,
    id: &str,
    version: &str,
    [about, more]: [&str; 2],
    files: &[(&str, &str)],
) -> PathBuf {
    let (source, packed) = (TempDir::new().unwrap(), folder.join(format!("{id}-{version}.qx")));
    let manifest = format!(
        "[extension]\nid = '{id}'\nversion = '{version}'\n{about}\n[runtime]\nkind = 'mock'\nentry = 'main'\n{more}\n"
    );
    fs::write(source.path().join("quadriga.toml"), manifest).unwrap();
    fs::write(source.path().join("main"), version).unwrap();
    fs::create_dir(source.path().join("data")).unwrap();
    fs::write(source.path().join("data/large"), vec![b'x'; 100_000]).unwrap();
    for (path, text) in files {
        let path = source.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
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

fn offer(path: &Path) -> [Offer; 1] {
    [Offer::from(open(path))]
}

async fn install(home: &Home, path: &Path) -> Result<Installed, Error> {
    Ok(home.install(offer(path), options()).await?.came.remove(0).installed)
}

async fn update(home: &Home, path: &Path) -> Result<Came, Error> {
    Ok(home.update(offer(path), options()).await?.came.remove(0))
}

async fn enable(home: &Home, id: &str) -> Result<Changes, Error> {
    home.enable(id, Needs::Refuse, ME).await
}

fn ids(list: &[ExtensionId]) -> Vec<&str> {
    list.iter().map(ExtensionId::as_str).collect()
}

fn settings(json: serde_json::Value) -> Settings {
    json.as_object().unwrap().clone()
}

fn permissions(json: serde_json::Value) -> Permissions {
    serde_json::from_value(json).unwrap()
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

/// All files below a folder but for those of the databases.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut list = Vec::new();
    for entry in entries(folder).unwrap() {
        let name = entry.file_name().unwrap().to_str().unwrap();
        if entry.is_dir() {
            list.extend(files(&entry));
            list.push(entry);
        } else if !name.contains(".sqlite") {
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
        let Installed { id, state, grant, config, pinned, .. } = it;
        format!("{id} {state:?} {current} {previous:?} {grant:?} {config:?} {pinned:?}")
    };
    let keys = home.trusted().await.unwrap();
    let keys = keys.iter().map(|it| format!("{} {} {}", it.key, it.publisher, it.level));
    let (trust, licenses) = (home.trust_policy().await.unwrap(), home.license_policy().await.unwrap());
    let policies = [format!("{trust:?}"), format!("{licenses:?}")];
    list.iter().map(line).chain(keys).chain(policies).collect()
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
    assert_eq!(ids(&enable(&home, "a.b").await.unwrap().enabled), ["a.b"]);
    let updated = update(&home, &two).await.unwrap();
    assert_eq!((updated.from.unwrap().to_string(), updated.wider.len()), ("1.0.0".to_owned(), 0));
    assert_eq!(updated.installed.state, InstalledState::Enabled);
    nothing_else(&home).await;
    assert_eq!(update(&home, &two).await.unwrap_err().code, ErrorCode::AlreadyInstalled);
    // Back, and forth again.
    for version in ["1.0.0", "2.0.0"] {
        let back = home.rollback("a.b", Dependents::Refuse, ME).await.unwrap();
        assert_eq!(back.came[0].installed.current.version.to_string(), version);
    }
    // The one before the last is kept, and none before that.
    let updated = update(&home, &three).await.unwrap().installed;
    assert_eq!(updated.previous.unwrap().version.to_string(), "2.0.0");
    nothing_else(&home).await;
    // To an older one on request alone.
    assert_eq!(update(&home, &one).await.unwrap_err().code, ErrorCode::ConsentRequired);
    nothing_else(&home).await;
    let consent = InstallOptions { consent: true, ..options() };
    home.update(offer(&one), consent).await.unwrap();
    // It outlasts the process.
    let (before, path) = (state(&home).await, home.path().to_owned());
    drop(home);
    let home = Home::open(path).await.unwrap();
    assert_eq!(state(&home).await, before);
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    nothing_else(&home).await;
    for error in [
        home.show("a.b").await.unwrap_err(),
        enable(&home, "a.b").await.unwrap_err(),
        home.rollback("a.b", Dependents::Refuse, ME).await.unwrap_err(),
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
    let other = package(folder.path(), "a.c", "1.0.0", "");
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
    let signed = |by: &SecretKey| Some(open(&good).sign(by, "").unwrap());
    let more = permissions(serde_json::json!({ "kv": true, "env": ["B"] }));
    let signed_by = |by| Offer { signature: signed(by), key: Some(ours.public()), ..open(&good).into() };
    let granted = Offer { grant: Some(more.clone()), ..open(&good).into() };
    let cases = [
        (vec![open(&damaged).into()], ErrorCode::InvalidPackage),
        (vec![open(&cut).into()], ErrorCode::InvalidPackage),
        (vec![signed_by(&theirs)], ErrorCode::InvalidPackage),
        (vec![granted], ErrorCode::PermissionDenied),
        // The owner of a key is named, and signed nothing.
        (vec![Offer { key: Some(ours.public()), ..open(&good).into() }], ErrorCode::InvalidPackage),
        // One of several.
        (vec![open(&other).into(), open(&damaged).into()], ErrorCode::InvalidPackage),
        (vec![open(&other).into(), signed_by(&theirs)], ErrorCode::InvalidPackage),
        (vec![open(&good).into(), open(&good).into()], ErrorCode::InvalidArguments),
    ];
    for (offers, code) in cases {
        let said = format!("{offers:?}");
        let error = home.install(offers, options()).await.unwrap_err();
        assert_eq!(error.code, code, "{said}: {error}");
        assert_eq!(files(home.path()), empty, "{said}");
    }
    let installed = home.install([signed_by(&ours)], options()).await.unwrap().came.remove(0).installed;
    assert_eq!(installed.current.signer, Some(signed(&ours).unwrap().key_id()));
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
    let updated = home.update(offer(&two), consent).await.unwrap().came.remove(0);
    // What it no longer asks for it no longer has; what it asks for now it does not have yet.
    assert_eq!((updated.wider, updated.installed.grant), (vec!["env \"B\"".to_owned()], env.clone()));
    assert_eq!(home.revoke("a.b", &env, ME).await.unwrap().grant, Permissions::default());
    let back = home.rollback("a.b", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(back.came[0].installed.grant, Permissions::default());
}

#[tokio::test]
async fn those_that_need_each_other_come_and_go_in_order() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let needs = |id: &str, range: &str| format!("[dependencies]\n'{id}' = '{range}'");
    for (id, more) in [("a.a", ""), ("a.b", &needs("a.a", "^1")), ("a.c", &needs("a.b", "^1"))] {
        install(&home, &package(folder.path(), id, "1.0.0", more)).await.unwrap();
    }
    let error = enable(&home, "a.b").await.unwrap_err();
    let why = "a.b 1.0.0 needs a.a ^1, which is disabled";
    assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, why));
    for id in ["a.a", "a.b", "a.c"] {
        enable(&home, id).await.unwrap();
    }
    let error = home.disable("a.a", Dependents::Refuse, ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, "a.c needs a.b ^1, a.b needs a.a ^1"));
    let gone = home.disable("a.b", Dependents::Disable, ME).await.unwrap();
    assert_eq!(ids(&gone.disabled), ["a.c", "a.b"]);
    enable(&home, "a.b").await.unwrap();
    assert_eq!(home.uninstall("a.a", Dependents::Refuse, ME).await.unwrap_err().code, ErrorCode::Needed);
    let gone = home.uninstall("a.a", Dependents::Disable, ME).await.unwrap();
    assert_eq!((ids(&gone.disabled), ids(&gone.uninstalled)), (vec!["a.b"], vec!["a.a"]));
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

/// Each of them has the files of this process for a moment.
#[tokio::test]
async fn a_home_is_free_once_it_is_closed_whatever_is_started_meanwhile() {
    let folder = TempDir::new().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let starting = std::thread::spawn({
        let stop = Arc::clone(&stop);
        move || {
            while !stop.load(Ordering::Relaxed) {
                std::process::Command::new("true").status().unwrap();
            }
        }
    });
    for _ in 0..100 {
        Home::open(folder.path()).await.unwrap().close().await;
    }
    stop.store(true, Ordering::Relaxed);
    starting.join().unwrap();
}

#[tokio::test]
async fn the_audit_trail_shows_what_was_changed_in_it() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    install(&home, &package(folder.path(), "a.b", "1.0.0", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
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
