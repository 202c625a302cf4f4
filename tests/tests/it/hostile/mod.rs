//! Guests that attack their host. Each attack is bounded by itself, and aims at canaries only: should
//! a sandbox fail, the test fails and nothing else does.

mod attacks;
mod bystanders;
mod canaries;

use std::collections::BTreeSet;

use quadriga::abi::{Bytes, Error, Isolation};
use quadriga::{DecisionFilter, Dispatcher, LoadOptions, Subject};
use quadriga_tests::{granted, guest, host, with};

use attacks::Attack;
use bystanders::Bystanders;
use canaries::Canaries;

/// Enough for every engine, and little enough to be reached soon.
const MEMORY: &str = "memory = '192MiB'";

/// Soon for attacks that end by their deadline alone; the others must not meet it, on a busy machine
/// either.
const SOON: &str = "call-timeout = '600ms'";
const LATE: &str = "call-timeout = '10s'";

/// What only a process of its own can be held to.
const OF_PROCESSES: &str = "processes = 64\nopen-files = 128\ndisk = '32MiB'";

/// The same, for those that do nothing but to keep processors busy.
const BUSY: &str = "cpu-share = 0.5";

/// The suites: a language, and where its guest runs.
const SUITES: [(&str, &[Attack], [Isolation; 2]); 4] = [
    ("python", attacks::PYTHON, [Isolation::Process, Isolation::Container]),
    ("native", attacks::NATIVE, [Isolation::Process, Isolation::Container]),
    ("wasm", attacks::WASM, [Isolation::InProcess, Isolation::Process]),
    ("js", attacks::JS, [Isolation::InProcess, Isolation::Process]),
];

/// What came of it, in the words of the table.
fn outcome(result: &Result<Bytes, Error>) -> (String, String) {
    match result {
        // What is no text was meant for the host to choke on.
        Ok(reply) => {
            let text: String = rmp_serde::from_slice(reply).unwrap_or_else(|_| "done: a value".to_owned());
            (text.split(':').next().unwrap_or_default().to_owned(), text)
        }
        Err(error) => (error.code.as_str().to_owned(), format!("{error:?}")),
    }
}

/// A failure stands in the record of whom it was done by.
fn is_on_record(host: &Dispatcher, id: &str, attack: &str, result: &Result<Bytes, Error>) {
    for other in ["relay.js", "relay.python"] {
        assert!(host.failures(other).unwrap().is_empty(), "{attack}: {other}");
        assert!(host.decisions(other, &REFUSED).unwrap().is_empty(), "{attack}: {other}");
    }
    let Err(error) = result else { return };
    assert_eq!(error.extension.as_deref(), Some(id), "{attack}");
    let failures = host.failures(id).unwrap();
    let same = failures.iter().any(|failure| failure.error.code == error.code);
    assert!(same, "{attack}: {:?} is not in {failures:?}", error.code);
}

/// What the kernel refused.
const REFUSED: DecisionFilter =
    DecisionFilter { subject: Some(Subject::Kernel), verdict: None, since: None, latest: None };

/// Says what was measured, and which attacks had other outcomes than they may.
async fn withstand(language: &str, isolation: Isolation) -> (String, Vec<String>) {
    let (_, table, _) = SUITES.into_iter().find(|(name, ..)| *name == language).unwrap();
    let host = host();
    let mut others = Bystanders::start(&host).await;
    let sibling = host.status("relay.python").unwrap().usage.process.unwrap();
    let mut canaries = Canaries::new(sibling);
    let apart = isolation >= Isolation::Process;
    let layers = host.status("relay.python").unwrap().layers;
    let watch = layers.iter().find(|layer| layer.name.contains("watch")).unwrap();
    let watched = apart && watch.state == "reached";
    let skipped =
        if apart && !watched { format!("SKIPPED: {}: {}\n", watch.name, watch.note) } else { String::new() };
    // A script has no files.
    let granted_folder = format!("[permissions]\nfs = [{{ path = {:?}, mode = 'rw' }}]", canaries.inside());
    let permissions = if language == "js" { "" } else { &granted_folder };
    let package = |timeout: &str, busy: &str| {
        let (limits, busy) = if apart { (OF_PROCESSES, busy) } else { ("", "") };
        let limits = format!("[limits]\n{MEMORY}\n{timeout}\n{limits}\n{busy}\n{permissions}");
        with(&guest("hostile", language), &limits)
    };
    let (soon, late) = (package(SOON, BUSY), package(LATE, ""));
    let id = format!("hostile.{language}");
    let meets_kernel = ["python", "native"].contains(&language);
    let mut got_through = Vec::new();
    for (method, arguments, allowed) in table {
        let attack = format!("{language} at {isolation}: {method}{arguments}");
        canaries.plant();
        let options = LoadOptions { isolation: Some(isolation), ..granted() };
        // What grows is to meet its limit, and not its deadline.
        let is_soon = allowed.contains("deadline_exceeded") && !method.starts_with("grow");
        let package = if is_soon { &soon } else { &late };
        host.load(package.path(), options).await.unwrap_or_else(|error| panic!("{attack}: {error:?}"));
        others.in_peace(&attack).await;
        let result = host.call(&id, method, canaries.arguments(arguments), Default::default()).await;
        others.under_attack(&attack).await;
        let (word, told) = outcome(&result);
        if !allowed.split('|').any(|allowed| allowed == word) {
            got_through.push(format!("{attack}: {told}"));
        }
        canaries.are_well(&attack);
        is_on_record(&host, &id, &attack, &result);
        if watched && meets_kernel && attacks::TOLD_BY_THE_KERNEL.contains(method) {
            assert!(!host.decisions(&id, &REFUSED).unwrap().is_empty(), "{attack} is not on record");
        }
        if *method == "call_others" || language == "js" && ["connect", "resolve"].contains(method) {
            assert!(host.usage(&id).unwrap().denied > 0, "{attack} is not on record");
        }
        host.unload(&id).await.unwrap();
    }
    assert_eq!(host.status("relay.python").unwrap().usage.process, Some(sibling), "it was started again");
    (format!("{skipped}{}", others.end().await), got_through)
}

macro_rules! suites {
    ($($name:ident: $language:literal, $isolation:ident;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                let (measured, got_through) = withstand($language, Isolation::$isolation).await;
                eprintln!("{measured}");
                assert!(got_through.is_empty(), "{}", got_through.join("\n"));
            }
        )*
    };
}

suites! {
    slow_python_in_a_process: "python", Process;
    slow_python_in_a_container: "python", Container;
    slow_native_in_a_process: "native", Process;
    slow_native_in_a_container: "native", Container;
    slow_wasm_in_the_hosts_process: "wasm", InProcess;
    slow_wasm_in_a_process: "wasm", Process;
    slow_js_in_the_hosts_process: "js", InProcess;
    slow_js_in_a_process: "js", Process;
}

#[test]
fn there_are_enough_attacks_and_none_twice() {
    let mut methods = BTreeSet::new();
    let mut tried = 0;
    for (language, table, levels) in SUITES {
        let attacks: BTreeSet<_> = table.iter().map(|(method, arguments, _)| (method, arguments)).collect();
        assert_eq!(attacks.len(), table.len(), "{language}: one is there twice");
        eprintln!("{language}: {} attacks, at {} and {}", table.len(), levels[0], levels[1]);
        methods.extend(attacks);
        tried += table.len() * levels.len();
    }
    eprintln!("{} attacks, {tried} with languages and levels", methods.len());
    assert!(methods.len() >= 100 && tried >= 300, "{} and {tried}", methods.len());
}
