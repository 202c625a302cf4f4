//! What can be asked of a home. Whoever holds it carries it out: the command itself or, where a host runs the
//! home, that host.

use std::path::{Path, PathBuf};

use anyhow::Result;
use quadriga::abi::permission::Permissions;
use quadriga::abi::{Error, ErrorCode, ExtensionId, Isolation};
use quadriga::home::{
    Backup, Changes, Dependencies, Dependents, Home, InstallOptions, Lock, Needs, Offer, Progress, Terms,
    TrustLevel,
};
use quadriga::package::PublicKey;
use quadriga::{Letters, Settings, package};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::licences::PolicyChange;
use super::trust_args::Age;
use crate::host::GrantArg;
use crate::package::args::PackageArgs;
use crate::package::signed_package;

/// What whoever holds a home does with it. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum Operation {
    Install {
        packages: Vec<PackageArgs>,
        #[serde(default)]
        grant: GrantArg,
        #[serde(default)]
        enable: bool,
        #[serde(default)]
        with_dependencies: bool,
        /// The text of a lock file.
        #[serde(default)]
        locked: Option<String>,
        #[serde(default)]
        dry_run: bool,
    },
    Update {
        packages: Vec<PackageArgs>,
        #[serde(default)]
        consent: bool,
        #[serde(default)]
        unpin: bool,
        #[serde(default)]
        with_dependencies: bool,
        #[serde(default)]
        with_dependents: bool,
        #[serde(default)]
        locked: Option<String>,
        #[serde(default)]
        dry_run: bool,
    },
    Rollback {
        id: String,
        #[serde(default)]
        with_dependents: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Enable {
        id: String,
        #[serde(default)]
        with_dependencies: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Disable {
        id: String,
        #[serde(default)]
        with_dependents: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Uninstall {
        id: String,
        #[serde(default)]
        with_dependents: bool,
        #[serde(default)]
        keep_data: bool,
        #[serde(default)]
        dry_run: bool,
    },
    Grant {
        id: ExtensionId,
        permissions: Permissions,
    },
    Revoke {
        id: ExtensionId,
        permissions: Permissions,
    },
    /// Keeps settings, and forgets others.
    Configure {
        id: ExtensionId,
        #[serde(default)]
        set: Settings,
        #[serde(default)]
        unset: Vec<String>,
    },
    Pin {
        id: String,
        #[serde(default)]
        version: Option<semver::Version>,
    },
    Unpin {
        id: String,
    },
    TrustAdd {
        /// The key itself.
        key: String,
        publisher: String,
        level: TrustLevel,
    },
    TrustList {},
    TrustRemove {
        /// The key itself, or its name.
        key: String,
    },
    /// Shows the policy, or changes it for a level.
    TrustPolicy {
        #[serde(default)]
        level: Option<TrustLevel>,
        #[serde(default)]
        isolation: Option<Isolation>,
        /// Names with commas between them, `all` or `none`.
        #[serde(default)]
        permissions: Option<String>,
        #[serde(default)]
        signature: Option<bool>,
        #[serde(default)]
        minimum_release_age: Option<Age>,
    },
    /// Shows the policy on licences, or changes it.
    LicensePolicy(PolicyChange),
    DeadLetters {
        which: Letters,
    },
    RetryDeadLetters {
        which: Letters,
    },
    DropDeadLetters {
        which: Letters,
    },
    Audit {},
    VerifyAudit {
        #[serde(default)]
        head: Option<String>,
    },
}

/// What can be asked while somebody else holds the home.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", rename_all_fields = "kebab-case", deny_unknown_fields)]
pub(crate) enum Look {
    List {},
    Show {
        id: String,
    },
    Deps {
        #[serde(default)]
        id: Option<String>,
    },
    Backup {
        /// The folder that backups are in.
        into: PathBuf,
    },
}

impl Operation {
    /// Carries it out in the name of somebody, and says what came of it.
    pub(crate) async fn carry_out(self, home: &Home, actor: &str, progress: Progress) -> Result<Json> {
        let change = |dry_run: bool| if dry_run { home.clone().rehearse() } else { home.clone() };
        let by = actor.to_owned();
        match self {
            Self::Install { packages, grant, enable, with_dependencies, locked, dry_run } => {
                let (lock, needs) = (lock(locked)?, needs(with_dependencies));
                let offers = offers(packages, grant).await?;
                let options =
                    InstallOptions { actor: by, enable, needs, lock, progress, ..Default::default() };
                changes(change(dry_run).install(offers, options).await, dry_run)
            }
            Self::Update {
                packages,
                consent,
                unpin,
                with_dependencies,
                with_dependents,
                locked,
                dry_run,
            } => {
                let (lock, needs, dependents) =
                    (lock(locked)?, needs(with_dependencies), dependents(with_dependents));
                let offers = offers(packages, GrantArg::None).await?;
                let options = InstallOptions {
                    actor: by,
                    consent,
                    unpin,
                    dependents,
                    needs,
                    lock,
                    progress,
                    ..Default::default()
                };
                changes(change(dry_run).update(offers, options).await, dry_run)
            }
            Self::Rollback { id, with_dependents, dry_run } => {
                changes(change(dry_run).rollback(&id, dependents(with_dependents), actor).await, dry_run)
            }
            Self::Enable { id, with_dependencies, dry_run } => {
                changes(change(dry_run).enable(&id, needs(with_dependencies), actor).await, dry_run)
            }
            Self::Disable { id, with_dependents, dry_run } => {
                changes(change(dry_run).disable(&id, dependents(with_dependents), actor).await, dry_run)
            }
            Self::Uninstall { id, with_dependents, keep_data, dry_run } => {
                let home = change(dry_run);
                let home = if keep_data { home.keep_data() } else { home };
                changes(home.uninstall(&id, dependents(with_dependents), actor).await, dry_run)
            }
            Self::Grant { id, permissions } => json(home.grant(id.as_str(), &permissions, actor).await?),
            Self::Revoke { id, permissions } => json(home.revoke(id.as_str(), &permissions, actor).await?),
            Self::Configure { id, set, unset } => {
                json(home.configure(id.as_str(), set, &unset, actor).await?.config)
            }
            Self::Pin { id, version } => json(home.pin(&id, version, actor).await?),
            Self::Unpin { id } => json(home.unpin(&id, actor).await?),
            Self::TrustAdd { key, publisher, level } => {
                let key: PublicKey = key.parse()?;
                json(home.trust(&key, &publisher, level, actor).await?)
            }
            Self::TrustList {} => json(home.trusted().await?),
            Self::TrustRemove { key } => {
                let (removed, signed) = home.distrust(&key, actor).await?;
                Ok(json!({ "removed": removed, "signed": signed }))
            }
            Self::TrustPolicy { level, isolation, permissions, signature, minimum_release_age } => {
                let policy = home.trust_policy().await?;
                let Some(level) = level else { return json(policy) };
                let before = policy.terms(level);
                let terms = Terms {
                    isolation: isolation.unwrap_or(before.isolation),
                    permissions: match permissions.as_deref() {
                        None => before.permissions.clone(),
                        Some("all") => None,
                        Some("none") => Some(Default::default()),
                        Some(names) => Some(names.split(',').map(|name| name.trim().to_owned()).collect()),
                    },
                    signature: signature.unwrap_or(before.signature),
                    minimum_release_age: minimum_release_age
                        .map_or(before.minimum_release_age, |Age(age)| age),
                };
                if terms != before {
                    home.set_terms(level, terms, actor).await?;
                }
                json(home.trust_policy().await?)
            }
            Self::LicensePolicy(change) => {
                let before = home.license_policy().await?;
                let policy = change.of(before.clone());
                let refused = match policy == before {
                    true => Vec::new(),
                    false => home.set_license_policy(policy.clone(), actor).await?,
                };
                Ok(json!({ "policy": policy, "refused": refused }))
            }
            Self::DeadLetters { which } => json(home.dead_letters(&which).await?),
            Self::RetryDeadLetters { which } => json(home.retry_dead_letters(&which, actor).await?),
            Self::DropDeadLetters { which } => json(home.drop_dead_letters(&which, actor).await?),
            Self::Audit {} => json(home.audit().await?),
            Self::VerifyAudit { head } => json(home.verify_audit(head.as_deref()).await?),
        }
    }
}

impl Look {
    /// Looks, and says what is there.
    pub(crate) async fn carry_out(self, home: &Path) -> Result<Json> {
        match self {
            Self::List {} => json(Home::look(home).await?),
            Self::Show { id } => json(Home::look_at(home, &id).await?),
            Self::Deps { id: None } => json(Dependencies::of(&Home::look(home).await?)),
            Self::Deps { id: Some(id) } => {
                let id = Home::look_at(home, &id).await?.id;
                json(Dependencies::of(&Home::look(home).await?).around(&id))
            }
            Self::Backup { into } => json(Backup::make(home, &into, &Progress::default()).await?),
        }
    }
}

fn json(value: impl Serialize) -> Result<Json> {
    Ok(serde_json::to_value(value)?)
}

/// What was changed or would be, or what to do about it.
fn changes(done: Result<Changes, Error>, dry_run: bool) -> Result<Json> {
    let done = done.map_err(|error| match error.code {
        ErrorCode::Needed => error.with_hint("--with-dependents disables them too"),
        _ => error,
    })?;
    let mut json = json(done)?;
    json["dry-run"] = dry_run.into();
    Ok(json)
}

fn needs(with_dependencies: bool) -> Needs {
    if with_dependencies { Needs::Enable } else { Needs::Refuse }
}

fn dependents(with_dependents: bool) -> Dependents {
    if with_dependents { Dependents::Disable } else { Dependents::Refuse }
}

fn lock(text: Option<String>) -> Result<Option<Lock>, Error> {
    text.as_deref().map(Lock::parse).transpose()
}

/// Opens packages. Who signed them is verified as they come in.
async fn offers(packages: Vec<PackageArgs>, grant: GrantArg) -> Result<Vec<Offer>> {
    let open = move |args: PackageArgs| {
        let (package, signature, key) = signed_package(&args)?;
        // What the package itself asks for, if that is to be granted.
        let grant = match grant {
            GrantArg::None => None,
            GrantArg::Requested => Some(package.inspect(&mut |_| package::GO_ON)?.0.permissions),
        };
        Ok(Offer { package, signature, key, grant })
    };
    tokio::task::spawn_blocking(move || packages.into_iter().map(open).collect()).await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_its_default() {
        let read = |text: &str| serde_json::from_str::<Operation>(text).unwrap();
        let (id, with_dependents, dry_run) = ("a.b".to_owned(), false, false);
        assert_eq!(
            read(r#"{"request":"disable","id":"a.b"}"#),
            Operation::Disable { id, with_dependents, dry_run }
        );
        let update = r#"{"request":"update","packages":[{"path":"/a.qx"}],"with-dependents":true}"#;
        assert!(matches!(
            read(update),
            Operation::Update { packages, with_dependents: true, consent: false, .. } if packages[0].key.is_none()
        ));
        let policy = r#"{"request":"trust-policy","level":"low","minimum-release-age":"72h"}"#;
        let written = serde_json::to_value(read(policy)).unwrap();
        assert_eq!(written["minimum-release-age"], "72h");
        let retry = r#"{"request":"retry-dead-letters","which":{"of":"a.b"}}"#;
        let which = Letters::Of(ExtensionId::new("a.b").unwrap());
        assert_eq!(read(retry), Operation::RetryDeadLetters { which });
        let which = Letters::All;
        assert_eq!(read(r#"{"request":"dead-letters","which":"all"}"#), Operation::DeadLetters { which });
        for text in [
            r#"{"request":"disable"}"#,
            r#"{"request":"disable","id":"a.b","more":1}"#,
            r#"{"request":"install","packages":[{"path":"/a.qx","kee":"k"}]}"#,
            r#"{"request":"grant","id":"a.b","permissions":{"all":true}}"#,
            r#"{"request":"trust-policy","minimum-release-age":"soon"}"#,
            r#"{"request":"dead-letters"}"#,
            r#"{"request":"drop-dead-letters","which":"some"}"#,
            r#"{"request":"audit","more":1}"#,
        ] {
            assert!(serde_json::from_str::<Operation>(text).is_err(), "{text}");
        }
    }
}
