//! What Quadriga adds to each engine: the same echo of 100 bytes, through the dispatcher and
//! through the bare engine, in turn, in one run; and a call to a worker process against the same bytes
//! through a bare socket; and the load of an extension into a worker process, with its unload, against
//! the start and end of a bare one. Machines are shared and noisy, so read the ratios.
//!
//! `cargo xtask bench` builds the guests and runs this. A name such as `wasm` runs that alone;
//! `--json` prints the figures as JSON.

#![expect(clippy::print_stdout, reason = "the figures are what this program is for")]

mod home;
mod hooks;
mod hop;
mod measure;
mod message;
mod ready;
#[cfg(target_os = "linux")]
mod worker;

use std::path::PathBuf;
use std::pin::pin;
use std::process::ExitCode;

use anyhow::{Context, Error, Result};
use futures_util::FutureExt;
use quadriga::abi::{Bytes, Isolation};
use quadriga::{CallOptions, Dispatcher, Grant, LoadOptions, Policy};

use crate::hop::Hop;
use crate::measure::{Pair, compare};

/// Calls in flight on one JavaScript isolate in the second of its figures.
const IN_FLIGHT: usize = 64;

fn main() -> Result<ExitCode> {
    if std::env::args().nth(1).is_some_and(|role| role == ready::ISOLATES) {
        return ready::isolates().map(|()| ExitCode::SUCCESS);
    }
    #[cfg(target_os = "linux")]
    match std::env::args().collect::<Vec<_>>().as_slice() {
        [_, role] if role == "worker" => return Ok(quadriga::worker_main()),
        [_, role, size] if role == worker::ECHO => {
            return worker::echo(size).map(|()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let policy = Policy { minimum_isolation: Isolation::None, ..Policy::default() };
    let host = quadriga::builder().policy(policy).build()?;
    let guests = std::env::var_os("QUADRIGA_GUESTS").map_or_else(|| "target/guests".into(), PathBuf::from);
    let (all, guests) = (guests.clone(), guests.join("relay"));
    // What is named on the command line, or everything.
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let wanted = |name: &str| named.is_empty() || named.iter().any(|prefix| name.starts_with(prefix));
    let needed = |language: &str| {
        let also = match language {
            "wasm" => wanted("ready, wasm") || wanted("message"),
            "native" => wanted("message"),
            _ => false,
        };
        also || wanted(language)
    };
    for language in ["native", "wasm", "python", "js"].into_iter().filter(|language| needed(language)) {
        let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
        quadriga::block_on(host.load(guests.join(language), options))
            .with_context(|| format!("loading {language}; build the guests with `cargo xtask guests`"))?;
    }
    let payload = echo_arguments();
    let mut figures = Vec::new();

    if wanted("native") {
        let bare = quadriga_runtime_native::bare::Echo::load(&guests.join("native"))?;
        figures.push(Pair {
            name: "native",
            target: "≤ 200 ns over",
            met: |bare, ours| ours - bare <= 200.0,
            ..compare(|| bare.call(&payload), || call(&host, "relay.native", &payload))
        });
    }
    if wanted("wasm") {
        let load = |interruptible| {
            quadriga_runtime_wasm::bare::Echo::load(&guests.join("wasm"), interruptible).map_err(Error::msg)
        };
        let (mut bare, mut on_stack) = (load(false)?, load(true)?);
        figures.push(Pair {
            name: "wasm",
            target: "≤ 1.5×",
            met: |bare, ours| ours <= 1.5 * bare,
            ..compare(|| assert!(bare.call(&payload).is_ok()), || call(&host, "relay.wasm", &payload))
        });
        figures.push(Pair {
            name: "wasm, bare | on its own stack",
            ..compare(
                || assert!(bare.call(&payload).is_ok()),
                || assert!(on_stack.call_on_stack(&payload).is_ok()),
            )
        });
    }
    if wanted("python") {
        let bare = quadriga_runtime_python::bare::Echo::new()?;
        figures.push(Pair {
            name: "python",
            target: "≤ 2 µs over",
            met: |bare, ours| ours - bare <= 2000.0,
            ..compare(|| bare.call(&[7; 100]), || call(&host, "relay.python", &payload))
        });
    }
    if wanted("js") {
        let hop = Hop::start();
        figures.push(Pair {
            name: "js, one call",
            target: "≤ a thread hop + 2 µs",
            met: |bare, ours| ours - bare <= 2000.0,
            ..compare(|| hop.there_and_back(), || call_and_wait(&host, "relay.js", &payload))
        });
        let mut many = compare(|| hop.there_and_back(), || call_many(&host, "relay.js", &payload));
        many.ours /= IN_FLIGHT as f64;
        figures.push(Pair {
            name: "js, each of 64 in flight",
            target: "≤ 2 µs each",
            met: |_, ours| ours <= 2000.0,
            ..many
        });
    }

    for (name, ends) in [
        ("message, native to wasm", ["relay.native", "relay.wasm"]),
        ("message, wasm to native", ["relay.wasm", "relay.native"]),
    ] {
        if wanted(name) {
            figures.push(message::between(&host, name, ends, &payload)?);
        }
    }

    #[cfg(target_os = "linux")]
    for (name, size) in [("process, 64 B", 64), ("process, 1 MiB", 1 << 20)] {
        if wanted(name) {
            let (host, mut bare) = (worker::host(&guests)?, worker::Echo::start(size)?);
            let payload = worker::arguments(size)?;
            figures.push(Pair {
                name,
                target: if size == 64 { "≤ 1.5×" } else { "≤ 0.6×" },
                met: if size == 64 {
                    |bare, ours| ours <= 1.5 * bare
                } else {
                    |bare, ours| ours <= 0.6 * bare
                },
                ..compare(|| bare.there_and_back(), || call_and_wait(&host, "relay.native", &payload))
            });
            quadriga::block_on(host.shutdown());
        }
    }

    #[cfg(target_os = "linux")]
    for (name, language) in
        [("start python", "python"), ("start native", "native"), ("start js", "js"), ("start wasm", "wasm")]
    {
        if wanted(name) {
            let starts = worker::Starts::new(guests.join(language))?;
            figures.push(Pair {
                name,
                target: "≤ 10 ms over",
                met: |bare, ours| ours - bare <= 1e7,
                ..compare(|| assert!(worker::Echo::start(64).is_ok()), || starts.one())
            });
        }
    }

    if wanted("hook") {
        figures.extend([hooks::silent(&all)?, hooks::one(&all, "native")?, hooks::one(&all, "wasm")?]);
        figures.push(hooks::four(&all)?);
        figures.extend(hooks::crowd(&all)?);
    }

    if wanted("home") {
        figures.extend(home::rows()?);
    }

    let mut sizes = Vec::new();
    if wanted("ready, wasm") {
        figures.push(ready::wasm(&host, &guests, &payload)?);
        sizes.push(ready::sizes(&host, &guests, "wasm")?);
    }
    if wanted("ready, js") {
        figures.push(ready::js(&host, &guests)?);
        sizes.push(ready::sizes(&host, &guests, "js")?);
    }

    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if std::env::args().any(|argument| argument == "--json") {
        println!("{}", measure::json(&figures, &sizes, cores));
        return Ok(ExitCode::SUCCESS);
    }
    println!("{}", measure::table(&figures));
    for size in &sizes {
        println!("{} takes up {} KiB, of {} at once.", size.name, size.bytes >> 10, size.many);
    }
    println!(
        "Echo of 100 bytes, where nothing else is said, on a warm extension; {cores} cores; medians of batches taken in turn."
    );
    Ok(ExitCode::SUCCESS)
}

/// A list of one argument: 100 bytes.
fn echo_arguments() -> Bytes {
    [&[0x91, 0xc4, 100][..], &[7; 100]].concat().into()
}

/// A call to a guest that runs on its caller's thread, so that its future is ready at once; but for
/// the rare one in which WebAssembly makes way for other work.
fn call(host: &Dispatcher, extension: &str, payload: &Bytes) {
    let mut call = pin!(host.call(extension, "echo", payload.clone(), CallOptions::default()));
    let reply = call.as_mut().now_or_never().unwrap_or_else(|| quadriga::block_on(call));
    assert!(reply.is_ok_and(|reply| reply.len() == payload.len() - 1), "{extension} does not echo");
}

fn call_and_wait(host: &Dispatcher, extension: &str, payload: &Bytes) {
    let reply = quadriga::block_on(host.call(extension, "echo", payload.clone(), CallOptions::default()));
    assert!(reply.is_ok_and(|reply| reply.len() == payload.len() - 1), "{extension} does not echo");
}

fn call_many(host: &Dispatcher, extension: &str, payload: &Bytes) {
    let calls = (0..IN_FLIGHT).map(|_| host.call(extension, "echo", payload.clone(), CallOptions::default()));
    let replies = quadriga::block_on(futures_util::future::join_all(calls));
    assert!(replies.iter().all(Result::is_ok), "{extension} does not echo");
}
