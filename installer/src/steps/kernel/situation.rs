//! Where a trial stands: worked out from what is on record, what runs and what the boot loader says, never from what a run
//! remembers.

use super::state::{Fallback, Stage, Trial};

/// What the host says, to be held against the record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Release of the running kernel.
    pub release: String,
    /// Identity of this boot.
    pub boot_id: String,
    /// Whether the boot loader (or the running kernel, for kexec) is set to start the kernel on trial.
    pub set: bool,
}

/// Where a trial stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Situation {
    /// Not armed yet, or armed and never tried: arm it (again).
    ToArm,
    /// Armed: the reboot is next.
    Armed,
    /// The kernel on trial runs, and has to be looked at.
    Running,
    /// The kernel on trial runs and was found bad: back.
    Condemned(String),
    /// Tried and failed; another kernel runs.
    Failed(String),
}

/// Works it out. A new boot with the old kernel means *tried and failed* only when the boot loader has used up the entry
/// that it was to boot once, and it is certain that it was set.
pub(super) fn situation(trial: &Trial, seen: &Seen) -> Situation {
    let rebooted = trial.boot_id != seen.boot_id;
    let runs = trial.kernel.release == seen.release;
    match (&trial.verdict, runs, rebooted) {
        (Some(reason), true, _) => Situation::Condemned(reason.clone()),
        (Some(reason), false, _) => Situation::Failed(reason.clone()),
        (None, true, _) => Situation::Running,
        (None, false, false) if trial.stage == Stage::Armed && seen.set => Situation::Armed,
        (None, false, false) => Situation::ToArm,
        // A second boot that does not care for what was set: another boot loader reads something else, and would for ever.
        (None, false, true) if seen.set && trial.stage == Stage::Armed && trial.ignored > 0 => {
            Situation::Failed("the boot loader does not boot the entry that it was told to boot once".to_owned())
        }
        (None, false, true) if seen.set || trial.stage == Stage::Arming => Situation::ToArm,
        (None, false, true) => Situation::Failed(unseen(trial)),
    }
}

/// What can be said of a kernel that did not live long enough to say something.
fn unseen(trial: &Trial) -> String {
    let end = "it did not come up, or was not accepted in time";
    match trial.fallback {
        Fallback::Grub | Fallback::Nothing => end.to_owned(),
        Fallback::Kexec => format!("{end}; or the host was rebooted without `systemctl kexec`"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::health::Snapshot;
    use super::super::state::Identity;
    use super::*;

    fn trial(stage: Stage, verdict: Option<&str>) -> Trial {
        Trial {
            kernel: Identity { release: "6.12".into(), package: "linux-image-6.12".into(), version: "6.12-1".into() },
            entry: Some("a>b".into()),
            before: "6.1".into(),
            before_build: "#1".into(),
            fallback: Fallback::Grub,
            boot_id: "first".into(),
            stage,
            since: Timestamp::UNIX_EPOCH,
            verdict: verdict.map(str::to_owned),
            snapshot: Snapshot::default(),
            ignored: 0,
        }
    }

    #[test]
    fn a_boot_loader_that_does_not_listen_is_told_twice_and_no_more() {
        let seen = Seen { release: "6.1".into(), boot_id: "second".into(), set: true };
        let trial = |ignored| Trial { ignored, ..trial(Stage::Armed, None) };
        assert_eq!(situation(&trial(0), &seen), Situation::ToArm);
        assert!(matches!(situation(&trial(1), &seen), Situation::Failed(reason) if reason.contains("boot loader")));
    }

    #[test]
    fn every_combination_of_record_and_host() {
        let failed = || Situation::Failed(unseen(&trial(Stage::Armed, None)));
        let bad = Some("no route");
        let (arming, armed) = (Stage::Arming, Stage::Armed);
        for (stage, verdict, release, boot, set, expected) in [
            // Before the reboot.
            (arming, None, "6.1", "first", false, Situation::ToArm),
            (arming, None, "6.1", "first", true, Situation::ToArm),
            (armed, None, "6.1", "first", true, Situation::Armed),
            // Somebody took the entry out again.
            (armed, None, "6.1", "first", false, Situation::ToArm),
            // After it, on the new kernel: also when the record did not get to "armed" before the power went.
            (armed, None, "6.12", "second", false, Situation::Running),
            (arming, None, "6.12", "second", false, Situation::Running),
            // After it, on the old kernel.
            (armed, None, "6.1", "second", false, failed()),
            (armed, None, "6.1", "second", true, Situation::ToArm),
            (arming, None, "6.1", "second", false, Situation::ToArm),
            // On a third one, which somebody chose in the menu.
            (armed, None, "5.10", "second", false, failed()),
            (armed, bad, "6.12", "second", false, Situation::Condemned("no route".into())),
            (armed, bad, "6.1", "third", false, Situation::Failed("no route".into())),
        ] {
            let seen = Seen { release: release.into(), boot_id: boot.into(), set };
            assert_eq!(situation(&trial(stage, verdict), &seen), expected, "{stage:?} {verdict:?} {seen:?}");
        }
    }
}
