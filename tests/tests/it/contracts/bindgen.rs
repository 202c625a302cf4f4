//! Clients that `quadriga bindgen` wrote, compiled and run.

use std::path::Path;

use super::*;
use crate::cli::quadriga;
use quadriga_tests::repository;

/// What `visit` of the client guests tells.
fn visited(name: &str) -> Json {
    let hello = format!("Hello, {name}; Hello, {name}");
    json!(["Hello, Bob", hello, 37, 1, 2, 2, 1000, "invalid_value"])
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The committed clients are those that the command writes now, from the contract that the guest
/// has now.
#[test]
fn committed_clients_are_fresh() {
    let contract = repository().join("tests/guests/client/contract.json");
    let inspected = quadriga(&["inspect", text(&guest("typed", "python")), "--contract"]);
    assert_eq!(inspected.code, Some(0), "{}", inspected.stderr);
    assert_eq!(inspected.stdout, fs::read_to_string(&contract).unwrap(), "write it anew, then run codegen");
    for (file, args) in [
        ("tests/guests/client/js/typed.ts", &["--lang", "ts"][..]),
        ("tests/guests/client/python/typed.py", &["--lang", "python"]),
        ("tests/guests/client/rust/src/typed.rs", &["--lang", "rust"]),
        ("tests/tests/it/contracts/typed.rs", &["--lang", "rust", "--for-host"]),
    ] {
        let run = quadriga(&[&["bindgen", text(&contract)], args].concat());
        assert_eq!(
            run.stdout,
            fs::read_to_string(repository().join(file)).unwrap(),
            "cargo xtask codegen: {file}"
        );
    }
}

#[tokio::test]
async fn clients_in_every_language_call() {
    let host = typed(&["python"]).await;
    for language in LANGUAGES {
        host.load(guest("client", language), granted()).await.expect(language);
        let seen: Json = host.invoke(&format!("client.{language}"), "visit", &("Ada",)).await.unwrap();
        assert_eq!(seen, visited("Ada"), "{language}");
    }
}

#[tokio::test]
async fn a_host_has_a_client_too() {
    use super::typed::{Client, Person};
    let host = typed(&["python"]).await;
    let client = Client::new(&host);
    let bob = Person { name: "Bob".to_owned(), tags: Vec::new(), friends: Vec::new(), age: None };
    assert_eq!(client.greet(&bob, None).await.unwrap(), "Hello, Bob");
    assert_eq!(client.greet(&bob, Some(2)).await.unwrap(), "Hello, Bob; Hello, Bob");
    assert_eq!(client.older(&bob, 3).await.unwrap().age, Some(3));
    let measured = client.measure(&[1, 2, 2], Timestamp::new(5, 0).unwrap()).await.unwrap();
    assert_eq!((measured.size, measured.counts["2"], measured.at.seconds()), (3, 2, 5));
    assert_eq!(client.lie().await.unwrap_err().code, ErrorCode::InvalidValue);
}

/// A client of each guest, in the languages that need no compiler, made now and run.
#[tokio::test]
async fn slow_clients_of_every_language_call() {
    let calls = |client: &str| match client {
        "ts" => (
            "main.ts",
            "javascript",
            "typed.ts",
            "import * as typed from './typed.ts';\n\
             export async function visit(): Promise<any[]> {\n\
               const bob = { name: 'Bob', tags: [], friends: [] };\n\
               const older = await typed.older({ ...bob, age: 1, friends: [bob] }, 1);\n\
               const measured = await typed.measure(new Uint8Array([1]), new Date(0));\n\
               return [await typed.greet(bob), await typed.greet(bob, 2), older.age, measured.size];\n\
             }\n",
        ),
        _ => (
            "main.py",
            "python",
            "typed.py",
            "from datetime import UTC, datetime\n\
             import typed\n\
             def visit():\n\
             \x20   bob = {'name': 'Bob', 'tags': [], 'friends': []}\n\
             \x20   older = typed.older({**bob, 'age': 1, 'friends': [bob]}, 1)\n\
             \x20   measured = typed.measure(b'1', datetime.fromtimestamp(0, UTC))\n\
             \x20   return [typed.greet(bob), typed.greet(bob, 2), older['age'], measured['size']]\n",
        ),
    };
    let host = typed(&LANGUAGES).await;
    for provider in LANGUAGES {
        for language in ["ts", "python"] {
            let (entry, kind, client, source) = calls(language);
            let dir = TempDir::new().unwrap();
            let manifest = format!(
                "extension = {{ id = 'a.visitor', version = '1.0.0' }}\nruntime = {{ kind = '{kind}', entry = '{entry}' }}\n\
                 permissions = {{ call = ['typed.{provider}/*'] }}\n"
            );
            fs::write(dir.path().join("quadriga.toml"), manifest).unwrap();
            fs::write(dir.path().join(entry), source).unwrap();
            let out = dir.path().join(client);
            let run = quadriga(&[
                "bindgen",
                text(&guest("typed", provider)),
                "--lang",
                language,
                "--out",
                text(&out),
            ]);
            assert_eq!((run.code, run.stdout.as_str()), (Some(0), ""), "{}", run.stderr);
            host.load(dir.path(), granted()).await.unwrap_or_else(|error| {
                panic!("{language} for {provider}: {error}\n{}", fs::read_to_string(&out).unwrap())
            });
            let seen: Json = host.invoke("a.visitor", "visit", &()).await.unwrap();
            assert_eq!(
                seen,
                json!(["Hello, Bob", "Hello, Bob; Hello, Bob", 2, 1]),
                "{language} for {provider}"
            );
            host.unload("a.visitor").await.unwrap();
        }
    }
}

#[test]
fn the_command_has_its_manners() {
    let dir = guest("typed", "python");
    let contract = repository().join("tests/guests/client/contract.json");
    let run = quadriga(&["bindgen", text(&contract), "--lang", "python", "--method", "lie", "--json"]);
    let answer = run.json();
    assert_eq!((&answer["extension"], &answer["methods"]), (&json!("typed.python"), &json!(["lie"])));
    let code = answer["code"].as_str().unwrap();
    assert!(code.contains("def lie()") && !code.contains("Person"), "{code}");

    let run = quadriga(&["inspect", text(&dir), "--contract", "--method", "greet"]);
    let contract: Contract = serde_json::from_str(&run.stdout).unwrap();
    assert_eq!(contract.methods.len(), 1);

    for (args, code, words) in [
        (&["bindgen", text(&dir)][..], 2, "--lang"),
        (&["bindgen", text(&dir), "--lang", "cobol"], 2, "possible values: ts, python, rust"),
        (&["bindgen", "/nowhere", "--lang", "ts"], 1, "an extension's folder, or a file that"),
        (
            &["bindgen", text(&dir), "--lang", "ts", "--method", "gone"],
            1,
            "it has: greet, older, measure, lie",
        ),
        (&["inspect", text(&dir), "--method", "greet"], 2, "--contract"),
        (&["inspect", text(&dir), "--contract", "--no-load"], 2, "cannot be used with"),
    ] {
        let run = quadriga(args);
        assert_eq!(run.code, Some(code), "{args:?}: {}", run.stderr);
        assert!(run.stderr.contains(words), "{args:?}: {}", run.stderr);
    }
    let help = quadriga(&["bindgen", "--help"]).stdout;
    assert!(help.contains("Examples:") && help.contains("--for-host"), "{help}");
    let shown = quadriga(&["inspect", text(&dir)]).stdout;
    assert!(shown.contains("greet(person: Person, times?: int) -> text"), "{shown}");
}
