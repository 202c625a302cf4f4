//! Stores that extensions share, and data of the host that they query, with a runtime that needs no engine.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex};

use quadriga_core::abi::permission::Permissions;
use quadriga_core::abi::{Error, ErrorCode, Value, codec};
use quadriga_core::{
    CallOptions, DataComparison, DataPage, DataQuery, DataSource, DecisionFilter, Dispatcher, Effect, Grant,
    KvKey, KvQuota, KvStore as _, MemoryKv, Policy, Reason, Verdict,
};
use serde_json::{Value as Json, json};

use crate::common::{host, load, told, until, wanted};

/// Has an extension ask a service.
async fn ask(
    host: &Dispatcher,
    id: &str,
    service: &str,
    method: &str,
    arguments: Json,
) -> Result<Json, Error> {
    let arguments = wanted(service, method, arguments);
    let reply = host.call(id, "call", arguments, CallOptions::default()).await?;
    Ok(codec::from_bytes::<Value>(&reply).unwrap().to_json())
}

async fn store(host: &Dispatcher, id: &str, method: &str, arguments: Json) -> Result<Json, Error> {
    ask(host, id, "quadriga.store", method, arguments).await
}

fn permissions(json: Json) -> Permissions {
    serde_json::from_value(json).unwrap()
}

