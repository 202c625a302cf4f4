use std::path::PathBuf;

use quadriga_abi::manifest::Manifest;
use serde_json::{Value as Json, json};

use super::write;
use crate::digest::Digest;

const MANIFEST: &str = "[extension]\nid = 'acme.hello'\nversion = '1.2.0+x'\nlicense = 'MIT'\n\
    authors = ['Ada <ada@example.org>', 'Bob']\n[runtime]\nkind = 'python'\nentry = 'main.py'\n";

fn sbom(files: &[(&str, &str)]) -> Json {
    let dir = tempfile::tempdir().unwrap();
    let placed: Vec<(&str, PathBuf)> = files
        .iter()
        .enumerate()
        .map(|(number, (path, text))| {
            let file = dir.path().join(number.to_string());
            std::fs::write(&file, text).unwrap();
            (*path, file)
        })
        .collect();
    let files: Vec<_> = placed.iter().map(|(path, file)| (*path, file.as_path())).collect();
    let manifest = Manifest::parse(MANIFEST, "quadriga.toml").unwrap();
    serde_json::from_slice(&write(&manifest, &files, Digest::of(b"all")).unwrap()).unwrap()
}

#[test]
fn it_is_of_the_extension_itself() {
    let bom = sbom(&[("main.py", "")]);
    assert_eq!((&bom["bomFormat"], &bom["specVersion"]), (&json!("CycloneDX"), &json!("1.6")));
    assert_eq!(bom["serialNumber"], "urn:uuid:5ef5ef03-64b6-839c-8ca6-1f34b393f7b3");
    assert_eq!(
        bom["metadata"]["component"],
        json!({
            "type": "application",
            "bom-ref": "pkg:generic/acme.hello@1.2.0%2Bx",
            "name": "acme.hello",
            "version": "1.2.0+x",
            "purl": "pkg:generic/acme.hello@1.2.0%2Bx",
            "licenses": [{ "expression": "MIT" }],
            "authors": [{ "name": "Ada", "email": "ada@example.org" }, { "name": "Bob" }],
        })
    );
    assert_eq!(bom["components"], json!([]));
    assert_eq!(bom["dependencies"], json!([{ "ref": "pkg:generic/acme.hello@1.2.0%2Bx", "dependsOn": [] }]));
}

