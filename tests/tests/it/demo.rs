//! The demo: four extensions make a site.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use quadriga_tests::{example, repository};
use serde_json::{Value as Json, json};

use super::cli::{Run, quadriga};

fn fixture() -> PathBuf {
    repository().join("tests/fixtures/demo")
}

fn demo(dir: &Path, out: &Path, more: &[&str]) -> Run {
    let extensions = example("site", "render").parent().unwrap().to_owned();
    let [dir, out, extensions] = [dir, out, &extensions].map(|path| path.to_str().unwrap());
    quadriga(&[&["demo", dir, "--extensions", extensions, "--out", out], more].concat())
}

/// The files below a folder: their paths in it, and what is in them.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, prefix: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().into_string().unwrap());
            if entry.path().is_dir() {
                walk(&entry.path(), &format!("{name}/"), found);
            } else {
                found.insert(name, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found
}

fn page<'a>(site: &'a BTreeMap<String, Vec<u8>>, name: &str) -> &'a str {
    let bytes = site.get(name).unwrap_or_else(|| panic!("{name} is not among {:?}", site.keys()));
    std::str::from_utf8(bytes).unwrap()
}

/// The one file whose name is `before.HASH.after`.
fn hashed(site: &BTreeMap<String, Vec<u8>>, before: &str, after: &str) -> String {
    let is_hash = |text: &str| text.len() == 8 && text.bytes().all(|b| b.is_ascii_hexdigit());
    let fits = |name: &&String| {
        let middle = name.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
        middle.and_then(|dotted| dotted.strip_prefix('.')).is_some_and(is_hash)
    };
    let found: Vec<_> = site.keys().filter(fits).collect();
    assert_eq!(found.len(), 1, "{before}.HASH{after} among {:?}", site.keys());
    found[0].clone()
}

