use std::io::Read as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, Stdio};

use super::*;

#[test]
fn a_process_that_enters_by_the_doors_need_not_be_moved() {
    let Ok(group) = Cgroup::create("doors", &CgroupLimits::default()) else {
        return eprintln!("SKIPPED: no cgroup can be made here");
    };
    let open = group.doors();
    let path = |door: &OwnedFd| format!("/proc/{}/fd/{}", std::process::id(), door.as_raw_fd());
    let doors: Vec<String> = open.iter().map(path).collect();
    if doors.is_empty() {
        return eprintln!("SKIPPED: version 2 has no doors");
    }
    let start = |doors: &[String]| {
        let script = r#"for door do echo 0 > "$door"; done; echo in; read line"#;
        let mut shell = Command::new("sh");
        shell.args(["-c", script, "sh"]).args(doors).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = shell.spawn().unwrap();
        child.stdout.take().unwrap().read_exact(&mut [0; 3]).unwrap();
        child
    };
    let [mut outside, mut half, mut inside] = [start(&[]), start(&doors[1..]), start(&doors)];
    let held = [&outside, &half, &inside].map(|child| group.holds(child.id()));
    assert_eq!(held, [false, false, true]);
    group.add(half.id()).unwrap();
    assert!(group.holds(half.id()));
    group.destroy().unwrap();
    assert_eq!([half.wait(), inside.wait()].map(|ended| ended.unwrap().signal()), [Some(9); 2]);
    outside.kill().unwrap();
    assert!(!outside.wait().unwrap().success());
}

/// What version 2 has without a controller works wherever it is mounted.
#[test]
fn version_2_freezes_kills_and_leaves_nothing() {
    let trees = hierarchy::version_2();
    let Some(parent) = trees.first().map(|tree| tree.parent.clone()) else {
        return eprintln!("SKIPPED: version 2: it is not mounted, or not delegated to this user");
    };
    let name = format!("{}-test-v2", hierarchy::own_prefix());
    let group = Cgroup::create_in(trees, &name, &CgroupLimits::default()).unwrap();
    let mut child = Command::new("sleep").arg("1000").spawn().unwrap();
    group.add(child.id()).unwrap();
    assert_eq!(group.pids().unwrap(), [child.id()]);
    group.freeze().unwrap();
    group.thaw().unwrap();
    assert!(group.usage().unwrap().cpu_time.is_some());
    group.freeze().unwrap();
    group.kill_all().unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(9));
    group.destroy().unwrap();
    assert!(!parent.join(name).exists());
}
