//! An extension's folder, as far as it belongs into a package.

use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::META_DIR;
use crate::bounds::Bounds;
use crate::error::{Error, Result};
use crate::name::{self, Names};

/// More rules on what stays out, with the syntax of `.gitignore`.
const IGNORE_FILE: &str = ".quadrigaignore";

/// What never belongs into a package, at any depth.
const IGNORED: [&str; 16] = [
    ".DS_Store",
    ".bin",
    ".hg",
    ".idea",
    ".mypy_cache",
    ".pytest_cache",
    ".quadrigaignore",
    ".ruff_cache",
    ".svn",
    ".tox",
    ".venv",
    ".vscode",
    "Thumbs.db",
    "__pycache__",
    "venv",
    META_DIR,
];
const IGNORED_ENDS: [&str; 6] = [".pyc", ".pyo", ".qx", ".minisig", ".swp", "~"];
/// The same, in the top folder alone.
const IGNORED_AT_TOP: [&str; 1] = ["target"];

/// File names that programs keep secrets under.
const SECRET_NAMES: [&str; 14] = [
    ".env",
    ".git-credentials",
    ".netrc",
    ".npmrc",
    ".pgpass",
    ".pypirc",
    ".htpasswd",
    "credentials.json",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "id_rsa",
    "secrets.toml",
    "service-account.json",
];
/// What begins files that hold keys of minisign, and ours.
const MINISIGN_KEY: &str = "untrusted comment: minisign encrypted secret key";
const PRIVATE_KEY: &str = "PRIVATE KEY-----";

/// One file to pack: its path in the package, and where it is.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) file: PathBuf,
}

/// Lists what belongs into the package, in the order of the paths' bytes.
pub(crate) fn list(dir: &Path, bounds: &Bounds, secrets: bool) -> Result<Vec<Source>> {
    let root = fs::canonicalize(dir).map_err(Error::io(dir))?;
    let mut walk = WalkBuilder::new(&root);
    let top = root.clone();
    walk.standard_filters(false)
        .add_custom_ignore_filename(IGNORE_FILE)
        .filter_entry(move |entry| !is_ignored(entry.path(), &top));
    let (mut names, mut found) = (Names::default(), Vec::new());
    for entry in walk.build() {
        let entry = entry.map_err(|error| Error::Ignore(error.to_string()))?;
        if let Some(error) = entry.error() {
            return Err(Error::Ignore(error.to_string()));
        }
        let inside = entry.path().strip_prefix(&root).unwrap_or(entry.path());
        if entry.file_type().is_some_and(|kind| kind.is_dir()) {
            continue;
        }
        let path = name::check(inside.as_os_str().as_encoded_bytes(), bounds)?.to_owned();
        let file = resolve(entry.path(), &path, &root)?;
        names.add(&path, false, bounds)?;
        if !secrets && let Some(why) = secret(&path, &file)? {
            return Err(Error::Secret { path, why });
        }
        found.push(Source { path, file });
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}

fn is_ignored(path: &Path, top: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    path != top
        && (IGNORED.contains(&name)
            || name.starts_with(".git")
            || IGNORED_ENDS.iter().any(|end| name.ends_with(end))
            || (path.parent() == Some(top) && IGNORED_AT_TOP.contains(&name)))
}

/// The file itself, or the one that a link leads to: a link to a file in the folder is packed as
/// that file, because packages have no links.
fn resolve(file: &Path, path: &str, root: &Path) -> Result<PathBuf> {
    let not = |what| Error::NotAFile { path: path.to_owned(), what };
    let kind = fs::symlink_metadata(file).map_err(Error::io(file))?.file_type();
    if kind.is_symlink() {
        let target = fs::canonicalize(file).map_err(Error::io(file))?;
        let inside = target.starts_with(root) && target.is_file();
        return if inside { Ok(target) } else { Err(not("symbolic link")) };
    }
    if kind.is_file() { Ok(file.to_owned()) } else { Err(not("device, pipe or socket")) }
}

/// Why a file looks as if it were not to be given away. What others have published in packages of
/// their own is public already.
fn secret(path: &str, file: &Path) -> Result<Option<&'static str>> {
    if path.split('/').any(|part| part == "node_modules" || part == "vendor") {
        return Ok(None);
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let example = [".example", ".sample", ".template"].iter().any(|end| name.ends_with(end));
    if SECRET_NAMES.contains(&name) || (name.starts_with(".env.") && !example) {
        return Ok(Some("programs keep secrets in files of this name"));
    }
    let mut start = Vec::new();
    let read = File::open(file).and_then(|file| file.take(4096).read_to_end(&mut start));
    read.map_err(Error::io(file))?;
    let start = String::from_utf8_lossy(&start);
    let pem =
        start.lines().any(|line| line.starts_with("-----BEGIN ") && line.trim_end().ends_with(PRIVATE_KEY));
    Ok((pem || start.starts_with(MINISIGN_KEY)).then_some("it holds a private key"))
}
