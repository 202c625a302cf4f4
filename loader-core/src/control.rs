//! What a host does to what is loaded: permissions, rules, and what it can know of either.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use quadriga_abi::permission::{Access, AccessKind, Permissions};
use quadriga_abi::{Error, ErrorCode};

use crate::Dispatcher;
use crate::policy::unmediated;
use crate::ward::{Communication, Decision, DecisionFilter, Effect, Reason, Rule, Subject, Tally, Verdict};

impl Dispatcher {
    /// Grants a running extension more, and says from when on that holds. What it may do is always
    /// what its manifest asks for, cut by the grant, cut by the policy; a reload keeps the grant.
    ///
    /// The first change turns a grant of all that is requested into a list of what that comes to:
    /// a new version that asks for more gets it with a new grant.
    ///
    /// # Errors
    /// If no such extension is loaded, or something goes beyond its manifest's request or the
    /// policy, or the runtime does not mediate it: then nothing is granted, and the error says what.
    pub fn grant(&self, extension: &str, permissions: &Permissions) -> Result<Effect, Error> {
        let slot = self.core.route(extension)?;
        if let Some(name) = unmediated(permissions, &slot.support, self.core.launches) {
            let message = format!("{extension}: runtime {} does not offer the permission {name}", slot.kind);
            return Err(Error::new(ErrorCode::Unsupported, message));
        }
        slot.reach.grant(permissions)
    }

    /// Takes permissions back, and says from when on that holds: calls to other extensions and what
    /// runtimes ask for each time are denied from the next one on, in calls in flight too; what a
    /// runtime cannot take back needs a reload. What the extension does not hold may be revoked as
    /// well.
    ///
    /// # Errors
    /// If no such extension is loaded, or it holds an entry that covers what is to be revoked and
    /// more, such as `*.example.org:443` for `api.example.org:443`: then nothing is revoked.
    pub fn revoke(&self, extension: &str, permissions: &Permissions) -> Result<Effect, Error> {
        self.core.route(extension)?.reach.revoke(permissions)
    }

    /// What an extension may do at this moment.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn permissions(&self, extension: &str) -> Result<Arc<Permissions>, Error> {
        Ok(self.core.route(extension)?.reach.permissions())
    }

    /// What would be said to an extension that tried something now. Neither counted nor recorded:
    /// the decision's number is 0.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn check(&self, extension: &str, access: &Access<'_>) -> Result<Decision, Error> {
        let slot = self.core.route(extension)?;
        let (verdict, reason) = match slot.reach.verdict(access) {
            Ok(()) => (Verdict::Allowed, Reason::Granted),
            Err(reason) => (Verdict::Denied, reason),
        };
        let (subject, what) = (Subject::Access(access.kind()), access.to_string());
        let (extension, at) = (slot.id.clone(), SystemTime::now());
        Ok(Decision { number: 0, extension, call: 0, subject, what, at, verdict, reason, claimed: false })
    }

    /// What was decided about an extension since it was loaded, oldest first.
    ///
    /// All accesses are counted. Kept are: of each kind of access the last 64 that were denied;
    /// of those that were allowed the first 16 and then one in 64, of them the last 64; of calls
    /// to other extensions that were allowed the first to each callee, of them the last 64 (all
    /// are counted in [`Dispatcher::communication`]); and the last 64 things that the host did:
    /// grants, revocations, limits, quarantines. Denials and what the host did are also events of
    /// [`tracing`] with the target `quadriga::audit`, for who wants to keep them all.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn decisions(&self, extension: &str, filter: &DecisionFilter) -> Result<Vec<Decision>, Error> {
        Ok(self.core.route(extension)?.reach.ward.log.read(filter))
    }

    /// How often an extension tried each kind of access since it was loaded.
    ///
    /// # Errors
    /// If no such extension is loaded.
    pub fn accesses(&self, extension: &str) -> Result<BTreeMap<AccessKind, Tally>, Error> {
        Ok(self.core.route(extension)?.reach.ward.tallies())
    }

    /// Refuses calls from one extension to another from the next one on; `*` stands for all. Calls
    /// in flight go on. Rules outlast unloads.
    ///
    /// # Errors
    /// If one of the two is neither the id of an extension nor `*`.
    pub fn block(&self, caller: &str, callee: &str) -> Result<(), Error> {
        self.rule(Rule::new(caller, callee, true)?)
    }

    /// Lets calls from one extension to another pass, as far as permissions go. Of the rules that
    /// fit a pair the one that was set last holds.
    ///
    /// # Errors
    /// If one of the two is neither the id of an extension nor `*`.
    pub fn allow(&self, caller: &str, callee: &str) -> Result<(), Error> {
        self.rule(Rule::new(caller, callee, false)?)
    }

    /// The rules between extensions, in the order in which they were set.
    pub fn rules(&self) -> Vec<Rule> {
        self.core.rules.list()
    }

    /// What the loaded extensions have called of each other, by caller and callee.
    pub fn communication(&self) -> Vec<Communication> {
        let routes = self.core.routes.load();
        let wards = routes.values().map(|slot| &slot.reach.ward);
        let mut list: Vec<Communication> =
            wards.flat_map(|ward| ward.links().into_iter().map(|link| link.read(&self.core.rules))).collect();
        list.sort_unstable_by(|a, b| (&a.caller, &a.callee).cmp(&(&b.caller, &b.callee)));
        list
    }

    /// Sets a rule, and records it with the loaded extensions that it names.
    fn rule(&self, rule: Rule) -> Result<(), Error> {
        self.core.rules.set(rule.clone());
        for slot in self.core.routes.load().values().filter(|slot| rule.names(&slot.id)) {
            slot.reach.ward.log.managed(&slot.id, rule.to_string(), Reason::Operator);
        }
        Ok(())
    }
}
