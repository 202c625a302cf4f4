//! Whom an operator trusts, how far, and what comes of that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, SystemTime};

use quadriga_abi::limits::Span;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, ExtensionId, Isolation};
use quadriga_package::{PublicKey, Signature, SignatureError};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};

use super::audit::{self, Act};
use super::{Home, Installed, InstalledVersion, store};

/// How far the signer of a version is trusted, the least first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TrustLevel {
    /// Nobody signed it whose key the home keeps.
    #[default]
    Untrusted,
    /// The publisher is known, and no more.
    Low,
    /// The publisher has done well so far.
    Medium,
    /// The publisher is trusted like the makers of the host.
    High,
    /// Its publisher is, and somebody has looked at who that is.
    Verified,
}

/// What holds for the versions of one level of trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Terms {
    /// The weakest isolation that they run in.
    pub isolation: Isolation,
    /// The permissions that they may be granted at all, by their names in the manifest; `None` for all.
    pub permissions: Option<BTreeSet<String>>,
    /// Whether they have to be signed: by a key that the home keeps, or one that was named when they were
    /// installed.
    pub signature: bool,
    /// How long ago they have to have been signed. What has no time of that is refused.
    pub minimum_release_age: Option<Span>,
}

/// The terms of each level.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TrustPolicy(BTreeMap<TrustLevel, Terms>);

/// A key that an operator trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct TrustedKey {
    /// The key: the second line of its file.
    pub key: String,
    /// Its name: 16 hexadecimal digits.
    pub id: String,
    /// Whose extensions it signs: the first part of their ids.
    pub publisher: String,
    /// How far it is trusted.
    pub level: TrustLevel,
    /// Since when.
    pub added_at: SystemTime,
}

/// What is known about the signature of a version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Signed {
    /// The key that it was signed with, if that was verified.
    pub key: Option<String>,
    /// Whether the key was named for this version alone.
    pub once: bool,
    /// When, as the signer says in the comment that is signed too.
    pub at: Option<SystemTime>,
}

impl TrustLevel {
    /// All of them, the least first.
    pub const ALL: [Self; 5] = [Self::Untrusted, Self::Low, Self::Medium, Self::High, Self::Verified];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Verified => "verified",
        }
    }
}

impl fmt::Display for TrustLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for TrustLevel {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == text);
        found.ok_or_else(|| {
            format!("{text:?} is no level: expected {}", Self::ALL.map(Self::as_str).join(", "))
        })
    }
}

/// Permissions that reach furthest: other programs, and what is secret.
const FAR: [&str; 3] = ["subprocess", "secrets", "sensitive"];

impl Terms {
    /// What holds for a level where nobody has said anything else.
    pub fn of(level: TrustLevel) -> Self {
        let all_but = |held: &[&str]| {
            let names = Permissions::NAMES.into_iter().filter(|name| !held.contains(name));
            Some(names.map(str::to_owned).collect())
        };
        let permissions = match level {
            TrustLevel::Untrusted => all_but(&FAR),
            TrustLevel::Low => all_but(&FAR[..1]),
            _ => None,
        };
        let isolation = match level {
            TrustLevel::High | TrustLevel::Verified => Isolation::None,
            _ => Isolation::InProcess,
        };
        Self { isolation, permissions, signature: false, minimum_release_age: None }
    }

    /// The permissions among some that may not be granted, by their names.
    fn withheld<'a>(&'a self, asked: &'a Permissions) -> impl Iterator<Item = &'static str> + 'a {
        asked.requested().filter(|name| self.permissions.as_ref().is_some_and(|may| !may.contains(*name)))
    }

    /// What may be granted of some permissions.
    pub fn cut(&self, asked: &Permissions) -> Permissions {
        asked.only(|name| self.permissions.as_ref().is_none_or(|may| may.contains(name)))
    }
}

impl Default for TrustPolicy {
    fn default() -> Self {
        Self(TrustLevel::ALL.into_iter().map(|level| (level, Terms::of(level))).collect())
    }
}

impl TrustPolicy {
    /// What holds for a level.
    pub fn terms(&self, level: TrustLevel) -> Terms {
        self.0.get(&level).cloned().unwrap_or_else(|| Terms::of(level))
    }

    pub(super) fn set(&mut self, level: TrustLevel, terms: Terms) {
        self.0.insert(level, terms);
    }
}

/// Whom a home trusts, and what holds for them.
#[derive(Debug, Clone, Default)]
pub(super) struct Trust {
    pub(super) keys: Vec<TrustedKey>,
    pub(super) policy: TrustPolicy,
}

impl Trust {
    /// How far the signer of an extension's version is trusted.
    pub(super) fn level(&self, id: &ExtensionId, signed: &Signed) -> TrustLevel {
        let trusted = self.keys.iter().find(|it| Some(&it.key) == signed.key.as_ref());
        trusted.filter(|it| it.publisher == id.publisher()).map(|it| it.level).unwrap_or_default()
    }