#[test]
fn what_is_brought_along_is_found() {
    let metadata =
        "Metadata-Version: 2.4\nName: Ruamel.YAML_x\nVersion: 1.0\nLicense-Expression: MIT\n\nName: no\n";
    let lock = r#"{ "packages": {
        "": { "name": "top", "version": "9.9.9" },
        "node_modules/a": { "version": "1.0.0", "integrity": "sha256-qqo=", "license": "ISC" },
        "node_modules/a/node_modules/@s/b": { "version": "2.0.0" },
        "node_modules/alias": { "name": "real", "version": "3.0.0" },
        "node_modules/tool": { "version": "4.0.0", "dev": true }
    } }"#;
    let cargo = "[[package]]\nname = 'mine'\nversion = '0.1.0'\n\
        [[package]]\nname = 'serde'\nversion = '1.0.0'\nsource = 'registry+x'\nchecksum = 'ab12'\n";
    let cases: &[(&str, &str, &[&str])] = &[
        ("package.json", r#"{ "name": "top", "version": "1.0.0" }"#, &[]),
        ("node_modules/a/package.json", r#"{ "name": "a", "version": "1.0.0" }"#, &["pkg:npm/a@1.0.0"]),
        ("node_modules/a/lib/package.json", r#"{ "name": "x", "version": "1.0.0" }"#, &[]),
        (
            "node_modules/@s/b/package.json",
            r#"{ "name": "@s/b", "version": "1.0.0" }"#,
            &["pkg:npm/%40s/b@1.0.0"],
        ),
        (
            "x/node_modules/a/node_modules/c/package.json",
            r#"{ "name": "c", "version": "1.0.0" }"#,
            &["pkg:npm/c@1.0.0"],
        ),
        (
            "vendor/marked/package.json",
            r#"{ "name": "marked", "version": "1.0.0" }"#,
            &["pkg:npm/marked@1.0.0"],
        ),
        ("vendor/marked/esm/package.json", r#"{ "type": "module" }"#, &[]),
        ("vendor/marked/package.json", "{", &[]),
        ("package-lock.json", lock, &["pkg:npm/%40s/b@2.0.0", "pkg:npm/a@1.0.0", "pkg:npm/real@3.0.0"]),
        ("sub/package-lock.json", lock, &[]),
        ("vendor/r-1.dist-info/METADATA", metadata, &["pkg:pypi/ruamel-yaml-x@1.0"]),
        ("vendor/METADATA", metadata, &[]),
        ("wheels/numpy-2.1.0-cp311-cp311-linux_x86_64.whl", "", &["pkg:pypi/numpy@2.1.0"]),
        ("Cargo.lock", cargo, &["pkg:cargo/serde@1.0.0"]),
        ("vendor/x/Cargo.lock", cargo, &[]),
        (
            "vendor/serde/Cargo.toml",
            "[package]\nname = 'serde'\nversion = '1.0.0'\nedition = '2021'",
            &["pkg:cargo/serde@1.0.0"],
        ),
        ("vendor/serde/x/Cargo.toml", "[package]\nname = 'x'\nversion = '1.0.0'", &[]),
        ("Cargo.toml", "[package]\nname = 'mine'\nversion = '1.0.0'", &[]),
    ];
    for (path, text, expected) in cases {
        let bom = sbom(&[(path, text)]);
        let components = bom["components"].as_array().unwrap();
        let urls: Vec<_> = components.iter().map(|component| component["purl"].as_str().unwrap()).collect();
        assert_eq!(urls, *expected, "{path}");
        assert_eq!(bom["dependencies"][0]["dependsOn"], json!(urls), "{path}");
    }
}

#[test]
fn what_is_known_twice_is_one() {
    let lock = r#"{ "packages": { "node_modules/a": { "version": "1.0.0", "integrity": "sha256-qqo=" } } }"#;
    let package = r#"{ "name": "a", "version": "1.0.0", "license": "Custom licence" }"#;
    let bom = sbom(&[("node_modules/a/package.json", package), ("package-lock.json", lock)]);
    assert_eq!(
        bom["components"],
        json!([{
            "type": "library",
            "bom-ref": "pkg:npm/a@1.0.0",
            "name": "a",
            "version": "1.0.0",
            "purl": "pkg:npm/a@1.0.0",
            "licenses": [{ "license": { "name": "Custom licence" } }],
            "hashes": [{ "alg": "SHA-256", "content": "aaaa" }],
        }])
    );
}

#[test]
fn licences_are_found_where_each_tool_writes_them() {
    let npm = |license: &str| format!(r#"{{ "name": "a", "version": "1", {license} }}"#);
    let python = |lines: &str| format!("Name: a\nVersion: 1\n{lines}\n\nLicense: no\n");
    let cargo = |line: &str| format!("[package]\nname = 'a'\nversion = '1'\n{line}");
    let osi = "Classifier: License :: OSI Approved";
    let cases = [
        (npm(r#""license": "MIT""#), "node_modules/a/package.json", json!({ "expression": "MIT" })),
        (
            npm(r#""license": { "type": "ISC" }"#),
            "node_modules/a/package.json",
            json!({ "expression": "ISC" }),
        ),
        (
            npm(r#""licenses": [{ "type": "MIT" }, { "type": "Apache-2.0" }]"#),
            "node_modules/a/package.json",
            json!({ "expression": "MIT OR Apache-2.0" }),
        ),
        (
            npm(r#""license": "SEE LICENSE IN x""#),
            "node_modules/a/package.json",
            json!({ "license": { "name": "SEE LICENSE IN x" } }),
        ),
        (npm(r#""private": true"#), "node_modules/a/package.json", Json::Null),
        (
            python("License: no\nLicense-Expression: MIT OR ISC"),
            "vendor/a-1.dist-info/METADATA",
            json!({ "expression": "MIT OR ISC" }),
        ),
        (
            python(&format!("License: BSD-3-Clause\n{osi} :: MIT License")),
            "vendor/a-1.dist-info/METADATA",
            json!({ "expression": "BSD-3-Clause" }),
        ),
        (
            python(&format!("License: the MIT one\n{osi}\n{osi} :: MIT License")),
            "vendor/a-1.dist-info/METADATA",
            json!({ "expression": "MIT" }),
        ),
        (
            python(&format!("{osi} :: MIT License\n{osi} :: ISC License (ISCL)")),
            "vendor/a-1.dist-info/METADATA",
            json!({ "expression": "MIT AND ISC" }),
        ),
        (
            python(&format!("{osi} :: BSD License")),
            "vendor/a-1.dist-info/METADATA",
            json!({ "license": { "name": "BSD License" } }),
        ),
        (python("License: Mine"), "vendor/a-1.dist-info/METADATA", json!({ "license": { "name": "Mine" } })),
        (python("Summary: a"), "vendor/a-1.dist-info/METADATA", Json::Null),
        (cargo("license = 'MIT'"), "vendor/a/Cargo.toml", json!({ "expression": "MIT" })),
        (cargo("license-file = 'L'"), "vendor/a/Cargo.toml", json!({ "license": { "name": "see L" } })),
    ];
    for (text, path, expected) in &cases {
        let bom = sbom(&[(path, text)]);
        assert_eq!(bom["components"][0]["name"], "a", "{text}");
        assert_eq!(bom["components"][0]["licenses"][0], *expected, "{text}");
    }
    for (_, license) in super::python::CLASSIFIERS {
        assert!(quadriga_abi::manifest::License::try_from(license.to_owned()).is_ok(), "{license}");
    }
}
