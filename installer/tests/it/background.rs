//! How the run in the background ends: by its exit code systemd tries again or leaves it to a person.

use std::path::Path;

use anyhow::anyhow;
use installer::commands;
use installer::config::Roles;
use installer::context::Context;
use installer::output::Output;
use installer::plan::Steps;
use installer::report::{Exit, Explain as _, exit_of};
use installer::step::{Check, Step};
use installer::waiting::Waiting;

use crate::host::{Bed, File};

/// Refuses the host for as long as a file of its name is there.
struct Gate(&'static str);

impl Step for Gate {
    fn name(&self) -> &'static str {
        self.0
    }

    fn title(&self) -> &'static str {
        "Refuse"
    }

    fn check(&self, context: &Context<'_>) -> anyhow::Result<Check> {
        if !context.host.exists(&Path::new("/media").join(self.0))? {
            return Ok(Check::Done);
        }
        let refused: anyhow::Result<Check> = Err(anyhow!("{} refuses", self.0));
        refused.exit(Exit::Preflight)
    }

    fn apply(&self, _: &Context<'_>) -> anyhow::Result<()> {
        Ok(())
    }
}

fn steps(_: &Roles) -> Steps {
    let rest: Vec<Box<dyn Step>> =
        vec![Box::new(File("settings", "/etc/example.conf", b"a = 1\n", 0o644)), Box::new(Gate("kernel"))];
    Steps { preflight: vec![Box::new(Gate("preflight"))], rest }
}

#[test]
fn a_refusal_is_left_to_a_person_but_what_preflight_finds_is_tried_again() {
    let bed = Bed::new();
    let refuses = |name: &str| bed.host.write(&Path::new("/media").join(name), b"", 0o644).unwrap();
    refuses("kernel");
    let error = commands::install(&bed.host, &bed.arguments, &Output::silent(), &steps).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Preflight);
    bed.host.write(Path::new("/proc/self/cgroup"), b"0::/system.slice/sealift-resume.service\n", 0o644).unwrap();
    assert_eq!(exit_of(&bed.resume_with(&steps).unwrap_err()), Exit::Preflight);
    let shown = Waiting::read(&bed.host).unwrap().unwrap();
    assert!(shown.failed && shown.reason.contains("kernel refuses"), "{shown:?}");
    refuses("preflight");
    assert_eq!(exit_of(&bed.resume_with(&steps).unwrap_err()), Exit::Failed);
    // In the foreground it is what it is.
    bed.host.write(Path::new("/proc/self/cgroup"), b"0::/user.slice\n", 0o644).unwrap();
    assert_eq!(exit_of(&bed.resume_with(&steps).unwrap_err()), Exit::Preflight);
}

#[test]
fn a_node_that_cannot_be_opened_is_come_back_for() {
    let bed = Bed::new();
    let place = |path: &str, text: &str| bed.host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
    place("/media/kernel", "");
    commands::install(&bed.host, &bed.arguments, &Output::silent(), &steps).unwrap_err();
    // No API server answers here.
    place("/var/lib/sealift/kernel.json", r#"{"closed":"m1"}"#);
    place("/proc/self/cgroup", "0::/system.slice/sealift-resume.service\n");
    let error = bed.resume_with(&steps).unwrap_err();
    assert_eq!(exit_of(&error), Exit::Failed, "the refusal alone would end it: {error:#}");
    bed.host.remove(Path::new("/media/kernel")).unwrap();
    let error = bed.resume_with(&steps).unwrap_err();
    assert_eq!((exit_of(&error), error.to_string().as_str()), (Exit::Failed, "node m1 is still closed for new pods"));
    place("/var/lib/sealift/kernel.json", "{}");
    assert_eq!(bed.resume_with(&steps).unwrap(), Exit::Done);
}