    /// Whose extensions a key signs.
    pub(super) fn binds(&self, id: &ExtensionId, signed: &Signed) -> Result<(), Error> {
        let bound = self.keys.iter().find(|it| Some(&it.key) == signed.key.as_ref());
        match bound.filter(|it| it.publisher != id.publisher()) {
            None => Ok(()),
            Some(key) => {
                let message =
                    format!("{id} is signed with {}, which is the key of {}", key.id, key.publisher);
                let hint = format!("get it from {}, and find out who signed this", id.publisher());
                Err(Error::new(ErrorCode::NotTrusted, message).with_hint(hint))
            }
        }
    }

    /// Verifies a signature with a key that was named, or else with the one of the home that made it.
    pub(super) fn verify(
        &self,
        package: &quadriga_package::Package,
        signature: Option<&Signature>,
        named: Option<&PublicKey>,
    ) -> Result<Signed, Error> {
        let invalid = super::packages::invalid;
        let Some(signature) = signature else {
            return match named {
                Some(_) => Err(invalid(quadriga_package::Error::NotSigned)),
                None => Ok(Signed::default()),
            };
        };
        let at = signed_at(signature.trusted_comment());
        if let Some(key) = named {
            package.verify(signature, key).map_err(invalid)?;
            let key = key.to_string();
            let once = !self.keys.iter().any(|it| it.key == key);
            return Ok(Signed { key: Some(key), once, at });
        }
        let id = signature.key_id();
        let mut why = None;
        for trusted in self.keys.iter().filter(|it| it.id == id) {
            let key: PublicKey =
                trusted.key.parse().map_err(|error: SignatureError| invalid(error.into()))?;
            match package.verify(signature, &key) {
                Ok(()) => return Ok(Signed { key: Some(trusted.key.clone()), once: false, at }),
                Err(error) => why = Some(invalid(error)),
            }
        }
        Err(why.unwrap_or_else(|| {
            let message = format!("it is signed with {id}, which is no key that this home trusts");
            let hint = "name the publisher's key with --key, or add it: quadriga trust add";
            Error::new(ErrorCode::NotTrusted, message).with_hint(hint)
        }))
    }
}

/// When something was signed, as minisign writes it into the comment that it signs too: `timestamp:SECONDS`.
fn signed_at(comment: &str) -> Option<SystemTime> {
    let seconds = comment.split_whitespace().find_map(|word| word.strip_prefix("timestamp:"))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds.parse().ok()?))
}

impl InstalledVersion {
    /// Whether it may be there and run, on the terms of its level.
    pub(super) fn admitted(&self, id: &ExtensionId) -> Result<(), Error> {
        let signed = self.trust > TrustLevel::Untrusted || self.signed.once;
        if signed || !self.terms.signature {
            return Ok(());
        }
        let version = &self.version;
        let why = match &self.signer {
            Some(key) => format!("is signed with {key}, which is no key that this home trusts"),
            None => "is not signed".to_owned(),
        };
        let hint = "the policy of the home wants signatures: name the publisher's key, or trust it";
        Err(Error::new(ErrorCode::NotTrusted, format!("{id} {version} {why}")).with_hint(hint))
    }

    /// Whether it was signed long enough ago.
    pub(super) fn is_ripe(&self, id: &ExtensionId, now: SystemTime) -> Result<(), Error> {
        let Some(Span(age)) = self.terms.minimum_release_age else { return Ok(()) };
        let (version, wanted) = (&self.version, Span(age));
        let refused = |why: String, hint: &str| {
            let message = format!("{id} {version} {why}; the policy of the home wants {wanted}");
            Err(Error::new(ErrorCode::ReleaseTooNew, message).with_hint(hint))
        };
        match self.signed.at {
            None => refused(
                "has no verified time of its release".to_owned(),
                "have it signed, with `timestamp:SECONDS` in the comment, as `quadriga sign` does",
            ),
            Some(at) if at.checked_add(age).is_none_or(|ripe| ripe > now) => {
                let at = humantime::format_rfc3339_seconds(at);
                refused(format!("was signed at {at}"), "wait, or change the policy: quadriga trust policy")
            }
            Some(_) => Ok(()),
        }
    }

    /// Whether some permissions may be granted to it at all.
    pub(super) fn grantable(&self, id: &ExtensionId, asked: &Permissions) -> Result<(), Error> {
        let withheld: Vec<&str> = self.terms.withheld(asked).collect();
        if withheld.is_empty() {
            return Ok(());
        }
        let (level, what) = (self.trust, withheld.join(", "));
        let message = format!("{id} cannot be granted {what}: its trust level is {level}");
        let hint = "trust its publisher's key further, or change the policy: quadriga trust policy";
        Err(Error::new(ErrorCode::PermissionDenied, message).with_hint(hint))
    }
}

