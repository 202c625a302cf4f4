//! Each row of the value table: what arrives is the language's own, what leaves is canonical.

use std::time::{Duration, Instant};

use quadriga::Dispatcher;
use quadriga::abi::{self, Error, ErrorCode};
use quadriga_conformance::{Bytes, Case, Language, Table};

use super::subject::{Subject, text};

const YES: &[u8] = &[0xc3];

/// How long a value of the largest size may take, in a debug build on a busy machine: what takes
/// quadratic time takes hours.
const PATIENCE: Duration = Duration::from_secs(60);

fn small(table: &Table) -> impl Iterator<Item = &Case> {
    table.value.iter().filter(|case| !case.big)
}

/// What a value has become after it was in a language.
pub(super) fn after(case: &Case, language: Language) -> &Bytes {
    case.lossy.of(language).unwrap_or(&case.bytes)
}

#[track_caller]
fn assert_error(name: &str, result: Result<impl AsRef<[u8]>, Error>, code: ErrorCode, says: &str) {
    let error = match result {
        Ok(reply) => panic!("{name} came through as {:x?}", start(reply.as_ref())),
        Err(error) => error,
    };
    assert_eq!(error.code, code, "{name}: {error:?}");
    assert!(error.message.contains(says), "{name}: {says:?} is not in {error:?}");
}

/// A failure of bytes that are too many to show.
#[track_caller]
pub(super) fn assert_bytes(name: &str, found: &[u8], expected: &Bytes) {
    assert!(found == expected.0, "{name}: {:x?} is not {:x?}", start(found), start(&expected.0));
}

fn start(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.len().min(48)]
}

/// What arrives equals the literal in value and in type, or is refused for the reason given.
pub(super) async fn are_read(subject: &Subject) {
    let host = subject.alone().await;
    for case in small(&Table::read().unwrap()) {
        if let Some(why) = case.no_place.of(subject.language) {
            let refused = subject.call(&host, "echo", &[&case.bytes.0]).await;
            assert_error(&case.name, refused, ErrorCode::InvalidArguments, why);
            continue;
        }
        let matches = subject.call(&host, "matches", &[&text(&case.name), &case.bytes.0]).await;
        assert_eq!(&matches.expect(&case.name)[..], YES, "{} is not the literal", case.name);
    }
}

/// And no other literal: a guest that finds everything equal would pass the above.
pub(super) async fn are_read_from_other_forms(subject: &Subject) {
    let host = subject.alone().await;
    let table = Table::read().unwrap();
    for case in small(&table).filter(|case| case.no_place.of(subject.language).is_none()) {
        for form in &case.also {
            let matches = subject.call(&host, "matches", &[&text(&case.name), &form.0]).await;
            assert_eq!(&matches.expect(&case.name)[..], YES, "{} of {form:x?}", case.name);
            let back = subject.call(&host, "echo", &[&form.0]).await.expect(&case.name);
            assert_bytes(&case.name, &back, after(case, subject.language));
        }
    }
    for pair in small(&table)
        .filter(|case| case.no_place.of(subject.language).is_none())
        .collect::<Vec<_>>()
        .windows(2)
    {
        let (name, other) = (&pair[0].name, &pair[1]);
        if after(pair[0], subject.language) == after(other, subject.language) {
            continue;
        }
        let matches = subject.call(&host, "matches", &[&text(name), &other.bytes.0]).await;
        // Rust also says no by not reading the one as the other's type.
        assert!(!matches!(&matches, Ok(reply) if &reply[..] == YES), "{name} is {}", other.name);
    }
}

/// The literal leaves as the canonical bytes, as a result and as an argument.
pub(super) async fn are_written(subject: &Subject) {
    let host = subject.alone().await;
    for case in small(&Table::read().unwrap()).filter(|case| case.literal(subject.language).is_some()) {
        let made = subject.call(&host, "make", &[&text(&case.name)]).await.expect(&case.name);
        assert_bytes(&case.name, &made, after(case, subject.language));
        let sent = send(subject, &host, &case.name).await.expect(&case.name);
        assert_bytes(&case.name, &sent, after(case, subject.language));
    }
}

/// The guest calls itself with the literal.
async fn send(subject: &Subject, host: &Dispatcher, name: &str) -> Result<abi::Bytes, Error> {
    subject.call(host, "send", &[&text(&subject.id()), &text("echo"), &text(name)]).await
}

/// In and out again.
pub(super) async fn come_back(subject: &Subject) {
    let host = subject.alone().await;
    for case in small(&Table::read().unwrap()).filter(|case| case.no_place.of(subject.language).is_none()) {
        let back = subject.call(&host, "echo", &[&case.bytes.0]).await.expect(&case.name);
        assert_bytes(&case.name, &back, after(case, subject.language));
    }
}

/// What nothing becomes, but has a place.
pub(super) async fn are_also_taken(subject: &Subject) {
    let host = subject.alone().await;
    for case in Table::read().unwrap().taken.iter().filter(|case| case.literal(subject.language).is_some()) {
        let made = subject.call(&host, "make", &[&text(&case.name)]).await.expect(&case.name);
        assert_bytes(&case.name, &made, &case.bytes);
    }
}

/// As a result, and as an argument for another extension.
pub(super) async fn are_refused(subject: &Subject) {
    let host = subject.alone().await;
    for case in Table::read().unwrap().refused.iter().filter(|case| case.literal(subject.language).is_some())
    {
        let made = subject.call(&host, "make", &[&text(&case.name)]).await;
        assert_error(&case.name, made, ErrorCode::InvalidValue, &case.says);
        let sent = send(subject, &host, &case.name).await;
        assert_error(&case.name, sent, ErrorCode::InvalidValue, &case.says);
        // The guest lives on.
        let back = subject.call(&host, "echo", &[YES]).await.expect(&case.name);
        assert_eq!(&back[..], YES);
    }
}

pub(super) async fn of_malformed_bytes_are_refused(subject: &Subject) {
    let host = subject.alone().await;
    for case in Table::read().unwrap().malformed {
        let back = subject.call(&host, "echo", &[&case.bytes.0]).await;
        // Two values are two arguments, as far as the list goes.
        assert_error(&case.name, back, ErrorCode::InvalidArguments, "");
        let back = subject.call(&host, "echo", &[YES]).await.expect(&case.name);
        assert_eq!(&back[..], YES);
    }
}

/// Bytes of 64 MiB and lists of a million: in no more than linear time.
pub(super) async fn slow_big_ones_come_back(subject: &Subject) {
    let host = subject.alone().await;
    for case in Table::read().unwrap().value.iter().filter(|case| case.big) {
        let started = Instant::now();
        let back = subject.call(&host, "echo", &[&case.bytes.0]).await.expect(&case.name);
        assert_bytes(&case.name, &back, &case.bytes);
        let made = subject.call(&host, "make", &[&text(&case.name)]).await.expect(&case.name);
        assert_bytes(&case.name, &made, &case.bytes);
        let matches = subject.call(&host, "matches", &[&text(&case.name), &case.bytes.0]).await;
        assert_eq!(&matches.expect(&case.name)[..], YES, "{} is not the literal", case.name);
        assert!(started.elapsed() < PATIENCE, "{} took {:?}", case.name, started.elapsed());
    }
}
