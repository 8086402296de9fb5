//! Points 3 and 4: masters die, vanish and hang while clients go on; the whole site loses power.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use e2e::Signal;
use e2e::cluster::Cluster;
use e2e::cluster::loops::Loops;
use e2e::measure::seconds;
use e2e::output::say;

use super::stage::{LONG, SETTLED, Stage};

/// How long a master is away while the clients ask.
const AWAY: Duration = Duration::from_secs(30);
/// Far above the aims (2 s and 12 s), which are reported: two cores carry five hosts and a builder's machine beside them.
const NEW_CONNECTIONS: Duration = Duration::from_secs(30);
const OPEN_CONNECTION: Duration = Duration::from_secs(60);

/// Loops run before, while the trouble lasts, and after; `trouble` and `end` are done to the cluster in between.
fn clients_go_on(
    stage: &Stage,
    what: &str,
    trouble: impl FnOnce(&Cluster) -> Result<()>,
    end: impl FnOnce(&Cluster) -> Result<()>,
) -> Result<()> {
    let cluster = stage.five()?;
    let image = stage.image("busybox")?;
    let loops = Loops::start(&cluster, "w1")?;
    settle(Duration::from_secs(5));
    trouble(&cluster)?;
    let start = Instant::now();
    cluster.a_new_pod_runs(&image, "w2", SETTLED).with_context(|| format!("scheduling while: {what}"))?;
    say(format_args!("figure: {what}: a new pod came and went after {}", seconds(start.elapsed())));
    settle(AWAY.saturating_sub(start.elapsed()));
    let report = loops.finish()?;
    for line in report.figures(what) {
        say(line);
    }
    let back = Instant::now();
    end(&cluster)?;
    cluster.ready(LONG)?;
    cluster.etcd_is(&["m1", "m2", "m3"], SETTLED)?;
    cluster.pods_everywhere(SETTLED)?;
    say(format_args!("figure: {what}: all Ready and etcd complete {} after it ended", seconds(back.elapsed())));
    ensure!(report.fresh.count > 50 && report.open.count > 10, "the loops hardly ran: {report:?}");
    ensure!(report.fresh.gap < NEW_CONNECTIONS, "new connections: {report:?}");
    ensure!(report.open.gap < OPEN_CONNECTION, "the open connection: {report:?}");
    Ok(())
}

/// Time in which something is measured, not waited for.
fn settle(time: Duration) {
    std::thread::sleep(time);
}

/// A master that does not lead etcd.
fn follower(cluster: &Cluster) -> Result<&'static str> {
    let leader = cluster.etcd_leader("m1")?;
    ["m3", "m2"].into_iter().find(|name| *name != leader).context("no follower")
}

pub(crate) fn a_master_is_killed(stage: &Stage) -> Result<()> {
    let dead = follower(&*stage.five()?)?;
    clients_go_on(
        stage,
        "a master killed",
        |cluster| cluster.host(dead)?.kill(),
        |cluster| cluster.host(dead)?.power_on(),
    )
}

pub(crate) fn the_etcd_leader_is_killed(stage: &Stage) -> Result<()> {
    let dead = stage.five()?.etcd_leader("m1")?;
    clients_go_on(
        stage,
        "the etcd leader killed",
        |cluster| cluster.host(&dead)?.kill(),
        |cluster| cluster.host(&dead)?.power_on(),
    )
}

pub(crate) fn a_master_vanishes_from_the_network(stage: &Stage) -> Result<()> {
    let gone = follower(&*stage.five()?)?;
    clients_go_on(
        stage,
        "a master in a black hole",
        |cluster| cluster.host(gone)?.blackhole(),
        |cluster| cluster.host(gone)?.end_blackhole(),
    )
}

pub(crate) fn an_apiserver_hangs(stage: &Stage) -> Result<()> {
    let hung = follower(&*stage.five()?)?;
    let unit = "kube-apiserver.service";
    clients_go_on(
        stage,
        "an apiserver stopped",
        |cluster| cluster.host(hung)?.signal(unit, Signal::Stop),
        |cluster| cluster.host(hung)?.signal(unit, Signal::Continue),
    )
}

/// Everything off at once, and on again in another order with pauses in between; nobody does anything else.
pub(crate) fn the_whole_site_loses_power(stage: &Stage) -> Result<()> {
    let cluster = stage.five()?;
    let before = cluster.kubectl("get namespaces -o name")?;
    cluster.kubectl("create configmap written-before --from-literal=key=value")?;
    for host in cluster.hosts() {
        host.kill()?;
    }
    let start = Instant::now();
    let mut order = cluster.hosts();
    order.sort_by_key(|host| ["w2", "m3", "w1", "m1", "m2"].iter().position(|name| host.name() == *name));
    for host in order {
        host.power_on()?;
        settle(Duration::from_secs(3));
    }
    cluster.ready(LONG)?;
    say(format_args!("figure: the whole site: all Ready {} after the first was switched on", seconds(start.elapsed())));
    cluster.etcd_is(&["m1", "m2", "m3"], SETTLED)?;
    ensure!(cluster.kubectl("get namespaces -o name")? == before);
    ensure!(cluster.kubectl("get configmap written-before -o jsonpath={.data.key}")? == "value");
    cluster.everything_reaches_everything(SETTLED)?;
    cluster.all_checks_green(SETTLED)
}
