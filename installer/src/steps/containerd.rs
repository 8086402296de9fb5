//! containerd, the container runtime, and the programs that it runs for a network plugin that is an addon.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use super::cni_programs;
use super::service::{Readiness, Service, UnitText, nothing_before};
use crate::context::{CURRENT, Context};
use crate::host::Command;
use crate::step::{Check, Step, Target};

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Containerd;

pub(super) const SERVICE: Service = Service {
    name: "containerd",
    title: "Start containerd",
    unit: "containerd.service",
    text: UnitText::Component("containerd"),
    deadline: Duration::from_secs(60),
    probe: answers,
    before_start: nothing_before,
    hint: "`journalctl -u containerd` says more; its snapshotter needs a file system that overlayfs can lie on",
};

impl Step for Containerd {
    fn name(&self) -> &'static str {
        SERVICE.name
    }

    fn title(&self) -> &'static str {
        SERVICE.title
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let mut targets = SERVICE.touches(context)?;
        targets.extend(cni_programs::touches(context));
        Ok(targets)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let mut changes = cni_programs::changes(context)?;
        Ok(match SERVICE.check(context)? {
            Check::Needed(more) => {
                changes.extend(more);
                Check::Needed(changes)
            }
            check if changes.is_empty() => check,
            _ => Check::Needed(changes),
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        cni_programs::make(context)?;
        SERVICE.start(context)
    }

    fn undo(&self, context: &Context<'_>) -> Result<()> {
        SERVICE.stop(context)
    }
}

/// `ctr` of the bundle, in the namespace of Kubernetes.
pub fn ctr() -> Command {
    Command::new(Path::new(CURRENT).join("containerd/bin/ctr")).arg("--namespace=k8s.io")
}

/// Both the daemon and its CRI plugin must be up: containerd runs on without a plugin that failed.
fn answers(context: &Context<'_>) -> Result<Readiness> {
    let finished = context.host.try_run(&ctr().args(["plugins", "list"]))?;
    if !finished.success() {
        return Ok(Readiness::NotYet(finished.tail()));
    }
    Ok(cri_state(&finished.text()))
}

/// `TYPE ID PLATFORMS STATUS` lines; CRI is `io.containerd.grpc.v1 cri` (1.x) or the `cri` service plugins (2.x).
fn cri_state(text: &str) -> Readiness {
    let cri: Vec<&str> = text
        .lines()
        .filter(|line| {
            let mut words = line.split_whitespace();
            let kind = words.next().unwrap_or_default();
            kind.starts_with("io.containerd.cri.")
                || (kind.starts_with("io.containerd.grpc") && words.next() == Some("cri"))
        })
        .collect();
    match cri.iter().find(|line| !line.trim_end().ends_with("ok")) {
        _ if cri.is_empty() => Readiness::NotYet("containerd has no CRI plugin".to_owned()),
        Some(line) => Readiness::NotYet(format!("the CRI plugin did not load: {}", line.trim())),
        None => Readiness::Ready,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cri_plugin_must_have_loaded() {
        let text = |state: &str| {
            format!(
                "TYPE                   ID        PLATFORMS      STATUS\n\
                 io.containerd.grpc.v1  images    -              ok\n\
                 io.containerd.snapshotter.v1 zfs linux/amd64    skip\n\
                 io.containerd.grpc.v1  cri       linux/amd64    {state}\n"
            )
        };
        assert_eq!(cri_state(&text("ok")), Readiness::Ready);
        assert!(matches!(cri_state(&text("error")), Readiness::NotYet(_)));
        assert!(matches!(cri_state(""), Readiness::NotYet(_)));
        let new = "io.containerd.cri.v1 images - ok\nio.containerd.cri.v1 runtime linux/amd64 ok\n";
        assert_eq!(cri_state(new), Readiness::Ready);
    }
}
