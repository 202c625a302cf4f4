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

pub(super) fn restrict(plan: &Plan) -> io::Result<Outcome> {
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
        LandlockStatus::Available { effective_abi, .. } => judge(effective_abi),
        LandlockStatus::NotEnabled => Err(io::Error::other("the kernel was started without it")),
        LandlockStatus::NotImplemented => Err(io::Error::other("the kernel doesn't have it")),
    }
}

/// What has to be there: without ABI 3, `truncate` reaches files outside.
fn judge(abi: ABI) -> io::Result<Outcome> {
    let note = format!("ABI {}", abi as u32);
    if abi < ABI::V3 {
        return Err(io::Error::other(format!("{note}, and 3 is needed to guard truncation")));
    }
    if abi < ABI::V6 {
        let missing = "no scopes of signals and abstract sockets, which seccomp guards alone";
        return Outcome::noted(State::Partly, format!("{note}: {missing}"));
    }
    Outcome::noted(State::Reached, note)
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
