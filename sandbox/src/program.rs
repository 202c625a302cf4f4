//! Where the worker program is.

use std::path::{Path, PathBuf};

use quadriga_abi::{Error, ErrorCode};

/// Names the program, where it is not beside the host's.
const VARIABLE: &str = "QUADRIGA_WORKER";

/// The program that runs as `<program> worker`.
const NAME: &str = "quadriga";

/// The program that a host names, or else the environment variable `QUADRIGA_WORKER`, or else
/// `quadriga` in the folder of the host's own program or the one above it.
///
/// # Errors
/// Says where it was looked for.
pub(crate) fn find(named: Option<&Path>) -> Result<PathBuf, Error> {
    let missing = |message: String| {
        let hint = format!(
            "install the `{NAME}` program beside the host's, name it with {VARIABLE}, or give its path when the \
             host is built"
        );
        Error::new(ErrorCode::IsolationUnavailable, message).with_hint(hint)
    };
    let by_variable = || std::env::var_os(VARIABLE).map(PathBuf::from);
    if let Some(path) = named.map(Path::to_owned).or_else(by_variable) {
        return path.is_file().then_some(path.clone()).ok_or_else(|| {
            missing(format!("isolation process needs a worker program, and {} is none", path.display()))
        });
    }
    let folder = std::env::current_exe().ok().and_then(|program| program.parent().map(Path::to_owned));
    let folders = folder.iter().flat_map(|folder| folder.ancestors().take(2));
    folders.map(|folder| folder.join(NAME)).find(|path| path.is_file()).ok_or_else(|| {
        let folder = folder.as_deref().unwrap_or(Path::new("?")).display();
        missing(format!("isolation process needs a worker program, and there is none in {folder}"))
    })
}
