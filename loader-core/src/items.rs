//! The items of a streaming call, as its caller reads them.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};

use futures_util::Stream;
use quadriga_abi::{Bytes, Error};

use crate::BoxFuture;
use crate::stream::Input;

/// What a streaming call gives: its items, in order, then the end or the error it ended with.
/// Dropped, it gives the call up.
pub struct Items {
    /// `None` if the caller wants the result as a whole.
    input: Option<Input>,
    /// `None` once the call has ended.
    call: Option<BoxFuture<'static, Result<Bytes, Error>>>,
    /// The call's own result counts as an item: the method does not stream, or is not asked to.
    single: Arc<AtomicBool>,
    last: Option<Result<Bytes, Error>>,
}

impl Items {
    /// The items of a call that runs elsewhere: those of `input`, until `call` is over. With
    /// `single` the call's own result is the one item, otherwise it only ends them.
    pub fn new(input: Option<Input>, call: BoxFuture<'static, Result<Bytes, Error>>, single: bool) -> Self {
        Self::later(input, call, Arc::new(AtomicBool::new(single)))
    }

    /// The same where only the call itself will know about its result, before it ends.
    pub(crate) fn later(
        input: Option<Input>,
        call: BoxFuture<'static, Result<Bytes, Error>>,
        single: Arc<AtomicBool>,
    ) -> Self {
        Self { input, call: Some(call), single, last: None }
    }

    /// The next item, waited for on the calling thread: not for threads of an async executor.
    pub fn next_blocking(&mut self) -> Option<Result<Bytes, Error>> {
        crate::block_on(poll_fn(|context| self.poll(context)))
    }

    /// The next item; `None` at the end.
    pub async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        poll_fn(|context| self.poll(context)).await
    }

    /// Ready when the next item, the result or the end can be had without waiting. Takes nothing.
    pub fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.advance(context);
        match self.input.as_ref().map(|input| input.poll_item(context)) {
            Some(Poll::Ready(true)) => Poll::Ready(()),
            _ if self.call.is_some() => Poll::Pending,
            _ => Poll::Ready(()),
        }
    }

    /// Waits for something else, such as room for the next item of the input, while the call goes on.
    pub async fn alongside<T>(&mut self, other: impl Future<Output = T>) -> T {
        let mut other = pin!(other);
        poll_fn(|context| {
            let done = other.as_mut().poll(context);
            if done.is_pending() {
                self.advance(context);
            }
            done
        })
        .await
    }

    /// As [`Items::alongside`], on the calling thread.
    pub fn alongside_blocking<T>(&mut self, other: impl Future<Output = T>) -> T {
        crate::block_on(self.alongside(other))
    }

    fn advance(&mut self, context: &mut Context<'_>) {
        if let Some(call) = &mut self.call
            && let Poll::Ready(result) = call.as_mut().poll(context)
        {
            self.call = None;
            match result {
                Ok(_) if !self.single.load(Relaxed) => {}
                result => self.last = Some(result),
            }
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Error>>> {
        self.advance(context);
        match self.input.as_ref().map(|input| input.poll_next(context)) {
            Some(Poll::Ready(Some(Ok(item)))) => Poll::Ready(Some(Ok(item))),
            // The call reports its end more fully than its stream does.
            _ if self.call.is_some() => Poll::Pending,
            _ => Poll::Ready(self.last.take()),
        }
    }
}

impl Stream for Items {
    type Item = Result<Bytes, Error>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(context)
    }
}

impl std::fmt::Debug for Items {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Items").field("running", &self.call.is_some()).finish_non_exhaustive()
    }
}
