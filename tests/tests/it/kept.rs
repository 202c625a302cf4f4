//! What extensions keep in a home, by command.

use std::fs;
use std::time::Duration;

use quadriga_tests::{guest, with};
use serde_json::{Value as Json, json};

use crate::manage::Place;
use crate::run::Running;

const CLOCK: &str = "\
import { host } from 'quadriga';
export const beat = async ({ due, missed }) => { await host.kv.put(`missed/${due}`, missed); };
export const worst = async () => {
  const keys = await host.kv.list('missed/');
  return Math.max(0, ...await Promise.all(keys.map((key) => host.kv.get(key))));
};
";

fn installed(place: &Place, folder: &std::path::Path) {
    let built = place.json(&["pack", folder.to_str().unwrap()]);
    let package = built["package"].as_str().unwrap();
    place.json(&["install", package, "--enable", "--grant", "requested"]);
    // It is packed and installed again later.
    fs::remove_file(place.0.path().join(package)).unwrap();
}

/// Has an extension do something.
fn call(place: &Place, id: &str, method: &str, arguments: Json) -> Json {
    place.json(&["call", id, method, &arguments.to_string()])["result"].clone()
}

/// What an extension keeps outlasts hosts, however they end, and is in backups.
fn keeps(language: &str) {
    let place = Place::new();
    let id = &*format!("services.{language}");
    let folder = with(&guest("services", language), "[permissions]\nkv = true");
    installed(&place, folder.path());
    let (put, get) = (
        |value: i64| call(&place, id, "put", json!(["k", value])),
        |place: &Place| call(place, id, "get", json!(["k"])),
    );
    put(1);
    assert_eq!(get(&place), 1, "without a host");
    let mut running = Running::start(&place);
    assert_eq!(get(&place), 1);
    put(2);
    running.signal("-KILL");
    running.child.wait().unwrap();
    assert_eq!(get(&place), 2);
    let running = Running::start(&place);
    let made = place.json(&["backup", "backups"]);
    assert!(made["files"]["data.sqlite"]["size"].as_u64().unwrap() > 0);
    put(3);
    place.json(&["reload", id]);
    assert_eq!(get(&place), 3);
    place.json(&["uninstall", id, "--keep-data"]);
    installed(&place, folder.path());
    assert_eq!(get(&place), 3);
    place.json(&["uninstall", id]);
    installed(&place, folder.path());
    assert_eq!(get(&place), Json::Null);
    assert_eq!(running.end("-TERM"), Some(0));
    fs::remove_dir_all(place.home()).unwrap();
    place.json(&["restore", made["path"].as_str().unwrap()]);
    assert_eq!(get(&place), 2);
}

#[test]
fn what_is_kept_outlasts_the_host() {
    keeps("js");
}

#[test]
fn slow_what_every_other_language_keeps_outlasts_the_host() {
    ["python", "wasm", "native"].into_iter().for_each(keeps);
}

#[test]
fn slow_the_next_host_knows_what_was_missed() {
    let place = Place::new();
    let folder = place.0.path().join("clock");
    fs::create_dir(&folder).unwrap();
    let manifest = "[extension]\nid = 'test.clock'\nversion = '1.0.0'\n[runtime]\nkind = 'javascript'\n\
                    entry = 'main.js'\n[permissions]\nkv = true\n\
                    [schedule.beat]\nmethod = 'beat'\nevery = '1s'\nmissed = 'once'\n\
                    [schedule.seldom]\nmethod = 'worst'\nevery = '1h'\n";
    fs::write(folder.join("quadriga.toml"), manifest).unwrap();
    fs::write(folder.join("main.js"), CLOCK).unwrap();
    installed(&place, &folder);
    let jobs = || {
        let all = place.json(&["jobs"]);
        let job = |name: &str| all.as_array().unwrap().iter().find(|it| it["name"] == name).unwrap().clone();
        (job("beat"), job("seldom"))
    };
    let until = |so: &dyn Fn() -> bool| {
        let begun = std::time::Instant::now();
        while !so() {
            assert!(begun.elapsed().as_secs() < 60, "{:?}", jobs());
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    let mut running = Running::start(&place);
    until(&|| jobs().0["runs"].as_u64() > Some(0));
    let due = jobs().1["next"].clone();
    running.signal("-KILL");
    running.child.wait().unwrap();
    assert_eq!(call(&place, "test.clock", "worst", json!([])), 0);
    std::thread::sleep(Duration::from_millis(3500));
    let running = Running::start(&place);
    until(&|| call(&place, "test.clock", "worst", json!([])).as_u64() >= Some(2));
    // What is seldom due is due when it was.
    assert_eq!(jobs().1["next"], due);
    assert_eq!(running.end("-TERM"), Some(0));
}
