//! What a confined process can still do.

use std::fs;
use std::net::TcpListener;

use quadriga_abi::Isolation;
use quadriga_sandbox::confine::{Access, ExecMemory, Grant, Layer, Net, PROXY_PORT, Plan, State};

use crate::action::Action;
use crate::fixture::{Place, User, everywhere, install, skip};

type Row = (&'static str, fn(&Place, &mut Plan), fn(&Place) -> Action, Option<&'static str>);

/// What is asked for, what is done with it, and what that says, if that matters.
const WORKS: &[Row] = &[
    ("the package", |_, _| (), |place| Action::Read(place.at("package/file")), Some("in package")),
    ("the scratch folder", |_, _| (), |place| Action::Work(place.at("scratch")), Some("text")),
    ("the current folder", |_, _| (), |_| Action::Work(".".into()), Some("text")),
    ("threads", |_, _| (), |_| Action::Threads(8), Some("28")),
    ("memory", |_, _| (), |_| Action::Allocate(32 << 20), Some("33554432")),
    ("clocks", |_, _| (), |_| Action::Clocks, Some("true")),
    ("pairs of sockets", |_, _| (), |_| Action::StreamPair, None),
    ("devices", |_, _| (), |_| Action::OpenMany(10), Some("10")),
    ("its own /proc", |_, _| (), |_| Action::List("/proc/self/fdinfo".into()), None),
    (
        "the environment",
        |_, plan| {
            plan.env.insert("LANG".to_owned(), "C".to_owned());
        },
        |_| Action::Env("LANG".to_owned()),
        Some("C"),
    ),
    (
        "a path granted to read",
        |place, plan| grant(plan, place, "granted-to-read", Access::ReadOnly),
        |place| Action::Read(place.at("granted-to-read/file")),
        Some("in granted-to-read"),
    ),
    (
        "a path granted to write",
        |place, plan| grant(plan, place, "granted", Access::ReadWrite),
        |place| Action::Work(place.at("granted")),
        Some("text"),
    ),
    (
        "one granted file",
        |place, plan| grant(plan, place, "granted/file", Access::ReadWrite),
        |place| Action::Write(place.at("granted/file")),
        None,
    ),
    (
        "memory for a compiler",
        |_, plan| plan.exec_memory = ExecMemory::Any,
        |_| Action::ProtectExecutable,
        None,
    ),
    (
        "a file in memory",
        |_, plan| plan.memfd = true,
        |_| Action::Call(libc::SYS_memfd_create, vec![c"name".as_ptr() as u64, u64::MAX]),
        None,
    ),
    (
        "a program",
        programs,
        |_| Action::Exec("/bin/sh".into(), vec!["-c".to_owned(), "echo $((6 * 7)) | cat".to_owned()]),
        Some("42\n"),
    ),
    ("sockets of UDP", |_, plan| plan.net = Net::Any, |_| Action::Udp, None),
    ("to listen", |_, plan| plan.net = Net::Any, |_| Action::ListenTcp, None),
];

fn grant(plan: &mut Plan, place: &Place, name: &str, access: Access) {
    plan.grants.push(Grant { path: place.at(name), access });
}

fn programs(place: &Place, plan: &mut Plan) {
    *plan = place.running(&["/usr/bin", "/bin"]);
}

#[test]
fn ordinary_work_works() {
    everywhere(|place| {
        for (name, ask, action, says) in WORKS {
            let mut plan = place.plan();
            ask(place, &mut plan);
            // Programs need a PID namespace, so that they end with the worker.
            if plan.grants.iter().any(|grant| grant.access == Access::Run) && place.user == User::Bare {
                continue;
            }
            let outcome = place.run(Some(plan), &[action(place)]).remove(0);
            if *name == "a file in memory" {
                // Past the filter, where the flags are no good.
                assert_eq!(outcome, Err(libc::EINVAL), "{name}");
                continue;
            }
            let said = outcome.unwrap_or_else(|error| panic!("{name}: error {error}"));
            assert_eq!(says.unwrap_or(&said), said, "{name}");
        }
    });
}

