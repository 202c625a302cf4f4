//! What a confined process must not reach.

use std::fs;
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixListener};
use std::os::unix::process::ExitStatusExt as _;
use std::process::Child;

use quadriga_abi::Isolation;
use rustix::pty::OpenptFlags;

use crate::action::{Action, NOTHING_TO_DO};
use crate::fixture::{Place, SECRET, User, everywhere, install};

/// Everything that a host has and a worker must not touch.
struct Host {
    tcp: TcpListener,
    _unix: UnixListener,
    _datagram: UnixDatagram,
    _abstract: UnixListener,
    name: String,
    terminal: OwnedFd,
    _controller: OwnedFd,
    sibling: Child,
}

impl Host {
    fn new(place: &Place) -> Self {
        let name = format!("quadriga-canary-{}", place.dir.path().file_name().unwrap().display());
        let controller =
            rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        rustix::pty::unlockpt(&controller).unwrap();
        let terminal =
            rustix::pty::ioctl_tiocgptpeer(&controller, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        let host = Self {
            tcp: TcpListener::bind("127.0.0.1:0").unwrap(),
            _unix: UnixListener::bind(place.at("socket")).unwrap(),
            _datagram: UnixDatagram::bind(place.at("datagram")).unwrap(),
            _abstract: UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap(),
            name,
            terminal,
            _controller: controller,
            sibling: place.spawn().0,
        };
        place.give(&place.at("socket"));
        place.give(&place.at("datagram"));
        host
    }

    /// Escapes that work on this machine for who isn't confined.
    fn escapes(&self, place: &Place) -> Vec<Action> {
        let (home, scratch) = (place.at("home"), place.at("scratch"));
        let canary = home.join("file");
        let sibling = self.sibling.id();
        vec![
            Action::Read(canary.clone()),
            Action::Read(scratch.join("../home/file")),
            Action::List(home.clone()),
            Action::Write(home.join("new")),
            Action::Write(scratch.join("../home/new")),
            Action::WriteBySymlink(scratch.clone(), canary.clone()),
            Action::WriteByHardLink(scratch.clone(), canary.clone()),
            Action::Truncate(canary.clone()),
            Action::Chmod(canary.clone()),
            Action::Touch(canary.clone()),
            Action::Watch(home),
            Action::Chmod(place.at("package/file")),
            Action::Write(place.at("package/file")),
            Action::Write(place.at("package/new")),
            Action::Env("SECRET".to_owned()),
            Action::FirstEnv(SECRET.to_owned()),
            Action::Ptrace(sibling),
            Action::Memory(sibling),
            Action::Own(sibling),
            Action::Tcp(self.tcp.local_addr().unwrap().to_string()),
            Action::ListenTcp,
            Action::Udp,
            Action::Unix(place.at("socket")),
            Action::Abstract(self.name.clone()),
            Action::DatagramPair(place.at("datagram")),
            Action::Fork,
            Action::Exec(place.at("probe"), Vec::new()),
            Action::MapExecutable,
            Action::ProtectExecutable,
            // Last, since it ends the sibling.
            Action::Signal(sibling, libc::SIGCONT),
            Action::Signal(sibling, libc::SIGKILL),
        ]
    }
}

#[test]
fn nothing_outside_is_reached() {
    everywhere(|place| {
        let mut host = Host::new(place);
        let escapes = host.escapes(place);
        let outcomes = place.run(Some(place.plan()), &escapes);
        assert_eq!(outcomes.len(), escapes.len());
        for (escape, outcome) in escapes.iter().zip(&outcomes) {
            assert!(outcome.is_err(), "{escape:?}: {outcome:?}");
        }
        assert_eq!(fs::read_to_string(place.at("home/file")).unwrap(), "in home");
        assert_eq!(fs::read_to_string(place.at("package/file")).unwrap(), "in package");
        assert!(!place.at("home/new").exists());
        assert!(host.sibling.try_wait().unwrap().is_none(), "the sibling was ended");

        // The same works unconfined, or this would show nothing.
        for (escape, outcome) in escapes.iter().zip(place.run(None, &escapes)) {
            // Another user namespace is a barrier by itself.
            let barred = place.user == User::Bare && matches!(escape, Action::Ptrace(_) | Action::Memory(_));
            assert!(outcome.is_ok() || barred, "unconfined, {escape:?}: {outcome:?}");
        }
        assert_eq!(host.sibling.wait().unwrap().signal(), Some(libc::SIGKILL));
    });
}

#[test]
fn the_parent_is_out_of_reach() {
    everywhere(|place| {
        let parent = std::process::id();
        let escapes = [
            Action::Ptrace(parent),
            Action::Memory(parent),
            Action::Own(parent),
            // Without effect on who isn't stopped, if it came through.
            Action::Signal(parent, libc::SIGCONT),
        ];
        for (escape, outcome) in escapes.iter().zip(place.run(Some(place.plan()), &escapes)) {
            assert!(outcome.is_err(), "{escape:?}: {outcome:?}");
        }
    });
}

#[test]
fn a_terminal_that_was_inherited_takes_no_input() {
    everywhere(|place| {
        let host = Host::new(place);
        let fd = host.terminal.as_raw_fd();
        let mut plan = place.plan();
        plan.keep_fds.push(fd);
        rustix::io::fcntl_setfd(&host.terminal, rustix::io::FdFlags::empty()).unwrap();
        assert_eq!(place.run(Some(plan), &[Action::TypeInto(fd)]), [Err(libc::EPERM)]);
        if place.user == User::Root {
            assert!(place.run(None, &[Action::TypeInto(fd)])[0].is_ok());
        }
        let mut sibling = host.sibling;
        sibling.kill().unwrap();
        sibling.wait().unwrap();
    });
}

#[test]
fn descriptors_that_were_not_to_keep_are_closed() {
    everywhere(|place| {
        let (reader, _writer) = std::io::pipe().unwrap();
        // Far from those that a process opens for itself; it is handed on to what is started.
        let reader = rustix::io::fcntl_dupfd_cloexec(&reader, 200).unwrap();
        rustix::io::fcntl_setfd(&reader, rustix::io::FdFlags::empty()).unwrap();
        let name = [Action::List("/proc/self/fd".into())];
        let fd = reader.as_raw_fd().to_string();
        let has = |outcome: &Result<String, i32>| outcome.as_ref().unwrap().split(' ').any(|name| name == fd);
        assert!(has(&place.run(None, &name)[0]));
        assert!(!has(&place.run(Some(place.plan()), &name)[0]));
        // One more than the standard three, which is the folder that is being listed.
        assert_eq!(place.run(Some(place.plan()), &name)[0].as_ref().unwrap().split(' ').count(), 4);
    });
}

/// Calls with arguments that the kernel would refuse in another way, if it came to see them.
#[test]
fn dangerous_calls_are_denied() {
    // Threads share their signal handlers, or the kernel refuses.
    let thread = libc::CLONE_THREAD;
    let calls: &[(&str, i64, &[u64])] = &[
        ("ptrace", libc::SYS_ptrace, &[u64::MAX]),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[1, 0, u64::MAX]),
        ("process_vm_writev", libc::SYS_process_vm_writev, &[1, 0, u64::MAX]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[1, 0]),
        ("io_uring_enter", libc::SYS_io_uring_enter, &[u64::MAX]),
        ("bpf", libc::SYS_bpf, &[u64::MAX]),
        ("keyctl", libc::SYS_keyctl, &[u64::MAX]),
        ("add_key", libc::SYS_add_key, &[]),
        ("request_key", libc::SYS_request_key, &[]),
        ("userfaultfd", libc::SYS_userfaultfd, &[u64::MAX]),
        ("perf_event_open", libc::SYS_perf_event_open, &[]),
        ("unshare", libc::SYS_unshare, &[libc::CLONE_NEWUSER as u64 | 1]),
        ("setns", libc::SYS_setns, &[u64::MAX]),
        ("mount", libc::SYS_mount, &[]),
        ("umount2", libc::SYS_umount2, &[0, u64::MAX]),
        ("chroot", libc::SYS_chroot, &[]),
        ("pivot_root", libc::SYS_pivot_root, &[]),
        ("open_tree", libc::SYS_open_tree, &[0, 0, u64::MAX]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, &[u64::MAX]),
        ("name_to_handle_at", libc::SYS_name_to_handle_at, &[]),
        ("personality", libc::SYS_personality, &[u64::MAX]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, &[u64::MAX, 0, 1]),
        ("mknodat", libc::SYS_mknodat, &[u64::MAX]),
        ("setresuid", libc::SYS_setresuid, &[u64::MAX, u64::MAX, u64::MAX]),
        ("seccomp", libc::SYS_seccomp, &[u64::MAX]),
        ("a raw socket", libc::SYS_socket, &[libc::AF_INET as u64, libc::SOCK_RAW as u64, 1]),
        ("a netlink socket", libc::SYS_socket, &[libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0]),
        ("a packet socket", libc::SYS_socket, &[libc::AF_PACKET as u64, libc::SOCK_RAW as u64, 0]),
        ("clone into a user namespace", libc::SYS_clone, &[(libc::CLONE_NEWUSER | thread) as u64]),
        ("clone into a mount namespace", libc::SYS_clone, &[(libc::CLONE_NEWNS | thread) as u64]),
    ];
    everywhere(|place| {
        let actions: Vec<_> =
            calls.iter().map(|(_, call, args)| Action::Call(*call, args.to_vec())).collect();
        let outcomes = place.run(Some(place.plan()), &actions);
        for ((name, ..), outcome) in calls.iter().zip(outcomes) {
            assert_eq!(outcome, Err(libc::EPERM), "{name}");
        }
        let in_memory = [Action::Call(libc::SYS_memfd_create, Vec::new())];
        assert_eq!(place.run(Some(place.plan()), &in_memory), [Err(libc::ENOSYS)]);
        // Its flags can't be seen by a filter; libc falls back to `clone`.
        let clone3 = [Action::Call(libc::SYS_clone3, vec![0, 0])];
        assert_eq!(place.run(Some(place.plan()), &clone3), [Err(libc::ENOSYS)]);
        // What would let the worker survive its parent.
        let survive = [Action::Call(libc::SYS_prctl, vec![libc::PR_SET_PDEATHSIG as u64, 0])];
        assert_eq!(place.run(Some(place.plan()), &survive), [Err(libc::ENOSYS)]);
        assert!(place.run(None, &survive)[0].is_ok());
        if place.user == User::Root {
            // Root unconfined gets past the door: the errors are others.
            for ((name, ..), outcome) in calls.iter().zip(place.run(None, &actions)) {
                assert_ne!(outcome, Err(libc::EPERM), "unconfined, {name}");
            }
        }
    });
}

