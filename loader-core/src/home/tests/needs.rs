//! Extensions that need each other.

use std::sync::Arc;

use quadriga_abi::ErrorCode;
use tempfile::TempDir;

use super::{ME, install, nothing_else, open, options, package, permissions, update};
use crate::home::{Dependents, Home, InstallOptions, Installed, InstalledState};

fn needs(list: &[(&str, &str)]) -> String {
    let lines: Vec<String> = list.iter().map(|(id, range)| format!("'{id}' = '{range}'")).collect();
    format!("[dependencies]\n{}", lines.join("\n"))
}

fn ids(list: &[Installed]) -> Vec<&str> {
    list.iter().map(|it| it.id.as_str()).collect()
}

/// A home in which all of these are installed and enabled, in this order.
async fn home(folder: &TempDir, list: &[(&str, &str, &str)]) -> Home {
    let home = Home::open(folder.path().join("home")).await.unwrap();
    for (id, version, more) in list {
        install(&home, &package(folder.path(), id, version, more)).await.unwrap();
        home.enable(id, ME).await.unwrap();
    }
    home
}

async fn enabled(home: &Home) -> Vec<String> {
    let list = home.list().await.unwrap();
    list.iter()
        .filter(|it| it.state == InstalledState::Enabled)
        .map(|it| format!("{} {}", it.id, it.current.version))
        .collect()
}

#[tokio::test]
async fn a_version_that_others_cannot_use_takes_them_along_or_stays_out() {
    let folder = TempDir::new().unwrap();
    let home = home(
        &folder,
        &[
            ("a.a", "1.0.0", ""),
            ("a.b", "1.0.0", &needs(&[("a.a", "^1")])),
            ("a.c", "1.0.0", &needs(&[("a.b", "*")])),
        ],
    )
    .await;
    let all = enabled(&home).await;
    let two = package(folder.path(), "a.a", "2.0.0", "");
    let error = update(&home, &two).await.unwrap_err();
    let why = "a.c needs a.b *, a.b needs a.a ^1";
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, why));
    assert_eq!(enabled(&home).await, all);
    nothing_else(&home).await;
    let with = InstallOptions { dependents: Dependents::Disable, ..options() };
    let updated = home.update(open(&two), with).await.unwrap();
    assert_eq!(ids(&updated.disabled), ["a.c", "a.b"]);
    assert_eq!(enabled(&home).await, ["a.a 2.0.0"]);
    let entries = home.audit().await.unwrap();
    let last: Vec<_> = entries[entries.len() - 3..].iter().map(|it| (&*it.action, &*it.extension)).collect();
    assert_eq!(last, [("disable", "a.c"), ("disable", "a.b"), ("update", "a.a")]);
    // The other way: one needs the new version, and that is rolled back.
    install(&home, &package(folder.path(), "a.d", "1.0.0", &needs(&[("a.a", "^2")]))).await.unwrap();
    home.enable("a.d", ME).await.unwrap();
    let error = home.rollback("a.a", Dependents::Refuse, ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, "a.d needs a.a ^2"));
    let back = home.rollback("a.a", Dependents::Disable, ME).await.unwrap();
    assert_eq!((ids(&back.disabled), back.from.to_string()), (vec!["a.d"], "2.0.0".to_owned()));
    assert_eq!(enabled(&home).await, ["a.a 1.0.0"]);
}

#[tokio::test]
async fn a_version_that_lacks_what_it_needs_stays_out() {
    let folder = TempDir::new().unwrap();
    let home = home(&folder, &[("a.a", "1.0.0", ""), ("a.b", "1.0.0", &needs(&[("a.a", "^1")]))]).await;
    let cases = [
        ("1.1.0", needs(&[("a.z", "^1")]), "a.b 1.1.0 needs a.z ^1, which is not installed"),
        ("1.2.0", needs(&[("a.a", "^2")]), "a.b 1.2.0 needs a.a ^2; there is 1.0.0"),
        (
            "1.3.0",
            "[capabilities]\nrequires = ['t@1']".to_owned(),
            "a.b 1.3.0 needs the capability t@^1, which nothing provides that is installed",
        ),
    ];
    for (version, more, why) in cases {
        let two = package(folder.path(), "a.b", version, &more);
        let error = update(&home, &two).await.unwrap_err();
        assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, why));
        nothing_else(&home).await;
    }
    // What is disabled may lack what it likes, and is not enabled then.
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    let three = package(folder.path(), "a.b", "3.0.0", "");
    update(&home, &package(folder.path(), "a.b", "2.0.0", &needs(&[("a.z", "^1")]))).await.unwrap();
    assert_eq!(home.enable("a.b", ME).await.unwrap_err().code, ErrorCode::MissingDependency);
    update(&home, &three).await.unwrap();
    home.enable("a.b", ME).await.unwrap();
    let error = home.rollback("a.b", Dependents::Disable, ME).await.unwrap_err();
    let why = "a.b 2.0.0 needs a.z ^1, which is not installed";
    assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, why));
    assert_eq!(enabled(&home).await, ["a.a 1.0.0", "a.b 3.0.0"]);
}

