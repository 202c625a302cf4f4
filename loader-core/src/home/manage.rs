//! What an operator does to what is installed.

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId};
use serde_json::{Value as Json, json};
use sqlx::SqliteConnection;

use super::audit::{self, Act};
use super::packages::requested;
use super::{Home, Installed, InstalledState, commit, fault, find, store};

/// What becomes of those that need an extension that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dependents {
    /// It does not go as long as there are any.
    Refuse,
    /// They are disabled with it.
    Disable,
}

impl Home {
    /// Has hosts load an extension.
    ///
    /// # Errors
    /// `not_installed`; `missing_dependency`, if what it needs is not enabled, with what that is.
    pub async fn enable(&self, id: &str, actor: &str) -> Result<Installed, Error> {
        let all = self.list().await?;
        let installed = find(all.clone(), id)?;
        let enabled = |id: &ExtensionId| {
            all.iter().find(|it| it.id == *id && it.state == InstalledState::Enabled).map(|it| &it.current)
        };
        let manifest = &installed.current.manifest;
        let missing = manifest.dependencies.iter().filter(|(id, dependency)| {
            enabled(id).is_none_or(|there| !dependency.version.0.matches(&there.version))
        });
        let missing: Vec<String> =
            missing.map(|(id, dependency)| format!("{id} {}", dependency.version)).collect();
        if !missing.is_empty() {
            let message = format!("{id} needs {}", missing.join(" and "));
            let hint = "install and enable that first";
            return Err(Error::new(ErrorCode::MissingDependency, message).with_hint(hint));
        }
        let enabled = Installed { state: InstalledState::Enabled, ..installed };
        self.change(std::slice::from_ref(&enabled), actor, "enable", |_| Json::Null).await?;
        Ok(enabled)
    }

    /// Has hosts leave an extension alone. Gives all that was disabled, those that need others first.
    ///
    /// # Errors
    /// `not_installed`; `needed`, if others that are enabled need it, with who they are.
    pub async fn disable(
        &self,
        id: &str,
        dependents: Dependents,
        actor: &str,
    ) -> Result<Vec<Installed>, Error> {
        let disabled = self.going(id, dependents).await?;
        self.change(&disabled, actor, "disable", |it| because(it, id)).await?;
        Ok(disabled)
    }

    /// An extension as it is once disabled, after those that need it.
    async fn going(&self, id: &str, dependents: Dependents) -> Result<Vec<Installed>, Error> {
        let all = self.list().await?;
        let installed = find(all.clone(), id)?;
        let going = with_dependents(&all, installed);
        refuse(&going, dependents)?;
        let off = |it: Installed| Installed { state: InstalledState::Disabled, ..it };
        Ok(going.into_iter().map(off).collect())
    }

    /// Goes back to the version before; a second time, to the one after it again.
    ///
    /// # Errors
    /// `not_installed`, also if there is none before.
    pub async fn rollback(&self, id: &str, actor: &str) -> Result<Installed, Error> {
        let before = self.show(id).await?;
        let Some(previous) = before.previous else {
            let message = format!("{id} {} has no version before it", before.current.version);
            return Err(Error::new(ErrorCode::NotInstalled, message));
        };
        let grant = before.grant.intersect(&previous.manifest.permissions);
        let after = Installed { grant, current: previous, previous: Some(before.current), ..before };
        let detail = |it: &Installed| json!({ "version": it.current.version, "grant": it.grant });
        self.change(std::slice::from_ref(&after), actor, "rollback", detail).await?;
        Ok(after)
    }

    /// Takes an extension away with all its versions. Gives those that needed it and were disabled.
    ///
    /// # Errors
    /// As for [`Home::disable`].
    pub async fn uninstall(
        &self,
        id: &str,
        dependents: Dependents,
        actor: &str,
    ) -> Result<Vec<Installed>, Error> {
        let mut going = self.going(id, dependents).await?;
        let Some(installed) = going.pop() else { return Ok(going) };
        let detail = json!({ "version": installed.current.version });
        let mut transaction = self.begin().await?;
        write(&mut transaction, &going, actor, "disable", |it| because(it, id)).await?;
        store::delete(&mut transaction, &installed.id).await?;
        fault::point("without its rows");
        let act = Act { actor, action: "uninstall", extension: id, detail };
        audit::write(&mut transaction, act).await?;
        commit(transaction).await?;
        self.clear().await?;
        Ok(going)
    }