#[test]
fn names_do_not_resolve() {
    everywhere(|place| {
        for name in ["localhost", "example.invalid"] {
            assert!(place.run(Some(place.plan()), &[Action::Resolve(name.to_owned())])[0].is_err());
        }
    });
}

#[test]
fn a_private_root_holds_only_what_the_plan_names() {
    everywhere(|place| {
        if place.level != Isolation::Container {
            return;
        }
        let plan = place.running(&["/usr/bin", "/bin"]);
        // A folder of `/` can't be listed by rule of Landlock, so the shell looks for names.
        let script = "for f in /home /root /etc/passwd /sys /var /boot /proc/1/root/etc/passwd; do \
                      [ -e $f ] && echo $f; done; [ -e /usr/lib ] && echo /usr/lib";
        let shell = Action::Exec("/bin/sh".into(), vec!["-c".to_owned(), script.to_owned()]);
        assert_eq!(place.run(Some(plan), &[shell]), [Ok("/usr/lib\n".to_owned())]);
    });
}

#[test]
fn a_program_in_memory_is_not_run() {
    everywhere(|place| {
        let program = place.at("package/program");
        install(&place.at("probe"), &program);
        let mut plan = place.plan();
        plan.memfd = true;
        plan.engine_paths.push("/proc".into());
        let actions = [Action::ExecFromMemory(program)];
        assert_eq!(place.run(Some(plan), &actions), [Err(libc::EPERM)]);
        // Unconfined it runs, and finds nothing to do.
        let mut probe = place.start(None, &actions);
        assert_eq!(probe.wait().code(), Some(NOTHING_TO_DO));
    });
}

