//! Where GRUB has its menu on this host.
//!
//! BIOS machines, and most UEFI ones, have it in `/boot`: what lies on the EFI partition only leads there. Enterprise Linux 8
//! on UEFI has the menu itself, and the environment block, on the EFI partition; a file in `/boot/grub2` is a leftover then.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::Host;
use crate::facts::which;

/// The firmware is UEFI.
const UEFI: &str = "/sys/firmware/efi";
/// One directory for each system that is installed.
const VENDORS: &str = "/boot/efi/EFI";
/// Where Enterprise Linux says which menu a UEFI machine boots.
const LINK: &str = "/etc/grub2-efi.cfg";

/// GRUB's directory and the beginning of the names of its commands.
pub(super) fn directory(host: &Host) -> Result<Option<(PathBuf, &'static str)>> {
    if which(host, "grub2-reboot")?.is_some() {
        let directory = match on_efi(host)? {
            Some(directory) => directory,
            None => PathBuf::from("/boot/grub2"),
        };
        if host.exists(&directory.join("grub.cfg"))? {
            return Ok(Some((directory, "grub2")));
        }
    }
    let directory = PathBuf::from("/boot/grub");
    let there = host.exists(&directory.join("grub.cfg"))? && which(host, "grub-reboot")?.is_some();
    Ok(there.then_some((directory, "grub")))
}

/// The directory on the EFI partition, when the menu is there and not only a file that leads to the real one.
fn on_efi(host: &Host) -> Result<Option<PathBuf>> {
    if !host.exists(Path::new(UEFI))? {
        return Ok(None);
    }
    let Some(path) = named(host)? else { return Ok(None) };
    let text = host.read_text(&path)?.unwrap_or_default();
    // `search … --set=dev …`, `set prefix=($dev)/grub2`, `configfile $prefix/grub.cfg`.
    let leads_on = text.lines().any(|line| line.trim_start().starts_with("configfile "));
    let is_menu = text.lines().any(|line| line.trim() == "blscfg" || line.starts_with("menuentry "));
    if leads_on && !is_menu {
        return Ok(None);
    }
    Ok(path.parent().map(Path::to_owned))
}

/// The `grub.cfg` on the EFI partition that this system's GRUB reads first: in the only directory that has one, or in the one
/// that the distribution's link leads to.
fn named(host: &Host) -> Result<Option<PathBuf>> {
    let mut found = Vec::new();
    for vendor in host.list(Path::new(VENDORS))? {
        let path = Path::new(VENDORS).join(vendor).join("grub.cfg");
        if host.exists(&path)? {
            found.push(path);
        }
    }
    if found.len() < 2 {
        return Ok(found.pop());
    }
    let link = host.resolve(Path::new(LINK))?;
    Ok(found.into_iter().find(|path| *path == link))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What lies on the EFI partition where the menu is in `/boot`.
    const STUB: &str = "search --no-floppy --root-dev-only --fs-uuid --set=dev 0c8a\nset prefix=($dev)/grub2\n\
        export $prefix\nconfigfile $prefix/grub.cfg\n";
    const MENU: &str = "set default=\"${saved_entry}\"\ninsmod blscfg\nblscfg\n";

    fn found(files: &[(&str, &str)], link: Option<&str>) -> Option<String> {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        for (path, text) in files {
            host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        }
        if let Some(target) = link {
            host.symlink(Path::new(LINK), Path::new(target)).unwrap();
        }
        directory(&host).unwrap().map(|(path, prefix)| format!("{} {prefix}", path.display()))
    }

    #[test]
    fn the_menu_is_where_the_firmware_leads() {
        let (tool, uefi) = (("/usr/sbin/grub2-reboot", ""), ("/sys/firmware/efi/fw_platform_size", "64"));
        let boot = ("/boot/grub2/grub.cfg", MENU);
        let (redhat, rocky) = ("/boot/efi/EFI/redhat/grub.cfg", "/boot/efi/EFI/rocky/grub.cfg");
        // Enterprise Linux 8 and 9 on BIOS, 9 on UEFI, 8 on UEFI (with and without a leftover in /boot).
        assert_eq!(found(&[tool, boot], None).as_deref(), Some("/boot/grub2 grub2"));
        assert_eq!(found(&[tool, uefi, boot, (rocky, STUB)], None).as_deref(), Some("/boot/grub2 grub2"));
        assert_eq!(found(&[tool, uefi, (redhat, MENU)], None).as_deref(), Some("/boot/efi/EFI/redhat grub2"));
        assert_eq!(found(&[tool, uefi, boot, (redhat, MENU)], None).as_deref(), Some("/boot/efi/EFI/redhat grub2"));
        // A BIOS machine does not read the EFI partition.
        assert_eq!(found(&[tool, boot, (redhat, MENU)], None).as_deref(), Some("/boot/grub2 grub2"));
        // Two systems: the distribution's link says which is ours.
        let two = [tool, uefi, boot, (redhat, MENU), (rocky, MENU)];
        let link = "../boot/efi/EFI/rocky/grub.cfg";
        assert_eq!(found(&two, Some(link)).as_deref(), Some("/boot/efi/EFI/rocky grub2"));
        assert_eq!(found(&two, Some("../boot/grub2/grub.cfg")).as_deref(), Some("/boot/grub2 grub2"));
        // The partition is not mounted: nothing to go by.
        assert_eq!(found(&[tool, uefi], None), None);
        assert_eq!(
            found(&[("/boot/grub/grub.cfg", ""), ("/usr/sbin/grub-reboot", "")], None).as_deref(),
            Some("/boot/grub grub")
        );
        assert_eq!(found(&[("/boot/grub/grub.cfg", "")], None), None);
    }
}
