//! What an operator does to what is installed.

use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode};
use serde_json::{Value as Json, json};
use sqlx::SqliteConnection;

use super::audit::{self, Act};
use super::graph::settle;
use super::packages::requested;
use super::{Home, Installed, InstalledState, Updated, commit, fault, find, store};

/// What becomes of those that need an extension that goes, or is to be another version that does not fit
/// them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Dependents {
    /// It does not go as long as there are any.
    #[default]
    Refuse,
    /// They are disabled with it.
    Disable,
}

impl Home {
    /// Has hosts load an extension.
    ///
    /// # Errors
    /// `not_installed`; `missing_dependency` or `dependency_cycle`, if it could not start among those that
    /// are enabled, with the reason.
    pub async fn enable(&self, id: &str, actor: &str) -> Result<Installed, Error> {
        let (mut transaction, all) = self.begin().await?;
        let enabled = Installed { state: InstalledState::Enabled, ..find(&all, id)? };
        settle(&all, std::slice::from_ref(&enabled), Dependents::Refuse)?;
        write(&mut transaction, std::slice::from_ref(&enabled), actor, "enable", |_| Json::Null).await?;
        commit(transaction).await?;
        Ok(enabled)
    }

    /// Has hosts leave an extension alone. Gives all that was disabled, those that need others first.
    ///
    /// # Errors
    /// `not_installed`; `needed`, if others that are enabled need it, with who they are and what they
    /// need.
    pub async fn disable(
        &self,
        id: &str,
        dependents: Dependents,
        actor: &str,
    ) -> Result<Vec<Installed>, Error> {
        let (mut transaction, all) = self.begin().await?;
        let disabled = going(&all, id, dependents)?;
        write(&mut transaction, &disabled, actor, "disable", |it| because(it, id)).await?;
        commit(transaction).await?;
        Ok(disabled)
    }

    /// Goes back to the version before; a second time, to the one after it again.
    ///
    /// # Errors
    /// `not_installed`, also if there is none before; if it is enabled, `missing_dependency` or
    /// `dependency_cycle`, if that version could not start, and `needed`, if others that are enabled need
    /// the present one.
    pub async fn rollback(&self, id: &str, dependents: Dependents, actor: &str) -> Result<Updated, Error> {
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        let Some(previous) = before.previous else {
            let message = format!("{id} {} has no version before it", before.current.version);
            return Err(Error::new(ErrorCode::NotInstalled, message));
        };
        let from = before.current.version.clone();
        let wider = previous.manifest.permissions.beyond(&before.current.manifest.permissions);
        let grant = before.grant.intersect(&previous.manifest.permissions);
        let installed = Installed { grant, current: previous, previous: Some(before.current), ..before };
        let disabled = settle(&all, std::slice::from_ref(&installed), dependents)?;
        write(&mut transaction, &disabled, actor, "disable", |it| because(it, id)).await?;
        let detail = |it: &Installed| json!({ "version": it.current.version, "grant": it.grant });
        write(&mut transaction, std::slice::from_ref(&installed), actor, "rollback", detail).await?;
        commit(transaction).await?;
        Ok(Updated { from, wider, installed, disabled })
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
        let _files = self.files.lock().await;
        let (mut transaction, all) = self.begin().await?;
        let mut going = going(&all, id, dependents)?;
        let Some(installed) = going.pop() else { return Ok(going) };
        let detail = json!({ "version": installed.current.version });
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
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        requested(&before.id, more, &before.current.manifest)?;
        let after = Installed { grant: before.grant.union(more), ..before };
        let detail = |it: &Installed| json!({ "granted": more, "grant": it.grant });
        write(&mut transaction, std::slice::from_ref(&after), actor, "grant", detail).await?;
        commit(transaction).await?;
        Ok(after)
    }

    /// Takes back what an extension was granted.
    ///
    /// # Errors
    /// `not_installed`, or `invalid_arguments`, if it holds an entry that covers more than that.
    pub async fn revoke(&self, id: &str, gone: &Permissions, actor: &str) -> Result<Installed, Error> {
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        let grant = before.grant.without(gone).map_err(|wider| {
            let message = format!("{id} holds {}, which covers more than is to be revoked", wider.join(", "));
            Error::new(ErrorCode::InvalidArguments, message)
                .with_hint("revoke that as a whole, and grant what may stay")
        })?;
        let after = Installed { grant, ..before };
        let detail = |it: &Installed| json!({ "revoked": gone, "grant": it.grant });
        write(&mut transaction, std::slice::from_ref(&after), actor, "revoke", detail).await?;
        commit(transaction).await?;
        Ok(after)
    }
}

/// Writes rows anew, with an entry of the audit trail for each.
pub(super) async fn write(
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
pub(super) fn because(it: &Installed, id: &str) -> Json {
    match it.id.as_str() == id {
        true => Json::Null,
        false => json!({ "with": id }),
    }
}

/// An extension as it is once disabled, after those that need it.
fn going(all: &[Installed], id: &str, dependents: Dependents) -> Result<Vec<Installed>, Error> {
    let off = Installed { state: InstalledState::Disabled, ..find(all, id)? };
    let mut going = settle(all, std::slice::from_ref(&off), dependents)?;
    going.push(off);
    Ok(going)
}