/// Root plants a program that would make its user root.
#[test]
fn a_setuid_program_gives_nothing() {
    if !crate::fixture::is_root() {
        return crate::fixture::skip("a setuid program", "only root can plant one");
    }
    everywhere(|place| {
        let program = place.at("package/id");
        install("/usr/bin/id".as_ref(), &program);
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
        fs::set_permissions(&program, mode).unwrap();
        let actions = [Action::Exec(program, vec!["-u".to_owned()])];
        if place.user == User::Bare {
            return;
        }
        let plan = place.running(&["package/id"]);
        let own = if place.user == User::Root { "0\n" } else { "65534\n" };
        assert_eq!(place.run(Some(plan), &actions), [Ok(own.to_owned())]);
        assert_eq!(place.run(None, &actions), [Ok("0\n".to_owned())]);
    });
}

#[test]
fn root_has_no_capabilities_left() {
    everywhere(|place| {
        let status = place.run(Some(place.plan()), &[Action::Read("/proc/self/status".into())]);
        let status = status[0].as_ref().unwrap();
        let line = |name: &str| status.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(line(set).split('\t').nth(1), Some("0000000000000000"), "{set}");
        }
        assert_eq!(line("NoNewPrivs"), "NoNewPrivs:\t1");
        assert_eq!(line("Seccomp:"), "Seccomp:\t2");
        if place.user == User::Root {
            assert_eq!(line("CapBnd").split('\t').nth(1), Some("0000000000000000"));
        }
    });
}
