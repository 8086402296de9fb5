//! Containers outlive containerd and its service: their shims and everything in the pods' control groups are ended here.
//!
//! Ours are the shims started from our store, all their descendants, and what runs in the kubelet's control groups. Nothing
//! else is touched.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::context::HOME;
use crate::host::{Command, Host};
use crate::report::Explain as _;

const DEADLINE: Duration = Duration::from_secs(30);
/// How far up the chain of parents is looked.
const GENERATIONS: usize = 64;

/// What `/proc` says about one process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Process {
    parent: i32,
    program: String,
    groups: String,
}

/// Ends all containers and waits until they are gone.
pub(super) fn end(host: &Host) -> Result<Vec<String>> {
    let mut ended = BTreeSet::new();
    host.wait_for("containers to end", DEADLINE, Duration::from_millis(200), || {
        let ours = ours(&read(host)?);
        for pid in &ours {
            host.kill(*pid, || one(host, *pid).is_some_and(|now| ours_by_itself(&now) || ours.contains(&now.parent)))?;
            ended.insert(*pid);
        }
        let left: Vec<String> = ours.iter().map(ToString::to_string).collect();
        Ok(if left.is_empty() { Ok(()) } else { Err(format!("processes {}", left.join(", "))) })
    })
    .hint("a process that SIGKILL does not end waits for a disk or a network file system: reboot, then reset again")?;
    // The slices are empty now; systemd removes their control groups.
    let _ = host.try_run(&Command::new("systemctl").args(["stop", "kubepods.slice"]).timeout(DEADLINE));
    Ok(if ended.is_empty() { Vec::new() } else { vec![format!("end {} processes of containers", ended.len())] })
}

fn read(host: &Host) -> Result<BTreeMap<i32, Process>> {
    let pids = host.list(Path::new("/proc"))?.into_iter().filter_map(|name| name.parse::<i32>().ok());
    Ok(pids.filter_map(|pid| Some((pid, one(host, pid)?))).collect())
}

/// One process; `None` when it has ended, also when only its parent has not noticed yet.
fn one(host: &Host, pid: i32) -> Option<Process> {
    let directory = Path::new("/proc").join(pid.to_string());
    let stat = host.read_text(&directory.join("stat")).ok()??;
    // proc(5): `pid (name) state ppid …`; the name may hold anything.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    let (state, parent) = (fields.next()?, fields.next()?.parse().ok()?);
    if matches!(state, "Z" | "X") {
        return None;
    }
    let program = host.link_target(&directory.join("exe")).ok().flatten();
    // The kernel says where it really is.
    let home = host.resolve(Path::new(HOME)).unwrap_or_else(|_| HOME.into());
    let program = program.map(|path| path.strip_prefix(home).map_or(path.clone(), |rest| Path::new(HOME).join(rest)));
    let groups = host.read_text(&directory.join("cgroup")).ok().flatten().unwrap_or_default();
    Some(Process { parent, program: program.map(|path| path.display().to_string()).unwrap_or_default(), groups })
}

fn ours(all: &BTreeMap<i32, Process>) -> BTreeSet<i32> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut untouchable: BTreeSet<i32> = ancestors(all, own).collect();
    untouchable.insert(1);
    let of_container = |pid: i32| ancestors(all, pid).any(|pid| all.get(&pid).is_some_and(ours_by_itself));
    all.keys().copied().filter(|pid| !untouchable.contains(pid) && of_container(*pid)).collect()
}

/// A process, its parent, and so on.
fn ancestors(all: &BTreeMap<i32, Process>, pid: i32) -> impl Iterator<Item = i32> {
    std::iter::successors(Some(pid), |pid| all.get(pid).map(|process| process.parent)).take(GENERATIONS)
}

fn ours_by_itself(process: &Process) -> bool {
    let shim = process.program.starts_with(&format!("{HOME}/store/")) && process.program.contains("/containerd-shim");
    // `kubepods.slice/…` with the systemd driver, `kubepods/…` without.
    let in_pod = |line: &str| line.split('/').any(|part| part == "kubepods" || part == "kubepods.slice");
    shim || process.groups.lines().any(in_pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(host: &Host, pid: i32, parent: i32, program: &str, group: &str) {
        let directory = Path::new("/proc").join(pid.to_string());
        let stat = format!("{pid} (a) b) S {parent} 1 1");
        host.write(&directory.join("stat"), stat.as_bytes(), 0o444).unwrap();
        host.write(&directory.join("cgroup"), format!("0::{group}\n").as_bytes(), 0o444).unwrap();
        host.symlink(&directory.join("exe"), Path::new(program)).unwrap();
    }

    #[test]
    fn containers_end_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let shim = "/opt/sealift/store/containerd-1.6.20-aa/bin/containerd-shim-runc-v2 (deleted)";
        process(&host, 1, 0, "/lib/systemd/systemd", "/init.scope");
        process(&host, 50, 1, shim, "/system.slice/containerd.service");
        process(&host, 51, 50, "/pause", "/kubepods.slice/kubepods-pod1.slice/cri-containerd-x.scope");
        process(&host, 52, 50, "/bin/sh", "/somewhere");
        process(&host, 60, 1, "/bin/orphan", "/kubepods/besteffort/pod2/y");
        process(&host, 70, 1, "/usr/bin/containerd-shim-runc-v2", "/system.slice/docker.service");
        process(&host, 71, 1, "/usr/sbin/sshd", "/user.slice/kubepods-fan.service");
        process(&host, 72, 1, "/opt/sealift/store/kubectl-1/bin/kubectl", "/user.slice");
        let _ = end(&host).unwrap();
        let left: Vec<String> = host.list(Path::new("/proc")).unwrap();
        assert_eq!(left, ["1", "70", "71", "72"]);
        assert_eq!(end(&host).unwrap(), Vec::<String>::new());
    }
}
