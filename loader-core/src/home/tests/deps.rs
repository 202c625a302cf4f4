//! The graph of what is installed, the order in which it starts, and lock files.

use std::sync::{Arc, Barrier, Mutex};

use quadriga_abi::{ErrorCode, ExtensionId};
use serde_json::json;
use tempfile::TempDir;

use super::needs::{needs, offers, provides};
use super::{ME, enable, install, offer, open, options, package};
use crate::home::{
    Dependencies, Dependents, Home, InstallOptions, Lock, Needs, order, start, stop, with_needs,
};
use crate::{Dispatcher, MockRuntime};

/// A home with all sorts of needs in it.
async fn home(folder: &TempDir) -> Home {
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let site = needs(&[("a.words", "^1")])
        + "\n[optional-dependencies]\n'a.stems' = '*'\n"
        + &provides("requires = ['store@^2']");
    let list = [
        ("a.site", "1.0.0", site + "\n[host]\nmin = '0.1.0'"),
        ("a.words", "1.2.0", String::new()),
        ("a.disk", "1.0.0", provides("provides = ['store@2.1.0']")),
        ("a.cloud", "1.0.0", provides("provides = ['store@2.0.0']")),
        ("a.other", "1.0.0", String::new()),
    ];
    let list: Vec<_> =
        list.iter().map(|(id, version, more)| package(folder.path(), id, version, more)).collect();
    home.install(offers(&list), options()).await.unwrap();
    for id in ["a.disk", "a.site", "a.other"] {
        home.enable(id, Needs::Enable, ME).await.unwrap();
    }
    home
}

#[tokio::test]
async fn the_graph_says_who_needs_whom_and_who_is_that() {
    let folder = TempDir::new().unwrap();
    let home = home(&folder).await;
    let list = home.list().await.unwrap();
    let all = Dependencies::of(&list);
    let site = all.extensions.iter().find(|it| it.id.as_str() == "a.site").unwrap();
    let expected = json!({
        "id": "a.site", "version": "1.0.0", "state": "enabled", "provides": [],
        "needs": [
            { "kind": "system", "name": "host", "range": ">=0.1.0", "by": [], "met": true },
            { "kind": "extension", "name": "a.words", "range": "^1", "by": ["a.words"], "met": true },
            { "kind": "optional", "name": "a.stems", "range": "*", "by": [], "met": false },
            { "kind": "capability", "name": "store", "range": "^2", "by": ["a.cloud", "a.disk"], "met": true },
        ],
    });
    assert_eq!(serde_json::to_value(site).unwrap(), expected);
    let levels = serde_json::to_value(&all.order).unwrap();
    assert_eq!(levels, json!([["a.disk", "a.other", "a.words"], ["a.site"]]));
    assert!(all.cycles.is_empty());
    let around = |id: &str| {
        let around = all.around(&ExtensionId::new(id).unwrap());
        around.extensions.iter().map(|it| it.id.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(around("a.site"), "a.cloud a.disk a.site a.words");
    assert_eq!((around("a.words"), around("a.other")), ("a.site a.words".to_owned(), "a.other".to_owned()));
    let with = with_needs(&list, &ExtensionId::new("a.site").unwrap());
    assert_eq!(with.iter().map(|it| it.id.as_str()).collect::<Vec<_>>(), ["a.disk", "a.site", "a.words"]);
}

#[tokio::test]
async fn cycles_are_in_the_graph() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    for (id, on) in [("a.a", "a.b"), ("a.b", "a.c"), ("a.c", "a.b")] {
        install(&home, &package(folder.path(), id, "1.0.0", &needs(&[(on, "*")]))).await.unwrap();
    }
    // What an older program, or somebody with a hammer, may have left.
    let force = "UPDATE extension SET enabled = 1";
    sqlx::raw_sql(force).execute(&mut *home.connection().await.unwrap()).await.unwrap();
    let list = home.list().await.unwrap();
    let graph = serde_json::to_value(Dependencies::of(&list)).unwrap();
    assert_eq!((&graph["cycles"], &graph["order"]), (&json!([["a.b", "a.c", "a.b"]]), &json!([])));
    let host = Dispatcher::builder().runtime(MockRuntime::new()).build().unwrap();
    let failed = start(&host, &list).await;
    assert!(failed.iter().all(|(_, error)| error.code == ErrorCode::DependencyCycle), "{failed:?}");
    assert_eq!(failed.len(), 3);
    // It does not stand in the way of others, and can be put right.
    install(&home, &package(folder.path(), "a.d", "1.0.0", "")).await.unwrap();
    enable(&home, "a.d").await.unwrap();
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(Dependencies::of(&home.list().await.unwrap()).cycles.is_empty());
}

/// Those of the first level meet while they are loaded, or the test does not end.
#[tokio::test]
async fn independent_ones_start_at_the_same_time_and_all_stop_in_order() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    let list = [
        ("a.c", needs(&[("a.a", "*"), ("a.b", "*")])),
        ("a.a", String::new()),
        ("a.b", String::new()),
        ("a.d", needs(&[("a.c", "*")])),
    ];
    let list: Vec<_> = list.iter().map(|(id, more)| package(folder.path(), id, "1.0.0", more)).collect();
    let on = InstallOptions { enable: true, ..options() };
    home.install(offers(&list), on).await.unwrap();
    let list = home.list().await.unwrap();
    let ids: Vec<Vec<&str>> =
        order(&list).iter().map(|level| level.iter().map(|it| it.id.as_str()).collect()).collect();
    assert_eq!(ids, [vec!["a.a", "a.b"], vec!["a.c"], vec!["a.d"]]);
    let (meet, loaded) = (Arc::new(Barrier::new(2)), Arc::new(Mutex::new(Vec::new())));
    let seen = Arc::clone(&loaded);
    let runtime = MockRuntime::new().on_load(move |unit| {
        let id = unit.manifest.extension.id.to_string();
        if ["a.a", "a.b"].contains(&&*id) {
            meet.wait();
        }
        if id == "a.d" {
            return Err(crate::abi::Error::new(ErrorCode::LoadFailed, "on purpose"));
        }
        seen.lock().unwrap().push(id);
        Ok(())
    });
    let host = Dispatcher::builder().runtime(runtime).build().unwrap();
    let failed = start(&host, &list).await;
    assert_eq!(
        failed.iter().map(|(id, error)| (id.as_str(), error.code)).collect::<Vec<_>>(),
        [("a.d", ErrorCode::LoadFailed)]
    );
    loaded.lock().unwrap()[..2].sort_unstable();
    assert_eq!(*loaded.lock().unwrap(), ["a.a", "a.b", "a.c"]);
    assert_eq!(stop(&host, &list).await, []);
    assert!(host.list().is_empty());
}

