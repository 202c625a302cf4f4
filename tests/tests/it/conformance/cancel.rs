//! Deadlines and callers that go away: the guest is told, and what does not listen is ended.

use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, Error, ErrorCode, Isolation};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::with;

use super::log::{lines, says};
use super::subject::{NONE, Subject, host};

/// Lets `pause` run into its deadline, which is longer with each try until it gets to run before.
async fn late(
    host: &Dispatcher,
    lines: &Receiver<String>,
    paused: &str,
    call: impl AsyncFn(CallOptions) -> Result<Bytes, Error>,
) {
    let mut patience = Duration::from_millis(50);
    loop {
        let error = call(CallOptions::default().timeout(patience)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
        while host.status(paused).unwrap().metrics.in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if lines.recv_timeout(Duration::from_millis(100)).is_ok() {
            return says(lines, "cleaned up");
        }
        patience *= 2;
        assert!(patience < Duration::from_secs(20), "it never ran");
    }
}

pub(super) async fn a_guest_is_told_that_nobody_waits(subject: &Subject) {
    let host = subject.host_with("flow").await;
    let id = subject.guest("flow");
    let lines = lines(&id);
    late(&host, &lines, &id, async |options| host.call(&id, "pause", NONE, options).await).await;
    late(&host, &lines, &id, async |options| host.call(&id, "pause", NONE, options.detached()).await).await;
    // A future that is dropped.
    let call = {
        let (host, id) = (host.clone(), id.clone());
        tokio::spawn(async move { host.call(&id, "pause", NONE, CallOptions::default().detached()).await })
    };
    says(&lines, "waiting");
    call.abort();
    says(&lines, "cleaned up");
    // Through another extension, of each runtime.
    for through in super::subjects() {
        through.load(&host, "relay").await;
        let arguments = Bytes::from(rmp_serde::to_vec(&(&id, "pause", [(); 0])).unwrap());
        let relay = through.guest("relay");
        let call = async |options| host.call(&relay, "relay", arguments.clone(), options).await;
        late(&host, &lines, &id, call).await;
    }
}

/// How long after its deadline an endless loop was over, in the middle of several tries: machines
/// are shared, and one try may meet a busy moment.
async fn overrun(host: &Dispatcher, id: &str) -> Duration {
    let mut over = Vec::new();
    for _ in 0..9 {
        let deadline = Instant::now() + Duration::from_millis(20);
        let result = host.call(id, "spin", NONE, CallOptions::default().deadline(deadline)).await;
        over.push(deadline.elapsed());
        let code = result.unwrap_err().code;
        assert_eq!(code, ErrorCode::DeadlineExceeded);
    }
    over.sort_unstable();
    over[over.len() / 2]
}

/// A limit on calls holds. Where the engine cannot keep it, a process of its own does, or the load fails.
pub(super) async fn an_endless_loop_ends_soon_after_its_deadline(subject: &Subject) {
    let limited = with(&subject.package("relay"), "[limits]\ncall-timeout = '20ms'");
    let host = host();
    let loaded = host.load(limited.path(), subject.options()).await;
    if !subject.interruptible && cfg!(not(all(feature = "process", target_os = "linux"))) {
        let error = loaded.unwrap_err();
        assert_eq!(error.code, ErrorCode::Unsupported, "{error:?}");
        assert!(error.message.contains("call-timeout"), "{error:?}");
        return;
    }
    let id = loaded.unwrap().to_string();
    if !subject.interruptible {
        assert_eq!(host.status(&id).unwrap().isolation, Isolation::Process);
    }
    let error = host.call(&id, "spin", NONE, CallOptions::default()).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{error:?}");
    host.unload(&id).await.unwrap();
    if !subject.interruptible {
        return;
    }

    subject.load(&host, "relay").await;
    let over = overrun(&host, &id).await;
    assert!(over < Duration::from_millis(50), "{over:?} after the deadline");
    let sum: i64 = host.invoke(&id, "add", &(2, 3)).await.unwrap();
    assert_eq!(sum, 5, "it goes on");
}

/// Calls that come while another goes on for long are served in the meantime.
pub(super) async fn an_endless_loop_does_not_harm_its_siblings(subject: &Subject) {
    let host = subject.host_with("relay").await;
    subject.load(&host, "flow").await;
    let (relay, flow) = (subject.guest("relay"), subject.guest("flow"));
    // What can't be interrupted waits instead, and stops when it is told to.
    let (id, slow) = if subject.interruptible { (&relay, "spin") } else { (&flow, "pause") };
    let (quick, arguments) = if subject.interruptible {
        ("add", rmp_serde::to_vec(&(2, 3)).unwrap())
    } else {
        ("count", rmp_serde::to_vec(&(3,)).unwrap())
    };
    let slow = {
        let (host, id) = (host.clone(), id.clone());
        let options = CallOptions::default().timeout(Duration::from_millis(200)).detached();
        tokio::spawn(async move { host.call(&id, slow, NONE, options).await })
    };
    let mut answered = 0;
    while !slow.is_finished() {
        let options = CallOptions::default().timeout(Duration::from_secs(10)).detached();
        host.call(id, quick, arguments.clone(), options).await.unwrap();
        answered += 1;
    }
    assert_eq!(slow.await.unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded);
    assert!(answered > 0);
}
