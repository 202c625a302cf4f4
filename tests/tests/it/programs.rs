//! Programs that extensions start: those that were granted run, held by what holds the extension, and
//! no others.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use quadriga::abi::permission::AccessKind;
use quadriga::abi::{Error, ErrorCode, Isolation};
use quadriga::{DecisionFilter, Dispatcher, Effect, LoadOptions, State, Verdict};
use quadriga_tests::{granted, guest, policy, with};
use tempfile::TempDir;

const PLACES: [(&str, Isolation); 4] = [
    ("python", Isolation::Process),
    ("python", Isolation::Container),
    ("native", Isolation::Process),
    ("native", Isolation::Container),
];

struct Guest {
    host: Dispatcher,
    id: String,
    _package: TempDir,
}

impl Guest {
    async fn load(language: &str, isolation: Isolation, asks: &str) -> Result<Self, Error> {
        let host = quadriga::builder().policy(policy()).build().unwrap();
        let package = with(&guest("programs", language), asks);
        let options = LoadOptions { isolation: Some(isolation), ..granted() };
        let id = host.load(package.path(), options).await?.to_string();
        Ok(Self { host, id, _package: package })
    }

    async fn run(&self, argv: &[&str]) -> Result<String, Error> {
        self.host.invoke(&self.id, "run", &(argv,)).await
    }

    /// It may not start a program, and its host knows where its engine knows.
    async fn is_denied(&self, argv: &[&str]) {
        let error = self.run(argv).await.unwrap_err();
        if self.id == "programs.native" {
            // In a container there is no such file.
            let says = ["Permission denied", "No such file"];
            assert!(says.iter().any(|says| error.message.contains(says)), "{error:?}");
            return;
        }
        assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
        let what = format!("start {}", argv[0]);
        assert!(error.message.contains(&format!("may not {what}")), "{error:?}");
        let filter = DecisionFilter { verdict: Some(Verdict::Denied), ..DecisionFilter::default() };
        let denied = self.host.decisions(&self.id, &filter).unwrap();
        assert_eq!(denied.last().map(|decision| &*decision.what), Some(&*what), "{denied:?}");
    }
}