#[tokio::test]
async fn a_lock_file_says_what_differs() {
    let folder = TempDir::new().unwrap();
    let home = home(&folder).await;
    let lock = Lock::of(&home.list().await.unwrap());
    assert_eq!(Lock::parse(&lock.to_text().unwrap()).unwrap(), lock);
    lock.check(&home.list().await.unwrap()).unwrap();
    let other = TempDir::new().unwrap();
    let [same, newer, another] = [
        ("a.words", "1.2.0", ""),
        ("a.words", "1.3.0", ""),
        ("a.other", "1.0.0", "[limits]\nmemory = '1MiB'"),
    ]
    .map(|(id, version, more)| package(other.path(), id, version, more));
    let locked = || InstallOptions { lock: Some(lock.clone()), ..options() };
    let there = Home::open(other.path().join("home")).await.unwrap();
    let digest = |path: &std::path::Path| format!("sha256:{}", open(path).digest());
    let (had, has) = (digest(&folder.path().join("a.other-1.0.0.qx")), digest(&another));
    let cases = [
        (&newer, "this is a.words 1.3.0; the lock file has 1.2.0".to_owned()),
        (&another, format!("this a.other 1.0.0 is {has}; the lock file has {had}")),
        (&package(other.path(), "a.new", "1.0.0", ""), "a.new 1.0.0 is not in the lock file".to_owned()),
    ];
    for (path, why) in cases {
        let error = there.install(offer(path), locked()).await.unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (ErrorCode::LockMismatch, &*why));
    }
    there.install(offer(&same), locked()).await.unwrap();
    install(&there, &another).await.unwrap();
    install(&there, &package(other.path(), "a.disk", "2.0.0", "")).await.unwrap();
    install(&there, &package(other.path(), "a.more", "1.0.0", "")).await.unwrap();
    let error = lock.check(&there.list().await.unwrap()).unwrap_err();
    let why = format!(
        "a.cloud 1.0.0 is not installed; a.disk is 2.0.0, and not 1.0.0; a.other 1.0.0 is {has}, and not {had}; \
         a.site 1.0.0 is not installed; a.words is disabled, and not enabled; a.more 1.0.0 is not in the lock file"
    );
    assert_eq!((error.code, &error.message), (ErrorCode::LockMismatch, &why));
    for wrong in ["", "lock = 2", "lock = 1\nmore = 1", "lock = 1\n[[extension]]\nid = 'a'"] {
        assert_eq!(Lock::parse(wrong).unwrap_err().code, ErrorCode::LockMismatch, "{wrong:?}");
    }
}
