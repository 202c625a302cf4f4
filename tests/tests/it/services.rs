//! The services of the host as extensions in every language use them, in the host's process and in
//! workers.

use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex};

use quadriga::abi::permission::{AccessKind, Permissions};
use quadriga::abi::{Error, ErrorCode, Isolation, Value};
use quadriga::{
    DataComparison, DataPage, DataQuery, DataSource, DecisionFilter, Dispatcher, Effect, Grant, KvQuota,
    LoadOptions, Policy, Reason, SecretString, Snippet, Verdict,
};
use quadriga_tests::{granted, guest, with};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tempfile::TempDir;
use tracing_subscriber::fmt::format::FmtSpan;

use crate::cli::command;
use crate::zygotes::python;

/// Where each language runs.
pub(crate) const PLACES: &[(&str, Isolation)] = &[
    ("js", Isolation::InProcess),
    ("js", Isolation::Process),
    ("wasm", Isolation::InProcess),
    ("wasm", Isolation::Process),
    ("python", Isolation::None),
    ("python", Isolation::Process),
    ("native", Isolation::None),
    ("native", Isolation::Process),
];

const ASKS: &str = "[permissions]\nkv = true\nsecrets = ['token', 'other']";

const SECRET: &str = "correct horse battery";

struct Guest {
    host: Dispatcher,
    id: String,
    package: TempDir,
}

impl Guest {
    async fn load(language: &str, isolation: Isolation, grant: Grant) -> Self {
        let kv = KvQuota { bytes: 1000, keys: 20 };
        let policy = Policy { minimum_isolation: Isolation::None, kv, ..Policy::default() };
        let builder = quadriga::builder().policy(policy).secrets(|name| match name {
            "token" => Ok(Some(SecretString::from(SECRET))),
            _ => Ok(None),
        });
        let host = builder.build().unwrap();
        let package = with(&guest("services", language), ASKS);
        let options = LoadOptions { grant, isolation: Some(isolation), ..LoadOptions::default() };
        let id = host.load(package.path(), options).await.unwrap().to_string();
        assert_eq!(host.status(&id).unwrap().isolation, isolation);
        Self { host, id, package }
    }

    async fn call<R: DeserializeOwned>(&self, method: &str, arguments: &impl Serialize) -> Result<R, Error> {
        self.host.invoke(&self.id, method, arguments).await
    }

    /// It was denied, knows why, and the host knows of what.
    fn was_denied(&self, error: &Error, what: &str) {
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        assert_eq!(error.message, format!("{} may not {what}", self.id));
        let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        let denied = self.host.decisions(&self.id, &filter).unwrap();
        let last = denied.last().unwrap();
        // It is the host's own word, of workers too.
        assert_eq!((&*last.what, last.claimed, last.call > 0), (what, false, true), "{last:?}");
    }
}

