//! Packages of the distribution, from the bundle's closure onto a real Debian host without a network: what is missing and
//! nothing else, no service started, what the operator decided respected, and repaired when it is cut short.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::apt_archive::{self, AptArchive};
use e2e::deb::Package;
use e2e::master::{Install, Master};
use e2e::product::{Product, Programs, Yard};
use e2e::root::Debian;
use e2e::{Host, Route, wait};

use super::stage::Stage;

/// The default set, and the fixtures.
const ASKED: &str = r#""chrony", "conntrack", "curl", "ethtool", "ipset", "iptables", "ipvsadm", "jq", "libseccomp2", "nftables", "socat",
    "fixture-service", "fixture-needs", "fixture-newer", "fixture-old-enough", "fixture-slow", "fixture-big""#;
/// What the operator has in place of our own for the time of the installation.
const POLICY: &str = "#!/bin/sh\n# the operator's\nexit 104\n";
const POLICY_PATH: &str = "/usr/sbin/policy-rc.d";

const UNIT: &str = "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=multi-user.target\n";
const INIT: &str = "#!/bin/sh\n### BEGIN INIT INFO\n# Provides: fixture\n# Required-Start:\n# Required-Stop:\n# Default-Start: 2 3 4 5\n\
    # Default-Stop: 0 1 6\n### END INIT INFO\ntouch /run/fixture-started\n";
/// As debhelper writes it, shorter.
const START: &str = "deb-systemd-helper enable fixture.service >/dev/null\nupdate-rc.d fixture defaults\ndeb-systemd-invoke start fixture.service >/dev/null || true\n\
    invoke-rc.d fixture start || true";

/// The bundle's fixtures.
fn fixtures(directory: &Path) -> Result<Vec<PathBuf>> {
    // Random, so that it does not shrink.
    let big: String = (0..24_u64 << 20)
        .map(|at| char::from(b'a' + u8::try_from(at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60).unwrap_or(0)))
        .collect();
    let packages = [
        Package {
            name: "fixture-service",
            version: "1",
            files: &[("/usr/lib/systemd/system/fixture.service", UNIT), ("/etc/init.d/fixture", INIT)],
            scripts: &[("postinst", START)],
            ..Package::default()
        },
        Package {
            name: "fixture-needs",
            version: "1",
            lines: &["Depends: fixture-conf (>= 2)", "Pre-Depends: fixture-slow"],
            ..Package::default()
        },
        conf("2", "new"),
        Package { name: "fixture-newer", version: "2", ..Package::default() },
        Package { name: "fixture-old-enough", version: "2", ..Package::default() },
        Package {
            name: "fixture-slow",
            version: "1",
            scripts: &[("postinst", "touch /run/fixture-slow\nif [ -e /run/fixture-wait ]; then sleep 60; fi")],
            ..Package::default()
        },
        Package { name: "fixture-big", version: "1", files: &[("/usr/share/fixture/big", &big)], ..Package::default() },
    ];
    packages.iter().map(|package| package.build(directory)).collect()
}

fn conf<'a>(version: &'a str, content: &'a str) -> Package<'a> {
    // The files of a package cannot be borrowed from here; two contents are enough.
    let files: &[(&str, &str)] =
        if content == "new" { &[("/etc/fixture.conf", "new\n")] } else { &[("/etc/fixture.conf", "old\n")] };
    Package { name: "fixture-conf", version, files, conffiles: &["/etc/fixture.conf"], ..Package::default() }
}

/// What the host has before: older, newer, changed by hand.
fn before(directory: &Path) -> Result<Vec<PathBuf>> {
    let packages = [
        conf("1", "old"),
        Package { name: "fixture-newer", version: "3", ..Package::default() },
        Package { name: "fixture-old-enough", version: "1", ..Package::default() },
        Package {
            name: "fixture-sleeper",
            version: "1",
            scripts: &[("postinst", "touch /run/fixture-sleeper\nsleep 30")],
            ..Package::default()
        },
    ];
    packages.iter().map(|package| package.build(directory)).collect()
}

