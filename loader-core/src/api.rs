//! Functions that extensions add to APIs of the host.
//!
//! An API is what the host [provides](crate::Provided) under an id and opens to extensions under a name. A call of
//! a function that the host does not have there goes on to the extension that added it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use foldhash::fast::RandomState;
use quadriga_abi::manifest::{ApiFunction, Manifest, VersionReq};
use quadriga_abi::permission::Access;
use quadriga_abi::{Bytes, Error, ErrorCode, ExtensionId, Method};
use semver::Version;
use serde::Serialize;

use crate::call::{Admitted, Ticket};
use crate::dispatcher::{Core, lock};
use crate::route::Slot;
use crate::{CallOptions, Dispatcher};

/// All that was added, and where to. Replaced as a whole; callers never wait.
#[derive(Default)]
pub(crate) struct Apis {
    apis: ArcSwap<HashMap<Arc<str>, Api, RandomState>>,
    /// Who has each function, by API and name, or is being loaded with it. Held by who changes anything.
    owners: Mutex<BTreeMap<Key, ExtensionId>>,
}

/// An API and a function of it.
type Key = (Arc<str>, Arc<str>);

#[derive(Clone, Default)]
struct Api {
    /// Where it is called, if the host opened it.
    host: Option<ExtensionId>,
    version: Option<Version>,
    added: HashMap<Arc<str>, Arc<Added>, RandomState>,
}

/// A function that an extension added.
struct Added {
    /// `API.FUNCTION`.
    name: String,
    extension: ExtensionId,
    method: Arc<str>,
    description: String,
    /// The versions of the API that it is for.
    range: Option<VersionReq>,
}

/// A function of an API of the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ApiStatus {
    /// The API's name in manifests.
    pub api: Arc<str>,
    /// The id under which it is called; `None` if this host has no such API open.
    pub host: Option<ExtensionId>,
    /// The version of the API, if the host says one.
    pub version: Option<Version>,
    /// The function, by the name that it is called by.
    pub function: Method,
    /// Who added it; `None` for the host's own.
    pub extension: Option<ExtensionId>,
    /// The method of the extension that answers.
    pub method: Arc<str>,
    /// Whether it can be called at this moment: the API is open, and its extension may add it.
    pub allowed: bool,
}

impl Apis {
    /// Keeps the functions of a manifest for its extension, whose id is reserved.
    ///
    /// # Errors
    /// If another extension or the host has one of them.
    pub(crate) fn claim(&self, manifest: &Manifest) -> Result<(), Error> {
        let id = &manifest.extension.id;
        let mut owners = lock(&self.owners);
        let wanted: Vec<_> =
            added(manifest).map(|(api, name, _)| (Arc::from(api), Arc::from(name))).collect();
        for (api, name) in &wanted {
            let conflict = |whose: &str| {
                Error::new(ErrorCode::ApiConflict, format!("{id} adds {api}.{name}, which {whose}"))
            };
            if let Some(open) = self.apis.load().get(api).filter(|open| open.host.is_some())
                && let Some(range) = manifest.api[&**api][&**name].version.as_ref()
                && !fits(Some(range), open.version.as_ref())
            {
                let error = conflict(&format!("is for {api} {range}, and this is {}", called(&open.version)));
                return Err(error.with_hint(format!("take a version of {id} that is for this host")));
            }
            match owners.get(&(Arc::clone(api), Arc::clone(name))) {
                Some(owner) if is_host(owner, api, &self.apis.load()) => {
                    let error = conflict(&format!("is the host's own, of {owner}"));
                    return Err(error.with_hint("what the host offers cannot be replaced: take another name"));
                }
                Some(owner) if owner != id => {
                    let error = conflict(&format!("{owner} has added"));
                    return Err(error.with_hint(format!("unload {owner}, or give one of them another name")));
                }
                _ => {}
            }
        }
        owners.extend(wanted.into_iter().map(|key| (key, id.clone())));
        Ok(())
    }

    /// Frees what an id has claimed and not declared by now, when its reservation ends.
    pub(crate) fn settle(&self, id: &ExtensionId) {
        let (mut owners, apis) = (lock(&self.owners), self.apis.load());
        let has = |api: &Api, name: &str| {
            api.host.as_ref() == Some(id) || api.added.get(name).is_some_and(|it| it.extension == *id)
        };
        owners.retain(|(api, name), owner| owner != id || apis.get(api).is_some_and(|api| has(api, name)));
    }

