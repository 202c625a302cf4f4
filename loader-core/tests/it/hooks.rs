//! Hooks: who is asked, in which order, what may be changed, and what becomes of failures.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod around;
mod failures;

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::permission::{AccessKind, Permissions, TopicPattern};
use quadriga_core::abi::{Bytes, Error, ErrorCode, Kind, Value, codec};
use quadriga_core::{
    CallOptions, Conflict, DecisionFilter, Did, Grant, HookContext, HookField, HookPoint, HookPolicy, Hooked,
    MockRuntime, Outcome, Policy, Stopped, Subject,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use crate::common::{host, load, told, until, wanted, write};

const fn field(name: &'static str, changeable: bool, sensitive: bool) -> HookField {
    HookField { name, changeable, sensitive }
}

const FIELDS: &[HookField] = &[
    field("title", true, false),
    field("steps", true, false),
    field("owner", false, false),
    field("token", true, true),
];

/// One context for a point of each sort.
macro_rules! plan {
    ($type:ident, $name:literal, $parallel:literal, $conflict:ident) => {
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        struct $type {
            title: String,
            #[serde(default)]
            steps: std::collections::BTreeMap<String, i64>,
            owner: String,
            token: String,
        }

        impl HookContext for $type {
            const POINT: &'static HookPoint = &HookPoint {
                name: $name,
                fields: FIELDS,
                parallel: $parallel,
                conflict: Conflict::$conflict,
            };

            fn schema() -> quadriga_core::abi::schemars::Schema {
                quadriga_core::abi::schemars::json_schema!({ "type": "object" })
            }
        }

        impl $type {
            fn new() -> Self {
                let [title, owner, token] = ["plan", "ann", "s3cret"].map(str::to_owned);
                Self { title, steps: Default::default(), owner, token }
            }
        }
    };
}

plan!(Plan, "plan.before", false, Error);
plan!(Other, "other.before", false, Error);
plan!(FirstWins, "plan.first", true, FirstWins);
plan!(LastWins, "plan.last", true, LastWins);
plan!(NoneWins, "plan.none", true, Error);
plan!(Execute, "plan.execute", false, Error);
// The hashes of these two names have one place.
plan!(Shares, "shared.p74", false, Error);
plan!(Shared, "shared.p262", false, Error);

/// What handlers were handed.
type Seen = Arc<Mutex<Vec<(String, Json)>>>;

/// Guests whose method `m_JSON` replies with that; all remember what they get.
fn guests(seen: &Seen, replies: &[(&str, Json)]) -> MockRuntime {
    let mut runtime = told()
        .method("fail", |_, _| Error::new(ErrorCode::ExtensionError, "as it was told to").into())
        .method("hang", |_, _| Outcome::Pending(Box::pin(std::future::pending())))
        .method("bytes", |_, _| Outcome::Ready(Ok(Bytes::from_static(b"\xc4\x01a"))));
    for (method, reply) in replies {
        let (seen, reply) = (Arc::clone(seen), Value::from(reply.clone()).to_bytes().unwrap());
        runtime = runtime.method(method, move |bridge, call| {
            assert_eq!(call.envelope.kind, Kind::Hook);
            let (got,): (Value,) = codec::from_arguments(&call.envelope.payload).unwrap();
            seen.lock().unwrap().push((bridge.extension().to_string(), got.to_json()));
            Outcome::Ready(Ok(reply.clone().into()))
        });
    }
    runtime
}

/// Handlers have all the time that a busy machine may take.
fn calm() -> Policy {
    let deadline = Duration::from_secs(20);
    Policy { hooks: HookPolicy { deadline, ..HookPolicy::default() }, ..Policy::default() }
}

fn hook(point: &str, method: &str, more: &str) -> String {
    format!("[permissions]\nhooks = ['*']\n[hooks.'{point}']\nmethod = '{method}'\n{more}")
}