impl Home {
    /// Trusts a key: what its owner signs under the ids of a publisher has a level from now on, what is
    /// installed too. Once more, it changes the level.
    ///
    /// # Errors
    /// `invalid_arguments`, if no ids begin with that name, the level is `untrusted`, or the key is that of
    /// another publisher; `store_failed`.
    pub async fn trust(
        &self,
        key: &PublicKey,
        publisher: &str,
        level: TrustLevel,
        actor: &str,
    ) -> Result<TrustedKey, Error> {
        let wrong = |message: String, hint: &str| {
            Err(Error::new(ErrorCode::InvalidArguments, message).with_hint(hint))
        };
        if ExtensionId::new(format!("{publisher}.x")).is_err() {
            let hint = "it is what the ids of its extensions begin with: acme of acme.hello";
            return wrong(format!("{publisher:?} is no name of a publisher"), hint);
        }
        if level == TrustLevel::Untrusted {
            return wrong("a key that is kept is trusted".to_owned(), "remove it: quadriga trust remove");
        }
        let (mut transaction, all) = self.begin().await?;
        let trust = store::trust(&mut transaction).await?;
        let trusted = TrustedKey {
            key: key.to_string(),
            id: key.id(),
            publisher: publisher.to_owned(),
            level,
            added_at: store::time(store::millis(SystemTime::now())),
        };
        let other = trust.keys.iter().find(|it| it.key == trusted.key && it.publisher != publisher);
        if let Some(other) = other {
            let message = format!("{} is the key of {}", other.id, other.publisher);
            return wrong(message, "a key signs for one publisher: remove it there first");
        }
        store::put_key(&mut transaction, &trusted).await?;
        let detail = json!({ "key": trusted.key, "id": trusted.id, "level": level });
        self.record(&mut transaction, actor, "trust", &format!("{publisher}.*"), detail).await?;
        self.commit(transaction, &all).await?;
        Ok(trusted)
    }

    /// Trusts a key no more, by the key or its name. What it signed is untrusted from now on, with what the
    /// policy says of that: at the next start, and for what is granted at once. Gives the key, and what is
    /// installed that it signed.
    ///
    /// # Errors
    /// `invalid_arguments`, if no such key is trusted, or several have that name.
    pub async fn distrust(&self, key: &str, actor: &str) -> Result<(TrustedKey, Vec<ExtensionId>), Error> {
        let (mut transaction, all) = self.begin().await?;
        let trust = store::trust(&mut transaction).await?;
        let named: Vec<&TrustedKey> =
            trust.keys.iter().filter(|it| it.key == key || it.id.eq_ignore_ascii_case(key)).collect();
        let [gone] = named[..] else {
            let how = if named.is_empty() { "is no key that this home trusts" } else { "names several keys" };
            let error = Error::new(ErrorCode::InvalidArguments, format!("{key} {how}"));
            return Err(error.with_hint("`quadriga trust list` shows them"));
        };
        store::delete_key(&mut transaction, &gone.key).await?;
        let signed = all.iter().filter(|it| it.current.signed.key.as_ref() == Some(&gone.key));
        let signed: Vec<ExtensionId> = signed.map(|it| it.id.clone()).collect();
        let detail = json!({ "key": gone.key, "id": gone.id, "signed": signed });
        self.record(&mut transaction, actor, "distrust", &format!("{}.*", gone.publisher), detail).await?;
        self.commit(transaction, &all).await?;
        Ok((gone.clone(), signed))
    }

    /// The keys that are trusted, by publisher.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn trusted(&self) -> Result<Vec<TrustedKey>, Error> {
        Ok(store::trust(&mut *self.connection().await?).await?.keys)
    }

    /// What holds for each level of trust.
    ///
    /// # Errors
    /// `store_failed`.
    pub async fn trust_policy(&self) -> Result<TrustPolicy, Error> {
        Ok(store::trust(&mut *self.connection().await?).await?.policy)
    }

    /// Changes what holds for a level. It holds for what is installed, enabled, granted and started from now
    /// on.
    ///
    /// # Errors
    /// `invalid_arguments`, if there is no permission of a name; `store_failed`.
    pub async fn set_terms(&self, level: TrustLevel, terms: Terms, actor: &str) -> Result<(), Error> {
        let mut names = terms.permissions.iter().flatten();
        if let Some(name) = names.find(|name| !Permissions::NAMES.contains(&name.as_str())) {
            let message = format!("there is no permission {name:?}");
            let hint = crate::route::suggest(name, &Permissions::NAMES, "there are");
            return Err(Error::new(ErrorCode::InvalidArguments, message).with_hint(hint));
        }
        let (mut transaction, all) = self.begin().await?;
        store::put_terms(&mut transaction, level, &terms).await?;
        let detail = json!({ "level": level, "terms": terms });
        self.record(&mut transaction, actor, "trust policy", "*", detail).await?;
        self.commit(transaction, &all).await
    }

    async fn record(
        &self,
        connection: &mut sqlx::SqliteConnection,
        actor: &str,
        action: &str,
        extension: &str,
        detail: Json,
    ) -> Result<(), Error> {
        super::fault::point("with its change");
        audit::write(connection, Act { actor, action, extension, detail }).await
    }
}

impl Installed {
    /// What it is granted, as far as its level of trust lets it be.
    pub(super) fn effective_grant(&self) -> Permissions {
        self.current.terms.cut(&self.grant)
    }
}
