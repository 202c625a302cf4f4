//! Events that are kept in a home: through kills, updates and the end of their extension.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use quadriga_abi::{Bytes, codec};
use serde::Deserialize;

use super::*;
use crate::home::{Backup, Progress, start};
use crate::{DeadLetter, EventStore as _, Grant, Letters, LoadOptions, MockRuntime, Outcome};

/// What the process that is killed works with: its home, and at which place it is killed.
const CHILD: &str = "QUADRIGA_EVENTS_TEST";

/// How many events it emits.
const EVENTS: i64 = 8;

const KEEPS: &str =
    "[permissions]\nsubscribe = ['a']\n[events.a]\nmethod = 'take'\ndelivery = 'at-least-once'
first-delay = '1ms'\nlongest-delay = '2ms'\nattempts = 3";

#[derive(Deserialize)]
struct Got {
    data: i64,
    id: String,
    attempt: u32,
}

/// Guests that note in a file what they have taken, fail once at odd numbers, and always at those above 100.
fn host(taken: &Path) -> Dispatcher {
    let (taken, failed) = (taken.to_owned(), Mutex::new(HashMap::<i64, u32>::new()));
    let runtime = MockRuntime::new().method("take", move |_, call| {
        let (got,): (Got,) = codec::from_arguments(&call.envelope.payload).unwrap();
        let times = *failed.lock().unwrap().entry(got.data).and_modify(|times| *times += 1).or_insert(1);
        if got.data > 100 || (got.data % 2 == 1 && times == 1) {
            return Error::new(ErrorCode::ExtensionError, format!("no {}", got.attempt)).into();
        }
        note(&taken, &format!("{} {}", got.data, got.id));
        Outcome::Ready(Ok(Bytes::from_static(b"\xc0")))
    });
    Dispatcher::builder().runtime(runtime).build().unwrap()
}

