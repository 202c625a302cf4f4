//! What an attached host decides is in the audit trail.

use quadriga_abi::permission::Access;
use quadriga_abi::schemars::{Schema, json_schema};
use quadriga_abi::{Bytes, codec};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::*;
use crate::home::start;
use crate::{CallOptions, Conflict, HookContext, HookField, HookPoint, MockRuntime, Outcome};

/// What a handler sees of it is on record.
#[derive(Serialize, Deserialize)]
struct Plan {
    title: String,
    token: String,
}

impl HookContext for Plan {
    const POINT: &'static HookPoint = &HookPoint {
        name: "plan.before",
        fields: &[
            HookField { name: "title", changeable: true, sensitive: false },
            HookField { name: "token", changeable: false, sensitive: true },
        ],
        parallel: false,
        conflict: Conflict::Error,
    };

    fn schema() -> Schema {
        json_schema!({ "type": "object" })
    }
}

/// Guests that ask for a variable, so many times, and answer a hook.
fn runtime() -> MockRuntime {
    MockRuntime::new()
        .mediates(&["env", "hooks", "sensitive"])
        .method("read", |bridge, call| {
            let (name, times): (String, u64) = codec::from_arguments(&call.envelope.payload).unwrap();
            let asked = (0..times).map(|_| bridge.check(&call.context(), &Access::Env(&name)).is_ok());
            Outcome::Ready(Ok(codec::to_bytes(&asked.filter(|may| *may).count()).unwrap().into()))
        })
        .method("look", |_, _| Outcome::Ready(Ok(Bytes::from_static(b"\xc0"))))
}

const ASKS: &str = "[permissions]\nenv = ['LANG', 'TZ']\nhooks = ['*']\nsensitive = ['plan.before:token']
[hooks.'plan.before']\nmethod = 'look'\nmode = 'modify'\non-failure = 'open'";

async fn read(host: &Dispatcher, name: &str, times: u64) -> usize {
    host.invoke("a.b", "read", &(name, times)).await.unwrap()
}

/// What is on record of the host's decisions: action, what, how often. The host may have written them down
/// in several entries.
async fn decided(home: &Home) -> Vec<(String, String, u64)> {
    let mut all: Vec<(String, String, u64)> = Vec::new();
    for entry in home.audit().await.unwrap().into_iter().filter(|entry| entry.actor == HOST) {
        let what = entry.detail["what"].as_str().unwrap_or_default().to_owned();
        let times = entry.detail["times"].as_u64().unwrap_or(1);
        match all.iter_mut().find(|it| (&it.0, &it.1) == (&entry.action, &what)) {
            Some(same) => same.2 += times,
            None => all.push((entry.action, what, times)),
        }
    }
    all
}

