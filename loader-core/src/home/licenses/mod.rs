//! Which licences an operator accepts, of an extension and of what it brings along.

mod spdx;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use quadriga_abi::{Error, ErrorCode, ExtensionId};
use quadriga_package::{SBOM_FILE, third_party};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::SqliteConnection;

use self::spdx::{Rules, names};
use super::audit::{self, Act};
use super::{Home, Installed, InstalledState, InstalledVersion, failed, fault, store};

/// How many licences are suggested at most.
const SUGGESTED: usize = 6;

/// Which licences may come into a home. The one that nobody has changed allows all.
///
/// An entry is a licence of the SPDX list or a `LicenseRef-…`, with an exception or without: `MIT`,
/// `GPL-2.0-only WITH Classpath-exception-2.0`. `Apache-2.0+` and `GPL-2.0-or-later` cover the later
/// versions too. <https://spdx.github.io/spdx-spec/v3.0.1/annexes/spdx-license-expressions/>
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct LicensePolicy {
    /// Those that are allowed; `None` for all.
    pub allow: Option<BTreeSet<String>>,
    /// Those that are not, whatever is allowed. An entry without an exception is for all of these.
    pub deny: BTreeSet<String>,
    /// Whether what has no licence, or one that is no SPDX expression, is allowed.
    pub unknown: bool,
    /// Extensions that all of this does not hold for.
    pub exceptions: BTreeSet<ExtensionId>,
}

/// An extension and what it brings along, with what a policy says of each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Licenses {
    /// The extension.
    pub id: ExtensionId,
    /// Its version.
    pub version: semver::Version,
    /// What hosts are to do with it.
    pub state: InstalledState,
    /// Whether the policy does not hold for it.
    pub excepted: bool,
    /// The extension itself, and then what it brings along.
    pub parts: Vec<Licensed>,
}

/// One part of an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Licensed {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Its package URL; the extension itself has none.
    pub purl: Option<String>,
    /// Its licence, as it says itself.
    pub license: Option<String>,
    /// Why the policy denies it, if it does.
    pub denied: Option<String>,
}

/// What is denied, by its folder, and why.
pub(super) type Denied = HashMap<PathBuf, String>;

impl Default for LicensePolicy {
    fn default() -> Self {
        Self { allow: None, deny: BTreeSet::new(), unknown: true, exceptions: BTreeSet::new() }
    }
}

impl LicensePolicy {
    /// Whether nothing is denied by it.
    pub fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty() && self.unknown
    }

    /// What it says of a licence: whether one of the choices that an expression leaves is allowed.
    ///
    /// # Errors
    /// Why it is denied, in words.
    pub fn judge(&self, license: Option<&str>) -> Result<(), String> {
        let wrong = |entry: &str| format!("{entry:?} in the policy is no licence");
        Rules::of(self).map_err(wrong)?.judge(license)
    }

    /// What it says of an extension's version. An SBOM that cannot be read is a part that is denied, unless
    /// nothing is.
    fn look(&self, id: &ExtensionId, version: &InstalledVersion) -> Result<Vec<Licensed>, Error> {
        let rules = Rules::of(self).map_err(unknown)?;
        let about = &version.manifest.extension;
        let judged = |name: String, version: String, purl: Option<String>, license: Option<String>| {
            let denied = rules.judge(license.as_deref()).err();
            Licensed { name, version, purl, license, denied }
        };
        let license = about.license.as_ref().map(ToString::to_string);
        let mut parts = vec![judged(id.to_string(), version.version.to_string(), None, license)];
        match third_party(&version.folder) {
            Ok(all) => {
                parts.extend(all.into_iter().map(|it| judged(it.name, it.version, it.purl, it.license)))
            }
            Err(error) => {
                let denied = (!self.is_open()).then(|| error.to_string());
                let (name, version) = (SBOM_FILE.to_owned(), String::new());
                parts.push(Licensed { name, version, purl: None, license: None, denied });
            }
        }
        Ok(parts)
    }
}

impl Licenses {
    fn of(policy: &LicensePolicy, it: &Installed) -> Result<Self, Error> {
        Ok(Self {
            id: it.id.clone(),
            version: it.current.version.clone(),
            state: it.state,
            excepted: policy.exceptions.contains(&it.id),
            parts: policy.look(&it.id, &it.current)?,
        })
    }

    /// Its parts that are denied; none if the policy does not hold for it.
    pub fn denied(&self) -> impl Iterator<Item = &Licensed> {
        self.parts.iter().filter(|part| !self.excepted && part.denied.is_some())
    }

    /// Fails if any of its parts is denied.
    fn accepted(&self) -> Result<(), Error> {
        let mut denied = self.denied();
        let Some(part) = denied.next() else { return Ok(()) };
        let (id, version) = (&self.id, &self.version);
        let what = match &part.purl {
            None if part.name == id.as_str() => format!("{id} {version}"),
            purl => {
                let purl = purl.as_ref().map(|purl| format!(" ({purl})")).unwrap_or_default();
                format!(
                    "{id} {version} brings {}{purl}, which",
                    format!("{} {}", part.name, part.version).trim_end()
                )
            }
        };
        let license = match &part.license {
            Some(license) => format!("is licensed under {license:?}"),
            None => "has no known licence".to_owned(),
        };
        let why = part.denied.as_deref().unwrap_or_default();
        let mut message = format!("{what} {license}: {why}");
        match denied.count() {
            0 => {}
            1 => message += "; another part of it is denied too",
            more => message += &format!("; {more} other parts of it are denied too"),
        }
        let hint = format!(
            "take another version, or change the policy: quadriga licences policy, with --exception {id} for it alone"
        );
        Err(Error::new(ErrorCode::LicenseDenied, message).with_hint(hint))
    }
}

