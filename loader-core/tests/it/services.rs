//! What the host does for extensions itself: the mechanism, and secrets.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use quadriga_core::abi::permission::{Access, AccessKind, Permissions};
use quadriga_core::abi::{Bytes, Error, ErrorCode, Value, codec};
use quadriga_core::{
    Bridge, CallContext, CallOptions, DecisionFilter, Dispatcher, Effect, Grant, LoadOptions, Outcome,
    Policy, Provided, SecretString, Service, Tally,
};

use crate::common::{NONE, call, host, kv, load, package, told, until, wanted};

const ASKS: &str = "[permissions]\nkv = true";

#[tokio::test]
async fn what_does_not_fit_is_refused() {
    let host = host(told(), Policy { message_size: 2000, ..Policy::default() });
    let _x = load(&host, "a.x", ASKS, Grant::Requested).await;
    let list = |items: &[Value]| Value::List(items.to_vec());
    let text = |text: &str| Value::Text(text.to_owned());
    let long = text(&"k".repeat(513));
    let cases = [
        ("kv", "get", list(&[]), ErrorCode::InvalidArguments, "quadriga.kv/get: the arguments: "),
        (
            "kv",
            "get",
            list(&[Value::Int(1)]),
            ErrorCode::InvalidArguments,
            "quadriga.kv/get: the arguments: ",
        ),
        ("kv", "get", list(&[text("")]), ErrorCode::InvalidArguments, "a key has 1 to 512 bytes, this has 0"),
        ("kv", "delete", list(std::slice::from_ref(&long)), ErrorCode::InvalidArguments, "this has 513"),
        ("kv", "put", list(&[long, Value::Nil]), ErrorCode::InvalidArguments, "this has 513"),
        ("kv", "put", list(&[text("k")]), ErrorCode::InvalidArguments, "it takes a key and a value"),
        ("kv", "put", list(&[Value::Nil, Value::Nil]), ErrorCode::InvalidArguments, "it takes a key"),
        ("kv", "put", text("k"), ErrorCode::InvalidArguments, "they are no list"),
        (
            "kv",
            "list",
            list(&[text(""), text(""), text("")]),
            ErrorCode::InvalidArguments,
            "1 more than it takes",
        ),
        ("kv", "gte", list(&[]), ErrorCode::UnknownMethod, "quadriga.kv has no method \"gte\""),
        ("vk", "get", list(&[]), ErrorCode::UnknownExtension, "this host has no service quadriga.vk"),
    ];
    for (service, method, arguments, code, says) in cases {
        let service = format!("quadriga.{service}");
        let wanted = codec::arguments(&(&service, method, &arguments)).unwrap();
        let error = host.call("a.x", "call", wanted, CallOptions::default()).await.unwrap_err();
        assert_eq!(error.code, code, "{service}/{method}: {error:?}");
        assert!(error.message.contains(says), "{service}/{method}: {error:?}");
    }
    let hint = kv::<()>(&host, "a.x", "gte", ()).await.unwrap_err();
    assert_eq!(hint.hint.as_deref(), Some("did you mean \"get\"?"));
    let large = call(&host, "a.x", "large").await.unwrap_err();
    assert_eq!(large.code, ErrorCode::MessageTooLarge);
    assert!(large.message.starts_with("the arguments for quadriga.kv take "), "{large}");
    let arguments = wanted("quadriga.kv", "get", ("k",));
    let fed = host.call("a.x", "feed", arguments, CallOptions::default()).await.unwrap_err();
    assert_eq!(fed.message, "quadriga.kv is a service of the host, and takes no stream");
}

#[tokio::test]
async fn nobody_else_can_be_a_service() {
    let host = host(told(), Policy::default());
    let dir = package("quadriga.kv", "");
    let error = host.load(dir.path(), LoadOptions::default()).await.unwrap_err();
    let says = "quadriga.kv: the publisher quadriga is kept for the services of the host";
    assert_eq!((error.code, &*error.message), (ErrorCode::InvalidManifest, says));
    let error = host.provide(Provided::new("quadriga.other").unwrap()).unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    let error = host.block("a.x", "quadriga.kv").unwrap_err();
    assert_eq!(error.code, ErrorCode::InvalidArguments, "{error}");
    assert!(host.rules().is_empty());
    // Others are not affected, whatever they begin with.
    let _x = load(&host, "quadrigas.kv", "", Grant::Nothing).await;
    assert_eq!(
        host.call("quadriga.kv", "get", NONE, CallOptions::default()).await.unwrap_err().code,
        ErrorCode::UnknownExtension
    );
}

