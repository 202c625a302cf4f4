//! Writes the files of a site: each whole or not at all, each with a compressed copy beside it.

use std::fs;
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::{Compression, write::GzEncoder};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// A file that was written.
#[derive(Debug, Serialize)]
struct Asset {
    /// Its path inside the site.
    path: String,
    bytes: usize,
    gzip_bytes: usize,
    /// SHA-256 of the content.
    hash: String,
}

#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("{0:?} is not a path inside the site")]
    Outside(String),
    #[error("{path} cannot be written", path = path.display())]
    Io { path: PathBuf, source: io::Error },
}

#[quadriga_sdk::extension]
mod assets {
    use super::{Asset, WriteError, hash, hashed, save};

    /// Writes a file under a name with a part of its hash, so that browsers may keep it for ever.
    pub fn write(dir: &str, name: &str, content: Vec<u8>) -> Result<Asset, WriteError> {
        let hash = hash(&content);
        save(dir.as_ref(), hashed(name, &hash), &content, hash)
    }

    /// Writes a page under its own name.
    pub fn page(dir: &str, name: String, html: &str) -> Result<Asset, WriteError> {
        save(dir.as_ref(), name, html.as_bytes(), hash(html.as_bytes()))
    }
}

fn hash(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `images/horse.png` becomes `images/horse.1a2b3c4d.png`.
fn hashed(name: &str, hash: &str) -> String {
    let file = name.rfind('/').map_or(0, |slash| slash + 1);
    let hash = &hash[..8];
    match name[file..].rfind('.') {
        // A leading dot starts a name, not an ending.
        Some(dot) if dot > 0 => {
            let (stem, ending) = name.split_at(file + dot);
            format!("{stem}.{hash}{ending}")
        }
        _ => format!("{name}.{hash}"),
    }
}

fn save(dir: &Path, name: String, content: &[u8], hash: String) -> Result<Asset, WriteError> {
    let target = inside(dir, &name)?;
    let compressed = gzip(content).map_err(|source| WriteError::Io { path: target.clone(), source })?;
    write_whole(&target, content)?;
    write_whole(&dir.join(format!("{name}.gz")), &compressed)?;
    Ok(Asset { path: name, bytes: content.len(), gzip_bytes: compressed.len(), hash })
}

/// The place for a name, in a folder that is there. Neither `..` nor a link may lead out.
fn inside(dir: &Path, name: &str) -> Result<PathBuf, WriteError> {
    let outside = || WriteError::Outside(name.to_owned());
    let path = Path::new(name);
    if name.is_empty()
        || name.ends_with('/')
        || !path.components().all(|part| matches!(part, Component::Normal(_)))
    {
        return Err(outside());
    }
    let target = dir.join(path);
    let folder = target.parent().unwrap_or(dir);
    let at = |path: &Path| {
        let path = path.to_owned();
        |source| WriteError::Io { path, source }
    };
    fs::create_dir_all(dir).map_err(at(dir))?;
    let top = dir.canonicalize().map_err(at(dir))?;
    // Checked before anything is made below it, one part after the other.
    let mut real = top.clone();
    for part in path.parent().into_iter().flat_map(Path::components) {
        real.push(part);
        match fs::create_dir(&real) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(at(&real)(error)),
            _ => real = real.canonicalize().map_err(at(folder))?,
        }
        if !real.starts_with(&top) {
            return Err(outside());
        }
    }
    Ok(target)
}

fn gzip(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

/// Writes beside the target and moves it there, so that no reader sees half a file.
fn write_whole(target: &Path, content: &[u8]) -> Result<(), WriteError> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}-{}.part", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed)));
    let part = target.with_file_name(name);
    fs::write(&part, content).and_then(|()| fs::rename(&part, target)).map_err(|source| {
        // What is left of it, if anything, is of no use.
        let _ = fs::remove_file(&part);
        WriteError::Io { path: target.to_owned(), source }
    })
}

#[cfg(test)]
mod tests;
