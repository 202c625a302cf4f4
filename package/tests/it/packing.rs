//! What of a folder is packed, and what is refused.

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use quadriga_package::{
    Bounds, Built, Error, FileKind, Format, GO_ON, PackOptions, Package, Result, SecretKey, pack,
};

use crate::craft::MANIFEST;

pub(crate) fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    put(dir.path(), &[("quadriga.toml", MANIFEST), ("main.py", "print('hello')\n")]);
    put(dir.path(), files);
    dir
}

fn put(dir: &Path, files: &[(&str, &str)]) {
    for (path, text) in files {
        let file = dir.join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
}

/// Packs into another folder, in which nothing but the package may be afterwards.
fn packed(dir: &Path, options: &PackOptions) -> Result<(tempfile::TempDir, Built)> {
    let out = tempfile::tempdir().unwrap();
    let name = |_: &_| out.path().join(format!("out.{}", options.format.extension()));
    let result = pack(dir, name, options, &mut |_, _| GO_ON);
    assert_eq!(
        fs::read_dir(out.path()).unwrap().count(),
        usize::from(result.is_ok()),
        "only a package is left"
    );
    result.map(|built| (out, built))
}

fn paths(built: &Built) -> Vec<&str> {
    built.contents.files.iter().map(|file| file.path.as_str()).collect()
}

#[test]
fn what_only_the_author_needs_stays_out() {
    let dir = folder(&[
        (".git/config", "x"),
        (".gitignore", "x"),
        ("target/debug/x", "x"),
        ("lib/target/kept.py", "x"),
        ("__pycache__/main.cpython-311.pyc", "x"),
        ("lib/__pycache__/a.pyc", "x"),
        (".vscode/settings.json", "x"),
        ("main.py~", "x"),
        (".main.py.swp", "x"),
        ("old.qx", "x"),
        ("old.qx.minisig", "x"),
        (".quadriga/contents.json", "x"),
        ("node_modules/.bin/tool", "x"),
        ("node_modules/a/index.js", "x"),
        (".quadrigaignore", "*.log\n/private/\n!keep.log\n"),
        ("a.log", "x"),
        ("sub/keep.log", "x"),
        ("private/a", "x"),
        ("sub/private/a", "x"),
    ]);
    let (_out, built) = packed(dir.path(), &PackOptions::default()).unwrap();
    assert_eq!(
        paths(&built),
        [
            ".quadriga/sbom.cdx.json",
            "lib/target/kept.py",
            "main.py",
            "node_modules/a/index.js",
            "quadriga.toml",
            "sub/keep.log",
            "sub/private/a"
        ]
    );
    let kinds: Vec<_> = built.contents.files.iter().map(|file| file.kind).collect();
    use FileKind::{Code, Manifest, Resource, Sbom, Vendored};
    assert_eq!(kinds, [Sbom, Code, Code, Vendored, Manifest, Resource, Resource]);
    assert_eq!(built.digest, Package::open(&built.path, &Bounds::default()).unwrap().digest());
    assert_eq!(built.size, fs::metadata(&built.path).unwrap().len());
}

#[test]
fn what_the_manifest_names_has_to_be_packed() {
    let contract = format!("{MANIFEST}[dependencies]\n'a.b' = {{ version = '1', contract = 'c/a.json' }}\n");
    for (files, code) in [
        (&[(".quadrigaignore", "main.py\n")][..], "not_packed"),
        (&[("quadriga.toml", contract.as_str())], "not_packed"),
        (&[("quadriga.toml", contract.as_str()), ("c/a.json", "{}")], "ok"),
        (&[("quadriga.toml", "x = ")], "invalid_manifest"),
    ] {
        let dir = folder(files);
        let code_of = |result: Result<_>| result.err().map_or("ok", |error| error.code());
        assert_eq!(code_of(packed(dir.path(), &PackOptions::default())), code, "{files:?}");
    }
    let empty = tempfile::tempdir().unwrap();
    let error = packed(empty.path(), &PackOptions::default()).unwrap_err();
    assert_eq!(error.code(), "no_extension");
    assert!(error.hint().is_some());
}

#[test]
fn secrets_stay_with_their_owner() {
    let key = SecretKey::generate().unwrap().to_text(None).unwrap();
    let pem = "# mine\n-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n";
    for (path, text, secret) in [
        (".env", "A=1", true),
        ("config/.env.production", "A=1", true),
        (".env.example", "A=", false),
        (".npmrc", "", true),
        ("id_ed25519", "", true),
        ("anything.txt", pem, true),
        ("acme.key", key.as_str(), true),
        ("public.pem", "-----BEGIN PUBLIC KEY-----\n", false),
        ("node_modules/a/test/key.pem", pem, false),
        ("environment.py", "x", false),
    ] {
        let dir = folder(&[(path, text)]);
        let error = packed(dir.path(), &PackOptions::default()).err();
        match (&error, secret) {
            (Some(Error::Secret { path: found, .. }), true) => assert_eq!(found, path),
            (None, false) => {}
            _ => panic!("{path}: {error:?}"),
        }
        let allowed = PackOptions { allow_secrets: true, ..PackOptions::default() };
        assert!(packed(dir.path(), &allowed).is_ok(), "{path}");
        put(dir.path(), &[(".quadrigaignore", path)]);
        assert!(packed(dir.path(), &PackOptions::default()).is_ok(), "{path}");
    }
}

#[cfg(unix)]
#[test]
fn links_are_packed_as_files_or_refused() {
    use std::os::unix::fs::symlink;
    let dir = folder(&[("lib/a.py", "x = 1\n")]);
    symlink("lib/a.py", dir.path().join("b.py")).unwrap();
    let (out, built) = packed(dir.path(), &PackOptions::default()).unwrap();
    assert!(paths(&built).contains(&"b.py"));
    let unpacked = Package::open(&built.path, &Bounds::default()).unwrap();
    let unpacked = unpacked.unpack(out.path(), &mut |_| GO_ON).unwrap();
    assert!(fs::symlink_metadata(unpacked.dir().join("b.py")).unwrap().is_file());
    assert_eq!(fs::read_to_string(unpacked.dir().join("b.py")).unwrap(), "x = 1\n");

    let outside = tempfile::NamedTempFile::new().unwrap();
    for (what, target) in
        [("outside", outside.path()), ("a folder", Path::new("lib")), ("nothing", Path::new("nowhere"))]
    {
        let dir = folder(&[("lib/a.py", "")]);
        symlink(target, dir.path().join("link")).unwrap();
        let code = packed(dir.path(), &PackOptions::default()).unwrap_err().code();
        assert!(matches!(code, "not_a_file" | "io"), "{what}: {code}");
    }
    let dir = folder(&[]);
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    assert_eq!(packed(dir.path(), &PackOptions::default()).unwrap_err().code(), "not_a_file");
}

#[cfg(target_os = "linux")]
#[test]
fn names_that_are_not_portable_are_not_packed() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt as _;
    for (names, code) in [
        (&[&b"a\\b"[..]][..], "bad_name"),
        (&[b"\xff"], "bad_name"),
        (&["e\u{301}".as_bytes()], "bad_name"),
        (&[b"README", b"readme"], "collides"),
    ] {
        let dir = folder(&[]);
        for name in names {
            fs::write(dir.path().join(OsStr::from_bytes(name)), "").unwrap();
        }
        assert_eq!(packed(dir.path(), &PackOptions::default()).unwrap_err().code(), code, "{names:?}");
    }
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let dir = folder(&[("zeros", &"0".repeat(17 << 20)), ("more", "x")]);
    for (bounds, code) in [
        (Bounds::default(), "bomb"),
        (Bounds { ratio: 1 << 20, ..Bounds::default() }, "ok"),
        (Bounds { file: 1 << 20, ..Bounds::default() }, "file_too_large"),
        (Bounds { total: 1 << 20, ..Bounds::default() }, "too_large"),
        (Bounds { entries: 3, ..Bounds::default() }, "too_many_entries"),
        (Bounds { packed: 100, ratio: 1 << 20, ..Bounds::default() }, "package_too_large"),
    ] {
        let options = PackOptions { bounds, ..PackOptions::default() };
        let result = packed(dir.path(), &options);
        assert_eq!(result.err().map_or("ok", |error| error.code()), code);
    }
}

