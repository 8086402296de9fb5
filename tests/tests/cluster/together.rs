//! Points 1 and 10: five hosts at once, and one by one in a random order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::cluster::{How, Seat};
use e2e::measure::seconds;
use e2e::output::say;

use super::stage::{FIVE, LONG, SETTLED, Stage};

pub(crate) fn five_hosts_at_once_become_a_cluster(stage: &Stage) -> Result<()> {
    let start = Instant::now();
    let cluster = stage.five()?;
    say(format_args!(
        "figure: five at once: bare hosts, secrets, installation, all Ready, a pod on each: {}",
        seconds(start.elapsed())
    ));
    cluster.etcd_is(&["m1", "m2", "m3"], SETTLED)?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)?;
    ensure!(cluster.bed().foreign()?.packets == 0, "somebody dialled out: {:?}", cluster.bed().foreign()?);
    Ok(())
}

/// A second run of the installer finds nothing to do, on any of them.
pub(crate) fn a_second_run_changes_nothing_anywhere(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    for name in ["m1", "w1"] {
        let outcome = cluster.install(name, &How::JOIN)?.ended(&[0])?;
        ensure!(outcome.install.changes()? == 0, "{name}: {}", outcome.install.finished.tail());
    }
    Ok(())
}

/// Each host is started when the one before is done or waits for others; nobody is asked again. The hosts have several interfaces
/// (point 7): whatever takes the default route's address, or the one that the host name means, takes the wrong one.
pub(crate) fn one_by_one_in_a_random_order(stage: &Stage) -> Result<()> {
    let cluster = stage.homes()?;
    let mut order = FIVE;
    // Another one in every run, as process ids are.
    shuffle(&mut order, u64::from(std::process::id()));
    let names: Vec<&str> = order.iter().map(|seat| seat.name).collect();
    say(format_args!("figure: one by one: order {}", names.join(" ")));
    let start = Instant::now();
    for seat in order {
        let outcome = cluster.install(seat.name, &How::BRIEFLY)?.ended(&[0, 6]).with_context(|| cluster.troubles())?;
        let (code, took) = (outcome.install.finished.code, seconds(outcome.took));
        say(format_args!("figure: one by one: {} exit code {code:?} after {took}; {}", seat.name, outcome.steps()));
    }
    cluster.ready(LONG)?;
    say(format_args!("figure: one by one: all Ready after {}", seconds(start.elapsed())));
    cluster.etcd_is(&["m1", "m2", "m3"], SETTLED)?;
    cluster.workload(&stage.image("busybox")?, LONG)?;
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}

/// Waiting runs end by themselves, and what continued them goes.
pub(crate) fn nothing_waits_in_the_end(stage: &Stage) -> Result<()> {
    let cluster = stage.homes()?;
    for host in cluster.hosts() {
        e2e::wait::until("a waiting run to end", LONG, || {
            let finished = host.try_run("systemctl cat sealift-resume.service")?;
            ensure!(!finished.success(), "{} still has a unit that resumes: {}", host.name(), host.journal(20));
            Ok(())
        })?;
    }
    Ok(())
}

/// Workers install in the same time whatever the number of other nodes is: they ask no other node but the masters.
pub(crate) fn a_workers_time_does_not_grow(stage: &Stage) -> Result<()> {
    let times = stage.worker_times.lock().map_err(|_| anyhow::anyhow!("no times"))?;
    let few = times.iter().find(|(others, _)| *others < 3).context("no time of a worker in a small cluster")?;
    let many = times.iter().find(|(others, _)| *others >= 5).context("no time of a worker in a large cluster")?;
    say(format_args!(
        "figure: a worker alone: {} with {} others, {} with {}",
        seconds(few.1),
        few.0,
        seconds(many.1),
        many.0
    ));
    // Five other hosts share the processors here; growth with the number would show as a multiple.
    ensure!(many.1 < few.1 * 4 + Duration::from_secs(30), "it grew");
    Ok(())
}

fn shuffle(order: &mut [Seat], seed: u64) {
    let mut state = seed;
    for last in (1..order.len()).rev() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(state >> 33).unwrap_or(0) % (last + 1);
        order.swap(last, index);
    }
}
