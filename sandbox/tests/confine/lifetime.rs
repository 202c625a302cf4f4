//! When the host ends, or the worker, nothing of it stays.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use quadriga_abi::Isolation;

use crate::action::{Action, Work};
use crate::fixture::{Place, User, everywhere};

/// All descendants of a process, the nearest first.
fn descendants(of: u32) -> Vec<u32> {
    let all: Vec<_> = fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| parent(&entry)).collect();
    let mut found = vec![of];
    let mut next = 0;
    while let Some(pid) = found.get(next).copied() {
        found.extend(all.iter().filter(|(_, parent)| *parent == pid).map(|(child, _)| *child));
        next += 1;
    }
    found.split_off(1)
}

/// A process and its parent.
fn parent(entry: &fs::DirEntry) -> Option<(u32, u32)> {
    let pid = entry.file_name().to_str()?.parse().ok()?;
    let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
    let mut rest = stat.rsplit_once(") ")?.1.split(' ');
    (rest.next()? != "Z").then_some(())?;
    Some((pid, rest.next()?.parse().ok()?))
}

pub(crate) fn gone(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Who took the orphans over may not have looked at them yet.
    stat.is_empty() || stat.contains(") Z ")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !condition() {
        assert!(Instant::now() < end, "not in time: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}

/// A probe that supervises another one, confined, which stays.
fn supervisor(place: &Place, actions: &[Action], programs: bool) -> crate::fixture::Worker {
    let plan = if programs { place.running(&[]) } else { place.plan() };
    let work = Work { plan, actions: actions.to_vec() };
    let mut supervisor = place.start(None, &[Action::Supervise(Box::new(work))]);
    // What the inner probe says comes first.
    for _ in 0..actions.len() {
        let line = supervisor.line();
        assert!(line.contains("\"Ok\""), "{line}");
    }
    supervisor
}

#[test]
fn a_worker_ends_with_its_supervisor() {
    everywhere(|place| {
        let mut supervisor = supervisor(place, &[Action::Sleep], false);
        let workers = descendants(supervisor.child.id());
        let processes = if place.level == Isolation::Container { 3 } else { 1 };
        assert_eq!(workers.len(), processes, "{workers:?}");
        supervisor.child.kill().unwrap();
        supervisor.child.wait().unwrap();
        wait_until("the worker ends with its supervisor", || workers.iter().all(|pid| gone(*pid)));
    });
}

#[test]
fn what_a_worker_left_running_ends_with_the_supervisor() {
    everywhere(|place| {
        if place.user == User::Bare {
            return;
        }
        let mut supervisor = supervisor(place, &[Action::Daemon, Action::Sleep], true);
        let workers = descendants(supervisor.child.id());
        assert_eq!(workers.len(), 4, "warden, init, worker and daemon: {workers:?}");
        supervisor.child.kill().unwrap();
        supervisor.child.wait().unwrap();
        wait_until("all end", || workers.iter().all(|pid| gone(*pid)));
    });
}

#[test]
fn what_a_worker_left_running_ends_with_the_worker() {
    everywhere(|place| {
        if place.user == User::Bare {
            return;
        }
        let mut worker = place.start(Some(place.running(&[])), &[Action::Daemon, Action::Spin]);
        worker.outcome().unwrap().unwrap();
        let all = descendants(worker.child.id());
        assert_eq!(all.len(), 3, "init, worker and daemon: {all:?}");
        worker.child.kill().unwrap();
        worker.child.wait().unwrap();
        wait_until("all end", || all.iter().all(|pid| gone(*pid)));
    });
}

#[test]
fn slow_nothing_is_left_of_200_workers() {
    everywhere(|place| {
        let count = if place.user == User::Root { 200 } else { 50 };
        let work = Work { plan: place.plan(), actions: Vec::new() };
        let said = place.run(None, &[Action::Cycles(count, Box::new(work))]).remove(0).unwrap();
        let (before, after) = said.split_once('\n').unwrap();
        assert_eq!(before.strip_prefix("before "), after.strip_prefix("after "), "{said}");
    });
}
