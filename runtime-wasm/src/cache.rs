//! Where compiled code is kept for the next process: in a folder of the user's, which nobody else
//! may write. Code from there is run without being checked, so it has to be what this user's own
//! processes put there: no worker and no guest is ever given the folder.

use std::path::{Path, PathBuf};

use wasmtime::{Cache, CacheConfig};

/// The cache of this user, if there is a place for it.
pub(crate) fn open() -> Option<Cache> {
    let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    open_in(&base.or_else(home)?.join("quadriga"))
}

/// A cache in a folder, which is made if it is not there. None in one that others may write.
pub(crate) fn open_in(folder: &Path) -> Option<Cache> {
    let folder = own(folder).inspect_err(|error| {
        tracing::debug!(folder = %folder.display(), %error, "compiled code is not kept");
    });
    let mut config = CacheConfig::new();
    config.with_directory(folder.ok()?);
    Cache::new(config).ok()
}

/// The folder without links, if nobody but its user and root can put something there.
#[cfg(unix)]
fn own(folder: &Path) -> std::io::Result<PathBuf> {
    use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};

    const OTHERS_WRITE: u32 = 0o022;
    const STICKY: u32 = 0o1000;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let folder = folder.canonicalize()?;
    let ours = rustix::process::geteuid().as_raw();
    for part in folder.ancestors() {
        let found = part.symlink_metadata()?;
        let of_others = found.uid() != ours && found.uid() != 0;
        // In a sticky folder nobody can take what belongs to someone else.
        let open = found.mode() & OTHERS_WRITE != 0 && (part == folder || found.mode() & STICKY == 0);
        if of_others || open {
            return Err(std::io::Error::other(format!("others may write {}", part.display())));
        }
    }
    if folder.symlink_metadata()?.uid() != ours {
        return Err(std::io::Error::other("it belongs to somebody else"));
    }
    Ok(folder)
}

#[cfg(not(unix))]
fn own(_: &Path) -> std::io::Result<PathBuf> {
    Err(std::io::Error::other("whether others may write there is not known"))
}

#[cfg(all(test, unix))]
mod tests;