fn until(what: &str, so: impl Fn() -> bool) {
    let late = Instant::now() + Duration::from_secs(20);
    while !so() {
        assert!(Instant::now() < late, "not in time: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_granted_runs_and_nothing_else() {
    let cat = ["/usr/bin/cat", "/bin/cat"].into_iter().find(|path| fs::exists(path).unwrap()).unwrap();
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let asks = format!("[permissions]\nsubprocess = ['sh', {cat:?}]");
        let guest = Guest::load(language, isolation, &asks).await.unwrap();
        assert_eq!(guest.run(&["sh", "-c", "echo $((6 * 7))"]).await.unwrap(), "0 42\n");
        assert_eq!(guest.run(&["sh", "-c", "echo out | cat; exit 3"]).await.unwrap(), "3 out\n");
        assert_eq!(guest.run(&[cat, "/dev/null"]).await.unwrap(), "0 ");
        guest.is_denied(&["ls", "/"]).await;
        // Nor does what it started start others.
        let said = guest.run(&["sh", "-c", "ls /; echo $?"]).await.unwrap();
        assert!(said.contains("126") || said.contains("127"), "{said}");
        // What it wrote is no program.
        let wrote = "cat < /usr/bin/env > own; printf '#!/bin/sh\\necho ran' > script; chmod 700 own script; \
                     ./own; ./script";
        let said = guest.run(&["sh", "-c", wrote]).await.unwrap();
        assert!(!said.contains("ran"), "{said}");
        assert!(said.contains("ermission denied"), "{said}");
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

#[tokio::test(flavor = "multi_thread")]
async fn programs_get_no_files_and_no_variables_but_the_extensions() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let asks = "[permissions]\nsubprocess = ['python3']\nenv = ['CARGO_PKG_NAME']";
        let guest = Guest::load(language, isolation, asks).await.unwrap();
        let said = guest.run(&["python3", "-c", BELONGINGS]).await.unwrap();
        let variables = "['CARGO_PKG_NAME', 'HOME', 'LANG', 'PATH', 'TMPDIR']";
        assert_eq!(said, format!("0 [0, 1, 2] {variables}\n"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_memory_is_no_program() {
    for isolation in [Isolation::Process, Isolation::Container] {
        let guest = Guest::load("python", isolation, "[permissions]\nsubprocess = ['sh']").await.unwrap();
        let script = ("/bin/sh", "exit 7");
        let ended: i64 = guest.host.invoke(&guest.id, "from_memory", &script).await.unwrap();
        assert_ne!(ended, 7, "{isolation}: it ran");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn in_python_every_way_to_start_one_is_asked_for() {
    for isolation in [Isolation::Process, Isolation::Container] {
        every_way_is_asked_for(isolation).await;
    }
}

async fn every_way_is_asked_for(isolation: Isolation) {
    let guest = Guest::load("python", isolation, "[permissions]\nsubprocess = ['sh']").await.unwrap();
    let (host, id) = (&guest.host, &*guest.id);
    let script = ["sh", "-c", "exit 5"];
    for way in ["spawn", "fork"] {
        assert_eq!(host.invoke::<i64>(id, way, &(script,)).await.unwrap(), 5, "{way}");
    }
    assert_eq!(host.invoke::<i64>(id, "shell", &("exit 6",)).await.unwrap(), 6);
    let error = host.invoke::<i64>(id, "spawn", &(["cat", "/dev/null"],)).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::PermissionDenied, "{error:?}");
    let hint = "ask for it in the manifest, [permissions] subprocess = [\"cat\"]";
    let error = guest.run(&["cat"]).await.unwrap_err();
    assert!(error.hint.as_deref().unwrap_or_default().contains(hint), "{error:?}");
    // After a fork there is nobody to ask; the kernel knows.
    assert_eq!(host.invoke::<i64>(id, "fork", &(["cat", "/dev/null"],)).await.unwrap(), 99);
    let said: String = host.invoke(id, "caught", &(["cat", "/dev/null"],)).await.unwrap();
    assert_eq!(said, "refused: the extension may not start cat");
    let tally = || host.accesses(id).unwrap()[&AccessKind::Subprocess];
    until("what was tried is told", || tally().denied >= 3);
    assert!(tally().allowed >= 2, "{:?}", tally());
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_are_held_by_what_holds_their_extension() {
    let home = tempfile::tempdir().unwrap();
    let secret = home.path().join("secret");
    fs::write(&secret, "the canary").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let asks = "[permissions]\nsubprocess = ['sh', 'cat', 'python3']";
        let guest = Guest::load(language, isolation, asks).await.unwrap();
        let said = guest.run(&["cat", secret.to_str().unwrap()]).await.unwrap();
        assert!(said.starts_with("1 ") && !said.contains("canary"), "{said}");
        let said = guest.run(&["cat", "/etc/passwd"]).await.unwrap();
        assert!(said.starts_with("1 ") && !said.contains("root:"), "{said}");
        let outside = home.path().join("outside");
        let said = guest.run(&["sh", "-c", &format!("echo x > {}", outside.display())]).await.unwrap();
        assert!(!said.starts_with("0 ") && !outside.exists(), "{said}");
        // Its own folder is there to write.
        assert_eq!(guest.run(&["sh", "-c", "echo x > own; cat own"]).await.unwrap(), "0 x\n");
        let connect = format!("import socket; socket.create_connection(('127.0.0.1', {port}), 5)");
        let said = guest.run(&["python3", "-c", &connect]).await.unwrap();
        assert!(said.starts_with("1 ") && said.contains("PermissionError"), "{said}");
        assert!(listener.accept().is_err(), "nobody has connected");
    }
}

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
async fn a_bomb_of_forks_is_bounded() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        for (limit, most) in [("\n[limits]\nprocesses = 32", 32), ("", 64)] {
            let asks = format!("[permissions]\nsubprocess = ['python3']{limit}");
            let guest = Guest::load(language, isolation, &asks).await.unwrap();
            let bomb = async || -> u64 {
                let said = guest.run(&["python3", "-c", BOMB]).await.unwrap();
                said.strip_prefix("0 ").unwrap().trim().parse().unwrap()
            };
            let made = bomb().await;
            assert!((1..most).contains(&made), "{made} of {most}");
            // What it made ends soon after it, and then there is room again.
            let late = Instant::now() + Duration::from_secs(20);
            while guest.run(&["python3", "-c", "pass"]).await.is_err() || bomb().await == 0 {
                assert!(Instant::now() < late, "the processes of the first are still there");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_revoked_ends_and_is_denied() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let asks = "[permissions]\nsubprocess = ['sh', 'sleep']";
        let guest = Guest::load(language, isolation, asks).await.unwrap();
        let (host, id) = (&guest.host, &*guest.id);
        let first = host.status(id).unwrap().usage.process;
        let busy = tokio::spawn({
            let (host, id) = (host.clone(), guest.id.clone());
            async move { host.invoke::<String>(&id, "run", &(["sleep", "60"],)).await }
        });
        until("the program runs", || host.status(id).unwrap().metrics.in_flight == 1);
        let mut sleep = (*host.permissions(id).unwrap()).clone();
        sleep.subprocess.retain(|name| name == "sleep");
        assert_eq!(host.revoke(id, &sleep).unwrap(), Effect::Now);
        let error = busy.await.unwrap().unwrap_err();
        assert_eq!(error.code, ErrorCode::ExtensionCrashed, "{error:?}");
        assert!(error.message.contains("it held subprocess \"sleep\", which was revoked"), "{error:?}");
        until("the next worker", || {
            let status = host.status(id).unwrap();
            status.state == State::Running && status.usage.process.is_some_and(|pid| Some(pid) != first)
        });
        guest.is_denied(&["sleep", "0"]).await;
        assert_eq!(guest.run(&["sh", "-c", "echo on"]).await.unwrap(), "0 on\n");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_granted_is_refused() {
    let refused = async |language: &str, asks: &str| {
        Guest::load(language, Isolation::Process, asks).await.err().expect("a refusal")
    };
    let error = refused("python", "[permissions]\nsubprocess = ['no-such-program']").await;
    assert_eq!(error.code, ErrorCode::LoadFailed, "{error:?}");
    assert!(
        error.message.contains("\"no-such-program\", which was granted, is not on this machine"),
        "{error:?}"
    );
    let error = refused("python", "[permissions]\nsubprocess = ['./tool']").await;
    assert_eq!(error.code, ErrorCode::InvalidManifest, "{error:?}");
}