/// Where mounts guard what may not be written; where they don't, nothing is changed.
#[test]
fn modes_and_times_are_changed_where_one_may_write() {
    everywhere(|place| {
        let (ours, package) = (place.at("scratch/file"), place.at("package/file"));
        let mut changes = vec![Action::Copy(package.clone(), place.at("scratch/copy"))];
        for path in [ours, package] {
            changes.extend([Action::Chmod(path.clone()), Action::Touch(path)]);
        }
        let outcomes = place.run(Some(place.plan()), &changes);
        let denied: Vec<_> = outcomes.iter().map(|outcome| outcome.as_ref().err().copied()).collect();
        let expected = if place.user == User::Bare {
            [Some(libc::EPERM); 5]
        } else {
            [None, None, None, Some(libc::EROFS), Some(libc::EROFS)]
        };
        assert_eq!(denied, expected);
    });
}

#[test]
fn namespaces_are_others_than_those_of_the_host() {
    let kinds = [
        ("user", Layer::UserNamespace),
        ("mnt", Layer::MountNamespace),
        ("ipc", Layer::IpcNamespace),
        ("net", Layer::NetNamespace),
        ("uts", Layer::UtsNamespace),
        ("pid", Layer::PidNamespace),
    ];
    everywhere(|place| {
        let links = kinds.map(|(kind, _)| Action::ReadLink(format!("/proc/self/ns/{kind}").into()));
        let hosts = place.run(None, &links);
        let mut worker = place.start(Some(place.plan()), &links);
        let report = worker.report.clone().unwrap();
        for ((kind, layer), host) in kinds.iter().zip(hosts) {
            let own = worker.outcome().unwrap().unwrap();
            let state = report.layers.iter().find(|status| status.layer == *layer).unwrap().state;
            // An unconfined probe without namespaces is in a user namespace of its own.
            if (place.user, *kind) != (User::Bare, "user") {
                assert_eq!(own != host.unwrap(), state == State::Reached, "{kind}");
            }
        }
        worker.end();
        let devices = place.run(Some(place.plan()), &[Action::Read("/proc/self/net/dev".into())]).remove(0);
        let count = |table: &str| table.lines().skip(2).count();
        // The host may have no other than this one either.
        let hosts = fs::read_to_string("/proc/self/net/dev").unwrap();
        let expected = if place.user == User::Bare { count(&hosts) } else { 1 };
        assert_eq!(count(&devices.unwrap()), expected, "{hosts}");
    });
}

#[test]
fn what_cannot_be_reached_is_reported_or_refused() {
    let place = Place::new(Isolation::Process, User::Bare);
    let worker = match place.spawn().enter(Some(place.plan()), &[]) {
        Ok(worker) => worker,
        Err(error) => return skip("a user without namespaces", &error),
    };
    let report = worker.report.clone().unwrap();
    worker.end();
    for layer in [Layer::UserNamespace, Layer::MountNamespace, Layer::NetNamespace, Layer::ReadOnlyMounts] {
        let status = report.layers.iter().find(|status| status.layer == layer).unwrap();
        assert_eq!(status.state, State::NotReached, "{status:?}");
        assert!(!status.note.is_empty());
    }
    let demands: [fn(&mut Plan); 3] = [
        |plan| plan.isolation = Isolation::Container,
        |plan| plan.grants.push(Grant { path: "/usr/lib".into(), access: Access::Run }),
        |plan| plan.limits.processes = Some(100),
    ];
    for demand in demands {
        let mut plan = place.plan();
        demand(&mut plan);
        let error = place.spawn().enter(Some(plan), &[]).err().expect("an error");
        assert!(error.contains("needs a user namespace, which can't be reached: unshare"), "{error}");
    }
}

