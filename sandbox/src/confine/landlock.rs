//! Landlock: files, TCP ports, and whom signals and abstract sockets reach.
//!
//! It doesn't cover metadata: modes, owners, times, attributes, watches. seccomp does.

use std::io;
use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, LandlockStatus, NetPort, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetError, Scope,
};

use super::report::{Outcome, failed};
use super::root::DEVICES;
use super::{Access, Net, PROXY_PORT, Plan, State};

/// The newest that we know; the crate leaves out what the kernel doesn't.
const NEWEST: ABI = ABI::V10;

/// `mounted` says whether what the plan lets nobody write is mounted read-only, or isn't there.
pub(super) fn restrict(plan: &Plan, mounted: bool) -> io::Result<Outcome> {
    let mut rules = ruleset(plan).map_err(io::Error::other)?;
    for (path, access, required) in plan.paths() {
        let rights = rights(access);
        rules = allow(rules, path, rights, required).map_err(failed(path.display()))?;
    }
    for device in DEVICES.map(Path::new) {
        let rights = AccessFs::ReadFile | AccessFs::WriteFile;
        rules = allow(rules, device, rights, true).map_err(failed(device.display()))?;
    }
    match rules.restrict_self().map_err(io::Error::other)?.landlock {
        LandlockStatus::Available { effective_abi, .. } => judge(effective_abi, mounted),
        LandlockStatus::NotEnabled => Err(io::Error::other("the kernel was started without it")),
        LandlockStatus::NotImplemented => Err(io::Error::other("the kernel doesn't have it")),
    }
}

/// What it has to be: before ABI 3, `truncate` reaches all files, unless mounts keep it from them.
/// What else is missing, other layers guard.
fn judge(abi: ABI, mounted: bool) -> io::Result<Outcome> {
    let note = format!("ABI {}", abi as u32);
    if abi < ABI::V2 || abi < ABI::V3 && !mounted {
        let needed = "3 is needed to guard truncation, or 2 with read-only mounts";
        return Err(io::Error::other(format!("{note}, and {needed}")));
    }
    let all = [
        (ABI::V3, "truncation, which read-only mounts guard alone"),
        (ABI::V4, "TCP ports, which seccomp and the network namespace guard alone"),
        (ABI::V6, "scopes of signals and abstract sockets, which seccomp guards alone"),
    ];
    let missing: Vec<_> = all.iter().filter(|(since, _)| abi < *since).map(|(_, what)| *what).collect();
    if missing.is_empty() {
        return Outcome::noted(State::Reached, note);
    }
    Outcome::noted(State::Partly, format!("{note}: no {}", missing.join("; no ")))
}

fn ruleset(plan: &Plan) -> Result<RulesetCreated, RulesetError> {
    let mut rules =
        Ruleset::default().handle_access(AccessFs::from_all(NEWEST))?.scope(Scope::from_all(NEWEST))?;
    if plan.net != Net::Any {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let mut rules = rules.create()?;
    if plan.net == Net::Proxy {
        rules = rules.add_rule(NetPort::new(PROXY_PORT, AccessNet::ConnectTcp))?;
    }
    Ok(rules)
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    rights: BitFlags<AccessFs>,
    required: bool,
) -> io::Result<RulesetCreated> {
    match PathFd::new(path) {
        Ok(fd) => rules.add_rule(PathBeneath::new(fd, rights)).map_err(io::Error::other),
        Err(PathFdError::OpenCall { source, .. })
            if !required
                && matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) =>
        {
            Ok(rules)
        }
        Err(PathFdError::OpenCall { source, .. }) => Err(source),
        Err(error) => Err(io::Error::other(error)),
    }
}

fn rights(access: Access) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        Access::ReadOnly => read,
        Access::Run => read | AccessFs::Execute,
        Access::ReadWrite => {
            let special = AccessFs::Execute
                | AccessFs::MakeBlock
                | AccessFs::MakeChar
                | AccessFs::MakeSock
                | AccessFs::IoctlDev
                | AccessFs::ResolveUnix;
            AccessFs::from_all(NEWEST) & !special
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_older_kernel_is_enough_where_mounts_guard_what_it_does_not() {
        let judged = |abi, mounted| judge(abi, mounted).map(|outcome| (outcome.state, outcome.note));
        for (abi, mounted) in [(ABI::V1, true), (ABI::V1, false), (ABI::V2, false)] {
            let error = judged(abi, mounted).unwrap_err().to_string();
            assert!(error.starts_with(&format!("ABI {}, and 3 is needed", abi as u32)), "{error}");
        }
        let missing = [(ABI::V2, 3), (ABI::V3, 2), (ABI::V4, 1), (ABI::V5, 1)];
        for (abi, missing) in missing {
            let (state, note) = judged(abi, true).unwrap();
            assert_eq!((state, note.matches("no ").count()), (State::Partly, missing), "{note}");
        }
        assert_eq!(judged(ABI::V6, false).unwrap(), (State::Reached, "ABI 6".to_owned()));
        assert_eq!(judged(ABI::V3, false).unwrap(), judged(ABI::V3, true).unwrap());
    }
}
