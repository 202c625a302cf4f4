//! For each limit: a value that bites, one that does not, and how one sees that it bites.

use std::fs;
use std::time::{Duration, Instant};

use quadriga::abi::limits::Limit;
use quadriga::abi::{Bytes, ErrorCode};
use quadriga::{CallOptions, abi::codec};

use super::{NONE, PATIENCE, Place};

pub(super) struct Case {
    /// As a line of a manifest.
    pub(super) tight: String,
    pub(super) sight: Sight,
}

/// How one sees that a limit bites.
pub(super) enum Sight {
    /// This call fails with this code.
    Fails(&'static str, Bytes, ErrorCode),
    /// Not: see [`untried`].
    Untried,
    /// The method says that it was denied.
    Denied(&'static str, Bytes),
    /// A call on behalf of another extension fails with this code.
    FailsBelow(ErrorCode),
    /// A call that spins gets so many milliseconds of processor time in a second.
    Share(u64),
    /// More than so many bytes of what it prints are dropped.
    Drops(u64),
}

/// A value that is far away.
pub(super) fn wide(limit: Limit) -> String {
    let value = match limit {
        Limit::Memory => "'2GiB'",
        Limit::CpuShare => "8.0",
        Limit::CpuTime | Limit::CallTimeout | Limit::LoadTimeout => "'1min'",
        Limit::OpenFiles => "900",
        Limit::Processes => "500",
        Limit::Disk | Limit::OutputRate | Limit::MessageSize => "'64MiB'",
        Limit::QueueDepth | Limit::CallDepth => "50",
    };
    format!("{} = {value}", limit.name())
}

/// Why a language has no way to try a limit.
fn untried(language: &str, limit: Limit) -> Option<&'static str> {
    match (language, limit) {
        ("js", Limit::OpenFiles | Limit::Disk) => Some("a script has no files"),
        ("js", Limit::Processes) => Some("a script starts neither threads nor processes"),
        ("wasm", Limit::Processes) => Some("a component starts neither threads nor processes"),
        ("wasm", Limit::Disk) => Some("a component has the folders that were granted, and no scratch folder"),
        _ => None,
    }
}

pub(super) fn case(limit: Limit, place: &Place) -> Case {
    let one = |n: u32| Bytes::from(codec::arguments(&(n,)).unwrap());
    if untried(place.language, limit).is_some() {
        return Case { tight: wide(limit), sight: Sight::Untried };
    }
    let (value, sight) = match limit {
        Limit::Memory => ("'64MiB'", Sight::Fails("grow_heap", one(512), ErrorCode::MemoryLimit)),
        Limit::CpuShare => ("0.2", Sight::Share(500)),
        Limit::CpuTime => ("'150ms'", Sight::Fails("spin", NONE, ErrorCode::CpuLimit)),
        Limit::CallTimeout => ("'150ms'", Sight::Fails("spin", NONE, ErrorCode::DeadlineExceeded)),
        Limit::LoadTimeout => ("'1us'", Sight::Fails("", NONE, ErrorCode::DeadlineExceeded)),
        Limit::OpenFiles => {
            let arguments = codec::arguments(&(place.some_file(), 200)).unwrap();
            ("64", Sight::Denied("open_files", arguments.into()))
        }
        Limit::Processes => ("24", Sight::Denied("threads", one(200))),
        Limit::Disk => {
            let arguments = codec::arguments(&(".", 16)).unwrap();
            ("'4MiB'", Sight::Denied("fill_disk", arguments.into()))
        }
        Limit::OutputRate => ("'64KiB'", Sight::Drops(3 << 20)),
        Limit::MessageSize => {
            let arguments = codec::arguments(&("x".repeat(2000),)).unwrap();
            ("'1KiB'", Sight::Fails("ping", arguments.into(), ErrorCode::MessageTooLarge))
        }
        Limit::QueueDepth => ("0", Sight::Fails("ping", NONE, ErrorCode::Overloaded)),
        Limit::CallDepth => ("0", Sight::FailsBelow(ErrorCode::CallDepthExceeded)),
    };
    Case { tight: format!("{} = {value}", limit.name()), sight }
}

/// A line of a manifest as limits are written elsewhere.
pub(super) fn json(line: &str) -> serde_json::Value {
    let (name, value) = line.split_once(" = ").unwrap();
    let value = match value.strip_prefix('\'').and_then(|text| text.strip_suffix('\'')) {
        Some(text) => text.into(),
        None => serde_json::from_str(value).unwrap(),
    };
    serde_json::Value::Object([(name.to_owned(), value)].into_iter().collect())
}

impl Sight {
    pub(super) async fn check(self, place: &Place, what: &str) {
        match self {
            Self::Fails(method, arguments, code) => {
                let error = place.call(method, arguments, PATIENCE).await.unwrap_err();
                assert_eq!(error.code, code, "{what}: {error:?}");
            }
            Self::FailsBelow(code) => {
                let arguments = codec::arguments(&(&place.id, "ping")).unwrap();
                let error = place
                    .host
                    .call("test.beside", "ask", arguments, CallOptions::default())
                    .await
                    .unwrap_err();
                assert_eq!(error.code, code, "{what}: {error:?}");
            }
            Self::Untried => {}
            Self::Denied(method, arguments) => {
                let reply = place.call(method, arguments, PATIENCE).await;
                let said: String = codec::from_bytes(&reply.unwrap()).unwrap();
                assert!(said.starts_with("denied"), "{what}: {said}");
            }
            Self::Drops(least) => {
                let arguments = codec::arguments(&(4,)).unwrap();
                place.call("flood_output", arguments.into(), PATIENCE).await.unwrap();
                let until = Instant::now() + PATIENCE;
                let dropped = || place.host.activity(&place.id).unwrap().output_dropped;
                while dropped() < least {
                    assert!(Instant::now() < until, "{what}: {} bytes were dropped", dropped());
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            }
            Self::Share(most) => {
                let pid = place.host.status(&place.id).unwrap().usage.process.unwrap();
                let before = processor_time(pid);
                let error = place.call("spin", NONE, Duration::from_secs(1)).await.unwrap_err();
                assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{what}: {error:?}");
                let used = processor_time(pid) - before;
                assert!(used < Duration::from_millis(most), "{what}: {used:?}");
            }
        }
    }
}

/// What a process has used, as the system counts it: in hundredths of a second.
fn processor_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
    Duration::from_millis(fields.map(|ticks| ticks.parse::<u64>().unwrap() * 10).sum())
}
