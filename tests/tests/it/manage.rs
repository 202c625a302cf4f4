//! What operators do to what is installed, by command.

use std::fs;
use std::path::PathBuf;
use std::process::Stdio;

use quadriga_tests::{copy, example, guest, with};
use serde_json::{Value as Json, json};

use crate::cli::command;

/// A home, and packages.
pub(crate) struct Place(pub(crate) tempfile::TempDir);

impl Place {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.0.path().join("home")
    }

    pub(crate) fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let mut command = command();
        let output = command.current_dir(self.0.path()).env("QUADRIGA_HOME", self.home());
        let output = output.args(args).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Runs a command that has to do well, and returns its JSON.
    pub(crate) fn json(&self, args: &[&str]) -> Json {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, Some(0), "{args:?}: {stdout}{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs a command that has to fail, and returns the code of its error.
    pub(crate) fn fails(&self, args: &[&str]) -> String {
        let (code, stdout, _) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, Some(1), "{args:?}: {stdout}");
        let json: Json = serde_json::from_str(&stdout).unwrap();
        json["error"]["code"].as_str().unwrap().to_owned()
    }

    /// Packs an example, with another version in its manifest.
    pub(crate) fn package(&self, language: &str, version: &str) -> String {
        let folder = self.0.path().join(format!("{language}-{version}"));
        copy(&example("hello", language), &folder).unwrap();
        let manifest = folder.join("quadriga.toml");
        let text = fs::read_to_string(&manifest).unwrap();
        let text = text.replace("version = \"0.1.0\"", &format!("version = \"{version}\""));
        fs::write(&manifest, text).unwrap();
        let built = self.json(&["pack", folder.to_str().unwrap()]);
        built["package"].as_str().unwrap().to_owned()
    }
}

#[test]
fn a_home_is_backed_up_and_restored() {
    let place = Place::new();
    let package = place.package("python", "1.0.0");
    place.json(&["install", &package, "--enable"]);
    assert_eq!(place.fails(&["backup", "backups", "--home", "none"]), "not_installed");
    let made = place.json(&["backup", "backups"]);
    assert_eq!(made["extensions"], json!({ "hello.python": "1.0.0" }));
    place.json(&["uninstall", "hello.python"]);
    let second = place.json(&["backup", "backups"]);
    assert_eq!(place.json(&["backup", "backups", "--list"]), json!([made, second]));
    let path = made["path"].as_str().unwrap();
    assert_eq!(place.fails(&["restore", path]), "invalid_arguments");
    place.json(&["restore", path, "--home", "again"]);
    let call = ["call", "hello.python", "greet", "\"Ada\"", "--home", "again"];
    assert!(place.json(&call)["result"].as_str().unwrap().contains("Ada"));
    place.json(&["audit", "--verify", "--home", "again"]);
    fs::write(std::path::Path::new(path).join("store.sqlite"), "x").unwrap();
    assert_eq!(place.fails(&["restore", path, "--home", "other"]), "invalid_backup");
    let (_, stdout, _) = place.run(&["backup", "backups", "--keep", "1"]);
    assert!(stdout.contains("is removed"), "{stdout}");
    assert_eq!(place.json(&["backup", "backups", "--list"]).as_array().unwrap().len(), 1);
}

