//! APIs over HTTP: who may call what, what is refused, and whether the description is true.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use quadriga_abi::{Bytes, Error, ErrorCode, Timestamp, Value, codec};
use quadriga_core::abi::manifest::Check;
use quadriga_core::abi::schemars::{self, JsonSchema};
use quadriga_core::{Dispatcher, Grant, LoadOptions, MockRuntime, Outcome, Policy, Provided};
use quadriga_http::{Anybody, Bearer, Http};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use tempfile::TempDir;
use tower::ServiceExt as _;

/// A host with an API of two functions of its own and one that an extension adds.
async fn host() -> (Dispatcher, TempDir) {
    let runtime = MockRuntime::new()
        .blocking(false)
        .method("count", |_, call| {
            let (text,): (String,) = match codec::from_arguments(&call.envelope.payload) {
                Ok(arguments) => arguments,
                Err(error) => return Error::new(ErrorCode::InvalidArguments, error.to_string()).into(),
            };
            Outcome::Ready(Ok(codec::to_bytes(&text.split(' ').count()).unwrap().into()))
        })
        .method("split", |_, call| {
            let (text,): (String,) = codec::from_arguments(&call.envelope.payload).unwrap();
            let output = call.streams.unwrap().output.unwrap();
            Outcome::Pending(Box::pin(async move {
                for word in text.split(' ') {
                    if word == "!" {
                        return Err(Error::new(ErrorCode::ExtensionError, "as it was told to"));
                    }
                    let item: Bytes = codec::to_bytes(&word).unwrap().into();
                    output.clone().emit_later(item).await?;
                }
                Ok(Bytes::from_static(b"\xc0"))
            }))
        })
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "as it was told to").into())
        .method("hang", |_, _| Outcome::Pending(Box::pin(std::future::pending())))
        .describe(|description| {
            let text = json!({ "type": "string" });
            for method in &mut description.methods {
                method.streams = method.name == "split";
                // What refers to what stands beside it; `default` there is the name of a field.
                method.input = (method.name == "count").then(|| {
                    json!({
                        "type": "array",
                        "prefixItems": [{ "$ref": "#/$defs/Some text" }],
                        "items": false,
                        "minItems": 1,
                        "$defs": {
                            "Some text": { "anyOf": [text, { "$ref": "#/$defs/more" }] },
                            "more": { "properties": { "default": { "$ref": "#/$defs/Some text" } } },
                        },
                    })
                });
            }
        });
    let host = Dispatcher::builder().runtime(runtime).build().unwrap();
    let plans = Provided::new("app.plan")
        .unwrap()
        .function("join", |(one, two): (String, String)| Ok(format!("{one} {two}")))
        .function("list", |(): ()| Ok(["first"]))
        .raw("bytes", |_, _| Ok(Bytes::from_static(b"\xc4\x01a")));
    host.provide(plans.open("plan")).unwrap();
    let folder = TempDir::new().unwrap();
    let manifest = "[extension]\nid = 'x.words'\nversion = '1.0.0'\n\
        [runtime]\nkind = 'mock'\nentry = 'entry'\n[permissions]\napi = ['plan.*']\n[api.plan]\ncount = { method = 'count', description = 'Counts words' }\n\
        fail = { method = 'fail' }\nsplit = { method = 'split' }\nhang = { method = 'hang' }\n";
    std::fs::write(folder.path().join("quadriga.toml"), manifest).unwrap();
    std::fs::write(folder.path().join("entry"), "").unwrap();
    load(&host, folder.path()).await;
    (host, folder)
}

async fn load(host: &Dispatcher, folder: &Path) {
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    host.load(folder, options).await.unwrap();
}

async fn send(router: &Router, request: Request<Body>) -> (Response<()>, Bytes) {
    let (head, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, ()), body)
}

fn post(path: &str, token: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::post(path).header("content-type", "application/json");
    request.header("authorization", format!("Bearer {token}")).body(body.into()).unwrap()
}

fn router(host: &Dispatcher) -> Router {
    let callers = Bearer::default()
        .token("all", "token-of-all", &["plan.*"])
        .token("one", "token-of-one", &["plan.list"])
        .token("none", "token-of-none", &[]);
    Http::new(host.clone(), callers).body_limit(1000).timeout(Duration::from_secs(60)).router()
}

