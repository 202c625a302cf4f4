//! Lock files: exactly what is installed in one home, for another one to be the same.

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde::{Deserialize, Serialize};

use super::{Installed, InstalledState, InstalledVersion};

/// The form of the file.
const FORM: u32 = 1;

/// Exactly what is installed in a home, or is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Lock {
    /// The form of the file: 1.
    lock: u32,
    /// The extensions, by id.
    #[serde(default, rename = "extension")]
    extensions: Vec<Locked>,
}

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Locked {
    id: ExtensionId,
    version: semver::Version,
    /// The SHA-256 digest of the package, in hexadecimal, after `sha256:`.
    digest: String,
    enabled: bool,
}

impl Lock {
    /// What is installed.
    pub fn of(list: &[Installed]) -> Self {
        let locked = |it: &Installed| Locked {
            id: it.id.clone(),
            version: it.current.version.clone(),
            digest: digest(&it.current),
            enabled: it.state == InstalledState::Enabled,
        };
        Self { lock: FORM, extensions: list.iter().map(locked).collect() }
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// `lock_mismatch`, if it is none, with line and column.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: String| Error::new(ErrorCode::LockMismatch, format!("this is no lock file: {why}"));
        let lock: Self = toml::from_str(text).map_err(|error| wrong(error.to_string()))?;
        if lock.lock != FORM {
            let error = wrong(format!("its form is {}, and {FORM} was expected", lock.lock));
            return Err(error.with_hint("it may be of a newer version of this program"));
        }
        Ok(lock)
    }

    /// As the text of a file.
    ///
    /// # Errors
    /// `internal`.
    pub fn to_text(&self) -> Result<String, Error> {
        let text =
            toml::to_string(self).map_err(|error| Error::new(ErrorCode::Internal, error.to_string()))?;
        Ok(format!("# Written by `quadriga deps --lock`: what is installed, exactly.\n{text}"))
    }

    /// Whether this is what is installed, and nothing else.
    ///
    /// # Errors
    /// `lock_mismatch`, with each difference.
    pub fn check(&self, list: &[Installed]) -> Result<(), Error> {
        let there = Self::of(list).extensions;
        let find = |all: &[Locked], id: &ExtensionId| all.iter().find(|it| it.id == *id).cloned();
        let state = |enabled| if enabled { "enabled" } else { "disabled" };
        let mut wrong = Vec::new();
        for due in &self.extensions {
            let Locked { id, version, digest, enabled } = due;
            match find(&there, id) {
                None => wrong.push(format!("{id} {version} is not installed")),
                Some(it) if it.version != *version => {
                    wrong.push(format!("{id} is {}, and not {version}", it.version))
                }
                Some(it) if it.digest != *digest => {
                    wrong.push(format!("{id} {version} is {}, and not {digest}", it.digest));
                }
                Some(it) if it.enabled != *enabled => {
                    wrong.push(format!("{id} is {}, and not {}", state(it.enabled), state(*enabled)));
                }
                Some(_) => {}
            }
        }
        let more = there.iter().filter(|it| find(&self.extensions, &it.id).is_none());
        wrong.extend(more.map(|it| format!("{} {} is not in the lock file", it.id, it.version)));
        match wrong.is_empty() {
            true => Ok(()),
            false => Err(Error::new(ErrorCode::LockMismatch, wrong.join("; "))),
        }
    }

    /// Whether a version is one that the file names.
    ///
    /// # Errors
    /// `lock_mismatch`, with the difference.
    pub(super) fn admits(
        &self,
        id: &ExtensionId,
        version: &semver::Version,
        digest: &str,
    ) -> Result<(), Error> {
        let digest = format!("sha256:{digest}");
        let why = match self.extensions.iter().find(|it| it.id == *id) {
            None => format!("{id} {version} is not in the lock file"),
            Some(due) if due.version != *version => {
                format!("this is {id} {version}; the lock file has {}", due.version)
            }
            Some(due) if due.digest != digest => {
                format!("this {id} {version} is {digest}; the lock file has {}", due.digest)
            }
            Some(_) => return Ok(()),
        };
        Err(Error::new(ErrorCode::LockMismatch, why))
    }
}

fn digest(version: &InstalledVersion) -> String {
    format!("sha256:{}", version.digest)
}
