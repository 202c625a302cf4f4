//! seccomp: two filters, of which the kernel takes the stricter answer.
//!
//! The one allows what [`syscalls`](super::syscalls) lists; all else doesn't exist. The other denies
//! with `EPERM` what would be dangerous, or dangerous with these arguments, and has the kernel log it.
//! `clone3` is in neither: its flags are out of a filter's reach, and libc falls back to `clone`.
//!
//! Where the supervisor watches, a third one, which comes first, has the kernel ask it about the most
//! telling of what is denied: see [`watch`](super::watch). An error counts as stricter than a
//! question, so the other two let pass what this one asks about.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::os::fd::OwnedFd;

use libc::{BPF_K, BPF_RET, SECCOMP_RET_TRACE, SECCOMP_RET_USER_NOTIF, c_int, c_long};
use quadriga_abi::Isolation;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};

use super::report::Outcome;
use super::syscalls::{
    ALLOWED, DENIED, IOCTLS, LEGACY, LEGACY_DENIED, LEGACY_METADATA, LEGACY_PROCESSES, LEGACY_WATCHES,
    LISTEN, METADATA, PRCTLS, PROCESSES, SOCKETS, TELLING, TYPING, WATCHES,
};
use super::{ExecMemory, Net, Plan, State, process, sys};

/// Flags of `clone` that make namespaces, or processes that aren't children of the caller.
const CLONE_APART: [c_int; 9] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_PARENT,
    libc::CLONE_PTRACE,
];
/// The bits of a socket's type that aren't flags.
const SOCK_TYPE_MASK: u64 = 0xF;

/// Has the kernel ask about what is telling, and returns where it asks.
pub(super) fn watch(plan: &Plan) -> io::Result<OwnedFd> {
    // The crate has no action for it, and nothing else of ours leaves anything to a tracer.
    let mut asks = telling(plan, process::pid()).compile((SeccompAction::Allow, SeccompAction::Trace(0)))?;
    for instruction in &mut asks {
        if u32::from(instruction.code) == BPF_RET | BPF_K && instruction.k == SECCOMP_RET_TRACE {
            instruction.k = SECCOMP_RET_USER_NOTIF;
        }
    }
    sys::install_watch(&asks)
}

/// With `guarded`, mounts keep the process from changing what it may not write. With `watched`, the
/// kernel asks about what is telling.
pub(super) fn install(plan: &Plan, guarded: bool, watched: bool) -> io::Result<Outcome> {
    let denied = (SeccompAction::Allow, SeccompAction::Errno(libc::EPERM as u32));
    let unknown = (SeccompAction::Errno(libc::ENOSYS as u32), SeccompAction::Allow);
    // Both are made before the first is installed, and of two equally strict answers the later counts.
    let mut allow = allowed(plan, guarded);
    let mut deny = quietly_denied(plan, guarded);
    match watched {
        true => _ = allow.all(TELLING).when_any(libc::SYS_ioctl, TYPING.map(|request| is(1, request))),
        false => deny.add(telling(plan, process::pid())),
    }
    let (allow, deny) = (allow.compile(unknown)?, deny.compile(denied)?);
    sys::install_filter(&allow, false)?;
    sys::install_filter(&deny, true)?;
    Outcome::noted(State::Reached, if guarded { "" } else { "no changes of modes, owners and times" })
}

/// Whether these flags of `clone` make something that is no child like any other.
pub(super) fn is_apart(flags: u64) -> bool {
    CLONE_APART.iter().any(|flag| flags & *flag as u64 != 0)
}

fn allowed(plan: &Plan, guarded: bool) -> Rules {
    let mut rules = Rules::default();
    // To install the second filter, which denies it.
    rules.all(ALLOWED).all(LEGACY).all(&[libc::SYS_seccomp]);
    match plan.memfd {
        // Landlock lets anybody run a file in memory that may be run.
        true if plan.starts_programs() => {
            rules.when(libc::SYS_memfd_create, &[has(1, libc::MFD_NOEXEC_SEAL.into())]);
        }
        true => _ = rules.all(&[libc::SYS_memfd_create]),
        false => {}
    }
    if guarded {
        rules.all(METADATA).all(LEGACY_METADATA);
    }
    if plan.isolation == Isolation::Container {
        rules.all(WATCHES).all(LEGACY_WATCHES);
    }
    for request in IOCTLS {
        rules.when(libc::SYS_ioctl, &[is(1, *request)]);
    }
    for option in PRCTLS {
        rules.when(libc::SYS_prctl, &[is(0, *option as u64)]);
    }
    // Of itself alone.
    rules.when(libc::SYS_prlimit64, &[is(0, 0)]);
    rules.when(libc::SYS_setpriority, &[is(0, libc::PRIO_PROCESS as u64), is(1, 0)]);
    rules
}