#[tokio::test]
async fn what_a_host_decides_is_on_record() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("home");
    let host = Dispatcher::builder().runtime(runtime()).build().unwrap();
    let home = Home::open(&path).await.unwrap().attach(&host);
    install(&home, &package(folder.path(), "a.b", "1.0.0", ASKS)).await.unwrap();
    let terms = Terms { permissions: None, ..Terms::of(TrustLevel::Untrusted) };
    home.set_terms(TrustLevel::Untrusted, terms, ME).await.unwrap();
    let granted = json!({ "env": ["LANG"], "hooks": ["*"], "sensitive": ["plan.before:token"] });
    home.grant("a.b", &permissions(granted), ME).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    assert_eq!(decided(&home).await, []);
    let is = |action: &str, what: &str, times: u64| (action.to_owned(), what.to_owned(), times);
    assert_eq!(read(&host, "LANG", 5).await, 5);
    assert_eq!(read(&host, "HOME", 3).await, 0);
    let mut known = vec![
        is("allow", "read the environment variable LANG", 1),
        is("deny", "read the environment variable HOME", 3),
    ];
    assert_eq!(decided(&home).await, known);
    // Whoever reads the trail again has nothing written down by that.
    assert_eq!(read(&host, "LANG", 100).await, 100);
    assert_eq!(decided(&home).await, known);
    for _ in 0..2 {
        let _ = host.hook(Plan { title: "t".to_owned(), token: "s3cret".to_owned() }).await.unwrap();
    }
    known.push(is("allow", "answer the hook plan.before", 1));
    known.push(is("allow", "see the sensitive plan.before:token", 2));
    assert_eq!(decided(&home).await, known);
    // The reason says why it holds no more.
    home.revoke("a.b", &permissions(json!({ "env": ["LANG"] })), ME).await.unwrap();
    assert_eq!(read(&host, "LANG", 1).await, 0);
    known.push(is("deny", "read the environment variable LANG", 1));
    assert_eq!(decided(&home).await, known);
    let last = home.audit().await.unwrap().pop().unwrap();
    assert_eq!((last.extension.as_str(), &last.detail["subject"]), ("a.b", &json!({ "access": "env" })));
    // What the host did to it, and what one was denied that is gone by now.
    host.quarantine("a.b", "it is odd").unwrap();
    let _ = host.call("a.b", "read", Bytes::from_static(b"\x92\xa1X\x01"), CallOptions::default()).await;
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    let after: Vec<_> = decided(&home).await.split_off(known.len());
    assert!(
        after.iter().any(|(action, what, _)| action == "manage" && what.contains("it is odd")),
        "{after:?}"
    );
    home.verify_audit(None).await.unwrap();
    // What nobody read is written down when the home is closed.
    install(&home, &package(folder.path(), "a.b", "1.0.1", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    read(&host, "TZ", 7).await;
    home.close().await;
    let home = Home::open(&path).await.unwrap();
    assert_eq!(decided(&home).await.pop(), Some(is("deny", "read the environment variable TZ", 7)));
    home.verify_audit(None).await.unwrap();
    // Nobody keeps it now.
    read(&host, "USER", 1).await;
    let home = home.attach(&host);
    read(&host, "SHELL", 1).await;
    assert_eq!(decided(&home).await.pop(), Some(is("deny", "read the environment variable SHELL", 1)));
    assert!(decided(&home).await.iter().all(|(_, what, _)| !what.contains("USER")));
}

#[tokio::test]
async fn a_flood_of_denials_is_written_down_in_a_few_entries() {
    const FLOOD: u64 = 20_000;
    let folder = TempDir::new().unwrap();
    let host = Dispatcher::builder().runtime(runtime()).build().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap().attach(&host);
    install(&home, &package(folder.path(), "a.b", "1.0.0", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    read(&host, "HOME", FLOOD).await;
    for at in 0..1000 {
        read(&host, &format!("V{at}"), 1).await;
    }
    let decided = decided(&home).await;
    assert_eq!(decided.iter().map(|(.., times)| times).sum::<u64>(), FLOOD + 1000);
    // 64 different things and the rest; the home may have written the first ones down meanwhile.
    let entries = home.audit().await.unwrap().len();
    assert!(entries <= 2 + 2 * 65, "{entries}");
    assert!(decided.iter().any(|(action, what, _)| action == "deny" && what.is_empty()), "{decided:?}");
}

#[tokio::test]
async fn what_is_decided_is_written_down_while_nobody_asks() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("home");
    let host = Dispatcher::builder().runtime(runtime()).build().unwrap();
    let home = Home::open(&path).await.unwrap().attach(&host);
    install(&home, &package(folder.path(), "a.b", "1.0.0", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    read(&host, "HOME", 1).await;
    // As another process sees it, which has nothing written down.
    let store = store::open(&path.join("store.sqlite")).await.unwrap();
    let count = || async {
        let query = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM audit WHERE action = 'deny'");
        query.fetch_one(&store).await.unwrap()
    };
    while count().await == 0 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    store.close().await;
    home.close().await;
}

#[tokio::test]
async fn an_attached_host_loads_anew_and_that_is_on_record() {
    let folder = TempDir::new().unwrap();
    let host = Dispatcher::builder().runtime(runtime()).build().unwrap();
    let home = Home::open(folder.path().join("home")).await.unwrap();
    install(&home, &package(folder.path(), "a.b", "1.0.0", "")).await.unwrap();
    enable(&home, "a.b").await.unwrap();
    assert_eq!(home.reload("a.b", ME).await.unwrap_err().code, ErrorCode::HostNotRunning);
    let home = home.attach(&host);
    assert_eq!(start(&host, &home.list().await.unwrap()).await, []);
    let before = host.status("a.b").unwrap().generation;
    assert!(home.reload("a.b", ME).await.unwrap().generation > before);
    let last = home.audit().await.unwrap().pop().unwrap();
    assert_eq!((last.action.as_str(), last.actor.as_str()), ("reload", ME));
    assert_eq!(last.detail, json!({ "version": "1.0.0" }));
    assert_eq!(home.reload("a.c", ME).await.unwrap_err().code, ErrorCode::NotInstalled);
}
