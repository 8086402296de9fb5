//! The test bed proves itself: what the other tests lean on holds on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Bed, Host, Process, Route, cgroup, wait};

#[test]
fn a_host_boots_runs_copies_and_goes_without_a_trace() -> Result<()> {
    let bed = Bed::new()?;
    let (run, namespace) = (bed.run().directory().to_owned(), bed.run().namespace());
    let host = {
        e2e::root::base()?;
        let start = Instant::now();
        let host = Host::boot(&bed, "alpha", 11, Route::None)?;
        ensure!(start.elapsed() < Duration::from_secs(20), "booting took {:?}", start.elapsed());
        host
    };
    ensure!(host.run("hostname")?.stdout.trim() == "alpha");
    ensure!(host.run("systemctl is-system-running")?.stdout.trim() == "running");
    ensure!(host.try_run("exit 7")?.code == Some(7));
    let error = host.run("echo reason >&2; false").err().context("a failing command is an error")?;
    ensure!(error.to_string().contains("reason"));
    ensure!(host.run("ip route")?.stdout.trim() == "10.77.0.0/24 dev host0 proto kernel scope link src 10.77.0.11");

    host.copy(Path::new("/bin/true"), "/opt/tool")?;
    host.run("/opt/tool")?;
    host.run("mkdir /sys/fs/cgroup/memory/try 2>/dev/null || mkdir /sys/fs/cgroup/try")?;

    let before = host.snapshot()?;
    ensure!(before.len() > 1000);
    host.run("echo x >/etc/new; chmod 700 /opt/tool; rm /etc/hosts")?;
    let changes = before.changes(&host.snapshot()?);
    ensure!(changes.len() == 3, "{changes:?}");
    for (change, word) in changes.iter().zip(["removed /etc/hosts", "changed /opt/tool", "added /etc/new"]) {
        ensure!(change.starts_with(word), "{change}");
    }

    let sleeper = host.start(&["sleep", "1000"])?;
    ensure!(sleeper.alive());
    sleeper.kill()?;
    ensure!(!host.try_run("pgrep -x sleep")?.success());

    host.kill()?;
    ensure!(!host.alive());
    let prefix = format!("sealift-{}", bed.run().name());
    drop(host);
    drop(bed);
    ensure!(!run.exists());
    ensure!(!cgroup::exists(&prefix)?, "cgroups are left");
    let mounts = fs_err::read_to_string("/proc/self/mountinfo")?;
    ensure!(!mounts.contains(&run.display().to_string()), "mounts are left");
    ensure!(!Path::new("/run/netns").join(namespace).exists());
    let processes = Process::new("ps").args(["-e", "-o", "args"]).text()?;
    ensure!(!processes.contains(&run.display().to_string()), "processes are left");
    Ok(())
}

#[test]
fn hosts_meet_on_the_bridge_and_a_cut_one_does_not() -> Result<()> {
    let bed = Bed::new()?;
    let alpha = Host::boot(&bed, "alpha", 11, Route::None)?;
    let beta = Host::boot(&bed, "beta", 12, Route::None)?;
    let ping = format!("ping -c1 -W1 {}", beta.address());
    alpha.run(&ping)?;
    beta.cut_network()?;
    ensure!(!alpha.try_run(&ping)?.success(), "a cut host answers");
    beta.restore_network()?;
    wait::until("the network to be back", Duration::from_secs(10), || alpha.run(&ping))?;
    // One host's end is not the other's.
    alpha.kill()?;
    ensure!(beta.run("hostname")?.stdout.trim() == "beta");
    Ok(())
}

#[test]
fn dialling_out_is_seen() -> Result<()> {
    let bed = Bed::new()?;
    let none = Host::boot(&bed, "none", 11, Route::None)?;
    let trap = Host::boot(&bed, "trap", 12, Route::Trap)?;
    ensure!(!none.try_run("ping -c1 -W1 192.0.2.1")?.success());
    none.run(&format!("ping -c1 -W1 {}", bed.gateway()))?;
    let before = bed.foreign()?;
    ensure!(before.packets == 0, "a quiet bed sent {before:?}");
    ensure!(!trap.try_run("ping -c2 -i0.2 -W1 192.0.2.1")?.success());
    ensure!(!trap.try_run("timeout 2 getent hosts example.invalid")?.success());
    let after = bed.foreign()?;
    ensure!(after.packets >= 3, "{after:?}");
    for destination in ["192.0.2.1", "192.0.2.53"] {
        ensure!(after.destinations.iter().any(|seen| seen == destination), "{after:?}");
    }
    Ok(())
}

#[test]
fn remains_of_a_killed_run_are_swept() -> Result<()> {
    // A child test process would need this program's own path; a kept bed whose owner is another, dead process is the same to the sweep.
    let bed = Bed::new()?;
    let host = Host::boot(&bed, "orphan", 11, Route::None)?;
    let (pid, run) = (host.pid(), bed.run().directory().to_owned());
    std::mem::forget(host);
    let mut dead = Process::new("true").spawn(&run.join("log"))?;
    let owner = format!("{} 1\n", dead.id());
    dead.wait()?;
    fs_err::write(run.join("owner"), owner)?;
    let removed = e2e::run::sweep(e2e::run::Sweep::Dead)?;
    ensure!(removed.iter().any(|name| name == bed.run().name()), "{removed:?}");
    if Path::new(&format!("/proc/{pid}/cmdline")).exists() && !fs_err::read(format!("/proc/{pid}/cmdline"))?.is_empty()
    {
        bail!("the orphan still runs");
    }
    ensure!(!run.exists());
    Ok(())
}
