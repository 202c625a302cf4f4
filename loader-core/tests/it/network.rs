//! Connections of extensions: which are made, what is recorded of them, and how they end.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use quadriga_core::abi::permission::{AccessKind, NetPattern, Permissions};
use quadriga_core::abi::{Error, ErrorCode};
use quadriga_core::{
    Bridge, CallContext, CallOptions, Connection, DecisionFilter, Dispatcher, Effect, Grant, MockRuntime,
    Monitor, Outcome, Policy, Reason, Verdict,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use crate::common::{self, NONE, host, load};

/// A server that returns what it is sent.
async fn echo() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    port
}

/// An extension, and its bridge.
struct Guest {
    host: Dispatcher,
    bridge: Bridge,
    _package: TempDir,
}

impl Guest {
    async fn new(net: &[String], grant: Grant, policy: Policy) -> Self {
        let known = Arc::<Mutex<Option<Bridge>>>::default();
        let found = Arc::clone(&known);
        let runtime = MockRuntime::new().mediates(&["net"]).method("meet", move |bridge, _| {
            *known.lock().unwrap() = Some(bridge.clone());
            Outcome::Ready(Ok(NONE))
        });
        let host = host(runtime, policy);
        let package = load(&host, "a.x", &format!("[permissions]\nnet = {net:?}"), grant).await;
        host.call("a.x", "meet", NONE, CallOptions::default()).await.unwrap();
        let bridge = found.lock().unwrap().take().unwrap();
        Self { host, bridge, _package: package }
    }

    async fn connect(&self, to: &str, port: u16) -> Result<Connection, Error> {
        self.bridge.connect(&CallContext::default(), to, port).await
    }

    fn denials(&self) -> Vec<(String, Reason)> {
        let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        let denied = self.host.decisions("a.x", &filter).unwrap();
        denied.into_iter().map(|decision| (decision.what, decision.reason)).collect()
    }
}

fn net(patterns: &[String]) -> Permissions {
    let net = patterns.iter().map(|text| NetPattern::try_from(text.clone()).unwrap()).collect();
    Permissions { net, ..Permissions::default() }
}

async fn say(connection: &mut Connection, text: &str) -> std::io::Result<String> {
    connection.write_all(text.as_bytes()).await?;
    let mut answer = vec![0; text.len()];
    connection.read_exact(&mut answer).await?;
    Ok(String::from_utf8(answer).unwrap())
}

#[tokio::test]
async fn what_was_granted_is_reached_and_nothing_by_another_name() {
    use ErrorCode::{ConnectionFailed, InvalidArguments, PermissionDenied};
    let port = echo().await;
    let long = "a".repeat(300);
    type Denied = (ErrorCode, Option<Reason>);
    let cases: &[(&str, &str, bool, Result<(), Denied>)] = &[
        ("127.0.0.1", "127.0.0.1", false, Ok(())),
        ("127.0.0.1", "localhost", false, Err((PermissionDenied, Some(Reason::Manifest)))),
        ("127.0.0.1", "127.0.0.2", false, Err((PermissionDenied, Some(Reason::Manifest)))),
        ("localhost", "localhost", false, Ok(())),
        ("localhost", "LocalHost.", false, Ok(())),
        ("localhost", "127.0.0.1", false, Err((PermissionDenied, Some(Reason::Manifest)))),
        // What covers many hosts, and names, lead to public addresses.
        ("*", "127.0.0.1", false, Err((PermissionDenied, Some(Reason::PrivateAddress)))),
        ("*", "::ffff:127.0.0.1", false, Err((PermissionDenied, Some(Reason::PrivateAddress)))),
        ("*", "localhost", false, Err((PermissionDenied, Some(Reason::PrivateAddress)))),
        ("127.1", "127.1", false, Err((PermissionDenied, Some(Reason::PrivateAddress)))),
        ("*", "127.0.0.1", true, Ok(())),
        ("127.1", "127.1", true, Ok(())),
        ("[::1]", "[::2]", false, Err((PermissionDenied, Some(Reason::Manifest)))),
        ("name.invalid", "name.invalid", false, Err((ConnectionFailed, None))),
        ("*", "", false, Err((InvalidArguments, None))),
        ("*", "a\nb", false, Err((InvalidArguments, None))),
        ("*", &long, false, Err((InvalidArguments, None))),
    ];
    for (granted, asked, private_networks, expected) in cases {
        let policy = Policy { private_networks: *private_networks, ..Policy::default() };
        let guest = Guest::new(&[format!("{granted}:{port}")], Grant::Requested, policy).await;
        let made = guest.connect(asked, port).await;
        match expected {
            Ok(()) => assert_eq!(say(&mut made.unwrap(), "hello").await.unwrap(), "hello"),
            Err((code, reason)) => {
                let error = made.unwrap_err();
                assert_eq!(error.code, *code, "{granted} {asked}: {error:?}");
                assert_eq!(guest.denials().pop().map(|(_, reason)| reason), *reason, "{granted} {asked}");
            }
        }
        let error = guest.connect("127.0.0.1", 1).await.unwrap_err();
        assert_eq!(error.message, "a.x may not connect to 127.0.0.1:1");
    }
}

