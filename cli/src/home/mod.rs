//! The commands for what is installed.

pub(crate) mod actor;
pub(crate) mod args;
mod backup;
mod deps;
pub(crate) mod grants;
pub(crate) mod letters;
pub(crate) mod licences;
pub(crate) mod operation;
mod show;
mod trust;
pub(crate) mod trust_args;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use quadriga::Dispatcher;
#[cfg(unix)]
use quadriga::abi::ErrorCode;
use quadriga::abi::ExtensionId;
use quadriga::abi::permission::Permissions;
use quadriga::home::{self, Audited, Entry, Home, Installed, InstalledState};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value as Json};

use crate::failure::Advice;
use crate::host;
use crate::output::{Output, harmless};
use crate::package::args::PackageArgs;
use crate::package::progress::Progress;
use crate::package::public;
use args::{
    AuditArgs, EnableArgs, GoingArgs, HomeArgs, InstallArgs, OffersArgs, OneArgs, PermissionArgs,
    UninstallArgs, UpdateArgs,
};
pub(crate) use backup::{backup, restore};
pub(crate) use deps::deps;
pub(crate) use grants::grants;
pub(crate) use letters::dead_letters;
pub(crate) use licences::licences;
use operation::Operation;
pub(crate) use show::{list, show};
pub(crate) use trust::{pin, trust, unpin};

impl HomeArgs {
    /// The folder: what was typed, or else the environment's.
    pub(crate) fn path(&self) -> Result<PathBuf> {
        let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let typed = self.home.clone().or_else(|| variable("QUADRIGA_HOME"));
        let data = || variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
        typed.or_else(|| Some(data()?.join("quadriga"))).ok_or_else(|| {
            let hint = "say it with --home, or set QUADRIGA_HOME";
            Advice::new("there is no folder for what is installed: HOME is not set", hint).into()
        })
    }

    /// Carries out an operation, or has the host that runs the home do it.
    pub(crate) async fn carry_out(&self, operation: Operation, output: Output) -> Result<Json> {
        let path = self.path()?;
        let home = match Home::open(&path).await {
            #[cfg(unix)]
            Err(error) if error.code == ErrorCode::HomeInUse => {
                let asked = tokio::task::spawn_blocking(move || crate::live::ask(&path, &operation)).await?;
                // Whoever has it is no host, or has just ended.
                return asked.map_err(|why| if crate::live::is_absent(&why) { error.into() } else { why });
            }
            home => home?,
        };
        let done = operation.carry_out(&home, &actor::actor(), Progress::of_home(output)).await;
        home.close().await;
        done
    }
}

/// The installed extension of an id, if that is what was typed instead of a folder. Loads what it needs,
/// with what that is granted.
pub(crate) async fn installed(
    typed: &Path,
    home: &HomeArgs,
    dispatcher: &Dispatcher,
) -> Result<Option<Installed>> {
    let Some(id) = id_of(typed) else { return Ok(None) };
    let all = Home::look(home.path()?).await?;
    let wanted = enabled(home, &id).await?;
    home::keep_data(dispatcher, home.path()?);
    let mut others = home::with_needs(&all, &id);
    others.retain(|it| it.id != id);
    // What is missing the load will say.
    match home::start(dispatcher, &others).await.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(Some(wanted)),
    }
}

/// An installed extension that may be called.
pub(crate) async fn enabled(home: &HomeArgs, id: &ExtensionId) -> Result<Installed> {
    let wanted = Home::look_at(home.path()?, id.as_str()).await?;
    if wanted.state == InstalledState::Enabled {
        return Ok(wanted);
    }
    let hint = format!("enable it first: quadriga enable {id}");
    Err(Advice::new(format!("{id} is disabled"), hint).into())
}

/// The id that was typed instead of a folder.
pub(crate) fn id_of(typed: &Path) -> Option<ExtensionId> {
    let id = typed.to_str().and_then(|text| ExtensionId::new(text).ok());
    id.filter(|_| !typed.exists())
}

/// Installs packages.
pub(crate) fn install(args: InstallArgs, output: Output) -> Result<ExitCode> {
    let InstallArgs { offers, grant, enable, needs, rehearsal, home } = args;
    let locked = locked(&offers)?;
    let packages = offers.packages()?;
    let (with_dependencies, dry_run) = (needs.with_dependencies, rehearsal.dry_run);
    let install = Operation::Install { packages, grant, enable, with_dependencies, locked, dry_run };
    told(home, install, output, show::changed)
}

/// Updates installed extensions.
pub(crate) fn update(args: UpdateArgs, output: Output) -> Result<ExitCode> {
    let UpdateArgs { offers, consent, unpin, dependents, needs, rehearsal, home } = args;
    let locked = locked(&offers)?;
    let packages = offers.packages()?;
    let (with_dependencies, with_dependents) = (needs.with_dependencies, dependents.with_dependents);
    let dry_run = rehearsal.dry_run;
    let update =
        Operation::Update { packages, consent, unpin, with_dependencies, with_dependents, locked, dry_run };
    told(home, update, output, show::changed)
}

