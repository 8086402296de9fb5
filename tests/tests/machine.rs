//! A virtual machine gets another kernel from the bundle, by a reboot that cannot strand it: what must be seen to hold where kernels are
//! real.
//!
//! The scenarios run in their order, by `scripts/test.sh machine` and `full`.

mod machine {
    pub(crate) mod bad;
    pub(crate) mod bed;
    pub(crate) mod cuts;
    pub(crate) mod drained;
    pub(crate) mod settings;
    pub(crate) mod site;
    pub(crate) mod space;
    pub(crate) mod stage;
    pub(crate) mod upgrade;
}

use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use e2e::measure::seconds;
use e2e::output::say;
use libtest_mimic::{Arguments, Trial};
use machine::stage::{Scenario, Stage};
use machine::{bad, bed, cuts, drained, settings, space, upgrade};

const SCENARIOS: &[(&str, Scenario)] = &[
    ("an_older_kernel_is_replaced_by_one_reboot", upgrade::an_older_kernel_is_replaced_by_one_reboot),
    ("a_later_kernel_boots_by_default", upgrade::a_later_kernel_boots_by_default),
    ("a_kernel_is_replaced_on_uefi", upgrade::a_kernel_is_replaced_on_uefi),
    ("debian_13_gets_its_newer_kernel", upgrade::debian_13_gets_its_newer_kernel),
    ("a_working_node_is_emptied_first", drained::a_working_node_is_emptied_first),
    ("the_machine_proves_itself", bed::the_machine_proves_itself),
    ("bad_kernels_are_what_they_seem", bad::bad_kernels_are_what_they_seem),
    ("a_kernel_that_panics", bad::a_kernel_that_panics),
    ("a_kernel_that_hangs_in_its_initramfs", bad::a_kernel_that_hangs_in_its_initramfs),
    ("a_kernel_that_hangs_before_sysinit", bad::a_kernel_that_hangs_before_sysinit),
    ("a_kernel_that_fails_its_health_check", bad::a_kernel_that_fails_its_health_check),
    ("power_cut_during_dpkg", cuts::during_dpkg),
    ("power_cut_during_the_initramfs", cuts::during_the_initramfs),
    ("power_cut_right_before_the_reboot", cuts::right_before_the_reboot),
    ("power_cut_right_after_the_reboot", cuts::right_after_the_reboot),
    ("boot_is_too_small", space::boot_is_too_small),
    ("the_disk_fills_up", space::the_disk_fills_up),
    ("dpkg_is_locked", space::dpkg_is_locked),
    ("the_kernel_is_held", space::the_kernel_is_held),
    ("settings_are_given_back", settings::settings_are_given_back),
];

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    let stage = Arc::new(Stage::default());
    let trials = SCENARIOS.iter().map(|(name, scenario)| {
        let (stage, scenario) = (stage.clone(), *scenario);
        Trial::test(*name, move || {
            let start = Instant::now();
            let result = scenario(&stage);
            say(format_args!("figure: {name}: {} in all", seconds(start.elapsed())));
            if let Err(error) = &result {
                say(format_args!("{error:#}"));
            }
            result.map_err(|error| format!("{error:#}").into())
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(stage);
    conclusion.exit();
}