const MODIFY: &str = "mode = 'modify'\non-failure = 'open'";
const MODIFY_CLOSED: &str = "mode = 'modify'\non-failure = 'closed'";
const VALIDATE: &str = "mode = 'validate'\non-failure = 'open'";
const CLOSED: &str = "mode = 'validate'\non-failure = 'closed'";

fn did<T>(result: &Result<Hooked<T>, Stopped>) -> Vec<(String, Did)> {
    let account = match result {
        Ok(hooked) => &hooked.account,
        Err(stopped) => &stopped.account,
    };
    account.steps.iter().map(|step| (step.extension.to_string(), step.did.clone())).collect()
}

fn says(text: &str) -> Did {
    Did::Changed(text.split_whitespace().map(str::to_owned).collect())
}

#[tokio::test]
async fn a_hook_without_handlers_gives_its_context_back() {
    let host = host(MockRuntime::new(), calm());
    let hooked = host.hook(Plan::new()).await.unwrap();
    assert_eq!((hooked.context, hooked.account.steps.len()), (Plan::new(), 0));
}

#[tokio::test]
async fn hooks_whose_names_share_a_place_have_handlers_of_their_own() {
    let seen = Seen::default();
    let host = host(guests(&seen, &[("title", json!({ "title": "better" }))]), calm());
    let asked = async || {
        let shares = host.hook(Shares::new()).await.unwrap().account.steps.len();
        let shared = host.hook(Shared::new()).await.unwrap().account.steps.len();
        [shares, shared]
    };
    assert_eq!(asked().await, [0, 0]);
    let _one = load(&host, "x.a", &hook("shared.p74", "title", MODIFY), Grant::Requested).await;
    assert_eq!(asked().await, [1, 0]);
    let _two = load(&host, "x.b", &hook("shared.p262", "title", MODIFY), Grant::Requested).await;
    assert_eq!(asked().await, [1, 1]);
    host.unload("x.a").await.unwrap();
    assert_eq!(asked().await, [0, 1]);
    host.unload("x.b").await.unwrap();
    assert_eq!(asked().await, [0, 0]);
}

