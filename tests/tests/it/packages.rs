//! Packages as authors and operators handle them, by command.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use quadriga_tests::example;
use serde_json::{Value as Json, json};

use crate::cli::{command, quadriga};

/// A folder to work in, where the commands run.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        text(command().current_dir(self.0.path()).args(args).output().unwrap())
    }

    /// Runs a command that has to do well, and returns its JSON.
    fn json(&self, args: &[&str]) -> Json {
        let (code, stdout, stderr) = self.run(&[args, &["--json"]].concat());
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "{args:?}: {stdout}");
        serde_json::from_str(&stdout).unwrap()
    }

    /// Runs a command that has to fail, and returns the code of its error.
    fn fails(&self, args: &[&str]) -> String {
        let (code, stdout, _) = self.run(&[args, &["--json"]].concat());
        assert_eq!(code, Some(1), "{args:?}: {stdout}");
        let json: Json = serde_json::from_str(&stdout).unwrap();
        json["error"]["code"].as_str().unwrap().to_owned()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.0.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A small extension.
    fn extension(&self) -> String {
        let manifest = "[extension]\nid = 'acme.hello'\nversion = '1.0.0'\nlicense = 'MIT'\n\
            [runtime]\nkind = 'javascript'\nentry = 'main.js'\n";
        self.write("hello/quadriga.toml", manifest);
        self.write("hello/main.js", "export function greet(name) { return `Hello, ${name}`; }\n");
        self.write("hello/README.md", "# Hello\n");
        self.path("hello").to_str().unwrap().to_owned()
    }
}

fn text(output: Output) -> (Option<i32>, String, String) {
    let stdout = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), stdout, String::from_utf8(output.stderr).unwrap())
}

