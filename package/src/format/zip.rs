//! Zip files. The central directory says what is in one; a local header that says otherwise makes
//! it malformed.

use std::fs::File;
use std::io::Write;

use flate2::read::DeflateDecoder;
use flate2::write::DeflateEncoder;
use rawzip::time::UtcDateTime;
use rawzip::{CompressionMethod, EntryMode, RECOMMENDED_BUFFER_SIZE, ZipArchive, ZipArchiveWriter};

use super::{Job, MODE};
use crate::error::{Error, Result};
use crate::intake::{EntryKind, Head, Intake};

/// Room for the name and extra fields of a local header.
const LOCAL: usize = 128 << 10;

/// Hands all entries to the intake.
pub(super) fn read(file: File, intake: &mut Intake<'_>) -> Result<()> {
    let length = file.metadata().map_err(|error| intake.read_failed(error))?.len();
    let mut buffer = vec![0; RECOMMENDED_BUFFER_SIZE];
    let archive = ZipArchive::from_file(file, &mut buffer).map_err(|error| malformed(&error, intake))?;
    if archive.end_offset() != length {
        return Err(intake.malformed("there are bytes behind its end"));
    }
    let mut local = vec![0; LOCAL];
    let mut entries = archive.entries(&mut buffer);
    while let Some(record) = entries.next_entry().map_err(|error| malformed(&error, intake))? {
        let name = record.file_path().as_bytes().to_vec();
        if record.flags().is_encrypted() {
            return Err(intake.unsupported("an encrypted file"));
        }
        let method = record.compression_method();
        let (size, kind) = (record.uncompressed_size_hint(), kind(record.mode(), record.is_dir()));
        let entry = archive.get_entry(record.wayfinder()).map_err(|error| malformed(&error, intake))?;
        let header = entry.local_header(&mut local).map_err(|error| malformed(&error, intake))?;
        if header.file_path().as_bytes() != name {
            return Err(intake.malformed("a file has two names"));
        }
        let head = Head { name: &name, kind, size };
        // What the verifying reader finds, sizes included, comes as an error at the file's end.
        match method {
            CompressionMethod::STORE => intake.entry(&head, &mut entry.verifying_reader(entry.reader()))?,
            CompressionMethod::DEFLATE => {
                let inflate = DeflateDecoder::new(entry.reader());
                intake.entry(&head, &mut entry.verifying_reader(inflate))?;
            }
            other => return Err(intake.unsupported(format!("the compression method {}", other.as_u16()))),
        }
    }
    Ok(())
}

fn malformed(error: &rawzip::Error, intake: &Intake<'_>) -> Error {
    intake.malformed(error.to_string())
}

/// The kind that the Unix mode tells; zip files without one have files and folders.
fn kind(mode: EntryMode, folder: bool) -> EntryKind {
    match mode.value() & 0o170_000 {
        0o120_000 => EntryKind::Other("symbolic link"),
        0o060_000 => EntryKind::Other("block device"),
        0o020_000 => EntryKind::Other("character device"),
        0o010_000 => EntryKind::Other("named pipe"),
        0o140_000 => EntryKind::Other("socket"),
        0o040_000 => EntryKind::Folder,
        _ if folder => EntryKind::Folder,
        _ => EntryKind::File,
    }
}

/// Writes all items.
pub(super) fn write(job: &mut Job<'_>, out: &mut dyn Write) -> Result<()> {
    let failed = |job: &Job<'_>, error: rawzip::Error| job.failed(std::io::Error::other(error));
    let mut archive = ZipArchiveWriter::new(out);
    let time = UtcDateTime::from_components(1980, 1, 1, 0, 0, 0, 0);
    for item in job.items {
        let mut file = archive
            .new_file(&*item.path)
            .compression_method(CompressionMethod::DEFLATE)
            .unix_permissions(0o100_000 | MODE);
        if let Some(time) = time {
            file = file.last_modified(time);
        }
        let (mut entry, config) = file.start().map_err(|error| failed(job, error))?;
        let mut data = config.wrap(DeflateEncoder::new(&mut entry, flate2::Compression::default()));
        job.content(item, &mut data)?;
        let (deflate, descriptor) = data.finish().map_err(|error| failed(job, error))?;
        deflate.finish().map_err(|error| job.failed(error))?;
        entry.finish(descriptor).map_err(|error| failed(job, error))?;
    }
    archive.finish().map(drop).map_err(|error| failed(job, error))
}