#[tokio::test]
async fn each_gets_what_those_before_it_made_of_the_context() {
    let seen = Seen::default();
    let replies = [
        ("title", json!({ "title": "better" })),
        ("step", json!({ "steps": { "a": 1 } })),
        ("nothing", json!(null)),
        ("empty", json!({})),
        ("same", json!({ "title": "better" })),
        ("allow", json!(true)),
    ];
    let host = host(guests(&seen, &replies), calm());
    let mut dirs = Vec::new();
    for (id, method, more) in [
        ("x.a", "title", format!("{MODIFY}\npriority = -1")),
        ("x.b", "step", format!("{MODIFY}\nafter = ['x.c']")),
        ("x.c", "nothing", MODIFY.to_owned()),
        ("x.d", "empty", MODIFY.to_owned()),
        ("x.e", "same", MODIFY.to_owned()),
        ("x.f", "allow", format!("{VALIDATE}\npriority = 1")),
        ("x.g", "title", "wait = true\npriority = 2".to_owned()),
        // Those are not asked: another hook, and not granted.
        ("x.h", "title", MODIFY.to_owned()),
        ("x.i", "title", MODIFY.to_owned()),
    ] {
        let point = if id == "x.h" { "plan.other" } else { "plan.before" };
        let grant = if id == "x.i" { Grant::Nothing } else { Grant::Requested };
        dirs.push(load(&host, id, &hook(point, method, &more), grant).await);
    }
    let result = host.hook(Plan::new()).await;
    let expected = [
        ("x.a", says("/title")),
        ("x.c", Did::Nothing),
        ("x.d", Did::Nothing),
        ("x.e", Did::Nothing),
        ("x.i", Did::Denied),
        ("x.b", says("/steps/a")),
        ("x.f", Did::Allowed),
        ("x.g", Did::Nothing),
    ];
    assert_eq!(did(&result), expected.map(|(id, did)| (id.to_owned(), did)));
    let hooked = result.unwrap();
    assert_eq!((&*hooked.context.title, hooked.context.steps["a"]), ("better", 1));
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    let titles: Vec<_> = seen.iter().map(|(id, got)| (id.as_str(), got["title"].as_str().unwrap())).collect();
    let [a, c, d, e, b, f, g] = ["x.a", "x.c", "x.d", "x.e", "x.b", "x.f", "x.g"];
    assert_eq!(titles[0], (a, "plan"));
    assert_eq!(titles[1..].iter().map(|it| it.0).collect::<Vec<_>>(), [c, d, e, b, f, g]);
    assert!(titles[1..].iter().all(|(_, title)| *title == "better"));
    // The same order, for people.
    let order: Vec<_> =
        host.hooks().into_iter().map(|it| (it.point.to_string(), it.extension.to_string())).collect();
    let plan = ["x.a", "x.c", "x.d", "x.e", "x.i", "x.b", "x.f", "x.g"];
    let plan = plan.map(|id| ("plan.before".to_owned(), id.to_owned()));
    assert_eq!(order, [&plan[..], &[("plan.other".to_owned(), "x.h".to_owned())]].concat());
    let of = |id: &str| host.hooks().into_iter().find(|it| it.extension.as_str() == id).unwrap();
    assert!(!of("x.i").allowed && of("x.b").allowed);
    assert_eq!((of("x.a").calls, of("x.i").calls, of("x.a").deadline), (1, 0, calm().hooks.deadline));
    assert_eq!(Policy::default().hooks.deadline, Duration::from_millis(50));
    // Its one denial is in the log, and no more for further hooks.
    let _ = host.hook(Plan::new()).await.unwrap();
    assert_eq!(host.accesses("x.i").unwrap()[&AccessKind::Hooks].denied, 1);
    // No longer there.
    host.unload("x.a").await.unwrap();
    assert_eq!(host.hook(Plan::new()).await.unwrap().account.steps.len(), 7);
}

