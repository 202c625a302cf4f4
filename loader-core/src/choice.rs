//! Which of the runtimes of a kind takes an extension: the weakest that isolates far enough and can
//! keep to what the extension declares.

use std::sync::Arc;

use quadriga_abi::limits::Limits;
use quadriga_abi::manifest::Manifest;
use quadriga_abi::permission::Permissions;
use quadriga_abi::{Error, ErrorCode, Isolation};

use crate::Runtime;
use crate::dispatcher::Core;
use crate::limits::unenforced;
use crate::policy::unmediated;
use crate::route::suggest;

impl Core {
    /// The runtimes of the kind that a manifest asks for, the weakest isolation first.
    pub(crate) fn levels(&self, manifest: &Manifest) -> Result<&[Arc<dyn Runtime>], Error> {
        let kind = &manifest.runtime.kind;
        self.runtimes.get(kind).map(Vec::as_slice).ok_or_else(|| {
            let mut kinds: Vec<&str> = self.runtimes.keys().map(|kind| kind.as_str()).collect();
            kinds.sort_unstable();
            let message = format!("{}: this host has no runtime {kind:?}", manifest.extension.id);
            Error::new(ErrorCode::UnknownRuntime, message).with_hint(suggest(kind.as_str(), &kinds, "it has"))
        })
    }

    /// The runtime among `levels` that takes the extension. `isolation` is what this load demands.
    pub(crate) fn choose<'a>(
        &self,
        levels: &'a [Arc<dyn Runtime>],
        manifest: &Manifest,
        isolation: Option<Isolation>,
        limits: &Limits,
        permissions: &Permissions,
    ) -> Result<&'a Arc<dyn Runtime>, Error> {
        let (id, kind) = (&manifest.extension.id, &manifest.runtime.kind);
        let wanted = manifest.runtime.isolation.max(isolation).unwrap_or(Isolation::None);
        let wanted = wanted.max(self.policy.minimum_isolation);
        let mut refusals: Vec<Error> = Vec::new();
        for runtime in levels.iter().filter(|runtime| runtime.support().isolation >= wanted) {
            match keeps_to(&**runtime, manifest, limits, permissions, self.launches) {
                Ok(()) => return Ok(runtime),
                Err(refusal) => refusals.push(refusal),
            }
        }
        let mut messages: Vec<&str> = refusals.iter().map(|refusal| refusal.message.as_str()).collect();
        messages.dedup();
        let message = messages.join("; ");
        let Some(mut refused) = refusals.pop() else {
            let levels: Vec<_> =
                levels.iter().map(|runtime| runtime.support().isolation.to_string()).collect();
            let reached = levels.join(" and ");
            let message =
                format!("{id} must run at isolation {wanted} or stronger; runtime {kind} reaches {reached}");
            let hint = "if this extension is trusted, lower the minimum isolation of the host's policy";
            return Err(Error::new(ErrorCode::IsolationUnavailable, message).with_hint(hint));
        };
        refused.message = message;
        Err(refused)
    }
}

fn keeps_to(
    runtime: &dyn Runtime,
    manifest: &Manifest,
    limits: &Limits,
    permissions: &Permissions,
    launches: bool,
) -> Result<(), Error> {
    let (id, kind, support) = (&manifest.extension.id, runtime.kind(), runtime.support());
    if let Some(name) = unenforced(limits, &support) {
        let message = format!(
            "{id}: runtime {kind} cannot enforce the limit {name} at isolation {}",
            support.isolation
        );
        return Err(
            Error::new(ErrorCode::Unsupported, message).with_hint("remove the limit, or isolate more")
        );
    }
    if let Some(name) = unmediated(permissions, &support, launches) {
        let message = format!("{id}: runtime {kind} does not offer the permission {name}");
        let hint = match (name, support.isolation) {
            ("net", Isolation::None) => {
                "let it run in a process of its own: [runtime] isolation = \"process\""
            }
            _ => "remove it from [permissions]",
        };
        return Err(Error::new(ErrorCode::Unsupported, message).with_hint(hint));
    }
    Ok(())
}
