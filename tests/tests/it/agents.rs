//! The example host with its extensions, played as a library: `examples/agent-platform`.

use std::fs;
use std::path::PathBuf;

use agent_platform::{Platform, Scenario, Transcript, compare, folders};
use quadriga::Dispatcher;
use quadriga::abi::{ErrorCode, Isolation};
use quadriga_tests::{copy, example, repository};
use tempfile::TempDir;

fn source(file: &str) -> String {
    fs::read_to_string(repository().join("examples/agent-platform").join(file)).unwrap()
}

/// All extensions but those that are named.
fn without(names: &[&str]) -> Vec<PathBuf> {
    let mut all = folders(example("agents", "policy").parent().unwrap()).unwrap();
    assert_eq!(all.len(), 7, "{all:?}");
    all.retain(|folder| !names.iter().any(|name| folder.ends_with(name)));
    all
}

/// What is told of a scenario.
fn told(scenario: &str, isolation: Isolation, extensions: &[PathBuf]) -> Transcript {
    let scenario = Scenario::parse("scenario.jsonl", scenario).unwrap();
    quadriga::block_on(async {
        let mut platform = Platform::start(quadriga::builder(), isolation, extensions).await.unwrap();
        let transcript = platform.play(&scenario).await.unwrap();
        platform.host().shutdown().await;
        transcript
    })
}

fn as_recorded(isolation: Isolation) {
    let transcript = told(&source("scenario.jsonl"), isolation, &without(&[])).to_string();
    if let Err(differs) = compare(&transcript, &source("golden.txt")) {
        panic!("{differs}\nin\n{transcript}");
    }
}

#[test]
fn the_scenario_is_told_as_it_was_recorded() {
    as_recorded(Isolation::None);
}

#[test]
fn without_the_policy_plans_are_carried_out() {
    let done = |transcript: Transcript| transcript.to_string().contains("campaign is done");
    let scenario = source("scenario.jsonl");
    assert!(!done(told(&scenario, Isolation::None, &without(&[]))));
    assert!(done(told(&scenario, Isolation::None, &without(&["policy"]))));
}

/// A copy of an extension in which some text is another one.
fn changed(name: &str, changes: &[(&str, &str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&example("agents", name), folder.path()).unwrap();
    for (file, from, to) in changes {
        let file = folder.path().join(file);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from}");
        fs::write(&file, text.replace(from, to)).unwrap();
    }
    folder
}

/// Lets an extension fail at the first plan, open and closed.
fn fails(name: &str, isolation: Isolation, code: ErrorCode, changes: &[(&str, &str, &str)]) {
    let scenario = source("scenario.jsonl");
    let (first, _) = scenario.split_once("{\"do\": \"note\", \"text\": \"Plans that are not\"}").unwrap();
    for closed in [false, true] {
        let says = |word: &str| format!("on-failure = \"{word}\"");
        let (open, shut) = (says("open"), says("closed"));
        let was = if name == "policy" { &shut } else { &open };
        let now = ("quadriga.toml", was.as_str(), if closed { shut.as_str() } else { open.as_str() });
        let folder = changed(name, &[changes, &[now]].concat());
        let extensions = [without(&[name]), vec![folder.path().to_owned()]].concat();
        let text = told(first, isolation, &extensions).to_string();
        let failed = format!("agents.{name} fails: {code}");
        assert_eq!(text.matches(&failed).count(), 1, "{failed}: {text}");
        let stops = format!("it stops here: agents.{name} failed at the hook plan.before_execution");
        assert_eq!((text.contains(&stops), text.contains("announce is done")), (closed, !closed), "{text}");
    }
}

const LATE: (&str, &str, &str) =
    ("quadriga.toml", "mode = \"modify\"", "mode = \"modify\"\ndeadline = \"200ms\"");
const BODY: &str = "    steps = {}\n";

#[test]
fn who_fails_is_passed_over_or_stops_the_plan() {
    let raises = ("main.py", BODY, "    raise ValueError('no')\n");
    fails("review", Isolation::None, ErrorCode::ExtensionError, &[raises]);
    let never_ends = ("main.py", BODY, "    while True:\n        pass\n");
    fails("review", Isolation::None, ErrorCode::DeadlineExceeded, &[LATE, never_ends]);
    // It cannot learn what the context allows.
    let may_not_ask = ("quadriga.toml", "call = [\"app.context/terms\"]\n", "");
    fails("policy", Isolation::None, ErrorCode::PermissionDenied, &[may_not_ask]);
}