#[tokio::test]
async fn what_handlers_say_and_what_becomes_of_it() {
    let title = |title: &str| Plan { title: title.to_owned(), ..Plan::new() };
    // Method, the rest of its declaration; what it did, and the context, or why the hook stopped.
    let table: Vec<(&str, &str, &str, Result<Plan, ErrorCode>)> = vec![
        ("set", MODIFY, "Changed", Ok(title("new"))),
        ("drop_steps", MODIFY, "Nothing", Ok(Plan::new())),
        // Which nobody may change, or which is not there.
        ("owner", MODIFY, "may not change the field \"owner\"", Ok(Plan::new())),
        ("owner", MODIFY_CLOSED, "may not change the field \"owner\"", Err(ErrorCode::HookFailed)),
        ("unknown", MODIFY, "may not change the field \"colour\"", Ok(Plan::new())),
        // What it did not see it cannot change.
        ("token", MODIFY, "may not change the field \"token\"", Ok(Plan::new())),
        // The context has to stay one.
        ("no_title", MODIFY, "the context would not be one any more", Ok(Plan::new())),
        ("no_title", MODIFY_CLOSED, "the context would not be one any more", Err(ErrorCode::HookFailed)),
        ("list", MODIFY, "a map of what it changes", Ok(Plan::new())),
        ("bytes", MODIFY, "a map of what it changes", Ok(Plan::new())),
        ("fail", MODIFY, "as it was told to", Ok(Plan::new())),
        ("fail", MODIFY_CLOSED, "as it was told to", Err(ErrorCode::HookFailed)),
        (
            "hang",
            "mode = 'modify'\non-failure = 'open'\ndeadline = '5ms'",
            "DeadlineExceeded",
            Ok(Plan::new()),
        ),
        (
            "hang",
            "mode = 'validate'\non-failure = 'closed'\ndeadline = '5ms'",
            "DeadlineExceeded",
            Err(ErrorCode::HookFailed),
        ),
        ("nothing", VALIDATE, "Allowed", Ok(Plan::new())),
        ("yes", VALIDATE, "Allowed", Ok(Plan::new())),
        ("no", VALIDATE, "it gives no reason", Err(ErrorCode::HookVetoed)),
        ("reason", VALIDATE, "not on a Friday", Err(ErrorCode::HookVetoed)),
        ("set", VALIDATE, "it has to return nothing or true", Ok(Plan::new())),
        ("set", CLOSED, "it has to return nothing or true", Err(ErrorCode::HookFailed)),
        ("fail", VALIDATE, "as it was told to", Ok(Plan::new())),
        ("reason", "wait = true", "Nothing", Ok(Plan::new())),
        ("fail", "wait = true", "as it was told to", Ok(Plan::new())),
        ("fail", "wait = true\non-failure = 'closed'", "as it was told to", Err(ErrorCode::HookFailed)),
        ("fail", "", "Told", Ok(Plan::new())),
        ("reason", "", "Told", Ok(Plan::new())),
    ];
    let replies = [
        ("set", json!({ "title": "new" })),
        ("drop_steps", json!({ "steps": {} })),
        ("owner", json!({ "title": "new", "owner": "bob" })),
        ("unknown", json!({ "colour": 1 })),
        ("token", json!({ "token": "mine" })),
        ("no_title", json!({ "title": null })),
        ("list", json!([1])),
        ("nothing", json!(null)),
        ("yes", json!(true)),
        ("no", json!(false)),
        ("reason", json!("not on a Friday")),
    ];
    for (method, more, says, expected) in table {
        for detached in [false, true] {
            let host = host(guests(&Seen::default(), &replies), calm());
            let _dir = load(&host, "x.a", &hook("plan.before", method, more), Grant::Requested).await;
            let options = if detached { CallOptions::default().detached() } else { CallOptions::default() };
            let result = host.hook_with(Plan::new(), options).await;
            let [(id, did)] = did(&result).try_into().unwrap();
            let text = format!("{did:?}").replace("\\\"", "\"");
            assert!(id == "x.a" && text.contains(says), "{method} {more}: {text}");
            if let Err(stopped) = &result {
                assert_eq!(stopped.error.extension.as_deref(), Some("x.a"));
                assert!(stopped.error.code != ErrorCode::HookVetoed || says.contains(&stopped.error.message));
            }
            let result = result.map(|hooked| hooked.context).map_err(|stopped| stopped.error.code);
            assert_eq!(result, expected, "{method} {more}");
        }
    }
}