    /// Opens an API under what the host provides in a slot.
    ///
    /// # Errors
    /// If it is open, or an extension has added one of the host's own functions, or one for another
    /// version.
    pub(crate) fn open(&self, api: &Arc<str>, version: Option<Version>, slot: &Slot) -> Result<(), Error> {
        let mut owners = lock(&self.owners);
        let conflict = |message| Err(Error::new(ErrorCode::ApiConflict, message));
        let apis = self.apis.load();
        let there = apis.get(api);
        if let Some(host) = there.and_then(|there| there.host.as_ref()) {
            return conflict(format!("the API {api} is {host} already"));
        }
        let mut added = there.into_iter().flat_map(|there| there.added.values());
        if let Some(it) = added.find(|it| !fits(it.range.as_ref(), version.as_ref())) {
            let (extension, name, version) = (&it.extension, &it.name, called(&version));
            return conflict(format!(
                "{extension} has added {name} for another version of {api} than {version}"
            ));
        }
        for name in slot.methods.keys() {
            if let Some(owner) = owners.get(&(Arc::clone(api), Arc::clone(name))) {
                return conflict(format!(
                    "{} has the function {name}, which {owner} has added to {api}",
                    slot.id
                ));
            }
        }
        owners.extend(slot.methods.keys().map(|name| ((Arc::clone(api), Arc::clone(name)), slot.id.clone())));
        self.change(|apis| {
            let it = apis.entry(Arc::clone(api)).or_default();
            (it.host, it.version) = (Some(slot.id.clone()), version.clone());
        });
        Ok(())
    }

    /// Lets the functions of an extension be called, and those of the generation before it no more.
    pub(crate) fn declare(&self, slot: &Slot) {
        let Some(source) = &slot.source else { return };
        let owners = lock(&self.owners);
        // Most extensions add nothing, and have added nothing.
        if !owners.values().any(|owner| *owner == slot.id) {
            return;
        }
        self.change(|apis| {
            take_away(apis, &slot.id);
            for (api, name, function) in added(&source.manifest) {
                let it = Added {
                    name: format!("{api}.{name}"),
                    extension: slot.id.clone(),
                    method: Arc::from(function.method.as_str()),
                    description: function.description.clone(),
                    range: function.version.clone(),
                };
                apis.entry(Arc::from(api)).or_default().added.insert(Arc::from(name), Arc::new(it));
            }
        });
    }

    /// Takes away what an extension added, or an API of the host.
    pub(crate) fn forget(&self, slot: &Slot) {
        let mut owners = lock(&self.owners);
        owners.retain(|_, owner| *owner != slot.id);
        self.change(|apis| {
            take_away(apis, &slot.id);
            if let Some(api) = slot.api.as_ref().and_then(|api| apis.get_mut(api)) {
                (api.host, api.version) = (None, None);
            }
        });
    }

    /// Held by who has the owners locked.
    fn change(&self, change: impl Fn(&mut HashMap<Arc<str>, Api, RandomState>)) {
        self.apis.rcu(|apis| {
            let mut apis = HashMap::clone(apis);
            change(&mut apis);
            apis.retain(|_, api| api.host.is_some() || !api.added.is_empty());
            apis
        });
    }

    fn find(&self, api: &str, function: &str) -> Option<Arc<Added>> {
        let apis = self.apis.load();
        let api = apis.get(api)?;
        // It may have been opened while the extension was being loaded.
        let it = api.added.get(function).filter(|it| fits(it.range.as_ref(), api.version.as_ref()))?;
        Some(Arc::clone(it))
    }
}

impl Core {
    /// Hands a call of what the host does not have on to who added it.
    #[cold]
    pub(crate) fn admit_added(
        self: &Arc<Self>,
        ticket: &Ticket,
        method: &str,
        arguments: Bytes,
        options: CallOptions,
    ) -> Result<Admitted, Error> {
        let lacks = || ticket.slot.lacks(method);
        let api = ticket.slot.api.as_deref().ok_or_else(lacks)?;
        let added = self.apis.find(api, method).ok_or_else(lacks)?;
        let slot = self.route(added.extension.as_str()).map_err(|_| lacks())?;
        let access = Access::Api(&added.name);
        slot.reach.verdict(&access).map_err(|_| {
            let hint = format!("{} adds it, and may not: grant {}", added.extension, access.request());
            lacks().with_hint(hint)
        })?;
        slot.reach.allow(&access);
        self.admit_or_find(slot, &added.method, arguments, options)
    }
}

