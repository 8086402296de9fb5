//! The root file system that runs, and whether a menu's entry boots that one or another system's.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::menu::{Entry, System, root_of};
use crate::host::Host;

/// The root of the running system, as its boot loader named it (`/proc/cmdline`).
#[derive(Debug)]
pub(super) struct Root {
    name: Option<String>,
    subvolume: Option<String>,
    device: Option<PathBuf>,
}

impl Root {
    pub(super) fn of(host: &Host) -> Result<Self> {
        let arguments = host.read_text(Path::new("/proc/cmdline"))?.unwrap_or_default();
        let (name, subvolume) = root_of(&arguments);
        let device = name.map(|name| device(host, name)).transpose()?.flatten();
        Ok(Self { name: name.map(str::to_owned), subvolume: subvolume.map(str::to_owned), device })
    }

    /// Whose system an entry boots. Ids that `30_os-prober` makes are always another one's; else the root tells, by its name
    /// or by the device behind the name.
    pub(super) fn system(&self, host: &Host, entry: &Entry) -> Result<System> {
        if entry.id.split('>').any(|id| id.starts_with("osprober-")) {
            return Ok(System::Other);
        }
        let (Some(own), (Some(found), subvolume)) = (self.name.as_deref(), entry.root()) else {
            return Ok(System::Unknown);
        };
        let same = if found == own {
            true
        } else {
            let (Some(own), Some(found)) = (&self.device, device(host, found)?) else { return Ok(System::Unknown) };
            *own == found
        };
        Ok(if same && subvolume == self.subvolume.as_deref() { System::Own } else { System::Other })
    }
}

/// The device of a `root=`; none when it is not there.
fn device(host: &Host, name: &str) -> Result<Option<PathBuf>> {
    let path = match name.split_once('=') {
        Some(("UUID", id)) => Path::new("/dev/disk/by-uuid").join(id),
        Some(("PARTUUID", id)) => Path::new("/dev/disk/by-partuuid").join(id),
        Some(("LABEL", id)) => Path::new("/dev/disk/by-label").join(id),
        None if name.starts_with("/dev/") => PathBuf::from(name),
        _ => return Ok(None),
    };
    if !host.exists(&path)? {
        return Ok(None);
    }
    host.resolve(&path).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::boot::Menu;

    const OURS: &str = "5ea11f70-0000-4000-8000-000000000001";
    const THEIRS: &str = "7b000000-0000-4000-8000-000000000002";

    fn host(root: &str) -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let arguments = format!("BOOT_IMAGE=/boot/vmlinuz-6.1.0-50-amd64 root={root} ro quiet\n");
        host.write(Path::new("/proc/cmdline"), arguments.as_bytes(), 0o444).unwrap();
        for (name, uuid) in [("vda1", OURS), ("vdb1", THEIRS)] {
            host.write(&Path::new("/dev").join(name), b"", 0o600).unwrap();
            let link = Path::new("/dev/disk/by-uuid").join(uuid);
            host.symlink(&link, &Path::new("../..").join(name)).unwrap();
        }
        (dir, host)
    }

    fn entry(id: &str, root: &str) -> Entry {
        let text = format!("menuentry 'x' --id '{id}' {{\n\tlinux /boot/vmlinuz-6.1.0-50-amd64 {root} ro\n}}\n");
        Menu::parse(&text).entries.remove(0)
    }

    #[test]
    fn an_entry_is_ours_by_its_root() {
        for (running, id, root, expected) in [
            ("/dev/vda1", "gnulinux-x", "root=/dev/vda1", System::Own),
            ("/dev/vda1", "gnulinux-x", &format!("root=UUID={OURS}"), System::Own),
            ("/dev/vda1", "gnulinux-x", &format!("root=UUID={THEIRS}"), System::Other),
            (&format!("UUID={OURS}"), "gnulinux-x", "root=/dev/vdb1", System::Other),
            ("/dev/vda1", "osprober-gnulinux-x", "root=/dev/vda1", System::Other),
            ("/dev/vda1", "gnulinux-x", "root=UUID=gone", System::Unknown),
            ("/dev/vda1", "gnulinux-x", "quiet", System::Unknown),
            ("/dev/vda1", "gnulinux-x", "root=/dev/vda1 rootflags=subvol=@other", System::Other),
            ("ZFS=rpool/ROOT/a", "gnulinux-x", "root=ZFS=rpool/ROOT/a", System::Own),
        ] {
            let (_dir, host) = host(running);
            let found = Root::of(&host).unwrap().system(&host, &entry(id, root)).unwrap();
            assert_eq!(found, expected, "{running}: {id} {root}");
        }
    }

    #[test]
    fn another_system_with_a_kernel_of_the_same_release_is_not_taken_for_ours() {
        let (_dir, host) = host("/dev/vda1");
        let menu = |roots: &[(&str, &str)]| {
            let entries = roots.iter().map(|(id, root)| entry(id, root));
            let mut menu = Menu { entries: entries.collect(), ..Menu::parse("") };
            let root = Root::of(&host).unwrap();
            for entry in &mut menu.entries {
                entry.system = root.system(&host, entry).unwrap();
            }
            menu.of("6.1.0-50-amd64").map(|entry| entry.id.clone())
        };
        // os-prober's come last in the menu.
        let ours = ("ours", "root=/dev/vda1");
        assert_eq!(menu(&[ours, ("osprober-gnulinux-y", "root=/dev/vdb1")]).as_deref(), Some("ours"));
        assert_eq!(menu(&[ours, ("custom", "root=UUID=gone")]).as_deref(), Some("ours"));
        assert_eq!(menu(&[("a", "root=UUID=gone"), ("b", "root=UUID=away")]), None, "nothing says which");
        assert_eq!(menu(&[("a", "root=UUID=gone"), ("b", "root=UUID=gone")]).as_deref(), Some("b"));
        assert_eq!(menu(&[("osprober-gnulinux-y", "root=/dev/vdb1")]), None);
    }
}
