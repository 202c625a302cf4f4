//! Extensions that need each other.

use std::sync::Arc;

use quadriga_abi::ErrorCode;
use tempfile::TempDir;

use super::{
    ME, enable, ids, install, nothing_else, offer, open, options, package, permissions, state, update,
};
use crate::home::{Dependents, Home, InstallOptions, InstalledState, Needs, Offer};

pub(super) fn needs(list: &[(&str, &str)]) -> String {
    let lines: Vec<String> = list.iter().map(|(id, range)| format!("'{id}' = '{range}'")).collect();
    format!("[dependencies]\n{}", lines.join("\n"))
}

/// A home in which all of these are installed and enabled, in this order.
async fn home(folder: &TempDir, list: &[(&str, &str, &str)]) -> Home {
    let home = Home::open(folder.path().join("home")).await.unwrap();
    for (id, version, more) in list {
        install(&home, &package(folder.path(), id, version, more)).await.unwrap();
        enable(&home, id).await.unwrap();
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
    let updated = home.update(offer(&two), with).await.unwrap();
    assert_eq!(ids(&updated.disabled), ["a.c", "a.b"]);
    assert_eq!(enabled(&home).await, ["a.a 2.0.0"]);
    let entries = home.audit().await.unwrap();
    let last: Vec<_> = entries[entries.len() - 3..].iter().map(|it| (&*it.action, &*it.extension)).collect();
    assert_eq!(last, [("disable", "a.c"), ("disable", "a.b"), ("update", "a.a")]);
    // The other way: one needs the new version, and that is rolled back.
    install(&home, &package(folder.path(), "a.d", "1.0.0", &needs(&[("a.a", "^2")]))).await.unwrap();
    enable(&home, "a.d").await.unwrap();
    let error = home.rollback("a.a", Dependents::Refuse, ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, "a.d needs a.a ^2"));
    let back = home.rollback("a.a", Dependents::Disable, ME).await.unwrap();
    assert_eq!(
        (ids(&back.disabled), back.came[0].from.clone()),
        (vec!["a.d"], Some(semver::Version::new(2, 0, 0)))
    );
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
    assert_eq!(enable(&home, "a.b").await.unwrap_err().code, ErrorCode::MissingDependency);
    update(&home, &three).await.unwrap();
    enable(&home, "a.b").await.unwrap();
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
    let error = home.update(offer(&one), consent()).await.unwrap_err();
    let says = "a.b 1.0.0 is kept as the version before 2.0.0";
    assert_eq!((error.code, &*error.message), (ErrorCode::AlreadyInstalled, says));
    assert_eq!(error.hint.as_deref(), Some("go back to it: quadriga rollback a.b"));
    // The same numbers on other packages.
    let others = TempDir::new().unwrap();
    let cases = [("1.0.0", "kept as the version before 2.0.0"), ("2.0.0", "installed already")];
    for (version, how) in cases {
        let other = package(others.path(), "a.b", version, "[limits]\nmemory = '1MiB'");
        let error = home.update(offer(&other), consent()).await.unwrap_err();
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
        enable(&home, "a.a").await.unwrap();
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
    assert_eq!(ids(&gone.disabled), ["a.d", "a.e", "a.b", "a.c", "a.a"]);
}

pub(super) fn provides(lines: &str) -> String {
    format!("[capabilities]\n{lines}")
}

/// Packages of extensions that need each other and several versions of one.
fn together(folder: &TempDir) -> Vec<std::path::PathBuf> {
    let list = [
        ("a.site", "1.0.0", needs(&[("a.words", "^1"), ("a.rank", "*")])),
        ("a.rank", "1.0.0", provides("requires = ['store@^2']")),
        ("a.words", "1.0.0", String::new()),
        ("a.words", "1.2.0", String::new()),
        ("a.words", "2.0.0", String::new()),
        ("a.disk", "1.0.0", provides("provides = ['store@2.1.0']")),
    ];
    list.iter().map(|(id, version, more)| package(folder.path(), id, version, more)).collect()
}

pub(super) fn offers(list: &[std::path::PathBuf]) -> Vec<Offer> {
    list.iter().map(|path| Offer::from(open(path))).collect()
}

#[tokio::test]
async fn what_needs_each_other_is_installed_together_or_not_at_all() {
    let folder = TempDir::new().unwrap();
    let packages = together(&folder);
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let on = || InstallOptions { enable: true, ..options() };
    // Without what provides the capability.
    let error = home.install(offers(&packages[..5]), on()).await.unwrap_err();
    let why = "a.rank 1.0.0 needs the capability store@^2, which nothing provides that is installed";
    assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, why));
    assert!(home.list().await.unwrap().is_empty());
    nothing_else(&home).await;
    let done = home.install(offers(&packages), on()).await.unwrap();
    assert_eq!(ids(&done.enabled), ["a.disk", "a.words", "a.rank", "a.site"]);
    assert_eq!(enabled(&home).await, ["a.disk 1.0.0", "a.rank 1.0.0", "a.site 1.0.0", "a.words 1.2.0"]);
    nothing_else(&home).await;
    home.verify_audit(None).await.unwrap();
    // Not enabled, the newest of each is there.
    let other = Home::open(folder.path().join("other")).await.unwrap();
    assert!(other.install(offers(&packages), options()).await.unwrap().enabled.is_empty());
    assert_eq!(other.show("a.words").await.unwrap().current.version.to_string(), "2.0.0");
    nothing_else(&other).await;
}