#[tokio::test]
async fn the_first_veto_ends_the_chain() {
    let seen = Seen::default();
    let host = host(guests(&seen, &[("veto", json!("no"))]), calm());
    let _a = load(&host, "x.a", &hook("plan.before", "veto", VALIDATE), Grant::Requested).await;
    let _b = load(&host, "x.b", &hook("plan.before", "veto", VALIDATE), Grant::Requested).await;
    let stopped = host.hook(Plan::new()).await.unwrap_err();
    assert_eq!((stopped.to_string().as_str(), stopped.account.steps.len()), ("no", 1));
    assert_eq!(seen.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn sensitive_fields_are_kept_from_those_who_may_not_see_them() {
    let seen = Seen::default();
    let replies =
        [("look", json!(null)), ("set", json!({ "title": "t" })), ("token", json!({ "token": "new" }))];
    let host = host(guests(&seen, &replies), calm());
    let may = "[permissions]\nhooks = ['plan.*']\nsensitive = ['plan.before:token']\n[hooks.'plan.before']\n";
    let declared =
        |method: &str, priority: i32| format!("{may}method = '{method}'\npriority = {priority}\n{MODIFY}");
    let plain = |priority: i32| hook("plan.before", "look", &format!("{MODIFY}\npriority = {priority}"));
    let _a = load(&host, "x.a", &plain(0), Grant::Requested).await;
    let _b = load(&host, "x.b", &declared("look", 1), Grant::Requested).await;
    let _c = load(&host, "x.c", &declared("set", 2), Grant::Requested).await;
    let _d = load(&host, "x.d", &plain(3), Grant::Requested).await;
    let _e = load(&host, "x.e", &declared("token", 4), Grant::Requested).await;
    let _f = load(&host, "x.f", &declared("look", 5), Grant::Requested).await;
    let hooked = host.hook(Plan::new()).await.unwrap();
    assert_eq!(hooked.context.token, "new");
    let withheld: Vec<_> = hooked.account.steps.iter().map(|step| step.withheld.len()).collect();
    assert_eq!(withheld, [1, 0, 0, 1, 0, 0]);
    let tokens = |seen: &Seen| -> Vec<Option<String>> {
        let all = std::mem::take(&mut *seen.lock().unwrap());
        all.iter().map(|(_, got)| got.get("token").map(|token| token.as_str().unwrap().to_owned())).collect()
    };
    let some = |text: &str| Some(text.to_owned());
    let [old, new] = [some("s3cret"), some("new")];
    assert_eq!(tokens(&seen), [None, old.clone(), old.clone(), None, old, new]);
    // Who saw it is in the log, and who did not tried nothing.
    let decisions = |id: &str| {
        let subject = Some(Subject::Access(AccessKind::Sensitive));
        host.decisions(id, &DecisionFilter { subject, ..DecisionFilter::default() }).unwrap()
    };
    assert_eq!(decisions("x.b")[0].what, "see the sensitive plan.before:token");
    assert_eq!(decisions("x.a").len(), 0);
    // A revocation holds for the next hook.
    let gone = Permissions {
        sensitive: vec![TopicPattern("plan.before:token".to_owned())],
        ..Permissions::default()
    };
    let _ = host.revoke("x.b", &gone).unwrap();
    let _ = host.hook(Plan::new()).await.unwrap();
    assert_eq!(tokens(&seen)[1], None);
}

/// Handlers that run at the same time, each of which is done only when all have begun.
async fn parallel<T: HookContext>(context: T, replies: &[(&str, Json)]) -> Result<Hooked<T>, Stopped> {
    let (begun, count) = (Arc::new(AtomicUsize::new(0)), replies.len());
    let mut runtime = MockRuntime::new();
    for (place, (method, reply)) in replies.iter().enumerate() {
        let (begun, reply) = (Arc::clone(&begun), Value::from(reply.clone()).to_bytes().unwrap());
        runtime = runtime.method(method, move |_, _| {
            let (begun, reply) = (Arc::clone(&begun), reply.clone());
            Outcome::Pending(Box::pin(async move {
                begun.fetch_add(1, SeqCst);
                // The last one is done first.
                until(async || begun.load(SeqCst) >= 2 * count - 1 - place).await;
                begun.fetch_add(1, SeqCst);
                Ok(reply.into())
            }))
        });
    }
    let host = host(runtime.blocking(false), calm());
    let mut dirs = Vec::new();
    for (method, _) in replies {
        let hook = hook(T::POINT.name, method, MODIFY);
        dirs.push(load(&host, &format!("x.{method}"), &hook, Grant::Requested).await);
    }
    host.hook(context).await
}

#[tokio::test]
async fn the_order_decides_among_those_that_run_at_once() {
    let replies = [
        ("a", json!({ "title": "a", "steps": { "a": 1, "x": 1 } })),
        ("b", json!({ "title": "b", "steps": { "b": 1, "x": 1 } })),
        ("c", json!({ "title": "c" })),
    ];
    let first = parallel(FirstWins::new(), &replies).await.unwrap();
    let last = parallel(LastWins::new(), &replies).await.unwrap();
    assert_eq!((&*first.context.title, &*last.context.title), ("a", "c"));
    for steps in [&first.context.steps, &last.context.steps] {
        assert_eq!(steps.keys().map(String::as_str).collect::<Vec<_>>(), ["a", "b", "x"]);
    }
    let lost = |account: &quadriga_core::Account| {
        let lost = |it: &quadriga_core::Overruled| format!("{} {}<{}", it.field, it.lost, it.kept);
        account.overruled.iter().map(lost).collect::<Vec<_>>()
    };
    assert_eq!(lost(&first.account), ["/title x.b<x.a", "/title x.c<x.a"]);
    assert_eq!(lost(&last.account), ["/title x.b<x.c", "/title x.a<x.c"]);
    let stopped = parallel(NoneWins::new(), &replies).await.unwrap_err();
    assert_eq!(stopped.error.code, ErrorCode::HookConflict);
    let message = "x.a and x.b changed /title of the hook plan.none at the same time";
    assert_eq!(stopped.error.message, message);
    assert!(stopped.account.steps.iter().all(|step| step.did == Did::Nothing));
    assert_eq!(stopped.account.steps.len(), 3);
}

#[tokio::test]
async fn handlers_are_added_and_taken_back_while_they_run() {
    let seen = Seen::default();
    let host = host(guests(&seen, &[("veto", json!("no")), ("set", json!({ "title": "t" }))]), calm());
    let dir = load(&host, "x.a", "[permissions]\nhooks = ['plan.*']", Grant::Requested).await;
    let service = async |method: &str, arguments: Json| {
        let arguments = wanted("quadriga.hooks", method, arguments);
        host.call("x.a", "call", arguments, CallOptions::default()).await
    };
    let validate = |method: &str| json!({ "method": method, "mode": "validate", "on-failure": "open" });
    service("handle", json!(["plan.before", validate("veto")])).await.unwrap();
    assert_eq!(host.hook(Plan::new()).await.unwrap_err().error.code, ErrorCode::HookVetoed);
    // It stays over reloads; said again, it changes.
    host.reload("x.a").await.unwrap();
    assert!(host.hook(Plan::new()).await.is_err());
    service("handle", json!(["plan.before", { "method": "veto", "wait": true }])).await.unwrap();
    assert_eq!(host.hook(Plan::new()).await.unwrap().account.steps.len(), 1);
    assert!(
        codec::from_bytes::<bool>(&service("unhandle", json!(["plan.before", "veto"])).await.unwrap())
            .unwrap()
    );
    assert!(
        !codec::from_bytes::<bool>(&service("unhandle", json!(["plan.before", "veto"])).await.unwrap())
            .unwrap()
    );
    assert_eq!(host.hook(Plan::new()).await.unwrap().account.steps.len(), 0);
    for (method, arguments, code, words) in [
        ("handle", json!(["other", validate("veto")]), ErrorCode::PermissionDenied, "answer the hook other"),
        ("handle", json!(["plan.before", validate("gone")]), ErrorCode::UnknownMethod, "no method \"gone\""),
        ("handle", json!(["plan.*", validate("veto")]), ErrorCode::InvalidArguments, "a hook point has"),
        ("handle", json!(["plan.x"]), ErrorCode::InvalidArguments, "the arguments"),
        (
            "handle",
            json!(["plan.x", { "method": "veto", "mode": "validate" }]),
            ErrorCode::InvalidArguments,
            "on-failure",
        ),
        (
            "handle",
            json!(["plan.x", { "method": "veto", "colour": 1 }]),
            ErrorCode::InvalidArguments,
            "colour",
        ),
        ("handel", json!([]), ErrorCode::UnknownMethod, "no method \"handel\""),
    ] {
        let error = service(method, arguments).await.unwrap_err();
        assert!(error.code == code && error.message.contains(words), "{error:?}");
    }
    // What the manifest says anew holds with the reload.
    write(dir.path(), "x.a", &hook("plan.before", "set", MODIFY));
    host.reload("x.a").await.unwrap();
    assert_eq!(host.hook(Plan::new()).await.unwrap().context.title, "t");
    write(dir.path(), "x.a", "");
    host.reload("x.a").await.unwrap();
    assert_eq!(host.hooks(), []);
}
