//! minisign's own tool, which the tests of signatures are checked against.

use std::path::PathBuf;

use super::{debian, tools};
use crate::cmd::{self, say};
use crate::files;
use crate::repo::Repo;

/// Debian's packages of the tool and of the library that it needs.
const PACKAGES: [&str; 2] = ["minisign", "libsodium23"];

/// A tool: the program, and the folder of its library if that is not the system's.
pub(crate) struct Minisign {
    pub(crate) program: PathBuf,
    pub(crate) library: Option<PathBuf>,
}

/// The tool of this machine, or one from a Debian package; none where neither can be had, and
/// that is said.
pub(crate) fn find(repo: &Repo) -> Option<Minisign> {
    if let Some(program) = cmd::on_path("minisign") {
        return Some(Minisign { program, library: None });
    }
    let dest = tools::dir(repo).join("minisign");
    if !dest.is_dir() {
        if !debian::is_here() {
            return missing("no Debian packages here");
        }
        say("setup: getting minisign for the tests of signatures");
        if let Err(error) = debian::unpack(&PACKAGES, &dest) {
            return missing(&format!("{error:#}"));
        }
    }
    let library = files::entries(&dest.join("usr/lib")).ok()?.into_iter().find(|(_, path)| path.is_dir())?.1;
    Some(Minisign { program: dest.join("usr/bin/minisign"), library: Some(library) })
}

fn missing(why: &str) -> Option<Minisign> {
    say(&format!(
        "setup: minisign can't be had ({why}): the tests against it are skipped; `apt-get install minisign` brings it"
    ));
    None
}