#[tokio::test]
async fn what_it_needs_is_enabled_with_it() {
    let folder = TempDir::new().unwrap();
    let packages = together(&folder);
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let chosen: Vec<_> = [0, 1, 3, 5].iter().map(|at: &usize| packages[*at].clone()).collect();
    home.install(offers(&chosen), options()).await.unwrap();
    let error = enable(&home, "a.site").await.unwrap_err();
    let why =
        "a.site 1.0.0 needs a.rank *, which is disabled; a.site 1.0.0 needs a.words ^1, which is disabled";
    assert_eq!((error.code, &*error.message), (ErrorCode::MissingDependency, why));
    let done = home.enable("a.site", Needs::Enable, ME).await.unwrap();
    assert_eq!(ids(&done.enabled), ["a.disk", "a.words", "a.rank", "a.site"]);
    // Who provides a capability is needed for it, as long as nobody else does.
    let error = home.disable("a.disk", Dependents::Refuse, ME).await.unwrap_err();
    let why = "a.site needs a.rank *, a.rank needs the capability store@^2";
    assert_eq!((error.code, &*error.message), (ErrorCode::Needed, why));
    install(&home, &package(folder.path(), "a.cloud", "1.0.0", &provides("provides = ['store@2.0.0']")))
        .await
        .unwrap();
    enable(&home, "a.cloud").await.unwrap();
    home.disable("a.disk", Dependents::Refuse, ME).await.unwrap();
    let gone = home.disable("a.cloud", Dependents::Disable, ME).await.unwrap();
    assert_eq!(ids(&gone.disabled), ["a.site", "a.rank", "a.cloud"]);
}

#[tokio::test]
async fn versions_that_need_each_other_are_updated_together() {
    let folder = TempDir::new().unwrap();
    let home = home(&folder, &[("a.a", "1.0.0", ""), ("a.b", "1.0.0", &needs(&[("a.a", "^1")]))]).await;
    let two = [
        package(folder.path(), "a.b", "2.0.0", &needs(&[("a.a", "^2")])),
        package(folder.path(), "a.a", "2.0.0", ""),
    ];
    for one in &two {
        update(&home, one).await.unwrap_err();
    }
    // With others of which one fits.
    let more = [
        package(folder.path(), "a.a", "3.0.0", ""),
        package(folder.path(), "a.b", "3.0.0", &needs(&[("a.z", "*")])),
    ];
    let before = enabled(&home).await;
    let done = home.update(offers(&[&two[..], &more].concat()), options()).await.unwrap();
    let mut came: Vec<_> =
        done.came.iter().map(|it| format!("{} {}", it.installed.id, it.installed.current.version)).collect();
    came.sort_unstable();
    assert_eq!(came, ["a.a 2.0.0", "a.b 2.0.0"]);
    nothing_else(&home).await;
    // Back again, one at a time, takes the one out of use in between.
    let error = home.rollback("a.b", Dependents::Disable, ME).await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::MissingDependency, "a.b 1.0.0 needs a.a ^1; there is 2.0.0")
    );
    assert_eq!(home.rollback("a.a", Dependents::Refuse, ME).await.unwrap_err().code, ErrorCode::Needed);
    home.rollback("a.a", Dependents::Disable, ME).await.unwrap();
    home.rollback("a.b", Dependents::Refuse, ME).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    assert_eq!(enabled(&home).await, before);
}

