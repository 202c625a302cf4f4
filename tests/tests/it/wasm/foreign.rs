//! Components of other toolchains, made from the published WIT with no SDK of ours: they load, say
//! what they are, take and return values, call others and fail like any extension.

use quadriga::abi::{ErrorCode, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_conformance::Table;
use quadriga_tests::{granted, guest, host};

/// A toolchain, and what the MessagePack library of its guest does not keep.
struct Foreign {
    name: &'static str,
    /// Where the guest's frames begin in a stack.
    frame: &'static str,
    /// The class of error that `fail` throws.
    error: &'static str,
    /// Cases that come back as something else, or are refused.
    lost: &'static [&'static str],
}

/// One test for each, because an interpreter is compiled at its first load.
#[tokio::test(flavor = "multi_thread")]
async fn slow_componentize_py_conforms() {
    const LOST: &[&str] = &[
        // Its dictionaries hold no map as a key, and no two keys that are equal.
        "map_map_key",
        "map_same_text",
        "map_one_and_float_one",
        "map_one_and_true",
        // Its datetimes have microseconds, and end with the year 9999.
        "time_ns",
        "time_1_ns",
        "time_before_1970",
        "time_u34_max",
        "time_year_9999",
        "time_year_0",
        "time_year_10000",
        "time_date_max",
        "time_date_min",
        "time_above_date",
        "time_below_date",
        "time_max",
        "time_min",
    ];
    conforms(&Foreign { name: "componentize-py", frame: "main.py", error: "ValueError", lost: LOST }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_componentize_js_conforms() {
    const LOST: &[&str] = &[
        // Its numbers that are whole become integers, -0 among them.
        "float_zero",
        "float_two",
        "minus_zero",
        // It reads maps as objects, whose keys are text in an order of their own, and refuses a key
        // that could be the prototype.
        "map_proto",
        "map_int_keys",
        "map_mixed_keys",
        "map_bytes_key",
        "map_list_key",
        "map_map_key",
        "map_16",
        "map_index_keys",
        "map_same_text",
        "map_one_and_float_one",
        "map_one_and_true",
        // Its seconds are numbers.
        "time_max",
    ];
    conforms(&Foreign { name: "componentize-js", frame: "main.js", error: "RangeError", lost: LOST }).await;
}

async fn conforms(foreign: &Foreign) {
    let host = host();
    host.load(guest("foreign", foreign.name), granted()).await.unwrap();
    host.load(guest("relay", "wasm"), granted()).await.unwrap();
    let id = format!("foreign.{}", foreign.name);
    describes(&host, &id);
    returns_values(&host, &id, foreign.lost).await;
    calls_others(&host, &id).await;
    fails(&host, &id, foreign).await;
}

fn describes(host: &Dispatcher, id: &str) {
    let methods = host.status(id).unwrap().methods;
    let described = methods.iter().map(|method| {
        let parameters: Vec<&str> = method.parameters.iter().map(|p| p.name.as_str()).collect();
        format!("{}({})", method.name, parameters.join(", "))
    });
    let expected = ["echo(value)", "relay(extension, method, value)", "fail(message)"];
    assert_eq!(described.collect::<Vec<_>>(), expected);
}

/// Every case of the suite comes back, but for those that the guest's library loses.
async fn returns_values(host: &Dispatcher, id: &str, lost: &[&str]) {
    let table = Table::read().unwrap();
    let mut found = Vec::new();
    for case in table.value.iter().filter(|case| !case.big) {
        let payload = [&[0x91], &case.bytes.0[..]].concat();
        let back = host.call(id, "echo", payload, CallOptions::default()).await;
        // The library may write another form of the same value.
        let back = back.ok().and_then(|bytes| Value::from_bytes(&bytes).ok()?.to_bytes().ok());
        if back.as_ref() != Some(&case.bytes.0) {
            found.push(case.name.as_str());
        }
    }
    assert_eq!(found, lost);
}

async fn calls_others(host: &Dispatcher, id: &str) {
    let value = Value::List(vec![Value::Text("🐎".to_owned()), Value::UInt(u64::MAX), Value::Bytes(vec![7])]);
    let back: Value = host.invoke(id, "relay", &("relay.wasm", "echo", &value)).await.unwrap();
    assert_eq!(back, value);
    // And others call it.
    let back: Value = host.invoke("relay.wasm", "relay", &(id, "echo", (&value,))).await.unwrap();
    assert_eq!(back, value);
}

async fn fails(host: &Dispatcher, id: &str, foreign: &Foreign) {
    let error = host.invoke::<Value>(id, "fail", &("out of luck",)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::ExtensionError, "{error:?}");
    assert_eq!(error.message, format!("{}: out of luck", foreign.error));
    assert_eq!(error.extension.as_deref(), Some(id));
    assert!(error.stack.as_ref().unwrap().contains(foreign.frame), "{error:?}");

    // An error of the host, and one of another extension, come through with their code.
    let missing = host.invoke::<Value>(id, "relay", &("no.one", "echo", ())).await.unwrap_err();
    assert_eq!(missing.code, ErrorCode::UnknownExtension, "{missing:?}");
    let theirs = host.invoke::<Value>(id, "relay", &("relay.wasm", "fail", "theirs")).await.unwrap_err();
    assert_eq!((theirs.code, theirs.message.as_str()), (ErrorCode::ExtensionError, "theirs"), "{theirs:?}");
    assert!(theirs.stack.as_ref().unwrap().contains(foreign.frame), "{theirs:?}");
    let cause = theirs.cause.as_ref().unwrap();
    assert_eq!(cause.extension.as_deref(), Some("relay.wasm"), "{cause:?}");
    assert!(cause.stack.as_deref().unwrap().contains("lib.rs"));
    // Neither took the guest with it.
    let back = host.invoke::<Value>(id, "echo", &(1,)).await.unwrap();
    assert_eq!(back, Value::Int(1));
}
