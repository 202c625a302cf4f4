//! Round trips through every ordered pair of runtimes.

use quadriga::abi::ErrorCode;
use quadriga_conformance::{Case, Table};

use super::subject::{host, text};
use super::values::{after, assert_bytes};

/// What is called small here: the rest takes its time in a debug build.
const SMALL: usize = 1000;

#[tokio::test(flavor = "multi_thread")]
async fn values_come_back_through_every_pair() {
    through_every_pair(|case| case.bytes.0.len() < SMALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_longer_values_come_back_through_every_pair() {
    through_every_pair(|case| case.bytes.0.len() >= SMALL && !case.big).await;
}

/// The host gives a value to one guest, which passes it to another, which returns it.
async fn through_every_pair(wanted: impl Fn(&Case) -> bool) {
    let (host, subjects) = (host(), super::subjects());
    for subject in &subjects {
        subject.load(&host).await;
    }
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
