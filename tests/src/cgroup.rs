//! One cgroup a host in every mounted hierarchy, so that the host's cgroup namespace is rooted there and two kubelets never meet.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::wait;

/// Mount points of all cgroup hierarchies (v1 controllers and v2).
fn hierarchies() -> Result<Vec<PathBuf>> {
    let table = fs_err::read_to_string("/proc/self/mountinfo")?;
    let kind = |line: &str| line.split_once(" - ").map(|(_, rest)| rest.starts_with("cgroup"));
    let points = table.lines().filter(|line| kind(line) == Some(true)).filter_map(|line| line.split(' ').nth(4));
    Ok(points.map(PathBuf::from).collect())
}

/// Makes the cgroup everywhere; hands back the `cgroup.procs` files that a process joins it by.
pub fn create(name: &str) -> Result<Vec<PathBuf>> {
    let mut joins = Vec::new();
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name);
        fs_err::create_dir_all(&group)?;
        for file in ["cpuset.cpus", "cpuset.mems"] {
            // In v1 a cpuset without processors or memory takes no process.
            if hierarchy.join(file).exists() && hierarchy.join("cgroup.clone_children").exists() {
                fs_err::write(group.join(file), fs_err::read(hierarchy.join(file))?)?;
            }
        }
        joins.push(group.join("cgroup.procs"));
    }
    Ok(joins)
}

/// Removes the cgroup and all below it; its processes are gone or going.
pub fn remove(name: &str) -> Result<()> {
    for hierarchy in hierarchies()? {
        let group = hierarchy.join(name);
        wait::until("a cgroup to empty", Duration::from_secs(20), || remove_tree(&group))?;
    }
    Ok(())
}

/// True while any hierarchy has a cgroup whose name starts like this.
pub fn exists(prefix: &str) -> Result<bool> {
    for hierarchy in hierarchies()? {
        for entry in fs_err::read_dir(hierarchy)? {
            if entry?.file_name().to_string_lossy().starts_with(prefix) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

fn remove_tree(group: &Path) -> Result<()> {
    if !group.exists() {
        return Ok(());
    }
    for entry in fs_err::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs_err::remove_dir(group).with_context(|| format!("removing {}", group.display()))
}
