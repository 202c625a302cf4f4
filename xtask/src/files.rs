//! Copying, digesting and mirroring files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

/// A folder to be: where each of its files comes from, by its path inside the folder.
#[derive(Default)]
pub(crate) struct Tree(BTreeMap<PathBuf, PathBuf>);

impl Tree {
    pub(crate) fn add(&mut self, inside: impl Into<PathBuf>, from: impl Into<PathBuf>) {
        self.0.insert(inside.into(), from.into());
    }

    /// Adds every file below `from`, hidden ones and those that `skip` names excepted.
    pub(crate) fn add_dir(&mut self, inside: &Path, from: &Path, skip: &[&str]) -> Result<()> {
        for (name, path) in entries(from)? {
            if name.starts_with('.') || skip.contains(&name.as_str()) {
                continue;
            }
            let inside = inside.join(&name);
            if path.is_dir() {
                self.add_dir(&inside, &path, skip)?;
            } else {
                self.add(inside, path);
            }
        }
        Ok(())
    }

    /// Makes `dest` hold exactly these files. A file that is right already isn't touched.
    pub(crate) fn write(&self, dest: &Path) -> Result<()> {
        fs::create_dir_all(dest).with_context(|| format!("cannot make {}", dest.display()))?;
        for (inside, from) in &self.0 {
            let to = dest.join(inside);
            if !same(from, &to)? {
                place(from, &to)?;
            }
        }
        let dirs: BTreeSet<&Path> = self.0.keys().flat_map(|file| file.ancestors().skip(1)).collect();
        self.prune(dest, Path::new(""), &dirs)
    }

    fn prune(&self, dest: &Path, inside: &Path, dirs: &BTreeSet<&Path>) -> Result<()> {
        for (name, path) in entries(&dest.join(inside))? {
            let inside = inside.join(name);
            if path.is_dir() && dirs.contains(inside.as_path()) {
                self.prune(dest, &inside, dirs)?;
            } else if path.is_dir() {
                fs::remove_dir_all(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            } else if !self.0.contains_key(&inside) {
                fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
            }
        }
        Ok(())
    }
}

/// Copies a file so that no one ever sees half of it: beside its place first, then renamed.
pub(crate) fn place(from: &Path, to: &Path) -> Result<()> {
    let dir = to.parent().context("a file needs a folder")?;
    fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let copy = || -> Result<()> {
        let mut temp = tempfile::NamedTempFile::new_in(dir)?;
        io::copy(&mut File::open(from)?, &mut temp)?;
        temp.as_file().set_permissions(fs::metadata(from)?.permissions())?;
        temp.persist(to)?;
        Ok(())
    };
    copy().with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// Writes text where it differs, and says whether it did.
pub(crate) fn write_if_changed(path: &Path, text: &str) -> Result<bool> {
    if fs::read_to_string(path).is_ok_and(|old| old == text) {
        return Ok(false);
    }
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(true)
}

/// The SHA-256 of a file, in hexadecimal.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    Ok(hex(&Sha256::digest(bytes)))
}

/// The start of the SHA-256 of several texts, long enough to name a cache folder.
pub(crate) fn short_digest<T: AsRef<[u8]>>(parts: impl IntoIterator<Item = T>) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.as_ref().len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hex(&hasher.finalize()[..8])
}

/// The folders and files of a folder, by name, in order.
pub(crate) fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let read = || -> io::Result<Vec<_>> {
        fs::read_dir(dir)?
            .map(|entry| entry.map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path())))
            .collect()
    };
    let mut found = read().with_context(|| format!("cannot read the folder {}", dir.display()))?;
    found.sort();
    Ok(found)
}

fn same(a: &Path, b: &Path) -> Result<bool> {
    let (Ok(left), Ok(right)) = (fs::metadata(a), fs::symlink_metadata(b)) else {
        return Ok(false);
    };
    let comparable =
        right.is_file() && left.len() == right.len() && left.permissions() == right.permissions();
    Ok(comparable && fs::read(a)? == fs::read(b)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_replaces_what_changed_and_removes_what_is_gone() {
        let temp = tempfile::tempdir().unwrap();
        let (from, to) = (temp.path().join("from"), temp.path().join("to"));
        fs::create_dir_all(from.join("lib/node_modules")).unwrap();
        fs::create_dir_all(to.join("old/deep")).unwrap();
        for (file, text) in
            [("a.txt", "a"), ("lib/b.txt", "b"), ("lib/node_modules/c.txt", "c"), (".hidden", "d")]
        {
            fs::write(from.join(file), text).unwrap();
        }
        fs::write(to.join("old/deep/gone.txt"), "gone").unwrap();
        fs::write(to.join("a.txt"), "a").unwrap();
        let untouched = fs::metadata(to.join("a.txt")).unwrap().modified().unwrap();

        let mut tree = Tree::default();
        tree.add_dir(Path::new(""), &from, &["node_modules"]).unwrap();
        tree.write(&to).unwrap();

        assert_eq!(fs::read_to_string(to.join("lib/b.txt")).unwrap(), "b");
        assert_eq!(fs::metadata(to.join("a.txt")).unwrap().modified().unwrap(), untouched);
        let left: Vec<_> = entries(&to).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(left, ["a.txt", "lib"]);
    }
}
