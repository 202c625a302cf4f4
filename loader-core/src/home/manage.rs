//! What an operator does to what is installed.

use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode};
use serde_json::json;
use sqlx::{Sqlite, Transaction};

use super::audit::{self, Act};
use super::change::{Came, Changes, Dependents, Needs, because, choose_among, ids, in_order, settle, write};
use super::licenses::{accepted, denied};
use super::packages::requested;
use super::{Differences, Home, Installed, InstalledState, fault, find, store};
use crate::config::{Configuration, Origin, Settings, settings_from_environment};
use crate::{Grant, LoadOptions};

impl Installed {
    /// How a host loads it: with what it is granted, as isolated as its level of trust demands, and with the
    /// settings that its home keeps, below those of the environment.
    ///
    /// # Errors
    /// As for [`Installed::permitted`] and [`Configuration::resolve`].
    pub fn load_options(&self) -> Result<LoadOptions, Error> {
        let manifest = &self.current.manifest;
        let variable = |name: &str| std::env::var(name).ok();
        let kept = [(Origin::Home, self.config.clone())].into_iter();
        let layers = kept.chain(settings_from_environment(manifest, variable)?);
        let config = Configuration::resolve(manifest, layers)?.values();
        Ok(LoadOptions { config, ..self.permitted()? })
    }

    /// The same without settings.
    ///
    /// # Errors
    /// `not_trusted`, if the policy of the home wants it signed by somebody that is trusted.
    pub fn permitted(&self) -> Result<LoadOptions, Error> {
        self.current.admitted(&self.id)?;
        let grant = Grant::Only(Box::new(self.effective_grant()));
        let isolation = Some(self.current.terms.isolation);
        Ok(LoadOptions { grant, isolation, ..LoadOptions::default() })
    }

    /// Whether it may be another version, as far as it is pinned.
    pub(super) fn may_become(&self, version: &semver::Version, unpin: bool) -> Result<(), Error> {
        match &self.pinned {
            Some(pinned) if !unpin && pinned != version => {
                let message = format!("{} is pinned to {pinned}, and does not become {version}", self.id);
                Err(Error::new(ErrorCode::Pinned, message).with_hint(format!("quadriga unpin {}", self.id)))
            }
            _ => Ok(()),
        }
    }
}

impl Home {
    /// Has hosts load an extension, and what it needs, if that is asked for.
    ///
    /// # Errors
    /// `not_installed`; `incompatible_version`, if it is not for this host; `missing_dependency` or
    /// `dependency_cycle`, if it could not start among those that are enabled, with the reason;
    /// `license_denied`, if the policy on licences denies a part of it or of what is enabled with it.
    pub async fn enable(&self, id: &str, needs: Needs, actor: &str) -> Result<Changes, Error> {
        let (mut transaction, all) = self.begin().await?;
        let one = find(&all, id)?;
        let mut on = vec![&one];
        let rows: Vec<&Installed> = all.iter().collect();
        if needs == Needs::Enable {
            let off = all.iter().filter(|it| it.state == InstalledState::Disabled);
            let denied = denied(&mut transaction, off).await?;
            let chosen = choose_among(&all, &rows, &denied, &[&one.id], needs, Dependents::Refuse)?;
            let others = chosen.into_iter().map(|place| rows[place]);
            on.extend(others.filter(|it| it.state == InstalledState::Disabled && it.id != one.id));
        }
        let on: Vec<Installed> =
            on.into_iter().map(|it| Installed { state: InstalledState::Enabled, ..it.clone() }).collect();
        settle(&all, &on, Dependents::Refuse)?;
        accepted(&mut transaction, on.clone()).await?;
        let on = in_order(&all, &on, on.clone());
        write(&mut transaction, &on, actor, "enable", |it| because(it, id)).await?;
        self.commit(transaction, &all).await?;
        Ok(Changes { enabled: ids(&on), ..Changes::default() })
    }

    /// Has hosts leave an extension alone.
    ///
    /// # Errors
    /// `not_installed`; `needed`, if others that are enabled need it, with who they are and what they
    /// need.
    pub async fn disable(&self, id: &str, dependents: Dependents, actor: &str) -> Result<Changes, Error> {
        let (mut transaction, all) = self.begin().await?;
        let disabled = going(&all, id, dependents)?;
        write(&mut transaction, &disabled, actor, "disable", |it| because(it, id)).await?;
        self.commit(transaction, &all).await?;
        Ok(Changes { disabled: ids(&disabled), ..Changes::default() })
    }

    /// Goes back to the version before; a second time, to the one after it again.
    ///
    /// # Errors
    /// `not_installed`, also if there is none before; `pinned`, if it is pinned to another one; if it is
    /// enabled, `missing_dependency` or `dependency_cycle`, if that version could not start, and `needed`, if
    /// others that are enabled need the present one; `license_denied`, if the policy on licences denies a part
    /// of that version.
    pub async fn rollback(&self, id: &str, dependents: Dependents, actor: &str) -> Result<Changes, Error> {
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        let Some(previous) = before.previous.clone() else {
            let message = format!("{id} {} has no version before it", before.current.version);
            return Err(Error::new(ErrorCode::NotInstalled, message));
        };
        before.may_become(&previous.version, false)?;
        takes(&previous.manifest, &before.config)?;
        let differs = Differences::between(&before.current, &previous);
        let from = before.current.version.clone();
        let wider = previous.manifest.permissions.beyond(&before.current.manifest.permissions);
        let grant = previous.terms.cut(&before.grant.intersect(&previous.manifest.permissions));
        let installed = Installed { grant, current: previous, previous: Some(before.current), ..before };
        let disabled = settle(&all, std::slice::from_ref(&installed), dependents)?;
        accepted(&mut transaction, vec![installed.clone()]).await?;
        write(&mut transaction, &disabled, actor, "disable", |it| because(it, id)).await?;
        let detail = |it: &Installed| json!({ "version": it.current.version, "grant": it.grant });
        write(&mut transaction, std::slice::from_ref(&installed), actor, "rollback", detail).await?;
        self.commit(transaction, &all).await?;
        let came = vec![Came { from: Some(from), wider, differs, installed }];
        Ok(Changes { came, disabled: ids(&disabled), ..Changes::default() })
    }

