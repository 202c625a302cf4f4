//! What each fuzz target does with its bytes. A panic is a finding. The tests of the conformance
//! crate run the same over the seeds and over all findings so far.

use std::collections::BTreeMap;
use std::path::Path;

use quadriga_abi::manifest::Manifest;
use quadriga_abi::msgpack::Reader;
use quadriga_abi::{Bytes, Envelope, Error, Timestamp, Value, codec};
use quadriga_package::{Bounds, GO_ON, Package, PublicKey, SecretKey, Signature};
use serde::{Deserialize, Serialize};

/// Bytes that decode as a frame decode as the same one after they were encoded again.
pub fn envelope(data: &[u8]) {
    let Ok(envelope) = Envelope::decode(Bytes::copy_from_slice(data)) else { return };
    let mut frame = Vec::new();
    envelope.encode(&mut frame);
    let again = Envelope::decode(frame.into()).expect("what was encoded decodes");
    // A deadline travels as what is left of it, and that is less by now.
    let (first, second) = (envelope.deadline, again.deadline);
    assert!(second.is_none() || first.is_some());
    assert_eq!(Envelope { deadline: None, ..again }, Envelope { deadline: None, ..envelope });
    let _ = Error::from_bytes(data);
}

/// Bytes that are a value have one canonical form, and the tree, the codec and the skipping reader
/// agree on which bytes are one.
pub fn value(data: &[u8]) {
    let typed = codec::from_bytes::<Value>(data);
    let Ok(value) = Value::from_bytes(data) else {
        assert!(typed.is_err(), "only the codec reads it");
        return;
    };
    let bytes = value.to_bytes().expect("what was read can be written");
    let again = Value::from_bytes(&bytes).expect("what was written can be read");
    assert_eq!(again.to_bytes().expect("it can be written again"), bytes);
    let typed = typed.expect("the codec reads it too");
    assert_eq!(codec::to_bytes(&typed).expect("the codec writes it"), bytes);
    let mut reader = Reader::new(data);
    reader.skip().and_then(|()| reader.finish()).expect("it can be skipped");
    let _ = value.to_json().to_string();
}

/// Bytes that fit a type fit it again after they were encoded from it.
pub fn codec(data: &[u8]) {
    fits::<Record>(data);
    fits::<(u8, i64, f32, char, Option<bool>)>(data);
    fits::<BTreeMap<i32, Vec<String>>>(data);
    fits::<Vec<Shape>>(data);
    if let Ok(borrowed) = codec::from_arguments::<(&str, &[u8])>(data) {
        codec::arguments(&borrowed).expect("arguments that were read can be written");
    }
}

fn fits<T: Serialize + for<'de> Deserialize<'de>>(data: &[u8]) {
    let Ok(first) = codec::from_bytes::<T>(data) else { return };
    let bytes = codec::to_bytes(&first).expect("what was read can be written");
    let second = codec::from_bytes::<T>(&bytes).expect("what was written can be read");
    assert_eq!(codec::to_bytes(&second).expect("it can be written again"), bytes);
}

#[derive(Serialize, Deserialize)]
struct Record {
    name: String,
    count: u128,
    body: Vec<u8>,
    at: Option<Timestamp>,
    shape: Shape,
    #[serde(default)]
    inner: Vec<Record>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

#[derive(Serialize, Deserialize)]
enum Shape {
    Point,
    Circle(f64),
    Line(i8, i16),
    Box { width: u32, height: u64 },
}

/// A manifest that is read can be written and read again; an error stands inside the text.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Manifest::parse(text, "quadriga.toml") {
        Ok(manifest) => {
            let written = toml::to_string(&manifest).expect("what was read can be written");
            let again = Manifest::parse(&written, "quadriga.toml").expect("what was written can be read");
            assert_eq!(toml::to_string(&again).expect("it can be written again"), written);
        }
        Err(error) => {
            // An error at the end of the text stands one line, and one column, behind it.
            assert!((1..=text.matches('\n').count() + 1).contains(&error.line), "{error}");
            let line = text.split('\n').nth(error.line - 1).unwrap_or_default();
            assert!((1..=line.chars().count() + 1).contains(&error.column), "{error}");
            assert!(!error.to_string().is_empty());
        }
    }
}

/// Bytes are a package of some format that keeps to its bounds, or are refused.
pub fn package(data: &[u8]) {
    let bounds = Bounds { total: 1 << 20, file: 1 << 19, entries: 200, names: 4 << 10, ..Bounds::default() };
    let Ok(package) = Package::read(data, &bounds) else { return };
    let Ok((manifest, contents)) = package.inspect(&mut |_| GO_ON) else { return };
    assert_eq!(contents.extension, manifest.extension.id);
    assert!(contents.unpacked_size() <= bounds.total);
    assert!(contents.files.len() as u64 <= bounds.entries);
    for file in &contents.files {
        assert!(file.path.split('/').all(|part| !matches!(part, "" | "." | "..")), "{:?}", file.path);
    }
    let entry = manifest.runtime.entry.as_path();
    assert!(contents.files.iter().any(|file| Path::new(&file.path) == entry), "{entry:?}");
}

/// Signatures and public keys that are read are written as they were, but for their comments.
pub fn signature(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(signature) = text.parse::<Signature>() {
        let again = signature.to_string().parse::<Signature>().expect("what was written can be read");
        assert_eq!(again, signature);
    }
    if let Ok(key) = text.parse::<PublicKey>() {
        assert_eq!(key.to_file().parse::<PublicKey>().expect("what was written can be read"), key);
    }
    if let Ok(key) = SecretKey::parse(text, None) {
        let again = key.to_text(None).expect("a key can be written");
        assert_eq!(SecretKey::parse(&again, None).expect("and read").public(), key.public());
    }
}