/// The other JavaScript engine does without: its workers would be those of the first.
mod in_workers {
    use super::*;

    #[test]
    fn slow_the_scenario_is_told_as_it_was_recorded() {
        // Python and native code in workers; all in workers.
        for isolation in [Isolation::InProcess, Isolation::Process] {
            as_recorded(isolation);
        }
    }

    #[test]
    fn who_crashes_is_passed_over_or_stops_the_plan() {
        let exits = ("main.py", BODY, "    import os\n    os._exit(3)\n");
        fails("review", Isolation::InProcess, ErrorCode::ExtensionCrashed, &[exits]);
    }
}

#[test]
fn a_line_that_makes_no_sense_is_named() {
    let open = r#"{"do": "open", "context": "c", "budget": 1, "allows": []}"#;
    let join = |skills: &str| {
        format!(
            r#"{{"do": "join", "context": "c", "agent": "a", "name": "A", "contact": "", "skills": {skills}}}"#
        )
    };
    let plan = |context: &str, after: &str| {
        let step = format!(r#"{{"needs": "s", "after": [{after}], "effort": 1, "cost": 1}}"#);
        format!(r#"{{"do": "plan", "plan": "p", "context": "{context}", "steps": {{"s": {step}}}}}"#)
    };
    let table = [
        ("nothing".to_owned(), "1: column 2: expected ident"),
        ("\n{\"do\": \"note\", \"text\": \"".to_owned(), "2: column 24: EOF while parsing a string"),
        (r#"{"do": "fly"}"#.to_owned(), "1: unknown variant `fly`, expected one of `note`, `open`, "),
        (r#"{"text": "a"}"#.to_owned(), "1: missing field `do`"),
        (r#"{"do": "note", "text": "a", "size": 2}"#.to_owned(), "1: unknown field `size`"),
        (r#"{"do": "open", "context": "c", "budget": -1, "allows": []}"#.to_owned(), "1: invalid value"),
        (join("{}"), "1: there is no context \"c\""),
        (format!("{open}\n{}", join(r#"{"s": 0}"#)), "2: a has s at level 0: the lowest is 1"),
        (format!("{open}\n{}\n\n{}", join("{}"), join("{}")), "4: a is in c already"),
        (plan("c", ""), "1: there is no context \"c\""),
        (format!("{open}\n{}", plan("c", "\"t\"")), "2: s comes after t, which is no step"),
        (format!("{open}\n{}", plan("c", "\"s\"")), "2: s wait for each other"),
        (r#"{"do": "execute", "plan": "p", "token": ""}"#.to_owned(), "1: there is no plan \"p\""),
    ];
    for (text, expected) in table {
        let wrong = match Scenario::parse("a.jsonl", &text) {
            Err(wrong) => wrong,
            Ok(scenario) => quadriga::block_on(async {
                let start = Platform::start(Dispatcher::builder(), Isolation::None, &[]);
                start.await.unwrap().play(&scenario).await.unwrap_err()
            }),
        };
        assert!(wrong.to_string().starts_with(&format!("a.jsonl:{expected}")), "{wrong}\nfor {text}");
    }
}

#[test]
fn nobody_has_to_be_there_and_the_first_line_that_differs_is_named() {
    let scenario = Scenario::parse("scenario.jsonl", &source("scenario.jsonl")).unwrap();
    let transcript = quadriga::block_on(async {
        let start = Platform::start(Dispatcher::builder(), Isolation::None, &[]);
        start.await.unwrap().play(&scenario).await.unwrap()
    });
    // The platform's own choices, and nothing of what extensions add.
    let text = transcript.to_string();
    for part in ["campaign is done", " Ada   the scout <ada@example.org>", "unknown_method: app.trace has no"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    let json = serde_json::to_value(&transcript).unwrap();
    assert_eq!(
        json[1],
        serde_json::json!({ "entry": "command", "line": 2, "text": text.lines().nth(1).unwrap() })
    );

    let differs = |is: &str, should: &str| compare(is, should).map_err(|differs| differs.to_string());
    assert_eq!(differs("a\nb\n", "a\nb"), Ok(()));
    for (is, should, expected) in [
        ("a\nb", "a\nc", "line 2 is \"b\", and should be \"c\""),
        ("a", "a\n\n", "line 2 is missing, and should be \"\""),
        ("a\nb", "a", "line 2 is \"b\", and should be missing"),
    ] {
        assert_eq!(differs(is, should).unwrap_err(), expected);
    }
}
