//! The cases of the step, against a simulated cluster.

use std::path::Path;

use super::{Etcd, FOUNDED, environment};
use crate::cluster::etcd::simulated::Cluster;
use crate::cluster::founding::PATH as FOUNDING;
use crate::config::ClusterConfig;
use crate::host::Reply;
use crate::step::{Check, Step as _};
use crate::steps::tests::Bed;

const WAL: &str = "/var/lib/etcd/member/wal/0000000000000000-0000000000000000.wal";
const TOKEN: &str = "0123456789abcdef";

/// Node `m2` at 192.0.2.2 of a cluster of three masters, with programs and certificates in place.
struct Scene {
    bed: Bed,
    cluster: Cluster,
}

impl Scene {
    fn new() -> Self {
        Self::of(&["m1", "m2", "m3"], 1)
    }

    fn of(masters: &[&str], own: usize) -> Self {
        let mut bed = Bed::new();
        let node = |name: &&str| {
            format!("[[node]]\nname = \"{name}\"\naddress = \"192.0.2.{}\"\nroles = [\"master\"]\n", &name[1..])
        };
        let text = format!("[cluster]\nname = \"test\"\n{}", masters.iter().map(node).collect::<String>());
        bed.config = ClusterConfig::parse(&text, Path::new("cluster.toml")).unwrap();
        bed.node = bed.config.nodes[own].clone();
        bed.put("/etc/sealift/pki/etcd/admin.crt", "x");
        bed.put("/opt/sealift/current/etcd/bin/etcdctl", "x");
        let cluster = Cluster::on(&bed.host, &bed.node.address.to_string());
        start_with_systemd(&bed, &cluster);
        Self { bed, cluster }
    }

    fn founders(&self, names: &[&str]) {
        self.bed.put(FOUNDING, &founding(names, false));
    }

    /// Others run, since long.
    fn run(&self, names: &[&str]) {
        for name in names {
            self.cluster.member(name, &format!("192.0.2.{}", &name[1..]), true);
        }
    }

    fn check(&self) -> Check {
        Etcd.check(&self.bed.context()).unwrap()
    }

    fn waiting(&self) -> String {
        let Check::Waiting(reason) = self.check() else { panic!("does not wait: {:?}", self.check()) };
        reason
    }

    fn refused(&self) -> String {
        crate::report::render(&Etcd.check(&self.bed.context()).unwrap_err())
    }

    /// Applies; systemd starts the simulated member in between.
    fn apply(&self) -> anyhow::Result<()> {
        Etcd.apply(&self.bed.context())
    }

    fn environment(&self) -> String {
        self.bed.host.read_text(Path::new(environment::PATH)).unwrap().unwrap_or_default()
    }

    fn names(&self) -> Vec<(String, bool)> {
        let mut names: Vec<_> =
            self.cluster.members().into_iter().map(|member| (member.name, member.learner)).collect();
        names.sort();
        names
    }
}

fn founding(names: &[&str], made_here: bool) -> String {
    let founder = |name: &&str| serde_json::json!({"name": name, "address": format!("192.0.2.{}", &name[1..])});
    let founders: Vec<serde_json::Value> = names.iter().map(founder).collect();
    serde_json::json!({"id": "00", "etcd_token": TOKEN, "founders": founders, "made_here": made_here}).to_string()
}

/// A restart of the unit starts the simulated member, with its environment file as long as it has no data.
fn start_with_systemd(bed: &Bed, cluster: &Cluster) {
    let (root, cluster, name) = (bed.host.real_path(Path::new("/")), cluster.clone(), bed.node.name.clone());
    let units = std::sync::Arc::clone(&bed.units);
    bed.host.fake().answer("systemctl --no-block restart etcd.service", move |_| {
        let inside = |path: &str| root.join(path.trim_start_matches('/'));
        let environment = (!inside(WAL).exists()).then(|| fs_err::read_to_string(inside(environment::PATH)).unwrap());
        cluster.start(&name, environment.as_deref());
        for (path, text) in [(WAL, "log"), ("/run/sealift/started/etcd.service", "digest-1")] {
            fs_err::create_dir_all(inside(path).parent().unwrap()).unwrap();
            fs_err::write(inside(path), text).unwrap();
        }
        units.lock().unwrap().entry("etcd.service".to_owned()).or_default().active = "active";
        Reply::ok("")
    });
}