#[test]
fn a_grant_gives_no_more_than_it_says() {
    everywhere(|place| {
        let mut plan = place.plan();
        grant(&mut plan, place, "granted-to-read", Access::ReadOnly);
        grant(&mut plan, place, "granted", Access::ReadWrite);
        if place.user != User::Bare {
            programs(place, &mut plan);
        }
        install(&place.at("probe"), &place.at("granted/program"));
        place.give(&place.at("granted/program"));
        let beyond = [
            Action::Write(place.at("granted-to-read/file")),
            Action::Write(place.at("granted-to-read/new")),
            Action::Truncate(place.at("granted-to-read/file")),
            Action::Chmod(place.at("granted-to-read/file")),
            Action::Read(place.at("granted/../home/file")),
            Action::WriteByHardLink(place.at("granted"), place.at("granted-to-read/file")),
            // What an extension can write it can't run.
            Action::Exec(place.at("granted/program"), Vec::new()),
        ];
        for (action, outcome) in beyond.iter().zip(place.run(Some(plan), &beyond)) {
            assert!(outcome.is_err(), "{action:?}: {outcome:?}");
        }
    });
}

#[test]
fn a_library_that_was_written_is_not_mapped() {
    everywhere(|place| {
        let [ours, package] = ["scratch", "package"].map(|name| Action::MapFile(place.at(name).join("file")));
        let outcome = |exec, action: &Action| {
            place
                .run(Some(Plan { exec_memory: exec, ..place.plan() }), std::slice::from_ref(action))
                .remove(0)
        };
        assert!(outcome(ExecMemory::Libraries, &package).is_ok());
        assert_eq!(outcome(ExecMemory::Denied, &package), Err(libc::EPERM));
        assert!(outcome(ExecMemory::Any, &ours).is_ok());
        // Mounts see to it, where there are some.
        assert_eq!(outcome(ExecMemory::Libraries, &ours).is_err(), place.user != User::Bare);
    });
}

#[test]
fn a_package_inside_of_a_writable_path_stays_as_it_is() {
    everywhere(|place| {
        let mut plan = place.plan();
        fs::create_dir(place.at("granted/package")).unwrap();
        fs::write(place.at("granted/package/file"), "as it is").unwrap();
        place.give(&place.at("granted/package"));
        place.give(&place.at("granted/package/file"));
        plan.package = place.at("granted/package");
        grant(&mut plan, place, "granted", Access::ReadWrite);
        if place.user == User::Bare {
            let error = place.spawn().enter(Some(plan), &[]).err().expect("an error");
            return assert!(error.contains("needs read-only mounts"), "{error}");
        }
        let actions = [
            Action::Write(place.at("granted/file")),
            Action::Read(place.at("granted/package/file")),
            Action::Write(place.at("granted/package/file")),
            Action::Write(place.at("granted/package/new")),
            Action::Chmod(place.at("granted/package/file")),
        ];
        let outcomes = place.run(Some(plan), &actions);
        assert!(outcomes[0].is_ok());
        assert_eq!(outcomes[1], Ok("as it is".to_owned()));
        assert_eq!(outcomes[2..], [const { Err(libc::EROFS) }; 3]);
    });
}