/// One bundle for hosts with either release: its packages with the fixtures, out of a local archive.
pub(crate) fn product(directory: &Path) -> Result<Product> {
    let mut yard = Yard::lay(&Programs::build()?, &directory.join("yard"), None)?;
    let archive = AptArchive::new(&directory.join("archive"))?;
    let made = directory.join("made");
    fs_err::create_dir_all(&made)?;
    for package in fixtures(&made)? {
        let name = package.file_name().context("a package has a name")?.to_string_lossy().into_owned();
        archive.add(&package, &name)?;
    }
    archive.publish()?;
    let releases = [Debian::Bookworm, Debian::Trixie];
    yard.set_releases(&releases)?;
    yard.add_archive(&archive)?;
    let mut manifest = fs_err::read_to_string(yard.manifest())?;
    for release in releases {
        let table = format!("[packages.{}]\nsuites = [", release.name());
        ensure!(manifest.contains(&table), "the manifest has no {table}");
        let with =
            format!("[packages.{}]\ninstall = [{ASKED}]\nsuites = [\"{}\", ", release.name(), apt_archive::SUITE);
        manifest = manifest.replace(&table, &with);
    }
    fs_err::write(yard.manifest(), manifest)?;
    yard.make()
}

/// A host, its bundle, and how often the installer is run on it.
struct Bench {
    master: Master,
}

impl Bench {
    fn run(&self, command: &str, more: &[&str]) -> Result<Install> {
        let argv = self.master.command(command, "/root/x.bundle");
        let finished = self.master.host.inside(argv[0]).args(&argv[1..]).args(more).arg("--json").finish()?;
        let events = e2e::master::events(&finished.stdout);
        Ok(Install { finished, events })
    }

    /// Installs; the step must have ended like this.
    fn packages(&self, outcome: &str) -> Result<Install> {
        let install = self.run("install", &["--wait", "5s"])?;
        let found = step(&install).map(|event| event["outcome"].clone());
        ensure!(found == Some(outcome.into()), "{found:?}\n{}\n{}", install.finished.stdout, install.finished.tail());
        ensure!(install.finished.success(), "{}", install.finished.tail());
        Ok(install)
    }

    fn sh(&self, line: &str) -> Result<String> {
        Ok(self.master.host.run(line)?.stdout)
    }

    fn version(&self, package: &str) -> Result<String> {
        self.sh(&format!("dpkg-query --show --showformat '${{db:Status-Abbrev}}${{Version}}' {package}"))
    }

    /// The operator's own is there, to the byte and the mode.
    fn policy_is_the_operators(&self) -> Result<()> {
        let found = self.sh(&format!("stat --format %a {POLICY_PATH}; cat {POLICY_PATH}"))?;
        ensure!(found == format!("750\n{POLICY}"), "{POLICY_PATH}: {found}");
        Ok(())
    }
}

/// The end of the step `os-packages`.
fn step(install: &Install) -> Option<&serde_json::Value> {
    let end = |event: &&serde_json::Value| event["event"] == "step-finished" && event["step"] == "os-packages";
    install.events.iter().find(end)
}

pub(crate) fn packages_are_installed_offline(stage: &Stage) -> Result<()> {
    packages_on(stage, Debian::Bookworm)
}

/// The same bundle on Debian 13.
pub(crate) fn debian_13_gets_its_packages(stage: &Stage) -> Result<()> {
    packages_on(stage, Debian::Trixie)
}