fn only_kv() -> Permissions {
    Permissions { kv: true, ..Permissions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_kept_for_who_may() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, *isolation, Grant::Requested).await;
        let value = Value::Map(vec![
            (Value::Text("list".to_owned()), Value::List(vec![Value::Int(1), Value::Nil, Value::Float(0.5)])),
            (Value::Text("bytes".to_owned()), Value::Bytes(vec![0, 255])),
        ]);
        assert_eq!(guest.call::<Value>("get", &("k",)).await.unwrap(), Value::Nil);
        guest.call::<()>("put", &("k", &value)).await.unwrap();
        guest.call::<()>("put", &("k/ä", 1)).await.unwrap();
        assert_eq!(guest.call::<Value>("get", &("k",)).await.unwrap(), value);
        let keys = async |prefix, after: Option<&str>| {
            guest.call::<Vec<String>>("keys", &(prefix, after)).await.unwrap()
        };
        assert_eq!(keys("k", None).await, ["k", "k/ä"]);
        assert_eq!(keys("k", Some("k")).await, ["k/ä"]);
        // The next generation has it; the one after that of another load has not.
        guest.host.reload(&guest.id).await.unwrap();
        assert_eq!(guest.call::<Value>("get", &("k",)).await.unwrap(), value);
        assert!(guest.call::<bool>("remove", &("k",)).await.unwrap());
        assert!(!guest.call::<bool>("remove", &("k",)).await.unwrap());
        let over = guest.call::<()>("put", &("k", Value::Bytes(vec![0; 1000]))).await.unwrap_err();
        assert_eq!(over.code, ErrorCode::QuotaExceeded, "{over:?}");
        assert_eq!(
            over.message,
            format!("{} may keep 1000B of keys and values in the key-value store", guest.id)
        );
        assert!(guest.host.accesses(&guest.id).unwrap()[&AccessKind::Kv].allowed >= 9);
        guest.host.unload(&guest.id).await.unwrap();
        let options =
            LoadOptions { grant: Grant::Requested, isolation: Some(*isolation), ..Default::default() };
        guest.host.load(guest.package.path(), options).await.unwrap();
        assert!(keys("", None).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_is_denied_from_the_next_operation_on() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, *isolation, Grant::Nothing).await;
        let kv = "use the key-value store";
        guest.was_denied(&guest.call::<()>("put", &("k", 1)).await.unwrap_err(), kv);
        guest.was_denied(
            &guest.call::<String>("secret", &("token",)).await.unwrap_err(),
            "read the secret token",
        );
        assert_eq!(guest.host.grant(&guest.id, &only_kv()).unwrap(), Effect::Now);
        guest.call::<()>("put", &("k", 1)).await.unwrap();

        // One call reads on and on, and is denied in its course.
        let persists = tokio::spawn({
            let (host, id) = (guest.host.clone(), guest.id.clone());
            async move { host.invoke::<String>(&id, "persist", &()).await }
        });
        while guest.host.accesses(&guest.id).unwrap()[&AccessKind::Kv].allowed < 5 {
            tokio::task::yield_now().await;
        }
        assert_eq!(guest.host.revoke(&guest.id, &only_kv()).unwrap(), Effect::Now);
        assert_eq!(persists.await.unwrap().unwrap(), "permission_denied");
        guest.was_denied(&guest.call::<Value>("get", &("k",)).await.unwrap_err(), kv);
        let last = guest.host.decisions(&guest.id, &DecisionFilter { latest: Some(1), ..Default::default() });
        assert!(matches!(last.unwrap()[0].reason, Reason::Revoked { .. }));
        assert_eq!(guest.host.status(&guest.id).unwrap().generation, 1, "it runs on");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn values_have_versions_namespaces_and_ends() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, *isolation, Grant::Requested).await;
        // Of those who count at once, nobody loses a step.
        let counts = (0..4).map(|_| {
            let (host, id) = (guest.host.clone(), guest.id.clone());
            tokio::spawn(async move { host.invoke::<()>(&id, "count", &("n", 10)).await })
        });
        for count in counts.collect::<Vec<_>>() {
            count.await.unwrap().unwrap();
        }
        assert_eq!(guest.call::<i64>("get", &("n",)).await.unwrap(), 40);
        let relocate = async |key| guest.call::<bool>("relocate", &(key, ("space", "n"))).await.unwrap();
        assert!(relocate("n").await);
        assert!(!relocate("n").await, "it is gone");
        guest.call::<()>("put", &("m", 1)).await.unwrap();
        assert!(!relocate("m").await, "another is there");
        assert_eq!(guest.call::<Vec<String>>("keys", &("", ())).await.unwrap(), ["m"]);
        let page =
            async |most: usize| guest.call::<Vec<(String, i64)>>("page", &("space", most)).await.unwrap();
        assert_eq!(page(10).await, [("n".to_owned(), 40)]);
        assert_eq!(page(0).await, []);
        assert!(guest.call::<bool>("brief", &("m", 2)).await.unwrap());
        while guest.call::<Option<i64>>("get", &("m",)).await.unwrap().is_some() {
            tokio::task::yield_now().await;
        }
    }
}

/// Of two rows the older one, for whoever asks for those above an age.
struct People;

