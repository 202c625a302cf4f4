//! What extensions keep in a home.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use quadriga_abi::{Bytes, codec};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, SqliteConnection};

use super::*;
use crate::home::{Backup, Data, Progress, start};
use crate::{
    KvAction, KvChange, KvKey, KvQuota, KvRange, KvStore, MemoryKv, MockRuntime, Policy, check_kv_store,
};

/// The home in which a process keeps things until it is killed.
const CHILD: &str = "QUADRIGA_DATA_TEST";

const KV: &str = "[permissions]\nkv = true";

/// Guests that keep what they are told to.
fn keeping() -> MockRuntime {
    ["get", "put"].into_iter().fold(MockRuntime::new(), |runtime, method| {
        runtime.method(method, move |bridge, call| {
            bridge.call(&call.context(), "quadriga.kv", method, call.envelope.payload.clone())
        })
    })
}

fn host(policy: Policy) -> Dispatcher {
    Dispatcher::builder().runtime(keeping()).policy(policy).build().unwrap()
}

async fn kv<R: DeserializeOwned>(
    host: &Dispatcher,
    id: &str,
    method: &str,
    arguments: impl Serialize,
) -> Result<R, Error> {
    let arguments = codec::arguments(&arguments).unwrap();
    let reply = host.call(id, method, arguments, Default::default()).await?;
    Ok(codec::from_bytes(&reply).unwrap())
}

/// A home with an extension that may keep things, and is enabled.
async fn home(folder: &Path) -> Home {
    let home = Home::open(folder.join("home")).await.unwrap();
    let with = InstallOptions { enable: true, ..options() };
    let offers = ["a.b", "a.c"].map(|id| offer_granted(&package(folder, id, "1.0.0", KV)));
    home.install(offers, with).await.unwrap();
    home
}

fn offer_granted(path: &Path) -> Offer {
    Offer { grant: Some(permissions(serde_json::json!({ "kv": true }))), ..Offer::from(open(path)) }
}

fn key(key: &str) -> KvKey {
    KvKey::plain(key)
}

fn put(name: &str) -> KvChange {
    let action = KvAction::Put { value: Bytes::from_static(b"\xa5value"), expires: None };
    KvChange { key: key(name), version: None, action }
}

/// Whether an owner has a key.
fn has(home: &Path, owner: &str, name: &str) -> bool {
    Data::of(home).get(owner, &key(name), 1).unwrap().is_some()
}

async fn database(home: &Path) -> SqliteConnection {
    SqliteConnectOptions::new().filename(home.join("data.sqlite")).connect().await.unwrap()
}

#[test]
fn it_is_a_store_as_any_other() {
    let folder = TempDir::new().unwrap();
    assert_eq!(check_kv_store(&Data::of(folder.path())), Ok(()));
    assert_eq!(check_kv_store(&MemoryKv::default()), Ok(()));
    // What is counted is what is there.
    let counted = "SELECT COUNT(*) FROM used LEFT JOIN (SELECT owner, COUNT(*) AS keys,
        SUM(length(namespace) + length(key) + length(value)) AS bytes FROM pair GROUP BY owner) AS sums
        USING (owner) WHERE used.keys <> ifnull(sums.keys, 0) OR used.bytes <> ifnull(sums.bytes, 0)";
    let wrong = crate::block_on(async {
        let mut open = database(folder.path()).await;
        sqlx::query_scalar::<_, i64>(counted).fetch_one(&mut open).await.unwrap()
    });
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn what_is_kept_outlasts_hosts_and_versions_and_goes_with_the_extension() {
    let folder = TempDir::new().unwrap();
    let home = home(folder.path()).await;
    let path = home.path().to_owned();
    for attached in [false, true] {
        let host = host(Policy::default());
        let home = if attached { home.clone().attach(&host) } else { home.clone() };
        assert!(start(&host, &home.list().await.unwrap()).await.is_empty());
        let value = kv::<Option<u64>>(&host, "a.b", "get", ("k",)).await.unwrap();
        assert_eq!(value, attached.then_some(7));
        kv::<()>(&host, "a.b", "put", ("k", 7)).await.unwrap();
        kv::<()>(&host, "a.c", "put", ("k", 8)).await.unwrap();
    }
    let due = KvKey { namespace: "a.b".to_owned(), key: "tidy".to_owned() };
    let was_due = KvChange { key: due.clone(), ..put("") };
    home.data().write("quadriga.schedule", &[was_due], KvQuota::NONE, 1).unwrap();
    // Versions come and go.
    update(&home, &package(folder.path(), "a.b", "2.0.0", KV)).await.unwrap();
    home.rollback("a.b", Dependents::Refuse, ME).await.unwrap();
    home.disable("a.b", Dependents::Refuse, ME).await.unwrap();
    home.clone().rehearse().uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(has(&path, "a.b", "k"));
    home.clone().keep_data().uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(has(&path, "a.b", "k") && has(&path, "a.c", "k"));
    install(&home, &package(folder.path(), "a.b", "3.0.0", KV)).await.unwrap();
    assert!(home.data().get("quadriga.schedule", &due, 1).unwrap().is_some());
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(!has(&path, "a.b", "k") && has(&path, "a.c", "k"));
    assert!(home.data().get("quadriga.schedule", &due, 1).unwrap().is_none());
}