fn packages_on(stage: &Stage, release: Debian) -> Result<()> {
    let product = stage.packages()?;
    let host = Host::boot_release(release, stage.bed()?, "packages-1", 13, Route::None)?;
    let mut files = Vec::new();
    let earlier = stage.path(&format!("before-{}", release.name()))?;
    fs_err::create_dir_all(&earlier)?;
    for package in before(&earlier)? {
        let to = format!("/root/{}", package.file_name().context("a package has a name")?.to_string_lossy());
        host.copy(&package, &to)?;
        files.push(to);
    }
    let sleeper = files.pop().context("no sleeper")?;
    host.run(&format!("dpkg --install {}", files.join(" ")))?;
    host.run("echo mine > /etc/fixture.conf")?;
    host.write(POLICY_PATH, POLICY)?;
    host.run(&format!("chmod 0750 {POLICY_PATH}"))?;
    let bench = Bench { master: Master::prepare(host, product, "")? };

    plan_names_everything(&bench, release)?;
    held_is_refused(&bench)?;
    a_lock_is_waited_for_and_named(&bench, &sleeper)?;
    killed_in_the_middle(&bench)?;
    is_as_wanted(&bench)?;
    disk_full(&bench)?;
    is_as_wanted(&bench)?;
    bench.master.ready(Duration::from_secs(60))
}

fn plan_names_everything(bench: &Bench, release: Debian) -> Result<()> {
    let jq = if release == Debian::Bookworm { "install jq 1.6" } else { "install jq 1.7" };
    let snapshot = bench.master.host.snapshot()?;
    let plan = bench.master.plainly("plan")?;
    for line in [jq, "install chrony ", "install fixture-big 1", "upgrade fixture-conf 1 → 2", "stay after a reset"] {
        ensure!(plan.stdout.contains(line), "the plan lacks `{line}`:\n{}\n{}", plan.stdout, plan.tail());
    }
    for kept in ["fixture-newer", "fixture-old-enough", "install iptables", "install socat"] {
        ensure!(!plan.stdout.contains(kept), "the plan would change {kept}:\n{}", plan.stdout);
    }
    let changes = snapshot.changes(&bench.master.host.snapshot()?);
    ensure!(changes.is_empty(), "the plan changed {changes:#?}");
    Ok(())
}

fn held_is_refused(bench: &Bench) -> Result<()> {
    bench.sh("echo fixture-conf hold | dpkg --set-selections")?;
    let before = bench.master.host.snapshot_of(&["/etc", "/usr", "/var/lib/dpkg"])?;
    let refused = bench.run("install", &[])?;
    let tail = format!("{}{}", refused.finished.stdout, refused.finished.tail());
    ensure!(refused.finished.code == Some(3), "{:?} {tail}", refused.finished.code);
    ensure!(tail.contains("fixture-conf") && tail.contains("held") && tail.contains("apt-mark unhold"), "{tail}");
    let left: Vec<String> = before.changes(&bench.master.host.snapshot_of(&["/etc", "/usr", "/var/lib/dpkg"])?);
    let left: Vec<&String> = left.iter().filter(|change| !change.contains("/etc/sealift")).collect();
    ensure!(left.is_empty(), "the refusal changed {left:#?}");
    bench.sh("echo fixture-conf install | dpkg --set-selections")?;
    Ok(())
}

/// By a real dpkg that is busy: a failure that the next run may not meet, not a host that is refused.
fn a_lock_is_waited_for_and_named(bench: &Bench, sleeper: &str) -> Result<()> {
    let busy = bench.master.host.start(&["dpkg", "--install", sleeper])?;
    wait::until("the other dpkg to be busy", Duration::from_secs(20), || bench.sh("test -e /run/fixture-sleeper"))?;
    let refused = bench.run("install", &["--wait", "2s"])?;
    let tail = format!("{}{}", refused.finished.stdout, refused.finished.tail());
    ensure!(refused.finished.code == Some(1), "{:?} {tail}", refused.finished.code);
    let pid = bench.sh("pidof dpkg")?;
    ensure!(tail.contains("`dpkg` (pid ") && tail.contains(pid.trim()), "the holder {pid} is not named: {tail}");
    ensure!(busy.alive(), "the other dpkg was ended");
    bench.policy_is_the_operators()?;
    ensure!(busy.finish()?.success(), "the other dpkg was disturbed");
    Ok(())
}

