//! Bombs: what a small file unpacks to is refused, in little memory. In a process of its own, whose
//! peak is what is measured.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[expect(dead_code, reason = "shared with the other tests")]
#[path = "it/craft.rs"]
mod craft;

use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::{Compress, Compression, FlushCompress};
use quadriga_package::{Bounds, GO_ON, Package};
use rawzip::{CompressionMethod, ZipArchiveWriter};
use tar::EntryType;

/// What the zeros of a bomb come to.
const HUGE: u64 = 4 << 30;
/// What refusing one may take: buffers, a zstd window, and the names of a hundred thousand files.
const MEMORY: u64 = 160 << 20;

/// The most memory that this process has had, in bytes.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// A zstd frame of some bytes and then very many zeros, made of blocks that say how often a byte
/// is repeated.
fn zstd_bomb(start: &[u8], zeros: u64) -> Vec<u8> {
    const BLOCK: u32 = 128 << 10;
    // The magic, no flags, a window of a mebibyte.
    let mut out = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
    let block = |out: &mut Vec<u8>, last: bool, kind: u32, size: u32| {
        out.extend(&(u32::from(last) | kind << 1 | size << 3).to_le_bytes()[..3]);
    };
    block(&mut out, false, 0, start.len() as u32);
    out.extend(start);
    for _ in 0..zeros / u64::from(BLOCK) {
        block(&mut out, false, 1, BLOCK);
        out.push(0);
    }
    block(&mut out, true, 0, 0);
    out
}

/// The same as a deflate stream: one compressed mebibyte, again and again.
fn deflate_bomb(start: &[u8], zeros: u64) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut out = Vec::with_capacity(1 << 20);
    compress.compress_vec(start, &mut out, FlushCompress::Full).unwrap();
    let mut piece = Vec::with_capacity(1 << 20);
    compress.compress_vec(&vec![0; 1 << 20], &mut piece, FlushCompress::Full).unwrap();
    for _ in 0..zeros >> 20 {
        out.extend(&piece);
    }
    out
}

fn gzip_bomb(start: &[u8], zeros: u64) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff][..], &deflate_bomb(start, zeros)].concat()
}

/// A zip whose one file says how large it is, or lies.
fn zip_bomb(size: u64) -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    let file = archive.new_file("zeros").compression_method(CompressionMethod::DEFLATE);
    let (mut entry, config) = file.start().unwrap();
    let (_, mut descriptor) = config.wrap(std::io::sink()).finish().unwrap();
    entry.write_all(&deflate_bomb(b"", HUGE)).unwrap();
    descriptor = rawzip::DataDescriptorOutput::new(descriptor.crc(), size);
    entry.finish(descriptor).unwrap();
    archive.finish().unwrap()
}

fn header(name: &[u8], kind: EntryType, size: u64) -> Vec<u8> {
    craft::header(name, kind, size).as_bytes().to_vec()
}

fn list_and(rest: &[u8]) -> Vec<u8> {
    let mut out = craft::tar(&[craft::list(&craft::good())]);
    out.truncate(out.len() - 1024);
    out.extend(rest);
    out
}

fn refused(dir: &Path, bytes: &[u8]) -> &'static str {
    let path = dir.join("bomb");
    fs::write(&path, bytes).unwrap();
    let place = tempfile::tempdir_in(dir).unwrap();
    let result = Package::open(&path, &Bounds::default()).unwrap().unpack(place.path(), &mut |_| GO_ON);
    let code = result.map_or_else(|error| error.code(), |_| "accepted");
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0, "{code}");
    code
}

/// A million empty files: too many to keep in mind.
fn million() -> Vec<u8> {
    let template = header(b"000000", EntryType::Regular, 0);
    let sum: u32 = template.iter().map(|byte| u32::from(*byte)).sum::<u32>()
        - template[148..156].iter().map(|byte| u32::from(*byte)).sum::<u32>()
        + 8 * u32::from(b' ');
    let mut out = zstd::Encoder::new(Vec::new(), 1).unwrap();
    for number in 0..1_000_000_u32 {
        let mut block = template.clone();
        let name = format!("{number:06}");
        block[..6].copy_from_slice(name.as_bytes());
        let digits: u32 = name.bytes().map(|digit| u32::from(digit - b'0')).sum();
        block[148..155].copy_from_slice(format!("{:07o}", sum + digits).as_bytes());
        out.write_all(&block).unwrap();
    }
    out.write_all(&[0; 1024]).unwrap();
    out.finish().unwrap()
}

fn million_in_zip() -> Vec<u8> {
    let mut archive = ZipArchiveWriter::new(Vec::new());
    for number in 0..1_000_000 {
        let (mut entry, config) = archive.new_file(&*format!("{number:x}")).start().unwrap();
        let (_, descriptor) = config.wrap(&mut entry).finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap()
}

#[test]
fn slow_bombs_are_refused_in_little_memory() {
    let dir = tempfile::tempdir().unwrap();
    let small = list_and(&header(b"zeros", EntryType::Regular, 1 << 29));
    let large = list_and(&header(b"zeros", EntryType::Regular, HUGE));
    let ended = list_and(&[0; 1024]);
    let listed = header(b".quadriga/contents.json", EntryType::Regular, HUGE);
    let manifest = header(b"quadriga.toml", EntryType::Regular, HUGE);
    let extended = header(b"x", EntryType::XHeader, HUGE);
    let long_name = header(b"x", EntryType::GNULongName, HUGE);
    let npm = header(b"package/package.json", EntryType::Regular, HUGE);
    let npm_file = header(b"package/zeros", EntryType::Regular, 1 << 29);
    let cases = [
        ("zeros", zstd_bomb(&small, HUGE), "bomb"),
        ("zeros of any size", zstd_bomb(&large, HUGE), "file_too_large"),
        ("padding without end", zstd_bomb(&ended, HUGE), "malformed"),
        ("a list without end", zstd_bomb(&listed, HUGE), "file_too_large"),
        ("a manifest without end", zstd_bomb(&manifest, HUGE), "file_too_large"),
        ("an extended header without end", zstd_bomb(&extended, HUGE), "malformed"),
        ("a name without end", zstd_bomb(&long_name, HUGE), "malformed"),
        ("npm: zeros", gzip_bomb(&npm_file, HUGE), "bomb"),
        ("npm: a package.json without end", gzip_bomb(&npm, HUGE), "file_too_large"),
        ("npm: padding without end", gzip_bomb(&[0; 1024], HUGE), "malformed"),
        ("zip: zeros", zip_bomb(1 << 29), "bomb"),
        ("zip: zeros of any size", zip_bomb(HUGE), "file_too_large"),
        ("zip: a lie", zip_bomb(100), "malformed"),
    ];
    let millions = [million(), million_in_zip()];
    let packed: usize = cases.iter().map(|(_, bytes, _)| bytes.len()).sum();
    let before = peak();
    for (what, bytes, code) in &cases {
        assert_eq!(refused(dir.path(), bytes), *code, "{what}");
    }
    for bytes in &millions {
        // Looked at only: a hundred thousand files take long to make and to remove.
        let package = Package::read(&bytes[..], &Bounds::default()).unwrap();
        assert_eq!(package.inspect(&mut |_| GO_ON).unwrap_err().code(), "too_many_entries");
    }
    let grown = peak() - before;
    assert!(grown < MEMORY, "{grown} bytes for bombs of {packed} bytes");
}