impl Home {
    /// Which licences may come in.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn license_policy(&self) -> Result<LicensePolicy, Error> {
        store::license_policy(&mut *self.connection().await?).await
    }

    /// Changes which licences may come in: what is installed, updated, rolled back and enabled from now on.
    /// What is enabled already goes on. Gives those of these that the policy would refuse.
    ///
    /// # Errors
    /// `invalid_arguments`, if an entry is no licence, with the nearest; `store_failed`.
    pub async fn set_license_policy(
        &self,
        policy: LicensePolicy,
        actor: &str,
    ) -> Result<Vec<Licenses>, Error> {
        Rules::of(&policy).map_err(unknown)?;
        let (mut transaction, all) = self.begin().await?;
        store::put_license_policy(&mut transaction, &policy).await?;
        fault::point("with its change");
        let detail = json!(policy);
        let act = Act { actor, action: "licence policy", extension: "*", detail };
        audit::write(&mut transaction, act).await?;
        let enabled = all.iter().filter(|it| it.state == InstalledState::Enabled).cloned().collect();
        let mut refused = look(policy, enabled).await?;
        refused.retain(|it| it.denied().next().is_some());
        self.commit(transaction, &all).await?;
        Ok(refused)
    }

    /// The licences of all that is installed in a home and of what it brings along, by id, and what the
    /// policy says of each; without working with the home, as [`Home::look`] does.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn look_at_licenses(path: impl AsRef<Path>) -> Result<(LicensePolicy, Vec<Licenses>), Error> {
        let path = path.as_ref();
        if !path.join("store.sqlite").exists() {
            return Ok(Default::default());
        }
        let home = path.canonicalize().map_err(failed(path))?;
        let pool = store::open(&home.join("store.sqlite")).await?;
        let read = async {
            let mut connection = pool.acquire().await.map_err(store::failed)?;
            let policy = store::license_policy(&mut connection).await?;
            Ok((policy, store::list(&mut connection, &home).await?))
        };
        let read: Result<(LicensePolicy, Vec<Installed>), Error> = read.await;
        pool.close().await;
        let (policy, list) = read?;
        let all = look(policy.clone(), list).await?;
        Ok((policy, all))
    }
}

/// Fails if the policy denies a part of one of these.
pub(super) async fn accepted(connection: &mut SqliteConnection, rows: Vec<Installed>) -> Result<(), Error> {
    let policy = store::license_policy(connection).await?;
    if policy.is_open() {
        return Ok(());
    }
    let rows = rows.into_iter().filter(|it| !policy.exceptions.contains(&it.id)).collect();
    look(policy, rows).await?.iter().try_for_each(Licenses::accepted)
}

/// Of which of these the policy denies a part, by their folders: why, for a sentence that begins with name and
/// version.
pub(super) async fn denied<'a>(
    connection: &mut SqliteConnection,
    rows: impl Iterator<Item = &'a Installed>,
) -> Result<Denied, Error> {
    let policy = store::license_policy(connection).await?;
    if policy.is_open() {
        return Ok(Denied::new());
    }
    let rows: Vec<Installed> = rows.cloned().collect();
    let all = look(policy, rows.clone()).await?;
    let why = |it: &Licenses| {
        let error = it.accepted().err()?;
        Some(error.message.replacen(&format!("{} {} ", it.id, it.version), "", 1))
    };
    let denied = rows.into_iter().zip(&all).filter_map(|(row, it)| Some((row.current.folder, why(it)?)));
    Ok(denied.collect())
}

/// Reads the SBOMs of these, beside the executor.
async fn look(policy: LicensePolicy, rows: Vec<Installed>) -> Result<Vec<Licenses>, Error> {
    let looking =
        tokio::task::spawn_blocking(move || rows.iter().map(|it| Licenses::of(&policy, it)).collect());
    looking.await.unwrap_or_else(|error| Err(Error::new(ErrorCode::Internal, error.to_string())))
}

fn unknown(entry: &str) -> Error {
    let known = names();
    let begun = known.iter().filter(|it| !entry.is_empty() && it.starts_with(&format!("{entry}-")));
    let begun: Vec<&str> = begun.copied().take(SUGGESTED).collect();
    // All of them are too many to list.
    let hint = match crate::route::suggest(entry, &known, "") {
        _ if !begun.is_empty() => format!("there are {}", begun.join(", ")),
        near if near.starts_with("did you mean") => near,
        _ => "licences are named as in the SPDX list: https://spdx.org/licenses/".to_owned(),
    };
    Error::new(ErrorCode::InvalidArguments, format!("{entry:?} is no licence")).with_hint(hint)
}