#[tokio::test]
async fn what_several_share_only_they_see() {
    let host = host(told(), Policy { kv: KvQuota { bytes: 100, keys: 3 }, ..Policy::default() });
    let _x = load(&host, "a.x", "[permissions]\nstores = ['orders:rw']", Grant::Requested).await;
    let _y = load(&host, "a.y", "[permissions]\nstores = ['orders:ro', 'cache:rw']", Grant::Requested).await;
    let _z = load(&host, "a.z", "[permissions]\nkv = true", Grant::Requested).await;
    store(&host, "a.x", "put", json!(["orders", "k", 7])).await.unwrap();
    assert_eq!(store(&host, "a.y", "get", json!(["orders", "k"])).await.unwrap(), 7);
    assert_eq!(store(&host, "a.y", "list", json!(["orders"])).await.unwrap(), json!(["k"]));
    assert_eq!(store(&host, "a.y", "entries", json!(["orders", ""])).await.unwrap()[0]["value"], 7);
    assert_eq!(
        store(&host, "a.y", "get", json!(["cache", "k"])).await.unwrap(),
        json!(null),
        "another store"
    );
    // Who may read may not change, and who may neither does neither.
    let cases = [
        ("a.y", "put", json!(["orders", "k", 8]), "change the store orders"),
        ("a.y", "delete", json!(["orders", "k"]), "change the store orders"),
        ("a.y", "batch", json!(["orders", []]), "change the store orders"),
        ("a.x", "get", json!(["cache", "k"]), "read the store cache"),
        ("a.z", "get", json!(["orders", "k"]), "read the store orders"),
        ("a.z", "put", json!(["orders", "k", 1]), "change the store orders"),
    ];
    for (id, method, arguments, what) in cases {
        let error = store(&host, id, method, arguments.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{id} {method} {arguments}: {error}");
        assert_eq!(error.message, format!("{id} may not {what}"));
        let denied = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        assert_eq!(host.decisions(id, &denied).unwrap().last().unwrap().what, what);
    }
    // Nobody's own store is a shared one, whatever that is called.
    let own = ask(&host, "a.z", "quadriga.kv", "list", json!([])).await.unwrap();
    assert_eq!(own, json!([]));
    for name in ["", "a b", "orders:rw", "store/orders\n"] {
        let error = store(&host, "a.x", "get", json!([name, "k"])).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{name}: {error}");
    }
    let error = store(&host, "a.x", "get", json!(["orders"])).await.unwrap_err();
    assert_eq!(error.message, "quadriga.store/get: the arguments: it takes a key");
    // The quota is that of the store.
    let over = store(&host, "a.x", "put", json!(["orders", "l", "x".repeat(100)])).await.unwrap_err();
    assert_eq!(over.message, "store/orders may keep 100B of keys and values in the key-value store");
    // It outlasts those who put something there.
    host.unload("a.x").await.unwrap();
    assert_eq!(store(&host, "a.y", "get", json!(["orders", "k"])).await.unwrap(), 7);
    let gone = permissions(json!({ "stores": ["orders:ro"] }));
    assert_eq!(host.revoke("a.y", &gone).unwrap(), Effect::Now);
    let error = store(&host, "a.y", "get", json!(["orders", "k"])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    let last = host.decisions("a.y", &DecisionFilter::default()).unwrap().pop().unwrap();
    assert!(matches!(last.reason, Reason::Revoked { .. }), "{last:?}");
}

#[tokio::test]
async fn what_is_shared_is_in_the_store_of_the_host() {
    let kept = Arc::new(MemoryKv::default());
    let host = Dispatcher::builder().runtime(told()).kv(Arc::clone(&kept)).build().unwrap();
    let _x = load(&host, "a.x", "[permissions]\nstores = ['orders:rw']", Grant::Requested).await;
    store(&host, "a.x", "put", json!(["orders", ["n", "k"], 7])).await.unwrap();
    let key = KvKey { namespace: "n".to_owned(), key: "k".to_owned() };
    assert_eq!(&kept.get("store/orders", &key, 1).unwrap().unwrap().value[..], [7]);
    assert!(kept.get("a.x", &key, 1).unwrap().is_none());
}

/// Rows in memory. What was asked last is there to be seen.
#[derive(Clone, Default)]
struct Table {
    rows: Vec<BTreeMap<String, Value>>,
    asked: Arc<Mutex<Option<DataQuery>>>,
    /// It waits until it may go on.
    waits: Option<Arc<(AtomicBool, AtomicBool)>>,
}

impl DataSource for Table {
    fn query(&self, query: &DataQuery) -> Result<DataPage, Error> {
        *self.asked.lock().unwrap() = Some(query.clone());
        if let Some(waits) = &self.waits {
            waits.0.store(true, SeqCst);
            while !waits.1.load(SeqCst) {
                std::thread::yield_now();
            }
        }
        let number = |value: Option<&Value>| if let Some(Value::Int(n)) = value { *n } else { 0 };
        let holds = |row: &&BTreeMap<String, Value>| {
            query.filters.iter().all(|it| {
                let (found, wanted) = (row.get(&it.field), &it.value);
                match it.is {
                    DataComparison::Equal => found == Some(wanted),
                    DataComparison::Above => number(found) > number(Some(wanted)),
                    other => panic!("{other:?}"),
                }
            })
        };
        let mut rows: Vec<_> = self.rows.iter().filter(holds).cloned().collect();
        for order in query.order.iter().rev() {
            rows.sort_by_key(|row| number(row.get(&order.field)));
            if order.descending {
                rows.reverse();
            }
        }
        let from: usize = query.cursor.as_ref().map_or(0, |cursor| cursor.parse().unwrap_or(usize::MAX));
        let left = rows.len().saturating_sub(from);
        let next = (left > query.limit).then(|| (from + query.limit).to_string());
        Ok(DataPage { rows: rows.into_iter().skip(from).take(query.limit).collect(), next })
    }
}

fn customers() -> Table {
    let row = |(name, city, age): (&str, &str, i64)| {
        BTreeMap::from([
            ("name".to_owned(), Value::Text(name.to_owned())),
            ("city".to_owned(), Value::Text(city.to_owned())),
            ("age".to_owned(), Value::Int(age)),
            ("email".to_owned(), Value::Text(format!("{name}@example.org"))),
        ])
    };
    let rows =
        [("Ada", "London", 36), ("Emmy", "Erlangen", 53), ("Grace", "London", 85), ("Joan", "London", 20)];
    Table { rows: rows.into_iter().map(row).collect(), ..Table::default() }
}

async fn query(host: &Dispatcher, id: &str, arguments: Json) -> Result<Json, Error> {
    ask(host, id, "quadriga.data", "query", arguments).await
}

#[tokio::test]
async fn data_is_read_as_far_as_it_was_granted() {
    let table = customers();
    let asked = Arc::clone(&table.asked);
    let host = Dispatcher::builder().runtime(told()).source("customers", table).build().unwrap();
    let asks = "[permissions]\ndata = ['customers:name,city,age', 'orders:*']";
    let _x = load(&host, "a.x", asks, Grant::Requested).await;
    let _all = load(&host, "a.all", "[permissions]\ndata = ['customers:*']", Grant::Requested).await;
    let _none = load(&host, "a.none", "", Grant::Requested).await;
    let page = query(
        &host,
        "a.x",
        json!(["customers", {
            "fields": ["name"], "where": [["city", "=", "London"], ["age", ">", 30]], "order": [["age", "desc"]],
        }]),
    );
    assert_eq!(
        page.await.unwrap(),
        json!({ "rows": [{ "name": "Grace" }, { "name": "Ada" }], "next": null })
    );
    assert_eq!(asked.lock().unwrap().as_ref().unwrap().limit, 100);
    // What it does not say it gets as far as it may.
    let emmy = json!({ "where": [["name", "=", "Emmy"]] });
    let (name, city, age) = ("Emmy", "Erlangen", 53);
    let page = query(&host, "a.x", json!(["customers", emmy])).await.unwrap();
    assert_eq!(page["rows"], json!([{ "age": age, "city": city, "name": name }]));
    assert_eq!(asked.lock().unwrap().as_ref().unwrap().fields.as_ref().unwrap().len(), 3);
    let page = query(&host, "a.all", json!(["customers", emmy])).await.unwrap();
    assert_eq!(
        page["rows"],
        json!([{ "age": age, "city": city, "email": "Emmy@example.org", "name": name }])
    );
    // In pages.
    let (mut names, mut next) = (Vec::new(), Json::Null);
    loop {
        let asks = json!(["customers", { "fields": ["name"], "limit": 3, "cursor": next }]);
        let page = query(&host, "a.x", asks).await.unwrap();
        names.extend(page["rows"].as_array().unwrap().iter().map(|row| row["name"].clone()));
        next = page["next"].clone();
        if next.is_null() {
            break;
        }
    }
    assert_eq!(names, ["Ada", "Emmy", "Grace", "Joan"]);
    // What was not granted is neither shown, nor found by, nor told by the order; and it is not asked for.
    *asked.lock().unwrap() = None;
    let email = "read the field email of customers";
    let cases = [
        ("a.x", json!(["customers", { "fields": ["name", "email"] }]), email),
        ("a.x", json!(["customers", { "where": [["email", "=", "Ada@example.org"]] }]), email),
        ("a.x", json!(["customers", { "order": [["email", "asc"]] }]), email),
        ("a.none", json!(["customers"]), "read the data customers"),
        ("a.none", json!(["secrets", {}]), "read the data secrets"),
        ("a.all", json!(["orders"]), "read the data orders"),
    ];
    for (id, arguments, what) in cases {
        let error = query(&host, id, arguments.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{id} {arguments}: {error}");
        assert_eq!(error.message, format!("{id} may not {what}"));
        let denied = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        assert_eq!(host.decisions(id, &denied).unwrap().last().unwrap().what, what);
    }
    assert!(asked.lock().unwrap().is_none());
    let many: Vec<String> = (0..101).map(|n| format!("f{n}")).collect();
    let cases = [
        ("query", json!([]), "expected"),
        ("query", json!(["customers", { "feilds": [] }]), "unknown field `feilds`"),
        ("query", json!(["customers", { "limit": 0 }]), "limit is a number from 1 to 1000, not 0"),
        ("query", json!(["customers", { "limit": 1001 }]), "limit is a number from 1 to 1000, not 1001"),
        ("query", json!(["customers", { "where": [["city", "!=", 1]] }]), "unknown variant"),
        ("query", json!(["customers", { "fields": ["a\nb"] }]), "is no name of a field"),
        ("query", json!(["customers", { "fields": ["*"] }]), "is no name of a field"),
        ("query", json!(["a b"]), "this is no name of a source"),
        ("query", json!(["customers", { "fields": many }]), "are more than 100"),
        ("query", json!(["customers", { "cursor": "x".repeat(1025) }]), "a cursor has up to 1024 bytes"),
        ("query", json!(["orders"]), "the host has no data orders"),
    ];
    for (method, arguments, why) in cases {
        let error = ask(&host, "a.x", "quadriga.data", method, arguments.clone()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::InvalidArguments, "{arguments}: {error}");
        assert!(error.message.contains(why), "{arguments}: {error}");
    }
    let error = ask(&host, "a.x", "quadriga.data", "insert", json!([])).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::UnknownMethod);
    assert!(Dispatcher::builder().source("a b", customers()).build().is_err());
}

#[tokio::test]
async fn pages_are_bounded_whatever_a_source_gives() {
    /// Gives too much.
    struct Flood(usize, usize);
    impl DataSource for Flood {
        fn query(&self, _: &DataQuery) -> Result<DataPage, Error> {
            let row = BTreeMap::from([("text".to_owned(), Value::Text("x".repeat(self.1)))]);
            Ok(DataPage { rows: vec![row; self.0], next: None })
        }
    }
    struct Broken;
    impl DataSource for Broken {
        fn query(&self, query: &DataQuery) -> Result<DataPage, Error> {
            assert!(query.cursor.is_none(), "as it should");
            Err(Error::new(ErrorCode::ConnectionFailed, "the database is away"))
        }
    }
    let builder = Dispatcher::builder().runtime(told()).source("rows", Flood(11, 1));
    let host = builder.source("bytes", Flood(10, 500 << 10)).source("broken", Broken).build().unwrap();
    let asks = "[permissions]\ndata = ['rows:*', 'bytes:*', 'broken:*']";
    let _x = load(&host, "a.x", asks, Grant::Requested).await;
    let cases = [
        (json!(["rows", { "limit": 10 }]), ErrorCode::Internal, "the host's data rows gave 11 rows for 10"),
        (json!(["bytes"]), ErrorCode::MessageTooLarge, "the page takes"),
        (json!(["broken"]), ErrorCode::ConnectionFailed, "the database is away"),
        (json!(["broken", { "cursor": "x" }]), ErrorCode::Internal, "the source of the data panicked"),
    ];
    for (arguments, code, why) in cases {
        let error = query(&host, "a.x", arguments).await.unwrap_err();
        assert!(error.code == code && error.message.starts_with(why), "{error:?}");
    }
    assert_eq!(query(&host, "a.x", json!(["rows"])).await.unwrap()["rows"].as_array().unwrap().len(), 11);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_while_the_source_worked_is_not_told() {
    for asks in ["customers:name", "customers:*"] {
        let waits = Arc::new((AtomicBool::new(false), AtomicBool::new(false)));
        let table = Table { waits: Some(Arc::clone(&waits)), ..customers() };
        let host = Dispatcher::builder().runtime(told()).source("customers", table).build().unwrap();
        let _x = load(&host, "a.x", &format!("[permissions]\ndata = ['{asks}']"), Grant::Requested).await;
        let asking = tokio::spawn({
            let host = host.clone();
            async move { query(&host, "a.x", json!(["customers"])).await }
        });
        until(async || waits.0.load(SeqCst)).await;
        let gone = permissions(json!({ "data": [asks] }));
        assert_eq!(host.revoke("a.x", &gone).unwrap(), Effect::Now);
        waits.1.store(true, SeqCst);
        assert_eq!(asking.await.unwrap().unwrap_err().code, ErrorCode::PermissionDenied);
    }
}
