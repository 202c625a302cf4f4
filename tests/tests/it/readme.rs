//! The code in the README and in the walkthrough is that of examples that are compiled and run.

use std::fs;
use std::process::Command;

use quadriga_tests::{copy, example, repository};

use crate::cli::command;

/// The host example, as it stands.
mod host_example {
    include!("../../../examples/host.rs");

    pub(super) async fn run(folder: &Path) -> Result<Vec<String>, Error> {
        greetings(&host().unwrap(), folder).await
    }
}

/// The blocks that follow a line `<!-- FILE -->`, with what is in that file.
fn blocks(page: &str) -> Vec<(String, String, String)> {
    let text = fs::read_to_string(repository().join(page)).unwrap();
    let block = |part: &str| {
        let (file, rest) = part.split_once(" -->\n").expect("a marker ends with -->");
        let block =
            rest.strip_prefix("```").and_then(|block| block.split_once('\n')).expect("a block follows").1;
        let (block, _) = block.split_once("\n```\n").expect("the block ends");
        let source = fs::read_to_string(repository().join(file)).expect(file);
        (file.to_owned(), block.to_owned(), source)
    };
    text.split("<!-- ").skip(1).map(block).collect()
}

/// Each is its file, to the letter.
#[test]
fn blocks_are_the_files_they_name() {
    let blocks = blocks("README.md");
    for (file, block, source) in &blocks {
        assert_eq!(block.trim(), source.trim(), "{file} in README.md is out of date");
    }
    assert_eq!(
        blocks.len(),
        6,
        "the host example, three extensions, a manifest and the commands of operators"
    );
}

/// Each is a part of its file, whole lines of it, and each extension has one.
#[test]
fn the_walkthrough_shows_what_is_there() {
    let blocks = blocks("docs/agents.md");
    for (file, block, source) in &blocks {
        let there = format!("\n{source}").contains(&format!("\n{block}\n"));
        assert!(there, "{file} in docs/agents.md is out of date: it has no\n{block}");
    }
    for extension in fs::read_dir(repository().join("examples/agent-platform/extensions")).unwrap() {
        let folder = extension.unwrap().path();
        let shown = |(file, ..): &&(String, String, String)| repository().join(file).starts_with(&folder);
        assert!(blocks.iter().any(|block| shown(&block)), "{} is not shown", folder.display());
    }
}

#[tokio::test]
async fn the_host_example_greets_in_four_languages() {
    let folder = example("hello", "js").parent().unwrap().to_owned();
    let greetings = host_example::run(&folder).await.unwrap();
    assert_eq!(greetings.len(), 4);
    assert!(greetings.iter().all(|greeting| greeting.starts_with("Hello, Ada")), "{greetings:?}");
}

/// With a home of its own, and the command on the path.
#[test]
fn the_commands_of_operators_run() {
    let folder = tempfile::tempdir().unwrap();
    copy(&example("hello", "js"), &folder.path().join("hello")).unwrap();
    let quadriga = std::path::PathBuf::from(command().get_program());
    let path = format!("{}:{}", quadriga.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = repository().join("examples/manage.sh");
    let mut shell = Command::new("sh");
    shell.arg("-e").arg(script).current_dir(folder.path()).env("PATH", path);
    let output = shell.env("QUADRIGA_HOME", folder.path().join("home")).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    for part in ["hello.js 0.1.0 is installed", "Hello, Ada", "4 entries, all as they were written"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Without a host, and with one.
    assert_eq!(said.matches("Hello, Ada").count(), 2, "{said}");
    // In the home, and in the one that was made of its copy.
    let listed = |line: &&str| line.starts_with(" hello.js") && line.contains("enabled");
    assert_eq!(said.lines().filter(listed).count(), 2, "{said}");
}
