//! A bare host becomes a master, from bundle to pod: what must be seen to hold on a real systemd host.
//!
//! The scenarios run in the order of `main`. The first host has no route but its bridge; a second one, on which the installer is killed
//! again and again, has a default route and a name server that lead into a trap, so that attempts to dial out are counted.

mod host {
    pub(crate) mod cluster;
    pub(crate) mod confidential;
    pub(crate) mod killed;
    pub(crate) mod packages;
    pub(crate) mod preflight;
    pub(crate) mod refused;
    pub(crate) mod repeated;
    pub(crate) mod settings;
    pub(crate) mod stage;
}

use std::sync::Arc;

use anyhow::Result;
use host::stage::{Scenario, Stage};
use host::{cluster, confidential, killed, packages, preflight, refused, repeated, settings};
use libtest_mimic::{Arguments, Trial};

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let scenarios: &[(&str, Scenario)] = &[
        ("hostile_bundles_change_nothing", refused::hostile_bundles_change_nothing),
        ("a_damaged_real_bundle_changes_nothing", refused::a_damaged_real_bundle_changes_nothing),
        ("packages_are_installed_offline", packages::packages_are_installed_offline),
        ("debian_13_gets_its_packages", packages::debian_13_gets_its_packages),
        ("plan_touches_nothing", repeated::plan_touches_nothing),
        (
            "everything_wrong_is_named_at_once_and_can_be_ignored",
            preflight::everything_wrong_is_named_at_once_and_can_be_ignored,
        ),
        ("install_makes_a_ready_node", cluster::install_makes_a_ready_node),
        ("a_pod_runs_and_answers_on_its_node_port", cluster::a_pod_runs_and_answers_on_its_node_port),
        ("logs_and_exec_work", cluster::logs_and_exec_work),
        ("the_node_authorizer_limits_the_kubelet", cluster::the_node_authorizer_limits_the_kubelet),
        ("the_kubelet_asks_who_you_are", cluster::the_kubelet_asks_who_you_are),
        ("secrets_are_encrypted_at_rest", confidential::secrets_are_encrypted_at_rest),
        ("the_audit_log_is_written", confidential::the_audit_log_is_written),
        ("every_open_port_speaks_tls", confidential::every_open_port_speaks_tls),
        ("keys_are_for_root_alone", confidential::keys_are_for_root_alone),
        ("secrets_stay_out_of_logs_and_arguments", confidential::secrets_stay_out_of_logs_and_arguments),
        ("a_second_run_changes_nothing", repeated::a_second_run_changes_nothing),
        ("older_and_other_bundles_are_refused", refused::older_and_other_bundles_are_refused),
        ("certificates_rotate_without_the_installer", cluster::certificates_rotate_without_the_installer),
        ("nothing_dials_out", confidential::nothing_dials_out),
        ("a_killed_installer_is_resumed", killed::a_killed_installer_is_resumed),
        ("settings_are_made_and_given_back", settings::settings_are_made_and_given_back),
    ];
    let stage = Arc::new(Stage::default());
    let trials = scenarios.iter().map(|(name, scenario)| {
        let (stage, scenario) = (stage.clone(), *scenario);
        Trial::test(*name, move || scenario(&stage).map_err(|error| format!("{error:#}").into()))
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit();
}