#[test]
fn a_folder_of_markdown_becomes_a_site() {
    let out = tempfile::tempdir().unwrap();
    let run = demo(&fixture(), out.path(), &["--json"]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let report = run.json();
    let index = out.path().join("index.html");
    assert_eq!(report["index"], index.to_str().unwrap());
    assert_eq!(
        (&report["complete"], &report["pages"], &report["images"]),
        (&json!(true), &json!(4), &json!(1))
    );

    let site = files(out.path());
    // Each file has its compressed copy.
    for (name, content) in &site {
        match name.strip_suffix(".gz") {
            Some(original) => {
                assert!(site.contains_key(original) && content.starts_with(b"\x1f\x8b"), "{name}")
            }
            None => assert!(site.contains_key(&format!("{name}.gz")), "{name}"),
        }
    }
    // One style sheet and one script, by names that change with their content.
    let css = hashed(&site, "site", ".css");
    let search = hashed(&site, "search", ".js");
    let horse = hashed(&site, "guide/horse", ".svg");
    assert!(page(&site, &css).contains("prefers-color-scheme: dark"));
    assert!(
        page(&site, &search)
            .contains(r#"["guide/intro.html","Introduction",[["introduction","Introduction"]"#)
    );
    assert_eq!(site[&horse], fs::read(fixture().join("guide/horse.svg")).unwrap());

    let start = page(&site, "index.html");
    assert!(start.contains(&format!("href=\"{css}\"")) && start.contains(&format!("src=\"{search}\"")));
    for part in
        ["<title>The stable</title>", "href=\"guide/intro.html\"", "href=\"https://example.org/page.md\""]
    {
        assert!(start.contains(part), "{part} is not in {start}");
    }
    let intro = page(&site, "guide/intro.html");
    let image = horse.strip_prefix("guide/").unwrap();
    for part in [
        "<title>Introduction · The stable</title>",
        &format!("href=\"../{css}\""),
        &format!("src=\"{image}\""),
        "href=\"../index.html\"",
        "href=\"explode.html\"",
        "<h2 id=\"in-rust\">In Rust</h2>",
        "<span class=\"k\">fn</span>",
        "<span class=\"k\">def</span>",
        "aria-current=\"page\"",
        "☑ done",
    ] {
        assert!(intro.contains(part), "{part} is not in {intro}");
    }
    local_links_lead_somewhere(&site);
}

fn local_links_lead_somewhere(site: &BTreeMap<String, Vec<u8>>) {
    for name in site.keys().filter(|name| name.ends_with(".html")) {
        let html = page(site, name);
        let targets = ["href=\"", "src=\""].into_iter().flat_map(|start| html.split(start).skip(1));
        for target in targets.filter_map(|rest| rest.split(['"', '#']).next()) {
            if target.is_empty() || target.contains("://") || name == "hostile.html" && target == "x" {
                continue;
            }
            let folder = Path::new(name).parent().unwrap();
            let mut path: Vec<&str> = folder.iter().map(|part| part.to_str().unwrap()).collect();
            for part in target.split('/') {
                if part == ".." {
                    path.pop().unwrap_or_else(|| panic!("{target} leaves the site on {name}"));
                } else {
                    path.push(part);
                }
            }
            assert!(site.contains_key(&path.join("/")), "{target} on {name} leads nowhere");
        }
    }
}

#[test]
fn slow_a_block_that_fails_stays_plain_and_harms_nothing_else() {
    let (with, without) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let run = demo(&fixture(), with.path(), &["--json"]);
    assert_eq!(run.code, Some(0), "{}{}", run.stdout, run.stderr);
    let report = run.json();
    let failures = report["failures"].as_array().unwrap();
    assert_eq!(failures.len(), 1, "{failures:?}");
    let failure = &failures[0];
    assert_eq!((&failure["what"], &failure["page"]), (&json!("plain-block"), &json!("guide/explode.md")));
    assert_eq!((&failure["line"], &failure["language"]), (&json!(7), &json!("explode")));
    assert_eq!(failure["extension"], "site.highlight");
    assert!(failure["message"].as_str().unwrap().contains("asked to explode"));

    let row = |id: &str| {
        let rows = report["extensions"].as_array().unwrap();
        rows.iter().find(|row| row["extension"] == id).cloned().unwrap_or(Json::Null)
    };
    // Four pages; five good blocks, one bad; one style sheet, script and image.
    for (id, runtime, calls, errors) in [
        ("site.render", "javascript", 4, 0),
        ("site.highlight", "python", 7, 1),
        ("site.sanitize", "webassembly", 4, 0),
        ("site.assets", "native", 7, 0),
    ] {
        let row = row(id);
        assert_eq!(
            (&row["runtime"], &row["calls"], &row["errors"]),
            (&json!(runtime), &json!(calls), &json!(errors))
        );
        for figure in ["load_ms", "p50_ms", "p99_ms"] {
            assert!(row[figure].as_f64().unwrap() > 0.0, "{id} {figure}");
        }
    }

    let site = files(with.path());
    let explode = page(&site, "guide/explode.html");
    for part in
        ["1 &lt; 2 &amp;&amp; \"boom\"", "class=\"language-explode\"", "<span class=\"n\">after</span>"]
    {
        assert!(explode.contains(part), "{part} is not in {explode}");
    }

    // The same folder, but for the block: all other pages are the same to the byte.
    let copy = tempfile::tempdir().unwrap();
    for (name, content) in files(&fixture()) {
        let path = copy.path().join(&name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let text = String::from_utf8(content).unwrap();
        fs::write(path, text.replace("```explode", "```text")).unwrap();
    }
    let run = demo(copy.path(), without.path(), &["--json"]);
    assert_eq!((run.code, &run.json()["failures"]), (Some(0), &json!([])));
    let mut other = files(without.path());
    for name in ["guide/explode.html", "guide/explode.html.gz"] {
        assert_ne!(other.remove(name), site.get(name).cloned(), "{name}");
    }
    for (name, content) in other {
        assert!(site.get(&name) == Some(&content), "{name} differs");
    }
}

#[test]
fn slow_hostile_markdown_is_made_harmless() {
    let out = tempfile::tempdir().unwrap();
    assert_eq!(demo(&fixture(), out.path(), &["--json"]).code, Some(0));
    let site = files(out.path());
    for name in site.keys().filter(|name| name.ends_with(".html")) {
        let html = page(&site, name);
        for bad in ["<script>", "alert(\"body", "onclick", "onerror", "javascript:", "<iframe"] {
            assert!(!html.contains(bad), "{bad} is in {name}");
        }
        assert_eq!(html.matches("<script").count(), 1, "{name} has the search and no other script");
    }
    let hostile = page(&site, "hostile.html");
    assert!(hostile.contains("Text that stays") && hostile.contains("id=\"harm\""));
}

#[test]
fn people_get_a_table_and_the_path_to_open() {
    let out = tempfile::tempdir().unwrap();
    let run = demo(&fixture(), out.path(), &[]);
    assert_eq!(run.code, Some(0), "{}", run.stderr);
    for part in [
        "Extension",
        "site.highlight  python",
        "guide/explode.md:7: the `explode` block stayed plain: ",
        "4 pages and 1 image in ",
        &format!("Open {}\n", out.path().join("index.html").display()),
    ] {
        assert!(run.stdout.contains(part), "{part:?} is not in {}", run.stdout);
    }
    for part in
        ["loaded site.render on javascript in ", "rendered guide/intro.md\n", "wrote guide/intro.html\n"]
    {
        assert!(run.stderr.contains(part), "{part:?} is not in {}", run.stderr);
    }
    assert!(!format!("{}{}", run.stdout, run.stderr).contains('\x1b'), "a pipe gets no colours");
}

#[test]
fn slow_a_folder_without_an_index_gets_one() {
    let (dir, out) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(dir.path().join("deep")).unwrap();
    fs::write(dir.path().join("deep/a b & c.md"), "no heading, [me](<a b & c.md>)").unwrap();
    let run = demo(dir.path(), out.path(), &["--json"]);
    assert_eq!((run.code, &run.json()["pages"]), (Some(0), &json!(2)));
    let site = files(out.path());
    let link = "<a href=\"deep/a%20b%20%26%20c.html\">deep/a b &amp; c.md</a>";
    assert!(page(&site, "index.html").contains(link), "{}", page(&site, "index.html"));
    assert!(site.contains_key("deep/a b & c.html"));
}

#[test]
fn bad_input_is_named_with_the_next_step() {
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    for dir in ["empty", "plain", "latin", "twice", "bare"] {
        fs::create_dir(at(dir)).unwrap();
    }
    fs::write(at("plain/notes.txt"), "no Markdown").unwrap();
    fs::write(at("latin/page.md"), b"caf\xe9").unwrap();
    fs::write(at("twice/a.md"), "").unwrap();
    fs::write(at("twice/a.markdown"), "").unwrap();
    fs::write(at("file"), "").unwrap();
    let extensions = example("site", "render").parent().unwrap().to_owned();
    let out = at("out");
    let check = |dir: &Path, extensions: &Path, out: &Path, words: [&str; 2]| {
        let [dir, extensions, out] = [dir, extensions, out].map(|path| path.to_str().unwrap());
        let args = ["demo", dir, "--extensions", extensions, "--out", out];
        let run = quadriga(&args);
        assert_eq!((run.code, run.stdout.as_str()), (Some(1), ""), "{dir}: {}", run.stderr);
        assert!(run.stderr.starts_with("error: ") && run.stderr.contains("\n  hint: "), "{}", run.stderr);
        for words in words {
            assert!(run.stderr.contains(words), "{words:?} is not in {}", run.stderr);
        }
        let run = quadriga(&[&args[..], &["--json"]].concat());
        assert!(run.code == Some(1) && run.json()["error"]["hint"].is_string());
    };
    check(&at("nowhere"), &extensions, &out, ["nowhere cannot be read", "a folder that holds Markdown"]);
    check(&at("file"), &extensions, &out, ["file is not a folder", "name the folder"]);
    check(&at("empty"), &extensions, &out, ["there is no Markdown in", "with .md files"]);
    check(&at("plain"), &extensions, &out, ["there is no Markdown in", "with .md files"]);
    check(&at("latin"), &extensions, &out, ["latin/page.md cannot be read", "UTF-8"]);
    check(&at("twice"), &extensions, &out, ["both become a.html", "rename"]);
    check(&fixture(), &extensions, &at("file"), ["file cannot be written", "--out"]);
    check(&fixture(), &at("bare"), &out, ["no extension in", "cargo xtask guests"]);
}