#[test]
fn settings_come_from_home_files_environment_and_command_line() {
    let place = Place::new();
    let schema = "[config.schema.properties]\ncolour = { enum = ['green', 'red', 'blue', 'grey'] }\nkey = { writeOnly = true }";
    let folder = with(&guest("relay", "python"), schema);
    let folder = folder.path().to_str().unwrap();
    let built = place.json(&["pack", folder]);
    place.json(&["install", built["package"].as_str().unwrap(), "--enable"]);
    let holds = |args: &[&str]| place.json(&[&["config", "relay.python"], args].concat());
    assert_eq!(holds(&[]), json!({ "colour": { "value": "green", "from": "default" } }));
    let kept = holds(&["--set", "colour=\"red\"", "--set", "key={\"secret\":\"k\"}", "--unset", "none"]);
    assert_eq!(kept, json!({ "colour": "red", "key": { "secret": "k" } }));
    assert_eq!(holds(&[])["colour"], json!({ "value": "red", "from": "home" }));
    let colour = |args: &[&str], environment: Option<&str>| {
        let mut command = command();
        command.current_dir(place.0.path()).env("QUADRIGA_HOME", place.0.path().join("home"));
        command.envs(environment.map(|value| ("QUADRIGA_CONFIG_RELAY_PYTHON__COLOUR", value)));
        let call = ["call", "relay.python", "setting", "\"colour\"", "--json"];
        let output = command.args(call).args(args).output().unwrap();
        serde_json::from_slice::<Json>(&output.stdout).unwrap()
    };
    fs::write(place.0.path().join("set.toml"), "colour = 'blue'").unwrap();
    let cases: [(&[&str], Option<&str>, &str); 4] = [
        (&[], None, "red"),
        (&["--config-file", "set.toml"], None, "blue"),
        (&["--config-file", "set.toml"], Some("grey"), "grey"),
        (&["--config", "colour=\"green\""], Some("grey"), "green"),
    ];
    for (args, environment, expected) in cases {
        assert_eq!(colour(args, environment)["result"], json!(expected), "{args:?} {environment:?}");
    }
    assert_eq!(colour(&[], Some("black"))["error"]["code"], json!("invalid_config"));
    assert_eq!(place.fails(&["config", "relay.python", "--set", "colour=1"]), "invalid_config");
    let (_, stdout, stderr) = place.run(&["config", "relay.python", "--set", "key=\"hunter2\""]);
    assert!(
        stderr.contains("key (home): is secret: name it") && !stderr.contains("hunter2"),
        "{stdout}{stderr}"
    );
    // A folder has no home, so what is set there is only looked at.
    assert_eq!(place.json(&["config", folder, "--config", "colour=\"grey\""])["colour"]["from"], "run-time");
    let (code, _, stderr) = place.run(&["config", folder, "--set", "colour=\"grey\""]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("is not installed, so nothing keeps its settings"), "{stderr}");
    let (_, stdout, _) = place.run(&["config", "relay.python"]);
    assert!(stdout.contains("colour   \"red\"") && stdout.contains("home"), "{stdout}");
    let last = place.json(&["audit"]);
    let last = last.as_array().unwrap().last().unwrap();
    assert_eq!((&last["action"], &last["detail"]["unset"]), (&json!("configure"), &json!(["none"])));
}

