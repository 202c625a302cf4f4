//! Hooks as extensions in every language answer them, in the host's process and in workers.

use std::collections::BTreeMap;
use std::time::Duration;

use quadriga::abi::{Bytes, Error, ErrorCode, Isolation};
use quadriga::schemars::JsonSchema;
use quadriga::{
    CallOptions, Did, Dispatcher, Grant, HookContext, HookPolicy, Hooked, LoadOptions, Policy, Provided,
    Stopped,
};
use quadriga_tests::{guest, with};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use crate::cli::command;
use crate::services::PLACES;

/// Before a plan is carried out.
#[derive(Debug, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "plan.before")]
struct Plan {
    title: String,
    #[hook(changeable)]
    steps: BTreeMap<String, i64>,
    #[hook(sensitive)]
    #[serde(default)]
    token: String,
}

fn plan(title: &str) -> Plan {
    Plan { title: title.to_owned(), steps: BTreeMap::new(), token: "s3cret".to_owned() }
}

fn host() -> Dispatcher {
    // A debug build compiles slowly beside others.
    let load_timeout = Duration::from_secs(60);
    let hooks = HookPolicy { deadline: Duration::from_secs(60), ..HookPolicy::default() };
    let policy = Policy { minimum_isolation: Isolation::None, load_timeout, hooks, ..Policy::default() };
    quadriga::builder().policy(policy).build().unwrap()
}

async fn load(host: &Dispatcher, language: &str, isolation: Isolation, hook: &str) -> TempDir {
    let asks = format!(
        "[permissions]\nhooks = ['plan.*']\ncall = ['app.host/*']\n[hooks.'plan.before']\non-failure = 'closed'\n{hook}"
    );
    let package = with(&guest("hooks", language), &asks);
    let isolation = Some(isolation);
    let options = LoadOptions { grant: Grant::Requested, isolation, ..LoadOptions::default() };
    host.load(package.path(), options).await.unwrap();
    package
}

/// What the one handler answered.
fn one<T>(result: &Result<Hooked<T>, Stopped>) -> &Did {
    let account = match result {
        Ok(hooked) => &hooked.account,
        Err(stopped) => &stopped.account,
    };
    assert_eq!(account.steps.len(), 1, "{account:?}");
    assert_eq!(account.steps[0].withheld, ["token"]);
    &account.steps[0].did
}