#[tokio::test]
async fn a_host_may_have_a_store_of_its_own_and_bounds() {
    let folder = TempDir::new().unwrap();
    let home = home(folder.path()).await;
    let own = Dispatcher::builder().runtime(keeping()).kv(MemoryKv::default()).build().unwrap();
    let attached = home.clone().attach(&own);
    assert!(start(&own, &attached.list().await.unwrap()).await.is_empty());
    kv::<()>(&own, "a.b", "put", ("k", 7)).await.unwrap();
    assert!(!home.path().join("data.sqlite").exists());
    drop(attached);
    let host = host(Policy { kv: KvQuota { bytes: 100, keys: 2 }, ..Policy::default() });
    assert!(start(&host, &home.list().await.unwrap()).await.is_empty());
    let large = "x".repeat(100);
    let over = kv::<()>(&host, "a.b", "put", ("k", &large)).await.unwrap_err();
    assert_eq!(over.code, ErrorCode::QuotaExceeded);
    assert_eq!(over.message, "a.b may keep 100B of keys and values in the key-value store");
    for id in ["a.b", "a.c"] {
        kv::<()>(&host, id, "put", ("k", 1)).await.unwrap();
        kv::<()>(&host, id, "put", ("l", 1)).await.unwrap();
        let over = kv::<()>(&host, id, "put", ("m", 1)).await.unwrap_err();
        assert_eq!(over.message, format!("{id} may keep 2 keys in the key-value store"));
    }
}

/// Whatever is put there meanwhile, each backup is whole.
#[tokio::test(flavor = "multi_thread")]
async fn backups_are_made_while_extensions_keep_things() {
    let folder = TempDir::new().unwrap();
    let home = home(folder.path()).await;
    let (data, stop) = (home.data().clone(), Arc::new(AtomicBool::new(false)));
    let stopped = Arc::clone(&stop);
    let keeps = tokio::task::spawn_blocking(move || {
        let mut n = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            // Two that belong together.
            let changes = ["a", "b"].map(|name| put(&format!("{name}{n}")));
            data.write("a.b", &changes, KvQuota::NONE, 1).unwrap();
            n += 1;
        }
        n
    });
    for n in 0..5 {
        let backups = folder.path().join("backups");
        let backup = Backup::make(home.path(), &backups, &Progress::default()).await.unwrap();
        assert!(n == 0 || backup.files.contains_key("data.sqlite"));
        let again = folder.path().join(format!("again-{n}"));
        backup.restore(&again, &Progress::default()).await.unwrap();
        together(&again);
    }
    stop.store(true, Ordering::Relaxed);
    assert!(keeps.await.unwrap() > 0);
}

/// Of all pairs there are both, or neither. Gives their numbers.
fn together(home: &Path) -> BTreeSet<u64> {
    let data = Data::of(home);
    let [a, b] = ["a", "b"].map(|prefix| {
        let mut names: Vec<String> = Vec::new();
        loop {
            let (namespace, prefix) = (String::new(), prefix.to_owned());
            let range = KvRange { namespace, prefix, after: names.last().cloned(), most: 1000 };
            let more = data.list("a.b", &range, 1).unwrap();
            if more.is_empty() {
                return names.iter().map(|name| name[1..].parse().unwrap()).collect::<BTreeSet<u64>>();
            }
            names.extend(more);
        }
    });
    assert_eq!(a, b);
    a
}

/// The process that is killed.
#[test]
fn child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let (home, from) = asked.split_once('|').unwrap();
    let (data, mut out) = (Data::of(home), std::io::stdout().lock());
    for n in from.parse::<u64>().unwrap().. {
        let changes = ["a", "b"].map(|name| put(&format!("{name}{n}")));
        data.write("a.b", &changes, KvQuota::NONE, 1).unwrap();
        writeln!(out, "kept {n}").unwrap();
        out.flush().unwrap();
    }
}

#[test]
fn what_was_said_to_be_kept_is_there_after_a_kill() {
    let folder = TempDir::new().unwrap();
    let mut last = 0;
    for _ in 0..20 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "home::tests::data::child", "--nocapture"])
            .env(CHILD, format!("{}|{}", folder.path().display(), last + 1))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let kept = |line: String| line.rsplit_once("kept ").map(|(_, n)| n.parse::<u64>().unwrap());
        last = lines.by_ref().find_map(kept).unwrap();
        std::thread::sleep(Duration::from_micros(fastrand::u64(..30_000)));
        child.kill().unwrap();
        child.wait().unwrap();
        last = lines.filter_map(kept).last().unwrap_or(last);
        let there = together(folder.path());
        assert!((1..=last).all(|n| there.contains(&n)), "{last}: {there:?}");
        let said = crate::block_on(async {
            let mut open = database(folder.path()).await;
            let said = sqlx::query_scalar::<_, String>("PRAGMA integrity_check").fetch_all(&mut open).await;
            open.close().await.unwrap();
            said.unwrap()
        });
        assert_eq!(said, ["ok"]);
        // The one that was under way may be there too.
        last = there.len() as u64;
    }
    eprintln!("{last} were kept, in 20 processes");
}