#[tokio::test(flavor = "multi_thread")]
async fn functions_are_called() {
    let (host, _folder) = host().await;
    let router = router(&host);
    let long = json!(["a".repeat(1000)]).to_string();
    // Path, body, status, and the answer or a word of it.
    let table = [
        ("/plan/list", "", 200, json!(["first"])),
        ("/plan/list", "[]", 200, json!(["first"])),
        ("/plan/list", "{}", 200, json!(["first"])),
        ("/plan/join", r#"["a", "b"]"#, 200, json!("a b")),
        ("/plan/count", r#"["one two three"]"#, 200, json!(3)),
        ("/plan/bytes", "", 200, json!({ "$bytes": [97] })),
        ("/plan/join", r#"["a"]"#, 400, json!("invalid_arguments")),
        ("/plan/join", r#"{"nobody": 1}"#, 400, json!("invalid_arguments")),
        ("/plan/join", "[1, 2", 400, json!("invalid_arguments")),
        ("/plan/join", "7", 400, json!("invalid_arguments")),
        ("/plan/count", "[7]", 400, json!("invalid_arguments")),
        ("/plan/join", long.as_str(), 413, json!(null)),
        ("/plan/fail", "", 500, json!("extension_error")),
        ("/plan/nothing", "", 404, json!("unknown_method")),
        ("/plan/a/b", "", 404, json!(null)),
        // Not the ids of extensions, nor their methods.
        ("/app.plan/list", "", 403, json!("permission_denied")),
        ("/x.words/count", "", 403, json!("permission_denied")),
    ];
    for (path, body, status, expected) in table {
        let (head, answer) = send(&router, post(path, "token-of-all", body.to_owned())).await;
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        assert_eq!(head.status().as_u16(), status, "{path} {body}: {answer}");
        if status == 200 {
            assert_eq!(
                (&answer, &head.headers()["content-type"]),
                (&expected, &"application/json".parse().unwrap())
            );
        } else {
            assert_eq!(head.headers()["content-type"], "application/problem+json");
            assert_eq!((&answer["code"], &answer["status"]), (&expected, &json!(status)), "{path} {body}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_calls_or_learns_what_is_not_theirs() {
    let (host, _folder) = host().await;
    let router = router(&host);
    // Token, path and status. Whether there is a function shows to nobody who may not call it.
    let table = [
        ("token-of-one", "/plan/list", 200),
        ("token-of-one", "/plan/join", 403),
        ("token-of-one", "/plan/nothing", 403),
        ("token-of-one", "/other/list", 403),
        ("token-of-none", "/plan/list", 403),
        ("token-of-nobody", "/plan/list", 401),
        ("", "/plan/list", 401),
        ("token-of-al", "/plan/list", 401),
        ("token-of-nobody", "/nowhere", 401),
    ];
    for (token, path, status) in table {
        let (head, _) = send(&router, post(path, token, "")).await;
        assert_eq!(head.status().as_u16(), status, "{token} {path}");
        assert_eq!(head.headers().contains_key("www-authenticate"), status == 401);
    }
    for header in [None, Some("Basic dG9rZW4="), Some("Bearer"), Some("token-of-all")] {
        for request in [Request::post("/plan/list"), Request::get("/openapi.json")] {
            let request = header.into_iter().fold(request, |all, it| all.header("authorization", it));
            let (head, _) = send(&router, request.body(Body::empty()).unwrap()).await;
            assert_eq!(head.status(), StatusCode::UNAUTHORIZED, "{header:?}");
        }
    }
    // The scheme is written as one likes (RFC 7235).
    let request = Request::post("/plan/list").header("authorization", "bearer token-of-one");
    let (head, _) = send(&router, request.body(Body::empty()).unwrap()).await;
    assert_eq!(head.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_call_is_refused() {
    let (host, folder) = host().await;
    let router = router(&host);
    for kind in [Some("text/plain"), Some("application/x-www-form-urlencoded"), None] {
        let request = Request::post("/plan/list").header("authorization", "Bearer token-of-all");
        let request = kind.into_iter().fold(request, |all, it| all.header("content-type", it));
        let (head, _) = send(&router, request.body(Body::from("[]")).unwrap()).await;
        assert_eq!(head.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind:?}");
    }
    for method in ["GET", "PUT", "DELETE"] {
        let request = Request::builder().method(method).uri("/plan/list");
        let request = request.header("authorization", "Bearer token-of-all").body(Body::empty()).unwrap();
        let (head, _) = send(&router, request).await;
        assert_eq!(
            (head.status(), head.headers()["allow"].to_str().unwrap()),
            (StatusCode::METHOD_NOT_ALLOWED, "POST")
        );
    }
    // What is taken back is gone at once.
    host.unload("x.words").await.unwrap();
    let (head, _) = send(&router, post("/plan/count", "token-of-all", "")).await;
    assert_eq!(head.status(), StatusCode::NOT_FOUND);
    load(&host, folder.path()).await;
    let (head, _) = send(&router, post("/plan/count", "token-of-all", r#"["a"]"#)).await;
    assert_eq!(head.status(), StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_takes_too_long_is_ended() {
    let (host, _folder) = host().await;
    let router = Http::new(host.clone(), Anybody).timeout(Duration::from_millis(100)).router();
    let (head, answer) = send(&router, post("/plan/hang", "", "")).await;
    assert_eq!(head.status(), StatusCode::GATEWAY_TIMEOUT, "{answer:?}");
    // Nothing of it is left.
    assert_eq!(host.status("x.words").unwrap().metrics.in_flight, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_hangs_up_gives_the_call_up() {
    let (host, _folder) = host().await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Http::new(host.clone(), Anybody).router();
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let in_flight = || host.status("x.words").unwrap().metrics.in_flight;
    let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = "POST /plan/hang HTTP/1.1\r\nhost: a\r\ncontent-length: 0\r\n\r\n";
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.unwrap();
    for (wanted, what) in [(1, "it begins"), (0, "it is given up")] {
        let begun = std::time::Instant::now();
        while in_flight() != wanted {
            assert!(begun.elapsed() < Duration::from_secs(30), "{what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        // Between the two it hangs up.
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut client).await;
        client = tokio::net::TcpStream::connect(address).await.unwrap();
    }
    server.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_says_what_there_is_to_each_caller() {
    let (host, _folder) = host().await;
    let router = router(&host);
    let describe = async |token: &str| -> Json {
        let request = Request::get("/openapi.json").header("authorization", format!("Bearer {token}"));
        let (head, body) = send(&router, request.body(Body::empty()).unwrap()).await;
        assert_eq!(head.status(), StatusCode::OK);
        serde_json::from_slice(&body).unwrap()
    };
    let paths =
        |document: &Json| -> Vec<String> { document["paths"].as_object().unwrap().keys().cloned().collect() };
    let all = describe("token-of-all").await;
    let expected =
        ["bytes", "count", "fail", "hang", "join", "list", "split"].map(|it| format!("/plan/{it}"));
    assert_eq!(paths(&all), expected);
    assert_eq!(paths(&describe("token-of-one").await), ["/plan/list"]);
    assert!(paths(&describe("token-of-none").await).is_empty());
    let count = &all["paths"]["/plan/count"]["post"];
    assert_eq!(
        (&count["summary"], &count["x-quadriga-extension"]),
        (&json!("Counts words"), &json!("x.words"))
    );
    assert_eq!((&all["openapi"], &count["operationId"]), (&json!("3.1.0"), &json!("plan.count")));
    // Each reference leads somewhere.
    let mut references = Vec::new();
    find(&all, &mut references);
    let own = references.iter().filter(|it| it.contains("plan.count.input")).count();
    assert_eq!(own, 3, "{references:?}");
    for reference in references {
        assert!(all.pointer(reference.strip_prefix('#').unwrap()).is_some(), "{reference}");
    }
}

/// A name and how often.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Times {
    text: String,
    #[schemars(range(max = 3))]
    times: u8,
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_the_hosts_own_is_described_as_truly() {
    let api = || {
        let repeat = |(it, between): (Times, Option<String>)| {
            Ok(vec![it.text; it.times.into()].join(&between.unwrap_or_default()))
        };
        let api = Provided::new("app.text").unwrap().typed("repeat", ["it", "between"], repeat);
        api.doc("Repeats a text.").typed("split", ["text"], |(text,): (String,)| {
            let times = |text: &str| Times { text: text.to_owned(), times: 1 };
            Ok(text.split(' ').map(times).collect::<Vec<_>>())
        })
    };
    let serve = |check| {
        let policy = Policy { check, ..Policy::default() };
        let host = Dispatcher::builder().policy(policy).build().unwrap();
        host.provide(api().open("text")).unwrap();
        Http::new(host, Anybody).router()
    };
    let (plain, strict) = (serve(Check::None), serve(Check::Arguments));
    let (_, body) = send(&plain, Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    let document: Json = serde_json::from_slice(&body).unwrap();
    let repeat = &document["paths"]["/text/repeat"]["post"];
    assert_eq!(repeat["summary"], "Repeats a text.");
    let schema = |place: &str| {
        let mut whole = document.clone();
        whole["$ref"] = format!("#/paths/~1text~1{place}/content/application~1json/schema").into();
        jsonschema::validator_for(&whole).unwrap()
    };
    let takes = |function: &str| schema(&format!("{function}/post/requestBody"));
    let gives = |function: &str| schema(&format!("{function}/post/responses/200"));
    let it = json!({ "text": "ab", "times": 2 });
    // What is called with what, and whether that is right.
    let table = [
        ("repeat", json!([it]), true),
        ("repeat", json!([it, "-"]), true),
        ("repeat", json!([it, null]), true),
        ("repeat", json!({ "it": it }), true),
        ("repeat", json!({ "between": "-", "it": it }), true),
        ("split", json!(["a b"]), true),
        ("repeat", json!([]), false),
        ("repeat", json!({ "between": "-" }), false),
        ("repeat", json!([it, 7]), false),
        ("repeat", json!([it, "-", "-"]), false),
        ("repeat", json!([{ "text": "ab" }]), false),
        ("repeat", json!([{ "text": "ab", "times": 9 }]), false),
        ("repeat", json!([{ "text": "ab", "times": -1 }]), false),
        ("repeat", json!({ "it": it, "with": "-" }), false),
        ("split", json!("a b"), false),
        ("split", json!([7]), false),
    ];
    for (function, body, right) in table {
        assert_eq!(takes(function).is_valid(&body), right, "{function} {body}");
        let path = format!("/text/{function}");
        let (head, answer) = send(&strict, post(&path, "", body.to_string())).await;
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        if right {
            assert_eq!(head.status(), StatusCode::OK, "{function} {body}: {answer}");
            assert!(gives(function).is_valid(&answer), "{function} {body}: {answer}");
        } else {
            assert_eq!(head.status(), StatusCode::BAD_REQUEST, "{function} {body}: {answer}");
            assert_eq!(answer["code"], "invalid_arguments");
        }
        // Without the policy only what the types themselves cannot hold is refused.
        let (head, _) = send(&plain, post(&path, "", body.to_string())).await;
        let held = right || body[0]["times"] == 9;
        assert_eq!(head.status() == StatusCode::OK, held, "{function} {body}");
    }
    assert!(!gives("repeat").is_valid(&json!(7)) && !gives("split").is_valid(&json!(["ab"])));
}

/// Bytes and times where they may stand in a type.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Parcel {
    /// What is in it.
    data: Vec<u8>,
    sent: Option<Timestamp>,
    parts: Vec<Parcel>,
    labels: BTreeMap<String, Vec<u8>>,
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_and_timestamps_cross_as_they_are_described() {
    let api = Provided::new("app.post")
        .unwrap()
        .typed("bytes", ["it", "more"], |it: (Vec<u8>, Option<Vec<u8>>)| Ok(it))
        .typed("times", ["it"], |(it,): (Vec<Timestamp>,)| Ok(it))
        .typed("either", ["it"], |(it,): (Option<Timestamp>,)| Ok(it))
        .typed("send", ["it"], |(it,): (Parcel,)| Ok(it))
        .typed("counts", ["it"], |(it,): (BTreeMap<i64, Vec<u8>>,)| Ok(it))
        .typed("any", ["it"], |(it,): (Value,)| Ok(it));
    let host = Dispatcher::builder().build().unwrap();
    host.provide(api.open("post")).unwrap();
    let router = Http::new(host, Anybody).router();
    let (_, body) = send(&router, Request::get("/openapi.json").body(Body::empty()).unwrap()).await;
    let document: Json = serde_json::from_slice(&body).unwrap();
    let schema = |function: &str, part: &str| {
        let mut whole = document.clone();
        let path = format!("#/paths/~1post~1{function}/post/{part}/content/application~1json/schema");
        whole["$ref"] = path.into();
        jsonschema::validator_for(&whole).unwrap()
    };
    let (bytes, time) = (json!({ "$bytes": [0, 255] }), json!({ "$timestamp": [-1, 999_999_999] }));
    let parcel = |data: &Json, sent: &Json, parts: Json, labels: Json| json!({ "data": data, "sent": sent, "parts": parts, "labels": labels });
    let inner = parcel(&bytes, &time, json!([]), json!({}));
    let outer = parcel(&bytes, &json!(null), json!([inner]), json!({ "a": bytes }));
    // What is sent comes back, as the description has it.
    let table = [
        ("bytes", json!([bytes, bytes]), json!([bytes, bytes])),
        ("bytes", json!([{ "$bytes": [] }, null]), json!([{ "$bytes": [] }, null])),
        ("bytes", json!({ "more": bytes, "it": bytes }), json!([bytes, bytes])),
        ("times", json!([[time, time]]), json!([time, time])),
        ("either", json!([time]), time.clone()),
        ("either", json!([null]), json!(null)),
        ("send", json!([outer]), outer.clone()),
        ("counts", json!([{ "$map": [[-1, bytes]] }]), json!({ "$map": [[-1, bytes]] })),
        ("counts", json!([{}]), json!({})),
        ("any", json!([{ "a": [bytes, time] }]), json!({ "a": [bytes, time] })),
        ("any", json!([{ "$float": "-inf" }]), json!({ "$float": "-inf" })),
        ("any", json!([{ "$map": [[1, bytes]] }]), json!({ "$map": [[1, bytes]] })),
    ];
    for (function, body, expected) in table {
        assert!(schema(function, "requestBody").is_valid(&body), "{function} {body}");
        let (head, answer) = send(&router, post(&format!("/post/{function}"), "", body.to_string())).await;
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        assert_eq!((head.status(), &answer), (StatusCode::OK, &expected), "{function} {body}");
        assert!(schema(function, "responses/200").is_valid(&answer), "{function} {answer}");
    }
    // What is none is neither described nor taken, and is told with its place.
    let table = [
        ("bytes", json!([{ "$bytes": "YQ==" }, null]), "post.bytes: it: $bytes: it is no list of bytes"),
        ("bytes", json!({ "it": bytes, "more": { "$bytes": [0, 256] } }), "post.bytes: more: $bytes[1]: "),
        ("bytes", json!([bytes, null, { "$bytes": 1 }]), "post.bytes: argument 3: $bytes: "),
        ("bytes", json!(["a"]), "it: expected"),
        ("bytes", json!([time]), "it: expected"),
        ("times", json!([[time, { "$timestamp": [1] }]]), "post.times: it: [1].$timestamp: "),
        ("times", json!([[{ "$timestamp": [1, 1_000_000_000] }]]), "post.times: it: [0].$timestamp: "),
        ("times", json!([["2020-01-01T00:00:00Z"]]), "it: "),
        ("either", json!([bytes]), "it: expected"),
        ("counts", json!([{ "$map": [[1, 7]] }]), "it: at [1]: expected"),
        ("counts", json!([{ "$map": [[1]] }]), "post.counts: it: $map[0]: "),
        ("counts", json!([{ "1": bytes }]), "it: "),
        (
            "send",
            json!([parcel(&bytes, &time, json!([]), json!({ "a": { "$bytes": [-1] } }))]),
            "post.send: it: labels.a.$bytes[0]: ",
        ),
    ];
    for (function, body, words) in table {
        assert!(!schema(function, "requestBody").is_valid(&body), "{function} {body}");
        let (head, answer) = send(&router, post(&format!("/post/{function}"), "", body.to_string())).await;
        let answer: Json = serde_json::from_slice(&answer).unwrap();
        assert_eq!(head.status(), StatusCode::BAD_REQUEST, "{function} {body}: {answer}");
        assert_eq!(head.headers()["content-type"], "application/problem+json");
        assert_eq!(answer["code"], "invalid_arguments");
        assert!(answer["detail"].as_str().unwrap().contains(words), "{function} {body}: {answer}");
    }
    // Nothing of how contracts write them is left.
    let text = document.to_string();
    assert!(!text.contains(r#""format":"bytes""#) && !text.contains(r#""format":"timestamp""#), "{text}");
}

fn find(json: &Json, references: &mut Vec<String>) {
    match json {
        Json::Object(map) => {
            references.extend(map.get("$ref").and_then(Json::as_str).map(str::to_owned));
            map.values().for_each(|it| find(it, references));
        }
        Json::Array(list) => list.iter().for_each(|it| find(it, references)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_lines() {
    let (host, _folder) = host().await;
    let router = router(&host);
    let table = [
        (r#"["one two"]"#, "{\"item\":\"one\"}\n{\"item\":\"two\"}\n"),
        // What went wrong after the first items stands last.
        (r#"["one !"]"#, "{\"item\":\"one\"}\n{\"error\":"),
    ];
    for (body, lines) in table {
        let (head, answer) = send(&router, post("/plan/split", "token-of-all", body)).await;
        assert_eq!(
            (head.status(), &head.headers()["content-type"]),
            (StatusCode::OK, &"application/x-ndjson".parse().unwrap())
        );
        let answer = std::str::from_utf8(&answer).unwrap();
        assert!(answer.starts_with(lines), "{answer}");
        let last: Json = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
        assert_eq!(
            last["error"]["code"].as_str(),
            lines.ends_with(':').then_some("extension_error"),
            "{answer}"
        );
    }
}
