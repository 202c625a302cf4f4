//! The `quadriga` command as its users run it.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use quadriga_tests::{example, guest, repository};
use serde_json::{Value as Json, json};

/// What a run of the command came to.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Run {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error} in {:?}; stderr {:?}", self.stdout, self.stderr))
    }
}

/// The built command, without the caller's environment for logs and colours.
pub(crate) fn command() -> Command {
    let default = || repository().join("target/debug/quadriga");
    let path = std::env::var_os("QUADRIGA_BIN").map_or_else(default, PathBuf::from);
    assert!(path.is_file(), "{} is missing: run `cargo build -p quadriga-cli`", path.display());
    let mut command = Command::new(path);
    command.env_remove("RUST_LOG").env_remove("NO_COLOR").env_remove("CLICOLOR_FORCE").stdin(Stdio::null());
    command
}

pub(crate) fn quadriga(args: &[&str]) -> Run {
    finished(command().args(args).output().unwrap())
}

fn finished(output: Output) -> Run {
    Run {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn every_language_is_called_alike() {
    for (language, runtime, isolation) in [
        ("js", "javascript", "in-process"),
        ("python", "python", "none"),
        ("wasm", "webassembly", "in-process"),
        ("native", "native", "none"),
    ] {
        let dir = example("hello", language);
        let run = quadriga(&["call", text(&dir), "greet", "\"Ada\"", "--json"]);
        assert_eq!(run.code, Some(0), "{language}: {}", run.stderr);
        let answer = run.json();
        let result = answer["result"].as_str().unwrap();
        assert!(result.starts_with("Hello, Ada"), "{language}: {result}");
        assert_eq!(answer["extension"], format!("hello.{language}"));
        assert_eq!(answer["runtime"], runtime);
        assert_eq!(answer["isolation"], isolation);
        assert!(answer["ms"].as_f64().unwrap() > 0.0);

        let plain = quadriga(&["call", text(&dir), "greet", "\"Ada\""]);
        assert_eq!((plain.code, plain.json()), (Some(0), json!(result)), "{language}");
        assert_eq!(plain.stderr, format!("hello.{language}: greeting Ada\n"));

        let inspected = quadriga(&["inspect", text(&dir), "--json"]).json();
        assert_eq!(inspected["manifest"]["runtime"]["kind"], runtime);
        assert_eq!(inspected["loaded"]["isolation"], isolation);
        let greet = &inspected["loaded"]["methods"][0];
        assert_eq!((&greet["name"], &greet["parameters"][0]["name"]), (&json!("greet"), &json!("name")));
    }
}

#[test]
fn arguments_are_a_list_or_one_value() {
    let dir = guest("relay", "python");
    for (method, arguments, expected) in [
        ("add", "[2, -3]", json!(-1)),
        ("echo", "{\"a\": [1.5, null]}", json!({"a": [1.5, null]})),
        ("echo", "[[1, 2]]", json!([1, 2])),
        ("echo", "-7", json!(-7)),
        ("echo", "18446744073709551615", json!(u64::MAX)),
    ] {
        let run = quadriga(&["call", text(&dir), method, arguments]);
        assert_eq!(run.code, Some(0), "{arguments}: {}", run.stderr);
        assert_eq!(run.json(), expected, "{arguments}");
    }
    let mut child = command()
        .args(["call", text(&dir), "echo", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"\"from outside\"").unwrap();
    assert_eq!(finished(child.wait_with_output().unwrap()).json(), json!("from outside"));
}

#[test]
fn settings_grants_and_others_are_options() {
    let (js, python) = (guest("relay", "js"), guest("relay", "python"));
    let (js, python) = (text(&js), text(&python));
    let setting = quadriga(&["call", python, "setting", "\"colour\""]);
    assert_eq!(setting.json(), json!("green"));
    let setting = quadriga(&["call", python, "setting", "\"colour\"", "--config", "colour=\"red\""]);
    assert_eq!(setting.json(), json!("red"));

    let relay = ["call", js, "relay", "[\"relay.python\", \"add\", [1, 2]]", "--with", python];
    assert_eq!(quadriga(&relay).json(), json!(3));
    let denied = quadriga(&[&relay[..], &["--grant", "none", "--json"]].concat());
    assert_eq!((denied.code, &denied.json()["error"]["code"]), (Some(1), &json!("permission_denied")));
}

#[test]
fn errors_have_code_stack_and_causes() {
    let (js, python) = (guest("relay", "js"), guest("relay", "python"));
    let arguments = "[\"relay.python\", \"fail\", [\"no \\u001b[31mhay\"]]";
    let args = ["call", text(&js), "relay", arguments, "--with", text(&python)];
    let run = quadriga(&args);
    assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""));
    assert!(run.stderr.starts_with("error[extension_error]: "), "{}", run.stderr);
    for part in
        ["no \\u{1b}[31mhay", "  in relay.", "  stack:\n", "  caused by[extension_error]: ", "main.py"]
    {
        assert!(run.stderr.contains(part), "{part:?} is not in {}", run.stderr);
    }
    assert!(!run.stderr.contains('\x1b'), "no escape sequence of a guest reaches the terminal");

    let run = quadriga(&[&args[..], &["--json"]].concat());
    assert_eq!(run.code, Some(1));
    let answer = run.json();
    assert_eq!(answer["extension"], "relay.js");
    assert_eq!(answer["error"]["code"], "extension_error");
    assert_eq!(answer["error"]["cause"]["extension"], "relay.python");
    assert!(answer["error"]["cause"]["stack"].as_str().unwrap().contains("main.py"));
}

#[test]
fn exit_codes_tell_failed_from_misused() {
    let folder = tempfile::tempdir().unwrap();
    let empty = text(folder.path());
    let js = guest("relay", "js");
    let js = text(&js);
    let cases: &[(&[&str], i32, &str)] = &[
        (&[], 2, "Usage:"),
        (&["gallop"], 2, "unrecognized subcommand"),
        (&["call", js], 2, "required arguments"),
        (&["call", js, "echo", "{bad"], 2, "not JSON"),
        (&["call", js, "echo", "text"], 2, "in quotes"),
        (&["call", js, "echo", "1", "--timeout", "soon"], 2, "no time span"),
        (&["call", js, "echo", "1", "--config", "colour"], 2, "KEY=JSON"),
        (&["call", js, "echo", "1", "--isolation", "moat"], 2, "no isolation level"),
        (&["completions", "csh"], 2, "invalid value"),
        (&["inspect", empty], 1, "error[invalid_manifest]"),
        (&["inspect", "/nowhere"], 1, "a folder with a quadriga.toml"),
        (&["call", empty, "echo"], 1, "error[invalid_manifest]"),
        (&["call", js, "ecko", "1"], 1, "did you mean \"echo\"?"),
        (&["call", js, "echo"], 1, "error[invalid_arguments]"),
        (&["call", js, "echo", "1", "--isolation", "vm"], 1, "error[isolation_unavailable]"),
        (&["call", js, "echo", "1", "--with", js], 1, "error[already_loaded]"),
        (&["call", js, "spin", "--timeout", "300ms"], 1, "error[deadline_exceeded]"),
    ];
    for (args, code, words) in cases {
        let run = quadriga(args);
        assert_eq!(run.code, Some(*code), "{args:?}: {}{}", run.stdout, run.stderr);
        assert!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
        assert_eq!(run.stdout, "", "{args:?}");
        if *code == 1 {
            let run = quadriga(&[*args, &["--json"]].concat());
            assert_eq!((run.code, run.stderr.as_str()), (Some(1), ""), "{args:?}");
            assert!(run.json()["error"]["code"].is_string(), "{args:?}");
        }
    }
}

#[test]
fn what_is_not_loaded_does_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = "[extension]\nid = 'a.b'\nversion = '1.0.0'\ndescription = 'Counts \\u001b[2J horses'\n\
        [runtime]\nkind = 'javascript'\nentry = 'main.js'\n[permissions]\ncall = ['c.d/e']\nkv = true\n\
        [limits]\ncall-timeout = '2s'\n"
        .replace("'Counts \\u001b[2J horses'", "\"Counts \\u001b[2J horses\"");
    std::fs::write(folder.path().join("quadriga.toml"), &manifest).unwrap();
    std::fs::write(folder.path().join("main.js"), "throw new Error('it ran')").unwrap();
    let dir = text(folder.path());
    let run = quadriga(&["inspect", dir, "--no-load"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for part in
        ["a.b 1.0.0", "Counts \\u{1b}[2J horses", "javascript, main.js", "call c.d/e; kv", "call-timeout 2s"]
    {
        assert!(run.stdout.contains(part), "{part:?} is not in {}", run.stdout);
    }
    assert_eq!(quadriga(&["inspect", dir, "--no-load", "--json"]).json()["loaded"], Json::Null);

    let file = folder.path().join("quadriga.toml");
    std::fs::write(&file, manifest.replace("[limits]", "[limit]")).unwrap();
    let run = quadriga(&["inspect", dir, "--no-load"]);
    assert_eq!(run.code, Some(1));
    assert!(
        run.stderr.contains(&format!("{}:11:2: unknown field `limit`", file.display())),
        "{}",
        run.stderr
    );
}

#[test]
fn the_schema_describes_the_manifest() {
    let schema = quadriga(&["schema"]).json();
    assert_eq!(schema["required"], json!(["extension", "runtime"]));
    assert!(schema["properties"]["permissions"].is_object());
}

#[test]
fn the_doctor_knows_this_build_and_the_specification() {
    let build = quadriga(&["doctor", "--json"]).json();
    let runtimes = build["runtimes"].as_array().unwrap();
    let present: Vec<_> =
        runtimes.iter().filter(|row| row["present"] == true).map(|row| &row["runtime"]).collect();
    assert_eq!(present, ["javascript", "native", "python", "webassembly"]);
    for (runtime, weakest) in [(0, "in-process"), (1, "none"), (2, "none"), (3, "in-process")] {
        let levels =
            [&[weakest][..], if cfg!(target_os = "linux") { &["process", "container"] } else { &[] }]
                .concat();
        assert_eq!(runtimes[runtime]["isolation"], json!(levels));
    }
    let dependencies = std::fs::read_to_string(repository().join("Cargo.lock")).unwrap();
    for (runtime, package) in [(1, "abi_stable"), (3, "wasmtime")] {
        let (name, version) = runtimes[runtime]["engine"].as_str().unwrap().split_once(' ').unwrap();
        assert_eq!(name.to_lowercase(), package);
        assert!(
            dependencies.contains(&format!("name = \"{package}\"\nversion = \"{version}\"")),
            "{name} {version}"
        );
    }
    let spec = quadriga(&["doctor", "--spec", "--json"]).json();
    assert_eq!(spec["services"].as_array().unwrap().len(), 4);
    assert_eq!(spec["methods"].as_array().unwrap().len(), 66);
    assert_eq!(spec["entities"][0]["name"], "ExtensionPackage");
    let table = quadriga(&["doctor", "--spec"]);
    assert!(table.stdout.lines().last().unwrap().ends_with("66"), "{}", table.stdout);
}

#[test]
fn every_shell_has_completions() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let run = quadriga(&["completions", shell]);
        assert!(run.code == Some(0) && run.stdout.contains("inspect"), "{shell}");
        let run = quadriga(&["completions", shell, "--json"]);
        assert_eq!(run.json()["shell"], shell);
    }
}

