//! Limits of all processes of a worker together.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use quadriga_abi::Isolation;
use quadriga_sandbox::confine::{Cgroup, CgroupLimits, Layer, State, probe};

use crate::action::Action;
use crate::fixture::{LEVELS, Place, User, Worker, is_root, or_skip, skip};
use crate::groups_of::group_folders;
use crate::lifetime::gone;

/// A cgroup and a worker in it, at each level.
fn each(what: &str, limits: CgroupLimits, actions: &[Action], mut test: impl FnMut(&Cgroup, &mut Worker)) {
    let user = if is_root() { User::Root } else { User::Ordinary };
    for level in LEVELS {
        let Some(group) = or_skip(what, Cgroup::create(what, &limits)) else {
            return;
        };
        let place = Place::new(level, user);
        let waiting = place.spawn();
        group.add(waiting.0.id()).unwrap();
        let forks = actions.iter().any(|action| matches!(action, Action::ForkMany(_)));
        let plan = if forks { place.running(&[]) } else { place.plan() };
        let mut worker = waiting.enter(Some(plan), actions).unwrap();
        test(&group, &mut worker);
        worker.end();
        group.destroy().unwrap();
    }
}

#[test]
fn memory_is_bounded_and_only_the_hog_ends() {
    let limits = CgroupLimits { memory: Some(64 << 20), ..CgroupLimits::default() };
    let actions = [Action::Allocate(16 << 20), Action::Allocate(256 << 20)];
    each("memory", limits, &actions, |group, hog| {
        let place = Place::new(Isolation::Process, if is_root() { User::Root } else { User::Ordinary });
        let waiting = place.spawn();
        let others = Cgroup::create("sibling", &limits).unwrap();
        others.add(waiting.0.id()).unwrap();
        let mut sibling = waiting.enter(Some(place.plan()), &[Action::Sleep]).unwrap();
        assert!(hog.outcome().unwrap().is_ok());
        assert_eq!(hog.outcome(), None);
        assert_eq!(hog.wait().signal(), Some(libc::SIGKILL));
        let usage = group.usage().unwrap();
        assert_eq!(usage.oom_kills, Some(1), "{usage:?}");
        assert!(usage.memory.unwrap() < 64 << 20);
        assert!(sibling.child.try_wait().unwrap().is_none());
        assert_eq!(others.usage().unwrap().oom_kills, Some(0));
        sibling.end();
    });
}

/// Each of two would fit alone. Of those that do not fit together the largest ends.
#[test]
fn memory_of_several_is_bounded_together_and_only_the_hog_ends() {
    let Some(outer) = or_skip("around", Cgroup::create_around("around", 160 << 20)) else { return };
    let outer = Arc::new(outer);
    let user = if is_root() { User::Root } else { User::Ordinary };
    let place = Place::new(Isolation::Process, user);
    let limits = CgroupLimits { memory: Some(150 << 20), ..CgroupLimits::default() };
    let start = |actions: &[Action]| {
        let group = Cgroup::create_within(&outer, "within", &limits).unwrap();
        let waiting = place.spawn();
        group.add(waiting.0.id()).unwrap();
        (group, waiting.enter(Some(place.plan()), actions).unwrap())
    };
    let (others, mut sibling) = start(&[Action::Hold(48 << 20), Action::Sleep]);
    assert!(sibling.outcome().unwrap().is_ok());
    let held = outer.usage().unwrap().memory.unwrap();
    assert!((48 << 20..160 << 20).contains(&held), "{held}");
    let (group, mut hog) = start(&[Action::Allocate(16 << 20), Action::Allocate(128 << 20)]);
    assert!(hog.outcome().unwrap().is_ok());
    assert_eq!(hog.outcome(), None);
    assert_eq!(hog.wait().signal(), Some(libc::SIGKILL));
    assert_eq!(group.usage().unwrap().oom_kills, Some(1));
    assert!(sibling.child.try_wait().unwrap().is_none());
    sibling.end();
    drop((group, others));
    Arc::into_inner(outer).unwrap().destroy().unwrap();
}

#[test]
fn limits_change_while_it_runs() {
    let limits = CgroupLimits { memory: Some(512 << 20), processes: Some(200), cpu_share: None };
    each("changing", limits, &[Action::Sleep], |group, _| {
        for memory in [Some(64 << 20), Some(256 << 20), None, Some(128 << 20)] {
            let limits = CgroupLimits { memory, processes: Some(8), cpu_share: Some(0.5) };
            if or_skip("all controllers", group.set_limits(&limits)).is_none() {
                return;
            }
        }
        let usage = group.usage().unwrap();
        assert!(usage.processes.unwrap() >= 1 && usage.memory.unwrap() > 0, "{usage:?}");
    });
}

#[test]
fn a_fork_bomb_of_root_is_bounded() {
    let limits = CgroupLimits { processes: Some(16), ..CgroupLimits::default() };
    each("forks", limits, &[Action::ForkMany(500), Action::Sleep], |group, bomb| {
        let forks: usize = bomb.outcome().unwrap().unwrap().parse().unwrap();
        assert!((10..16).contains(&forks), "{forks} processes");
        assert!(group.usage().unwrap().processes.unwrap() <= 16);
    });
    each("threads", limits, &[Action::ThreadsMany(500), Action::Sleep], |_, bomb| {
        let threads: usize = bomb.outcome().unwrap().unwrap().parse().unwrap();
        assert!((10..16).contains(&threads), "{threads} threads");
    });
}

