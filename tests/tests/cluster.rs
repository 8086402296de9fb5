//! Several hosts become a cluster, lose masters, power and addresses, and stay one: what must be seen to hold on real systemd hosts.
//!
//! The scenarios run in the order of `main`; those of one cluster stand together, the destructive ones last. Lines that begin with
//! `figure:` are measurements; limits on them are wide.

mod cluster {
    pub(crate) mod address;
    pub(crate) mod dayone;
    pub(crate) mod dedicated;
    pub(crate) mod failover;
    pub(crate) mod homes;
    pub(crate) mod membership;
    pub(crate) mod refused;
    pub(crate) mod small;
    pub(crate) mod stage;
    pub(crate) mod together;
}

use std::sync::Arc;

use anyhow::Result;
use cluster::stage::{Scenario, Stage};
use cluster::{address, dayone, dedicated, failover, homes, membership, refused, small, together};
use e2e::measure::seconds;
use e2e::output::say;
use libtest_mimic::{Arguments, Trial};

/// One master and a worker, without secrets made beforehand.
const SMALL: &[(&str, Scenario)] = &[
    ("the_first_master_founds", small::the_first_master_founds),
    ("a_second_founder_is_refused", small::a_second_founder_is_refused),
    ("two_founders_are_noticed", small::two_founders_are_noticed),
    ("somebody_in_the_middle_is_refused", small::somebody_in_the_middle_is_refused),
    ("a_worker_joins_with_a_plain_file_and_a_pin", small::a_worker_joins_with_a_plain_file_and_a_pin),
    ("the_only_master_moves_announced", address::the_only_master_announced),
    ("the_only_master_moves_noticed", address::the_only_master_noticed),
];

/// Three masters and two workers at once, then all that can happen to them.
const FIVE: &[(&str, Scenario)] = &[
    ("five_hosts_at_once_become_a_cluster", together::five_hosts_at_once_become_a_cluster),
    ("a_second_run_changes_nothing_anywhere", together::a_second_run_changes_nothing_anywhere),
    ("kubectl_works_for_root_at_once", dayone::kubectl_works_for_root_at_once),
    ("a_kubeconfig_for_a_person_works_elsewhere", dayone::a_kubeconfig_for_a_person_works_elsewhere),
    ("pods_run_without_a_nameserver", dayone::pods_run_without_a_nameserver),
    ("status_shows_the_cluster", dayone::status_shows_the_cluster),
    ("a_master_is_killed", failover::a_master_is_killed),
    ("the_etcd_leader_is_killed", failover::the_etcd_leader_is_killed),
    ("a_master_vanishes_from_the_network", failover::a_master_vanishes_from_the_network),
    ("an_apiserver_hangs", failover::an_apiserver_hangs),
    ("a_join_file_that_was_tampered_with", refused::a_join_file_that_was_tampered_with),
    ("a_wrong_passphrase", refused::a_wrong_passphrase),
    ("age_opens_a_join_file", refused::age_opens_a_join_file),
    ("another_authority_than_the_pinned", refused::another_authority_than_the_pinned),
    ("an_expired_join_file", refused::an_expired_join_file),
    ("requests_that_nobody_approves", refused::requests_that_nobody_approves),
    ("a_revoked_token", refused::a_revoked_token),
    ("the_sixth_joins_at_last", refused::the_sixth_joins_at_last),
    ("a_workers_time_does_not_grow", together::a_workers_time_does_not_grow),
    ("the_whole_site_loses_power", failover::the_whole_site_loses_power),
    ("a_worker_is_removed", membership::a_worker_is_removed),
    ("a_fourth_master_joins", membership::a_fourth_master_joins),
    ("the_first_master_is_removed", membership::the_first_master_is_removed),
    ("a_dead_master_is_replaced", membership::a_dead_master_is_replaced),
    ("one_of_three_masters_moves_announced", address::one_of_three_announced),
    ("one_of_three_masters_moves_noticed", address::one_of_three_noticed),
];

/// The same five one by one, each with a second interface.
const HOMES: &[(&str, Scenario)] = &[
    ("one_by_one_in_a_random_order", together::one_by_one_in_a_random_order),
    ("only_configured_addresses_are_used", homes::only_configured_addresses_are_used),
    ("nothing_waits_in_the_end", together::nothing_waits_in_the_end),
];

/// etcd on hosts of its own.
const DEDICATED: &[(&str, Scenario)] = &[
    ("dedicated_etcd_comes_up", dedicated::dedicated_etcd_comes_up),
    ("a_lost_member_is_borne", dedicated::a_lost_member_is_borne),
];

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage::default());
    let trials = [SMALL, FIVE, HOMES, DEDICATED].concat().into_iter().map(|(name, scenario)| {
        let stage = stage.clone();
        Trial::test(name, move || {
            let start = std::time::Instant::now();
            let result = scenario(&stage);
            say(format_args!("figure: {name}: {} in all", seconds(start.elapsed())));
            if let Err(error) = &result {
                // At once: the suite goes on for a long time.
                say(format_args!("{error:#}"));
            }
            result.map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit();
}