#[test]
fn slow_every_language_is_installed_updated_rolled_back_and_taken_away() {
    for language in ["js", "python", "wasm", "native"] {
        eprintln!("{language}");
        let place = Place::new();
        let id = format!("hello.{language}");
        let [one, two] = ["0.1.0", "0.2.0"].map(|version| place.package(language, version));
        assert_eq!(place.json(&["list"]), json!([]));
        let installed = place.json(&["install", &one, "--grant", "requested"]);
        let installed = &installed["came"][0]["installed"];
        assert_eq!((&installed["id"], &installed["state"]), (&json!(id), &json!("disabled")));
        let call = ["call", &id, "greet", "\"Ada\""];
        assert_eq!(place.fails(&call), "failed", "it is disabled");
        assert_eq!(place.fails(&["install", &two]), "already_installed");
        place.json(&["enable", &id]);
        let greets = |place: &Place| {
            let greeting = place.json(&call)["result"].as_str().unwrap().to_owned();
            assert!(greeting.starts_with("Hello, Ada"), "{greeting}");
        };
        greets(&place);
        let updated = place.json(&["update", &two]);
        let updated = &updated["came"][0];
        assert_eq!((&updated["from"], &updated["wider"]), (&json!("0.1.0"), &json!([])));
        greets(&place);
        let shown = place.json(&["show", &id]);
        assert_eq!(shown["current"]["version"], "0.2.0");
        assert_eq!(shown["previous"]["version"], "0.1.0");
        assert_eq!(place.json(&["rollback", &id])["came"][0]["from"], "0.2.0");
        greets(&place);
        assert_eq!(place.fails(&["update", &one]), "already_installed");
        let listed = place.json(&["list", "--enabled", "--publisher", "hello", "hello"]);
        assert_eq!(listed.as_array().unwrap().len(), 1);
        for other in [
            ["--disabled"].as_slice(),
            &["--runtime", "none"],
            &["--type", "security"],
            &["--tag", "x"],
            &["nothing"],
        ] {
            assert_eq!(place.json(&[&["list"], other].concat()), json!([]), "{other:?}");
        }
        place.json(&["disable", &id]);
        assert_eq!(place.json(&["uninstall", &id])["uninstalled"], json!([id]));
        for gone in [["show", &id], ["enable", &id], ["uninstall", &id], ["rollback", &id]] {
            assert_eq!(place.fails(&gone), "not_installed", "{gone:?}");
        }
        let audited = place.json(&["audit", "--verify"]);
        assert_eq!(audited["entries"], 6);
        let head = audited["head"].as_str().unwrap();
        place.json(&["audit", "--verify", "--head", head]);
        assert_eq!(place.fails(&["audit", "--verify", "--head", "00ff"]), "store_failed");
        let trail = place.json(&["audit"]);
        let done = trail.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap());
        let done: Vec<&str> = done.collect();
        assert_eq!(done, ["install", "enable", "update", "rollback", "disable", "uninstall"]);
        assert_eq!(fs::read_dir(place.0.path().join("home/packages")).unwrap().count(), 0);
    }
}

#[test]
fn who_signed_it_is_verified_and_kept() {
    let place = Place::new();
    let package = place.package("js", "0.1.0");
    for name in ["ours", "theirs"] {
        place.json(&["keygen", name, "--no-password"]);
    }
    place.json(&["sign", &package, "--key", "ours.key"]);
    assert_eq!(place.run(&["install", &package]).0, Some(1), "no key was named");
    assert_eq!(place.run(&["install", &package, "--key", "theirs.pub"]).0, Some(1));
    assert_eq!(place.json(&["list"]), json!([]));
    let installed = place.json(&["install", &package, "--key", "ours.pub"]);
    assert!(installed["came"][0]["installed"]["current"]["signer"].is_string(), "{installed}");
}