#[tokio::test]
async fn a_version_that_is_kept_leads_to_the_roll_back() {
    let folder = TempDir::new().unwrap();
    let home = home(&folder, &[("a.b", "1.0.0", "")]).await;
    let one = folder.path().join("a.b-1.0.0.qx");
    update(&home, &package(folder.path(), "a.b", "2.0.0", "")).await.unwrap();
    let consent = || InstallOptions { consent: true, ..options() };
    let error = home.update(open(&one), consent()).await.unwrap_err();
    let says = "a.b 1.0.0 is kept as the version before 2.0.0";
    assert_eq!((error.code, &*error.message), (ErrorCode::AlreadyInstalled, says));
    assert_eq!(error.hint.as_deref(), Some("go back to it: quadriga rollback a.b"));
    // The same numbers on other packages.
    let others = TempDir::new().unwrap();
    let cases = [("1.0.0", "kept as the version before 2.0.0"), ("2.0.0", "installed already")];
    for (version, how) in cases {
        let other = package(others.path(), "a.b", version, "[limits]\nmemory = '1MiB'");
        let error = home.update(open(&other), consent()).await.unwrap_err();
        let [there, new] = [&folder.path().join(format!("a.b-{version}.qx")), &other]
            .map(|path| open(path).digest().to_string()[..12].to_owned());
        let says = format!("a.b {version} is {how}, from another package: {there}, and not {new}");
        assert_eq!((error.code, &error.message), (ErrorCode::AlreadyInstalled, &says));
        assert_eq!(error.hint.as_deref(), Some("give what has changed another version"));
        nothing_else(&home).await;
    }
    assert_eq!(enabled(&home).await, ["a.b 2.0.0"]);
}

/// Two tasks of one process, many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_two_do_at_once_is_both_done() {
    let folder = TempDir::new().unwrap();
    let asks = "[permissions]\nkv = true\nenv = ['A']";
    let home = Arc::new(home(&folder, &[("a.a", "1.0.0", asks)]).await);
    let others = ["a.b", "a.c"].map(|id| package(folder.path(), id, "1.0.0", ""));
    let [kv, env, all] = [
        serde_json::json!({ "kv": true }),
        serde_json::json!({ "env": ["A"] }),
        serde_json::json!({ "kv": true, "env": ["A"] }),
    ]
    .map(permissions);
    for _ in 0..25 {
        let grant = |what: &quadriga_abi::permission::Permissions| {
            let (home, what) = (Arc::clone(&home), what.clone());
            tokio::spawn(async move { home.grant("a.a", &what, ME).await.unwrap() })
        };
        let off = {
            let home = Arc::clone(&home);
            tokio::spawn(async move { home.disable("a.a", Dependents::Refuse, ME).await.unwrap() })
        };
        for task in [grant(&kv), grant(&env)] {
            task.await.unwrap();
        }
        off.await.unwrap();
        let now = home.show("a.a").await.unwrap();
        assert_eq!((now.grant, now.state), (all.clone(), InstalledState::Disabled));
        home.enable("a.a", ME).await.unwrap();
        home.revoke("a.a", &all, ME).await.unwrap();
        // One comes and one goes: neither takes the other's files for what is left of a killed process.
        let come = others.clone().map(|path| {
            let home = Arc::clone(&home);
            tokio::spawn(async move {
                let installed = install(&home, &path).await.unwrap();
                home.uninstall(installed.id.as_str(), Dependents::Refuse, ME).await.unwrap();
            })
        });
        for task in come {
            task.await.unwrap();
        }
    }
    nothing_else(&home).await;
    home.verify_audit(None).await.unwrap();
}

#[tokio::test]
async fn those_that_need_others_are_disabled_before_them() {
    let folder = TempDir::new().unwrap();
    let home = home(
        &folder,
        &[
            ("a.a", "1.0.0", ""),
            ("a.c", "1.0.0", &needs(&[("a.a", "*")])),
            ("a.b", "1.0.0", &needs(&[("a.a", "*"), ("a.c", "*")])),
            ("a.e", "1.0.0", &needs(&[("a.b", "*"), ("a.c", "*")])),
            ("a.d", "1.0.0", &needs(&[("a.a", "*"), ("a.e", "*")])),
        ],
    )
    .await;
    let gone = home.disable("a.a", Dependents::Disable, ME).await.unwrap();
    assert_eq!(ids(&gone), ["a.d", "a.e", "a.b", "a.c", "a.a"]);
}
