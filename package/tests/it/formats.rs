//! What can be wrong about one format alone.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::write::DeflateEncoder;
use quadriga_package::{Bounds, Format, GO_ON, Package};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use serde_json::{Value as Json, json};
use tar::EntryType;

use crate::craft::{self, Entry, MANIFEST, file, good, gzip, layout, list, package};
use crate::refusals::refused;

fn check(what: &str, bytes: &[u8], expected: &str) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("package");
    fs::write(&path, bytes).unwrap();
    assert_eq!(refused(&path, &Bounds::default()), expected, "{what}");
}

fn qx(tar: &[u8]) -> Vec<u8> {
    zstd::encode_all(tar, 1).unwrap()
}

fn listed() -> Vec<Entry> {
    [vec![list(&good())], good()].concat()
}

#[test]
fn what_is_no_package_at_all_is_refused() {
    for bytes in [&b""[..], b"x", b"%PDF-1.7", &[0; 4096], b"\x7fELF"] {
        check("no format", bytes, "unknown_format");
    }
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(refused(dir.path(), &Bounds::default()), "folder");
    assert_eq!(refused(&dir.path().join("nothing"), &Bounds::default()), "io");
}

/// The first bytes of a good package, however many: never the whole of it.
#[test]
fn a_package_that_was_cut_off_is_refused() {
    for format in [Format::Qx, Format::Zip, Format::Npm, Format::Tar] {
        let dir = tempfile::tempdir().unwrap();
        let path = package(dir.path(), format, &listed());
        let bytes = fs::read(&path).unwrap();
        // A tar file may lack its padding.
        let needed = if format == Format::Tar { bytes.len() - 1024 - 511 } else { bytes.len() };
        for length in (0..needed).step_by(if format == Format::Tar { 97 } else { 5 }) {
            fs::write(&path, &bytes[..length]).unwrap();
            assert_ne!(
                refused(&path, &Bounds::default()),
                "accepted",
                "{format}, {length} of {}",
                bytes.len()
            );
        }
    }
}

#[test]
fn what_follows_the_end_is_refused() {
    let tar = craft::tar(&listed());
    let manifest = tar.windows(11).position(|bytes| bytes == b"[extension]").unwrap();
    check("in the middle of a file", &tar[..manifest + 20], "wrong_length");
    let junk = |bytes: Vec<u8>| [&bytes[..], b"junk"].concat();
    check("tar", &junk(tar.clone()), "malformed");
    check("in tar.zst", &qx(&junk(tar.clone())), "malformed");
    check("zstd", &junk(qx(&tar)), "malformed");
    check("a second frame", &[qx(&tar), qx(b"more")].concat(), "malformed");
    let npm: Vec<Entry> = [vec![file("package.json", craft::PACKAGE_JSON)], good()].concat();
    let npm = npm.into_iter().map(|entry| Entry { name: [b"package/", &entry.name[..]].concat(), ..entry });
    let npm = gzip(&craft::tar(&npm.collect::<Vec<_>>()));
    check("npm", &npm, "accepted");
    check("gzip", &junk(npm.clone()), "malformed");
    check("a second member", &[npm.clone(), npm].concat(), "malformed");
    check("zip", &junk(craft::zip(&listed())), "malformed");
    check("padding", &[tar, vec![0; 9216]].concat(), "accepted");
}

#[test]
fn headers_of_tar_that_readers_disagree_on_are_refused() {
    let with = |kind: EntryType, data: &[u8]| {
        let mut out = craft::tar(&listed());
        out.truncate(out.len() - 1024);
        craft::block(&mut out, b"header", kind, data);
        craft::block(&mut out, b"short", EntryType::Regular, b"");
        out.extend([0; 1024]);
        out
    };
    for (what, bytes, code) in [
        ("pax size", with(EntryType::XHeader, b"10 size=5\n"), "unsupported"),
        ("pax sparse", with(EntryType::XHeader, b"22 GNU.sparse.major=1\n"), "unsupported"),
        ("pax path", with(EntryType::XHeader, b"16 path=../evil\n"), "escapes"),
        ("pax no record", with(EntryType::XHeader, b"nonsense"), "malformed"),
        ("long name", with(EntryType::GNULongName, b"../evil\0"), "escapes"),
        ("long header", with(EntryType::XHeader, &[b'x'; 70_000]), "malformed"),
        ("long global header", with(EntryType::XGlobalHeader, &[b'x'; 70_000]), "malformed"),
        ("sparse", with(EntryType::GNUSparse, b""), "not_a_file"),
        ("a type of a vendor", with(EntryType::new(b'V'), b""), "unsupported"),
        // What it adds to a list that fits.
        ("a file", with(EntryType::GNULongLink, b"anything\0"), "not_listed"),
        ("a global header", with(EntryType::XGlobalHeader, b"11 mtime=1\n"), "not_listed"),
    ] {
        check(what, &bytes, code);
        check(what, &qx(&bytes), code);
    }
    let mut sum = craft::tar(&listed());
    sum[0] ^= 1;
    check("checksum", &sum, "malformed");
    let mut last = craft::tar(&listed());
    last.truncate(last.len() - 1024);
    craft::block(&mut last, b"x", EntryType::GNULongName, b"name\0");
    check("a name of nothing", &last, "malformed");
    // A package in our own format says what is in it.
    check("no list", &qx(&craft::tar(&good())), "lacks");
    check("no list, tar", &craft::tar(&good()), "accepted");
}