#[test]
fn publishers_are_trusted_by_their_keys() {
    let place = Place::new();
    let package = place.package("js", "0.1.0");
    for name in ["ours", "theirs"] {
        place.json(&["keygen", name, "--no-password"]);
    }
    assert_eq!(place.json(&["trust", "list"]), json!([]));
    let added = place.json(&["trust", "add", "ours.pub", "--publisher", "hello", "--level", "high"]);
    place.json(&["trust", "add", "theirs.pub", "--publisher", "theirs", "--level", "verified"]);
    let listed = place.json(&["trust", "list"]);
    assert_eq!((&listed[0], listed.as_array().unwrap().len()), (&added, 2));
    let again = ["trust", "add", "ours.pub", "--publisher", "theirs", "--level", "low"];
    assert_eq!(place.fails(&again), "invalid_arguments");
    // Nobody signs for another publisher.
    place.json(&["sign", &package, "--key", "theirs.key"]);
    assert_eq!(place.fails(&["install", &package]), "not_trusted");
    assert_eq!(place.fails(&["install", &package, "--key", "theirs.pub"]), "not_trusted");
    place.json(&["sign", &package, "--key", "ours.key", "--force"]);
    let installed = place.json(&["install", &package, "--enable"]);
    assert_eq!(installed["came"][0]["installed"]["current"]["trust"], "high");
    // What is not signed is refused where the policy says so, and an update that is trusted less as well.
    let next = place.package("js", "0.2.0");
    assert_eq!(place.fails(&["update", &next]), "consent_required");
    let policy = place.json(&["trust", "policy", "untrusted", "--signature", "true"]);
    assert_eq!(policy["untrusted"]["signature"], true);
    assert_eq!(place.fails(&["update", &next, "--consent"]), "not_trusted");
    place.json(&["sign", &next, "--key", "ours.key"]);
    place.json(&["trust", "policy", "high", "--minimum-release-age", "1h"]);
    assert_eq!(place.fails(&["update", &next]), "release_too_new");
    place.json(&["trust", "policy", "high", "--minimum-release-age", "none"]);
    // What is pinned stays.
    place.json(&["pin", "hello.js"]);
    assert_eq!(place.fails(&["update", &next]), "pinned");
    assert_eq!(place.json(&["update", &next, "--unpin"])["came"][0]["from"], "0.1.0");
    assert_eq!(place.json(&["pin", "hello.js", "0.2.0"])["pinned"], "0.2.0");
    assert_eq!(place.fails(&["rollback", "hello.js"]), "pinned");
    place.json(&["unpin", "hello.js"]);
    // A host that cannot isolate as far as the policy says does not load it.
    let call = ["call", "hello.js", "greet", "\"Ada\""];
    place.json(&call);
    place.json(&["trust", "policy", "high", "--isolation", "vm"]);
    assert_eq!(place.fails(&call), "isolation_unavailable");
    place.json(&["trust", "policy", "high", "--isolation", "process"]);
    assert_eq!(place.json(&call)["isolation"], "process");
    // Without its key it is nobody's, and does not start.
    let removed = place.json(&["trust", "remove", "ours.pub"]);
    assert_eq!((&removed["removed"]["id"], &removed["signed"]), (&added["id"], &json!(["hello.js"])));
    assert_eq!(place.fails(&call), "not_trusted");
    assert_eq!(place.json(&["show", "hello.js"])["current"]["trust"], "untrusted");
    place.json(&["disable", "hello.js"]);
    assert_eq!(place.fails(&["enable", "hello.js"]), "not_trusted");
    let (_, stdout, _) = place.run(&["list"]);
    assert!(stdout.contains("untrusted"), "{stdout}");
    let (_, stdout, _) = place.run(&["trust", "policy"]);
    assert!(stdout.contains("call,clock,data,emit") && stdout.contains("verified"), "{stdout}");
    let trail = place.json(&["audit"]);
    let done: Vec<&str> =
        trail.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
    assert!(
        ["trust", "distrust", "trust policy", "pin", "unpin"].iter().all(|it| done.contains(it)),
        "{done:?}"
    );
}

#[test]
fn two_at_once_do_not_harm_a_home() {
    let place = Place::new();
    let packages = ["js", "python"].map(|language| place.package(language, "0.1.0"));
    // Many at once: each does its work or is told who was quicker.
    let run = |package: &String| {
        let mut command = command();
        let home = place.0.path().join("home");
        command.current_dir(place.0.path()).args(["install", package, "--json"]).env("QUADRIGA_HOME", home);
        command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
    };
    let children: Vec<_> = (0..6).map(|n| run(&packages[n % 2])).collect();
    let mut done = 0;
    for child in children {
        let output = child.wait_with_output().unwrap();
        let said: Json = serde_json::from_slice(&output.stdout).unwrap();
        match said["error"]["code"].as_str() {
            None => done += 1,
            Some(code) => assert!(["home_in_use", "already_installed"].contains(&code), "{said}"),
        }
    }
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), done);
    assert!((1..=2).contains(&done));
    assert_eq!(place.json(&["audit", "--verify"])["entries"], done);
    for package in &packages {
        place.run(&["install", package]);
    }
    assert_eq!(place.json(&["list"]).as_array().unwrap().len(), 2);
}

