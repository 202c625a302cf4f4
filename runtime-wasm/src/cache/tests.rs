use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::thread;

use tempfile::TempDir;
use wasmtime::component::Component;

use super::*;
use crate::config;

/// Compiles a component as a process does that has just started, and says how often the code was
/// found in the folder.
fn compile(folder: &Path, component: &[u8]) -> usize {
    let cache = open_in(folder).expect("a cache");
    let (engine, _) = config::engine(Some(cache.clone()), true).expect("an engine");
    let compiled = Component::new(&engine, component).expect("the component");
    assert_eq!(compiled.component_type().exports(&engine).count(), 1);
    cache.cache_hits()
}

fn component() -> Vec<u8> {
    let text = r#"(component
        (core module $m (func (export "f") (result i32) i32.const 7))
        (core instance $i (instantiate $m))
        (func (export "seven") (result s32) (canon lift (core func $i "f"))))"#;
    wat::parse_str(text).expect("a component")
}

/// The files with compiled code.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_none() {
                files.push(path);
            }
        }
    }
    files
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[test]
fn code_outlives_its_process() {
    let (folder, component) = (folder(), component());
    let place = folder.path().join("new/quadriga");
    assert_eq!(compile(&place, &component), 0);
    assert_eq!(compile(&place, &component), 1);
    let mode = fs::metadata(&place).expect("the folder").permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
}

#[test]
fn what_is_damaged_is_compiled_again() {
    // A frame of Zstandard with ten bytes that are no code in it.
    let mut packed = b"\x28\xb5\x2f\xfd\x20\x0a\x51\x00\x00".to_vec();
    packed.extend_from_slice(b"no program");
    type Cut = fn(&[u8], &[u8]) -> Vec<u8>;
    let cuts: [(&str, Cut); 5] = [
        ("empty", |_, _| Vec::new()),
        ("cut off", |code, _| code[..code.len() - 1].to_vec()),
        ("half", |code, _| code[..code.len() / 2].to_vec()),
        ("foreign", |_, _| b"#!/bin/sh\nexit 1\n".to_vec()),
        ("well packed", |_, packed| packed.to_vec()),
    ];
    let component = component();
    for (case, cut) in cuts {
        let folder = folder();
        compile(folder.path(), &component);
        let files = entries(folder.path());
        assert!(!files.is_empty(), "{case}");
        for file in files {
            fs::write(&file, cut(&fs::read(&file).expect("code"), &packed)).expect("damage");
        }
        assert_eq!(compile(folder.path(), &component), 0, "{case}");
        assert_eq!(compile(folder.path(), &component), 1, "{case}: it was not replaced");
    }
}

#[test]
fn many_write_at_once() {
    let (folder, component) = (folder(), component());
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| compile(folder.path(), &component));
        }
    });
    assert_eq!(compile(folder.path(), &component), 1);
}

#[test]
fn no_code_is_kept_where_others_may_write() {
    let folder = folder();
    let [open, inside] = ["open", "open/inside"].map(|name| folder.path().join(name));
    fs::create_dir_all(&inside).expect("folders");
    let allow = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("a mode");
    allow(&inside, 0o700);
    for (mode, itself, below) in [
        (0o700, true, true),
        (0o755, true, true),
        (0o777, false, false),
        (0o770, false, false),
        (0o1777, false, true),
    ] {
        allow(&open, mode);
        assert_eq!(open_in(&open).is_some(), itself, "{mode:o}");
        assert_eq!(open_in(&inside).is_some(), below, "below {mode:o}");
    }
    // A way there that others could change is looked at where it leads.
    allow(&open, 0o777);
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(&inside, &link).expect("a link");
    assert!(open_in(&link).is_none());
    // Nor is there a place in a file.
    fs::write(folder.path().join("file"), "").expect("a file");
    assert!(open_in(&folder.path().join("file")).is_none());
}
