//! Kernel modules and sysctls: what the host's kernel must do for a node.
//!
//! Only what this host can have is set; what it cannot (a container shares its kernel with the machine) is reported.

use std::collections::BTreeSet;

use anyhow::Result;

use super::modules::{MODULES_FILE, Modules, Presence};
use super::part::{Found, Part};
use super::sysctls::{Network, SYSCTL_FILE, Sysctls};
use crate::config::ProxyMode;
use crate::context::Context;
use crate::context::proxy_mode::{IPVS_MODULES, chosen};
use crate::step::Target;
use crate::steps::file::WantedFile;

/// The part.
pub(super) struct Kernel;

impl Part for Kernel {
    fn touches(&self, context: &Context<'_>) -> Result<Vec<Target>> {
        let files = [MODULES_FILE, SYSCTL_FILE].map(|path| Target::File(path.into()));
        let keys = Sysctls::keys(context.host, &network(context))?.into_iter().map(Target::Sysctl);
        let modules = wanted_modules(context)?;
        let modules = modules.with(Presence::Loadable).into_iter().map(|name| Target::Module(name.to_owned()));
        Ok(files.into_iter().chain(keys).chain(modules).collect())
    }

    fn look(&self, context: &Context<'_>) -> Result<Found> {
        let modules = wanted_modules(context)?;
        let coming = modules.with(Presence::Loadable);
        let sysctls = Sysctls::survey(context.host, context.facts.container.is_some(), &network(context), &coming)?;
        let mut found = Found::default();
        for name in modules.with(Presence::Loadable) {
            found.change(format!("load kernel module {name}"));
        }
        for file in files(&modules, &sysctls) {
            found.changes.extend(file.change(context.host)?);
        }
        for (key, current, wanted) in &sysctls.wrong {
            found.change(format!("set {key} to {wanted} (is {current})"));
        }
        found.limits = limits(&modules, &sysctls);
        found.limits.extend(sysctls.overridden(context.host)?);
        Ok(found)
    }

    fn apply(&self, context: &Context<'_>) -> Result<()> {
        let modules = wanted_modules(context)?;
        modules.load(context.host)?;
        // Modules bring keys with them (`net.bridge.*`), so the keys are read after loading.
        let sysctls = Sysctls::survey(context.host, context.facts.container.is_some(), &network(context), &[])?;
        sysctls.apply(context.host)?;
        // Setting one key may change another; the file says what holds now.
        for file in files(&modules, &sysctls) {
            file.write(context.host)?;
        }
        Ok(())
    }
}

/// Beginnings of the names of interfaces that pods and services have.
const OF_PODS: [&str; 6] = ["cni0", "kube-ipvs0", "flannel", "cali", "vxlan.calico", "tunl"];

fn network<'a>(context: &Context<'a>) -> Network<'a> {
    let found = context.facts.addresses.iter().filter(|found| found.address.is_ipv4());
    let names: BTreeSet<&str> = found.map(|found| found.interface.as_str()).collect();
    let own = names.into_iter().filter(|name| !OF_PODS.iter().any(|pods| name.starts_with(pods)));
    Network { interfaces: own.collect(), plugin: context.config.network.plugin }
}

/// The modules of ipvs, where kube-proxy works by it: it does not load them itself.
fn proxy_modules(context: &Context<'_>) -> Vec<String> {
    let Some(component) = context.component("kube-proxy").filter(|_| context.roles.run_pods()) else {
        return Vec::new();
    };
    let mode = chosen(context.config.network.kube_proxy, component.version.as_str(), context.facts);
    if mode != ProxyMode::Ipvs {
        return Vec::new();
    }
    // Before Linux 4.19 connection tracking of IPv4 was a module of its own.
    let old = Some("nf_conntrack_ipv4").filter(|name| context.facts.modules.available(name));
    IPVS_MODULES.into_iter().chain(old).map(str::to_owned).collect()
}

fn wanted_modules(context: &Context<'_>) -> Result<Modules> {
    let wanted: BTreeSet<String> = context
        .components
        .iter()
        .filter(|component| context.share().has(component))
        .flat_map(|component| component.modules.iter().cloned())
        .chain(proxy_modules(context))
        .collect();
    Modules::survey(context.host, &context.facts.kernel, context.facts.container.is_some(), &wanted)
}

fn files(modules: &Modules, sysctls: &Sysctls) -> Vec<WantedFile> {
    let mut files = vec![WantedFile::public(SYSCTL_FILE, sysctls.file.as_bytes())];
    files.extend(modules.file().map(|text| WantedFile::public(MODULES_FILE, text)));
    files
}

/// What this host cannot have, one line each.
fn limits(modules: &Modules, sysctls: &Sysctls) -> Vec<String> {
    let mut limits = Vec::new();
    let absent = modules.with(Presence::Absent);
    if !absent.is_empty() {
        limits.push(format!("cannot tell whether this kernel has {} (no module of that name)", absent.join(", ")));
    }
    if !sysctls.shared.is_empty() {
        let keys: Vec<String> = sysctls
            .shared
            .iter()
            .map(|(key, current, wanted)| format!("{key} = {current} (wanted {wanted})"))
            .collect();
        limits.push(format!("not this host's to set: {}", keys.join(", ")));
    }
    if !sysctls.missing.is_empty() {
        limits.push(format!("this kernel has no {}", sysctls.missing.join(", ")));
    }
    limits
}
