//! The commands for what is installed.

pub(crate) mod args;
mod backup;
mod deps;
pub(crate) mod grants;
pub(crate) mod licences;
mod show;
mod trust;
pub(crate) mod trust_args;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Result;
use quadriga::Dispatcher;
use quadriga::abi::permission::Permissions;
use quadriga::abi::{Error, ErrorCode, ExtensionId};
use quadriga::home::{self, Dependents, Home, InstallOptions, Installed, InstalledState, Needs, Offer};
use quadriga::package::Package;
use serde_json::{Map, Value as Json};

use crate::args::GrantArg;
use crate::failure::Advice;
use crate::host;
use crate::output::{Output, harmless};
use crate::package::args::PackageArgs;
use crate::package::progress::Progress;
use crate::package::signed_package;
use args::{
    AuditArgs, DependentsArgs, EnableArgs, GoingArgs, HomeArgs, InstallArgs, NeedsArgs, OffersArgs,
    PermissionArgs, RehearsalArgs, UpdateArgs,
};
pub(crate) use backup::{backup, restore};
pub(crate) use deps::deps;
pub(crate) use grants::grants;
pub(crate) use licences::licences;
use show::changed;
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

    pub(crate) async fn open(&self) -> Result<Home> {
        let path = self.path()?;
        Home::open(&path).await.map_err(|error| match error.code {
            #[cfg(unix)]
            ErrorCode::HomeInUse if crate::live::runs(&path) => {
                error.with_hint("a host runs it: end that first (Ctrl-C, or SIGTERM)").into()
            }
            _ => error.into(),
        })
    }
}

impl RehearsalArgs {
    fn of(&self, home: Home) -> Home {
        if self.dry_run { home.rehearse() } else { home }
    }
}

impl GoingArgs {
    async fn home(&self) -> Result<Home> {
        Ok(self.rehearsal.of(self.one.home.open().await?))
    }
}

impl NeedsArgs {
    fn choice(&self) -> Needs {
        if self.with_dependencies { Needs::Enable } else { Needs::Refuse }
    }
}

impl DependentsArgs {
    fn choice(&self) -> Dependents {
        if self.with_dependents { Dependents::Disable } else { Dependents::Refuse }
    }

    /// Says of an error what this choice would change.
    fn advise(error: Error) -> Error {
        match error.code {
            ErrorCode::Needed => error.with_hint("--with-dependents disables them too"),
            _ => error,
        }
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
    let wanted = Home::look_at(home.path()?, id.as_str()).await?;
    if wanted.state != InstalledState::Enabled {
        let hint = format!("enable it first: quadriga enable {id}");
        return Err(Advice::new(format!("{id} is disabled"), hint).into());
    }
    let mut others = home::with_needs(&all, &id);
    others.retain(|it| it.id != id);
    // What is missing the load will say.
    match home::start(dispatcher, &others).await.into_iter().next() {
        Some((_, error)) => Err(error.into()),
        None => Ok(Some(wanted)),
    }
}

/// The id that was typed instead of a folder.
pub(crate) fn id_of(typed: &Path) -> Option<ExtensionId> {
    let id = typed.to_str().and_then(|text| ExtensionId::new(text).ok());
    id.filter(|_| !typed.exists())
}

/// Who does it, for the audit trail.
pub(crate) fn actor() -> String {
    let user = |name| std::env::var(name).ok().filter(|user| !user.is_empty());
    user("USER").or_else(|| user("LOGNAME")).unwrap_or_else(|| "unknown".to_owned())
}

/// Installs packages.
pub(crate) fn install(args: InstallArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let lock = args.offers.locked.as_deref().map(deps::lock).transpose()?;
        let offers = offers(args.offers, args.grant)?;
        let home = args.rehearsal.of(args.home.open().await?);
        let (enable, needs) = (args.enable, args.needs.choice());
        let options = InstallOptions {
            actor: actor(),
            enable,
            needs,
            lock,
            progress: Progress::of_home(output),
            ..InstallOptions::default()
        };
        changed(output, &args.rehearsal, &home.install(offers, options).await?)
    })
}

