//! Tar files: what goes into `.qx` and npm's tgz, and a format by itself.

use std::io::{self, Read, Write};

use tar::{Archive, Entry, EntryType, Header, PaxExtensions};

use super::{Job, MODE, MTIME};
use crate::error::{Error, Result};
use crate::intake::{EntryKind, Head, Intake};

/// Most bytes of an extended header: a path, and whatever else a tool adds.
const EXTENDED: u64 = 64 << 10;

/// Most bytes of padding at the end: tools fill up a record, which has at most this.
const PADDING: u64 = 1 << 20;

/// Hands all entries to the intake. Extended headers are read here and not by the crate, which
/// would take any number of bytes of them into memory.
pub(super) fn read(stream: impl Read, intake: &mut Intake<'_>) -> Result<()> {
    let mut archive = Archive::new(stream);
    let entries = archive.entries().map_err(|error| intake.read_failed(error))?;
    let mut path: Option<Vec<u8>> = None;
    for entry in entries.raw(true) {
        let mut entry = entry.map_err(|error| intake.read_failed(error))?;
        match entry.header().entry_type() {
            EntryType::XGlobalHeader => extended(&mut entry, intake).map(drop)?,
            EntryType::XHeader => {
                let header = extended(&mut entry, intake)?;
                path = pax_path(&header, intake)?.or(path);
            }
            EntryType::GNULongName => {
                let mut name = extended(&mut entry, intake)?;
                if name.last() == Some(&0) {
                    name.pop();
                }
                path = Some(name);
            }
            EntryType::GNULongLink => extended(&mut entry, intake).map(drop)?,
            other => {
                let kind = kind(other, intake)?;
                let name = match path.take() {
                    Some(path) => path,
                    None => entry.path_bytes().into_owned(),
                };
                let size = entry.header().entry_size().map_err(|error| intake.read_failed(error))?;
                intake.entry(&Head { name: &name, kind, size }, &mut entry)?;
            }
        }
    }
    if path.is_some() {
        return Err(intake.malformed("its last header belongs to no file"));
    }
    only_zeros(archive.into_inner(), intake)
}

fn kind(entry: EntryType, intake: &Intake<'_>) -> Result<EntryKind> {
    Ok(match entry {
        EntryType::Regular | EntryType::Continuous => EntryKind::File,
        EntryType::Directory => EntryKind::Folder,
        EntryType::Symlink => EntryKind::Other("symbolic link"),
        EntryType::Link => EntryKind::Other("hard link"),
        EntryType::Block => EntryKind::Other("block device"),
        EntryType::Char => EntryKind::Other("character device"),
        EntryType::Fifo => EntryKind::Other("named pipe"),
        EntryType::GNUSparse => EntryKind::Other("sparse file"),
        other => {
            let what = format!("an entry of the type {:?}", char::from(other.as_byte()));
            return Err(intake.unsupported(what));
        }
    })
}

fn extended(entry: &mut Entry<'_, impl Read>, intake: &Intake<'_>) -> Result<Vec<u8>> {
    let size = entry.header().entry_size().map_err(|error| intake.read_failed(error))?;
    if size > EXTENDED {
        return Err(intake.malformed(format!("an extended header has more than {EXTENDED} bytes")));
    }
    let mut bytes = Vec::new();
    entry.read_to_end(&mut bytes).map_err(|error| intake.read_failed(error))?;
    Ok(bytes)
}

/// The path in a pax header. What else changes the entry is refused, because readers do not agree
/// on it.
fn pax_path(header: &[u8], intake: &Intake<'_>) -> Result<Option<Vec<u8>>> {
    let mut path = None;
    for field in PaxExtensions::new(header) {
        let field = field.map_err(|error| intake.read_failed(error))?;
        match field.key_bytes() {
            b"path" => path = Some(field.value_bytes().to_vec()),
            b"size" => return Err(intake.unsupported("a size in an extended header")),
            key if key.starts_with(b"GNU.sparse") => return Err(intake.unsupported("a sparse file")),
            _ => {}
        }
    }
    Ok(path)
}

/// Behind the end of a tar file is padding.
fn only_zeros(rest: impl Read, intake: &Intake<'_>) -> Result<()> {
    let mut buffer = [0; 4096];
    let mut rest = rest.take(PADDING + 1);
    loop {
        match rest.read(&mut buffer) {
            Ok(0) if rest.limit() == 0 => return Err(intake.malformed("there is no end of its padding")),
            Ok(0) => return Ok(()),
            Ok(read) if buffer[..read].iter().any(|byte| *byte != 0) => {
                return Err(intake.malformed("there are bytes behind its end"));
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(intake.read_failed(error)),
        }
    }
}

/// Writes all items, each below `folder`.
pub(super) fn write(job: &mut Job<'_>, folder: &str, out: &mut dyn Write) -> Result<()> {
    let failed = |job: &Job<'_>, source| Error::Io { path: job.out.to_owned(), source };
    for item in job.items {
        let path = format!("{folder}{}", item.path);
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(MODE);
        header.set_mtime(MTIME);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(item.size);
        // A path of more bytes than the header has room for stands in a pax header before it.
        if header.set_path(&path).is_err() {
            write_pax_path(&path, out).map_err(|error| failed(job, error))?;
            header.set_path("long").map_err(|error| failed(job, error))?;
        }
        header.set_cksum();
        out.write_all(header.as_bytes()).map_err(|error| failed(job, error))?;
        job.content(item, out)?;
        pad(item.size, out).map_err(|error| failed(job, error))?;
    }
    out.write_all(&[0; 1024]).map_err(|error| failed(job, error))
}

fn write_pax_path(path: &str, out: &mut dyn Write) -> io::Result<()> {
    // The length in front counts itself.
    let rest = format!(" path={path}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    let record = format!("{length}{rest}");
    let mut header = Header::new_ustar();
    header.set_entry_type(EntryType::XHeader);
    header.set_mode(MODE);
    header.set_mtime(MTIME);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(record.len() as u64);
    header.set_path("pax")?;
    header.set_cksum();
    out.write_all(header.as_bytes())?;
    out.write_all(record.as_bytes())?;
    pad(record.len() as u64, out)
}

/// Fills up the last block.
fn pad(size: u64, out: &mut dyn Write) -> io::Result<()> {
    let over = (size % 512) as usize;
    out.write_all(&[0; 512][..if over == 0 { 0 } else { 512 - over }])
}
