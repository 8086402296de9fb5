//! Whether an initramfs can reach the root file system: the drivers between `/` and the hardware, and what is packed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};

use crate::facts::which;
use crate::host::{Command, Host};

/// Reading a big initramfs with all firmware takes a while on a slow machine.
const PATIENCE: Duration = Duration::from_secs(300);

/// Names of the files in an initramfs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initramfs(BTreeSet<String>);

impl Initramfs {
    /// Where a kernel's initramfs is.
    pub fn path(host: &Host, release: &str) -> Result<Option<PathBuf>> {
        for name in [format!("initrd.img-{release}"), format!("initramfs-{release}.img"), format!("initrd-{release}")] {
            let path = Path::new("/boot").join(name);
            if host.exists(&path)? {
                return Ok(Some(path));
            }
        }
        Ok(None)
    }

    /// Lists it with the distribution's own tool.
    pub fn read(host: &Host, path: &Path) -> Result<Self> {
        let tools = [("lsinitramfs", None), ("lsinitrd", Some("--list"))];
        for (tool, flag) in tools {
            if which(host, tool)?.is_some() {
                let command = Command::new(tool).args(flag).arg(path).timeout(PATIENCE);
                let text = host.run(&command).context("looking into the initramfs")?.text();
                return Ok(Self::parse(&text));
            }
        }
        Err(anyhow!("neither `lsinitramfs` nor `lsinitrd` is there to look into `{}`", path.display()))
    }

    /// The last word of each line is a path, in the lists of both tools.
    fn parse(text: &str) -> Self {
        Self(text.lines().filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect())
    }

    /// Whether there is nothing in it that a kernel could start.
    pub fn has_init(&self) -> bool {
        self.0.iter().any(|path| path == "init" || path.ends_with("/init"))
    }

    /// Whether a file is in it.
    pub fn has(&self, path: &str) -> bool {
        self.0.iter().any(|found| found.trim_start_matches("./") == path)
    }

    /// Modules that are neither in it nor part of the kernel image (`builtin`: text of the kernel's `modules.builtin`).
    pub fn lacks<'a>(&self, modules: &'a BTreeSet<String>, builtin: &str) -> Vec<&'a str> {
        let name = |path: &str| {
            let file = path.rsplit('/').next().unwrap_or(path);
            file.split_once(".ko").map(|(name, _)| name.replace('-', "_"))
        };
        let there: BTreeSet<String> =
            self.0.iter().map(String::as_str).chain(builtin.lines()).filter_map(name).collect();
        modules.iter().map(String::as_str).filter(|module| !there.contains(&module.replace('-', "_"))).collect()
    }
}

/// Modules that work between the root file system and the hardware on the running kernel: its own, and the drivers of its
/// block device, of what that is made of, and of all buses on the way. Empty where sysfs does not tell.
pub fn root_drivers(host: &Host) -> Result<BTreeSet<String>> {
    let mounts = host.read_text(Path::new("/proc/self/mountinfo"))?.unwrap_or_default();
    let mut found = BTreeSet::new();
    let root = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some("/"));
    let Some(line) = root else { return Ok(found) };
    let number = line.split(' ').nth(2).unwrap_or_default();
    if let Some(kind) = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').next())
        && host.exists(&Path::new("/sys/module").join(kind).join("initstate"))?
    {
        // Only a module that can be unloaded has a state; what is part of the kernel has none.
        found.insert(kind.to_owned());
    }
    let source = line.split(" - ").nth(1).and_then(|rest| rest.split(' ').nth(1)).unwrap_or_default();
    let mut devices = vec![PathBuf::from(format!("/sys/dev/block/{number}"))];
    // btrfs and others give their mounts numbers that no device has.
    if let Some(name) = Path::new(source).strip_prefix("/dev").ok().filter(|_| number.starts_with("0:")) {
        let device = host.resolve(&Path::new("/dev").join(name))?;
        devices.extend(device.file_name().map(|name| Path::new("/sys/class/block").join(name)));
    }
    while let Some(device) = devices.pop() {
        if !host.exists(&device)? {
            continue;
        }
        let device = host.resolve(&device)?;
        for slave in host.list(&device.join("slaves"))? {
            devices.push(device.join("slaves").join(slave));
        }
        for place in device.ancestors().take_while(|place| place.starts_with("/sys/devices")) {
            for link in ["driver/module", "device/driver/module"] {
                let module = host.resolve(&place.join(link))?;
                if module.starts_with("/sys/module") && host.exists(&module)? {
                    let loadable = host.exists(&module.join("initstate"))?;
                    found.extend(
                        module.file_name().filter(|_| loadable).map(|name| name.to_string_lossy().into_owned()),
                    );
                }
            }
        }
    }
    Ok(found)
}