#[test]
fn people_read_what_was_done() {
    let place = Place::new();
    let package = place.package("js", "0.1.0");
    let says = |args: &[&str], parts: &[&str]| {
        let (code, stdout, stderr) = place.run(args);
        assert_eq!(code, Some(0), "{args:?}: {stderr}");
        let said = stdout + &stderr;
        assert!(parts.iter().all(|part| said.contains(part)), "{args:?}: {said}");
    };
    says(&["list"], &["nothing that fits is installed"]);
    says(&["install", &package, "--enable"], &["hello.js 0.1.0 is installed and enabled"]);
    says(&["list"], &["extension", "hello.js", "0.1.0", "enabled", "javascript"]);
    says(&["show", "hello.js"], &["hello.js 0.1.0 (enabled)", "asks for", "sha256", "signed by  nobody"]);
    says(&["audit"], &["install", "enable", "hello.js"]);
    says(&["audit", "--verify"], &["2 entries, all as they were written"]);
    says(&["disable", "hello.js"], &["hello.js is disabled"]);
    let (code, _, stderr) = place.run(&["show", "hello.jss"]);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("did you mean \"hello.js\"?"), "{stderr}");
}

/// Extensions that need each other, with several versions of one, as packages.
pub(crate) fn family(place: &Place) -> Vec<String> {
    let list = [
        (
            "acme.site",
            "1.0.0",
            "[dependencies]\n'acme.words' = '^1'\n[capabilities]\nrequires = ['store@^2']",
        ),
        ("acme.words", "1.0.0", "[optional-dependencies]\n'acme.stems' = '*'"),
        ("acme.words", "2.0.0", ""),
        ("acme.disk", "1.0.0", "[capabilities]\nprovides = ['store@2.1.0']"),
    ];
    let pack = |(id, version, more): &(&str, &str, &str)| {
        let folder = place.0.path().join(format!("{id}-{version}"));
        fs::create_dir(&folder).unwrap();
        let manifest = format!(
            "[extension]\nid = '{id}'\nversion = '{version}'\n[runtime]\nkind = 'javascript'\nentry = 'main.js'\n{more}\n"
        );
        fs::write(folder.join("quadriga.toml"), manifest).unwrap();
        fs::write(
            folder.join("main.js"),
            format!("export function who() {{ return \"{id} {version}\"; }}\n"),
        )
        .unwrap();
        place.json(&["pack", folder.to_str().unwrap()])["package"].as_str().unwrap().to_owned()
    };
    list.iter().map(pack).collect()
}

#[test]
fn what_needs_each_other_comes_and_goes_together() {
    let place = Place::new();
    let packages = family(&place);
    let all: Vec<&str> = packages.iter().map(String::as_str).collect();
    let install = [&["install", "--enable"], &all[..]].concat();
    let would = place.json(&[&install[..], &["--dry-run"]].concat());
    assert_eq!(would["enabled"], json!(["acme.disk", "acme.words", "acme.site"]));
    assert_eq!((&would["dry-run"], &place.json(&["list"])), (&json!(true), &json!([])));
    assert_eq!(place.fails(&[&install[..4], &["--dry-run"]].concat()), "missing_dependency");
    let done = place.json(&install);
    assert_eq!(done["enabled"], would["enabled"]);
    assert_eq!(place.json(&["show", "acme.words"])["current"]["version"], "1.0.0");
    assert_eq!(place.json(&["call", "acme.site", "who"])["result"], "acme.site 1.0.0");
    // What others need does not go, and does not become what they cannot use.
    assert_eq!(place.fails(&["disable", "acme.disk"]), "needed");
    let (code, _, stderr) = place.run(&["update", all[2]]);
    assert_eq!(code, Some(1));
    let says = ["acme.site needs acme.words ^1", "--with-dependents disables them too"];
    assert!(says.iter().all(|part| stderr.contains(part)), "{stderr}");
    let gone = place.json(&["update", all[2], "--with-dependents"]);
    assert_eq!((&gone["disabled"], &gone["came"][0]["from"]), (&json!(["acme.site"]), &json!("1.0.0")));
    place.json(&["rollback", "acme.words"]);
    place.json(&["disable", "acme.disk"]);
    let (code, _, stderr) = place.run(&["enable", "acme.site"]);
    assert_eq!(code, Some(1));
    let says =
        ["acme.site 1.0.0 needs the capability store@^2; acme.disk is disabled", "--with-dependencies"];
    assert!(says.iter().all(|part| stderr.contains(part)), "{stderr}");
    let (_, stdout, _) = place.run(&["enable", "acme.site", "--with-dependencies", "--dry-run"]);
    let says = "nothing is changed; without --dry-run:\nacme.disk is enabled\nacme.site is enabled\n";
    assert_eq!(stdout, says);
    let on = place.json(&["enable", "acme.site", "--with-dependencies"]);
    assert_eq!(on["enabled"], json!(["acme.disk", "acme.site"]));
    let gone = place.json(&["uninstall", "acme.disk", "--with-dependents"]);
    assert_eq!((&gone["disabled"], &gone["uninstalled"]), (&json!(["acme.site"]), &json!(["acme.disk"])));
}

