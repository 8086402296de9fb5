//! The before-images: files, sysctls, units and the like as they were before Sealift changed them.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Reset, places, units};
use crate::context::{ETC, HOME, STATE};
use crate::event::Event;
use crate::host::Host;
use crate::host::packages::{self, policy};
use crate::journal::BeforeImage;
use crate::step::Target;

/// How long another program that changes packages is waited for; the dpkg of a killed run may still be at work.
const PACKAGES: Duration = Duration::from_secs(600);

impl Reset<'_> {
    /// Puts everything back that the journal knows. One target that cannot be put back does not keep the others.
    pub(super) fn undo(&mut self) -> Result<Vec<String>> {
        let config = self.survey.config.as_ref().map_or("", |config| config.text.as_str());
        let places = places::of(config);
        // What goes as a whole is no matter of single files.
        let own = |target: &Target| match target {
            Target::File(path) => {
                [HOME, ETC, STATE].iter().any(|home| path.starts_with(home))
                    || places.iter().any(|place| place.path == *path)
            }
            _ => false,
        };
        let is_file = |target: &Target| matches!(target, Target::File(_) | Target::Marks(_));
        // What sets or uses them goes first.
        let is_module = |target: &Target| matches!(target, Target::Module(_));
        let (mut done, mut failed) = (Vec::new(), Vec::new());
        // Before masks go: services of packages must not start by themselves.
        done.extend(self.packages()?);
        if let Some(journal) = &self.journal {
            let mut restore = |wanted: &dyn Fn(&Target) -> bool| {
                for (target, image) in journal.images().filter(|(target, _)| wanted(target) && !own(target)) {
                    let differs = image.differs(self.host, target);
                    let swept = match target {
                        Target::File(path) => self.host.sweep_beside(path),
                        Target::Marks(path) => self.host.resolve(path).and_then(|path| self.host.sweep_beside(&path)),
                        _ => Ok(()),
                    };
                    match swept.and_then(|()| image.restore(self.host, target)) {
                        Ok(Some(left)) => self.left.push(left),
                        Ok(None) if differs => done.push(format!("put {target} back")),
                        Ok(None) => {}
                        Err(error) => failed.push(format!("{target}: {error:#}")),
                    }
                }
            };
            restore(&is_file);
            units::forget(self.host, &self.survey.units, Some(journal))?;
            // A unit that was somebody else's can only be started with its own file again.
            restore(&|target| !is_file(target) && !is_module(target));
            let images = journal.images().filter(|(target, _)| is_module(target));
            match unload(self.host, images.collect()) {
                Ok((unloaded, left)) => {
                    done.extend(unloaded);
                    self.left.extend(left);
                }
                Err(error) => failed.push(format!("{error:#}")),
            }
        } else {
            units::forget(self.host, &self.survey.units, None)?;
        }
        if !failed.is_empty() {
            bail!("not put back: {}", failed.join("; "));
        }
        Ok(done)
    }
}

impl Reset<'_> {
    /// Settles what a run left that died while it installed packages.
    fn packages(&mut self) -> Result<Vec<String>> {
        let step = self.part;
        let say = |text| self.events.emit(&Event::Note { step: step.to_owned(), text });
        match packages::settle(self.host, PACKAGES, &say) {
            Ok(settled) => {
                self.left.extend(settled.left);
                Ok(settled.done)
            }
            Err(error) if self.options.force => {
                // The host's own must come back whatever happens: what it lies aside in is deleted next.
                policy::put_back(self.host)?;
                self.left.push(format!("packages that an interrupted run was installing: {error:#}"));
                Ok(Vec::new())
            }
            Err(error) => Err(error),
        }
    }
}

/// Modules need each other: again as long as one more goes. Gives what was done and what is left, for people.
fn unload(host: &Host, mut images: Vec<(&Target, &BeforeImage)>) -> Result<(Vec<String>, Vec<String>)> {
    let (mut done, mut left) = (Vec::new(), Vec::new());
    images.retain(|(target, image)| image.differs(host, target));
    loop {
        let before = images.len();
        left.clear();
        for (target, image) in std::mem::take(&mut images) {
            match image.restore(host, target)? {
                None => done.push(format!("put {target} back")),
                Some(reason) => {
                    left.push(reason);
                    images.push((target, image));
                }
            }
        }
        if images.len() == before || images.is_empty() {
            return Ok((done, left));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::event::Recorded;
    use crate::host::Reply;
    use crate::reset::{Options, Survey};

    #[test]
    fn modules_go_in_whatever_order_they_can_and_one_in_use_stays() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let loaded = Path::new("/proc/modules");
        host.write(loaded, b"ip_vs 1 1 ip_vs_rr, Live\nip_vs_rr 1 0 - Live\nbr_netfilter 1 0 - Live\n", 0o644).unwrap();
        let file = host.real_path(loaded);
        host.fake().answer("modprobe --remove -- ", move |command| {
            let line = command.line();
            let name = line.rsplit(' ').next().unwrap();
            let text = fs_err::read_to_string(&file).unwrap();
            // The bridge's filter is in use by somebody; ip_vs by its scheduler.
            if name == "br_netfilter" || name == "ip_vs" && text.contains("ip_vs_rr 1") {
                return Reply::fail(1, "modprobe: FATAL: Module is in use.");
            }
            let rest: Vec<&str> = text.lines().filter(|line| line.split(' ').next() != Some(name)).collect();
            fs_err::write(&file, rest.join("\n")).unwrap();
            Reply::ok("")
        });
        let targets = ["nf_conntrack", "br_netfilter", "ip_vs", "ip_vs_rr"].map(|name| Target::Module(name.to_owned()));
        let images: Vec<_> = targets.iter().map(|target| (target, &BeforeImage::Absent)).collect();
        let (done, left) = unload(&host, images).unwrap();
        assert_eq!(done, ["put kernel module ip_vs_rr back", "put kernel module ip_vs back"]);
        assert_eq!(left, ["kernel module br_netfilter stays loaded until the next boot: it is in use"]);
        let kept = [(&targets[1], &BeforeImage::Present)];
        assert_eq!(unload(&host, kept.to_vec()).unwrap(), (Vec::new(), Vec::new()), "it was loaded before");
    }

    /// What the operator's policy lies aside in is deleted afterwards.
    #[test]
    fn the_operators_policy_comes_back_also_when_packages_cannot_be_settled() {
        let directory = tempfile::tempdir().unwrap();
        let host = Host::under(directory.path());
        let (policy, own) = (Path::new(policy::POLICY), b"#!/bin/sh\nexit 104\n");
        host.write(policy, own, 0o755).unwrap();
        policy::forbid(&host).unwrap();
        let status = "Package: jq\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1\n";
        host.write(Path::new("/var/lib/dpkg/status"), status.as_bytes(), 0o644).unwrap();
        host.fake().on("systemctl", Reply::ok(""));
        host.fake().on_lock(|path| path.ends_with("lock-frontend").then_some(812));
        let (events, survey) = (Recorded::default(), Survey::default());
        let undo = |force| Reset::new(&host, &events, &survey, Options { force, drain: None }).unwrap().undo();
        let error = format!("{:#}", undo(false).unwrap_err());
        assert!(error.contains("process 812 holds"), "{error}");
        assert!(!host.has(policy, own, 0o755).unwrap(), "dpkg may be at work");
        undo(true).unwrap();
        assert!(host.has(policy, own, 0o755).unwrap());
    }
}
