//! `bed demo [--keep]`, `bed bench`, `bed boot NAME [--debian-13]`, `bed clean [RUN]`: the entry points behind `scripts/`, and a host to try things on.

use std::process::ExitCode;

use anyhow::{Result, bail};
use e2e::demo::After;
use e2e::output::say;
use e2e::root::Debian;
use e2e::run::Sweep;
use e2e::{Bed, Host, Route};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(format_args!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[&str]) -> Result<()> {
    match words {
        ["demo"] => e2e::demo::run(After::Remove),
        ["demo", "--keep"] => e2e::demo::run(After::Keep),
        ["bench"] => e2e::bench::run(),
        ["boot", name] => boot(name, Debian::Bookworm),
        ["boot", name, "--debian-13"] => boot(name, Debian::Trixie),
        ["clean"] => clean(Sweep::Dead),
        ["clean", run] => clean(Sweep::Kept(run)),
        _ => bail!("usage: bed demo [--keep] | bench | boot NAME [--debian-13] | clean [RUN]"),
    }
}

/// Boots one bare host that stays.
fn boot(name: &str, release: Debian) -> Result<()> {
    let bed = Bed::new()?;
    let host = Host::boot_release(release, &bed, name, 11, Route::None)?;
    bed.keep()?;
    say(format_args!("{name} is {}; enter it with: nsenter -t {} -a", host.address(), host.pid()));
    say(format_args!("its files: {}; remove it with: bed clean {}", host.file("/").display(), bed.run().name()));
    Ok(())
}

fn clean(which: Sweep<'_>) -> Result<()> {
    for run in e2e::run::sweep(which)? {
        say(format_args!("removed the hosts of run {run}"));
    }
    Ok(())
}