#[test]
fn a_single_master_founds_for_itself() {
    let scene = Scene::of(&["m1"], 0);
    scene.founders(&["m1"]);
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
    let text = scene.environment();
    assert!(
        text.contains("ETCD_INITIAL_CLUSTER=m1=https://192.0.2.1:2380\nETCD_INITIAL_CLUSTER_STATE=new\n"),
        "{text}"
    );
    assert!(scene.bed.host.exists(Path::new(FOUNDED)).unwrap());
    let mode = |path: &str| scene.bed.host.entry(Path::new(path)).unwrap().unwrap().mode & 0o777;
    assert_eq!((mode(environment::PATH), mode("/var/lib/etcd")), (0o600, 0o700));
    scene.bed.host.fake().clear();
    scene.apply().unwrap();
    let operations = scene.bed.host.fake().operations();
    let changes = |operation: &&String| !operation.contains("systemctl show") && !operation.contains("etcdctl");
    assert_eq!(operations.iter().find(changes), None, "applied twice");
}

#[test]
fn its_directories_are_its_own_also_when_somebody_made_them_before() {
    let mut scene = Scene::of(&["m1"], 0);
    scene.bed.config.etcd.wal_dir = Some("/fast/wal".into());
    for path in ["/var/lib/etcd", "/fast/wal"] {
        scene.bed.host.create_dir(Path::new(path), 0o755).unwrap();
        super::private_directories(&scene.bed.context()).unwrap();
        assert_eq!(scene.bed.host.entry(Path::new(path)).unwrap().unwrap().mode & 0o777, 0o700, "{path}");
    }
}

/// A log without the rest, or the rest without its log: a disk that is not mounted.
#[test]
fn half_of_its_data_is_a_loss_once_it_has_worked() {
    let mut scene = Scene::of(&["m1"], 0);
    scene.bed.config.etcd.wal_dir = Some("/fast/wal".into());
    scene.founders(&["m1"]);
    scene.bed.put("/fast/wal/0000000000000000-0000000000000000.wal", "old");
    assert!(super::situation::has_data(&scene.bed.context()).unwrap(), "it was killed before it wrote more");
    scene.bed.put(FOUNDED, "");
    let error = super::situation::has_data(&scene.bed.context()).unwrap_err().to_string();
    assert!(error.contains("`/var/lib/etcd/member` is gone"), "{error}");
    scene.bed.put("/var/lib/etcd/member/snap/db", "old");
    scene.bed.host.remove(Path::new("/fast/wal/0000000000000000-0000000000000000.wal")).unwrap();
    let error = super::situation::has_data(&scene.bed.context()).unwrap_err().to_string();
    assert!(error.contains("`/fast/wal` is gone"), "{error}");
}

#[test]
fn the_first_master_made_anew_does_not_found_a_second_cluster() {
    let scene = Scene::of(&["m1", "m2"], 0);
    scene.founders(&["m1"]);
    assert_eq!(scene.waiting(), "no etcd member that has a leader answers (m2)");
    scene.bed.put(FOUNDING, &founding(&["m1"], true));
    assert!(matches!(scene.check(), Check::Needed(_)), "it is the one that begins");
}

#[test]
fn a_founder_bootstraps_and_waits_for_the_majority_by_name() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    scene.apply().unwrap();
    let text = scene.environment();
    let all = "m1=https://192.0.2.1:2380,m2=https://192.0.2.2:2380,m3=https://192.0.2.3:2380";
    assert!(text.contains(&format!("ETCD_INITIAL_CLUSTER={all}\nETCD_INITIAL_CLUSTER_STATE=new\n")), "{text}");
    assert!(text.contains(&format!("ETCD_INITIAL_CLUSTER_TOKEN={TOKEN}\n")), "{text}");
    assert_eq!(scene.waiting(), "etcd needs 2 of its 3 members; no etcd runs on m1 and m3");
    assert!(!scene.bed.host.exists(Path::new(FOUNDED)).unwrap(), "it has not worked yet");
    scene.cluster.edit("m3", |m3| m3.running = true);
    assert!(matches!(scene.check(), Check::Needed(changes) if changes.len() == 1 && changes[0].0.contains(FOUNDED)));
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
}

#[test]
fn a_founder_that_comes_late_starts_as_the_member_the_others_list() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    scene.run(&["m1", "m2", "m3"]);
    scene.cluster.edit("m2", |m2| (m2.running, m2.client_urls) = (false, vec![]));
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
    assert!(scene.environment().contains("ETCD_INITIAL_CLUSTER_STATE=existing\n"));
    assert_eq!(scene.names().len(), 3);
}

