//! Deadlines and callers that go away, in every language: the guest is told, and what does not listen
//! is ended.

use std::fmt;
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::{Duration, Instant};

use quadriga::abi::{Bytes, Error, ErrorCode};
use quadriga::{CallOptions, Dispatcher};
use quadriga_tests::{granted, guest, host};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::{Layer, Registry};

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];
const NONE: Bytes = Bytes::from_static(b"\x90");

/// What guests log: extension and line.
struct Lines(Mutex<Sender<(String, String)>>);

#[derive(Default)]
struct Line {
    extension: String,
    message: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "extension" => self.extension = format!("{value:?}").trim_matches('"').to_owned(),
            "message" => self.message = format!("{value:?}"),
            _ => {}
        }
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == "quadriga::guest" {
            let mut line = Line::default();
            event.record(&mut line);
            let _ = self.0.lock().unwrap().send((line.extension, line.message));
        }
    }
}

fn lines() -> Receiver<(String, String)> {
    let (send, receive) = mpsc::channel();
    tracing::subscriber::set_global_default(Registry::default().with(Lines(Mutex::new(send)))).unwrap();
    receive
}

async fn loaded(case: &str) -> Dispatcher {
    let host = host();
    for language in LANGUAGES {
        host.load(guest(case, language), granted()).await.expect(language);
    }
    host
}

/// The guest's next line is this one.
#[track_caller]
fn says(lines: &Receiver<(String, String)>, extension: &str, line: &str) {
    match lines.recv_timeout(Duration::from_secs(10)) {
        Ok(said) => assert_eq!(said, (extension.to_owned(), line.to_owned())),
        Err(_) => panic!("{extension} does not say {line:?}"),
    }
}

/// Lets `pause` run into its deadline, which is longer with each try until it gets to run before.
async fn late(
    host: &Dispatcher,
    lines: &Receiver<(String, String)>,
    paused: &str,
    call: impl AsyncFn(CallOptions) -> Result<Bytes, Error>,
) {
    let mut patience = Duration::from_millis(50);
    loop {
        let error = call(CallOptions::default().timeout(patience)).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{paused}: {error:?}");
        while host.status(paused).unwrap().metrics.in_flight > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if lines.recv_timeout(Duration::from_millis(100)).is_ok() {
            return says(lines, paused, "cleaned up");
        }
        patience *= 2;
        assert!(patience < Duration::from_secs(20), "{paused} never ran");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_is_told_that_nobody_waits() {
    let lines = lines();
    let host = loaded("flow").await;
    for language in LANGUAGES {
        let id = format!("flow.{language}");
        late(&host, &lines, &id, async |options| host.call(&id, "pause", NONE, options).await).await;
        late(&host, &lines, &id, async |options| host.call(&id, "pause", NONE, options.detached()).await)
            .await;
        // A future that is dropped.
        let call = {
            let (host, id) = (host.clone(), id.clone());
            tokio::spawn(
                async move { host.call(&id, "pause", NONE, CallOptions::default().detached()).await },
            )
        };
        says(&lines, &id, "waiting");
        call.abort();
        says(&lines, &id, "cleaned up");
        // Through another extension, of each language.
        for through in LANGUAGES {
            let relay = format!("relay.{through}");
            if host.status(&relay).is_err() {
                host.load(guest("relay", through), granted()).await.unwrap();
            }
            let arguments = Bytes::from(rmp_serde::to_vec(&(&id, "pause", [(); 0])).unwrap());
            let call = async |options| host.call(&relay, "relay", arguments.clone(), options).await;
            late(&host, &lines, &id, call).await;
        }
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
        assert_eq!(code, ErrorCode::DeadlineExceeded, "{id}");
    }
    over.sort_unstable();
    over[over.len() / 2]
}

#[tokio::test]
async fn an_endless_loop_is_over_soon_after_its_deadline() {
    let host = loaded("relay").await;
    // Native code in the host's process cannot be interrupted.
    for language in ["js", "python", "wasm"] {
        let id = format!("relay.{language}");
        let over = overrun(&host, &id).await;
        assert!(over < Duration::from_millis(50), "{language}: {over:?} after the deadline");
        let sum: i64 = host.invoke(&id, "add", &(2, 3)).await.unwrap();
        assert_eq!(sum, 5, "{language} goes on");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_endless_loop_does_not_harm_its_siblings() {
    let host = loaded("relay").await;
    for language in ["js", "python"] {
        let id = format!("relay.{language}");
        let spinning = {
            let (host, id) = (host.clone(), id.clone());
            let options = CallOptions::default().timeout(Duration::from_millis(200)).detached();
            tokio::spawn(async move { host.call(&id, "spin", NONE, options).await })
        };
        let mut answered = 0;
        while !spinning.is_finished() {
            let options = CallOptions::default().timeout(Duration::from_secs(10)).detached();
            let arguments = rmp_serde::to_vec(&(1, answered)).unwrap();
            let sum = host.call(&id, "add", arguments, options).await.unwrap();
            assert_eq!(rmp_serde::from_slice::<i64>(&sum).unwrap(), 1 + answered, "{language}");
            answered += 1;
        }
        assert_eq!(spinning.await.unwrap().unwrap_err().code, ErrorCode::DeadlineExceeded, "{language}");
        assert!(answered > 0, "{language}");
    }
}
