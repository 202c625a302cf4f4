//! The initramfs: a few files in the `newc` format of cpio, which the kernel unpacks.

use std::fmt::Write as _;

/// One file or folder of an initramfs.
pub(super) struct Entry {
    /// Where it is, from the root, with the folders on the way before it.
    pub(super) path: String,
    /// What it holds, or that it is a folder.
    pub(super) content: Option<Vec<u8>>,
}

/// The archive. Everything in it can be executed, and belongs to root.
pub(super) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (number, entry) in entries.iter().enumerate() {
        let mode = if entry.content.is_some() { 0o100_755 } else { 0o040_755 };
        put(&mut bytes, number + 1, mode, &entry.path, entry.content.as_deref().unwrap_or_default());
    }
    put(&mut bytes, 0, 0, "TRAILER!!!", &[]);
    bytes
}

fn put(bytes: &mut Vec<u8>, number: usize, mode: u32, path: &str, content: &[u8]) {
    let mut header = "070701".to_owned();
    // Inode, mode, owner, group, links, time, size, devices, length of the name, checksum.
    let fields = [number, mode as usize, 0, 0, 1, 0, content.len(), 0, 0, 0, 0, path.len() + 1, 0];
    for field in fields {
        let _ = write!(header, "{field:08x}");
    }
    bytes.extend(header.as_bytes());
    bytes.extend(path.as_bytes());
    bytes.push(0);
    pad(bytes);
    bytes.extend(content);
    pad(bytes);
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_and_contents_begin_at_multiples_of_four() {
        let entries = [
            Entry { path: "bin".to_owned(), content: None },
            Entry { path: "bin/true".to_owned(), content: Some(b"#!sh\n".to_vec()) },
        ];
        let bytes = archive(&entries);
        let text = String::from_utf8(bytes).unwrap();
        let heads: Vec<_> = text.match_indices("070701").map(|(at, _)| at).collect();
        assert_eq!(heads, [0, 116, 244]);
        assert!(text[116..].starts_with("07070100000002000081ed"), "{text}");
        assert!(text[116 + 110..].starts_with("bin/true\0\0#!sh\n\0"), "{text}");
        assert!(text[244 + 110..].starts_with("TRAILER!!!\0"), "{text}");
    }
}