#[test]
fn everybody_else_becomes_a_learner_and_then_gets_its_vote() {
    let scene = Scene::of(&["m1", "m2"], 1);
    scene.founders(&["m1"]);
    assert_eq!(scene.waiting(), "no etcd member that has a leader answers (m1)");
    scene.run(&["m1"]);
    scene.cluster.refuse(3, 5);
    let Check::Needed(changes) = scene.check() else { panic!() };
    assert_eq!(changes[0].0, "add member m2 to etcd as a learner");
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
    assert_eq!(scene.names(), [("m1".to_owned(), false), ("m2".to_owned(), false)]);
    let adds = scene.bed.host.fake().commands().into_iter().filter(|line| line.contains("member add")).count();
    assert_eq!(adds, 4, "three times refused for a reason that passes");
}

#[test]
fn a_learner_is_waited_for_and_then_promoted() {
    let scene = Scene::of(&["m1", "m2"], 1);
    scene.founders(&["m1"]);
    scene.run(&["m1"]);
    scene.cluster.refuse(0, 1000);
    let error = scene.apply().unwrap_err();
    assert_eq!(crate::report::exit_of(&error), crate::report::Exit::Waiting, "{error:#}");
    assert!(format!("{error:#}").contains("in sync with leader"), "{error:#}");
    assert!(matches!(scene.check(), Check::Needed(changes) if changes[0].0 == "give member m2 its vote"));
    assert!(!scene.bed.host.exists(Path::new(FOUNDED)).unwrap(), "it has no vote yet");
    scene.cluster.refuse(0, 0);
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
}

#[test]
fn a_kill_at_any_moment_leaves_one_member_and_the_next_run_ends_it() {
    for n in 0.. {
        let scene = Scene::new();
        scene.founders(&["m1"]);
        scene.run(&["m1", "m3"]);
        scene.bed.host.fake().die_at(n);
        let died = scene.apply().is_err();
        scene.bed.host.fake().revive();
        let mut rounds = 0;
        while scene.check() != Check::Done {
            scene.apply().unwrap_or_else(|error| panic!("killed at {n}: {error:#}"));
            rounds += 1;
            assert!(rounds < 4, "killed at {n}: {:?}", scene.check());
        }
        let names: Vec<(String, bool)> = ["m1", "m2", "m3"].map(|name| (name.to_owned(), false)).into();
        assert_eq!(scene.names(), names, "killed at {n}");
        if !died {
            assert!(n > 20, "only {n} operations");
            break;
        }
    }
}

#[test]
fn etcd_takes_one_new_member_at_a_time_and_none_while_one_is_away() {
    let scene = Scene::of(&["m1", "m2", "m3", "m4"], 3);
    scene.founders(&["m1"]);
    scene.run(&["m1", "m2", "m3"]);
    scene.cluster.edit("m3", |m3| m3.learner = true);
    assert_eq!(scene.waiting(), "m3 is joining etcd, which takes one new member at a time");
    scene.cluster.edit("m3", |m3| (m3.learner, m3.running) = (false, false));
    assert_eq!(scene.waiting(), "etcd takes no new member while m3 is away");
    assert_eq!(crate::report::exit_of(&scene.apply().unwrap_err()), crate::report::Exit::Waiting);
    scene.cluster.edit("m3", |m3| m3.running = true);
    assert!(matches!(scene.check(), Check::Needed(_)));
}

#[test]
fn a_member_that_lost_its_data_is_never_founded_anew() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    scene.run(&["m1", "m3"]);
    scene.cluster.member("m2", "192.0.2.2", false);
    let text = scene.refused();
    assert!(text.contains("its data below `/var/lib/etcd` is gone"), "{text}");
    assert!(text.contains("installer node replace m2"), "{text}");
    assert!(scene.apply().is_err());
    assert!(!scene.bed.host.exists(Path::new(environment::PATH)).unwrap());
    // The others do not answer either: the marker alone forbids it.
    scene.bed.put(FOUNDED, "");
    for name in ["m1", "m3"] {
        scene.cluster.edit(name, |member| member.running = false);
    }
    assert!(scene.refused().contains("its data `/var/lib/etcd/member` is gone"));
    // Taken out by `node replace`, it joins as a new member.
    scene.cluster.forget("m2");
    for name in ["m1", "m3"] {
        scene.cluster.edit(name, |member| member.running = true);
    }
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
    assert_eq!(scene.names().len(), 3);
}