#[test]
fn what_is_there_is_not_written_over() {
    let dir = folder(&[]);
    let out = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let path = out.path().join(format.as_str());
        fs::write(&path, "mine").unwrap();
        let options = PackOptions { format, ..PackOptions::default() };
        let error = pack(dir.path(), |_| path.clone(), &options, &mut |_, _| GO_ON).unwrap_err();
        assert_eq!((error.code(), fs::read_to_string(&path).unwrap().as_str()), ("exists", "mine"));
    }
    let package =
        pack(dir.path(), |_| out.path().join("a.qx"), &PackOptions::default(), &mut |_, _| GO_ON).unwrap();
    let package = Package::open(&package.path, &Bounds::default()).unwrap();
    let unpacked = package.unpack(out.path(), &mut |_| GO_ON).unwrap();
    let staging = unpacked.dir().to_owned();
    assert_eq!(unpacked.keep(&out.path().join("qx")).unwrap_err().code(), "exists");
    assert!(!staging.exists());
    let kept = package.unpack(out.path(), &mut |_| GO_ON).unwrap().keep(&out.path().join("kept")).unwrap();
    assert!(kept.join("quadriga.toml").is_file());
}

/// Some files, the order to make them in, and a mode and time for each.
fn any_files() -> impl Strategy<Value = Vec<(String, Vec<u8>, u32, u64)>> {
    let name = prop::sample::select(vec!["a", "b.py", "lib/c", "lib/d/e", "docs/ü.md", "vendor/x/y", "z"]);
    let bytes = prop::collection::vec(any::<u8>(), 0..2000);
    let mode = prop::sample::select(vec![0o600, 0o644, 0o755, 0o444]);
    let file = (name.prop_map(str::to_owned), bytes, mode, 0..4_000_000_000_u64);
    prop::collection::vec(file, 0..6).prop_map(|mut files| {
        files.sort();
        files.dedup_by(|a, b| a.0 == b.0);
        files
    })
}