#[tokio::test]
async fn grants_and_revocations_hold_for_connections_that_are_open() {
    let port = echo().await;
    let pattern = net(&[format!("127.0.0.1:{port}"), format!("localhost:{port}")]);
    let ask = [format!("127.0.0.1:{port}"), format!("localhost:{port}")];
    let guest = Guest::new(&ask, Grant::Nothing, Policy::default()).await;
    assert_eq!(guest.connect("127.0.0.1", port).await.unwrap_err().code, ErrorCode::PermissionDenied);
    assert_eq!(guest.host.grant("a.x", &pattern).unwrap(), Effect::Now);
    let mut cut = guest.connect("127.0.0.1", port).await.unwrap();
    let mut kept = guest.connect("localhost", port).await.unwrap();
    assert_eq!(say(&mut cut, "one").await.unwrap(), "one");
    // While it waits for what never comes.
    let waiting = tokio::spawn(async move { say_nothing(&mut cut).await });
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(guest.host.revoke("a.x", &net(&ask[..1])).unwrap(), Effect::Now);
    let error = Connection::error(&waiting.await.unwrap().unwrap_err());
    assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
    assert!(error.message.contains(&format!("may no longer connect to 127.0.0.1:{port}")), "{error:?}");
    assert_eq!(guest.connect("127.0.0.1", port).await.unwrap_err().code, ErrorCode::PermissionDenied);
    assert_eq!(say(&mut kept, "two").await.unwrap(), "two");
    guest.host.quarantine("a.x", "a test").unwrap();
    let error = say(&mut kept, "three").await.unwrap_err();
    assert_eq!(Connection::error(&error).code, ErrorCode::PermissionDenied);
    let reasons: Vec<_> = guest.denials().into_iter().map(|(_, reason)| reason).collect();
    assert!(matches!(reasons[..], [Reason::Grant, Reason::Revoked { .. }]), "{reasons:?}");
}

async fn say_nothing(connection: &mut Connection) -> std::io::Result<u8> {
    connection.read_u8().await
}

#[tokio::test]
async fn connections_are_bounded_and_given_back() {
    let port = echo().await;
    let guest = Guest::new(&[format!("127.0.0.1:{port}")], Grant::Requested, Policy::default()).await;
    let mut open = Vec::new();
    let refused = loop {
        match guest.connect("127.0.0.1", port).await {
            Ok(connection) => open.push(connection),
            Err(error) => break error,
        }
    };
    assert_eq!((refused.code, open.len()), (ErrorCode::Overloaded, 128), "{refused:?}");
    open.pop();
    let mut last = guest.connect("127.0.0.1", port).await.unwrap();
    assert_eq!(say(&mut last, "room").await.unwrap(), "room");
    // Those that nobody waits for any more are none.
    drop((open, last));
    for _ in 0..200 {
        drop(guest.bridge.connect(&CallContext::default(), "127.0.0.1", port));
    }
    common::until(async || guest.connect("127.0.0.1", port).await.is_ok()).await;
}

#[tokio::test]
async fn bytes_and_decisions_are_counted() {
    let monitor = Monitor { interval: Some(Duration::from_millis(10)), ..Monitor::default() };
    let policy = Policy { monitor, ..Policy::default() };
    let port = echo().await;
    let guest = Guest::new(&[format!("127.0.0.1:{port}")], Grant::Requested, policy).await;
    let mut connection = guest.connect("127.0.0.1", port).await.unwrap();
    say(&mut connection, "twelve bytes").await.unwrap();
    let counted = async || {
        let series = guest.host.activity("a.x").unwrap().series;
        series.last().is_some_and(|sample| (sample.egress, sample.ingress) == (12, 12))
    };
    common::until(counted).await;
    let tally = guest.host.accesses("a.x").unwrap()[&AccessKind::Net];
    assert_eq!((tally.allowed, tally.denied), (1, 0));
}

#[tokio::test]
async fn connections_on_which_nothing_moves_are_closed() {
    let idle = Duration::from_secs(2);
    let port = echo().await;
    let policy = Policy { connection_idle: idle, ..Policy::default() };
    let guest = Guest::new(&[format!("127.0.0.1:{port}")], Grant::Requested, policy).await;
    let mut used = guest.connect("127.0.0.1", port).await.unwrap();
    let mut silent = guest.connect("127.0.0.1", port).await.unwrap();
    let ending = tokio::spawn(async move { say_nothing(&mut silent).await });
    // By then this one has been open for longer.
    while !ending.is_finished() {
        assert_eq!(say(&mut used, "still here").await.unwrap(), "still here");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let error = Connection::error(&ending.await.unwrap().unwrap_err());
    assert_eq!(error.code, ErrorCode::ConnectionFailed, "{error:?}");
    assert_eq!(error.message, "nothing moved on the connection for 2000 ms");
    assert_eq!(say(&mut used, "and here").await.unwrap(), "and here");
}