/// The text of the lock file that was named.
fn locked(offers: &OffersArgs) -> Result<Option<String>> {
    let lock = offers.locked.as_deref().map(deps::lock).transpose()?;
    Ok(lock.map(|lock| lock.to_text()).transpose()?)
}

impl OffersArgs {
    /// The packages for whoever opens them, in whichever folder that is. All are signed by the one key that was
    /// named.
    fn packages(self) -> Result<Vec<PackageArgs>> {
        let Self { package: mut first, more, .. } = self;
        first.key = first.key.map(|key| public(&key)).transpose()?.map(|key| key.to_string());
        let key = first.key.clone();
        let other = |path| PackageArgs { path, key: key.clone(), signature: None, digest: None };
        let all = std::iter::once(first).chain(more.into_iter().map(other));
        let absolute = |PackageArgs { path, key, signature, digest }| {
            let path = std::path::absolute(path)?;
            let signature = signature.map(std::path::absolute).transpose()?;
            Ok(PackageArgs { path, key, signature, digest })
        };
        all.map(absolute).collect()
    }
}

/// Goes back to the version before.
pub(crate) fn rollback(args: GoingArgs, output: Output) -> Result<ExitCode> {
    going(args, output, |id, with_dependents, dry_run| Operation::Rollback { id, with_dependents, dry_run })
}

/// Enables an extension.
pub(crate) fn enable(args: EnableArgs, output: Output) -> Result<ExitCode> {
    let OneArgs { id, home } = args.one;
    let (with_dependencies, dry_run) = (args.needs.with_dependencies, args.rehearsal.dry_run);
    told(home, Operation::Enable { id, with_dependencies, dry_run }, output, show::changed)
}

/// Disables an extension.
pub(crate) fn disable(args: GoingArgs, output: Output) -> Result<ExitCode> {
    going(args, output, |id, with_dependents, dry_run| Operation::Disable { id, with_dependents, dry_run })
}

/// Takes an extension away.
pub(crate) fn uninstall(args: UninstallArgs, output: Output) -> Result<ExitCode> {
    let UninstallArgs { going: args, keep_data } = args;
    going(args, output, |id, with_dependents, dry_run| Operation::Uninstall {
        id,
        with_dependents,
        keep_data,
        dry_run,
    })
}

fn going(
    args: GoingArgs,
    output: Output,
    operation: impl FnOnce(String, bool, bool) -> Operation,
) -> Result<ExitCode> {
    let OneArgs { id, home } = args.one;
    let operation = operation(id, args.dependents.with_dependents, args.rehearsal.dry_run);
    told(home, operation, output, show::changed)
}

/// Grants permissions.
pub(crate) fn grant(args: PermissionArgs, output: Output) -> Result<ExitCode> {
    let PermissionArgs { id, permissions: more, home } = args;
    told(home, Operation::Grant { id, permissions: permissions(more)? }, output, held)
}

/// Takes permissions back.
pub(crate) fn revoke(args: PermissionArgs, output: Output) -> Result<ExitCode> {
    let PermissionArgs { id, permissions: gone, home } = args;
    told(home, Operation::Revoke { id, permissions: permissions(gone)? }, output, held)
}

fn held(installed: Installed) -> String {
    let held = installed.grant.beyond(&Permissions::default());
    let held = if held.is_empty() { "nothing".to_owned() } else { held.join(", ") };
    format!("{} is granted {held}", installed.id)
}

fn permissions(given: Vec<(String, Json)>) -> Result<Permissions> {
    let given: Map<String, Json> = given.into_iter().collect();
    serde_json::from_value(Json::Object(given)).map_err(|error| {
        let hint = "write them as in [permissions] of a manifest, as JSON: 'env=[\"LANG\"]'";
        Advice::new(format!("these are no permissions: {error}"), hint).into()
    })
}

/// Shows or verifies the audit trail.
pub(crate) fn audit(args: AuditArgs, output: Output) -> Result<ExitCode> {
    let AuditArgs { verify, head, home } = args;
    if !verify {
        return told(home, Operation::Audit {}, output, |entries: Vec<Entry>| show::trail(&entries));
    }
    told(home, Operation::VerifyAudit { head }, output, |audited: Audited| {
        format!("{} entries, all as they were written\n{}", audited.entries, audited.head)
    })
}

/// Has an operation carried out, and tells what came of it: as JSON as it is, or in words.
pub(crate) fn told<T: DeserializeOwned>(
    home: HomeArgs,
    operation: Operation,
    output: Output,
    words: impl FnOnce(T) -> String + Send + 'static,
) -> Result<ExitCode> {
    host::run(async move {
        let answer = home.carry_out(operation, output).await?;
        match output.json {
            true => output.value(&answer)?,
            false => output.text(&harmless(&words(serde_json::from_value(answer)?)))?,
        }
        Ok(ExitCode::SUCCESS)
    })
}