/// What is denied by name, and may well happen by itself.
fn quietly_denied(plan: &Plan, guarded: bool) -> Rules {
    let mut rules = Rules::default();
    rules.all(DENIED).all(LEGACY_DENIED);
    if !guarded {
        rules.all(METADATA).all(LEGACY_METADATA);
    }
    if plan.isolation != Isolation::Container {
        rules.all(WATCHES).all(LEGACY_WATCHES);
    }
    // A file that becomes ready signals whom it was told to.
    for command in [libc::F_SETOWN, F_SETSIG, F_SETOWN_EX] {
        rules.when(libc::SYS_fcntl, &[is(1, command as u64)]);
    }
    memory(&mut rules, plan.exec_memory);
    rules
}

/// What is denied by name, and that somebody has to want; `own` is the pid of the process.
fn telling(plan: &Plan, own: u32) -> Rules {
    let mut rules = Rules::default();
    rules.all(TELLING);
    rules.when_any(libc::SYS_ioctl, TYPING.map(|request| is(1, request)));
    rules.when_any(libc::SYS_clone, CLONE_APART.map(|flag| has(0, flag as u64)));
    processes(&mut rules, plan.starts_programs(), own);
    sockets(&mut rules, &plan.net);
    rules
}

fn processes(rules: &mut Rules, programs: bool, own: u32) {
    if programs {
        return;
    }
    rules.all(PROCESSES).all(LEGACY_PROCESSES);
    rules.when(libc::SYS_clone, &[lacks(0, libc::CLONE_THREAD as u64)]);
    let to_process = [
        libc::SYS_kill,
        libc::SYS_tgkill,
        libc::SYS_rt_sigqueueinfo,
        libc::SYS_rt_tgsigqueueinfo,
        // Names a thread of any process; this is the first of its own.
        libc::SYS_tkill,
    ];
    for call in to_process {
        rules.when(call, &[is_not(0, own.into())]);
    }
}

fn memory(rules: &mut Rules, exec: ExecMemory) {
    let executable = has(2, libc::PROT_EXEC as u64);
    match exec {
        ExecMemory::Any => return,
        ExecMemory::Libraries => {
            rules.when(libc::SYS_mmap, &[executable.clone(), has(3, libc::MAP_ANONYMOUS as u64)]);
        }
        ExecMemory::Denied => {
            rules.when(libc::SYS_mmap, std::slice::from_ref(&executable));
        }
    }
    for call in [libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.when(call, std::slice::from_ref(&executable));
    }
}

fn sockets(rules: &mut Rules, net: &Net) {
    // A pair of datagram sockets could be turned to any address.
    let pair = [is_not(0, libc::AF_UNIX as u64)];
    rules.when(libc::SYS_socketpair, &pair);
    types_but(rules, libc::SYS_socketpair, &[libc::SOCK_STREAM]);
    if *net == Net::Denied {
        rules.all(SOCKETS).all(LISTEN);
        return;
    }
    rules.when(libc::SYS_socket, &[is_not(0, libc::AF_INET as u64), is_not(0, libc::AF_INET6 as u64)]);
    if *net == Net::Any {
        types_but(rules, libc::SYS_socket, &[libc::SOCK_STREAM, libc::SOCK_DGRAM]);
        return;
    }
    // All that there is to connect to is the proxy.
    types_but(rules, libc::SYS_socket, &[libc::SOCK_STREAM]);
    rules.when(libc::SYS_socket, &[is_not(2, 0), is_not(2, libc::IPPROTO_TCP as u64)]);
    rules.all(LISTEN);
    for (call, flags) in [(libc::SYS_sendto, 3), (libc::SYS_sendmsg, 2), (libc::SYS_sendmmsg, 3)] {
        rules.when(call, &[has(flags, libc::MSG_FASTOPEN as u64)]);
    }
}

fn types_but(rules: &mut Rules, call: c_long, allowed: &[c_int]) {
    for kind in (0..=SOCK_TYPE_MASK).filter(|kind| !allowed.iter().any(|allowed| *allowed as u64 == *kind)) {
        rules.when(call, &[Condition { arg: 1, op: SeccompCmpOp::MaskedEq(SOCK_TYPE_MASK), value: kind }]);
    }
}

/// Not in the libc crate.
const F_SETSIG: c_int = 10;
const F_SETOWN_EX: c_int = 15;

/// Which calls match: in every case, or when one of the lists of conditions holds.
#[derive(Default)]
struct Rules(BTreeMap<i64, Vec<Vec<Condition>>>);

#[derive(Clone)]
struct Condition {
    arg: u8,
    op: SeccompCmpOp,
    value: u64,
}

fn is(arg: u8, value: u64) -> Condition {
    Condition { arg, op: SeccompCmpOp::Eq, value }
}

fn is_not(arg: u8, value: u64) -> Condition {
    Condition { arg, op: SeccompCmpOp::Ne, value }
}

fn has(arg: u8, bit: u64) -> Condition {
    Condition { arg, op: SeccompCmpOp::MaskedEq(bit), value: bit }
}

fn lacks(arg: u8, bit: u64) -> Condition {
    Condition { arg, op: SeccompCmpOp::MaskedEq(bit), value: 0 }
}

