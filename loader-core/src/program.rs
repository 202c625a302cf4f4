//! Programs, by the names that the permission `subprocess` has for them.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use quadriga_abi::permission::{Access, Permissions};

/// Where programs are looked for, whatever the environment says.
pub const PROGRAM_FOLDERS: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The file of a program: an absolute path is it, a plain name stands for the first of
/// [`PROGRAM_FOLDERS`] that has it.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    let path = Path::new(name);
    if name.contains('/') {
        return (path.is_absolute() && runs(path)).then(|| path.to_owned());
    }
    folders().map(|folder| folder.join(name)).find(|path| runs(path))
}

/// The paths in [`PROGRAM_FOLDERS`] by which a file of the same name is reached, such as `/bin/sh` and
/// `/usr/bin/sh`.
pub fn paths_of_program(file: &Path) -> Vec<PathBuf> {
    let (Some(name), Ok(real)) = (file.file_name(), file.canonicalize()) else { return Vec::new() };
    let paths = folders().map(|folder| folder.join(name));
    paths.filter(|path| path.canonicalize().is_ok_and(|other| other == real)).collect()
}

/// Whether permissions cover to start a program, by any name for the same file.
pub fn may_start(permissions: &Permissions, program: &str) -> bool {
    permissions.allows(&Access::Subprocess(program))
        || permissions.subprocess.iter().any(|granted| is_same(granted, program))
}

/// What is asked for is an extension's word: of the files that it names only those in the system's
/// folders are looked at.
fn is_same(granted: &str, asked: &str) -> bool {
    let asked = match asked.contains('/') {
        true => Some(PathBuf::from(asked)),
        false => find_program(asked),
    };
    let (Some(asked), Some(granted)) = (asked, find_program(granted)) else { return false };
    let Ok(real) = granted.canonicalize() else { return false };
    let of_system = || folders().any(|folder| asked.parent() == Some(folder));
    asked == granted || asked == real || of_system() && asked.canonicalize().is_ok_and(|asked| asked == real)
}

fn folders() -> impl Iterator<Item = &'static Path> {
    PROGRAM_FOLDERS.split(':').map(Path::new)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    fn granted(name: &str) -> Permissions {
        Permissions { subprocess: vec![name.to_owned()], ..Permissions::default() }
    }

    #[test]
    fn a_program_is_the_same_by_any_of_its_names() {
        let path = find_program("sh").unwrap();
        assert!(path.is_absolute() && path.ends_with("sh"), "{path:?}");
        assert!(paths_of_program(&path).contains(&path));
        let real = path.canonicalize().unwrap();
        let (path, real) = (path.to_str().unwrap(), real.to_str().unwrap());
        for (ours, asked, may) in [
            ("sh", "sh", true),
            ("sh", path, true),
            ("sh", "/bin/sh", true),
            ("sh", real, true),
            (path, "sh", true),
            ("sh", "cat", false),
            ("sh", "./sh", false),
            ("sh", "/nowhere/sh", false),
            ("cat", path, false),
        ] {
            assert_eq!(may_start(&granted(ours), asked), may, "{ours} {asked}");
        }
        assert_eq!(find_program("/etc/passwd"), None, "it cannot be run");
        assert_eq!(find_program("no-such-program"), None);
    }

    #[test]
    fn a_path_of_the_extensions_choice_is_not_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let (link, other) = (folder.path().join("sh"), folder.path().join("other"));
        let sh = find_program("sh").unwrap();
        symlink(&sh, &link).unwrap();
        fs::copy(&sh, &other).unwrap();
        let may =
            |ours: &Path, asked: &Path| may_start(&granted(ours.to_str().unwrap()), asked.to_str().unwrap());
        // The host's own link is followed, the extension's is not.
        assert!(may(&link, &sh.canonicalize().unwrap()));
        assert!(!may(&sh, &link));
        assert!(may(&other, &other) && !may(&other, &sh));
    }
}
