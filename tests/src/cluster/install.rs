//! Secrets made beforehand, join files carried, and the installer run on one host or on all of them at once.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, INSTALLER};
use crate::master::{Install, events};
use crate::process::Finished;

/// How a host is installed.
#[derive(Debug, Clone, Copy)]
pub struct How<'a> {
    /// With the join file that was carried there, or as a host of the config.
    pub joins: bool,
    /// How long it waits for other hosts in the foreground.
    pub patience: &'a str,
    /// Further arguments.
    pub extra: &'a [&'a str],
}

/// One run of the installer on one host.
#[derive(Debug)]
pub struct Outcome {
    /// The node.
    pub name: String,
    /// Exit code, output, events.
    pub install: Install,
    /// From start to end.
    pub took: Duration,
}

impl How<'_> {
    /// With its join file, as long as it takes.
    pub const JOIN: How<'static> = How { joins: true, patience: "20m", extra: &[] };
    /// With its join file, and on to the next host when others are missing.
    pub const BRIEFLY: How<'static> = How { joins: true, patience: "5s", extra: &[] };
    /// By the config alone.
    pub const FOUND: How<'static> = How { joins: false, patience: "20m", extra: &[] };
}

impl Outcome {
    /// Anything but these exit codes is an error with what the installer said.
    pub fn ended(self, codes: &[i32]) -> Result<Self> {
        let finished = &self.install.finished;
        ensure!(
            finished.code.is_some_and(|code| codes.contains(&code)),
            "the installer on {} ended with {:?}\n{}",
            self.name,
            finished.code,
            self.said()
        );
        Ok(self)
    }

    /// What it said last: errors, and how the last steps ended.
    pub fn said(&self) -> String {
        let Finished { stdout, stderr, .. } = &self.install.finished;
        let steps: Vec<&str> =
            stdout.lines().filter(|line| !line.contains("\"progress\"") && !line.contains("step-changes")).collect();
        format!("{}\n{}", steps[steps.len().saturating_sub(6)..].join("\n"), stderr.trim_end())
    }

    /// Steps that took more than a second, the slowest first.
    pub fn steps(&self) -> String {
        let slow = self.install.slowest().into_iter().filter(|(_, milliseconds)| *milliseconds >= 1000);
        slow.take(6)
            .map(|(step, milliseconds)| format!("{step} {} s", milliseconds / 1000))
            .collect::<Vec<_>>()
            .join(", ")
    }
}

impl Cluster {
    /// Makes the cluster's secrets on the first host, and carries each host its own join file and no other.
    pub fn secrets(&self) -> Result<()> {
        let first = self.hosts().first().context("no host")?.clone();
        first.run(
            "/root/installer secrets create --config /root/cluster.toml --output /root/secrets --passphrase-file /root/passphrase",
        )?;
        for seat in self.seats() {
            let file = first.file(&format!("/root/secrets/{}.join", seat.name));
            fs_err::copy(&file, self.directory().join(format!("{}.join", seat.name)))?;
            self.carry(seat.name)?;
        }
        first.run("rm -r /root/secrets")?;
        Ok(())
    }

    /// Makes a join file on a master and carries it to its host.
    pub fn join_file(&self, master: &str, node: &str) -> Result<()> {
        let master = self.host(master)?;
        let path = format!("/root/{node}.join");
        master.run(&format!(
            "rm -f {path}; {INSTALLER} join-file --node {node} --output {path} --passphrase-file /root/passphrase"
        ))?;
        fs_err::copy(master.file(&path), self.directory().join(format!("{node}.join")))?;
        master.run(&format!("rm {path}"))?;
        self.carry(node)
    }

    /// Carries a host its join file, and takes its config away: the file holds that too.
    pub fn carry(&self, node: &str) -> Result<()> {
        let host = self.host(node)?;
        host.copy(&self.directory().join(format!("{node}.join")), &format!("/root/{node}.join"))
    }

    /// Runs the installer on one host, whatever comes out.
    pub fn install(&self, name: &str, how: &How<'_>) -> Result<Outcome> {
        let start = Instant::now();
        let host = self.host(name)?;
        let mut installer =
            host.inside("timeout").args(["1500", "/root/installer", "install", "--json", "--bundle", "/root/x.bundle"]);
        installer = installer.args(["--key", "/root/key.pub", "--wait", how.patience]);
        if how.joins {
            let join = format!("/root/{name}.join");
            installer = installer.args(["--join", &join, "--passphrase-file", "/root/passphrase"]);
        } else if !how.extra.contains(&"--join") {
            installer = installer.args(["--config", "/root/cluster.toml"]);
        }
        let finished: Finished = installer.args(how.extra).finish()?;
        let events = events(&finished.stdout);
        Ok(Outcome { name: name.to_owned(), install: Install { finished, events }, took: start.elapsed() })
    }

    /// Runs the installer on all hosts at once; every one must end well.
    pub fn install_all(&self, how: &How<'_>) -> Result<Vec<Outcome>> {
        let seats = self.seats();
        let outcomes: Vec<Result<Outcome>> = std::thread::scope(|scope| {
            let one = |name: &'static str| self.install(name, how).and_then(|outcome| outcome.ended(&[0]));
            let threads: Vec<_> = seats.iter().map(|seat| scope.spawn(move || one(seat.name))).collect();
            threads
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|_| bail!("an installation panicked")))
                .collect()
        });
        let mut good = Vec::new();
        let mut bad = Vec::new();
        for outcome in outcomes {
            match outcome {
                Ok(outcome) => good.push(outcome),
                Err(error) => bad.push(format!("{error:#}")),
            }
        }
        ensure!(bad.is_empty(), "{}\n{}", bad.join("\n"), self.troubles());
        Ok(good)
    }
}