fn greeting(dir: &Path) -> String {
    let run = quadriga(&["call", dir.to_str().unwrap(), "greet", "\"Ada\""]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    run.json().as_str().unwrap().to_owned()
}

/// The example in each language, signed, and used from where its package was unpacked.
#[test]
fn slow_the_examples_work_from_their_packages() {
    let place = Place::new();
    place.json(&["keygen", "acme", "--no-password"]);
    for language in ["js", "python", "wasm", "native"] {
        let dir = example("hello", language);
        let packed = place.json(&["pack", dir.to_str().unwrap(), "--sign", "acme.key"]);
        let name = format!("hello.{language}-0.1.0");
        assert_eq!(packed["package"], format!("{name}.qx"));
        assert_eq!(packed["signature"], format!("{name}.qx.minisig"));
        let verified = place.json(&["verify", &format!("{name}.qx"), "--key", "acme.pub"]);
        assert_eq!((&verified["digest"], &verified["files"]), (&packed["digest"], &packed["files"]));
        let unpacked = place.json(&["unpack", &format!("{name}.qx"), "--key", "acme.pub"]);
        assert_eq!(unpacked["folder"], name);
        assert!(greeting(&place.path(&name)).starts_with("Hello, Ada"));

        // The same folder makes the same package, from where it was unpacked too.
        let again = place.json(&["pack", &name, "--out", "again.qx"]);
        assert_eq!(again["digest"], packed["digest"]);
        fs::remove_file(place.path("again.qx")).unwrap();
    }
}

/// Those with dependencies, which need all of what they bring along.
#[test]
fn slow_what_is_vendored_is_packed() {
    let place = Place::new();
    for (name, component) in
        [("highlight", Some("pkg:pypi/pygments@")), ("render", None), ("sanitize", None), ("assets", None)]
    {
        let dir = example("site", name);
        let packed = place.json(&["pack", dir.to_str().unwrap()]);
        let package = packed["package"].as_str().unwrap();
        place.json(&["unpack", package, "--out", name]);
        let folder = place.path(name);
        let loaded = quadriga(&["inspect", folder.to_str().unwrap(), "--json"]);
        assert_eq!(loaded.code, Some(0), "{}", loaded.stderr);
        let methods = loaded.json()["loaded"]["methods"].as_array().unwrap().len();
        assert_eq!(
            methods,
            quadriga(&["inspect", dir.to_str().unwrap(), "--json"]).json()["loaded"]["methods"]
                .as_array()
                .unwrap()
                .len(),
            "{name}"
        );
        let sbom: Json =
            serde_json::from_slice(&fs::read(folder.join(".quadriga/sbom.cdx.json")).unwrap()).unwrap();
        let urls = sbom["components"].as_array().unwrap().iter();
        let urls: Vec<_> = urls.map(|component| component["purl"].as_str().unwrap()).collect();
        assert_eq!(
            urls.iter().any(|url| component.is_some_and(|part| url.starts_with(part))),
            component.is_some()
        );
    }
}

#[test]
fn every_format_carries_the_extension() {
    let place = Place::new();
    let dir = place.extension();
    let mut layers = Vec::new();
    for (format, name) in [("qx", "qx"), ("tar", "tar"), ("zip", "zip"), ("npm", "tgz"), ("oci", "oci")] {
        let packed = place.json(&["pack", &dir, "--format", format]);
        let package = format!("acme.hello-1.0.0.{name}");
        assert_eq!((&packed["format"], &packed["package"]), (&json!(format), &json!(package)));
        let paths: Vec<_> = packed["files"].as_array().unwrap().iter().map(|file| &file["path"]).collect();
        assert_eq!(paths, [".quadriga/sbom.cdx.json", "README.md", "main.js", "quadriga.toml"]);
        let digest = packed["digest"].as_str().unwrap();
        place.json(&["unpack", &package, "--digest", digest, "--out", format]);
        assert_eq!(greeting(&place.path(format)), "Hello, Ada");
        if matches!(format, "qx" | "oci") {
            layers.push(digest.to_owned());
        }
    }
    assert_eq!(layers[0], layers[1]);
    let (code, stdout, _) = place.run(&["verify", "acme.hello-1.0.0.qx"]);
    assert_eq!(code, Some(0));
    for part in ["acme.hello 1.0.0 is whole", "4 files (1 code, 1 docs)", &layers[0], "not signed"] {
        assert!(stdout.contains(part), "{part:?} is not in {stdout}");
    }
}

#[test]
fn a_signature_that_fails_leaves_nothing() {
    let place = Place::new();
    let dir = place.extension();
    for name in ["acme", "other"] {
        place.json(&["keygen", name, "--no-password"]);
    }
    for (package, format) in [("a.qx", "qx"), ("a.zip", "zip"), ("a.oci", "oci")] {
        place.json(&["pack", &dir, "--format", format, "--out", package]);
        assert_eq!(place.fails(&["unpack", package, "--key", "acme.pub", "--out", "x"]), "not_signed");
        let signed = place.json(&["sign", package, "--key", "acme.key", "--comment", "a release"]);
        let key = signed["public_key"].as_str().unwrap();
        let verified = place.json(&["verify", package, "--key", key]);
        assert_eq!(verified["signer"], json!({ "key": signed["key"], "comment": "a release" }));
        // Who does not say whom he trusts gets nothing of what is signed.
        assert_eq!(place.fails(&["unpack", package, "--out", "x"]), "failed");
        assert_eq!(place.fails(&["verify", package]), "failed");
        assert_eq!(place.fails(&["unpack", package, "--key", "other.pub", "--out", "x"]), "other_key");
        let wrong = format!("sha256:{}", "0".repeat(64));
        assert_eq!(
            place.fails(&["unpack", package, "--key", key, "--digest", &wrong, "--out", "x"]),
            "wrong_digest"
        );
        assert!(!place.names().iter().any(|name| name == "x" || name.starts_with(".quadriga")));
    }
    assert_eq!(place.fails(&["sign", "a.qx", "--key", "acme.key"]), "failed");
    place.json(&["sign", "a.qx", "--key", "other.key", "--force"]);
    place.json(&["verify", "a.qx", "--key", "other.pub"]);

    // The file is changed, and its signature not.
    let mut bytes = fs::read(place.path("a.qx")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(place.path("a.qx"), bytes).unwrap();
    assert_eq!(place.fails(&["unpack", "a.qx", "--key", "other.pub", "--out", "x"]), "wrong_signature");
    let signature = fs::read_to_string(place.path("a.zip.minisig")).unwrap();
    place.write("a.zip.minisig", &signature.replace("a release", "a relaese"));
    assert_eq!(place.fails(&["verify", "a.zip", "--key", "acme.pub"]), "wrong_comment");
    assert!(!place.path("x").exists());
}

#[test]
fn errors_say_what_to_do() {
    let place = Place::new();
    let dir = place.extension();
    place.write("hello/.env", "TOKEN=1\n");
    place.write("empty/x", "");
    place.write("password", "horse\n");
    place.write("other-password", "house\n");
    place.write("no-password", "\n");
    place.write("junk.qx", "junk");
    place.json(&["pack", &dir, "--allow-secrets", "--out", "a.qx"]);
    place.json(&["keygen", "acme", "--password-file", "password"]);
    let with_other = ["sign", "a.qx", "--key", "acme.key", "--password-file", "other-password"];
    let cases: &[(&[&str], i32, &str, &str)] = &[
        (&["pack", "empty"], 1, "error[no_extension]", "quadriga.toml"),
        (&["pack", "nowhere"], 1, "error[no_extension]", "quadriga.toml"),
        (&["pack", "hello"], 1, "error[secret]: \".env\"", ".quadrigaignore"),
        (&["pack", "hello", "--allow-secrets", "--out", "a.qx"], 1, "error[exists]", "remove it"),
        (&["pack", "hello", "--allow-secrets", "--out", "no/a.qx"], 1, "error[io]", ""),
        (&["pack", "hello", "--format", "rar"], 2, "expected qx, tar, zip, npm or oci", ""),
        (&["pack", "hello", "--password-file", "password"], 2, "--sign", ""),
        (&["unpack", "nothing.qx"], 1, "error[io]", "No such file"),
        (&["unpack", "junk.qx"], 1, "error[unknown_format]", "packages are .qx"),
        (&["unpack", "hello"], 1, "error[folder]", "quadriga pack"),
        (&["unpack", "a.qx", "--out", "empty"], 1, "error[exists]", "remove it"),
        (&["verify", "a.qx", "--digest", "12"], 2, "no SHA-256 digest", ""),
        (&["verify", "a.qx", "--key", "acme.pub"], 1, "error[not_signed]", ".minisig"),
        (&["verify", "a.qx", "--key", "nonsense"], 1, "no key, and no file", "--key takes"),
        (&["verify", "a.qx", "--key", "junk.qx"], 1, "error[malformed_signature]", "keygen"),
        (&["verify", "a.qx", "--signature", "x"], 2, "--key", ""),
        (&["verify", "a.qx", "--key", "acme.pub", "--signature", "x"], 1, "cannot be read", "name the file"),
        (&["sign", "junk.qx", "--key", "acme.key"], 1, "error[unknown_format]", "packages are"),
        (&["sign", "a.qx", "--key", "nothing.key"], 1, "cannot be read", "name the file"),
        (&["sign", "a.qx", "--key", "acme.pub"], 1, "error[malformed_signature]", "keygen"),
        (&["sign", "a.qx", "--key", "acme.key"], 1, "nobody is there to ask", "--password-file"),
        (&with_other, 1, "error[wrong_password]", "--password-file"),
        (&["keygen", "acme", "--no-password"], 1, "is there already", "never written over"),
        (&["keygen", "x"], 1, "nobody is there to ask", "--password-file"),
        (&["keygen", "x", "--password-file", "no-password"], 1, "is empty", "first line"),
        (&["keygen", "x", "--no-password", "--password-file", "password"], 2, "cannot be used with", ""),
    ];
    let before = place.names();
    for (args, code, words, hint) in cases {
        let (found, stdout, stderr) = place.run(args);
        assert_eq!((found, stdout.as_str()), (Some(*code), ""), "{args:?}: {stderr}");
        assert!(stderr.contains(words) && stderr.contains(hint), "{args:?}: {stderr}");
    }
    assert_eq!(place.names(), before, "nothing was written");
    place.json(&["sign", "a.qx", "--key", "acme.key", "--password-file", "password"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = |name: &str| fs::metadata(place.path(name)).unwrap().permissions().mode() & 0o077;
        assert_eq!(mode("acme.key"), 0, "nobody else reads the secret key");
    }
}

/// Ctrl-C in the middle: the staging folder goes too.
#[cfg(unix)]
#[test]
fn an_interrupt_leaves_nothing() {
    let place = Place::new();
    let dir = place.extension();
    fs::File::create(place.path("hello/zeros")).unwrap().set_len(128 << 20).unwrap();
    place.json(&["pack", &dir, "--format", "tar", "--out", "a.tar"]);
    let staged = |name: &String| name.starts_with(".quadriga-unpack-");
    let mut child = command()
        .current_dir(place.0.path())
        .args(["unpack", "a.tar", "--out", "x"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while !place.names().iter().any(staged) && child.try_wait().unwrap().is_none() {
        std::thread::yield_now();
    }
    let pid = child.id().to_string();
    Command::new("kill").args(["-INT", &pid]).output().unwrap();
    let code = child.wait().unwrap().code();
    assert!(!place.names().iter().any(staged));
    // On a machine where it was done before the signal came, it is there.
    assert_eq!(code, Some(if place.path("x").exists() { 0 } else { 130 }));
}

/// minisign's own tool. `cargo xtask test` gets it.
fn minisign(place: &Place, args: &[&str], input: &str) -> (Option<i32>, String, String) {
    let program = std::env::var_os("QUADRIGA_MINISIGN").map_or_else(|| "minisign".into(), PathBuf::from);
    let mut command = Command::new(program);
    if let Some(library) = std::env::var_os("QUADRIGA_MINISIGN_LIBRARY") {
        command.env("LD_LIBRARY_PATH", library);
    }
    place.write("input", input);
    let input = fs::File::open(place.path("input")).unwrap();
    let run = command.current_dir(place.0.path()).args(args).stdin(Stdio::from(input)).output();
    text(run.expect("minisign is there: run `cargo xtask test`, or install it"))
}

#[test]
fn slow_minisign_and_quadriga_verify_each_other() {
    let place = Place::new();
    let dir = place.extension();
    place.write("password", "horse\n");
    place.json(&["keygen", "ours", "--no-password"]);
    place.json(&["keygen", "hidden", "--password-file", "password"]);
    let made = minisign(&place, &["-G", "-W", "-p", "theirs.pub", "-s", "theirs.key"], "");
    assert_eq!(made.0, Some(0), "{}", made.2);
    for (format, package) in [("qx", "a.qx"), ("zip", "a.zip"), ("npm", "a.tgz"), ("tar", "a.tar")] {
        place.json(&["pack", &dir, "--format", format, "--out", package]);
        for key in ["ours", "hidden", "theirs"] {
            let (secret, public) = (format!("{key}.key"), format!("{key}.pub"));
            let signature = format!("{package}.minisig");
            let args = ["sign", package, "--key", &secret, "--password-file", "password", "--force"];
            place.json(&args);
            let (code, stdout, stderr) = minisign(&place, &["-V", "-p", &public, "-m", package], "");
            assert_eq!(code, Some(0), "{key}: {stdout}{stderr}");
            assert!(stdout.contains("Signature and comment signature verified"), "{stdout}");

            let sign = ["-S", "-s", &secret, "-m", package, "-x", &signature, "-t", "by the tool"];
            let (code, stdout, stderr) = minisign(&place, &sign, "horse\n");
            assert_eq!(code, Some(0), "{key}: {stdout}{stderr}");
            let verified = place.json(&["verify", package, "--key", &public]);
            assert_eq!(verified["signer"]["comment"], "by the tool");
        }
        // Both refuse what was changed.
        let mut bytes = fs::read(place.path(package)).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(place.path(package), bytes).unwrap();
        assert_eq!(minisign(&place, &["-V", "-p", "theirs.pub", "-m", package], "").0, Some(1));
        assert_eq!(place.fails(&["verify", package, "--key", "theirs.pub"]), "wrong_signature");
    }
}

/// A key that the tool protects costs a gibibyte of memory to open.
#[test]
fn slow_minisign_keys_with_passwords_sign() {
    let place = Place::new();
    let dir = place.extension();
    place.write("password", "horse\n");
    place.json(&["pack", &dir, "--out", "a.qx"]);
    let made = minisign(&place, &["-G", "-p", "theirs.pub", "-s", "theirs.key"], "horse\nhorse\n");
    assert_eq!(made.0, Some(0), "{}", made.2);
    place.json(&["sign", "a.qx", "--key", "theirs.key", "--password-file", "password"]);
    let (code, stdout, stderr) = minisign(&place, &["-V", "-p", "theirs.pub", "-m", "a.qx"], "");
    assert_eq!(code, Some(0), "{stdout}{stderr}");
}
