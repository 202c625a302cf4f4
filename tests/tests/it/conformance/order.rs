//! What comes before what, and who waits for whom: docs/ordering.md as tests.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, Error, ErrorCode};
use quadriga::{CallOptions, Dispatcher};
use tokio::task::JoinHandle;

use super::log::{lines, says};
use super::streams::idle;
use super::subject::{NONE, Subject, host};

const MANY: usize = 100;

type Reply = Result<Bytes, Error>;
type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long quick calls go on beside a slow one: by then it is on its way.
const BESIDE: Duration = Duration::from_millis(100);

/// Far longer than anything here takes: what never comes fails its test by this.
fn patient() -> CallOptions {
    CallOptions::default().timeout(Duration::from_secs(20)).detached()
}

/// A guest's method that goes on until it is ended, in the way that this runtime can end it.
fn endless(subject: &Subject) -> (&'static str, &'static str) {
    if subject.interruptible { ("relay", "spin") } else { ("flow", "pause") }
}

/// Calls what goes on until its deadline, which is long after the quick calls beside it.
fn begin(host: &Dispatcher, id: &str, method: &'static str) -> JoinHandle<Reply> {
    let (host, id) = (host.clone(), id.to_owned());
    let options = CallOptions::default().timeout(BESIDE * 15).detached();
    tokio::spawn(async move { host.call(&id, method, NONE, options).await })
}

async fn end(slow: JoinHandle<Reply>, host: &Dispatcher, id: &str) {
    assert!(!slow.is_finished(), "{:?}", slow.await);
    assert_eq!(slow.await.unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded);
    idle(host, id).await;
}

/// Polls each once, in order, and only then waits.
async fn in_order<T>(mut futures: Vec<Later<'_, T>>) -> Vec<T> {
    let mut done: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        for (future, done) in futures.iter_mut().zip(&mut done).filter(|(_, done)| done.is_none()) {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                *done = Some(result);
            }
        }
        if done.iter().all(Option::is_some) { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

pub(super) async fn calls_begin_in_the_order_in_which_they_were_made(subject: &Subject) {
    let host = subject.host_with("relay").await;
    let id = subject.guest("relay");
    let lines = lines(&id);
    let names: Vec<[String; 1]> = (0..MANY).map(|n| [n.to_string()]).collect();
    let mut calls: Vec<Later<'_, Result<(), Error>>> = Vec::new();
    for name in &names {
        calls.push(Box::pin(host.invoke::<()>(&id, "log", name)));
    }
    for done in in_order(calls).await {
        done.unwrap();
    }
    let said: Vec<String> = lines.try_iter().collect();
    assert_eq!(said, names.concat());
}

pub(super) async fn what_a_call_logs_is_there_before_its_result(subject: &Subject) {
    let host = subject.host_with("relay").await;
    let id = subject.guest("relay");
    let lines = lines(&id);
    for n in 0..MANY {
        host.invoke::<()>(&id, "log", &(n.to_string(),)).await.unwrap();
        assert_eq!(lines.try_recv(), Ok(n.to_string()));
    }
}

pub(super) async fn a_call_that_waits_lets_its_siblings_pass(subject: &Subject) {
    let host = host();
    subject.load_with_room(&host, "flow").await;
    let id = subject.guest("flow");
    let lines = lines(&id);
    let slow = begin(&host, &id, "pause");
    says(&lines, "waiting");
    for n in 0..10_u64 {
        let arguments = rmp_serde::to_vec(&(n,)).unwrap();
        let quick = host.call(&id, "count", arguments, patient()).await.unwrap();
        assert_eq!(rmp_serde::from_slice::<Vec<u64>>(&quick).unwrap().len() as u64, n);
    }
    end(slow, &host, &id).await;
    says(&lines, "cleaned up");
}

pub(super) async fn a_call_that_computes_lets_its_siblings_pass_where_they_have_threads(subject: &Subject) {
    let host = host();
    let (case, method) = endless(subject);
    subject.load_with_room(&host, case).await;
    let id = subject.guest(case);
    let (quick, arguments) = match case {
        "relay" => ("add", rmp_serde::to_vec(&(2, 3)).unwrap()),
        _ => ("count", rmp_serde::to_vec(&(3,)).unwrap()),
    };
    if subject.parallel {
        let slow = begin(&host, &id, method);
        let until = Instant::now() + BESIDE;
        while Instant::now() < until {
            host.call(&id, quick, arguments.clone(), patient()).await.unwrap();
        }
        return end(slow, &host, &id).await;
    }
    let deadline = Instant::now() + Duration::from_millis(100);
    let slow = host.call(&id, method, NONE, CallOptions::default().deadline(deadline));
    let quick = async {
        let reply = host.call(&id, quick, arguments, patient()).await;
        assert!(Instant::now() >= deadline, "it overtook a call that had the only thread");
        reply
    };
    let [slow, quick] = in_order(vec![Box::pin(slow), Box::pin(quick)]).await.try_into().unwrap();
    assert_eq!(slow.unwrap_err().code, ErrorCode::DeadlineExceeded);
    quick.unwrap();
}

pub(super) async fn a_slow_call_delays_no_other_extension(subject: &Subject) {
    let host = host();
    let (case, method) = endless(subject);
    subject.load(&host, case).await;
    let others = super::subjects();
    for other in &others {
        other.load(&host, "counter").await;
    }
    let id = subject.guest(case);
    let slow = begin(&host, &id, method);
    let (until, mut n) = (Instant::now() + BESIDE, 0);
    while Instant::now() < until {
        n += 1;
        for other in &others {
            let one = rmp_serde::to_vec(&(1,)).unwrap();
            let count = host.call(&other.guest("counter"), "add", one, patient()).await.unwrap();
            assert_eq!(rmp_serde::from_slice::<u64>(&count).unwrap(), n, "{}", other.name);
        }
    }
    end(slow, &host, &id).await;
}
