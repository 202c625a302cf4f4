//! The probe as a supervisor.

use std::fs;
use std::io::{self, BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use quadriga_sandbox::confine::{Cgroup, CgroupLimits, Plan};

use crate::action::{Entered, Request, Work};
use crate::groups_of::group_folders;

/// Starts a probe that says what it has to say on this one's standard output, and waits for it.
pub(crate) fn start(work: &Work) -> io::Result<String> {
    let output = crate::borrowed(1).try_clone_to_owned()?;
    let mut child = worker(output.into(), work)?;
    Ok(child.wait()?.to_string())
}

/// Starts, confines and ends workers in cgroups, and says what is left of them.
pub(crate) fn cycles(count: usize, work: &Work) -> io::Result<String> {
    let before = left()?;
    for _ in 0..count {
        let group = Cgroup::create("cycle", &CgroupLimits::default()).ok();
        let mut child = worker_in(group.as_ref(), Stdio::piped(), work)?;
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line)?;
        let Entered(entered) = serde_json::from_str(&line)?;
        entered.map_err(io::Error::other)?;
        match group {
            Some(group) => group.destroy().map_err(io::Error::other)?,
            None => child.kill()?,
        }
        child.wait()?;
    }
    Ok(format!("before {before}\nafter {}", left()?))
}

/// Leaves a frozen cgroup with a worker behind.
pub(crate) fn abandon(work: &Work) -> io::Result<String> {
    let group = Cgroup::create("abandoned", &CgroupLimits::default()).map_err(io::Error::other)?;
    let worker = worker_in(Some(&group), Stdio::null(), work)?;
    let _ = group.freeze();
    let pid = worker.id();
    std::mem::forget((worker, group));
    Ok(pid.to_string())
}

fn worker(output: Stdio, work: &Work) -> io::Result<Child> {
    worker_in(None, output, work)
}

fn worker_in(group: Option<&Cgroup>, output: Stdio, work: &Work) -> io::Result<Child> {
    let mut child =
        Command::new(std::env::current_exe()?).env_clear().stdin(Stdio::piped()).stdout(output).spawn()?;
    if let Some(group) = group {
        group.add(child.id()).map_err(io::Error::other)?;
    }
    let plan = Plan { parent: std::process::id(), ..work.plan.clone() };
    let request = Request { plan: Some(plan), actions: work.actions.clone() };
    serde_json::to_writer(child.stdin.take().expect("piped"), &request)?;
    Ok(child)
}

/// Descriptors, mounts, children and cgroups of this process.
fn left() -> io::Result<String> {
    let own = std::process::id();
    let children = fs::read_dir("/proc")?.flatten().filter(|entry| {
        let stat = fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
        rest.split_whitespace().nth(1) == Some(&own.to_string())
    });
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let groups = group_folders(own);
    Ok(format!(
        "descriptors {} mounts {} children {} cgroups {groups}",
        fs::read_dir("/proc/self/fd")?.count(),
        mounts.lines().count(),
        children.count()
    ))
}