fn note(file: &Path, line: &str) {
    let mut file = fs::File::options().create(true).append(true).open(file).unwrap();
    // In one piece, so that none is cut off.
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn noted(file: &Path) -> Vec<String> {
    fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn emit(host: &Dispatcher, number: i64) -> Result<quadriga_abi::Emitted, Error> {
    host.emit("a", &codec::to_bytes(&number).unwrap())
}

async fn until(mut so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !so().await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

/// Attaches a host to a home, and starts what is in it.
async fn run(path: &Path, taken: &Path) -> (Home, Dispatcher) {
    let (home, host) = (Home::open(path).await.unwrap(), host(taken));
    let home = home.attach(&host);
    assert_eq!(start(&host, &home.list().await.unwrap()).await, vec![]);
    (home, host)
}

/// How many events wait, and how many are dead letters.
fn counts(host: &Dispatcher) -> (u64, u64) {
    let status = host.status("a.b").unwrap();
    (status.kept_events, status.dead_letters)
}

/// The process that is killed, if it was asked to be: it emits events, and notes those that are kept.
#[tokio::test(flavor = "multi_thread")]
async fn child() {
    let Ok(asked) = std::env::var(CHILD) else { return };
    let (folder, count) = asked.split_once('|').unwrap();
    let folder = Path::new(folder);
    let (home, host) = run(&folder.join("home"), &folder.join("taken")).await;
    fault::die_at(count.parse().unwrap());
    for number in 0..EVENTS {
        emit(&host, number).unwrap();
        note(&folder.join("emitted"), &number.to_string());
    }
    until(async || counts(&host) == (0, 0)).await;
    host.shutdown().await;
    home.close().await;
}

#[tokio::test]
async fn slow_whatever_kills_it_each_event_that_was_kept_is_taken() {
    let folder = TempDir::new_in("/dev/shm").or_else(|_| TempDir::new()).unwrap();
    let package = package(folder.path(), "a.b", "1.0.0", KEEPS);
    let mut kills = 0;
    for place in 1.. {
        let run_in = folder.path().join(place.to_string());
        let (path, taken) = (run_in.join("home"), run_in.join("taken"));
        let home = Home::open(&path).await.unwrap();
        let grant = Some(permissions(serde_json::json!({ "subscribe": ["a"] })));
        let offers = offer(&package).map(|offer| Offer { grant: grant.clone(), ..offer });
        home.install(offers, InstallOptions { enable: true, ..options() }).await.unwrap();
        home.close().await;
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "home::tests::events::child", "--nocapture"])
            .env(CHILD, format!("{}|{place}", run_in.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        use std::os::unix::process::ExitStatusExt as _;
        assert!(status.success() || status.signal() == Some(libc::SIGKILL), "{place}: {status}");
        let emitted = noted(&run_in.join("emitted"));
        let (home, host) = run(&path, &taken).await;
        // What it had kept is delivered now, and all that has no error behind it was.
        until(async || home.event_store().list(None).await.unwrap().is_empty()).await;
        let its: Vec<String> = noted(&taken);
        let took = |number: &str| its.iter().any(|line| line.split(' ').next() == Some(number));
        assert!(emitted.iter().all(|number| took(number)), "{place}: {emitted:?} {its:?}");
        // In order, and what came twice has the same id.
        let mut first: Vec<&str> = Vec::new();
        its.iter().for_each(|line| {
            if !first.contains(&line.as_str()) {
                first.push(line)
            }
        });
        let numbers: Vec<i64> =
            first.iter().map(|it| it.split(' ').next().unwrap().parse().unwrap()).collect();
        assert!(numbers.is_sorted_by(|a, b| a < b), "{place}: {its:?}");
        host.shutdown().await;
        home.close().await;
        if status.success() {
            assert_eq!(numbers, (0..EVENTS).collect::<Vec<_>>());
            break;
        }
        kills += 1;
    }
    eprintln!("{kills} kills");
    assert!(kills >= 16, "{kills}");
}

#[tokio::test]
async fn what_is_kept_goes_on_with_updates_and_ends_with_the_extension() {
    let folder = TempDir::new().unwrap();
    let (path, taken) = (folder.path().join("home"), folder.path().join("taken"));
    let packages = ["1.0.0", "2.0.0"].map(|version| package(folder.path(), "a.b", version, KEEPS));
    let (home, host) = run(&path, &taken).await;
    let grant = Some(permissions(serde_json::json!({ "subscribe": ["a"] })));
    let offers = || offer(&packages[0]).map(|offer| Offer { grant: grant.clone(), ..offer });
    home.install(offers(), InstallOptions { enable: true, ..options() }).await.unwrap();
    host.pause("a.b").unwrap();
    emit(&host, 2).unwrap();
    emit(&host, 101).unwrap();
    assert_eq!(counts(&host), (2, 0));
    // It runs again as the new version.
    update(&home, &packages[1]).await.unwrap();
    until(async || counts(&host) == (0, 1)).await;
    home.rollback("a.b", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(counts(&host), (0, 1));
    assert_eq!(noted(&taken).len(), 1);
    // An operator looks at it while it runs, and after that.
    let letters: Vec<DeadLetter> = home.dead_letters(&Letters::All).await.unwrap();
    assert_eq!((letters.len(), letters[0].attempts, letters[0].data.as_i64()), (1, 3, Some(101)));
    home.retry_dead_letters(&Letters::All, ME).await.unwrap();
    until(async || counts(&host) == (0, 1)).await;
    host.shutdown().await;
    drop(host);
    home.close().await;
    let home = Home::open(&path).await.unwrap();
    let [letter] = home.dead_letters(&Letters::All).await.unwrap().try_into().unwrap();
    assert_eq!((letter.attempts, &letter.id), (3, &letters[0].id));
    home.retry_dead_letters(&Letters::One(letter.id.clone()), ME).await.unwrap();
    assert_eq!(home.dead_letters(&Letters::All).await.unwrap(), []);
    home.close().await;
    let (home, host) = run(&path, &taken).await;
    until(async || counts(&host) == (0, 1)).await;
    home.drop_dead_letters(&Letters::Of(letter.extension), ME).await.unwrap();
    assert_eq!(counts(&host), (0, 0));
    let audit = home.audit().await.unwrap();
    let about: Vec<(&str, usize)> = audit
        .iter()
        .filter(|it| it.action.ends_with("dead-letters"))
        .map(|it| (it.action.as_str(), it.detail["letters"].as_array().unwrap().len()))
        .collect();
    assert_eq!(about, [("retry-dead-letters", 1), ("retry-dead-letters", 1), ("drop-dead-letters", 1)]);
    home.verify_audit(None).await.unwrap();
    // What is kept for it ends with it.
    host.pause("a.b").unwrap();
    emit(&host, 4).unwrap();
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert_eq!(home.event_store().list(None).await.unwrap(), vec![]);
    home.install(offers(), InstallOptions { enable: true, ..options() }).await.unwrap();
    emit(&host, 6).unwrap();
    until(async || noted(&taken).len() == 2).await;
    assert!(noted(&taken)[1].starts_with("6 "));
    host.shutdown().await;
    home.close().await;
}

#[tokio::test]
async fn backups_have_what_was_not_taken_and_dead_letters() {
    let folder = TempDir::new().unwrap();
    let (path, taken) = (folder.path().join("home"), folder.path().join("taken"));
    let package = package(folder.path(), "a.b", "1.0.0", KEEPS);
    let (home, host) = run(&path, &taken).await;
    let grant = Some(permissions(serde_json::json!({ "subscribe": ["a"] })));
    let offers = offer(&package).map(|offer| Offer { grant: grant.clone(), ..offer });
    home.install(offers, InstallOptions { enable: true, ..options() }).await.unwrap();
    emit(&host, 101).unwrap();
    until(async || counts(&host) == (0, 1)).await;
    host.pause("a.b").unwrap();
    emit(&host, 2).unwrap();
    // While the host runs.
    let backups = folder.path().join("backups");
    let backup = Backup::make(&path, &backups, &Progress::default()).await.unwrap();
    assert!(backup.files.contains_key("events.sqlite"));
    host.shutdown().await;
    home.close().await;
    let again = folder.path().join("again");
    backup.restore(&again, &Progress::default()).await.unwrap();
    let (home, host) = run(&again, &taken).await;
    until(async || counts(&host) == (0, 1)).await;
    assert!(noted(&taken)[0].starts_with("2 ") && noted(&taken).len() == 1);
    assert_eq!(home.dead_letters(&Letters::All).await.unwrap()[0].data.as_i64(), Some(101));
    host.shutdown().await;
    home.close().await;
}

#[tokio::test]
async fn a_home_in_which_nothing_was_kept_has_no_file_for_it() {
    let folder = TempDir::new().unwrap();
    let home = Home::open(folder.path()).await.unwrap();
    let package = package(folder.path(), "a.b", "1.0.0", "");
    install(&home, &package).await.unwrap();
    assert_eq!(home.dead_letters(&Letters::All).await.unwrap(), []);
    assert_eq!(
        home.dead_letters(&Letters::One("1".to_owned())).await.unwrap_err().code,
        ErrorCode::InvalidArguments
    );
    home.uninstall("a.b", Dependents::Refuse, ME).await.unwrap();
    assert!(!folder.path().join("events.sqlite").exists());
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("events.sqlite");
    let pool = store::open(&path).await.unwrap();
    sqlx::raw_sql("PRAGMA user_version = 9").execute(&pool).await.unwrap();
    pool.close().await;
    let home = Home::open(folder.path()).await.unwrap();
    let error = home.dead_letters(&Letters::All).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::StoreFailed);
    assert!(error.message.contains("newer version"), "{error}");
    // An extension that wants it loads, and whoever emits is told.
    let host = host(folder.path());
    let home = home.attach(&host);
    let source = TempDir::new().unwrap();
    fs::write(source.path().join("main"), "").unwrap();
    let manifest = format!(
        "[extension]\nid = 'a.b'\nversion = '1.0.0'\n[runtime]\nkind = 'mock'\nentry = 'main'\n{KEEPS}\n"
    );
    fs::write(source.path().join("quadriga.toml"), manifest).unwrap();
    let options = LoadOptions { grant: Grant::Requested, ..LoadOptions::default() };
    host.load(source.path(), options).await.unwrap();
    assert_eq!(emit(&host, 0).unwrap_err().code, ErrorCode::StoreFailed);
    assert_eq!(counts(&host), (0, 0));
    drop(home);
}
