//! The patterns, wherever the guests run.

use std::fs;

use quadriga::{Dispatcher, LoadOptions};

use quadriga::abi::{ErrorCode, Value};
use quadriga_tests::{granted, guest, host, repository};

use super::Place;

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// How often each pattern is repeated: a race shows in one of so many, or it is not there.
const ROUNDS: usize = 200;

fn relay(language: &str) -> String {
    format!("relay.{language}")
}

async fn relays(place: Place) -> Dispatcher {
    let host = host();
    for language in LANGUAGES {
        load(&host, language, place).await;
    }
    host
}

async fn load(host: &Dispatcher, language: &str, place: Place) {
    let isolation = place(language);
    let options = LoadOptions { isolation, ..granted() };
    host.load(guest("relay", language), options).await.expect(language);
    let reached = host.status(&relay(language)).unwrap().isolation;
    assert!(isolation.is_none_or(|wanted| wanted == reached), "{language} runs {reached}");
}

/// `from` calls `to`, which greets.
async fn greet(host: &Dispatcher, from: &str, to: &str) {
    let arguments = (relay(to), "greet", ["Ada"]);
    let reply: String = host.invoke(&relay(from), "relay", &arguments).await.unwrap();
    assert_eq!(reply, format!("Hello, Ada, from {to}"), "{from} calls {to}");
}

/// Calls along a path of languages; every one on it must have been there, in order.
async fn walk(host: &Dispatcher, path: &[&str]) {
    let ids: Vec<String> = path[1..].iter().map(|language| relay(language)).collect();
    let visited: Vec<String> = host.invoke(&relay(path[0]), "chain", &(ids,)).await.unwrap();
    assert_eq!(visited, path);
}

/// The path of eight that starts with a language and takes them in turn, twice round.
fn twice_round(first: usize) -> Vec<&'static str> {
    (0..8).map(|step| LANGUAGES[(first + step) % 4]).collect()
}

pub(super) async fn sixteen_directions(place: Place) {
    let host = relays(place).await;
    for _ in 0..ROUNDS {
        for from in LANGUAGES {
            for to in LANGUAGES {
                greet(&host, from, to).await;
            }
        }
    }
}

pub(super) async fn sixteen_directions_at_once(place: Place) {
    let host = relays(place).await;
    for _ in 0..ROUNDS {
        let mut calls = tokio::task::JoinSet::new();
        for from in LANGUAGES {
            for to in LANGUAGES {
                let host = host.clone();
                calls.spawn(async move { greet(&host, from, to).await });
            }
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    }
}

pub(super) async fn slow_chains_of_depth_eight(place: Place) {
    let host = relays(place).await;
    for _ in 0..ROUNDS {
        for first in 0..4 {
            walk(&host, &twice_round(first)).await;
        }
    }
}

pub(super) async fn slow_chains_of_depth_eight_at_once(place: Place) {
    let host = relays(place).await;
    for _ in 0..ROUNDS {
        let mut calls = tokio::task::JoinSet::new();
        for first in 0..8 {
            let host = host.clone();
            calls.spawn(async move { walk(&host, &twice_round(first)).await });
        }
        while let Some(done) = calls.join_next().await {
            done.unwrap();
        }
    }
}

pub(super) async fn a_language_calls_itself_again_and_again(place: Place) {
    let host = relays(place).await;
    for language in LANGUAGES {
        walk(&host, &[language; 8]).await;
    }
}

pub(super) async fn an_exception_below_two_calls_shows_three_stacks(place: Place) {
    let host = relays(place).await;
    let inner = (relay("python"), "fail", ["too bad"]);
    let outer = (relay("wasm"), "relay", inner);
    let error = host.invoke::<Value>(&relay("js"), "relay", &outer).await.unwrap_err();
    let line = |file: &str, code: &str| {
        let source = fs::read_to_string(repository().join("tests/guests/relay").join(file)).unwrap();
        1 + source.lines().position(|line| line.trim_start().starts_with(code)).expect(code)
    };
    let stacks = [
        ("js", "relay", format!("main.ts:{}:", line("js/main.ts", "return await host.call(extension"))),
        ("wasm", "", format!("rust/src/lib.rs:{}:", line("rust/src/lib.rs", "host::call(extension"))),
        ("python", "in fail", format!("\"main.py\", line {}", line("python/main.py", "raise Exception"))),
    ];
    let chain: Vec<_> = error.chain().collect();
    assert_eq!(chain.len(), stacks.len(), "{error:#?}");
    for (error, (language, function, place)) in chain.into_iter().zip(stacks) {
        assert_eq!(error.extension.as_deref(), Some(relay(language).as_str()), "{error:#?}");
        let stack = error.stack.as_deref().expect(language);
        assert!(stack.contains(&place) && stack.contains(function), "{place} is not in {stack}");
    }
}

pub(super) async fn unload_and_load_again_while_others_call(place: Place) {
    let host = relays(place).await;
    for language in LANGUAGES {
        host.unload(&relay(language)).await.unwrap();
        for other in LANGUAGES.iter().filter(|other| **other != language) {
            let arguments = (relay(language), "greet", ["Ada"]);
            let error = host.invoke::<Value>(&relay(other), "relay", &arguments).await.unwrap_err();
            assert_eq!(error.code, ErrorCode::UnknownExtension, "{other} calls {language}: {error:?}");
        }
        load(&host, language, place).await;
        greet(&host, "js", language).await;
    }
}
