//! Which licences operators accept, and what they see of grants, by command.

use std::fs;

use quadriga_tests::{copy, example};
use serde_json::{Value as Json, json};

use crate::manage::Place;

/// Packs an example that brings an npm package of a licence along.
fn package(place: &Place, version: &str, license: &str) -> String {
    let folder = place.0.path().join(format!("licensed-{version}"));
    copy(&example("hello", "js"), &folder).unwrap();
    let manifest = folder.join("quadriga.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let said = format!("version = \"{version}\"\nlicense = \"MIT\"");
    fs::write(&manifest, text.replace("version = \"0.1.0\"", &said)).unwrap();
    let part = folder.join("node_modules/part");
    fs::create_dir_all(&part).unwrap();
    let about = json!({ "name": "part", "version": "2.1.0", "license": license });
    fs::write(part.join("package.json"), about.to_string()).unwrap();
    let built = place.json(&["pack", folder.to_str().unwrap()]);
    built["package"].as_str().unwrap().to_owned()
}

#[test]
fn licences_are_shown_and_a_policy_holds() {
    let place = Place::new();
    let one = package(&place, "1.0.0", "ISC");
    let two = package(&place, "2.0.0", "AGPL-3.0-only");
    place.json(&["install", &one, "--enable"]);
    let shown = place.json(&["licences", "hello.js"]);
    assert_eq!(shown["policy"], json!({ "allow": null, "deny": [], "unknown": true, "exceptions": [] }));
    assert_eq!(
        shown["extensions"][0]["parts"],
        json!([
            { "name": "hello.js", "version": "1.0.0", "purl": null, "license": "MIT", "denied": null },
            { "name": "part", "version": "2.1.0", "purl": "pkg:npm/part@2.1.0", "license": "ISC", "denied": null },
        ])
    );
    let set = place.json(&["licences", "policy", "--allow", "MIT, ISC", "--unknown", "deny"]);
    assert_eq!((&set["policy"]["allow"], &set["refused"]), (&json!(["ISC", "MIT"]), &json!([])));
    // The refusal names the part, its licence and the rule.
    let (code, _, said) = place.run(&["update", &two]);
    assert_eq!(code, Some(1));
    for part in [
        "license_denied",
        "hello.js 2.0.0 brings part 2.1.0 (pkg:npm/part@2.1.0)",
        "licensed under \"AGPL-3.0-only\"",
        "is not among the licences that are allowed",
        "--exception hello.js",
    ] {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    assert_eq!(place.fails(&["update", &two, "--dry-run"]), "license_denied");
    let shown = place.json(&["licenses"]);
    assert_eq!(shown["extensions"][0]["version"], "1.0.0");
    // What is enabled goes on, is told, and can be excepted.
    let (code, said, told) = place.run(&["licences", "policy", "--allow", "all", "--deny", "ISC"]);
    assert_eq!((code, said.contains("deny        ISC")), (Some(0), true), "{said}");
    assert!(
        told.contains("hello.js 1.0.0 is denied: it goes on until `quadriga disable hello.js`"),
        "{told}"
    );
    assert!(place.json(&["call", "hello.js", "greet", "\"Ada\""])["result"].is_string());
    let (code, said, _) = place.run(&["licences", "--denied"]);
    assert_eq!((code, said.contains("denied: ISC is denied"), said.contains("MIT")), (Some(1), true, false));
    let (code, said, _) = place.run(&["licences", "--json"]);
    assert_eq!(code, Some(1));
    let json: Json = serde_json::from_str(&said).unwrap();
    assert_eq!(json["extensions"][0]["parts"][1]["denied"], "ISC is denied");
    place.json(&["disable", "hello.js"]);
    assert_eq!(place.fails(&["enable", "hello.js"]), "license_denied");
    place.json(&["licences", "policy", "--exception", "hello.js"]);
    place.json(&["enable", "hello.js"]);
    place.json(&["licences", "policy", "--exception", "none", "--deny", "none"]);
    assert_eq!(place.fails(&["licences", "policy", "--deny", "AGPL"]), "invalid_arguments");
    assert_eq!(place.fails(&["licences", "hello.jss"]), "not_installed");
    let trail = place.json(&["audit"]);
    let changes = trail.as_array().unwrap().iter().filter(|it| it["action"] == "licence policy").count();
    assert_eq!(changes, 4);
    place.json(&["audit", "--verify"]);
}

#[test]
fn grants_are_shown_with_what_withholds_them() {
    let place = Place::new();
    let folder = place.0.path().join("asks");
    copy(&example("hello", "js"), &folder).unwrap();
    let manifest = folder.join("quadriga.toml");
    let mut text = fs::read_to_string(&manifest).unwrap();
    assert!(!text.contains("[permissions]"));
    text += "\n[permissions]\nkv = true\nenv = [\"LANG\"]\nsecrets = [\"token\"]\n";
    fs::write(&manifest, text).unwrap();
    let built = place.json(&["pack", folder.to_str().unwrap()]);
    let (code, _, said) = place.run(&["grants"]);
    assert_eq!((code, said.as_str()), (Some(0), "nothing is installed\n"));
    place.json(&["install", built["package"].as_str().unwrap()]);
    place.json(&["grant", "hello.js", "kv=true"]);
    let shown = place.json(&["grants", "hello.js"]);
    let one = &shown[0];
    assert_eq!((&one["trust"], &one["state"]), (&json!("untrusted"), &json!("disabled")));
    assert_eq!((&one["granted"], &one["not-granted"]), (&json!(["kv"]), &json!(["env \"LANG\""])));
    assert_eq!((&one["withheld"], one["asks"].as_array().unwrap().len()), (&json!(["secrets \"token\""]), 3));
    let said = place.run(&["grants"]).1;
    assert!(said.contains("withheld: its trust level is untrusted"), "{said}");
    assert_eq!(place.fails(&["grants", "none.such"]), "not_installed");
}
