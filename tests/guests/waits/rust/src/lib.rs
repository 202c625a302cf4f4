//! The test guest for async methods: several calls at once, streams, time, and what never ends.

#[quadriga_sdk::extension]
mod waits {
    use std::future::{pending, poll_fn};
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use futures_util::future::{Either, join, join_all, select};
    use quadriga_sdk::serde::{Deserialize, Serialize};
    use quadriga_sdk::{Error, Input, Items, JsonSchema, Stream, Value, host};

    /// A place.
    #[derive(Serialize, Deserialize, JsonSchema)]
    #[serde(crate = "quadriga_sdk::serde")]
    #[schemars(crate = "quadriga_sdk::schemars")]
    pub struct Point {
        x: i64,
    }

    /// Returns its argument.
    pub async fn echo(value: Value) -> Value {
        value
    }

    /// Borrows its arguments over a wait, and has a type of its own.
    pub async fn shift(point: Point, _by: &str, more: Option<i64>) -> Result<Point, Error> {
        host::sleep(Duration::from_millis(1)).await?;
        let by: i64 = _by.parse()?;
        Ok(Point { x: point.x + by + more.unwrap_or(0) })
    }

    /// Calls `meet` of a peer so many times at once.
    pub async fn meet(n: u64) -> Result<Vec<u64>, Error> {
        let calls = (0..n).map(|i| host::call_async("test.peer", "meet", (i,)));
        join_all(calls).await.into_iter().collect()
    }

    /// Calls a method of another extension.
    pub async fn relay(extension: &str, method: &str, args: Vec<Value>) -> Result<Value, Error> {
        host::call_async(extension, method, args).await
    }

    /// Calls `echo` of another extension so many times, one after another.
    pub async fn often(extension: &str, n: u64) -> Result<u64, Error> {
        let mut sum = 0;
        for i in 0..n {
            sum += host::call_async::<u64>(extension, "echo", (i,)).await?;
        }
        Ok(sum)
    }

    /// Sums up what two of another extension's methods say, one of which fails.
    pub async fn either_fails(extension: &str) -> Result<i64, Error> {
        let right = host::call_async::<i64>(extension, "add", (1, 2));
        let wrong = host::call_async::<i64>(extension, "fail", ("too bad",));
        let (right, wrong) = join(right, wrong).await;
        Ok(right? + wrong?)
    }

    /// The first of two calls, of which one never ends by itself; then goes on when told.
    pub async fn first(extension: &str) -> Result<u64, Error> {
        let never = host::call_async::<Value>(extension, "pause", ());
        let quick = host::call_async::<u64>("test.peer", "echo", (7,));
        let Either::Right((quick, never)) = select(never, quick).await else {
            return Err(Error::new("the wrong one was first"));
        };
        drop(never);
        let told: u64 = host::call_async("test.peer", "told", ()).await?;
        Ok(quick? + told)
    }

    /// Gives a call that does not end some time, and says what ended.
    pub async fn patience(extension: &str, millis: u64) -> Result<String, Error> {
        let never = host::call_async::<Value>(extension, "pause", ());
        match select(never, pin!(host::sleep(Duration::from_millis(millis)))).await {
            Either::Left(_) => Ok("the call".to_owned()),
            Either::Right((slept, _)) => slept.map(|()| "the time".to_owned()),
        }
    }

    /// Sleeps so many times at once.
    pub async fn naps(n: u64, millis: u64) -> Result<u64, Error> {
        let naps = join_all((0..n).map(|_| host::sleep(Duration::from_millis(millis)))).await;
        Ok(naps.into_iter().filter(Result::is_ok).count() as u64)
    }

    /// Waits for what never comes.
    pub async fn forgotten() {
        pending::<()>().await;
    }

    /// Wakes itself until a call has ended.
    pub async fn restless() -> Result<u64, Error> {
        let told = host::call_async::<u64>("test.peer", "told", ());
        let busy = poll_fn(|context| {
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        match select(told, busy).await {
            Either::Left((result, _)) => result,
            Either::Right(_) => Err(Error::new("the busy one ended")),
        }
    }

    /// Is woken by a thread of its own.
    #[cfg(not(target_family = "wasm"))]
    pub async fn threaded() -> u64 {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicU64, Ordering};

        let result = Arc::new(AtomicU64::new(0));
        let mut begun = false;
        poll_fn(|context| {
            if !begun {
                begun = true;
                let (result, waker) = (Arc::clone(&result), context.waker().clone());
                std::thread::spawn(move || {
                    result.store(42, Ordering::Release);
                    waker.wake();
                });
            }
            match result.load(Ordering::Acquire) {
                0 => Poll::Pending,
                result => Poll::Ready(result),
            }
        })
        .await
    }

    /// Adds up what it is sent, and what another extension streams, whichever comes first.
    pub async fn sum(mut numbers: Input<u64>, extension: &str, n: u64) -> Result<u64, Error> {
        let mut count: Items<u64> = host::stream(extension, "count", (n,))?;
        let sent = async {
            let mut sum = 0;
            while let Some(number) = numbers.receive().await {
                sum += number?;
            }
            Ok::<u64, Error>(sum)
        };
        let counted = async {
            let mut sum = 0;
            while let Some(number) = count.receive().await {
                sum += number?;
            }
            Ok::<u64, Error>(sum)
        };
        let (sent, counted) = join(sent, counted).await;
        Ok(sent? + counted?)
    }

    /// The numbers below what a peer says.
    pub async fn count(n: u64) -> Result<Stream<u64>, Error> {
        let n: u64 = host::call_async("test.peer", "echo", (n,)).await?;
        Ok(Stream::new(0..n))
    }

    /// Begins calls, and awaits them outside of an async method.
    pub fn plain(n: u64) -> Result<u64, Error> {
        let mut call = pin!(host::call_async::<u64>("test.peer", "echo", (n,)));
        match call.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Err(Error::new("it did not wait")),
        }
    }
}
