//! The before-images: files, sysctls, units and the like as they were before Sealift changed them.

use anyhow::{Result, bail};

use super::{Reset, places, units};
use crate::context::{ETC, HOME, STATE};
use crate::host::Host;
use crate::host::packages::policy;
use crate::journal::BeforeImage;
use crate::step::Target;

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
        // Left by a run that died while packages were installed.
        if policy::is_left(self.host)? {
            policy::put_back(self.host)?;
            done.push(format!("put {} back", policy::POLICY));
        }
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
    use crate::host::Reply;

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
}
