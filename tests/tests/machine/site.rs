//! A machine with everything plugged in that an installation needs, and the questions that scenarios ask of it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cluster::INSTALLER;
use e2e::machine::{ADDRESS, BOOT, Machine, NAME};
use e2e::master::{KUBECTL, events};
use e2e::product::Product;
use e2e::wait;
use serde_json::Value;

use super::stage::Stage;

/// Unpacking a kernel, its initramfs, a control plane: each takes minutes on an emulated processor.
pub(crate) const LONG: Duration = Duration::from_secs(3000);
/// What the product remembers of kernels.
const STATE: &str = "/var/lib/sealift/kernel.json";
const STICK: &str = "/mnt";

/// The machine, and where its bundle came from.
pub(crate) struct Site {
    pub(crate) machine: Machine,
    /// What it is to become: the value of `--role`, and what belongs to it.
    pub(crate) role: String,
    /// What it can be started from again.
    pub(crate) checkpoint: Option<&'static str>,
}

impl Site {
    /// Plugs the product's disk into a running machine and writes the config; `extra` is appended to it.
    pub(crate) fn prepare(stage: &Stage, machine: Machine, product: &Product, extra: &str) -> Result<Self> {
        let files =
            [(product.bundle.as_path(), "x.bundle"), (&product.installer, "installer"), (&product.key, "key.pub")];
        let disk = stage.carrier("bundle", &files)?;
        machine.plug("bundle", &disk)?;
        machine.mount("bundle", STICK)?;
        let config = format!(
            "[cluster]\nname = \"test\"\n\n[[node]]\nname = \"{NAME}\"\naddress = \"{ADDRESS}\"\nroles = [\"master\"]\n\n{extra}"
        );
        machine.write("/root/cluster.toml", config)?;
        Ok(Self { machine, role: "master".to_owned(), checkpoint: None })
    }

    /// Starts the installer from the stick as a service that this does not wait for.
    pub(crate) fn start(&self, flags: &str) -> Result<()> {
        self.machine.run("rm -f /root/install.code; systemctl reset-failed install.service 2>/dev/null || true")?;
        let line = format!(
            "cd /root; {STICK}/installer install --json --role {} --bundle {STICK}/x.bundle --key {STICK}/key.pub \
             --config /root/cluster.toml {flags}; echo $? >/root/install.code; sync",
            self.role
        );
        self.machine.start_service("install", &line)
    }

    /// Waits for the installer's end and hands back its exit code.
    pub(crate) fn ended(&self, limit: Duration) -> Result<i32> {
        let code = wait::patiently("the installer's end", limit, || {
            let code = self.machine.run("cat /root/install.code")?.stdout;
            Ok(code.trim().parse::<i32>()?)
        });
        code.with_context(|| self.log())
    }

    /// Runs the installer and expects this exit code.
    pub(crate) fn run(&self, flags: &str, code: i32) -> Result<()> {
        self.start(flags)?;
        let ended = self.ended(LONG)?;
        ensure!(ended == code, "the installer ended with {ended}, not {code}\n{}", self.log());
        Ok(())
    }

    /// What the installer printed, its last lines.
    pub(crate) fn log(&self) -> String {
        self.machine.run("tail -n 30 /root/install.log").map(|said| said.stdout).unwrap_or_default()
    }

    /// The installer's events so far.
    pub(crate) fn events(&self) -> Result<Vec<Value>> {
        Ok(events(&self.machine.read("/root/install.log")?))
    }

    /// What the product remembers of kernels; nothing when it has not begun.
    pub(crate) fn kernels(&self) -> Result<Value> {
        // A machine that goes down takes the question with it: then it is asked again soon.
        let ask = format!("cat {STATE} 2>/dev/null || echo '{{}}'");
        let text = self.machine.run_for(&ask, Duration::from_secs(60))?.stdout;
        serde_json::from_str(&text).with_context(|| format!("reading {STATE}: {text}"))
    }

    /// Waits until a kernel is on trial and its entry is set in the boot loader.
    pub(crate) fn armed(&self, limit: Duration) -> Result<()> {
        let armed = wait::patiently("the kernel to be armed", limit, || {
            let state = self.kernels()?;
            ensure!(state["trial"]["stage"] == "armed", "the state is {state}");
            Ok(())
        });
        armed.with_context(|| self.log())
    }

    /// Waits until a kernel is accepted and its trial over.
    pub(crate) fn accepted(&self, release: &str) -> Result<()> {
        let accepted = wait::patiently("the kernel to be accepted", LONG, || {
            let known = self.kernels()?;
            ensure!(known["accepted"]["kernel"]["release"] == release, "{known}");
            ensure!(known["trial"].is_null() && known["pin"].is_null(), "{known}");
            Ok(())
        });
        accepted.with_context(|| self.log())?;
        let kernel = self.machine.kernel()?;
        ensure!(kernel == release, "it runs {kernel}");
        Ok(())
    }

    /// `installer status`, as a person reads it.
    pub(crate) fn status(&self) -> Result<String> {
        let said = self.machine.run_for(&format!("{INSTALLER} status"), Duration::from_secs(120))?;
        Ok(said.stdout + &said.stderr)
    }

    /// Waits until what went on in the background has ended well, and the node is Ready.
    pub(crate) fn ready(&self, limit: Duration) -> Result<()> {
        let kubectl = format!("{KUBECTL} --kubeconfig /etc/sealift/admin.conf");
        let what = r#"get nodes -o jsonpath='{.items[*].status.conditions[?(@.type=="Ready")].status}'"#;
        let ready = wait::patiently("the node to be Ready", limit, || {
            let going_on = self.machine.try_run("test -e /etc/systemd/system/sealift-resume.service")?.success();
            let status = self.machine.run_for(&format!("{kubectl} {what}"), Duration::from_secs(120))?.stdout;
            ensure!(status == "True" && !going_on, "Ready is `{status}`, in the background: {going_on}");
            Ok(())
        });
        ready.with_context(|| {
            let said =
                self.machine.try_run("journalctl --no-pager -n 60 -u sealift-resume; systemctl --failed --no-legend");
            said.map(|said| said.stdout).unwrap_or_default()
        })
    }

    /// Boots again after a power cut; it must.
    pub(crate) fn power_on(&self) -> Result<Duration> {
        let start = Instant::now();
        self.machine.power_on()?;
        self.machine.boot_id()?;
        self.machine.settled(BOOT)?;
        Ok(start.elapsed())
    }
}