#[test]
fn windows_that_take_much_memory_are_refused() {
    let mut wide = zstd::Encoder::new(Vec::new(), 1).unwrap();
    wide.window_log(27).unwrap();
    wide.write_all(&craft::tar(&listed())).unwrap();
    check("window", &wide.finish().unwrap(), "window_too_large");
}

#[test]
fn zips_that_say_two_things_are_refused() {
    let good = craft::zip(&good());
    check("good", &good, "accepted");
    let find = |bytes: &[u8], what: &[u8], nth: usize| {
        let found: Vec<usize> =
            (0..bytes.len() - what.len()).filter(|at| bytes[*at..].starts_with(what)).collect();
        found[nth]
    };
    // The name of the first file stands in its own header and in the directory.
    let mut names = good.clone();
    let at = find(&names, b"main.py", 0);
    names[at] = b'X';
    check("two names", &names, "malformed");
    let mut crc = good.clone();
    let at = find(&crc, b"print", 0);
    crc[at] = b'P';
    check("a wrong checksum", &crc, "malformed");
    let directory = find(&good, b"PK\x01\x02", 0);
    for (what, offset, value, code) in [
        ("encrypted", 8, 1, "unsupported"),
        ("a method that nobody knows", 10, 99, "unsupported"),
        ("a length that is too small", 24, 3, "malformed"),
    ] {
        let mut bytes = good.clone();
        bytes[directory + offset] = value;
        check(what, &bytes, code);
    }
    // More in the stream than the directory says.
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for Entry { name, data, .. } in craft::good() {
        let name = String::from_utf8(name).unwrap();
        let file = archive.new_file(&*name).compression_method(CompressionMethod::DEFLATE);
        let (mut entry, config) = file.start().unwrap();
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, flate2::Compression::fast()));
        writer.write_all(&data).unwrap();
        let (deflate, descriptor) = writer.finish().unwrap();
        deflate.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    let mut short = archive.finish().unwrap();
    check("deflated", &short, "accepted");
    let directory = find(&short, b"PK\x01\x02", 0);
    short[directory + 24] -= 1;
    check("a short length", &short, "malformed");
}

fn npm(package_json: &str, entries: &[Entry]) -> Vec<u8> {
    let all = [&[file("package.json", package_json)], entries].concat();
    let all = all.into_iter().map(|entry| Entry { name: [b"package/", &entry.name[..]].concat(), ..entry });
    gzip(&craft::tar(&all.collect::<Vec<_>>()))
}