impl Dispatcher {
    /// The functions of all APIs that are open to extensions, the host's own and what was added, by name.
    pub fn apis(&self) -> Vec<ApiStatus> {
        let mut list = Vec::new();
        for (name, api) in self.core.apis.apis.load().iter() {
            if let Some(slot) = self.core.host_of(api) {
                list.extend(slot.methods.keys().filter_map(|it| self.core.own(name, api, &slot, it)));
            }
            list.extend(api.added.iter().filter_map(|(it, added)| self.core.added(name, api, it, added)));
        }
        list.sort_by(|a, b| (&a.api, &a.function.name).cmp(&(&b.api, &b.function.name)));
        list
    }

    /// One function of one API, if there is such a one.
    pub fn api_function(&self, api: &str, function: &str) -> Option<ApiStatus> {
        let apis = self.core.apis.apis.load();
        let (name, api) = apis.get_key_value(api)?;
        if let Some(slot) = self.core.host_of(api)
            && let Some((function, _)) = slot.methods.get_key_value(function)
        {
            return self.core.own(name, api, &slot, function);
        }
        let (function, added) = api.added.get_key_value(function)?;
        self.core.added(name, api, function, added)
    }
}

impl Core {
    fn host_of(&self, api: &Api) -> Option<Arc<Slot>> {
        self.route(api.host.as_ref()?.as_str()).ok()
    }

    /// What there is to say of a function of the host's own.
    fn own(&self, name: &Arc<str>, api: &Api, slot: &Slot, function: &Arc<str>) -> Option<ApiStatus> {
        Some(ApiStatus {
            api: Arc::clone(name),
            host: api.host.clone(),
            version: api.version.clone(),
            function: described(slot, function)?.clone(),
            extension: None,
            method: Arc::clone(function),
            allowed: true,
        })
    }

    /// What there is to say of a function that was added.
    fn added(&self, name: &Arc<str>, api: &Api, function: &str, it: &Added) -> Option<ApiStatus> {
        let slot = self.route(it.extension.as_str()).ok()?;
        let mut description = Method { name: function.to_owned(), ..described(&slot, &it.method)?.clone() };
        if !it.description.is_empty() {
            description.doc.clone_from(&it.description);
        }
        Some(ApiStatus {
            api: Arc::clone(name),
            host: api.host.clone(),
            version: api.version.clone(),
            function: description,
            extension: Some(it.extension.clone()),
            method: Arc::clone(&it.method),
            allowed: api.host.is_some()
                && fits(it.range.as_ref(), api.version.as_ref())
                && slot.reach.verdict(&Access::Api(&it.name)).is_ok(),
        })
    }
}

/// Whether a version of an API is one that a function is for.
fn fits(range: Option<&VersionReq>, version: Option<&Version>) -> bool {
    range.is_none_or(|VersionReq(range)| version.is_some_and(|version| range.matches(version)))
}

fn called(version: &Option<Version>) -> String {
    version.as_ref().map_or_else(|| "of no version".to_owned(), |version| format!("version {version}"))
}

fn described<'a>(slot: &'a Slot, method: &str) -> Option<&'a Method> {
    slot.instance.describe().methods.iter().find(|it| it.name == method)
}

/// What a manifest adds: API, function, and how.
fn added(manifest: &Manifest) -> impl Iterator<Item = (&str, &str, &ApiFunction)> {
    manifest.api.iter().flat_map(|(api, functions)| {
        functions.iter().map(move |(name, function)| (api.as_str(), name.as_str(), function))
    })
}

fn take_away(apis: &mut HashMap<Arc<str>, Api, RandomState>, extension: &ExtensionId) {
    apis.values_mut().for_each(|api| api.added.retain(|_, it| it.extension != *extension));
}

fn is_host(owner: &ExtensionId, api: &str, apis: &HashMap<Arc<str>, Api, RandomState>) -> bool {
    apis.get(api).is_some_and(|api| api.host.as_ref() == Some(owner))
}