#[test]
fn a_share_of_a_processor_is_no_more_than_that() {
    let limits = CgroupLimits { cpu_share: Some(0.2), ..CgroupLimits::default() };
    each("share", limits, &[Action::Spin], |group, _| {
        let (start, used) = (Instant::now(), group.usage().unwrap().cpu_time.unwrap());
        thread::sleep(Duration::from_secs(1));
        let used = group.usage().unwrap().cpu_time.unwrap() - used;
        let share = used.as_secs_f64() / start.elapsed().as_secs_f64();
        assert!((0.02..0.4).contains(&share), "{share}");
    });
}

#[test]
fn a_frozen_worker_stands_still() {
    each("freeze", CgroupLimits::default(), &[Action::Spin], |group, worker| {
        if or_skip("freeze", group.freeze()).is_none() {
            return;
        }
        let before = group.usage().unwrap().cpu_time;
        thread::sleep(Duration::from_millis(200));
        assert_eq!(group.usage().unwrap().cpu_time, before);
        group.thaw().unwrap();
        let end = Instant::now() + Duration::from_secs(10);
        while group.usage().unwrap().cpu_time == before {
            assert!(Instant::now() < end, "it does not go on");
            thread::sleep(Duration::from_millis(5));
        }
        // Killed while it is frozen, it ends too.
        group.freeze().unwrap();
        group.kill_all().unwrap();
        assert_eq!(worker.wait().signal(), Some(libc::SIGKILL));
        assert!(group.pids().unwrap().is_empty());
    });
}

#[test]
fn dropping_a_cgroup_ends_what_is_in_it() {
    let user = if is_root() { User::Root } else { User::Ordinary };
    let place = Place::new(Isolation::Process, user);
    let Some(group) = or_skip("drop", Cgroup::create("drop", &CgroupLimits::default())) else {
        return;
    };
    let waiting = place.spawn();
    group.add(waiting.0.id()).unwrap();
    let mut worker = waiting.enter(Some(place.plan()), &[Action::Sleep]).unwrap();
    drop(group);
    assert_eq!(worker.wait().signal(), Some(libc::SIGKILL));
}

#[test]
fn cgroups_of_hosts_that_are_gone_are_swept() {
    let user = if is_root() { User::Root } else { User::Ordinary };
    let place = Place::new(Isolation::Process, user);
    let Some(group) = or_skip("sweep", Cgroup::create("sweep", &CgroupLimits::default())) else {
        return;
    };
    // A host that is killed, with a worker in a cgroup that is frozen, where no signal reaches it.
    let work = crate::action::Work { plan: place.plan(), actions: vec![Action::Sleep] };
    let mut host = place.start(None, &[Action::Abandon(Box::new(work)), Action::Sleep]);
    let worker: u32 = host.outcome().unwrap().unwrap().parse().unwrap();
    let pid = host.child.id();
    assert!(group_folders(pid) > 0);
    host.end();
    // Another test that starts a host now may sweep it first.
    Cgroup::sweep();
    let end = Instant::now() + Duration::from_secs(10);
    while group_folders(pid) > 0 || !gone(worker) {
        assert!(Instant::now() < end, "it stays");
        thread::sleep(Duration::from_millis(5));
    }
    // That of a host which is there is not.
    assert!(group.usage().is_ok());
    group.destroy().unwrap();
}

#[test]
fn an_ordinary_user_is_told_that_there_is_none() {
    if !is_root() {
        return skip("no cgroup", "only root can tell what others may not");
    }
    let place = Place::new(Isolation::Process, User::Ordinary);
    let said = place.run(None, &[Action::Probe]).remove(0).unwrap();
    let layers: Vec<quadriga_sandbox::confine::LayerStatus> = serde_json::from_str(&said).unwrap();
    let group = layers.iter().find(|status| status.layer == Layer::Cgroup).unwrap();
    match group.state {
        State::NotReached => assert!(group.note.starts_with("no cgroup: "), "{}", group.note),
        _ => skip("no cgroup", "a subtree is delegated to nobody"),
    }
}

#[test]
fn the_probe_says_what_workers_then_reach() {
    for user in crate::fixture::users() {
        let place = Place::new(Isolation::Container, *user);
        let said = place.run(None, &[Action::Probe]).remove(0).unwrap();
        let probed: Vec<quadriga_sandbox::confine::LayerStatus> = serde_json::from_str(&said).unwrap();
        let reached = |layer| {
            let found = probed.iter().find(|status| status.layer == layer);
            found.is_some_and(|status| status.state != State::NotReached)
        };
        let tried = place.spawn().enter(Some(place.plan()), &[]);
        let report = tried.map(|worker| {
            let report = worker.report.clone();
            worker.end();
            report.unwrap()
        });
        match report {
            Ok(report) => {
                let found = report.layers.iter().filter(|status| status.state == State::Reached);
                let early = [Layer::Descriptors, Layer::Environment, Layer::Session];
                for status in found.filter(|status| !early.contains(&status.layer)) {
                    assert!(reached(status.layer), "{status:?}, but the probe says {probed:?}");
                }
            }
            Err(error) => assert!(probed.iter().any(|status| status.state == State::NotReached), "{error}"),
        }
    }
    // In this process, which has many threads, it works as well.
    assert!(probe().iter().any(|status| status.layer == Layer::Seccomp && status.state == State::Reached));
}
