//! One table of what is refused, run over every format: by name, and with nothing left behind.

use std::fs;
use std::path::Path;

use quadriga_package::{Bounds, Format, GO_ON, Package};

use crate::craft::{Entry, Kind, MANIFEST, file, good, list, package, special};

/// Unpacks, and returns the code of the error; nothing may be left in the folder then.
pub(crate) fn refused(path: &Path, bounds: &Bounds) -> &'static str {
    let place = tempfile::tempdir().unwrap();
    let result = Package::open(path, bounds).and_then(|package| {
        let looked_at = package.inspect(&mut |_| GO_ON).err().map(|error| error.code());
        let unpacked = package.unpack(place.path(), &mut |_| GO_ON);
        assert_eq!(unpacked.as_ref().err().map(|error| error.code()), looked_at);
        unpacked
    });
    let code = match &result {
        Ok(_) => "accepted",
        Err(error) => {
            assert!(!error.to_string().contains(|c: char| c.is_control() && c != '\n'), "{error}");
            error.code()
        }
    };
    drop(result);
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{code}: something is left");
    code
}

fn check(what: &str, entries: &[Entry], bounds: &Bounds, expected: &str) {
    for format in Format::ALL {
        let dir = tempfile::tempdir().unwrap();
        let path = package(dir.path(), format, entries);
        let expected = match (format, expected) {
            // Whatever has an absolute path is outside of npm's folder, too.
            (Format::Npm, "escapes") if entries.iter().any(|entry| entry.name.starts_with(b"/")) => "escapes",
            (_, expected) => expected,
        };
        assert_eq!(refused(&path, bounds), expected, "{what} as {format}");
    }
}

/// A good package and these.
fn with(entries: impl IntoIterator<Item = Entry>) -> Vec<Entry> {
    good().into_iter().chain(entries).collect()
}

#[test]
fn what_is_good_is_accepted() {
    check("the least", &good(), &Bounds::default(), "accepted");
    let folders = with([special("a/", Kind::Folder), file("a/b", "x"), special("c", Kind::Folder)]);
    check("folders", &folders, &Bounds::default(), "accepted");
    let names =
        with([file("vendor/ü/日本 語.txt", "x"), file("long/".repeat(30) + "name", "x"), file("empty", "")]);
    check("names", &names, &Bounds::default(), "accepted");
}

#[test]
fn names_that_lead_elsewhere_are_refused() {
    for (name, code) in [
        ("../evil", "escapes"),
        ("a/../../evil", "escapes"),
        ("a/..", "escapes"),
        ("/etc/evil", "escapes"),
        ("./evil", "bad_name"),
        ("a//b", "bad_name"),
        ("a\\..\\b", "bad_name"),
        ("C:evil", "bad_name"),
        ("a\x07b", "bad_name"),
        ("e\u{301}vil", "bad_name"),
        ("evil.", "bad_name"),
        ("evil /a", "bad_name"),
        ("live\u{202e}gpj", "bad_name"),
        (".quadriga/more", "reserved"),
        (".quadriga", "file_and_folder"),
    ] {
        let entries = with([file(name, "x")]);
        // The format of a package without a list has nothing in that folder yet.
        let code = |format| match (name, format) {
            (".quadriga", Format::Zip | Format::Tar | Format::Npm) => "reserved",
            _ => code,
        };
        for format in Format::ALL {
            let dir = tempfile::tempdir().unwrap();
            let path = package(dir.path(), format, &entries);
            assert_eq!(refused(&path, &Bounds::default()), code(format), "{name:?} as {format}");
        }
    }
    check("not UTF-8", &with([file(b"\xffevil", "x")]), &Bounds::default(), "bad_name");
    check("deep", &with([file("a/".repeat(60) + "b", "x")]), &Bounds::default(), "too_deep");
    check("long", &with([file("abcdefgh/".repeat(120) + "b", "x")]), &Bounds::default(), "path_too_long");
}

#[test]
fn what_is_no_file_is_refused() {
    for kind in [Kind::Symlink, Kind::HardLink, Kind::Char, Kind::Block, Kind::Fifo] {
        check("special", &with([special("evil", kind)]), &Bounds::default(), "not_a_file");
        // Whatever would be written through it comes too late.
        let through = with([special("evil", kind), file("evil/a", "x")]);
        check("through", &through, &Bounds::default(), "not_a_file");
    }
}

#[test]
fn names_that_meet_are_refused() {
    for (first, second, code) in [
        ("a", "a", "duplicate"),
        ("main.py", "Main.py", "collides"),
        ("a/b", "A/c", "collides"),
        ("É", "é", "collides"),
        ("straße", "STRASSE", "collides"),
        ("a", "a/b", "file_and_folder"),
        ("a/b", "a", "file_and_folder"),
    ] {
        let (first, second) = (file(first, "x"), file(second, "y"));
        let entries = if first.name == b"main.py" { with([second]) } else { with([first, second]) };
        check(code, &entries, &Bounds::default(), code);
    }
}