#[tokio::test(flavor = "multi_thread")]
async fn each_language_changes_one_field_of_one_context() {
    for workers in [false, true] {
        let host = host();
        let mut packages = Vec::new();
        // Not in the order in which they answer.
        for (language, isolation) in PLACES.iter().rev().filter(|it| (it.1 == Isolation::Process) == workers)
        {
            let hook = "method = 'mark'\nmode = 'modify'";
            packages.push(load(&host, language, *isolation, hook).await);
        }
        let hooked = host.hook(plan("good")).await.unwrap();
        let by: Vec<_> = hooked.account.steps.iter().map(|it| (it.extension.as_str(), &it.did)).collect();
        let changed = |language: &str| Did::Changed(vec![format!("/steps/{language}")]);
        let expected = ["js", "native", "python", "wasm"].map(|it| (format!("hooks.{it}"), changed(it)));
        assert_eq!(by, expected.iter().map(|(id, did)| (id.as_str(), did)).collect::<Vec<_>>());
        // Each saw what those before it had done.
        let steps = ["js", "native", "python", "wasm"].into_iter().map(str::to_owned).zip(0..).collect();
        assert_eq!((hooked.context.steps, &*hooked.context.token), (steps, "s3cret"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_language_objects_fails_is_late_and_leads_back() {
    for (language, isolation) in PLACES {
        eprintln!("{language} at {isolation}");
        let host = host();
        let _package = load(&host, language, *isolation, "method = 'object'\nmode = 'validate'").await;
        assert_eq!(one(&host.hook(plan("good")).await), &Did::Allowed);
        let result = host.hook(plan("bad")).await;
        assert_eq!(one(&result), &Did::Vetoed(format!("{language} objects")));
        let error = result.unwrap_err().error;
        assert_eq!(
            (error.code, error.message.clone()),
            (ErrorCode::HookVetoed, format!("{language} objects"))
        );
        let id = format!("hooks.{language}");
        host.unload(&id).await.unwrap();

        let _package = load(&host, language, *isolation, "method = 'fail'\nmode = 'modify'").await;
        let error = host.hook(plan("good")).await.unwrap_err().error;
        assert_eq!((error.code, error.extension.as_deref()), (ErrorCode::HookFailed, Some(&*id)));
        let cause = error.cause.as_ref().unwrap();
        assert!(cause.message.contains(&format!("{language} fails")), "{cause:?}");
        host.unload(&id).await.unwrap();

        // Native code of this process cannot be ended.
        if (*language, *isolation) != ("native", Isolation::None) {
            let late = "method = 'late'\nmode = 'validate'\ndeadline = '100ms'";
            let _package = load(&host, language, *isolation, late).await;
            let error = host.hook(plan("good")).await.unwrap_err().error;
            assert_eq!(error.cause.as_ref().unwrap().code, ErrorCode::DeadlineExceeded, "{error:?}");
            host.unload(&id).await.unwrap();
        }

        let again = host.clone();
        let plan_again = move |_: &_, _| {
            let hooked = quadriga::block_on(again.hook(plan("again"))).map_err(Error::from);
            hooked.map(|_| Bytes::from_static(b"\xc0"))
        };
        host.provide(Provided::new("app.host").unwrap().raw("plan", plan_again)).unwrap();
        let _package = load(&host, language, *isolation, "method = 'again'\nmode = 'validate'").await;
        let error = host.hook(plan("good")).await.unwrap_err().error;
        let last = error.chain().last().unwrap();
        assert_eq!(last.code, ErrorCode::HookRecursion, "{error:?}");
        host.shutdown().await;
    }
}

/// What is done with a plan.
#[derive(Debug, Serialize, Deserialize, JsonSchema, HookContext)]
#[schemars(crate = "quadriga::schemars")]
#[hook(name = "plan.execute", outcome = String)]
struct Execute {
    title: String,
    #[hook(changeable)]
    steps: BTreeMap<String, i64>,
}

#[tokio::test(flavor = "multi_thread")]
async fn each_language_stands_around_the_work() {
    for workers in [false, true] {
        let host = host();
        let mut packages = Vec::new();
        for (language, isolation) in PLACES.iter().filter(|it| (it.1 == Isolation::Process) == workers) {
            let asks = "[permissions]\nhooks = ['plan.*']\n[hooks.'plan.execute']\non-failure = 'closed'\n\
                method = 'around'\nmode = 'around'";
            let package = with(&guest("hooks", language), asks);
            let isolation = Some(*isolation);
            let options = LoadOptions { grant: Grant::Requested, isolation, ..LoadOptions::default() };
            host.load(package.path(), options).await.unwrap();
            packages.push(package);
        }
        let table = [
            ("good", Ok("steps js=0 native=1 python=2 wasm=3, wasm, python, native, js")),
            ("look", Ok("steps js=0 native=1 python=2 wasm=3")),
            ("cached", Ok("from js")),
            // All let the failure through.
            ("bad", Err("the work failed")),
        ];
        for (title, expected) in table {
            let plan = Execute { title: title.to_owned(), steps: BTreeMap::new() };
            let work = |plan: Execute| async move {
                if plan.title == "bad" {
                    return Err(Error::new(ErrorCode::ExtensionError, "the work failed"));
                }
                let steps = plan.steps.iter().map(|(name, count)| format!(" {name}={count}"));
                Ok(format!("steps{}", steps.collect::<String>()))
            };
            let result = host.hook_around(plan, CallOptions::default(), work).await;
            match (result, expected) {
                (Ok(finished), Ok(text)) => assert_eq!(finished.outcome, text, "{:?}", finished.account),
                (Err(stopped), Err(text)) => assert_eq!(stopped.error.message, text),
                (result, _) => panic!("{title}: {result:?}"),
            }
        }
        host.shutdown().await;
    }
}

#[test]
fn the_command_shows_in_which_order_they_answer() {
    let asks = |priority: i32, more: &str| {
        format!(
            "{more}\n[hooks.'plan.before']\nmethod = 'mark'\nmode = 'modify'\non-failure = 'open'\npriority = {priority}"
        )
    };
    let packages = [
        with(&guest("hooks", "js"), &asks(5, "[permissions]\nhooks = ['plan.*']")),
        with(&guest("hooks", "python"), &asks(-5, "[permissions]\nhooks = ['plan.*']")),
        // It does not ask for what it would need.
        with(&guest("hooks", "wasm"), &asks(0, "")),
    ];
    let run = |more: &[&str]| {
        let mut command = command();
        command.arg("hooks").args(packages.iter().map(TempDir::path)).args(more);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let table = run(&[]);
    let places = ["hooks.python", "hooks.wasm", "hooks.js"].map(|id| table.find(id).unwrap());
    assert!(places.is_sorted(), "{table}");
    assert_eq!(table.matches("passed over").count(), 1, "{table}");
    let json: serde_json::Value = serde_json::from_str(&run(&["--json", "--point", "plan.before"])).unwrap();
    let of = |field: &str| -> Vec<serde_json::Value> {
        json.as_array().unwrap().iter().map(|hook| hook[field].clone()).collect()
    };
    assert_eq!(of("extension"), ["hooks.python", "hooks.wasm", "hooks.js"]);
    assert_eq!(of("allowed"), [true, false, true]);
    assert_eq!(run(&["--json", "--point", "plan.after"]).trim(), "[]");
}
