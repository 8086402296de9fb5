//! The whole way once, for a person to watch: build, carry, install, run a pod, and the figures of it.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::master::Master;
use crate::measure::{megabytes, rate, seconds};
use crate::output::{heading, say, table};
use crate::product::{Product, Programs, Yard, reference, repository};
use crate::{Bed, Host, Route};

/// Whether the host outlives the demo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It is stopped and removed.
    Remove,
    /// It stays, and the demo says how to enter it.
    Keep,
}

/// Shows it all.
pub fn run(after: After) -> Result<()> {
    let directory = repository().join("target/demo");
    if directory.exists() {
        fs_err::remove_dir_all(&directory)?;
    }
    heading("programs: builder and the static installer");
    let programs = Programs::build()?;
    say(format_args!("{}", programs.installer.display()));
    let (product, mut figures) = make(&programs, &directory)?;

    heading("a host with no route but its bridge");
    let bed = Bed::new()?;
    let start = Instant::now();
    let host = Host::boot(&bed, "master-1", 11, Route::None)?;
    say(format_args!("{} at {} booted in {}", host.name(), host.address(), seconds(start.elapsed())));
    let master = Master::prepare(host, &product, "")?;

    let size = fs_err::metadata(&product.bundle)?.len();
    let start = Instant::now();
    master.host.run("/root/installer verify --bundle /root/x.bundle --key /root/key.pub")?;
    figures
        .push(("installer verify".into(), format!("{} ({})", rate(size, start.elapsed()), seconds(start.elapsed()))));

    heading("installer --role master --bundle x.bundle --config cluster.toml --key key.pub");
    let start = Instant::now();
    let argv = master.command("install", "/root/x.bundle");
    master.host.inside(argv[0]).args(&argv[2..]).show().context("the installer failed")?;
    let installed = start.elapsed();
    master.ready(Duration::from_secs(120))?;
    figures.push(("installer start to its end".into(), seconds(installed)));
    figures.push(("installer start to node Ready".into(), seconds(start.elapsed())));
    let start = Instant::now();
    master.workload(&reference(&product.inspect(&programs)?, "busybox")?)?;
    figures.push(("pod applied to Ready".into(), seconds(start.elapsed())));

    heading("kubectl get nodes,pods -o wide");
    say(master.kubectl("get nodes,pods -o wide")?);
    heading("figures");
    table(&figures);
    say(format_args!("\nproducts in {}", directory.display()));
    if after == After::Keep {
        bed.keep()?;
        say(format_args!("enter the host:   nsenter -t {} -a", master.host.pid()));
        say(format_args!("remove the host:  scripts/demo.sh --clean {}", bed.run().name()));
    }
    Ok(())
}

/// Key, lock, cold and warm build; the results end in `directory`.
fn make(programs: &Programs, directory: &Path) -> Result<(Product, Vec<(String, String)>)> {
    let yard = Yard::lay(programs, &directory.join("yard"), Some(&directory.join("cache")))?;
    heading("a throwaway key, the lock, the bundle");
    yard.keygen("demo")?;
    let start = Instant::now();
    yard.lock()?;
    let locked = start.elapsed();
    let cold = yard.build("demo", "dist")?;
    let warm = yard.build("demo", "dist")?;
    let mut product = warm.clone();
    for path in [&mut product.bundle, &mut product.installer, &mut product.key] {
        let to = directory.join(path.file_name().context("a product without a name")?);
        fs_err::copy(&*path, &to)?;
        *path = to;
    }
    say(format_args!("{}", product.bundle.display()));
    let size = |path: &Path| -> Result<String> { Ok(megabytes(fs_err::metadata(path)?.len())) };
    let figures = vec![
        ("bundle".to_owned(), size(&product.bundle)?),
        ("installer".to_owned(), size(&product.installer)?),
        ("builder lock (cold)".to_owned(), seconds(locked)),
        ("builder build (cold)".to_owned(), seconds(cold.took)),
        ("builder build (warm)".to_owned(), seconds(warm.took)),
    ];
    Ok((product, figures))
}