#[test]
fn what_goes_beyond_a_bound_is_refused() {
    let big = |bytes: usize| with([file("big", &"x".repeat(bytes))]);
    let many = with((0..100).map(|number| file(format!("f{number}"), "")));
    let deep = with((0..10).map(|number| file(format!("{number}/a/b/c/d/e/f/g/h/i"), "")));
    let defaults = Bounds::default;
    let noise: String = (0..40_000_u64)
        .map(|n| char::from(b'a' + (n.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 59) as u8 % 26))
        .collect();
    for (what, entries, bounds, code) in [
        (
            "packed",
            with([file("noise", &noise)]),
            Bounds { packed: 1 << 10, ..defaults() },
            "package_too_large",
        ),
        ("file", big(1001), Bounds { file: 1000, ..defaults() }, "file_too_large"),
        ("total", big(5000), Bounds { total: 4096, ..defaults() }, "too_large"),
        ("entries", many, Bounds { entries: 99, ..defaults() }, "too_many_entries"),
        ("folders", deep, Bounds { entries: 50, ..defaults() }, "too_many_entries"),
        ("names", with([file("abcdefgh", "")]), Bounds { names: 20, ..defaults() }, "names_too_long"),
        ("path", with([file("abcdefgh/abcdefgh/abcdefgh", "")]), Bounds { path: 32, ..defaults() }, "path"),
        ("depth", with([file("a/b/c/d", "")]), Bounds { depth: 3, ..defaults() }, "too_deep"),
    ] {
        // npm's folder counts.
        if code == "path" {
            let dir = tempfile::tempdir().unwrap();
            let path = package(dir.path(), Format::Npm, &entries);
            assert_eq!(refused(&path, &bounds), "path_too_long", "{what}");
        } else {
            check(what, &entries, &bounds, code);
        }
    }
    // The files that are read into memory have bounds of their own.
    let manifest = format!("{MANIFEST}#{}", "x".repeat(1 << 20));
    check(
        "manifest",
        &[file("main.py", ""), file("quadriga.toml", &manifest)],
        &defaults(),
        "file_too_large",
    );
    let list = with([file(".quadriga/contents.json", &" ".repeat(25 << 20))]);
    check("list", &list, &defaults(), "file_too_large");
}

#[test]
fn a_list_that_does_not_fit_is_refused() {
    let mut cases: Vec<(&str, Vec<Entry>, &str)> = Vec::new();
    let listed = |entries: &[Entry], edit: &dyn Fn(&str) -> String| {
        let text = String::from_utf8(list(entries).data).unwrap();
        let edited = file(".quadriga/contents.json", &edit(&text));
        assert_ne!(edited.data, text.as_bytes());
        [&[edited], entries].concat()
    };
    let more = with([file("more", "x")]);
    cases.push(("not listed", [&[list(&good())], &more[..]].concat(), "not_listed"));
    cases.push(("missing", [&[list(&more)], &good()[..]].concat(), "missing"));
    let size = listed(&good(), &|text| text.replace("\"size\":15", "\"size\":16"));
    cases.push(("size", size, "wrong_file_size"));
    let other = crate::craft::hex(b"print('hallo')\n");
    let digest = listed(&good(), &|text| text.replace(&crate::craft::hex(b"print('hello')\n"), &other));
    cases.push(("digest", digest, "wrong_file_digest"));
    let twice = listed(&good(), &|text| {
        let start = text.find("[{").unwrap() + 1;
        let end = text.find("},").unwrap() + 2;
        format!("{}{}{}", &text[..start], &text[start..end], &text[start..])
    });
    cases.push(("twice", twice, "bad_contents"));
    cases.push((
        "format",
        listed(&good(), &|text| text.replace("\"format\":1", "\"format\":2")),
        "bad_contents",
    ));
    cases.push(("id", listed(&good(), &|text| text.replace("acme.hello", "acme.other")), "bad_contents"));
    cases.push(("version", listed(&good(), &|text| text.replace("1.0.0", "1.0.1")), "bad_contents"));
    cases.push(("no JSON", listed(&good(), &|text| text[1..].to_owned()), "bad_contents"));
    cases.push(("upper case", listed(&good(), &|text| text.replace('a', "A")), "bad_contents"));
    for (what, entries, code) in cases {
        check(what, &entries, &Bounds::default(), code);
    }
}

#[test]
fn what_does_not_say_what_it_is_is_refused() {
    let manifest = |text: &str| vec![file("main.py", ""), file("quadriga.toml", text)];
    for (what, entries, code) in [
        ("no manifest", vec![file("main.py", "")], "lacks"),
        ("no TOML", manifest("["), "invalid_manifest"),
        ("a bad manifest", manifest(&MANIFEST.replace("'1.0.0'", "'one'")), "invalid_manifest"),
        ("no entry", manifest(&MANIFEST.replace("main.py", "other.py")), "not_packed"),
        (
            "no contract",
            manifest(&format!(
                "{MANIFEST}[dependencies]\n'a.b' = {{ version = '1', contract = 'c.json' }}\n"
            )),
            "not_packed",
        ),
    ] {
        check(what, &entries, &Bounds::default(), code);
    }
}
