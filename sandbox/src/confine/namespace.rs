//! Namespaces, except for what it takes to live in one of process ids.

use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener};

use quadriga_abi::Isolation;
use rustix::thread::{CapabilitySet, UnshareFlags};

use super::report::{Outcome, failed};
use super::{Error, Layer, Layers, Net, PROXY_PORT, Plan, State, sys};

/// Subprocesses outlive a worker that is killed, except in a PID namespace.
pub(super) fn wants_pids(plan: &Plan) -> bool {
    plan.isolation == Isolation::Container || plan.starts_programs()
}

pub(super) fn enter(plan: &Plan, layers: &mut Layers<'_>) -> Result<(), Error> {
    let container = plan.isolation == Isolation::Container;
    layers.put(Layer::UserNamespace, user(plan.limits.processes.is_some()))?;
    let wanted = [
        (Layer::MountNamespace, UnshareFlags::NEWNS, true),
        (Layer::IpcNamespace, UnshareFlags::NEWIPC, true),
        (Layer::NetNamespace, UnshareFlags::NEWNET, plan.net != Net::Any),
        (Layer::UtsNamespace, UnshareFlags::NEWUTS, container),
    ];
    for (layer, flag, wanted) in wanted {
        layers.put(layer, if wanted { unshare(flag) } else { Outcome::not_asked() })?;
    }
    if plan.net == Net::Proxy && layers.state(Layer::NetNamespace) == State::Reached {
        layers.listener = Some(listener().map_err(Error::Proxy)?);
    }
    Ok(())
}

/// The one thing that a worker finds in its network.
fn listener() -> io::Result<TcpListener> {
    sys::raise_loopback().map_err(failed("the loopback interface"))?;
    TcpListener::bind((Ipv4Addr::LOCALHOST, PROXY_PORT)).map_err(failed("the socket for the proxy"))
}

fn unshare(flag: UnshareFlags) -> io::Result<Outcome> {
    sys::unshare(flag).map_err(failed("unshare"))?;
    Outcome::reached()
}

/// A user namespace gives an ordinary user the right to make the others, and a count of processes
/// of its own. Who has that right already needs none.
fn user(counted: bool) -> io::Result<Outcome> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    let may = rustix::thread::capabilities(None)?.effective.contains(CapabilitySet::SYS_ADMIN);
    if may && !counted {
        return Outcome::noted(State::NotAsked, "the worker may make namespaces without one");
    }
    sys::unshare(UnshareFlags::NEWUSER).map_err(failed("unshare"))?;
    // The same ids inside and outside, so that files belong to whom they belong.
    for (file, text) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/uid_map", format!("{0} {0} 1", uid.as_raw())),
        ("/proc/self/gid_map", format!("{0} {0} 1", gid.as_raw())),
    ] {
        fs::write(file, text).map_err(failed(file))?;
    }
    Outcome::reached()
}
