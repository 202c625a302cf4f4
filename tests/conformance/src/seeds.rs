//! Where the fuzz targets begin.

use std::io;
use std::path::Path;

use crate::Table;

/// What is longer finds nothing sooner.
const LONGEST: usize = 4096;

/// The seeds of a fuzz target: the vectors, alone and as payloads of frames, the manifests of the
/// repository, or files that lie there for it.
///
/// # Errors
/// If the repository cannot be read.
pub fn of(target: &str, table: &Table, repository: &Path) -> io::Result<Vec<Vec<u8>>> {
    let values = table.value.iter().flat_map(|case| case.also.iter().chain([&case.bytes]));
    let vectors = values.chain(table.malformed.iter().map(|case| &case.bytes));
    let vectors = vectors.map(|bytes| bytes.0.clone()).filter(|bytes| bytes.len() <= LONGEST);
    Ok(match target {
        "manifest" => {
            let mut found = Vec::new();
            for dir in ["examples", "tests/guests"] {
                manifests(&repository.join(dir), &mut found)?;
            }
            found
        }
        "package" | "signature" => files(&repository.join("fuzz/seeds").join(target))?,
        "envelope" => vectors.map(|payload| frame(&payload)).collect(),
        _ => vectors.collect(),
    })
}

/// What lies in a folder of seeds.
fn files(dir: &Path) -> io::Result<Vec<Vec<u8>>> {
    std::fs::read_dir(dir)?.map(|entry| std::fs::read(entry?.path())).collect()
}

fn manifests(dir: &Path, found: &mut Vec<Vec<u8>>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            manifests(&path, found)?;
        } else if name.starts_with("quadriga.") && name.ends_with(".toml") {
            found.push(std::fs::read(&path)?);
        }
    }
    Ok(())
}

/// A frame as docs and `abi/src/envelope.rs` have it: a header of every field, then the payload.
fn frame(payload: &[u8]) -> Vec<u8> {
    let text = |text: &str| [&[0xa0 | text.len() as u8], text.as_bytes()].concat();
    let number = |n: u64| [&[0xcf][..], &n.to_be_bytes()].concat();
    let id = number(7);
    let fields: [(&str, Vec<u8>); 9] = [
        ("version", text("0.1.0")),
        ("kind", text("call")),
        ("id", id),
        ("source", text("acme.caller")),
        (
            "target",
            [&[0x82][..], &text("extension"), &text("acme.callee"), &text("method"), &text("run")].concat(),
        ),
        ("depth", vec![1]),
        ("remaining", number(1_000_000)),
        ("trace", [&[0x94][..], &number(1), &number(2), &number(3), &[1]].concat()),
        ("payload", number(payload.len() as u64)),
    ];
    let mut frame = vec![0x80 | fields.len() as u8];
    for (name, value) in fields {
        frame.extend(text(name));
        frame.extend(value);
    }
    frame.extend_from_slice(payload);
    frame
}