/// Whoever asks for a proxy finds that in its network, and nothing of the host's.
#[test]
fn there_is_the_proxy_and_nothing_else() {
    everywhere(|place| {
        let host = TcpListener::bind("127.0.0.1:0").unwrap();
        let hosts = host.local_addr().unwrap().to_string();
        let plan = Plan { net: Net::Proxy, ..place.plan() };
        let actions = [
            Action::Tcp(format!("127.0.0.1:{PROXY_PORT}")),
            Action::Tcp(hosts.clone()),
            Action::Tcp("[::1]:80".to_owned()),
            Action::Tcp("192.0.2.1:80".to_owned()),
            Action::ListenTcp,
            Action::Udp,
            Action::Unix(place.at("socket")),
            Action::Call(libc::SYS_socket, vec![libc::AF_INET as u64, libc::SOCK_STREAM as u64, 262]),
            Action::Call(libc::SYS_socket, vec![libc::AF_NETLINK as u64, libc::SOCK_RAW as u64, 0]),
            Action::Call(libc::SYS_sendto, vec![1, 0, 0, libc::MSG_FASTOPEN as u64]),
        ];
        if place.user == User::Bare {
            let error = place.spawn().enter(Some(plan), &[]).err().expect("an error");
            return assert!(error.contains("needs a network namespace, which can't be reached"), "{error}");
        }
        let outcomes = place.run(Some(plan), &actions);
        assert!(outcomes[0].is_ok(), "{:?}", outcomes[0]);
        for (action, outcome) in actions.iter().zip(&outcomes).skip(1) {
            assert!(outcome.is_err(), "{action:?}: {outcome:?}");
        }
        assert!(place.run(None, &[Action::Tcp(hosts)])[0].is_ok(), "without confinement it is there");
        host.set_nonblocking(true).unwrap();
        assert!(host.accept().is_ok() && host.accept().is_err(), "once, by who was not confined");
    });
}

#[test]
fn the_report_says_which_layers_were_reached() {
    everywhere(|place| {
        let worker = place.start(Some(place.plan()), &[]);
        let report = worker.report.clone().unwrap();
        worker.end();
        assert_eq!(report.isolation, place.level);
        let state = |layer| report.layers.iter().find(|status| status.layer == layer).unwrap().state;
        for layer in [Layer::Environment, Layer::NoNewPrivileges, Layer::Limits, Layer::Seccomp] {
            assert_eq!(state(layer), State::Reached, "{layer}");
        }
        let inside = if place.level == Isolation::Container { State::Reached } else { State::NotAsked };
        for layer in [Layer::UtsNamespace, Layer::PidNamespace, Layer::PrivateRoot] {
            assert_eq!(state(layer), inside, "{layer}");
        }
    });
}

#[test]
fn what_a_level_demands_is_not_left_out() {
    everywhere(|place| {
        let fails = |change: &dyn Fn(&mut Plan), says: &str| {
            let mut plan = place.plan();
            change(&mut plan);
            let error = place.spawn().enter(Some(plan), &[]).err().expect("an error");
            assert!(error.contains(says), "{error:?} says nothing of {says:?}");
        };
        fails(&|plan| plan.parent = 1, "the parent is");
        fails(&|plan| plan.isolation = Isolation::Vm, "the level vm");
        fails(&|plan| plan.package = "/nowhere".into(), "/nowhere: No such file");
        fails(&|plan| grant(plan, place, "nowhere", Access::ReadOnly), "nowhere: No such file");
        fails(&|plan| plan.package = "relative".into(), "relative");
        fails(&|plan| plan.scratch = Some(place.at("scratch/../home")), "not an absolute path");
        if place.user == User::Root {
            fails(&|plan| plan.limits.processes = Some(8), "doesn't bind root");
        }
    });
}

/// Already confined, a process can't make the namespaces that a container demands.
#[test]
fn a_container_inside_of_a_worker_is_refused() {
    everywhere(|place| {
        if place.user == User::Bare {
            return;
        }
        let mut plan = place.plan();
        programs(place, &mut plan);
        plan.grants.push(Grant { path: place.at("probe"), access: Access::Run });
        plan.engine_paths.push("/proc".into());
        let inner = crate::action::Work {
            plan: Plan { isolation: Isolation::Container, ..place.plan() },
            actions: Vec::new(),
        };
        let outer = [Action::Supervise(Box::new(inner))];
        let mut worker = place.start(Some(plan), &outer);
        let line = worker.line();
        assert!(line.contains("Err") && line.contains("isolation container needs"), "{line}");
        worker.end();
    });
}