#[tokio::test]
async fn those_in_a_circle_are_not_enabled() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let circle = [("a.a", "a.b"), ("a.b", "a.c"), ("a.c", "a.a")]
        .map(|(id, on)| package(folder.path(), id, "1.0.0", &needs(&[(on, "*")])));
    let on = InstallOptions { enable: true, ..options() };
    let says = "these need each other, so that none can start first: a.a -> a.b -> a.c -> a.a";
    let error = home.install(offers(&circle), on).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::DependencyCycle, says));
    home.install(offers(&circle), options()).await.unwrap();
    let error = home.enable("a.a", Needs::Enable, ME).await.unwrap_err();
    assert_eq!((error.code, &*error.message), (ErrorCode::DependencyCycle, says));
    let error = enable(&home, "a.a").await.unwrap_err();
    assert_eq!(
        (error.code, &*error.message),
        (ErrorCode::MissingDependency, "a.a 1.0.0 needs a.b *, which is disabled")
    );
}

#[tokio::test]
async fn what_is_for_another_host_is_not_enabled() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    install(&home, &package(folder.path(), "a.a", "1.0.0", "[host]\nmin = '99.0.0'")).await.unwrap();
    install(&home, &package(folder.path(), "a.b", "1.0.0", &needs(&[("a.a", "*")]))).await.unwrap();
    assert_eq!(enable(&home, "a.a").await.unwrap_err().code, ErrorCode::IncompatibleVersion);
    let error = home.enable("a.b", Needs::Enable, ME).await.unwrap_err();
    let why = format!(
        "a.b 1.0.0 needs a.a *; a.a 1.0.0 needs host 99.0.0 or newer; this is {}",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!((error.code, &error.message), (ErrorCode::MissingDependency, &why));
}

/// Each operation says what it would do, and does it later in the same way.
#[tokio::test]
async fn a_rehearsal_says_what_would_change_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let packages = together(&folder);
    let mut home = Home::open(folder.path().join("home")).await.unwrap();
    let a2 = package(folder.path(), "a.disk", "3.0.0", "");
    for step in 0..6 {
        let [mut would, mut does] = [None, None];
        let path = home.path().to_owned();
        for (rehearsal, changes) in [(true, &mut would), (false, &mut does)] {
            home.close().await;
            home = Home::open(&path).await.unwrap();
            let before = (state(&home).await, home.verify_audit(None).await.unwrap());
            if rehearsal {
                home = home.rehearse();
            }
            let all = [0, 1, 3, 5].map(|at| packages[at].clone());
            let with = InstallOptions { dependents: Dependents::Disable, ..options() };
            let mut done = match step {
                0 => home.install(offers(&all), options()).await,
                1 => home.enable("a.site", Needs::Enable, ME).await,
                2 => home.update(offer(&a2), with).await,
                3 => home.rollback("a.disk", Dependents::Refuse, ME).await,
                4 => home.disable("a.words", Dependents::Disable, ME).await,
                _ => home.uninstall("a.words", Dependents::Disable, ME).await,
            }
            .unwrap();
            for it in &mut done.came {
                it.installed.current.installed_at = std::time::SystemTime::UNIX_EPOCH;
            }
            *changes = Some(done);
            nothing_else(&home).await;
            let after = (state(&home).await, home.verify_audit(None).await.unwrap());
            assert_eq!(before == after, rehearsal, "{step}");
        }
        assert_eq!(would, does, "{step}");
    }
}
