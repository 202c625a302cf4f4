//! Checks on the text of files: length, languages named in loader-core, paths of one machine.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::Finding;
use crate::cmd;
use crate::repo::Repo;

const MAX_LINES: usize = 500;

/// Parts of words, and whole words too short to look for inside others.
const LANGUAGE_PARTS: [&str; 9] = [
    "javascript",
    "typescript",
    "python",
    "webassembly",
    "wasmtime",
    "pyo3",
    "quickjs",
    "abi_stable",
    "libloading",
];
const LANGUAGE_WORDS: [&str; 5] = ["js", "wasm", "deno", "v8", "wasi"];

pub(super) fn check(repo: &Repo, found: &mut Vec<Finding>) -> Result<()> {
    let list = ["ls-files", "--cached", "--others", "--exclude-standard", "-z"];
    let files = cmd::output(Command::new("git").args(list).current_dir(&repo.root))?;
    for file in files.split_terminator('\0').map(Path::new) {
        // A file removed but not yet committed, or one that isn't text, has nothing to check.
        if let Ok(text) = fs::read_to_string(repo.root.join(file)) {
            found.extend(length(file, &text));
            found.extend(languages(file, &text));
            found.extend(machine_paths(file, &text));
        }
    }
    Ok(())
}

fn length(file: &Path, text: &str) -> Option<Finding> {
    let is_source =
        file.extension().is_some_and(|ext| ["rs", "py", "js", "mjs", "ts"].iter().any(|known| ext == *known));
    let lines = text.lines().count();
    (is_source && lines > MAX_LINES).then(|| Finding {
        file: file.to_path_buf(),
        line: MAX_LINES + 1,
        what: format!("{lines} lines"),
        fix: format!("split it: {MAX_LINES} is the most"),
    })
}

fn languages(file: &Path, text: &str) -> Vec<Finding> {
    if !file.starts_with("loader-core/src") {
        return Vec::new();
    }
    each_line(text, |line| {
        named_language(line).map(|name| format!("loader-core names a language or engine ({name})"))
    })
    .map(|(line, what)| Finding {
        file: file.to_path_buf(),
        line,
        what,
        fix: "say it without the name, or move it to the runtime's crate".to_owned(),
    })
    .collect()
}

fn machine_paths(file: &Path, text: &str) -> Vec<Finding> {
    each_line(text, |line| machine_path(line).map(|path| format!("a path of one machine ({path})")))
        .map(|(line, what)| Finding {
            file: file.to_path_buf(),
            line,
            what,
            fix: "use a path relative to the repository, or a placeholder".to_owned(),
        })
        .collect()
}

fn each_line<'a>(
    text: &'a str,
    look: impl Fn(&'a str) -> Option<String> + 'a,
) -> impl Iterator<Item = (usize, String)> + 'a {
    text.lines().enumerate().filter_map(move |(index, line)| Some((index + 1, look(line)?)))
}

fn named_language(line: &str) -> Option<&'static str> {
    let lower = line.to_lowercase();
    let part = LANGUAGE_PARTS.into_iter().find(|part| lower.contains(part));
    part.or_else(|| LANGUAGE_WORDS.into_iter().find(|word| words(line).any(|found| found == *word)))
}

/// The words of a line in lower case; `WasmHost` and `wasm_host` both hold `wasm`.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split(|c: char| !c.is_ascii_alphanumeric()).flat_map(|token| {
        let mut split = vec![String::new()];
        let mut before_lower = false;
        for c in token.chars() {
            if c.is_ascii_uppercase() && before_lower {
                split.push(String::new());
            }
            before_lower = c.is_ascii_lowercase();
            if let Some(word) = split.last_mut() {
                word.push(c.to_ascii_lowercase());
            }
        }
        split
    })
}

fn machine_path(line: &str) -> Option<&str> {
    // Taken apart, so that this file passes its own check.
    let homes = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/"), concat!("/Us", "ers/")];
    homes.into_iter().find_map(|home| {
        line.match_indices(home).find_map(|(at, _)| {
            let starts_there =
                !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-/{}$<>".contains(c));
            let rest = &line[at + home.len()..];
            let named = rest.starts_with(|c: char| c.is_alphanumeric() || c == '.');
            let end = rest.find(|c: char| !c.is_alphanumeric() && !"._-/".contains(c)).unwrap_or(rest.len());
            (starts_there && named).then(|| &line[at..at + home.len() + end])
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found_as_words_and_as_parts_of_names() {
        for (line, expect) in [
            ("fn pythonic()", Some("python")),
            ("struct WasmHost;", Some("wasm")),
            ("let js_value = 1;", Some("js")),
            ("the V8 heap", Some("v8")),
            ("the denominator of json values, cargo and native code", None),
        ] {
            assert_eq!(named_language(line), expect, "{line}");
        }
    }

    #[test]
    fn machine_paths_are_found_and_their_lookalikes_are_not() {
        let [root, work, home] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];
        for (line, expect) in [
            (format!("let p = \"{work}main\";"), Some(format!("{work}main"))),
            (format!("see {root}.cargo here"), Some(format!("{root}.cargo"))),
            (format!("`{home}ann/src`"), Some(format!("{home}ann/src"))),
            (format!("https://example.org{home}page"), None),
            (format!("{{dir}}{root}file"), None),
            (format!("{home}<name>/"), None),
        ] {
            assert_eq!(machine_path(&line), expect.as_deref(), "{line}");
        }
    }

    #[test]
    fn only_sources_have_a_length() {
        let long = "line\n".repeat(MAX_LINES + 1);
        assert_eq!(length(Path::new("a.rs"), &long).unwrap().what, "501 lines");
        assert_eq!(length(Path::new("a.md"), &long), None);
        assert_eq!(length(Path::new("a.rs"), &"line\n".repeat(MAX_LINES)), None);
    }
}
