//! The guests of the suite against the traits of loader-core alone: no engine, no SDK.

use std::collections::BTreeMap;
use std::future::{pending, ready};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use quadriga::abi::{Bytes, Error, ErrorCode, RuntimeKind, StreamMark, Value, codec};
use quadriga::{
    BoxFuture, Bridge, Call, Feed, Input, Instance, LogLevel, MockRuntime, Outcome, Runtime, Support, Unit,
};
use quadriga_conformance::Table;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

/// Makes the guest that the id asks for anew at each load, so that each generation has its state.
pub(super) struct Mock;

impl Runtime for Mock {
    fn kind(&self) -> RuntimeKind {
        RuntimeKind::new("mock")
    }

    fn support(&self) -> Support {
        MockRuntime::new().support()
    }

    fn load(&self, unit: Unit, bridge: Bridge) -> BoxFuture<'_, Result<Arc<dyn Instance>, Error>> {
        let guest = match unit.manifest.extension.id.as_str() {
            "conformance.mock" => conformance(),
            "counter.mock" => counter(),
            "flow.mock" => flow(),
            _ => relay(),
        };
        Box::pin(async move { guest.load(unit, bridge).await })
    }
}

/// A call with what it needs of its host. Clones are the same call.
#[derive(Clone)]
struct Task {
    bridge: Bridge,
    call: Call,
}

impl Task {
    async fn call<R: DeserializeOwned>(
        &self,
        extension: &str,
        method: &str,
        arguments: impl Serialize,
    ) -> Result<R, Error> {
        let arguments = codec::arguments(&arguments).map_err(no_place)?.into();
        let reply = self.bridge.call_detached(&self.call.context(), extension, method, arguments).await;
        codec::from_bytes(&reply.map_err(passed_on)?).map_err(no_place)
    }

    fn log(&self, line: &str) {
        self.bridge.log(&self.call.context(), LogLevel::Info, line);
    }

    async fn emit(&self, item: u64) -> Result<(), Error> {
        let output = self.call.streams.as_ref().and_then(|streams| streams.output.clone());
        output.expect("a method that streams").emit_later(codec::to_bytes(&item).unwrap().into()).await
    }

    fn input(&self) -> Result<Input, Error> {
        let input = self.call.streams.as_ref().and_then(|streams| streams.input.clone());
        input.ok_or_else(|| Error::new(ErrorCode::InvalidArguments, "the caller sends no stream"))
    }

    /// Reads so many numbers of a stream of another extension, or all.
    async fn read(&self, extension: &str, method: &str, n: u64, most: usize) -> Result<Vec<u64>, Error> {
        let arguments = codec::arguments(&(n,)).unwrap().into();
        let mut items = self.bridge.start(&self.call.context(), extension, method, arguments, None, true);
        let mut numbers = Vec::new();
        while numbers.len() < most
            && let Some(item) = items.next().await
        {
            numbers.push(codec::from_bytes(&item.map_err(passed_on)?).map_err(no_place)?);
        }
        Ok(numbers)
    }

    /// Sends another extension numbers as long as it listens.
    async fn send(
        &self,
        extension: &str,
        method: &str,
        arguments: impl Serialize,
        numbers: impl Iterator<Item = u64>,
    ) -> Result<u64, Error> {
        let (feed, input) = Feed::new();
        let arguments = codec::arguments(&arguments).unwrap().into();
        let context = self.call.context();
        let mut reply = self.bridge.start(&context, extension, method, arguments, Some(input), false);
        for number in numbers {
            if reply.alongside(feed.send(codec::to_bytes(&number).unwrap())).await.is_err() {
                break;
            }
        }
        feed.finish();
        let reply = reply.next().await.expect("a result").map_err(passed_on)?;
        codec::from_bytes(&reply).map_err(no_place)
    }
}

/// Methods that keep no thread while they run.
struct Guest {
    mock: MockRuntime,
    /// The calls that are to end.
    interrupts: broadcast::Sender<u64>,
}

impl Guest {
    fn new() -> Self {
        let (interrupts, _) = broadcast::channel(1024);
        let told = interrupts.clone();
        let mock = MockRuntime::new().blocking(false).on_interrupt(move |call| {
            // Nobody listens where no call runs.
            let _ = told.send(call);
        });
        Self { mock, interrupts }
    }

