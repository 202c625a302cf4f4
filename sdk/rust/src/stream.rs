//! Streams: items that go from a producer to a consumer one by one, while both run.

use std::fmt;
use std::future::poll_fn;
use std::marker::PhantomData;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use quadriga_abi::{StreamMark, codec};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

#[cfg(not(target_family = "wasm"))]
use crate::native as seam;
use crate::task::{self, Channel, lock};
#[cfg(target_family = "wasm")]
use crate::wasm as seam;
use crate::{Error, Result};

/// What a method returns that streams: its items are made as its consumer reads them.
///
/// ```
/// #[quadriga_sdk::extension]
/// mod numbers {
///     use quadriga_sdk::Stream;
///
///     /// Counts, for as long as someone listens.
///     pub fn count(from: u64) -> Stream<u64> {
///         Stream::new(from..)
///     }
/// }
/// # fn main() {}
/// ```
pub struct Stream<T>(Box<dyn Iterator<Item = Result<T>>>);

impl<T: 'static> Stream<T> {
    /// A stream of these items.
    pub fn new(items: impl IntoIterator<Item = T> + 'static) -> Self {
        Self(Box::new(items.into_iter().map(Ok)))
    }

    /// A stream that the first error ends.
    pub fn of_results<E: Into<Error>>(
        items: impl IntoIterator<Item = std::result::Result<T, E>> + 'static,
    ) -> Self {
        Self(Box::new(items.into_iter().map(|item| item.map_err(Into::into))))
    }
}

impl<T: Serialize> Stream<T> {
    /// Hands all items on. Waits wherever the consumer has enough to read.
    pub(crate) fn emit(self) -> std::result::Result<(), quadriga_abi::Error> {
        let mut bytes = Vec::new();
        for item in self.0 {
            let item = item.map_err(Error::into_wire)?;
            bytes.clear();
            codec::append(&mut bytes, &item).map_err(|error| {
                let message = format!("an item has no place in the value table: {error}");
                quadriga_abi::Error::new(quadriga_abi::ErrorCode::InvalidValue, message)
            })?;
            seam::emit(&bytes)?;
        }
        Ok(())
    }
}

impl<T> fmt::Debug for Stream<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}

/// A parameter for which callers pass a stream: an iterator that waits for the next item.
///
/// ```
/// #[quadriga_sdk::extension]
/// mod numbers {
///     use quadriga_sdk::{Error, Input};
///
///     /// Adds up what it is sent.
///     pub fn sum(numbers: Input<i64>) -> Result<i64, Error> {
///         numbers.sum()
///     }
/// }
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Input<T> {
    key: Arc<()>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Input<T> {
    /// The next item, for `async` methods, which go on with something else meanwhile. Dropped
    /// before it is ready, it takes no item.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = Option<Result<T>>> + use<'_, T> {
        let at = Location::caller();
        poll_fn(move |context| task::poll_next(&self.key, context).map(|item| received(item, "an item", at)))
    }
}

impl<T: DeserializeOwned> Iterator for Input<T> {
    type Item = Result<T>;

    #[track_caller]
    fn next(&mut self) -> Option<Result<T>> {
        received(seam::next(), "an item", Location::caller())
    }
}

impl<'de, T> Deserialize<'de> for Input<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        StreamMark::deserialize(deserializer).map(|StreamMark| Self { key: Arc::new(()), item: PhantomData })
    }
}

/// The items of another extension's stream: an iterator that waits for the next one. Dropped, it
/// gives the call up. A method that does not stream gives its one result.
pub struct Items<T> {
    channel: Option<Channel>,
    item: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Items<T> {
    pub(crate) fn new(channel: seam::Channel) -> Self {
        Self { channel: Some(Arc::new(Mutex::new(channel))), item: PhantomData }
    }

    /// The next item, for `async` methods, which go on with something else meanwhile. Dropped
    /// before it is ready, it takes no item.
    #[track_caller]
    pub fn receive(&mut self) -> impl Future<Output = Option<Result<T>>> + use<'_, T> {
        let at = Location::caller();
        poll_fn(move |context| self.poll(context, "an item", at))
    }

    pub(crate) fn poll(
        &mut self,
        context: &Context<'_>,
        what: &str,
        at: &'static Location<'static>,
    ) -> Poll<Option<Result<T>>> {
        let Some(channel) = &self.channel else { return Poll::Ready(None) };
        task::poll_read(channel, context).map(|item| self.took(received(item, what, at)))
    }

    /// Nothing comes after an error or the end.
    fn took(&mut self, item: Option<Result<T>>) -> Option<Result<T>> {
        if !matches!(item, Some(Ok(_))) {
            self.channel = None;
        }
        item
    }
}

impl<T: DeserializeOwned> Iterator for Items<T> {
    type Item = Result<T>;

    #[track_caller]
    fn next(&mut self) -> Option<Result<T>> {
        let item = lock(self.channel.as_ref()?).read();
        self.took(received(item, "an item", Location::caller()))
    }
}

impl<T> fmt::Debug for Items<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Items")
    }
}

/// An item as the host gave it to who asked there.
fn received<T: DeserializeOwned>(
    item: std::result::Result<Option<Vec<u8>>, quadriga_abi::Error>,
    what: &str,
    at: &'static Location<'static>,
) -> Option<Result<T>> {
    let item = match item {
        Ok(item) => item?,
        Err(error) => return Some(Err(Error::from_host_at(error, at))),
    };
    Some(codec::from_bytes(&item).map_err(|error| {
        let message = format!("{what} is no {}: {error}", std::any::type_name::<T>());
        Error::with_code(quadriga_abi::ErrorCode::InvalidValue, message)
    }))
}
