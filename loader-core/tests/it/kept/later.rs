//! Hosts that emit where nothing may wait.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use futures_util::poll;
use tokio::sync::Semaphore;

use super::*;

/// A store that keeps events as soon as it is given a permit for each time it is asked to.
#[derive(Clone)]
struct Slow {
    store: Store,
    permits: Arc<Semaphore>,
}

impl Slow {
    fn new() -> Self {
        Self { store: Store::default(), permits: Arc::new(Semaphore::new(0)) }
    }
}

impl EventStore for Slow {
    fn add(&self, events: Vec<KeptEvent>) -> BoxFuture<'static, Result<(), Error>> {
        let (store, permits) = (self.store.clone(), Arc::clone(&self.permits));
        Box::pin(async move {
            permits.acquire().await.unwrap().forget();
            store.add(events).await
        })
    }

    fn update(&self, event: KeptEvent) -> BoxFuture<'static, Result<(), Error>> {
        self.store.update(event)
    }

    fn remove(&self, ids: Vec<String>) -> BoxFuture<'static, Result<(), Error>> {
        self.store.remove(ids)
    }

    fn list(&self, subscriber: Option<&ExtensionId>) -> BoxFuture<'static, Result<Vec<KeptEvent>, Error>> {
        self.store.list(subscriber)
    }
}

fn slow(guests: &Guests) -> (Dispatcher, Slow) {
    let store = Slow::new();
    let builder = Dispatcher::builder().runtime(guests.runtime()).event_store(store.clone());
    (builder.build().unwrap(), store)
}

fn emit_later(
    host: &Dispatcher,
    number: i64,
) -> Pin<Box<dyn Future<Output = Result<Emitted, Error>> + Send>> {
    Box::pin(host.emit_later("a.b", &codec::to_bytes(&number).unwrap()))
}

/// An executor with one thread.
#[tokio::test(flavor = "current_thread")]
async fn an_executor_goes_on_while_a_store_writes() {
    let guests = Guests::default();
    let (host, store) = slow(&guests);
    let _a = load(&host, "x.a", &keeps(""), Grant::Requested).await;
    let mut ours = host.subscribe("a.*").unwrap();
    let emitting = tokio::spawn(emit_later(&host, 1));
    // On the one thread there is: another task, a timer, and a subscriber that wants it at most once.
    ours.next().await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(1)).await;
        assert!(!emitting.is_finished());
    }
    assert!(guests.taken().is_empty());
    let shut = guests.gate.lock().unwrap();
    store.permits.add_permits(1);
    assert_eq!(emitting.await.unwrap().unwrap(), Emitted { queued: 2, dropped: 0 });
    assert_eq!(store.store.events.lock().unwrap().len(), 1);
    drop(shut);
    until(async || guests.taken() == [1]).await;
}

#[tokio::test]
async fn it_is_emitted_whether_or_not_anybody_waits() {
    let guests = Guests::default();
    let (host, store) = slow(&guests);
    let _a = load(&host, "x.a", &keeps(""), Grant::Requested).await;
    drop(emit_later(&host, 1));
    let mut second = pin!(emit_later(&host, 2));
    assert!(poll!(&mut second).is_pending());
    drop(emit_later(&host, 3));
    assert_eq!(one(&host, "x.a").queued, 3);
    store.permits.add_permits(3);
    until(async || guests.taken() == [1, 2, 3]).await;
    assert!(second.await.is_ok());
    // Where nobody wants it at least once there is nothing to wait for.
    let data = codec::to_bytes(&4).unwrap();
    let mut unheard = pin!(host.emit_later("b.unheard", &data));
    let Poll::Ready(emitted) = poll!(&mut unheard) else { panic!("it waits") };
    assert_eq!(emitted.unwrap(), Emitted::default());
    // What is wrong the future says.
    for (topic, data, code) in [
        ("a.*", &data, ErrorCode::InvalidArguments),
        ("a.b", &Vec::new(), ErrorCode::InvalidArguments),
        ("a.b", &codec::to_bytes(&"x".repeat(2 << 20)).unwrap(), ErrorCode::MessageTooLarge),
    ] {
        assert_eq!(host.emit_later(topic, data).await.unwrap_err().code, code);
    }
    store.store.broken.store(true, SeqCst);
    store.permits.add_permits(1);
    assert_eq!(emit_later(&host, 5).await.unwrap_err().code, ErrorCode::StoreFailed);
}