    fn method<A, R, F>(mut self, name: &str, run: impl Fn(Task, A) -> F + Send + Sync + 'static) -> Self
    where
        A: DeserializeOwned,
        R: Serialize,
        F: Future<Output = Result<R, Error>> + Send + 'static,
    {
        let interrupts = self.interrupts.clone();
        self.mock = self.mock.method(name, move |bridge, call| {
            let arguments = match codec::from_arguments::<A>(&call.envelope.payload) {
                Ok(arguments) => arguments,
                Err(error) => return unfit(error).into(),
            };
            let (id, mut interrupted) = (call.envelope.id, interrupts.subscribe());
            let running = run(Task { bridge: bridge.clone(), call }, arguments);
            Outcome::Pending(Box::pin(async move {
                let mut running = pin!(running);
                loop {
                    tokio::select! {
                        done = &mut running => return codec::to_bytes(&done?).map(Bytes::from).map_err(no_place),
                        call = interrupted.recv() => if call == Ok(id) {
                            return Err(Error::new(ErrorCode::DeadlineExceeded, "it was told to end"));
                        },
                    }
                }
            }))
        });
        self
    }
}

type Passed = (String, String, Vec<Value>);
type Told = (Option<String>, String, Vec<Value>);

/// What one extension answered to a broadcast.
#[derive(Deserialize)]
struct Answered {
    extension: String,
    value: Option<Value>,
    error: Option<Refused>,
}

#[derive(Deserialize)]
struct Refused {
    code: String,
}

fn relay() -> MockRuntime {
    Guest::new()
        .method("add", |_, (a, b): (i64, i64)| ready(Ok(a + b)))
        .method("greet", |_, (name,): (String,)| ready(Ok(format!("Hello, {name}, from mock"))))
        .method("relay", |task, (extension, method, arguments): Passed| async move {
            task.call::<Value>(&extension, &method, arguments).await
        })
        .method("broadcast", |task, (tag, method, arguments): Told| async move {
            let to = BTreeMap::from([("tag", tag)]);
            let answers: Vec<Answered> =
                task.call("quadriga.calls", "broadcast", (to, method, arguments)).await?;
            let answered = |it: Answered| (it.extension, it.value, it.error.map(|error| error.code));
            Ok(answers.into_iter().map(answered).collect::<Vec<_>>())
        })
        .method("fail", |_, (message,): (String,)| ready(Err::<(), _>(failure(message))))
        .method("log", |task, (line,): (String,)| {
            task.log(&line);
            ready(Ok(()))
        })
        .method("spin", |_, (): ()| pending::<Result<(), Error>>())
        .mock
}

fn counter() -> MockRuntime {
    let count = Arc::new(AtomicI64::new(0));
    let [for_add, for_snapshot] = [Arc::clone(&count), Arc::clone(&count)];
    Guest::new()
        .method("add", move |_, (n,): (i64,)| ready(Ok(for_add.fetch_add(n, Ordering::SeqCst) + n)))
        .method("snapshot", move |_, (): ()| ready(Ok(for_snapshot.load(Ordering::SeqCst))))
        .method("restore", move |_, (before,): (i64,)| {
            if before < 0 {
                return ready(Err(failure("a count is not negative")));
            }
            count.store(before, Ordering::SeqCst);
            ready(Ok(()))
        })
        .mock
}

async fn count(task: &Task, n: u64) -> Result<(), Error> {
    for number in 0..n {
        task.emit(number).await?;
    }
    Ok(())
}

async fn sum(input: Input, most: usize) -> Result<u64, Error> {
    let mut sum = 0;
    for _ in 0..most {
        let Some(item) = input.clone().next_later().await else { break };
        sum += codec::from_bytes::<u64>(&item?).map_err(no_place)?;
    }
    Ok(sum)
}

fn flow() -> MockRuntime {
    let guest = Guest::new()
        .method("count", |task, (n,): (u64,)| async move { count(&task, n).await })
        .method("broken", |task, (n,): (u64,)| async move {
            count(&task, n).await?;
            Err::<(), _>(failure("the source ran dry"))
        })
        .method("sum", |task, (StreamMark,)| async move { sum(task.input()?, usize::MAX).await })
        .method("sum_first", |task, (StreamMark, n): (StreamMark, usize)| async move {
            sum(task.input()?, n).await
        })
        .method("double", |task, (StreamMark,)| async move {
            let input = task.input()?;
            while let Some(item) = input.clone().next_later().await {
                task.emit(2 * codec::from_bytes::<u64>(&item?).map_err(no_place)?).await?;
            }
            Ok(())
        })
        .method("total", |task, (extension, n): (String, u64)| async move {
            Ok(task.read(&extension, "count", n, usize::MAX).await?.iter().sum::<u64>())
        })
        .method("first", |task, (extension, n): (String, usize)| async move {
            task.read(&extension, "count", u64::MAX, n).await
        })
        .method("read_broken", |task, (extension, n): (String, u64)| async move {
            task.read(&extension, "broken", n, usize::MAX).await
        })
        .method("send", |task, (extension, n): (String, u64)| async move {
            task.send(&extension, "sum", (StreamMark,), 0..n).await
        })
        .method("send_endless", |task, (extension, n): (String, usize)| async move {
            task.send(&extension, "sum_first", (StreamMark, n), 0..).await
        })
        .method("whole", |task, (extension, n): (String, u64)| async move {
            task.call::<Vec<u64>>(&extension, "count", (n,)).await
        })
        .method("pause", |task, (): ()| async move {
            let told = CleanUp(task);
            told.0.log("waiting");
            pending::<Result<(), Error>>().await
        });
    guest.mock.describe(|description| {
        for method in &mut description.methods {
            method.streams = ["count", "broken", "double"].contains(&method.name.as_str());
        }
    })
}

/// What a future that is dropped still does.
struct CleanUp(Task);

impl Drop for CleanUp {
    fn drop(&mut self) {
        self.0.log("cleaned up");
    }
}

fn conformance() -> MockRuntime {
    let table = Arc::new(Table::read().unwrap());
    let [for_matches, for_send] = [Arc::clone(&table), Arc::clone(&table)];
    MockRuntime::new()
        .method("make", move |_, call| answer(&call, |(name,): (String,)| make(&table, &name)))
        .method("matches", move |_, call| {
            answer(&call, |(name, value): (String, Value)| {
                codec::to_bytes(&(make(&for_matches, &name)? == value.to_bytes().map_err(no_place)?))
                    .map_err(no_place)
            })
        })
        .method("echo", |_, call| answer(&call, |(value,): (Value,)| value.to_bytes().map_err(no_place)))
        .method("send", move |bridge, call| {
            let parts = codec::from_arguments::<(String, String, String)>(&call.envelope.payload);
            let made = parts.map_err(unfit).and_then(|(extension, method, name)| {
                Ok((extension, method, [&[0x91], &make(&for_send, &name)?[..]].concat()))
            });
            match made {
                Ok((extension, method, payload)) => {
                    bridge.call(&call.context(), &extension, &method, payload.into())
                }
                Err(error) => error.into(),
            }
        })
        .method("relay", |bridge, call| {
            let parts = codec::from_arguments::<(String, String, Value)>(&call.envelope.payload);
            let (extension, method, value) = match parts {
                Ok(parts) => parts,
                Err(error) => return unfit(error).into(),
            };
            let arguments = codec::arguments(&(value,)).unwrap();
            bridge.call(&call.context(), &extension, &method, arguments.into())
        })
}

fn answer<A: for<'de> serde::Deserialize<'de>>(
    call: &Call,
    run: impl FnOnce(A) -> Result<Vec<u8>, Error>,
) -> Outcome {
    let arguments = codec::from_arguments(&call.envelope.payload).map_err(unfit);
    Outcome::Ready(arguments.and_then(run).map(Bytes::from))
}

/// The bytes of a case; one that is refused in Rust is made to be refused here.
fn make(table: &Table, name: &str) -> Result<Vec<u8>, Error> {
    let values = table.value.iter().map(|case| (&case.name, &case.bytes));
    let mut all = values.chain(table.taken.iter().map(|case| (&case.name, &case.bytes)));
    if let Some((_, bytes)) = all.find(|(known, _)| *known == name) {
        return Ok(bytes.0.clone());
    }
    let encoded = match name {
        "int_above_64_bits" => codec::to_bytes(&u128::MAX),
        "int_below_64_bits" => codec::to_bytes(&i128::MIN),
        _ => codec::to_bytes(&(0..129).fold(Value::Nil, |inner, _| Value::List(vec![inner]))),
    };
    encoded.map_err(no_place)
}

/// What an engine makes of an exception.
fn failure(message: impl Into<String>) -> Error {
    Error::new(ErrorCode::ExtensionError, message).with_stack("mocked.rs")
}

/// A failure of another extension that a guest doesn't handle becomes its own, with the other below.
fn passed_on(error: Error) -> Error {
    Error::new(error.code, error.message.clone()).with_cause(error)
}

fn no_place(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidValue, error.to_string())
}

fn unfit(error: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::InvalidArguments, error.to_string())
}