/// Answers later: never, after it has been let, or with a panic.
struct Later {
    let_go: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

/// Counts while it lives.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Service for Later {
    fn call(&self, caller: &Bridge, parent: &CallContext, method: &str, arguments: Bytes) -> Outcome {
        let (caller, parent, let_go) = (caller.clone(), *parent, Arc::clone(&self.let_go));
        let waits = Waits::new(&self.waiting);
        match method {
            "panic" => panic!("as it was told to"),
            "panic-later" => Outcome::Pending(Box::pin(async { panic!("as it was told to") })),
            "never" => Outcome::Pending(Box::pin(async move {
                let _waits = waits;
                pending().await
            })),
            _ => Outcome::Pending(Box::pin(async move {
                let _waits = waits;
                while !let_go.load(Ordering::SeqCst) {
                    // It has tokio's timers, whoever waits for it.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                caller.check(&parent, &Access::Env("LANG"))?;
                Ok(arguments)
            })),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_answer_later() {
    let (let_go, waiting) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let later = Later { let_go: Arc::clone(&let_go), waiting: Arc::clone(&waiting) };
    let runtime = told().mediates(&["env"]);
    let host = Dispatcher::builder().runtime(runtime).service("later", later).build().unwrap();
    let _x = load(&host, "a.x", "[permissions]\nenv = ['LANG']", Grant::Requested).await;
    let ask = |way: &'static str, method: &str, options: CallOptions| {
        let (host, arguments) = (host.clone(), wanted("quadriga.later", method, ("x",)));
        async move { host.call("a.x", way, arguments, options).await }
    };
    let soon = || CallOptions::default().timeout(Duration::from_millis(50));
    for way in ["call", "detached", "start"] {
        // The deadline of the caller holds.
        let error = ask(way, "never", soon()).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{way}");
        // A caller that goes away takes the work along.
        let given_up = tokio::spawn(ask(way, "never", CallOptions::default()));
        until(|| async { waiting.load(Ordering::SeqCst) == 1 }).await;
        given_up.abort();
        until(|| async { waiting.load(Ordering::SeqCst) == 0 }).await;
        for method in ["panic", "panic-later"] {
            let error = ask(way, method, CallOptions::default()).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::Internal, "{way}: {error:?}");
        }
        // What is revoked while it waits is denied after that.
        for revoked in [false, true] {
            let_go.store(false, Ordering::SeqCst);
            let asked = tokio::spawn(ask(way, "wait", CallOptions::default()));
            until(|| async { waiting.load(Ordering::SeqCst) == 1 }).await;
            let env = Permissions { env: vec!["LANG".to_owned()], ..Permissions::default() };
            if revoked {
                assert_eq!(host.revoke("a.x", &env).unwrap(), Effect::Now);
            }
            let_go.store(true, Ordering::SeqCst);
            let result = asked.await.unwrap();
            match revoked {
                false => assert_eq!(codec::from_arguments::<(String,)>(&result.unwrap()).unwrap().0, "x"),
                true => {
                    assert_eq!(result.unwrap_err().message, "a.x may not read the environment variable LANG")
                }
            }
            assert_eq!(host.grant("a.x", &env).unwrap(), Effect::Now);
        }
    }
    assert_eq!(waiting.load(Ordering::SeqCst), 0);
    assert_eq!(host.usage("a.x").unwrap().in_flight, 0);
}

const SECRET: &str = "correct horse battery";

fn secrets() -> Dispatcher {
    let builder = Dispatcher::builder().runtime(told()).secrets(|name| match name {
        "token" => Ok(Some(SecretString::from(SECRET))),
        "sealed" => Err(Error::new(ErrorCode::ConnectionFailed, "the safe does not answer")),
        "panic" => panic!("it does"),
        _ => Ok(None),
    });
    builder.build().unwrap()
}

#[tokio::test]
async fn secrets_are_read_as_far_as_they_are_granted() {
    let asks = "[permissions]\nsecrets = ['token', 'other', 'sealed', 'panic']";
    let (host, none) = (secrets(), host(told(), Policy::default()));
    let _x = load(&host, "a.x", asks, Grant::Requested).await;
    let _y = load(&host, "a.y", asks, Grant::Nothing).await;
    let _none = load(&none, "a.x", asks, Grant::Requested).await;
    let get = async |host: &Dispatcher, extension, way, name: &str| {
        let arguments = wanted("quadriga.secrets", "get", (name,));
        let reply = host.call(extension, way, arguments, CallOptions::default()).await?;
        Ok::<String, Error>(codec::from_bytes(&reply).unwrap())
    };
    for way in ["call", "detached", "start"] {
        assert_eq!(get(&host, "a.x", way, "token").await.unwrap(), SECRET);
    }
    let cases = [
        (&host, "a.x", "other", ErrorCode::UnknownSecret, "the host has no secret other"),
        (&none, "a.x", "token", ErrorCode::UnknownSecret, "the host has no secret token"),
        (&host, "a.x", "sealed", ErrorCode::ConnectionFailed, "the safe does not answer"),
        (&host, "a.x", "panic", ErrorCode::Internal, "the source of the secrets panicked"),
        (&host, "a.x", "more", ErrorCode::PermissionDenied, "a.x may not read the secret more"),
        (&host, "a.y", "token", ErrorCode::PermissionDenied, "a.y may not read the secret token"),
        (&host, "a.x", "", ErrorCode::InvalidArguments, "quadriga.secrets/get: the arguments: "),
        (&host, "a.x", "a\nb", ErrorCode::InvalidArguments, "no control characters"),
    ];
    for (host, extension, name, code, says) in cases {
        let error = get(host, extension, "call", name).await.unwrap_err();
        assert!(error.code == code && error.message.contains(says), "{name:?}: {error:?}");
    }
    let token = Permissions { secrets: vec!["token".to_owned()], ..Permissions::default() };
    assert_eq!(host.revoke("a.x", &token).unwrap(), Effect::Now);
    let error = get(&host, "a.x", "call", "token").await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied);
    assert_eq!(host.accesses("a.x").unwrap()[&AccessKind::Secrets], Tally { allowed: 6, denied: 2 });
    let shown = format!("{:?} {:?}", host.decisions("a.x", &DecisionFilter::default()), host.activity("a.x"));
    assert!(shown.contains("read the secret token") && !shown.contains(SECRET), "{shown}");
    assert!(!format!("{:?}", SecretString::from(SECRET)).contains("horse"));
}
