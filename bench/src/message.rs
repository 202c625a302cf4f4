//! Messages between extensions: one that sends, one that answers, in the two languages that run on their
//! caller's thread.

use std::pin::pin;

use anyhow::Result;
use futures_util::FutureExt;
use quadriga::abi::{Bytes, Value, codec};
use quadriga::{CallOptions, Dispatcher};

use crate::measure::{Pair, compare};

/// A message with 100 bytes from one to the other, and its answer, against the call of each of the two alone:
/// what is over is what passing it on takes. 10 µs are 100,000 messages per second.
pub(crate) fn between(
    host: &Dispatcher,
    name: &'static str,
    [from, to]: [&str; 2],
    echo: &Bytes,
) -> Result<Pair> {
    let message = (to, "echo", [Value::Bytes(vec![7; 100])]);
    let message: Bytes = codec::arguments(&message)?.into();
    let call = |extension: &str, method: &str, arguments: &Bytes| {
        let mut call = pin!(host.call(extension, method, arguments.clone(), CallOptions::default()));
        let reply = call.as_mut().now_or_never().unwrap_or_else(|| quadriga::block_on(call));
        assert!(reply.is_ok_and(|reply| reply.len() == echo.len() - 1), "{extension} does not answer");
    };
    let apart = || {
        call(from, "echo", echo);
        call(to, "echo", echo);
    };
    Ok(Pair {
        name,
        target: "≤ 10 µs",
        met: |_, ours| ours <= 10_000.0,
        ..compare(apart, || call(from, "relay", &message))
    })
}