#[test]
fn a_single_master_without_its_data_is_refused() {
    let scene = Scene::of(&["m1"], 0);
    scene.founders(&["m1"]);
    scene.founders(&["m1"]);
    scene.apply().unwrap();
    scene.cluster.edit("m1", |m1| m1.running = false);
    scene.bed.host.remove_tree(Path::new("/var/lib/etcd/member")).unwrap();
    let text = scene.refused();
    assert!(text.contains("its data `/var/lib/etcd/member` is gone") && text.contains("restore the data"), "{text}");
    assert!(scene.apply().is_err());
    scene.bed.put("/var/lib/etcd/member/snap/db", "half a restore");
    assert!(scene.refused().contains("`/var/lib/etcd/member/wal` is gone"));
}

#[test]
fn a_learner_that_lost_its_data_is_added_again() {
    let scene = Scene::new();
    scene.founders(&["m1"]);
    scene.run(&["m1", "m2"]);
    scene.cluster.edit("m2", |m2| (m2.learner, m2.running) = (true, false));
    let before = scene.cluster.members()[1].id;
    assert!(matches!(scene.check(), Check::Needed(changes) if changes[0].0.contains("add it again")));
    scene.apply().unwrap();
    assert_eq!(scene.check(), Check::Done);
    assert!(scene.cluster.members().iter().all(|member| member.id != before && !member.learner));
}

#[test]
fn a_member_that_was_taken_out_does_not_come_back_with_its_old_data() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    scene.run(&["m1", "m3"]);
    scene.bed.put(WAL, "old");
    scene.bed.put(FOUNDED, "");
    let text = scene.refused();
    assert!(text.contains("was taken out of etcd") && text.contains("installer reset"), "{text}");
}

#[test]
fn a_new_address_is_told_through_another_member_before_the_start() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    scene.run(&["m1", "m3"]);
    scene.cluster.member("m2", "192.0.2.22", false);
    scene.bed.put(WAL, "old");
    scene.bed.put(FOUNDED, "");
    let Check::Needed(changes) = scene.check() else { panic!() };
    assert!(changes.iter().any(|change| change.0.contains("at https://192.0.2.2:2380")), "{changes:?}");
    // Nobody knows the file any more, and nobody needs it.
    scene.apply().unwrap();
    let commands = scene.bed.host.fake().commands();
    let at = |what: &str| commands.iter().position(|line| line.contains(what)).unwrap();
    assert!(at("member update") < at("restart etcd.service"));
    let m2 = scene.cluster.members().into_iter().find(|member| member.name == "m2").unwrap();
    assert_eq!(m2.peer_urls, ["https://192.0.2.2:2380"]);
    assert_eq!(scene.check(), Check::Done);
}

#[test]
fn the_only_member_tells_itself_its_new_address_after_the_start() {
    let scene = Scene::of(&["m1"], 0);
    scene.cluster.member("m1", "192.0.2.11", false);
    scene.bed.put(WAL, "old");
    scene.bed.put(FOUNDED, "");
    scene.apply().unwrap();
    assert_eq!(scene.cluster.members()[0].peer_urls, ["https://192.0.2.1:2380"]);
    assert_eq!(scene.check(), Check::Done);
}

#[test]
fn a_plan_on_a_bare_host_asks_nobody() {
    let scene = Scene::new();
    scene.bed.host.remove(Path::new("/opt/sealift/current/etcd/bin/etcdctl")).unwrap();
    assert!(matches!(scene.check(), Check::Needed(changes) if changes[0].0 == "write /etc/sealift/etcd.env"));
    assert!(!scene.bed.host.fake().commands().iter().any(|line| line.contains("etcdctl")));
}

#[test]
fn a_member_is_started_when_it_has_written_its_log() {
    let scene = Scene::new();
    scene.founders(&["m1", "m2", "m3"]);
    let units = std::sync::Arc::clone(&scene.bed.units);
    let stamp = scene.bed.host.real_path(Path::new("/run/sealift/started/etcd.service"));
    // Accepted by systemd, and too slow or in vain.
    scene.bed.host.fake().answer("systemctl --no-block restart etcd.service", move |_| {
        fs_err::create_dir_all(stamp.parent().unwrap()).unwrap();
        fs_err::write(&stamp, "digest-1").unwrap();
        units.lock().unwrap().entry("etcd.service".to_owned()).or_default().active = "active";
        Reply::ok("")
    });
    let error = scene.apply().unwrap_err();
    assert!(format!("{error:#}").contains("etcd to write its log: not so after 20 s"), "{error:#}");
    assert_eq!(crate::report::exit_of(&error), crate::report::Exit::Waiting);
}
