//! The cases, wherever the guests run.

use std::time::Duration;

use quadriga::abi::{ErrorCode, Value};
use quadriga::{CallOptions, Dispatcher};
use quadriga_conformance::{Case, Table};

use super::super::streams::idle;
use super::super::subject::{Subject, host, text};
use super::super::values::{after, assert_bytes};
use super::Place;

/// What is called small here: the rest takes its time in a debug build.
const SMALL: usize = 1000;

pub(super) async fn values_come_back_through_every_pair(place: Place) {
    through_every_pair(place, |case| case.bytes.0.len() < SMALL).await;
}

pub(super) async fn slow_longer_values_come_back_through_every_pair(place: Place) {
    through_every_pair(place, |case| case.bytes.0.len() >= SMALL && !case.big).await;
}

/// A host with one of the guests in every runtime.
async fn all(case: &str, place: Place) -> (Dispatcher, Vec<Subject>) {
    let (host, mut subjects) = (host(), super::super::subjects());
    for (n, subject) in subjects.iter_mut().enumerate() {
        subject.isolation = place(subject, n);
    }
    for subject in &subjects {
        subject.load(&host, case).await;
    }
    (host, subjects)
}

/// The host gives a value to one guest, which passes it to another, which returns it.
async fn through_every_pair(place: Place, wanted: impl Fn(&Case) -> bool) {
    let (host, subjects) = all("conformance", place).await;
    let table = Table::read().unwrap();
    for first in &subjects {
        for second in &subjects {
            for case in table.value.iter().filter(|case| wanted(case)) {
                let name = format!("{} through {} and {}", case.name, first.name, second.name);
                let arguments: [&[u8]; 3] = [&text(&second.id()), &text("echo"), &case.bytes.0];
                let back = first.call(&host, "relay", &arguments).await;
                if [first, second].iter().any(|subject| case.no_place.of(subject.language).is_some()) {
                    assert_eq!(back.expect_err(&name).code, ErrorCode::InvalidArguments, "{name}");
                    continue;
                }
                // What the first language cannot tell apart, the second never sees.
                let lost =
                    [first, second].into_iter().find(|subject| case.lossy.of(subject.language).is_some());
                let expected = lost.map_or(&case.bytes, |subject| after(case, subject.language));
                assert_bytes(&name, &back.expect(&name), expected);
            }
        }
    }
}

pub(super) async fn slow_streams_flow_through_every_pair(place: Place) {
    let (host, subjects) = all("flow", place).await;
    for from in &subjects {
        for to in &subjects {
            let case = format!("{} and {}", from.name, to.name);
            let (id, other) = (from.guest("flow"), to.guest("flow"));
            let total: u64 = host.invoke(&id, "total", &(&other, 1000)).await.expect(&case);
            assert_eq!(total, 499_500, "{case}");
            let first: Vec<u64> = host.invoke(&id, "first", &(&other, 5)).await.expect(&case);
            assert_eq!(first, [0, 1, 2, 3, 4], "{case}");
            let sent: u64 = host.invoke(&id, "send", &(&other, 1000)).await.expect(&case);
            assert_eq!(sent, 499_500, "{case}");
            let heard: u64 = host.invoke(&id, "send_endless", &(&other, 4)).await.expect(&case);
            assert_eq!(heard, 6, "{case}");
            let whole: Vec<u64> = host.invoke(&id, "whole", &(&other, 5)).await.expect(&case);
            assert_eq!(whole, [0, 1, 2, 3, 4], "{case}");
            let error = host.invoke::<u64>(&id, "read_broken", &(&other, 5)).await.expect_err(&case);
            let origin = error.chain().last().unwrap();
            assert!(origin.message.contains("the source ran dry"), "{case}: {error:?}");
            assert_eq!(origin.extension.as_deref(), Some(other.as_str()), "{case}: {error:?}");
            idle(&host, &other).await;
        }
    }
}

pub(super) async fn errors_keep_code_and_chain_through_every_pair(place: Place) {
    let (host, subjects) = all("relay", place).await;
    for from in &subjects {
        for to in &subjects {
            let (id, other) = (from.guest("relay"), to.guest("relay"));
            let arguments = (&other, "fail", ["too bad"]);
            let error = host.invoke::<Value>(&id, "relay", &arguments).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::ExtensionError, "{id} calls {other}: {error:?}");
            assert_eq!(error.extension.as_deref(), Some(id.as_str()), "{error:?}");
            let cause = error.chain().last().unwrap();
            assert_eq!(cause.extension.as_deref(), Some(other.as_str()), "{id} calls {other}: {error:?}");
            assert!(cause.message.contains("too bad"), "{id} calls {other}: {error:?}");
        }
    }
}

pub(super) async fn a_deadline_bounds_both_of_every_pair(place: Place) {
    let (host, subjects) = all("relay", place).await;
    for from in &subjects {
        // What can't be interrupted does not spin here.
        for to in subjects.iter().filter(|subject| subject.interruptible) {
            let (id, other) = (from.guest("relay"), to.guest("relay"));
            let arguments = rmp_serde::to_vec(&(&other, "spin", [(); 0])).unwrap();
            let options = CallOptions::default().timeout(Duration::from_millis(50));
            let error = host.call(&id, "relay", arguments, options).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{id} calls {other}: {error:?}");
        }
    }
    for from in &subjects {
        for to in &subjects {
            let arguments = (to.guest("relay"), "greet", ["Ada"]);
            let reply: String = host.invoke(&from.guest("relay"), "relay", &arguments).await.unwrap();
            assert_eq!(reply, format!("Hello, Ada, from {}", to.name), "{} calls {}", from.name, to.name);
        }
    }
}