#[test]
fn the_graph_is_shown_and_locked() {
    let place = Place::new();
    let packages = family(&place);
    let [site, words, newer, disk] = [0, 1, 2, 3].map(|at: usize| packages[at].as_str());
    place.json(&["install", site, words, disk]);
    place.json(&["enable", "acme.site", "--with-dependencies"]);
    let graph = place.json(&["deps"]);
    assert_eq!(graph["order"], json!([["acme.disk", "acme.words"], ["acme.site"]]));
    let near = place.json(&["deps", "acme.disk"]);
    let ids: Vec<&Json> = near["extensions"].as_array().unwrap().iter().map(|it| &it["id"]).collect();
    assert_eq!(ids, ["acme.disk", "acme.site"]);
    assert_eq!(place.fails(&["deps", "acme.disc"]), "not_installed");
    let near = place.run(&["deps", "acme.disk"]).1;
    assert!(near.contains("  needs acme.words ^1: acme.words (enabled)\n"), "{near}");
    let text = "acme.disk 1.0.0 (enabled)
  provides store@2.1.0
acme.site 1.0.0 (enabled)
  needs acme.words ^1: acme.words (enabled)
  needs store@^2 of acme.disk (enabled)
acme.words 1.0.0 (enabled)
  can use acme.stems *: not there
start order, stopped the other way round
   1  acme.disk, acme.words
   2  acme.site
";
    assert_eq!(place.run(&["deps"]).1, text);
    let dot = r#"digraph dependencies {
  rankdir=LR; node [shape=box];
  "acme.disk" [label="acme.disk\n1.0.0", color=black];
  "acme.site" [label="acme.site\n1.0.0", color=black];
  "acme.site" -> "acme.words" [label="^1", style=solid, color=black];
  "acme.site" -> "acme.disk" [label="store@^2", style=solid, color=black];
  "acme.words" [label="acme.words\n1.0.0", color=black];
}
"#;
    assert_eq!(place.run(&["deps", "--format", "dot"]).1, dot);
    let svg = place.run(&["deps", "--format", "svg"]).1;
    assert!(svg.contains("<svg ") && svg.trim_end().ends_with("</svg>"), "{svg}");
    let said = ["acme.disk", "acme.site", "acme.words", "store@^2", "stroke-dasharray"];
    let drawn: Vec<&str> = said.into_iter().filter(|it| svg.contains(it)).collect();
    // Nothing is optional of what is there.
    assert_eq!(drawn, said[..4], "{svg}");
    let nothing = place.run(&["deps", "--format", "svg", "--home", "empty"]).1;
    assert!(nothing.trim_end().ends_with("</svg>"), "{nothing}");
    place.json(&["deps", "--lock", "quadriga.lock"]);
    place.json(&["deps", "--check", "quadriga.lock"]);
    place.json(&["update", newer, "--with-dependents"]);
    assert_eq!(place.fails(&["deps", "--check", "quadriga.lock"]), "lock_mismatch");
    // Another home becomes the same, and nothing else.
    let other = ["--home", "other"];
    let locked = ["--locked", "quadriga.lock"];
    let error = place.fails(&[&["install", site, newer, disk], &locked[..], &other].concat());
    assert_eq!(error, "lock_mismatch");
    place.json(&[&["install", "--enable", site, words, disk], &locked[..], &other].concat());
    place.json(&[&["deps", "--check", "quadriga.lock"], &other[..]].concat());
}
