//! Loaded modules that are not of the kernel's own tree, and what works only with them.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::Serialize;

use crate::host::Host;
use crate::host::boot::root_drivers;

/// What a module drives when `/` is on it.
pub const ROOT_DISK: &str = "root disk";
/// Interfaces below an interface (bond, bridge, VLAN) that are followed at most.
const DEPTH: usize = 64;

/// A loaded module that is not part of the kernel's own tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ForeignModule {
    /// Its name.
    pub name: String,
    /// Its letters in `/sys/module/NAME/taint`: `O` out of tree, `P` proprietary, `E` unsigned, `F` forced.
    pub taint: String,
    /// What works only with it: `root disk`, or an interface.
    pub drives: Vec<String>,
}

/// All of them. A container has none of its own.
pub(super) fn foreign_modules(host: &Host) -> Result<Vec<ForeignModule>> {
    let mut tainted = Vec::new();
    for name in host.list(Path::new("/sys/module"))? {
        let path = Path::new("/sys/module").join(&name).join("taint");
        let taint = host.read_text(&path).ok().flatten().unwrap_or_default().trim().to_owned();
        if taint.chars().any(|letter| "OPEF".contains(letter)) {
            tainted.push((name, taint));
        }
    }
    if tainted.is_empty() {
        return Ok(Vec::new());
    }
    let root = root_drivers(host)?;
    let mut users: Vec<(String, BTreeSet<String>)> = Vec::new();
    for interface in host.list(Path::new("/sys/class/net"))? {
        let drivers = drivers(host, &interface)?;
        users.push((interface, drivers));
    }
    let described = tainted.into_iter().map(|(name, taint)| {
        let interfaces = users.iter().filter(|(_, drivers)| drivers.contains(&name));
        let mut drives: Vec<String> = interfaces.map(|(interface, _)| interface.clone()).collect();
        if root.contains(&name) {
            drives.push(ROOT_DISK.to_owned());
        }
        ForeignModule { name, taint, drives }
    });
    Ok(described.collect())
}

/// The modules that drive an interface: its own, those of the bus it is on (virtio, USB), those of what it is made of.
fn drivers(host: &Host, interface: &str) -> Result<BTreeSet<String>> {
    let (mut left, mut found) = (vec![interface.to_owned()], BTreeSet::new());
    let mut seen = BTreeSet::new();
    while let Some(name) = left.pop() {
        if seen.len() >= DEPTH || !seen.insert(name.clone()) {
            continue;
        }
        let place = host.resolve(&Path::new("/sys/class/net").join(&name))?;
        let lower = host.list(&place)?.into_iter().filter_map(|entry| Some(entry.strip_prefix("lower_")?.to_owned()));
        left.extend(lower);
        let device = host.resolve(&place.join("device"))?;
        for place in device.ancestors().take_while(|place| place.starts_with("/sys/") && place.components().count() > 3)
        {
            found.extend(module(host, place)?);
        }
    }
    Ok(found)
}

/// The module behind a device of `/sys`: the link `driver/module`.
fn module(host: &Host, device: &Path) -> Result<Option<String>> {
    let module: PathBuf = host.resolve(&device.join("driver/module"))?;
    let known = module.starts_with("/sys/module") && host.exists(&module)?;
    Ok(module.file_name().filter(|_| known).map(|name| name.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_driver_of_the_network_or_the_root_disk_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let put = |path: &str, text: &str| host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        let link = |path: &str, target: &str| host.symlink(Path::new(path), Path::new(target)).unwrap();
        put("/proc/self/mountinfo", "22 1 8:1 / / rw - ext4 /dev/sda1 rw\n");
        for (module, taint) in [("fastnic", "OE"), ("raidcard", "PO"), ("e1000", ""), ("vbox", "O")] {
            put(&format!("/sys/module/{module}/taint"), &format!("{taint}\n"));
            put(&format!("/sys/module/{module}/initstate"), "live\n");
        }
        // Two cards, the first below a bond, and a RAID controller two levels above its disk.
        for (interface, slot, driver) in [("eth0", "0000:00:03.0", "fastnic"), ("eth1", "0000:00:04.0", "e1000")] {
            let device = format!("/sys/devices/pci0000:00/{slot}");
            put(&format!("{device}/net/{interface}/mtu"), "1500\n");
            link(&format!("{device}/net/{interface}/device"), "../..");
            link(&format!("{device}/driver"), &format!("/sys/bus/pci/drivers/{driver}"));
            link(&format!("/sys/bus/pci/drivers/{driver}/module"), &format!("/sys/module/{driver}"));
            link(&format!("/sys/class/net/{interface}"), &format!("{device}/net/{interface}"));
        }
        put("/sys/devices/virtual/net/bond0/mtu", "1500\n");
        link("/sys/devices/virtual/net/bond0/lower_eth0", "/sys/class/net/eth0");
        link("/sys/class/net/bond0", "/sys/devices/virtual/net/bond0");
        let card = "/sys/devices/pci0000:00/0000:00:05.0";
        put(&format!("{card}/host0/target0/0:0:0:0/block/sda/sda1/partition"), "1\n");
        link("/sys/dev/block/8:1", &format!("{card}/host0/target0/0:0:0:0/block/sda/sda1"));
        link(&format!("{card}/driver"), "/sys/bus/pci/drivers/raidcard");
        link("/sys/bus/pci/drivers/raidcard/module", "/sys/module/raidcard");
        let lines: Vec<String> = foreign_modules(&host)
            .unwrap()
            .iter()
            .map(|module| format!("{} {} {}", module.name, module.taint, module.drives.join(",")))
            .collect();
        assert_eq!(lines, ["fastnic OE bond0,eth0", "raidcard PO root disk", "vbox O "]);
    }
}
