//! What operators do to a home, by command, while a host runs it.

use std::fs;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use quadriga_tests::{guest, with};
use serde_json::{Value as Json, json};

use crate::cli::command;
use crate::manage::{Place, family};
use crate::run::{Running, ask, socket};

impl Place {
    /// Packs a guest with lines more at the end of its manifest.
    pub(crate) fn packed(&self, guest: &Path, more: &str) -> String {
        let folder = with(guest, more);
        self.json(&["pack", folder.path().to_str().unwrap()])["package"].as_str().unwrap().to_owned()
    }

    /// Begins a command and does not wait for it.
    fn begin(&self, args: &[&str]) -> Child {
        let mut command = command();
        command.current_dir(self.0.path()).env("QUADRIGA_HOME", self.home()).args(args).arg("--json");
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// What is on record, beside what the host decided: who did what.
    fn done(&self) -> Vec<(String, String)> {
        let text = |entry: &Json, key: &str| entry[key].as_str().unwrap().to_owned();
        let trail = self.json(&["audit"]);
        let entries = trail.as_array().unwrap().iter().filter(|entry| entry["actor"] != "host");
        entries.map(|entry| (text(entry, "actor"), text(entry, "action"))).collect()
    }
}

/// The version of an extension that runs.
fn runs(place: &Place, id: &str) -> Option<String> {
    let status = place.json(&["status"]);
    let all = status["extensions"].as_array().unwrap();
    all.iter().find(|it| it["id"] == id).map(|it| it["version"].as_str().unwrap().to_owned())
}

/// The user that the tests run as.
fn me() -> String {
    let output = Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// Everything that can be done to one extension.
fn manage(language: &str) {
    let place = Place::new();
    let id = &*format!("hello.{language}");
    let [one, two] = ["0.1.0", "0.2.0"].map(|version| place.package(language, version));
    let running = Running::start(&place);
    let call = ["call", id, "greet", "\"Ada\""];
    let greets = || {
        let called = place.json(&call);
        assert!(called["result"].as_str().unwrap().starts_with("Hello, Ada"), "{called}");
        let keys: Vec<&String> = called.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["result", "extension", "runtime", "isolation", "ms"]);
    };
    let installed = place.json(&["install", &one, "--grant", "requested"]);
    assert_eq!(installed["came"][0]["installed"]["state"], "disabled");
    assert_eq!((place.fails(&call).as_str(), runs(&place, id)), ("failed", None));
    assert_eq!(place.fails(&["install", &two]), "already_installed");
    // It can be called as soon as the command is done.
    place.json(&["enable", id]);
    assert_eq!(runs(&place, id).as_deref(), Some("0.1.0"));
    greets();
    greets();
    assert_eq!(place.json(&["metrics", id])[0]["methods"]["greet"]["calls"], 2);
    // Others call it all the time.
    let over = AtomicBool::new(false);
    let answers = std::thread::scope(|scope| {
        let caller = || {
            let request =
                json!({ "v": 1, "request": "call", "id": id, "method": "greet", "arguments": "Ada" });
            let mut answers = Vec::new();
            while !over.load(Relaxed) {
                answers.push(ask(&place, &request));
            }
            answers
        };
        let callers = [scope.spawn(caller), scope.spawn(caller)];
        assert_eq!(place.json(&["update", &two, "--dry-run"])["dry-run"], true);
        assert_eq!(runs(&place, id).as_deref(), Some("0.1.0"));
        for (command, version) in [(["update", &two], "0.2.0"), (["rollback", id], "0.1.0")] {
            place.json(&command);
            assert_eq!(runs(&place, id).as_deref(), Some(version));
            assert_eq!(place.json(&["show", id])["current"]["version"], version);
        }
        over.store(true, Relaxed);
        callers.map(|caller| caller.join().unwrap()).concat()
    });
    let lost: Vec<&Json> = answers
        .iter()
        .filter(|it| !it["answer"].as_str().unwrap_or_default().starts_with("Hello, Ada"))
        .collect();
    assert!(lost.is_empty() && answers.len() > 2, "{lost:?}");
    assert_eq!(place.fails(&["update", &one]), "already_installed");
    place.json(&["disable", id]);
    assert_eq!((place.fails(&call).as_str(), runs(&place, id)), ("failed", None));
    place.json(&["enable", id]);
    place.json(&["reload", id]);
    greets();
    // A copy that is made meanwhile is a home of its own.
    let made = place.json(&["backup", "backups"]);
    assert_eq!(made["extensions"], json!({ id: "0.1.0" }));
    place.json(&["restore", made["path"].as_str().unwrap(), "--home", "again"]);
    let again = ["--home", "again"];
    assert!(place.json(&[&call[..], &again].concat())["result"].is_string());
    place.json(&[&["audit", "--verify"][..], &again].concat());
    assert_eq!(place.json(&["uninstall", id])["uninstalled"], json!([id]));
    assert_eq!((place.json(&["list"]), runs(&place, id)), (json!([]), None));
    assert_eq!(fs::read_dir(place.home().join("packages")).unwrap().count(), 0);
    let me = me();
    let expected = ["install", "enable", "update", "rollback", "disable", "enable", "reload", "uninstall"];
    assert_eq!(place.done(), expected.map(|action| (me.clone(), action.to_owned())));
    let audited = place.json(&["audit", "--verify"]);
    place.json(&["audit", "--verify", "--head", audited["head"].as_str().unwrap()]);
    assert_eq!(running.end("-TERM"), Some(0));
    place.json(&["audit", "--verify", "--head", audited["head"].as_str().unwrap()]);
}

#[test]
fn a_home_is_managed_while_it_runs() {
    manage("js");
}

#[test]
fn slow_every_other_language_is_managed_while_it_runs() {
    ["python", "wasm", "native"].into_iter().for_each(manage);
}

#[test]
fn slow_permissions_and_settings_hold_at_once_in_every_language() {
    let place = Place::new();
    let languages = ["js", "python", "wasm", "native"];
    let packages = languages.map(|language| {
        let refuses = "[config.schema.properties]\ncolour = { enum = ['green', 'red'] }";
        place.packed(&guest("relay", language), refuses)
    });
    let running = Running::start(&place);
    let all: Vec<&str> = packages.iter().map(String::as_str).collect();
    place.json(&[&["install", "--enable"], &all[..]].concat());
    for (at, language) in languages.into_iter().enumerate() {
        eprintln!("{language}");
        let (id, other) = (format!("relay.{language}"), format!("relay.{}", languages[(at + 1) % 4]));
        let relayed = json!([other, "greet", ["Ada"]]).to_string();
        let relay = ["call", &*id, "relay", &relayed];
        assert_eq!(place.fails(&relay), "permission_denied");
        let permission = format!("call=[\"{other}/*\"]");
        let held = place.json(&["grant", &id, &permission]);
        assert_eq!(held["grant"]["call"], json!([format!("{other}/*")]));
        assert!(place.json(&relay)["result"].as_str().unwrap().starts_with("Hello, Ada"));
        place.json(&["revoke", &id, &permission]);
        assert_eq!(place.fails(&relay), "permission_denied");
        let says = place.run(&["grant", &id, &permission]).1;
        assert_eq!(says, format!("{id} is granted call \"{other}/*\"\n"));
        // What is set is what it sees from then on.
        let colour = || place.json(&["call", &id, "setting", "\"colour\""])["result"].clone();
        assert_eq!(colour(), "green");
        assert_eq!(place.json(&["config", &id, "--set", "colour=\"red\""]), json!({ "colour": "red" }));
        assert_eq!(colour(), "red");
        assert_eq!(place.fails(&["config", &id, "--set", "colour=\"blue\""]), "invalid_config");
        place.json(&["config", &id, "--unset", "colour"]);
        assert_eq!(colour(), "green");
        // What the host decided is on record, with why.
        let trail = place.json(&["audit"]);
        let decided = |action: &str, reason: &Json| {
            let what = format!("call {other}/greet");
            let fits = |entry: &&Json| {
                (&entry["actor"], &entry["extension"]) == (&json!("host"), &json!(id))
                    && entry["action"] == action
                    && (&entry["detail"]["what"], &entry["detail"]["reason"]) == (&json!(what), reason)
            };
            let times = |entry: &Json| entry["detail"]["times"].as_u64().unwrap_or(1);
            trail.as_array().unwrap().iter().filter(fits).map(times).sum::<u64>()
        };
        assert_eq!(decided("deny", &json!("grant")), 2, "{trail:#}");
        assert_eq!(decided("allow", &json!("granted")), 1, "{trail:#}");
    }
    place.json(&["audit", "--verify"]);
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn an_extension_may_refuse_its_settings() {
    let place = Place::new();
    let refusing = place.packed(&guest("relay", "js"), "method = 'fail'");
    let running = Running::start(&place);
    place.json(&["install", &refusing, "--enable"]);
    let set = ["config", "relay.js", "--set", "colour=\"red\""];
    assert_eq!(place.fails(&set), "config_refused");
    let (code, _, said) = place.run(&set);
    assert!(code == Some(1) && said.contains("relay.js") && said.contains("caused by"), "{said}");
    assert_eq!(place.json(&["call", "relay.js", "setting", "\"colour\""])["result"], "green");
    assert_eq!(place.json(&["show", "relay.js"])["config"], json!({}));
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn those_that_need_each_other_come_and_go_while_it_runs() {
    let place = Place::new();
    let packages = family(&place);
    let running = Running::start(&place);
    let all: Vec<&str> = packages.iter().map(String::as_str).collect();
    let done = place.json(&[&["install", "--enable"], &all[..]].concat());
    assert_eq!(done["enabled"], json!(["acme.disk", "acme.words", "acme.site"]));
    assert_eq!(place.json(&["call", "acme.site", "who"])["result"], "acme.site 1.0.0");
    assert_eq!(place.fails(&["disable", "acme.disk"]), "needed");
    assert!(place.run(&["disable", "acme.disk"]).2.contains("--with-dependents disables them too"));
    assert_eq!(runs(&place, "acme.disk").as_deref(), Some("1.0.0"));
    let off = place.json(&["disable", "acme.disk", "--with-dependents"]);
    assert_eq!(off["disabled"], json!(["acme.site", "acme.disk"]));
    assert_eq!((runs(&place, "acme.site"), runs(&place, "acme.disk")), (None, None));
    place.json(&["enable", "acme.site", "--with-dependencies"]);
    assert_eq!(place.json(&["call", "acme.site", "who"])["result"], "acme.site 1.0.0");
    place.json(&["uninstall", "acme.disk", "--with-dependents"]);
    assert_eq!((runs(&place, "acme.site"), runs(&place, "acme.disk")), (None, None));
    assert_eq!(running.end("-TERM"), Some(0));
}

/// What a command says, apart from what is of its place and time.
fn says(place: &Place, args: &[&str]) -> (Option<i32>, Json, String) {
    let (code, stdout, _) = place.run(&[args, &["--json"]].concat());
    let (_, words, errors) = place.run(args);
    let folder = place.0.path().canonicalize().unwrap();
    let plain = |text: String| text.replace(folder.to_str().unwrap(), "PLACE");
    let mut json: Json = serde_json::from_str(&plain(stdout)).unwrap();
    timeless(&mut json);
    let is_time = |word: &&str| word.starts_with("20") && word.ends_with('Z');
    // What an extension logs is the host's to show.
    let errors = errors.lines().filter(|line| !line.starts_with("hello.js: "));
    let words = plain(words + &errors.collect::<Vec<_>>().join("\n"));
    (code, json, words.split_whitespace().filter(|word| !is_time(word)).collect::<Vec<_>>().join(" "))
}

fn timeless(json: &mut Json) {
    match json {
        Json::Object(fields) => {
            for key in ["installed-at", "added-at", "at", "hash", "head", "ms"] {
                fields.remove(key);
            }
            fields.values_mut().for_each(timeless);
        }
        Json::Array(items) => items.iter_mut().for_each(timeless),
        _ => {}
    }
}

#[test]
fn slow_commands_say_the_same_with_a_host_and_without() {
    let places = [false, true].map(|runs| {
        let place = Place::new();
        let package = place.package("js", "0.1.0");
        place.json(&["keygen", "ours", "--no-password"]);
        place.package("js", "0.2.0");
        fs::write(place.0.path().join("garbage.qx"), "garbage").unwrap();
        place.json(&["install", &package, "--enable"]);
        let running = runs.then(|| Running::start(&place));
        (place, running)
    });
    let commands: &[&[&str]] = &[
        &["list"],
        &["show", "hello.js"],
        &["show", "hello.jss"],
        &["deps"],
        &["trust", "list"],
        &["trust", "policy"],
        &["trust", "policy", "low", "--permissions", "nothing"],
        &["trust", "policy", "low", "--minimum-release-age", "72h", "--permissions", "call,kv"],
        &["trust", "remove", "0123456789ABCDEF"],
        &["trust", "add", "ours.pub", "--publisher", "hello", "--level", "untrusted"],
        &["install", "missing.qx"],
        &["install", "garbage.qx"],
        &["install", "hello.js-0.1.0.qx"],
        &["install", "hello.js-0.2.0.qx", "--key", "ours.pub"],
        &["install", "hello.js-0.2.0.qx", "--digest", &format!("sha256:{}", "0".repeat(64))],
        &["update", "hello.js-0.1.0.qx"],
        &["update", "hello.js-0.2.0.qx", "--dry-run"],
        &["rollback", "hello.js"],
        &["enable", "hello.jss"],
        &["enable", "hello.js"],
        &["uninstall", "hello.js", "--dry-run"],
        &["grant", "hello.js", "env=[\"HOME\"]"],
        &["revoke", "hello.js", "kv=true"],
        &["config", "hello.js"],
        &["config", "hello.js", "--set", "x=1"],
        &["pin", "hello.js", "9.9.9"],
        &["update", "hello.js-0.2.0.qx"],
        &["unpin", "hello.js"],
        &["call", "hello.js", "greet", "\"Ada\""],
        &["call", "hello.js", "greet", "--timeout", "5s"],
        &["call", "hello.js", "none"],
        &["call", "hello.jss", "greet"],
        &["audit", "--verify", "--head", "00ff"],
    ];
    for command in commands {
        let [without, with] = [&places[0].0, &places[1].0].map(|place| says(place, command));
        assert_eq!(without, with, "{command:?}");
    }
    let [without, with] = [&places[0].0, &places[1].0].map(Place::done);
    assert_eq!(without, with);
    for (_, running) in places {
        assert!(running.is_none_or(|running| running.end("-TERM") == Some(0)));
    }
}

#[test]
fn who_holds_a_home_and_is_no_host_is_told() {
    let place = Place::new();
    place.json(&["install", &place.package("js", "0.1.0"), "--enable"]);
    let lock = fs::File::open(place.home().join("lock")).unwrap();
    lock.lock().unwrap();
    for command in [&["disable", "hello.js"][..], &["audit"], &["trust", "list"], &["run"]] {
        assert_eq!(place.fails(command), "home_in_use", "{command:?}");
    }
    // Whoever only looks is not held up.
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 1);
    place.json(&["show", "hello.js"]);
    place.json(&["deps"]);
    place.json(&["backup", "backups"]);
    lock.unlock().unwrap();
    place.json(&["disable", "hello.js"]);
}

#[test]
fn several_clients_take_turns() {
    let place = Place::new();
    let packages = ["js", "python"].map(|language| place.package(language, "0.1.0"));
    place.json(&["install", &packages[0], &packages[1]]);
    let running = Running::start(&place);
    let before = place.done().len();
    for _ in 0..3 {
        let commands: Vec<Child> = ["js", "python"]
            .into_iter()
            .flat_map(|language| {
                let id = format!("hello.{language}");
                [["enable", &id], ["disable", &id], ["pin", &id]].map(|command| place.begin(&command))
            })
            .collect();
        for child in commands {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        }
        // Whoever was last, what runs is what is enabled.
        for language in ["js", "python"] {
            let id = format!("hello.{language}");
            let enabled = place.json(&["show", &id])["state"] == "enabled";
            assert_eq!(runs(&place, &id).is_some(), enabled, "{id}");
        }
    }
    assert_eq!(place.done().len(), before + 3 * 6);
    place.json(&["audit", "--verify"]);
    assert_eq!(running.end("-TERM"), Some(0));
}

#[test]
fn slow_a_host_that_is_killed_in_an_update_leaves_one_version_or_the_other() {
    let place = Place::new();
    let [one, two] = ["0.1.0", "0.2.0"].map(|version| place.package("js", version));
    place.json(&["install", &one, "--enable"]);
    let (mut before, mut updates) = (place.done().len(), 0);
    for at in 0..12 {
        let mut running = Running::start(&place);
        let version = place.json(&["show", "hello.js"])["current"]["version"].clone();
        let kept = place.json(&["show", "hello.js"])["previous"]["version"].clone();
        let request = match kept.is_null() {
            true => {
                json!({ "v": 1, "request": "update", "packages": [{ "path": place.0.path().join(&two) }] })
            }
            false => json!({ "v": 1, "request": "rollback", "id": "hello.js" }),
        };
        let mut client = UnixStream::connect(socket(&place)).unwrap();
        client.write_all(format!("{request}\n").as_bytes()).unwrap();
        std::thread::sleep(Duration::from_millis(5 * at));
        running.signal("-KILL");
        running.child.wait().unwrap();
        // All of it or nothing, and the record says which.
        place.json(&["audit", "--verify"]);
        let now = place.json(&["show", "hello.js"]);
        let done = place.done();
        match now["current"]["version"] == version {
            true => assert_eq!(done.len(), before),
            false => {
                assert_eq!(done.len(), before + 1);
                assert!(["update", "rollback"].contains(&done.last().unwrap().1.as_str()), "{done:?}");
                updates += 1;
            }
        }
        before = done.len();
        let folders = fs::read_dir(place.home().join("packages/hello.js")).unwrap().count();
        assert_eq!(folders, if now["previous"].is_null() { 1 } else { 2 });
        assert_eq!(fs::read_dir(place.home().join("staging")).unwrap().count(), 0);
        assert!(place.json(&["call", "hello.js", "greet", "\"Ada\""])["result"].is_string());
    }
    eprintln!("{updates} of 12 were done");
}

#[test]
fn what_a_client_asked_for_is_done_without_it() {
    let place = Place::new();
    let [one, two] = ["0.1.0", "0.2.0"].map(|version| place.package("js", version));
    place.json(&["install", &one, "--enable"]);
    let running = Running::start(&place);
    place.json(&["update", &two]);
    let before = place.done().len();
    for at in 0..8 {
        let mut client = place.begin(&["rollback", "hello.js"]);
        std::thread::sleep(Duration::from_millis(10 * at));
        // It may be done by now.
        let _ = client.kill();
        client.wait().unwrap();
        assert!(place.json(&["call", "hello.js", "greet", "\"Ada\""])["result"].is_string());
    }
    // What was asked for last may still be under way.
    let mut tries = 0;
    let done = loop {
        let done = place.done().len() - before;
        let version = ["0.2.0", "0.1.0"][done % 2];
        let installed = place.json(&["show", "hello.js"])["current"]["version"] == version;
        if installed && runs(&place, "hello.js").as_deref() == Some(version) {
            break done;
        }
        tries += 1;
        assert!(tries < 100, "{done} are done, and it is not {version}");
    };
    assert!(done <= 8);
    eprintln!("{done} of 8 were done");
    assert_eq!(running.end("-TERM"), Some(0));
}
