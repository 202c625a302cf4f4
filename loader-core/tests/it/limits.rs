//! Limits that change while an extension runs.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use quadriga_core::abi::limits::{ByteSize, Limit, Limits, Span};
use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{CallOptions, DecisionFilter, Grant, MockRuntime, Policy};

use crate::common::{NONE, call, forever, host, load};

fn runtime() -> MockRuntime {
    MockRuntime::new().echo("echo").method("wait", |_, _| forever())
}

fn timeout(millis: u64) -> Limits {
    Limits { call_timeout: Some(Span(Duration::from_millis(millis))), ..Limits::default() }
}

#[tokio::test]
async fn what_is_set_holds_for_the_next_call() {
    let host = host(runtime(), Policy::default());
    let _x = load(&host, "a.x", "", Grant::Nothing).await;
    call(&host, "a.x", "echo").await.unwrap();
    let big = vec![0x90_u8; 100];
    let cases = [
        (Limits { message_size: Some(ByteSize(99)), ..Limits::default() }, ErrorCode::MessageTooLarge),
        (Limits { queue_depth: Some(0), ..Limits::default() }, ErrorCode::Overloaded),
        (
            Limits { queue_depth: Some(9), call_timeout: Some(Span(Duration::ZERO)), ..Limits::default() },
            ErrorCode::DeadlineExceeded,
        ),
    ];
    host.set_limits("a.x", &timeout(60_000)).unwrap();
    let back = host.limits("a.x").unwrap();
    for (limits, code) in cases {
        host.set_limits("a.x", &limits).unwrap();
        let now = host.limits("a.x").unwrap();
        assert_eq!(now, back.overlaid(&limits));
        let result = host.call("a.x", "echo", big.clone(), CallOptions::default()).await;
        assert_eq!(result.unwrap_err().code, code, "{limits:?}");
        host.set_limits("a.x", &back).unwrap();
        host.call("a.x", "echo", big.clone(), CallOptions::default()).await.unwrap();
    }
    host.set_limits("a.x", &timeout(20)).unwrap();
    let started = Instant::now();
    assert_eq!(call(&host, "a.x", "wait").await.unwrap_err().code, ErrorCode::DeadlineExceeded);
    assert!(started.elapsed() >= Duration::from_millis(20));
}

#[tokio::test]
async fn call_depth_changes_too() {
    let runtime =
        MockRuntime::new().method("self", |bridge, call| bridge.call(&call.context(), "a.x", "self", NONE));
    let host = host(runtime, Policy::default());
    let _x = load(&host, "a.x", "[permissions]\ncall = ['*']", Grant::Requested).await;
    for depth in [9, 3] {
        host.set_limits("a.x", &Limits { call_depth: Some(depth), ..Limits::default() }).unwrap();
        let before = host.usage("a.x").unwrap().calls;
        assert_eq!(call(&host, "a.x", "self").await.unwrap_err().code, ErrorCode::CallDepthExceeded);
        assert_eq!(host.usage("a.x").unwrap().calls - before, u64::from(depth) + 1);
    }
}

#[tokio::test]
async fn the_policy_lowers_what_is_set_and_a_reload_keeps_it() {
    let ceilings = Limits { queue_depth: Some(10), memory: Some(ByteSize(1000)), ..Limits::default() };
    let heard = Arc::new(Mutex::new(Vec::new()));
    let (hear, listen) = (Arc::clone(&heard), Arc::clone(&heard));
    let runtime = runtime()
        .limits(&[Limit::Memory])
        .on_limits(move |limits| {
            hear.lock().unwrap().push(limits.clone());
            Ok(())
        })
        .on_load(move |unit| {
            listen.lock().unwrap().push(unit.limits.clone());
            Ok(())
        });
    let host = host(runtime, Policy { limits: ceilings.clone(), ..Policy::default() });
    let _x = load(&host, "a.x", "[limits]\nqueue-depth = 5", Grant::Nothing).await;
    assert_eq!(host.limits("a.x").unwrap().queue_depth, Some(5));
    let wanted = Limits { queue_depth: Some(50), memory: Some(ByteSize(64)), ..Limits::default() };
    host.set_limits("a.x", &wanted).unwrap();
    let now = host.limits("a.x").unwrap();
    assert_eq!((now.queue_depth, now.memory), (Some(10), Some(ByteSize(64))));
    host.reload("a.x").await.unwrap();
    assert_eq!(host.limits("a.x").unwrap(), now);
    let heard = heard.lock().unwrap();
    // The runtime is told what is for it, at once, and of all when it loads the next generation.
    assert_eq!(heard[1], Limits { memory: Some(ByteSize(64)), ..Limits::default() });
    assert_eq!((heard[2].memory, heard[2].queue_depth), (Some(ByteSize(64)), Some(10)));
    let filter = DecisionFilter { latest: Some(1), ..DecisionFilter::default() };
    assert_eq!(host.decisions("a.x", &filter).unwrap()[0].what, "be limited anew: memory, queue-depth");
}

#[tokio::test]
async fn what_nobody_enforces_is_refused_and_nothing_is_stored() {
    let refusing = runtime().limits(&[Limit::Memory]);
    let host = host(refusing, Policy::default());
    let _x = load(&host, "a.x", "", Grant::Nothing).await;
    let before = host.limits("a.x").unwrap();
    let depth = || Limits { queue_depth: Some(1), ..Limits::default() };
    let cases: [(Limits, ErrorCode, &str); 5] = [
        (Limits { processes: Some(1), ..depth() }, ErrorCode::Unsupported, "the limit processes"),
        // Not in what this runtime supports: it could not be interrupted.
        (
            Limits { call_timeout: Some(Span(Duration::from_secs(1))), ..depth() },
            ErrorCode::Unsupported,
            "the limit call-timeout",
        ),
        // Supported at load, not while it runs.
        (Limits { memory: Some(ByteSize(1)), ..depth() }, ErrorCode::Unsupported, "takes no limits"),
        (Limits { cpu_share: Some(-1.0), ..depth() }, ErrorCode::InvalidArguments, "above 0"),
        (Limits { disk: Some(ByteSize(1)), ..depth() }, ErrorCode::Unsupported, "the limit disk"),
    ];
    for (limits, code, words) in cases {
        let error: Error = host.set_limits("a.x", &limits).unwrap_err();
        assert!(error.code == code && error.message.contains(words), "{error:?}");
        assert_eq!(host.limits("a.x").unwrap(), before, "{limits:?}");
    }
    assert_eq!(host.set_limits("a.none", &depth()).unwrap_err().code, ErrorCode::UnknownExtension);
}
