use std::fs;
use std::io::Read;
use std::path::Path;

use flate2::read::GzDecoder;

use super::{Asset, WriteError, assets, hashed};

#[test]
fn names_carry_a_part_of_the_hash() {
    let hash = "0123456789abcdef";
    for (name, expected) in [
        ("site.css", "site.01234567.css"),
        ("images/a.b/horse.png", "images/a.b/horse.01234567.png"),
        ("a.b/LICENSE", "a.b/LICENSE.01234567"),
        (".nojekyll", ".nojekyll.01234567"),
    ] {
        assert_eq!(hashed(name, hash), expected);
    }
}

#[test]
fn files_come_with_a_compressed_copy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let content = b"body { color: black }\n".repeat(50);
    let asset = assets::write(path, "css/site.css", content.clone()).unwrap();
    assert_eq!(asset.path, format!("css/site.{}.css", &asset.hash[..8]));
    assert_eq!(fs::read(dir.path().join(&asset.path)).unwrap(), content);
    let compressed = fs::read(dir.path().join(format!("{}.gz", asset.path))).unwrap();
    assert_eq!((asset.bytes, asset.gzip_bytes), (content.len(), compressed.len()));
    let mut unpacked = Vec::new();
    GzDecoder::new(&compressed[..]).read_to_end(&mut unpacked).unwrap();
    assert_eq!(unpacked, content);
    assert_eq!(fs::read_dir(dir.path().join("css")).unwrap().count(), 2, "nothing else is left behind");

    let page = assets::page(path, "index.html".to_owned(), "<p>hello</p>").unwrap();
    assert_eq!(page.path, "index.html");
    assert!(dir.path().join("index.html.gz").is_file());
}

#[test]
fn nothing_is_written_outside() {
    let top = tempfile::tempdir().unwrap();
    let site = top.path().join("site");
    fs::create_dir(&site).unwrap();
    #[cfg(unix)]
    std::os::unix::fs::symlink(top.path(), site.join("link")).unwrap();
    for name in ["../x", "/tmp/x", "a/../../x", "", ".", "a/", "link/x", "link/new/x"] {
        let result: Result<Asset, _> = assets::page(site.to_str().unwrap(), name.to_owned(), "x");
        assert!(matches!(result, Err(WriteError::Outside(_))), "{name}: {result:?}");
    }
    let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!(names(top.path()), 1);
}
