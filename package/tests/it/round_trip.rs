//! What goes in comes out, in every format, and what was changed on the way does not.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use quadriga_package::{Bounds, Digest, Format, GO_ON, META_DIR, PackOptions, Package, SecretKey, pack};

use crate::craft::{self, MANIFEST, good};
use crate::packing::folder;

/// All files of a folder, but what packing adds.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    fn walk(dir: &Path, inside: &str, found: &mut BTreeMap<String, Vec<u8>>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let path = format!("{inside}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &format!("{path}/"), found);
            } else {
                found.insert(path, fs::read(entry.path()).unwrap());
            }
        }
    }
    let mut found = BTreeMap::new();
    walk(dir, "", &mut found);
    found.retain(|path, _| !path.starts_with(META_DIR));
    found
}

fn any_folder() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let part = "[a-z0-9][a-zäöü0-9_ -]{0,30}[a-z0-9]";
    let path = prop::collection::vec(part, 1..5).prop_map(|parts| format!("{}.dat", parts.join("/")));
    let long = prop::collection::vec("[a-z]{60}", 2..6).prop_map(|parts| format!("{}.dat", parts.join("/")));
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..3000),
        (any::<u8>(), 0..200_000_usize).prop_map(|(byte, length)| vec![byte; length]),
    ];
    prop::collection::btree_map(prop_oneof![4 => path, 1 => long], bytes, 0..8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_folder_is_the_same_on_the_other_side(extra in any_folder(), own in any::<bool>()) {
        let dir = folder(&[]);
        for (path, bytes) in &extra {
            let file = dir.path().join(path);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, bytes).unwrap();
        }
        if own {
            // Not as this would be written.
            fs::write(dir.path().join("package.json"), "{\"name\":\"own\",  \"version\":\"0.0.1\"}").unwrap();
        }
        let before = files(dir.path());
        let mut digests = Vec::new();
        for format in Format::ALL {
            let out = tempfile::tempdir().unwrap();
            let path = out.path().join("package");
            let options = PackOptions { format, ..PackOptions::default() };
            let built = pack(dir.path(), |_| path.clone(), &options, &mut |_, _| GO_ON).unwrap();
            let package = Package::open(&path, &Bounds::default()).unwrap();
            prop_assert_eq!((package.format(), package.digest()), (format, built.digest));
            let unpacked = package.unpack(out.path(), &mut |_| GO_ON).unwrap();
            prop_assert_eq!(&unpacked.contents, &built.contents, "{}", format);
            prop_assert_eq!(&files(unpacked.dir()), &before, "{}", format);
            let (manifest, contents) = package.inspect(&mut |_| GO_ON).unwrap();
            prop_assert_eq!((manifest, contents), (built.manifest, built.contents));

            // What was unpacked makes the same package again.
            let again = out.path().join("again");
            let options = PackOptions::default();
            let again = pack(unpacked.dir(), |_| again, &options, &mut |_, _| GO_ON).unwrap();
            digests.push(again.digest);
        }
        digests.dedup();
        prop_assert_eq!(digests.len(), 1);
    }

    #[test]
    fn a_changed_byte_is_seen(at in any::<prop::sample::Index>(), bit in 0..8_u8) {
        let dir = tempfile::tempdir().unwrap();
        let path = craft::package(dir.path(), Format::Qx, &good());
        let mut bytes = with_checksum(&fs::read(&path).unwrap());
        fs::write(&path, &bytes).unwrap();
        let package = Package::open(&path, &Bounds::default()).unwrap();
        let signature = package.sign(key(), "").unwrap();
        let digest = package.digest();
        prop_assert!(package.inspect(&mut |_| GO_ON).is_ok());
        prop_assert!(package.verify(&signature, &key().public()).is_ok());

        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        fs::write(&path, &bytes).unwrap();
        if let Ok(package) = Package::open(&path, &Bounds::default()) {
            prop_assert!(package.expect(&digest).is_err());
            prop_assert!(package.verify(&signature, &key().public()).is_err());
            // Whoever has neither digest nor signature sees at least damage to the files.
            if let Ok((_, contents)) = package.inspect(&mut |_| GO_ON) {
                prop_assert_eq!(contents.file("quadriga.toml").unwrap().sha256, Digest::of(MANIFEST.as_bytes()));
            }
        }
    }
}

/// As packages are written.
fn with_checksum(package: &[u8]) -> Vec<u8> {
    let mut zstd = zstd::Encoder::new(Vec::new(), 1).unwrap();
    zstd.include_checksum(true).unwrap();
    std::io::copy(&mut zstd::Decoder::new(package).unwrap(), &mut zstd).unwrap();
    zstd.finish().unwrap()
}

fn key() -> &'static SecretKey {
    static KEY: std::sync::LazyLock<SecretKey> = std::sync::LazyLock::new(|| SecretKey::generate().unwrap());
    &KEY
}

#[test]
fn a_layout_keeps_its_signature() {
    let dir = folder(&[]);
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("layout");
    let options = PackOptions { format: Format::Oci, ..PackOptions::default() };
    let built = pack(dir.path(), |_| path.clone(), &options, &mut |_, _| GO_ON).unwrap();
    let qx =
        pack(dir.path(), |_| out.path().join("a.qx"), &PackOptions::default(), &mut |_, _| GO_ON).unwrap();
    assert_eq!(built.digest, qx.digest, "the layer is the package file");
    let package = Package::open(&path, &Bounds::default()).unwrap();
    assert!(package.signature().is_none());
    let blobs = || fs::read_dir(path.join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs(), 3);
    for comment in ["first", "second", "second"] {
        let signature = package.sign(key(), comment).unwrap();
        package.add_signature(&path, &signature).unwrap();
        let signed = Package::open(&path, &Bounds::default()).unwrap();
        assert_eq!(signed.signature(), Some(&signature));
        signed.verify(signed.signature().unwrap(), &key().public()).unwrap();
        assert_eq!(signed.digest(), built.digest);
    }
    let file = Package::open(&qx.path, &Bounds::default()).unwrap();
    file.verify(Package::open(&path, &Bounds::default()).unwrap().signature().unwrap(), &key().public())
        .unwrap();
}

#[test]
fn a_package_can_come_from_a_stream() {
    let dir = folder(&[]);
    let out = tempfile::tempdir().unwrap();
    let built =
        pack(dir.path(), |_| out.path().join("a.qx"), &PackOptions::default(), &mut |_, _| GO_ON).unwrap();
    let bytes = fs::read(&built.path).unwrap();
    // One that gives a byte at a time.
    struct Drops<'a>(&'a [u8]);
    impl std::io::Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let most = buffer.len().min(1);
            self.0.read(&mut buffer[..most])
        }
    }
    let package = Package::read(Drops(&bytes), &Bounds::default()).unwrap();
    package.expect(&built.digest).unwrap();
    assert_eq!(package.expect(&Digest::of(b"")).unwrap_err().code(), "wrong_digest");
    assert_eq!(package.inspect(&mut |_| GO_ON).unwrap().1, built.contents);
}
