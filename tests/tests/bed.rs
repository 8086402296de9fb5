//! The test bed proves itself: what the other tests lean on holds on this machine.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::{Bed, Host, Process, Route, Signal, When, cgroup, wait};

#[test]
fn a_host_boots_runs_copies_and_goes_without_a_trace() -> Result<()> {
    let bed = Bed::new()?;
    let (run, namespace) = (bed.run().directory().to_owned(), bed.run().namespace());
    let host = {
        e2e::root::Debian::Bookworm.base()?;
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
    // With all that a host may have had behind it: two legs, a power cut, another address, a cut network.
    let host = Host::boot(&bed, "orphan", 11, Route::Second)?;
    host.kill()?;
    host.power_on()?;
    host.set_address(21, When::Now)?;
    host.blackhole()?;
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

#[test]
fn a_host_that_lost_power_boots_again_as_it_was() -> Result<()> {
    let bed = Bed::new()?;
    let alpha = Host::boot(&bed, "alpha", 11, Route::None)?;
    let beta = Host::boot(&bed, "beta", 12, Route::None)?;
    alpha.write("/etc/kept", "kept")?;
    alpha.run("mkdir -p /var/lib/containerd/kept && touch /run/lost")?;
    let boot = alpha.run("cat /proc/sys/kernel/random/boot_id")?.stdout;
    alpha.kill()?;
    ensure!(alpha.pid() == 0 && !alpha.alive());
    ensure!(alpha.try_run("true")?.code != Some(0), "a host that is off runs programs");
    ensure!(fs_err::read_to_string(alpha.file("/etc/kept"))? == "kept", "its files are not seen while it is off");
    ensure!(!beta.try_run(&format!("ping -c1 -W1 {}", alpha.address()))?.success(), "it answers without power");
    alpha.power_on()?;
    ensure!(alpha.power_on().is_err(), "it was switched on twice");
    let ping = format!("ping -c1 -W1 {}", alpha.address());
    wait::until("the network to be back", Duration::from_secs(10), || beta.run(&ping))?;
    ensure!(alpha.run("cat /etc/kept; test -d /var/lib/containerd/kept; ls /run")?.stdout.starts_with("kept"));
    ensure!(!alpha.try_run("test -e /run/lost")?.success(), "a boot kept /run");
    ensure!(alpha.run("cat /proc/sys/kernel/random/boot_id")?.stdout != boot, "the same boot");
    alpha.run("mkdir /sys/fs/cgroup/memory/try 2>/dev/null || mkdir /sys/fs/cgroup/try")?;
    Ok(())
}

#[test]
fn nothing_comes_back_from_a_black_hole() -> Result<()> {
    let bed = Bed::new()?;
    let alpha = Host::boot(&bed, "alpha", 11, Route::None)?;
    let beta = Host::boot(&bed, "beta", 12, Route::None)?;
    // Nobody listens there: a refusal, at once, unless it vanishes.
    let connect = |from: &Host, to: &Host| -> Result<(bool, Duration)> {
        let start = Instant::now();
        let curl = from.beside("curl").args(["--silent", "--show-error", "--max-time", "2"]);
        let finished = curl.arg(format!("http://{}:9/", to.address())).finish()?;
        Ok((finished.stderr.contains("refused") || finished.stderr.contains("Failed to connect"), start.elapsed()))
    };
    let quick = Duration::from_millis(1500);
    for (from, to) in [(&alpha, &beta), (&beta, &alpha)] {
        let (refused, time) = connect(from, to)?;
        ensure!(refused && time < quick, "{} to {} before: {time:?}", from.name(), to.name());
    }
    beta.blackhole()?;
    for (from, to) in [(&alpha, &beta), (&beta, &alpha)] {
        let (_, time) = connect(from, to)?;
        ensure!(time >= quick, "{} got an answer from {} after {time:?}", from.name(), to.name());
    }
    beta.end_blackhole()?;
    for (from, to) in [(&alpha, &beta), (&beta, &alpha)] {
        wait::until("the network to be back", Duration::from_secs(10), || {
            from.run(&format!("ping -c1 -W1 {}", to.address()))
        })?;
    }
    ensure!(bed.foreign()?.packets == 0);
    Ok(())
}

#[test]
fn a_second_interface_has_the_default_route_and_the_name() -> Result<()> {
    let bed = Bed::new()?;
    let hosts = Host::boot_all(&bed, &[("alpha", 11), ("beta", 12)], Route::Second)?;
    let [alpha, beta] = hosts.as_slice() else { bail!("two hosts were asked for") };
    let route = alpha.run("ip route get 192.0.2.1")?.stdout;
    ensure!(route.contains("via 10.78.0.1 dev host1 src 10.78.0.11"), "{route}");
    ensure!(alpha.run("getent hosts alpha")?.stdout.starts_with("10.78.0.11"));
    ensure!(bed.on_second()? == 0, "{}", bed.on_second()?);
    alpha.run(&format!("ping -c1 -W1 {}", beta.address()))?;
    ensure!(bed.on_second()? == 0, "the first bridge's traffic was counted on the second");
    alpha.run(&format!("ping -c1 -W1 {}", beta.second_address()))?;
    ensure!(bed.on_second()? == 2, "{}", bed.on_second()?);
    // A cut on the first does not concern the second.
    beta.blackhole()?;
    ensure!(!alpha.try_run(&format!("ping -c1 -W1 {}", beta.address()))?.success());
    alpha.run(&format!("ping -c1 -W1 {}", beta.second_address()))?;
    Ok(())
}

#[test]
fn an_address_changes_at_once_or_at_the_next_boot() -> Result<()> {
    let bed = Bed::new()?;
    let host = Host::boot(&bed, "alpha", 11, Route::None)?;
    let addresses = || -> Result<String> { Ok(host.run("ip -4 -o addr show dev host0")?.stdout) };
    host.set_address(21, When::Now)?;
    ensure!(host.address() == bed.address(21));
    ensure!(addresses()?.contains("10.77.0.21/24") && !addresses()?.contains("10.77.0.11/"), "{}", addresses()?);
    host.run(&format!("ping -c1 -W1 {}", bed.gateway()))?;
    host.set_address(22, When::NextBoot)?;
    ensure!(addresses()?.contains("10.77.0.21/24"), "{}", addresses()?);
    host.kill()?;
    host.power_on()?;
    ensure!(addresses()?.contains("10.77.0.22/24") && !addresses()?.contains("10.77.0.21/"), "{}", addresses()?);
    host.run(&format!("ping -c1 -W1 {}", bed.gateway()))?;
    Ok(())
}

#[test]
fn a_service_hangs_goes_on_and_is_killed() -> Result<()> {
    let bed = Bed::new()?;
    let host = Host::boot(&bed, "alpha", 11, Route::None)?;
    host.run("systemd-run --unit=echo --property=Restart=always socat TCP-LISTEN:7,fork,reuseaddr EXEC:cat")?;
    let ask = || host.try_run("echo word | timeout 2 socat -t1 - TCP:10.77.0.11:7");
    let answers = || {
        wait::until("the service to answer", Duration::from_secs(10), || {
            let answer = ask()?;
            ensure!(answer.stdout == "word\n", "{}", answer.tail());
            Ok(())
        })
    };
    answers()?;
    host.signal("echo.service", Signal::Stop)?;
    ensure!(ask()?.stdout.is_empty(), "a stopped process answered");
    host.signal("echo.service", Signal::Continue)?;
    answers()?;
    let pid = host.run("systemctl show --property=MainPID echo")?.stdout;
    host.signal("echo.service", Signal::Kill)?;
    answers()?;
    ensure!(host.run("systemctl show --property=MainPID echo")?.stdout != pid, "the same process");
    Ok(())
}