/// Opens packages. Who signed them is verified as they come in.
fn offers(args: OffersArgs, grant: GrantArg) -> Result<Vec<Offer>> {
    let OffersArgs { package: first, more, .. } = args;
    let key = first.key.clone();
    let other = |path| PackageArgs { path, key: key.clone(), signature: None, digest: None };
    let all = std::iter::once(first).chain(more.into_iter().map(other));
    all.map(|args| {
        let (package, signature, key) = signed_package(&args)?;
        let grant = requested(&package, grant)?;
        Ok(Offer { package, signature, key, grant })
    })
    .collect()
}

/// What the package itself asks for, if that is to be granted.
fn requested(package: &Package, grant: GrantArg) -> Result<Option<Permissions>> {
    Ok(match grant {
        GrantArg::None => None,
        GrantArg::Requested => {
            let (manifest, _) = package.inspect(&mut |_| quadriga::package::GO_ON)?;
            Some(manifest.permissions)
        }
    })
}

/// Updates installed extensions.
pub(crate) fn update(args: UpdateArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let lock = args.offers.locked.as_deref().map(deps::lock).transpose()?;
        let offers = offers(args.offers, GrantArg::None)?;
        let home = args.rehearsal.of(args.home.open().await?);
        let (dependents, needs) = (args.dependents.choice(), args.needs.choice());
        let (consent, unpin) = (args.consent, args.unpin);
        let options = InstallOptions {
            actor: actor(),
            consent,
            unpin,
            dependents,
            needs,
            lock,
            progress: Progress::of_home(output),
            ..InstallOptions::default()
        };
        let done = home.update(offers, options).await;
        changed(output, &args.rehearsal, &done.map_err(DependentsArgs::advise)?)
    })
}

/// Goes back to the version before.
pub(crate) fn rollback(args: GoingArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let (home, dependents) = (args.home().await?, args.dependents.choice());
        let done = home.rollback(&args.one.id, dependents, &actor()).await;
        changed(output, &args.rehearsal, &done.map_err(DependentsArgs::advise)?)
    })
}

/// Enables an extension.
pub(crate) fn enable(args: EnableArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let home = args.rehearsal.of(args.one.home.open().await?);
        let done = home.enable(&args.one.id, args.needs.choice(), &actor()).await?;
        changed(output, &args.rehearsal, &done)
    })
}

/// Disables an extension.
pub(crate) fn disable(args: GoingArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let (home, dependents) = (args.home().await?, args.dependents.choice());
        let done = home.disable(&args.one.id, dependents, &actor()).await;
        changed(output, &args.rehearsal, &done.map_err(DependentsArgs::advise)?)
    })
}

/// Takes an extension away.
pub(crate) fn uninstall(args: GoingArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let (home, dependents) = (args.home().await?, args.dependents.choice());
        let done = home.uninstall(&args.one.id, dependents, &actor()).await;
        changed(output, &args.rehearsal, &done.map_err(DependentsArgs::advise)?)
    })
}

/// Grants permissions.
pub(crate) fn grant(args: PermissionArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let more = permissions(args.permissions)?;
        let installed = args.home.open().await?.grant(args.id.as_str(), &more, &actor()).await?;
        said(output, &installed, &held(&installed))
    })
}

/// Takes permissions back.
pub(crate) fn revoke(args: PermissionArgs, output: Output) -> Result<ExitCode> {
    host::run(async move {
        let gone = permissions(args.permissions)?;
        let installed = args.home.open().await?.revoke(args.id.as_str(), &gone, &actor()).await?;
        said(output, &installed, &held(&installed))
    })
}

fn held(installed: &Installed) -> String {
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
    host::run(async move {
        let home = args.home.open().await?;
        if args.verify {
            let audited = home.verify_audit(args.head.as_deref()).await?;
            if output.json {
                return output.value(&audited).map(|()| ExitCode::SUCCESS);
            }
            let text = format!("{} entries, all as they were written\n{}", audited.entries, audited.head);
            return output.text(&text).map(|()| ExitCode::SUCCESS);
        }
        let entries = home.audit().await?;
        if output.json {
            return output.value(&entries).map(|()| ExitCode::SUCCESS);
        }
        output.text(&show::trail(&entries)).map(|()| ExitCode::SUCCESS)
    })
}

fn said(output: Output, installed: &Installed, text: &str) -> Result<ExitCode> {
    match output.json {
        true => output.value(installed)?,
        false => output.text(&harmless(text))?,
    }
    Ok(ExitCode::SUCCESS)
}
