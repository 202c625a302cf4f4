//! The cgroups of a host, found by their names.

use std::fs;
use std::path::Path;

/// How many folders a process with this pid made in the cgroup file systems.
pub(crate) fn group_folders(host: u32) -> usize {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let trees = mounts.lines().filter(|line| line.contains(" - cgroup"));
    trees.map(|line| below(line.split(' ').nth(4).unwrap_or("/").as_ref(), host)).sum()
}

fn below(folder: &Path, of: u32) -> usize {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    let host = of.to_string();
    folders
        .map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let ours = name.starts_with("quadriga-") && name.split('-').nth(2) == Some(&host);
            usize::from(ours) + below(&entry.path(), of)
        })
        .sum()
}
