//! Loose pieces of source code in each interpreted language.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use quadriga::abi::limits::{ByteSize, Span};
use quadriga::abi::{ErrorCode, Isolation, Value};
use quadriga::{Executed, Snippet};
use quadriga_tests::host;
use serde_json::{Value as Json, json};

use crate::cli::{command, quadriga};

async fn run(language: &str, source: &str, parameters: Json, isolation: Isolation) -> Executed {
    let mut snippet = Snippet::new(language, source);
    snippet.parameters = Value::from(parameters).to_bytes().unwrap().into();
    snippet.isolation = isolation;
    host().execute(snippet).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn source_comes_to_a_value() {
    let cases = [
        ("javascript", "export default 6 * 7;", json!([]), json!(42)),
        ("js", "export default (a, b) => a + b;", json!([2, 3]), json!(5)),
        (
            "js",
            "const { n } = await Promise.resolve({ n: 1 });\nexport default async () => n;",
            json!([]),
            json!(1),
        ),
        (
            "typescript",
            "interface P { n: number }\nexport default (p: P): number => p.n;",
            json!([{"n": 4}]),
            json!(4),
        ),
        ("python", "import math\nmath.gcd(12, 18)", json!([]), json!(6)),
        ("python", "parameters[0] + len(parameters)", json!([5, 6]), json!(7)),
        ("py", "def main(a, *more):\n    return [a, list(more)]\n", json!([1, 2, 3]), json!([1, [2, 3]])),
        (
            "python",
            "import asyncio\nasync def main():\n    await asyncio.sleep(0)\n    return 'done'",
            json!([]),
            json!("done"),
        ),
        ("python", "x = 1", json!([]), json!(null)),
        (
            "python",
            "from dataclasses import dataclass\n@dataclass\nclass P:\n    n: int\nP(3).n",
            json!([]),
            json!(3),
        ),
    ];
    for (language, source, parameters, expected) in cases {
        let isolation = if language.starts_with('p') { Isolation::Process } else { Isolation::InProcess };
        // The weakest that has a barrier, and in a process.
        for (asked, reached) in [(Isolation::InProcess, isolation), (Isolation::Process, Isolation::Process)]
        {
            let executed = run(language, source, parameters.clone(), asked).await;
            let value = executed.result.unwrap_or_else(|error| panic!("{source}: {error:?}"));
            assert_eq!(Value::from_bytes(&value).unwrap().to_json(), expected, "{source}");
            assert_eq!(executed.isolation, reached, "{source}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_name_the_lines_of_the_source() {
    let cases = [
        ("js", "\nexport default () => {\n  throw new Error('no hay');\n};", "no hay", "snippet.js:3:"),
        ("ts", "const n: number = 1;\n\nthrow new Error('no ' + n);", "no 1", "snippet.ts:3:"),
        ("js", "const n = ;", "nexpected token", "snippet.js:1:"),
        ("js", "1 + 1", "no default export", ""),
        ("python", "x = 1\n\nraise ValueError('no hay')", "ValueError: no hay", "\"snippet.py\", line 3"),
        ("python", "def main():\n  return 1 / 0", "division by zero", "\"snippet.py\", line 2"),
        ("python", "x = 1\nx +* 2", "snippet.py:2:", ""),
    ];
    for (language, source, message, stack) in cases {
        let error = run(language, source, json!([]), Isolation::InProcess).await.result.unwrap_err();
        let text = format!("{}\n{}", error.message, error.stack.clone().unwrap_or_default());
        assert!(error.message.contains(message), "{source}: {error:?}");
        assert!(text.contains(stack), "{source}: {error:?}");
        assert!(!text.contains("quadriga"), "our own file is in {error:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_is_bounded() {
    let host = host();
    for (language, source) in [("js", "export default () => { for (;;); }"), ("python", "while True: pass")] {
        let mut snippet = Snippet::new(language, source);
        snippet.limits.call_timeout = Some(Span(Duration::from_millis(300)));
        let error = host.execute(snippet).await.unwrap().result.unwrap_err();
        assert_eq!(error.code, ErrorCode::DeadlineExceeded, "{language}: {error:?}");
    }
    let greedy = [
        ("js", "const all = []; for (;;) all.push(new Array(1e5).fill(1.5)); export default 1;"),
        ("python", "b'x' * (1 << 30)"),
    ];
    for (language, source) in greedy {
        let mut snippet = Snippet::new(language, source);
        snippet.limits.memory = Some(ByteSize(96 << 20));
        let error = host.execute(snippet).await.unwrap().result.unwrap_err();
        // Python may notice itself, in a process whose data is limited.
        let memory = error.code == ErrorCode::MemoryLimit || error.message.contains("MemoryError");
        assert!(memory, "{language}: {error:?}");
    }
    let read = "open('/etc/hostname').read()";
    let error = run("python", read, json!([]), Isolation::Process).await.result.unwrap_err();
    assert!(error.message.contains("PermissionError"), "{error:?}");
}

#[test]
fn the_command_runs_source_from_a_shell() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let sum = file("sum.ts", "export default (a: number, b: number) => a + b");
    let run =
        quadriga(&["exec", "--language", "ts", &sum, "--param", "2", "--param", "-3", "--json", "--report"]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    let answer = run.json();
    assert_eq!((&answer["result"], &answer["isolation"]), (&json!(-1), &json!("in-process")));
    assert_eq!(answer["report"]["usage"]["calls"], 1);
    let bad = file("bad.py", "1 / 0");
    let run = quadriga(&["exec", "--language", "python", &bad]);
    assert_eq!(run.code, Some(1), "{}", run.stdout);
    assert!(
        run.stderr.contains("ZeroDivisionError") && run.stderr.contains("\"snippet.py\", line 1"),
        "{}",
        run.stderr
    );
    let language = file("language", "python");
    let report = file("env.py", "import os\nos.environ.get('PATH') is None");
    for (arguments, code, words) in [
        (vec!["exec", &sum], 2, "--language"),
        (vec!["exec", "--language", "rust", &sum], 1, "no runtime here runs source in"),
        (vec!["exec", "--language", "native", &sum], 1, "runs what has been compiled"),
        (vec!["exec", "--language", "js", &sum, "--limit", "memry=1"], 1, "unknown field `memry`"),
        (vec!["exec", "--language", "js", &language, "--permission", "fs=7"], 1, "cannot be granted"),
        (vec!["exec", "--language", "python", &report, "--report"], 0, "seccomp"),
    ] {
        let run = quadriga(&arguments);
        assert_eq!(run.code, Some(code), "{arguments:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{arguments:?}: {}", run.stderr);
    }
}

/// Ctrl-C leaves nothing of the source.
#[test]
fn an_interrupted_command_takes_its_folder_along() {
    let place = tempfile::tempdir().unwrap();
    let endless = place.path().join("endless.js");
    std::fs::write(&endless, "export default () => { for (;;); }").unwrap();
    let folders = || {
        let names = std::fs::read_dir(place.path()).unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with("quadriga-host-")).count()
    };
    let mut child = command()
        .args(["exec", "--language", "js", "--timeout", "60s", endless.to_str().unwrap()])
        .env("TMPDIR", place.path())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while folders() == 0 {
        assert!(Instant::now() < until, "it did not begin");
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(Duration::from_millis(300));
    let interrupt = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    assert_eq!(folders(), 0);
}

/// It could not remove what it had made: the next one of the same user does.
#[test]
fn what_a_killed_host_left_goes_with_the_next() {
    let (temporary, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let exec = |name: &str, source: &str| {
        let file = sources.path().join(name);
        std::fs::write(&file, source).unwrap();
        let mut command = command();
        command.args(["exec", "--language", "python"]).arg(file).env("TMPDIR", temporary.path());
        command
    };
    let within = |folder: &Path| -> Vec<PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let mut killed = exec("long.py", "import time\ntime.sleep(60)");
    let mut killed = killed.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    // The place of the source, and that of its worker.
    while within(temporary.path()).iter().map(|host| within(host).len()).sum::<usize>() < 2 {
        assert!(Instant::now() < until, "{:?}", within(temporary.path()));
        std::thread::sleep(Duration::from_millis(5));
    }
    killed.kill().unwrap();
    killed.wait().unwrap();
    assert_eq!(within(temporary.path()).len(), 1, "it was killed before it could clean up");
    let next = exec("short.py", "6 * 7").output().unwrap();
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(within(temporary.path()), Vec::<PathBuf>::new());
}