    /// Takes an extension away with all its versions, with the events that are kept for it, and with what it keeps
    /// in the key-value store unless that is to stay ([`Home::keep_data`]).
    ///
    /// # Errors
    /// As for [`Home::disable`].
    pub async fn uninstall(&self, id: &str, dependents: Dependents, actor: &str) -> Result<Changes, Error> {
        let _files = self.files.lock().await;
        let (mut transaction, all) = self.begin().await?;
        let mut going = going(&all, id, dependents)?;
        let Some(installed) = going.pop() else { return Ok(Changes::default()) };
        let detail = json!({ "version": installed.current.version });
        write(&mut transaction, &going, actor, "disable", |it| because(it, id)).await?;
        store::delete(&mut transaction, &installed.id).await?;
        if !self.keeps_data {
            store::put_leaving(&mut transaction, &installed.id).await?;
        }
        fault::point("without its rows");
        let act = Act { actor, action: "uninstall", extension: id, detail };
        audit::write(&mut transaction, act).await?;
        self.commit(transaction, &all).await?;
        if !self.rehearsal {
            self.events.forget(&installed.id).await?;
            self.clear().await?;
        }
        Ok(Changes { disabled: ids(&going), uninstalled: vec![installed.id], ..Changes::default() })
    }

    /// Grants an extension more of what its manifest asks for.
    ///
    /// # Errors
    /// `not_installed`, or `permission_denied`, if it does not ask for that, or its level of trust does not
    /// let it have that.
    pub async fn grant(&self, id: &str, more: &Permissions, actor: &str) -> Result<Installed, Error> {
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        requested(&before.id, more, &before.current.manifest)?;
        before.current.grantable(&before.id, more)?;
        let after = Installed { grant: before.grant.union(more), ..before };
        let detail = |it: &Installed| json!({ "granted": more, "grant": it.grant });
        write(&mut transaction, std::slice::from_ref(&after), actor, "grant", detail).await?;
        self.commit(transaction, &all).await?;
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
        self.commit(transaction, &all).await?;
        Ok(after)
    }

    /// Keeps an extension at a version: it is updated to that one and to no other. `None` is the one that is in
    /// use.
    ///
    /// # Errors
    /// `not_installed`.
    pub async fn pin(
        &self,
        id: &str,
        version: Option<semver::Version>,
        actor: &str,
    ) -> Result<Installed, Error> {
        let (transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        let pinned = Some(version.unwrap_or_else(|| before.current.version.clone()));
        self.keep_at(transaction, &all, Installed { pinned, ..before }, actor, "pin").await
    }

    /// Keeps an extension at no version any more.
    ///
    /// # Errors
    /// `not_installed`.
    pub async fn unpin(&self, id: &str, actor: &str) -> Result<Installed, Error> {
        let (transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        self.keep_at(transaction, &all, Installed { pinned: None, ..before }, actor, "unpin").await
    }

    async fn keep_at(
        &self,
        mut transaction: Transaction<'static, Sqlite>,
        all: &[Installed],
        after: Installed,
        actor: &str,
        action: &str,
    ) -> Result<Installed, Error> {
        let detail = |it: &Installed| json!({ "version": it.pinned });
        write(&mut transaction, std::slice::from_ref(&after), actor, action, detail).await?;
        self.commit(transaction, all).await?;
        Ok(after)
    }

    /// Keeps settings for an extension, and forgets others. Hosts give them to it when they load it.
    ///
    /// # Errors
    /// `not_installed`, or `invalid_config`, if one does not fit the schema. What the schema requires may
    /// still be missing here.
    pub async fn configure(
        &self,
        id: &str,
        set: Settings,
        unset: &[String],
        actor: &str,
    ) -> Result<Installed, Error> {
        let (mut transaction, all) = self.begin().await?;
        let before = find(&all, id)?;
        let detail = json!({ "set": set.keys().collect::<Vec<_>>(), "unset": unset });
        let mut config = before.config.clone();
        config.retain(|name, _| !unset.contains(name));
        config.extend(set);
        takes(&before.current.manifest, &config)?;
        let after = Installed { config, ..before };
        write(&mut transaction, std::slice::from_ref(&after), actor, "configure", |_| detail.clone()).await?;
        self.commit(transaction, &all).await?;
        Ok(after)
    }
}

/// An extension as it is once disabled, after those that need it.
fn going(all: &[Installed], id: &str, dependents: Dependents) -> Result<Vec<Installed>, Error> {
    let off = Installed { state: InstalledState::Disabled, ..find(all, id)? };
    let mut going = settle(all, std::slice::from_ref(&off), dependents)?;
    going.push(off);
    Ok(going)
}

/// What is kept for an extension fits the schema of its manifest.
pub(super) fn takes(manifest: &Manifest, config: &Settings) -> Result<(), Error> {
    Configuration::resolve_in_part(manifest, [(Origin::Home, config.clone())]).map(drop)
}