impl Rules {
    fn all(&mut self, calls: &[c_long]) -> &mut Self {
        for call in calls {
            // An empty list of lists matches in every case.
            self.0.insert(*call, Vec::new());
        }
        self
    }

    fn when(&mut self, call: c_long, conditions: &[Condition]) -> &mut Self {
        match self.0.entry(call) {
            Entry::Vacant(entry) => drop(entry.insert(vec![conditions.to_vec()])),
            // Where it matches in every case, a condition adds nothing.
            Entry::Occupied(entry) if entry.get().is_empty() => {}
            Entry::Occupied(mut entry) => entry.get_mut().push(conditions.to_vec()),
        }
        self
    }

    fn when_any<const N: usize>(&mut self, call: c_long, conditions: [Condition; N]) -> &mut Self {
        for condition in conditions {
            self.when(call, &[condition]);
        }
        self
    }

    /// Those of another list too, which is about other calls.
    fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    fn compile(&self, actions: (SeccompAction, SeccompAction)) -> io::Result<BpfProgram> {
        self.compile_for(std::env::consts::ARCH.try_into().map_err(io::Error::other)?, actions)
    }

    fn compile_for(
        &self,
        arch: TargetArch,
        (mismatch, matched): (SeccompAction, SeccompAction),
    ) -> io::Result<BpfProgram> {
        let rules = self.0.iter().map(|(call, lists)| {
            let rules = lists.iter().map(|conditions| {
                // All of them are ints, whose upper half the kernel doesn't look at.
                let conditions = conditions.iter().map(|Condition { arg, op, value }| {
                    SeccompCondition::new(*arg, SeccompCmpArgLen::Dword, op.clone(), *value)
                });
                SeccompRule::new(conditions.collect::<Result<_, _>>()?)
            });
            Ok((*call, rules.collect::<Result<_, _>>()?))
        });
        let rules = rules.collect::<Result<_, seccompiler::BackendError>>().map_err(io::Error::other)?;
        let filter = SeccompFilter::new(rules, mismatch, matched, arch).map_err(io::Error::other)?;
        filter.try_into().map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_is_both_allowed_and_denied() {
        let denied: Vec<_> = DENIED.iter().chain(LEGACY_DENIED).chain(TELLING).collect();
        let mut allowed = [ALLOWED, LEGACY, METADATA, LEGACY_METADATA, WATCHES, LEGACY_WATCHES].concat();
        assert_eq!(allowed.iter().filter(|call| denied.contains(call)).count(), 0);
        let count = allowed.len();
        allowed.sort_unstable();
        allowed.dedup();
        assert_eq!(allowed.len(), count, "a call is listed twice");
        // What is denied unless it was granted has to be there when it is.
        for call in [PROCESSES, LEGACY_PROCESSES, SOCKETS, LISTEN].concat() {
            assert!(allowed.contains(&call), "{call}");
        }
    }

    /// The lists are those of the architecture that this is built for; what a filter may look like is
    /// not the same on all.
    #[test]
    fn every_filter_compiles_for_every_architecture() {
        let mut plans = Vec::new();
        for level in [Isolation::Process, Isolation::Container] {
            for net in [Net::Denied, Net::Proxy, Net::Any] {
                for exec_memory in [ExecMemory::Denied, ExecMemory::Libraries, ExecMemory::Any] {
                    plans.push(Plan { net: net.clone(), exec_memory, ..Plan::new(level, "/usr") });
                }
            }
        }
        for (plan, guarded) in plans.iter().flat_map(|plan| [(plan, false), (plan, true)]) {
            for rules in [allowed(plan, guarded), quietly_denied(plan, guarded), telling(plan, 1)] {
                for arch in [TargetArch::x86_64, TargetArch::aarch64] {
                    let actions = (SeccompAction::Allow, SeccompAction::Errno(1));
                    let filter = rules.compile_for(arch, actions).unwrap();
                    // As many as the kernel takes, and the architecture is what they look at first.
                    assert!((rules.0.len()..4096).contains(&filter.len()), "{arch:?}: {}", filter.len());
                    assert_eq!(filter[1].k, arch_number(arch), "{arch:?}");
                }
            }
        }
    }

    fn arch_number(arch: TargetArch) -> u32 {
        match arch {
            TargetArch::aarch64 => 0xC000_00B7,
            _ => 0xC000_003E,
        }
    }

    #[test]
    fn what_the_host_is_told_of_has_a_name_and_is_not_denied_twice() {
        for net in [Net::Denied, Net::Proxy, Net::Any] {
            let plan = Plan { net, ..Plan::new(Isolation::Process, "/usr") };
            let quiet = quietly_denied(&plan, false);
            for call in telling(&plan, 1).0.keys() {
                assert!(super::super::syscalls::name(*call as c_long).is_some(), "{call}");
                assert!(!quiet.0.contains_key(call), "{call}");
            }
        }
    }
}
