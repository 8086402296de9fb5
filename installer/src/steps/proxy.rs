//! The proxy to all apiservers on every node's loopback (nginx `stream`). This step writes the first list of backends; from
//! then on the list belongs to `installer agent`.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::api::APISERVER_PORT;
use super::file::WantedFile;
use super::loopback;
use super::service::{Service, UnitText};
use crate::agent::backends;
use crate::context::{CURRENT, Context};
use crate::host::Command;
use crate::step::{Check, Step, Target};

/// The list that nginx includes; kept by the agent.
pub const BACKENDS: &str = "/var/lib/sealift/agent/backends.conf";

/// The step.
#[derive(Clone, Copy, Debug)]
pub struct Proxy;

pub(super) const SERVICE: Service = Service {
    name: "proxy",
    title: "Start the proxy to the API servers",
    unit: "sealift-proxy.service",
    text: UnitText::Component("nginx"),
    deadline: Duration::from_secs(60),
    probe: |_| loopback::listens(8443),
    before_start: test_configuration,
    hint: "`journalctl -u sealift-proxy` says more",
};

impl Step for Proxy {
    fn name(&self) -> &'static str {
        SERVICE.name
    }

    fn title(&self) -> &'static str {
        SERVICE.title
    }

    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let mut targets = SERVICE.touches(context)?;
        targets.push(Target::File(BACKENDS.into()));
        Ok(targets)
    }

    fn check(&self, context: &Context<'_>) -> Result<Check> {
        let first = first_backends(context)?.map(|file| file.change(context.host)).transpose()?.flatten();
        Ok(match (SERVICE.check(context)?, first) {
            (check, None) => check,
            (Check::Needed(mut changes), Some(change)) => {
                changes.insert(0, change);
                Check::Needed(changes)
            }
            (_, Some(change)) => Check::Needed(vec![change]),
        })
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        if let Some(file) = first_backends(context)? {
            file.write(context.host)?;
        }
        SERVICE.start(context)
    }

    fn undo(&self, context: &Context<'_>) -> Result<()> {
        SERVICE.stop(context)
    }
}

/// The list to begin with: all masters of the config; `None` when there is a list already.
fn first_backends(context: &Context<'_>) -> Result<Option<WantedFile>> {
    if context.host.read_text(Path::new(BACKENDS))?.is_some_and(|text| text.contains("server ")) {
        return Ok(None);
    }
    let masters = context.config.masters().map(|master| SocketAddr::new(master.address, APISERVER_PORT));
    Ok(Some(WantedFile::public(BACKENDS, backends::first(masters))))
}

/// nginx with a configuration it refuses would leave the node without any apiserver: it is asked first.
fn test_configuration(context: &Context<'_>) -> Result<()> {
    context.host.create_dir(Path::new("/run/sealift/proxy"), 0o755)?;
    let command = Command::new(context.program("nginx", "bin/nginx"))
        .args(["-t", "-q", "-e", "stderr", "-p", "/run/sealift/proxy", "-c"])
        .arg(format!("{CURRENT}/etc/nginx/nginx.conf"));
    context.host.run(&command).context("nginx refuses its configuration")?;
    Ok(())
}
