//! Events that must arrive, through the end of a host, and what an operator does about those that do not.

use std::time::{Duration, Instant};

use quadriga_tests::guest;
use serde_json::{Value as Json, json};

use crate::manage::Place;
use crate::run::{Running, ask};

const LANGUAGES: [&str; 4] = ["js", "python", "wasm", "native"];

/// Fails at the first `data` attempts.
const KEEPS: &str = "[permissions]\nemit = ['t.*']\nsubscribe = ['t.*']
[events.'t.kept']\nmethod = 'keep'\ndelivery = 'at-least-once'\nattempts = 2\nfirst-delay = '1s'";

fn call(place: &Place, id: &str, method: &str, arguments: Json) -> Json {
    let request = json!({ "v": 1, "request": "call", "id": id, "method": method, "arguments": arguments });
    let answer = ask(place, &request);
    assert!(answer["error"].is_null(), "{id}/{method}: {answer}");
    answer["answer"].clone()
}

/// Asks until the answer will do.
fn until(ask: impl Fn() -> Json, will_do: impl Fn(&Json) -> bool) -> Json {
    let begun = Instant::now();
    loop {
        let answer = ask();
        if will_do(&answer) {
            return answer;
        }
        assert!(begun.elapsed().as_secs() < 60, "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn count(json: &Json) -> usize {
    json.as_array().map_or(0, Vec::len)
}

#[test]
fn what_a_killed_host_had_kept_the_next_one_delivers_or_an_operator_sees() {
    let place = Place::new();
    let packages = LANGUAGES.map(|language| place.packed(&guest("services", language), KEEPS));
    for package in &packages {
        place.json(&["install", package, "--enable", "--grant", "requested"]);
    }
    let running = Running::start(&place);
    // All of them fail at it at first; before they can take it their host is gone.
    let emitted = call(&place, "services.js", "tell", json!(["t.kept", 1]));
    assert_eq!(emitted, json!({ "queued": 4, "dropped": 0 }));
    drop(running);
    let running = Running::start(&place);
    for language in LANGUAGES {
        let id = format!("services.{language}");
        let heard = until(|| call(&place, &id, "heard", json!([])), |heard| count(heard) == 1);
        assert_eq!(heard[0][2], 2, "{heard}");
    }
    // What they never take is there for an operator.
    call(&place, "services.wasm", "tell", json!(["t.kept", 9]));
    let list = ["dead-letters", "list"];
    let letters = until(|| place.json(&list), |letters| count(letters) == 4);
    let (id, letter) = (letters[0]["extension"].as_str().unwrap(), letters[0]["id"].as_str().unwrap());
    assert_eq!((&letters[0]["data"], &letters[0]["source"]), (&json!(9), &json!("services.wasm")));
    assert_eq!(place.json(&["dead-letters", "list", id]), json!([letters[0]]));
    let (_, shown, _) = place.run(&["dead-letters", "show", letter]);
    assert!(shown.contains("no 2") && shown.contains("after 2 attempts"), "{shown}");
    assert!(place.run(&list).1.contains(letter));
    assert_eq!(place.json(&["status", id])["dead_letters"], 1);
    assert!(place.run(&["status"]).1.contains("4 dead letters"));
    let (_, metrics, _) = place.run(&["metrics", "--prometheus"]);
    assert!(metrics.contains(&format!("quadriga_extension_dead_letters{{extension=\"{id}\"")), "{metrics}");
    assert_eq!(place.fails(&["dead-letters", "show", "x"]), "invalid_arguments");
    assert_eq!(place.run(&["dead-letters", "drop"]).0, Some(2));
    // Once more, and it fails as before.
    assert_eq!(count(&place.json(&["dead-letters", "retry", letter])), 1);
    until(|| place.json(&list), |letters| count(letters) == 4);
    assert_eq!(count(&place.json(&["dead-letters", "drop", "--of", id])), 1);
    assert_eq!(running.end("-TERM"), Some(0));
    // Where no host runs, the home itself is asked.
    assert_eq!(count(&place.json(&list)), 3);
    assert_eq!(count(&place.json(&["dead-letters", "drop", "--all"])), 3);
    assert_eq!(place.json(&list), json!([]));
    let trail = place.json(&["audit"]);
    let about = trail.as_array().unwrap().iter().filter(|it| it["action"] == "drop-dead-letters");
    assert_eq!(about.count(), 4);
    place.json(&["audit", "--verify"]);
}
