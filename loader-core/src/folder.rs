//! Folders that go with whoever holds them, and at the latest with the next host of the same user: one
//! that is killed cannot remove its own.
//!
//! All of a process lie in one folder, which that process has locked while it is there. What nobody
//! has locked was left behind.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, Once, Weak};

use tempfile::TempDir;

use crate::dispatcher::lock;

const PREFIX: &str = "quadriga-host-";

/// A new and empty folder that only this user can enter, among the system's temporary ones. It is
/// removed when this is dropped, with all that is in it.
#[derive(Debug)]
pub struct TemporaryFolder {
    folder: TempDir,
    /// Goes after it.
    _home: Arc<Home>,
}

/// The folder of all of a process.
#[derive(Debug)]
struct Home {
    folder: TempDir,
    /// Released after it is gone.
    _lock: File,
}

impl TemporaryFolder {
    /// Makes one. The first of a process removes what processes that are gone left behind.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn new() -> io::Result<Self> {
        static HOME: Mutex<Weak<Home>> = Mutex::new(Weak::new());
        static SWEPT: Once = Once::new();
        let mut known = lock(&HOME);
        let home = match known.upgrade() {
            Some(home) => home,
            None => Arc::new(Home::new()?),
        };
        *known = Arc::downgrade(&home);
        drop(known);
        SWEPT.call_once(|| sweep(&home));
        Ok(Self { folder: builder("").tempdir_in(home.folder.path())?, _home: home })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Home {
    fn new() -> io::Result<Self> {
        loop {
            let folder = builder(PREFIX).tempdir()?;
            // Another process may have taken it for one that was left, and removed it.
            let Ok(lock) = File::open(folder.path()) else { continue };
            if lock.try_lock().is_ok() && folder.path().exists() {
                return Ok(Self { folder, _lock: lock });
            }
        }
    }
}

fn builder(prefix: &str) -> tempfile::Builder<'_, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder
}

/// Removes what this user's processes left that are gone.
fn sweep(home: &Home) {
    let (Ok(own), Some(all)) = (fs::metadata(home.folder.path()), home.folder.path().parent()) else {
        return;
    };
    for entry in fs::read_dir(all).into_iter().flatten().flatten() {
        let is_home = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        // Not followed if it is a link.
        let is_ours = |found: fs::Metadata| found.is_dir() && is_same_user(&found, &own);
        if is_home
            && entry.metadata().is_ok_and(is_ours)
            && let Ok(left) = File::open(entry.path())
            && left.try_lock().is_ok()
            && let Err(error) = fs::remove_dir_all(entry.path())
        {
            tracing::warn!(path = %entry.path().display(), %error, "a folder of a host that is gone stays behind");
        }
    }
}

#[cfg(unix)]
fn is_same_user(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    one.uid() == other.uid()
}

#[cfg(not(unix))]
fn is_same_user(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_goes_and_what_is_used_stays() {
        let used = TemporaryFolder::new().unwrap();
        let left = builder(PREFIX).tempdir().unwrap();
        fs::write(left.path().join("file"), "left").unwrap();
        sweep(&used._home);
        assert!(!left.path().exists() && used.path().is_dir());
        // One that another process has locked stays too.
        let other = Home::new().unwrap();
        sweep(&used._home);
        assert!(other.folder.path().is_dir());
        let (path, home) = (used.path().to_owned(), used._home.folder.path().to_owned());
        drop(used);
        assert!(!path.exists());
        assert!(!home.exists(), "the last one takes the folder of all along");
    }
}
