//! Limits of each process.

use std::os::unix::process::ExitStatusExt as _;

use quadriga_abi::Isolation;
use quadriga_sandbox::confine::RunAs;

use crate::action::{Action, Outcome};
use crate::fixture::{Place, User, everywhere, is_root, skip};

fn number(outcome: &Outcome) -> u64 {
    outcome.as_ref().unwrap().parse().unwrap()
}

#[test]
fn open_files_are_bounded() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.limits.open_files = Some(40);
        let open = number(&place.run(Some(plan), &[Action::OpenMany(500)])[0]);
        assert!((30..40).contains(&open), "{open} files");
        assert_eq!(number(&place.run(None, &[Action::OpenMany(500)])[0]), 500);
    });
}

#[test]
fn files_are_bounded_and_the_process_goes_on() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.limits.file_size = Some(1 << 20);
        let actions = [
            Action::WriteBytes(place.at("scratch/small"), 1 << 20),
            Action::WriteBytes(place.at("scratch/big"), (1 << 20) + 1),
            Action::Clocks,
        ];
        let outcomes = place.run(Some(plan), &actions);
        assert!(outcomes[0].is_ok() && outcomes[2].is_ok(), "{outcomes:?}");
        assert_eq!(outcomes[1], Err(libc::EFBIG));
    });
}

/// In memory of its own, so that nothing of it is where the scratch folder was.
#[test]
fn a_scratch_folder_has_the_size_of_the_plan_or_there_is_no_worker() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.scratch_size = Some(1 << 20);
        let actions = [
            Action::WriteBytes(place.at("scratch/half"), 1 << 19),
            Action::WriteBytes(place.at("scratch/more"), (1 << 19) + 8192),
            Action::FilesMany(place.at("scratch"), 1000),
        ];
        if place.user == User::Bare && place.level == Isolation::Process {
            let error = place.spawn().enter(Some(plan), &actions).err().unwrap();
            assert!(error.contains("limit disk"), "{error}");
            return;
        }
        let outcomes = place.run(Some(plan.clone()), &actions);
        assert!(outcomes[0].is_ok(), "{outcomes:?}");
        assert_eq!(outcomes[1], Err(libc::ENOSPC));
        // One for each page, and some more, with the folder and the two that are there already.
        assert_eq!(number(&outcomes[2]), 16 + 256 - 3);
        assert!(!place.at("scratch/half").exists());
        assert_eq!(number(&place.run(None, &[Action::FilesMany(place.at("scratch"), 1000)])[0]), 1000);
        // Not without a limit, which is what the kernel takes 0 for.
        plan.scratch_size = Some(0);
        assert_eq!(number(&place.run(Some(plan), &[Action::FilesMany(place.at("scratch"), 10)])[0]), 0);
    });
}

#[test]
fn slow_processor_time_ends_with_a_signal_that_says_so() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.limits.cpu_seconds = Some(1);
        let mut worker = place.start(Some(plan), &[Action::Spin]);
        assert_eq!(worker.wait().signal(), Some(libc::SIGXCPU));
    });
}

#[test]
fn slow_address_space_is_bounded_where_asked() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.limits.address_space = Some(256 << 20);
        let mut worker = place.start(Some(plan), &[Action::Allocate(512 << 20)]);
        assert_eq!(worker.outcome(), None);
        assert_eq!(worker.wait().signal(), Some(libc::SIGABRT));
        assert_eq!(place.run(Some(place.plan()), &[Action::Allocate(512 << 20)]).len(), 1);
    });
}

#[test]
fn slow_memory_is_bounded_without_a_cgroup() {
    everywhere(|place| {
        let mut plan = place.plan();
        plan.limits.data = Some(256 << 20);
        let actions = [Action::Reserve(1 << 40), Action::Allocate(64 << 20), Action::Allocate(512 << 20)];
        let outcomes = place.run(Some(plan), &actions);
        assert_eq!(outcomes.len(), 2, "{outcomes:?}");
        assert!(outcomes.iter().all(Result::is_ok), "{outcomes:?}");
    });
}

/// Counted in the worker's own user namespace, whatever else the user runs.
#[test]
fn an_ordinary_user_forks_within_bounds() {
    everywhere(|place| {
        if place.user == User::Ordinary {
            forks_within_bounds(place, None);
        }
    });
}

#[test]
fn root_forks_within_bounds_as_another_user() {
    if !is_root() {
        return skip("run-as", "only root can become another user");
    }
    for level in crate::fixture::LEVELS {
        // Its folders belong to the user that it becomes, but root starts it.
        let mut place = Place::new(level, User::Ordinary);
        place.user = User::Root;
        let user = RunAs { uid: 65534, gid: 65534 };
        forks_within_bounds(&place, Some(user));
        let mut plan = place.plan();
        plan.run_as = Some(user);
        let status = place.run(Some(plan), &[Action::Read("/proc/self/status".into())]).remove(0).unwrap();
        assert!(status.contains("Uid:\t65534\t65534\t65534\t65534"), "{status}");
        assert!(status.contains("Groups:\t65534 \n"), "{status}");
    }
}

fn forks_within_bounds(place: &Place, run_as: Option<RunAs>) {
    let mut plan = place.plan();
    plan.run_as = run_as;
    plan.limits.processes = Some(12);
    let threads = number(&place.run(Some(plan), &[Action::ThreadsMany(100)])[0]);
    assert!((8..12).contains(&threads), "{threads} threads");
    let mut plan = place.running(&[]);
    plan.run_as = run_as;
    plan.limits.processes = Some(12);
    let forks = number(&place.run(Some(plan), &[Action::ForkMany(100)])[0]);
    assert!((8..12).contains(&forks), "{forks} processes");
}

#[test]
fn no_core_is_dumped() {
    everywhere(|place| {
        let mut worker = place.start(Some(place.plan()), &[Action::Abort]);
        let status = worker.wait();
        assert_eq!(status.signal(), Some(libc::SIGABRT));
        assert!(!status.core_dumped());
    });
}

#[test]
fn the_end_of_the_worker_is_seen_through_the_warden() {
    everywhere(|place| {
        assert_eq!(place.start(Some(place.plan()), &[Action::Exit(7)]).wait().code(), Some(7));
        assert_eq!(place.start(Some(place.plan()), &[]).wait().code(), Some(0));
        let mut worker = place.start(Some(place.plan()), &[Action::Signal(own(place), libc::SIGTERM)]);
        let expected = if place.level == Isolation::Container { Some(libc::SIGTERM) } else { None };
        if let Some(signal) = expected {
            assert_eq!(worker.wait().signal(), Some(signal));
        } else {
            worker.end();
        }
    });
}

/// The pid of a worker in its namespace: after the init.
fn own(place: &Place) -> u32 {
    if place.level == Isolation::Container { 2 } else { 0 }
}
