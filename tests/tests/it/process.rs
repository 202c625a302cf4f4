//! Programs that the host runs for extensions in every language, in its own process and in workers.

use std::net::TcpListener;
use std::time::{Duration, Instant};
use std::{fs, thread};

use quadriga::abi::permission::{AccessKind, Permissions};
use quadriga::abi::{Error, ErrorCode, Isolation, Value};
use quadriga::{DecisionFilter, Dispatcher, Effect, LoadOptions, Policy, Reason, Subject, Verdict};
use quadriga_tests::{granted, guest, policy, with};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

/// Where each language runs.
const PLACES: [(&str, Isolation); 8] = [
    ("js", Isolation::InProcess),
    ("js", Isolation::Process),
    ("wasm", Isolation::InProcess),
    ("wasm", Isolation::Process),
    ("python", Isolation::None),
    ("python", Isolation::Process),
    ("native", Isolation::None),
    ("native", Isolation::Process),
];

/// Where the program is what attacks, it does not matter in which language it was asked for.
const LEVELS: [Isolation; 3] = [Isolation::InProcess, Isolation::Process, Isolation::Container];

struct Guest {
    host: Dispatcher,
    id: String,
    package: TempDir,
}

/// Status, signal, standard output and standard error.
type Said = (Option<i32>, Option<i32>, String, String);

impl Guest {
    async fn load(language: &str, isolation: Isolation, asks: &str) -> Self {
        let drain_timeout = Duration::from_millis(200);
        let policy = Policy { minimum_isolation: Isolation::None, drain_timeout, ..policy() };
        let host = quadriga::builder().policy(policy).build().unwrap();
        Self::load_into(host, language, isolation, asks).await
    }

    async fn load_into(host: Dispatcher, language: &str, isolation: Isolation, asks: &str) -> Self {
        let package = with(&guest("process", language), asks);
        let options = LoadOptions { isolation: Some(isolation), ..granted() };
        let id = host.load(package.path(), options).await.unwrap().to_string();
        assert_eq!(host.status(&id).unwrap().isolation, isolation);
        Self { host, id, package }
    }

    async fn call<R: DeserializeOwned>(&self, method: &str, arguments: &impl Serialize) -> Result<R, Error> {
        self.host.invoke(&self.id, method, arguments).await
    }

    async fn asked(&self, arguments: &impl Serialize) -> Result<Said, Error> {
        let said: Vec<Value> = self.call("run", arguments).await?;
        let number = |at: usize| said[at].to::<Option<i32>>().unwrap();
        let text = |at: usize| match &said[at] {
            Value::Bytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            other => panic!("no bytes: {other:?}"),
        };
        Ok((number(0), number(1), text(2), text(3)))
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> Result<Said, Error> {
        self.asked(&(program, arguments)).await
    }

    async fn shell(&self, script: &str) -> Said {
        self.run("sh", &["-c", script]).await.unwrap()
    }

    /// Has a program run beside what the test does.
    fn runs(&self, program: &str, arguments: &[&str]) -> tokio::task::JoinHandle<Result<Value, Error>> {
        let (host, id) = (self.host.clone(), self.id.clone());
        let asked = (program.to_owned(), arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>());
        tokio::spawn(async move { host.invoke(&id, "run", &asked).await })
    }
}

/// Whether a process of the machine has this among its arguments.
fn is_there(word: &str) -> bool {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes()))
}