#[test]
fn each_command_has_a_page_of_the_manual() {
    let folder = tempfile::tempdir().unwrap();
    let made = quadriga(&["man", text(folder.path()), "--json"]).json();
    let mut names: Vec<&str> =
        made["pages"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    names.sort_unstable();
    // What the help lists, one level after the other.
    let mut commands = vec![Vec::new()];
    let mut expected = Vec::new();
    while let Some(path) = commands.pop() {
        let help = quadriga(&[&path[..], &["-h"]].concat()).stdout;
        let listed = help.split_once("Commands:\n").map_or("", |(_, rest)| rest);
        let listed = listed.lines().take_while(|line| !line.is_empty());
        let below = listed.filter_map(|line| line.strip_prefix("  ")).filter(|line| !line.starts_with(' '));
        for name in below.filter_map(|line| line.split(' ').next()).filter(|name| *name != "help") {
            commands.push([&path[..], &[String::leak(name.to_owned())]].concat());
        }
        expected.push(format!("{}.1", [&["quadriga"], &path[..]].concat().join("-")));
    }
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert!(names.contains(&"quadriga-licences-policy.1") && !names.contains(&"quadriga-worker.1"));
    for name in names {
        let page = std::fs::read_to_string(folder.path().join(name)).unwrap();
        let command = name.strip_suffix(".1").unwrap().replace('-', "\\-");
        assert!(page.contains(&format!(".SH NAME\n{command} \\- ")), "{name}: {page}");
        for part in [".TH ", ".SH SYNOPSIS\n", ".SH DESCRIPTION\n", ".SH OPTIONS\n"] {
            assert!(page.contains(part), "{name} has no {part}");
        }
        let closing = if name == "quadriga.1" { ".SH NOTES\n.nf\n" } else { ".SH EXAMPLES\n.nf\n" };
        assert!(page.contains(closing) && page.contains("\n.fi\n"), "{name} has no {closing}");
    }
    let one = quadriga(&["man"]).stdout;
    assert_eq!(one.trim_end(), std::fs::read_to_string(folder.path().join("quadriga.1")).unwrap().trim_end());
}

#[test]
fn help_has_examples() {
    for command in [
        "inspect",
        "call",
        "demo",
        "doctor",
        "completions",
        "pack",
        "unpack",
        "sign",
        "verify",
        "keygen",
        "trust",
        "pin",
        "grants",
        "licences",
        "man",
        "dead-letters",
        "rollback",
        "schema",
    ] {
        let run = quadriga(&[command, "--help"]);
        assert!(run.code == Some(0) && run.stdout.contains("Examples:\n  "), "{command}");
    }
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_it_with_130() {
    let dir = guest("relay", "js");
    let mut child = command()
        .args(["call", text(&dir), "spin", "--verbose"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = BufReader::new(child.stderr.take().unwrap());
    let mut lines = stderr.lines().map(Result::unwrap);
    assert!(lines.any(|line| line.starts_with("loaded relay.js")));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
}

#[test]
fn operators_see_what_was_decided_and_what_holds() {
    let dir = guest("hostile", "python");
    let dir = text(&dir);
    let call = ["call", dir, "read_file", "\"/etc/shadow\"", "--isolation", "process", "--report"];
    let run = quadriga(&[&call[..], &["--json", "--limit", "call-timeout=30s"]].concat());
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let report = &run.json()["report"];
    assert_eq!(report["isolation"], "process");
    assert!(report["layers"].as_array().unwrap().iter().any(|layer| layer["name"] == "seccomp"));
    assert_eq!(report["decisions"][0]["what"], "read /etc/shadow");
    assert_eq!((&report["accesses"]["fs"]["denied"], &report["usage"]["denied"]), (&json!(1), &json!(1)));
    let plain = quadriga(&call);
    assert!(plain.stderr.contains("denied") && plain.stderr.contains("read /etc/shadow"), "{}", plain.stderr);
    let js = guest("relay", "js");
    for (limit, code, words) in [
        ("call-timeout=1us", 1, "deadline"),
        ("memry=1KiB", 1, "unknown field `memry`"),
        ("memory", 2, "expected NAME=VALUE"),
        ("memory=much", 1, "no size"),
    ] {
        let run = quadriga(&["call", text(&js), "add", "[1, 2]", "--limit", limit]);
        assert_eq!(run.code, Some(code), "{limit}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{limit}: {}", run.stderr);
    }
    let inspected = quadriga(&["inspect", dir, "--isolation", "process"]);
    assert!(
        inspected.stdout.contains("Held by") && inspected.stdout.contains("Landlock"),
        "{}",
        inspected.stdout
    );
}