/// kill -9 of the installer and of dpkg while a script of a package runs: the next run finishes.
fn killed_in_the_middle(bench: &Bench) -> Result<()> {
    bench.sh("touch /run/fixture-wait")?;
    let running = bench.master.start()?;
    wait::until("a package's script to run", Duration::from_secs(120), || {
        ensure!(running.alive(), "the installer ended early:\n{}", running.output()?);
        bench.sh("test -e /run/fixture-slow")
    })?;
    running.kill()?;
    bench.sh("kill -9 $(pidof dpkg); rm /run/fixture-wait; pkill -9 -x sleep || true")?;
    ensure!(!bench.sh("dpkg --audit")?.is_empty(), "dpkg had nothing left to do: it was killed too late");
    ensure!(bench.sh(&format!("cat {POLICY_PATH}"))?.contains("exit 101"), "services could have started");
    bench.packages("applied").map(drop)
}

/// The whole set is there and nothing else has changed.
fn is_as_wanted(bench: &Bench) -> Result<()> {
    ensure!(bench.sh("dpkg --audit")?.is_empty(), "dpkg --audit: {}", bench.sh("dpkg --audit")?);
    for package in ["jq", "curl", "chrony", "ipset", "ipvsadm", "fixture-service", "fixture-big", "fixture-slow"] {
        ensure!(bench.version(package)?.starts_with("ii "), "{package}: {}", bench.version(package)?);
    }
    for (package, version) in [("fixture-conf", "ii 2"), ("fixture-newer", "ii 3"), ("fixture-old-enough", "ii 1")] {
        ensure!(bench.version(package)? == version, "{package}: {}", bench.version(package)?);
    }
    bench.sh("jq --version && ipset --version && /usr/sbin/chronyd --version")?;
    ensure!(bench.sh("cat /etc/fixture.conf")? == "mine\n", "the operator's configuration was replaced");
    for unit in ["fixture.service", "chrony.service", "ipvsadm.service"] {
        let state = bench.master.host.try_run(&format!("systemctl is-active {unit}"))?.stdout;
        ensure!(state.trim() != "active", "{unit} was started");
        let state = bench.master.host.try_run(&format!("systemctl is-enabled {unit}"))?.stdout;
        ensure!(state.trim() != "enabled", "{unit} would be started at the next boot");
    }
    bench.sh("test ! -e /run/fixture-started")?;
    bench.policy_is_the_operators()?;
    let before = bench.master.host.snapshot_of(&["/etc", "/usr", "/var/lib/dpkg"])?;
    let again = bench.packages("kept")?;
    let changes = before.changes(&bench.master.host.snapshot_of(&["/etc", "/usr", "/var/lib/dpkg"])?);
    let changes: Vec<&String> = changes.iter().filter(|change| !change.contains("/etc/sealift")).collect();
    ensure!(changes.is_empty(), "a second run changed {changes:#?}\n{}", again.finished.stdout);
    Ok(())
}

/// The file system of one package is full: what else there is gets installed (also what takes a second run of dpkg, because
/// something must be configured before it is unpacked), dpkg's own database is whole, and with room the
/// next run finishes.
fn disk_full(bench: &Bench) -> Result<()> {
    bench.sh("dpkg --purge fixture-needs fixture-slow fixture-big jq && mkdir -p /usr/share/fixture && mount -t tmpfs -o size=4m none /usr/share/fixture")?;
    let failed = bench.run("install", &["--wait", "5s"])?;
    let tail = format!("{}{}", failed.finished.stdout, failed.finished.tail());
    ensure!(failed.finished.code == Some(1), "{:?} {tail}", failed.finished.code);
    ensure!(tail.contains("No space left on device") && tail.contains("fixture-big"), "{tail}");
    ensure!(bench.version("fixture-needs")? == "ii 1", "dpkg was not run again");
    bench.policy_is_the_operators()?;
    bench.sh("umount /usr/share/fixture")?;
    let finished = bench.packages("applied")?;
    ensure!(finished.finished.stdout.contains("fixture-big"), "{}", finished.finished.stdout);
    Ok(())
}