    /// Grants an extension more of what its manifest asks for.
    ///
    /// # Errors
    /// `not_installed`, or `permission_denied`, if it does not ask for that.
    pub async fn grant(&self, id: &str, more: &Permissions, actor: &str) -> Result<Installed, Error> {
        let before = self.show(id).await?;
        requested(&before.id, more, &before.current.manifest)?;
        let after = Installed { grant: before.grant.union(more), ..before };
        let detail = |it: &Installed| json!({ "granted": more, "grant": it.grant });
        self.change(std::slice::from_ref(&after), actor, "grant", detail).await?;
        Ok(after)
    }

    /// Takes back what an extension was granted.
    ///
    /// # Errors
    /// `not_installed`, or `invalid_arguments`, if it holds an entry that covers more than that.
    pub async fn revoke(&self, id: &str, gone: &Permissions, actor: &str) -> Result<Installed, Error> {
        let before = self.show(id).await?;
        let grant = before.grant.without(gone).map_err(|wider| {
            let message = format!("{id} holds {}, which covers more than is to be revoked", wider.join(", "));
            Error::new(ErrorCode::InvalidArguments, message)
                .with_hint("revoke that as a whole, and grant what may stay")
        })?;
        let after = Installed { grant, ..before };
        let detail = |it: &Installed| json!({ "revoked": gone, "grant": it.grant });
        self.change(std::slice::from_ref(&after), actor, "revoke", detail).await?;
        Ok(after)
    }

    /// Writes rows anew in a transaction of their own.
    async fn change(
        &self,
        rows: &[Installed],
        actor: &str,
        action: &str,
        detail: impl Fn(&Installed) -> Json + Send,
    ) -> Result<(), Error> {
        let mut transaction = self.begin().await?;
        write(&mut transaction, rows, actor, action, detail).await?;
        commit(transaction).await
    }
}

/// Writes rows anew, with an entry of the audit trail for each.
async fn write(
    connection: &mut SqliteConnection,
    rows: &[Installed],
    actor: &str,
    action: &str,
    detail: impl Fn(&Installed) -> Json,
) -> Result<(), Error> {
    for row in rows {
        store::put(&mut *connection, row).await?;
        fault::point("with a row");
        let act = Act { actor, action, extension: row.id.as_str(), detail: detail(row) };
        audit::write(&mut *connection, act).await?;
    }
    Ok(())
}

/// For the sake of which other one it is disabled.
fn because(it: &Installed, id: &str) -> Json {
    match it.id.as_str() == id {
        true => Json::Null,
        false => json!({ "with": id }),
    }
}

/// An extension after all that are enabled and need it, directly or not.
fn with_dependents(all: &[Installed], last: Installed) -> Vec<Installed> {
    let mut going = vec![last];
    let mut next = 0;
    while let Some(needed) = going.get(next).map(|it| it.id.clone()) {
        let needs = |it: &&Installed| {
            it.state == InstalledState::Enabled && it.current.manifest.dependencies.contains_key(&needed)
        };
        for dependent in all.iter().filter(needs) {
            if !going.iter().any(|it| it.id == dependent.id) {
                going.push(dependent.clone());
            }
        }
        next += 1;
    }
    going.reverse();
    going
}

fn refuse(going: &[Installed], dependents: Dependents) -> Result<(), Error> {
    let Some((last, others)) = going.split_last() else { return Ok(()) };
    if others.is_empty() || dependents == Dependents::Disable {
        return Ok(());
    }
    let ids: Vec<&str> = others.iter().map(|it| it.id.as_str()).collect();
    let message = format!("{} need {}", ids.join(", "), last.id);
    Err(Error::new(ErrorCode::Needed, message).with_hint("disable these first, or with it"))
}