fn made(files: &[(String, Vec<u8>, u32, u64)], backwards: bool, touched: bool) -> tempfile::TempDir {
    let dir = folder(&[]);
    let mut order: Vec<_> = files.iter().collect();
    if backwards {
        order.reverse();
    }
    for (path, bytes, mode, time) in order {
        let file = dir.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, bytes).unwrap();
        if touched {
            let at = std::time::UNIX_EPOCH + std::time::Duration::from_secs(*time);
            fs::File::options().append(true).open(&file).unwrap().set_modified(at).unwrap();
            #[cfg(unix)]
            {
                use std::os::unix::fs::PermissionsExt as _;
                fs::set_permissions(&file, fs::Permissions::from_mode(*mode)).unwrap();
            }
        }
    }
    dir
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn the_same_files_make_the_same_package(files in any_files(), format in prop::sample::select(Format::ALL.to_vec())) {
        let options = PackOptions { format, ..PackOptions::default() };
        let first = packed(made(&files, false, false).path(), &options).unwrap().1;
        let second = packed(made(&files, true, true).path(), &options).unwrap().1;
        prop_assert_eq!((first.digest, first.size), (second.digest, second.size));
        prop_assert_eq!(first.contents, second.contents);
    }
}

#[test]
fn progress_ends_at_what_there_is() {
    let dir = folder(&[("a", "x"), ("b", "y")]);
    let out = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    let name = |_: &_| -> PathBuf { out.path().join("a.qx") };
    let built = pack(dir.path(), name, &PackOptions::default(), &mut |done, all| {
        seen.push((done, all));
        GO_ON
    })
    .unwrap();
    let (done, all) = *seen.last().unwrap();
    assert!(done == all && all > built.contents.unpacked_size(), "{seen:?}");
    assert!(seen.is_sorted());
}

#[test]
fn who_waits_can_give_up() {
    let dir = folder(&[("a", "x"), ("b", "y")]);
    let out = tempfile::tempdir().unwrap();
    for format in Format::ALL {
        let options = PackOptions { format, ..PackOptions::default() };
        let path = out.path().join("cancelled");
        let error =
            pack(dir.path(), |_| path.clone(), &options, &mut |_, _| ControlFlow::Break(())).unwrap_err();
        assert_eq!(error.code(), "cancelled");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{format}");
        let (place, built) = packed(dir.path(), &options).unwrap();
        let package = Package::open(&built.path, &Bounds::default()).unwrap();
        let error = package.unpack(out.path(), &mut |_| ControlFlow::Break(())).unwrap_err();
        assert_eq!(error.code(), "cancelled");
        assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "{format}");
        drop(place);
    }
}