fn until(what: &str, so: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < late, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn programs(names: &[&str]) -> Permissions {
    let subprocess = names.iter().map(|name| (*name).to_owned()).collect();
    Permissions { subprocess, ..Permissions::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_programs_run_for_every_language() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, isolation, "[permissions]\nsubprocess = ['sh', 'cat']").await;
        let said = guest.shell("echo $((6 * 7)); echo wrong >&2; exit 3").await;
        assert_eq!(said, (Some(3), None, "42\n".to_owned(), "wrong\n".to_owned()));
        let ended = |said: Said| (said.0, said.1, said.2);
        let fine = |text: &str| (Some(0), None, text.to_owned());
        let none: [&str; 0] = [];
        let said = guest.asked(&("cat", none, "what it reads")).await.unwrap();
        assert_eq!(ended(said), fine("what it reads"));
        let large = "x".repeat(1 << 20);
        assert_eq!(ended(guest.asked(&("cat", none, &large)).await.unwrap()), fine(&large));
        assert_eq!(ended(guest.shell("kill -9 $$").await), (None, Some(9), String::new()));
        let env = [("OWN", "a variable")].into_iter().collect::<std::collections::BTreeMap<_, _>>();
        let said = guest.asked(&("sh", ["-c", "echo $OWN"], (), env)).await.unwrap();
        assert_eq!(ended(said), fine("a variable\n"));
        let said = guest.asked(&("cat", ["quadriga.toml"], (), (), 20, ".")).await.unwrap();
        assert!(said.2.contains("subprocess = ['sh', 'cat']"), "{said:?}");
        // Its own folder is new each time.
        for _ in 0..2 {
            assert_eq!(
                ended(guest.shell("[ -e own ] || echo x > own; cat own; pwd >> own").await),
                fine("x\n")
            );
        }
        let error = guest.asked(&("sh", none, (), (), (), "nowhere")).await.unwrap_err();
        assert!(error.message.contains("nowhere: No such file or directory"), "{error:?}");
        assert_eq!(guest.host.accesses(&guest.id).unwrap()[&AccessKind::Subprocess].allowed, 9);
        assert!(guest.package.path().exists());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_who_may_not_is_denied_from_the_next_one_on() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let guest = Guest::load(language, isolation, "[permissions]\nsubprocess = ['true', 'sh']").await;
        let (host, id) = (&guest.host, &*guest.id);
        let caught: Vec<String> = guest.call("caught", &("ls",)).await.unwrap();
        assert_eq!(caught, ["permission_denied", &format!("{id} may not start ls")]);
        let last = || {
            let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
            host.decisions(id, &filter).unwrap().pop().unwrap()
        };
        let denied = last();
        assert_eq!((&*denied.what, denied.claimed, denied.call > 0), ("start ls", false, true));
        assert_eq!(denied.reason, Reason::Manifest);

        // One call has it run again and again, and is denied in its course.
        let persists = tokio::spawn({
            let (host, id) = (host.clone(), guest.id.clone());
            async move { host.invoke::<String>(&id, "persist", &("true",)).await }
        });
        until("it runs some", || host.accesses(id).unwrap()[&AccessKind::Subprocess].allowed > 2);
        let effect = host.revoke(id, &programs(&["true"])).unwrap();
        let ended = persists.await.unwrap();
        if isolation == Isolation::Process && ["python", "native"].contains(&language) {
            // Which could have started it by itself.
            let error = ended.unwrap_err();
            assert!(error.message.contains("it held subprocess \"true\""), "{error:?}");
            continue;
        }
        assert_eq!(ended.unwrap(), "permission_denied");
        let by_itself = isolation == Isolation::None;
        assert_eq!(effect, if by_itself { Effect::Never } else { Effect::Now });
        assert_eq!(host.status(id).unwrap().generation, 1, "it runs on");
        let caught: Vec<String> = guest.call("caught", &("true",)).await.unwrap();
        assert_eq!(caught[0], "permission_denied");
        assert!(matches!(last().reason, Reason::Revoked { .. }));
        assert_eq!(guest.shell("echo on").await.2, "on\n");
        let _ = host.grant(id, &programs(&["true"])).unwrap();
        assert_eq!(guest.run("true", &[]).await.unwrap().0, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_ends_with_what_it_runs_for() {
    // It does not end by itself, nor if it is asked to.
    let stubborn = |word: &str| format!("trap '' TERM INT HUP; while :; do sleep 1; done; echo {word}");
    for isolation in LEVELS {
        eprintln!("at {isolation}");
        let guest = Guest::load("js", isolation, "[permissions]\nsubprocess = ['sh', 'sleep']").await;
        let (host, id) = (&guest.host, &*guest.id);
        let begin = |word: &str| {
            let script = stubborn(word);
            let call = guest.runs("sh", &["-c", &script, word]);
            until("it runs", || is_there(word));
            call
        };
        let gone = |word: &str| until("it is gone", || !is_there(word));

        let late =
            guest.asked(&("sh", ["-c", &stubborn("t"), "timeout-7431"], (), (), 0.3)).await.unwrap_err();
        assert_eq!(late.code, ErrorCode::DeadlineExceeded, "{late:?}");
        assert!(late.message.contains("sh did not end within its timeout"), "{late:?}");
        gone("timeout-7431");
        let given_up = begin("given-up-7431");
        given_up.abort();
        gone("given-up-7431");
        let revoked = begin("revoked-7431");
        assert_eq!(host.revoke(id, &programs(&["sleep"])).unwrap(), Effect::Now);
        let error = revoked.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        gone("revoked-7431");
        assert_eq!(host.grant(id, &programs(&["sleep"])).unwrap(), Effect::Now);
        let quarantined = begin("quarantined-7431");
        host.quarantine(id, "for a test").unwrap();
        assert!(quarantined.await.unwrap().is_err());
        gone("quarantined-7431");
        host.resume(id).await.unwrap();
        // What it leaves behind ends with it.
        let said =
            guest.shell("(trap '' HUP; exec sleep 7431.25) > /dev/null 2>&1 < /dev/null & echo left").await;
        assert_eq!((said.0, &*said.2), (Some(0), "left\n"));
        gone("7431.25");
        let unloaded = begin("unloaded-7431");
        let host = guest.host.clone();
        let unloads = tokio::spawn({
            let id = guest.id.clone();
            async move { host.unload(&id).await }
        });
        assert!(unloaded.await.unwrap().is_err());
        unloads.await.unwrap().unwrap();
        gone("unloaded-7431");
    }
}

/// Says which files it was started with, and which variables.
const BELONGINGS: &str = "
import os

def is_open(number):
    try:
        os.fstat(number)
        return True
    except OSError:
        return False

print([number for number in range(1024) if is_open(number)], sorted(os.environ))
";

/// Runs a copy of a program that it may run.
const OWN_PROGRAM: &str = "
import os, shutil
shutil.copyfile(shutil.which('cat'), 'own')
os.chmod('own', 0o700)
os.execv('./own', ['own', '/dev/null'])
";

/// Forks until it is refused or has made 200, each of which ends with it.
const BOMB: &str = "
import os
made, (stop, held) = 0, os.pipe()
try:
    for _ in range(200):
        if os.fork() == 0:
            os.close(held)
            os.read(stop, 1)
            os._exit(0)
        made += 1
except OSError:
    pass
print(made)
";

#[tokio::test(flavor = "multi_thread")]
async fn a_program_reaches_nothing_that_was_not_granted() {
    let home = tempfile::tempdir().unwrap();
    let (secret, outside) = (home.path().join("secret"), home.path().join("outside"));
    fs::write(&secret, "the canary").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    for isolation in LEVELS {
        eprintln!("at {isolation}");
        let asks = "[permissions]\nsubprocess = ['sh', 'cat', 'python3']\nnet = ['127.0.0.1:*']";
        let guest = Guest::load("js", isolation, asks).await;
        for path in [secret.to_str().unwrap(), "/etc/passwd", "/proc/1/environ"] {
            let said = guest.run("cat", &[path]).await.unwrap();
            assert_eq!((said.0, &*said.2), (Some(1), ""), "{path}: {said:?}");
        }
        let said = guest.shell(&format!("echo x > {}", outside.display())).await;
        assert!(said.0 != Some(0) && !outside.exists(), "{said:?}");
        let said = guest.run("python3", &["-c", OWN_PROGRAM]).await.unwrap();
        assert!(said.0 == Some(1) && said.3.contains("PermissionError"), "{said:?}");
        // Programs that were not granted.
        let said = guest.shell("ls /; echo $?").await;
        assert!(["126\n", "127\n"].contains(&&*said.2), "{said:?}");
        let said = guest.shell("kill -9 1; echo $?").await;
        assert_eq!(said.1, None, "{said:?}");
        // The network is the extension's, and not the program's.
        let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5)");
        let said = guest.run("python3", &["-c", &connect]).await.unwrap();
        assert!(said.0 == Some(1) && said.3.contains("PermissionError"), "{said:?}");
        assert!(listener.accept().is_err(), "nobody has connected");
        let refused = DecisionFilter { subject: Some(Subject::Kernel), ..DecisionFilter::default() };
        let refused = guest.host.decisions(&guest.id, &refused).unwrap();
        assert!(refused.iter().any(|one| one.what.contains("socket (family 2)")), "{refused:?}");
        let said = guest.run("python3", &["-c", BELONGINGS]).await.unwrap();
        assert_eq!(said.2, "[0, 1, 2] ['HOME', 'LANG', 'PATH', 'TMPDIR']\n", "{said:?}");
        let said = guest.run("python3", &["-c", BOMB]).await.unwrap();
        assert!((1..64).contains(&said.2.trim().parse().unwrap()), "{said:?}");
        let memory = "import os; os.memfd_create('x')";
        let said = guest.run("python3", &["-c", memory]).await.unwrap();
        assert!(said.3.contains("OSError"), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_limits_hold_for_programs_too() {
    for isolation in [Isolation::InProcess, Isolation::Process] {
        eprintln!("at {isolation}");
        let limits =
            "[limits]\nmemory = '64MiB'\ncpu-time = '1s'\n[permissions]\nsubprocess = ['sh', 'python3']";
        let guest = Guest::load("js", isolation, limits).await;
        let failed = async |program, words: &[&str]| guest.run(program, words).await.unwrap_err();
        let error =
            failed("sh", &["-c", "while :; do echo 0123456789012345678901234567890123456789; done"]).await;
        assert_eq!(error.code, ErrorCode::MessageTooLarge, "{error:?}");
        assert!(error.message.contains("sh printed more than 16MiB, and was ended"), "{error:?}");
        let error = failed("python3", &["-c", "x = bytearray(1 << 30)"]).await;
        assert_eq!(error.code, ErrorCode::MemoryLimit, "{error:?}");
        let error = failed("sh", &["-c", "while :; do :; done"]).await;
        assert_eq!(error.code, ErrorCode::CpuLimit, "{error:?}");
        // Nothing of that is held against the extension.
        assert_eq!(guest.shell("echo on").await.2, "on\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_run_is_refused() {
    let asks = "[permissions]\nsubprocess = ['no-such-program', 'sh', '/etc/passwd']";
    let guest = Guest::load("js", Isolation::InProcess, asks).await;
    for program in ["no-such-program", "/etc/passwd"] {
        let error = guest.run(program, &[]).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::LoadFailed, "{error:?}");
        let says = format!("the program {program:?}, which was granted, is not on this machine");
        assert_eq!(error.message, says);
    }
    assert_eq!(guest.shell("echo fine").await.2, "fine\n");
    let host = quadriga::builder_with_worker("/nowhere/worker").build().unwrap();
    let guest = Guest::load_into(host, "js", Isolation::InProcess, asks).await;
    let error = guest.run("sh", &[]).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::IsolationUnavailable, "{error:?}");
}