impl DataSource for People {
    fn query(&self, query: &DataQuery) -> Result<DataPage, Error> {
        let [filter] = &query.filters[..] else { panic!("{query:?}") };
        assert_eq!(
            (&*filter.field, filter.is, &filter.value),
            ("age", DataComparison::Above, &Value::Int(30))
        );
        assert!(query.order.len() == 1 && query.order[0].descending, "{query:?}");
        let row = [("name", Value::Text("Grace".to_owned())), ("age", Value::Int(85)), ("email", Value::Nil)];
        let row = row.into_iter().map(|(field, value)| (field.to_owned(), value)).collect();
        Ok(DataPage { rows: vec![row], next: None })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stores_are_shared_and_data_is_read_by_whom_it_was_granted_to() {
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    let host = quadriga::builder().policy(policy).source("people", People).build().unwrap();
    let asks = "[permissions]\nstores = ['board:rw', 'plan:ro']\ndata = ['people:name,age']";
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let package = with(&guest("services", language), asks);
        let grant = Grant::Requested;
        let options = LoadOptions { grant, isolation: Some(*isolation), ..LoadOptions::default() };
        let id = host.load(package.path(), options).await.unwrap().to_string();
        let value = format!("{language} {isolation}");
        host.invoke::<()>(&id, "share", &("board", &value, 1)).await.unwrap();
        let shared: Vec<(String, i64)> = host.invoke(&id, "shared", &("board",)).await.unwrap();
        assert!(shared.contains(&(value, 1)), "{shared:?}");
        assert_eq!(host.invoke::<Vec<Value>>(&id, "shared", &("plan",)).await.unwrap(), []);
        let denied = async |method, arguments: serde_json::Value, what: &str| {
            let error = host.invoke::<Value>(&id, method, &arguments).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
            assert_eq!(error.message, format!("{id} may not {what}"));
        };
        denied("share", json!(["plan", "k", 1]), "change the store plan").await;
        denied("shared", json!(["other"]), "read the store other").await;
        let older = async |fields: Option<&[&str]>| {
            host.invoke::<serde_json::Value>(&id, "older", &(30, fields)).await.unwrap()
        };
        assert_eq!(older(Some(&["name"])).await, json!([{ "name": "Grace" }]));
        assert_eq!(older(None).await, json!([{ "age": 85, "name": "Grace" }]));
        denied("older", json!([30, ["email"]]), "read the field email of people").await;
        let gone = serde_json::from_value(json!({ "stores": ["board:rw"], "data": ["people:name,age"] }));
        assert_eq!(host.revoke(&id, &gone.unwrap()).unwrap(), Effect::Now);
        denied("shared", json!(["board"]), "read the store board").await;
        denied("older", json!([30, null]), "read the field age of people").await;
        host.unload(&id).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_sees_its_own() {
    let guest = Guest::load("js", Isolation::InProcess, Grant::Requested).await;
    let mut ids = vec![guest.id.clone()];
    let mut packages = Vec::new();
    for (language, isolation) in &PLACES[3..] {
        let id = format!("services.{language}");
        if ids.contains(&id) {
            continue;
        }
        let package = with(&quadriga_tests::guest("services", language), ASKS);
        let options =
            LoadOptions { grant: Grant::Requested, isolation: Some(*isolation), ..Default::default() };
        guest.host.load(package.path(), options).await.unwrap();
        packages.push(package);
        ids.push(id);
    }
    assert_eq!(ids.len(), 4);
    for id in &ids {
        guest.host.invoke::<()>(id, "put", &("k", id)).await.unwrap();
    }
    for id in &ids {
        assert_eq!(guest.host.invoke::<String>(id, "get", &("k",)).await.unwrap(), *id);
        assert_eq!(guest.host.invoke::<Vec<String>>(id, "keys", &("", ())).await.unwrap(), ["k"]);
    }
}

/// Each of two calls waits for what the other one puts, in a worker of its own.
#[tokio::test(flavor = "multi_thread")]
async fn workers_of_one_extension_see_the_same() {
    let code = "import os\nfrom quadriga import host\n\n\ndef meet(own: str, other: str) -> list[int]:\n    \
                host.kv.put(own, os.getpid())\n    while host.kv.get(other) is None:\n        pass\n    \
                return [os.getpid(), host.kv.get(other)]\n";
    let package = python("test.team", code);
    let manifest = package.path().join("quadriga.toml");
    let text = std::fs::read_to_string(&manifest).unwrap();
    let text = text.replace("[permissions]", "[permissions]\nkv = true");
    std::fs::write(&manifest, text.replace("[runtime]", "[runtime]\nconcurrency = 2")).unwrap();
    let host = quadriga_tests::host();
    let options = LoadOptions { isolation: Some(Isolation::Process), ..granted() };
    let id = host.load(package.path(), options).await.unwrap().to_string();
    let meet = async |own, other| host.invoke::<[u32; 2]>(&id, "meet", &(own, other)).await.unwrap();
    let (first, second) = tokio::join!(meet("a", "b"), meet("b", "a"));
    assert_eq!(first, [second[1], second[0]]);
    assert_ne!(first[0], first[1], "two processes");
}

/// Everything that anybody logs.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn secrets_are_for_who_may_and_for_no_record() {
    let lines = Lines::default();
    let written = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_ansi(false)
        .with_span_events(FmtSpan::FULL)
        .with_writer(move || written.clone())
        .init();
    let mut records = String::new();
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, *isolation, Grant::Requested).await;
        assert_eq!(guest.call::<String>("secret", &("token",)).await.unwrap(), SECRET);
        let unknown = guest.call::<String>("secret", &("other",)).await.unwrap_err();
        assert_eq!(unknown.code, ErrorCode::UnknownSecret, "{unknown:?}");
        assert_eq!(unknown.message, "the host has no secret other");
        guest.was_denied(
            &guest.call::<String>("secret", &("mine",)).await.unwrap_err(),
            "read the secret mine",
        );
        let caught: Vec<String> = guest.call("caught", &("mine",)).await.unwrap();
        assert_eq!(caught, ["permission_denied", &format!("{} may not read the secret mine", guest.id)]);
        // Those that it had when it was loaded too, and it runs on.
        let token = Permissions { secrets: vec!["token".to_owned()], ..only_kv() };
        assert_eq!(guest.host.revoke(&guest.id, &token).unwrap(), Effect::Now);
        guest.was_denied(
            &guest.call::<String>("secret", &("token",)).await.unwrap_err(),
            "read the secret token",
        );
        guest.was_denied(&guest.call::<Value>("get", &("k",)).await.unwrap_err(), "use the key-value store");
        assert_eq!(guest.host.status(&guest.id).unwrap().generation, 1);
        let decisions = guest.host.decisions(&guest.id, &DecisionFilter::default()).unwrap();
        write!(records, "{decisions:?} {unknown:?} ").unwrap();
        write!(records, "{:?} {:?}", guest.host.activity(&guest.id), guest.host.status(&guest.id)).unwrap();
    }
    records += &String::from_utf8_lossy(&lines.0.lock().unwrap());
    for recorded in ["read the secret token", "quadriga::call", "quadriga::audit"] {
        assert!(records.contains(recorded), "{recorded}");
    }
    for part in [SECRET, "correct", "battery"] {
        assert!(!records.contains(part), "{part}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn loose_code_has_a_store_of_its_own() {
    let js = "import { host } from 'quadriga';\nawait host.kv.put('k', [1, 'two']);\n\
              export default [await host.kv.get('k'), await host.kv.list()];";
    let python =
        "from quadriga import host\nhost.kv.put('k', [1, 'two'])\n[host.kv.get('k'), host.kv.list()]";
    let host = quadriga_tests::host();
    for (language, source) in [("js", js), ("python", python)] {
        for _ in 0..2 {
            let mut snippet = Snippet::new(language, source);
            snippet.permissions = only_kv();
            let value = host.execute(snippet).await.unwrap().result.unwrap();
            let value = Value::from_bytes(&value).unwrap().to_json();
            assert_eq!(value, serde_json::json!([[1, "two"], ["k"]]), "{language}");
        }
        let denied = host.execute(Snippet::new(language, source)).await.unwrap().result.unwrap_err();
        assert_eq!(denied.code, ErrorCode::PermissionDenied, "{denied:?}");
    }
}

#[test]
fn the_command_reads_secrets_from_where_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let source = "import { host } from 'quadriga';\nexport default (await host.secrets.get('token')).length;";
    let script = file("length.js", source.as_bytes());
    let lines = file("lines", format!("{SECRET}\r\n").as_bytes());
    let (plain, binary) = (file("plain", SECRET.as_bytes()), file("binary", &[0xff, 0xfe]));
    let run = |secrets: &[&str]| {
        let mut command = command();
        command.args(["exec", "--language", "js", &script, "--report", "-vv"]);
        command.args(["--permission", "secrets=[\"token\"]"]);
        command.args(secrets.iter().map(|secret| format!("--secret={secret}")));
        command.env("SERVICES_TOKEN", SECRET).env_remove("SERVICES_NONE");
        let output = command.output().unwrap();
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let length = SECRET.len().to_string();
    let (from_lines, from_plain) = (format!("token=file:{lines}"), format!("token=file:{plain}"));
    let (from_binary, none) = (format!("token=file:{binary}"), format!("token=file:{plain}.none"));
    let takes = "--secret takes NAME=file:PATH or NAME=env:VARIABLE";
    let cases: &[(&[&str], i32, &str)] = &[
        (&[&from_lines], 0, &length),
        (&[&from_plain], 0, &length),
        (&["token=env:SERVICES_TOKEN"], 0, &length),
        (&["token=env:SERVICES_NONE"], 1, "the environment variable SERVICES_NONE is not set"),
        (&[], 1, "the host has no secret token"),
        (&["other=env:SERVICES_TOKEN"], 1, "the host has no secret token"),
        (&["token=env:SERVICES_TOKEN", &from_plain], 1, "the secret token is given twice"),
        (&[&from_binary], 1, "the secret token cannot be read from"),
        (&[&none], 1, "the secret token cannot be read from"),
        (&[SECRET], 1, takes),
        (&[&format!("token={SECRET}")], 1, takes),
        (&[&format!("token=text:{SECRET}")], 1, takes),
        (&[&format!("={SECRET}")], 1, takes),
    ];
    for (secrets, code, says) in cases {
        let (reached, text) = run(secrets);
        assert_eq!(reached, Some(*code), "{secrets:?}: {text}");
        assert!(text.contains(says), "{secrets:?}: {text}");
        assert!(!text.contains("horse"), "{secrets:?}: {text}");
    }
}