#[test]
fn an_npm_package_says_that_it_is_an_extension() {
    let main = || file("main.py", "");
    for (what, package_json, entries, code) in [
        ("the name of the file", r#"{ "quadriga": "quadriga.toml" }"#, good(), "accepted"),
        ("no section", r#"{ "name": "x" }"#, good(), "package_json"),
        ("another file", r#"{ "quadriga": "other.toml" }"#, good(), "package_json"),
        ("no file", r#"{ "quadriga": "quadriga.toml" }"#, vec![main()], "lacks"),
        ("a number", r#"{ "quadriga": 1 }"#, good(), "package_json"),
        ("no JSON", "{", good(), "package_json"),
        ("two manifests", r#"{ "quadriga": {} }"#, good(), "package_json"),
        ("an empty manifest", r#"{ "quadriga": {} }"#, vec![main()], "invalid_manifest"),
        ("null", r#"{ "quadriga": { "runtime": null } }"#, vec![main()], "package_json"),
    ] {
        check(what, &npm(package_json, &entries), code);
    }
    let outside = craft::tar(&[file("elsewhere/main.py", "")]);
    check("outside", &gzip(&outside), "malformed");
    check("no package.json", &gzip(&craft::tar(&[file("package/main.py", "")])), "lacks");
    let original = [good(), vec![file(".quadriga/package.json", "{}")]].concat();
    check("an original", &npm(r#"{ "quadriga": "quadriga.toml" }"#, &original), "reserved");
}

#[test]
fn a_manifest_in_package_json_becomes_a_file() {
    let package_json = json!({
        "name": "hello", "version": "1.2.3", "description": "Says hello", "license": "MIT",
        "quadriga": {
            "extension": { "id": "acme.hello" },
            "runtime": { "kind": "javascript", "entry": "main.js" },
            "limits": { "memory": "64MiB" },
        },
    });
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hello.tgz");
    fs::write(&path, npm(&package_json.to_string(), &[file("main.js", "")])).unwrap();
    let package = Package::open(&path, &Bounds::default()).unwrap();
    let unpacked = package.unpack(dir.path(), &mut |_| GO_ON).unwrap();
    let about = &unpacked.manifest.extension;
    assert_eq!((about.version.to_string(), about.description.as_str()), ("1.2.3".to_owned(), "Says hello"));
    let paths: Vec<_> = unpacked.contents.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["main.js", "package.json", "quadriga.toml"]);
    let text = fs::read_to_string(unpacked.dir().join("quadriga.toml")).unwrap();
    let read = quadriga_abi::manifest::Manifest::parse(&text, "quadriga.toml").unwrap();
    assert_eq!(read, unpacked.manifest);
}

/// Makes a good layout, lets `edit` change it, and opens it.
fn laid_out(edit: impl FnOnce(&Path)) -> &'static str {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("layout");
    layout(&path, &qx(&craft::tar(&listed())));
    edit(&path);
    refused(&path, &Bounds::default())
}

/// Changes a JSON file of a layout. A manifest gets a new name and a new entry in the index.
fn edited(dir: &Path, manifest: bool, edit: impl FnOnce(&mut Json)) {
    let index = dir.join("index.json");
    let mut json: Json = serde_json::from_slice(&fs::read(&index).unwrap()).unwrap();
    if manifest {
        let digest = json["manifests"][0]["digest"].as_str().unwrap();
        let blob = dir.join("blobs/sha256").join(digest.strip_prefix("sha256:").unwrap());
        let mut inner: Json = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
        edit(&mut inner);
        let bytes = inner.to_string();
        fs::write(dir.join("blobs/sha256").join(craft::hex(bytes.as_bytes())), &bytes).unwrap();
        json["manifests"][0]["digest"] = json!(format!("sha256:{}", craft::hex(bytes.as_bytes())));
        json["manifests"][0]["size"] = json!(bytes.len());
    } else {
        edit(&mut json);
    }
    fs::write(index, json.to_string()).unwrap();
}

#[test]
fn layouts_are_what_they_say() {
    let other = qx(&craft::tar(&[vec![list(&[])], vec![file("quadriga.toml", MANIFEST)]].concat()));
    let blob = |dir: &Path, bytes: &[u8]| dir.join("blobs/sha256").join(craft::hex(bytes));
    let package = qx(&craft::tar(&listed()));
    assert_eq!(laid_out(|_| ()), "accepted");
    let changed = laid_out(|dir| fs::write(blob(dir, &package), &other).unwrap());
    assert_eq!(changed, "wrong_digest");
    assert_eq!(laid_out(|dir| fs::remove_file(blob(dir, &package)).unwrap()), "io");
    assert_eq!(laid_out(|dir| fs::remove_file(dir.join("index.json")).unwrap()), "io");
    assert_eq!(laid_out(|dir| fs::write(dir.join("index.json"), "{").unwrap()), "malformed");
    assert_eq!(laid_out(|dir| fs::write(dir.join("index.json"), " ".repeat(2 << 20)).unwrap()), "malformed");
    type Edit = fn(&mut Json);
    let cases: &[(&str, bool, Edit, &str)] = &[
        ("nothing", true, |_| (), "accepted"),
        ("no manifests", false, |json| json["manifests"] = json!([]), "malformed"),
        (
            "another digest",
            false,
            |json| json["manifests"][0]["digest"] = json!("sha256:../../x"),
            "malformed",
        ),
        ("another algorithm", false, |json| json["manifests"][0]["digest"] = json!("sha512:00"), "malformed"),
        (
            "two packages",
            false,
            |json| {
                json["manifests"][0]["artifactType"] = json!("application/vnd.quadriga.package.v1");
                let first = json["manifests"][0].clone();
                json["manifests"] = json!([first, first]);
            },
            "malformed",
        ),
        ("another artifact", true, |json| json["artifactType"] = json!("x"), "malformed"),
        ("no layer", true, |json| json["layers"] = json!([]), "malformed"),
        (
            "two layers",
            true,
            |json| {
                let first = json["layers"][0].clone();
                json["layers"] = json!([first, first]);
            },
            "malformed",
        ),
        ("a path", true, |json| json["layers"][0]["digest"] = json!("../../etc/passwd"), "malformed"),
        ("another size", true, |json| json["layers"][0]["size"] = json!(1), "malformed"),
        (
            "a signature that is none",
            true,
            |json| {
                let mut config = json["config"].clone();
                config["mediaType"] = json!("application/vnd.quadriga.signature.v1.minisig");
                json["layers"] = json!([json["layers"][0], config]);
            },
            "malformed_signature",
        ),
    ];
    for (what, manifest, edit, code) in cases {
        assert_eq!(laid_out(|dir| edited(dir, *manifest, edit)), *code, "{what}");
    }
}

/// What is no file could keep its reader waiting, or be anybody's.
#[cfg(unix)]
#[test]
fn blobs_are_files() {
    let package = qx(&craft::tar(&listed()));
    for link in [true, false] {
        let code = laid_out(|dir| {
            let blob = dir.join("blobs/sha256").join(craft::hex(&package));
            let moved = dir.join("moved");
            fs::rename(&blob, &moved).unwrap();
            if link {
                std::os::unix::fs::symlink(&moved, &blob).unwrap();
            } else {
                fs::create_dir(&blob).unwrap();
            }
        });
        assert_eq!(code, "malformed");
    }
}
