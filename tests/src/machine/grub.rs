//! GRUB on a disk image without booting it: Debian's own tools, told what they would find on the machine.
//!
//! `grub-install` and `grub-probe` look at real devices, which the tree of an image does not have. What they would say is known: one disk
//! with a DOS partition table and one ext4 partition. `grub.cfg` is then what `update-grub` writes, with the ids that it will have later.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};

use super::disk::{START, UUID};
use crate::process::Process;

const SECTOR: u64 = 512;
const MODULES: &str = "usr/lib/grub/i386-pc";
const CORE: &str = "boot/grub/i386-pc/core.img";

/// Puts GRUB's modules, core image and menu into a tree.
pub(super) fn prepare(tree: &Path) -> Result<()> {
    let modules = tree.join("boot/grub/i386-pc");
    fs_err::create_dir_all(&modules)?;
    for entry in fs_err::read_dir(tree.join(MODULES))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "mod" || extension == "lst")
            && let Some(name) = path.file_name()
        {
            fs_err::copy(&path, modules.join(name))?;
        }
    }
    let inside = |program: &str| Process::new("chroot").arg(tree).arg(program);
    inside("grub-editenv").args(["/boot/grub/grubenv", "create"]).run()?;
    let core = format!("/{CORE}");
    inside("grub-mkimage")
        .args(["-O", "i386-pc", "-p", "(hd0,msdos1)/boot/grub", "-o", &core, "biosdisk", "part_msdos", "ext2"])
        .run()?;
    let probe = tree.join("usr/sbin/grub-probe");
    let kept = probe.with_extension("kept");
    fs_err::rename(&probe, &kept)?;
    fs_err::write(&probe, answers())?;
    fs_err::set_permissions(&probe, std::fs::Permissions::from_mode(0o755))?;
    let updated = inside("update-grub").run();
    fs_err::rename(&kept, &probe)?;
    updated?;
    Ok(())
}

/// What `grub-probe` would say on the machine.
fn answers() -> String {
    format!(
        "#!/bin/sh\nfor word; do case $word in\n*target=device) echo /dev/vda1 ;;\n*target=fs_uuid) echo {UUID} ;;\n\
         *target=fs) echo ext2 ;;\n*target=partmap) echo msdos ;;\n*target=hints_string) echo --hint-bios=hd0,msdos1 ;;\nesac; done\n"
    )
}

/// Writes the boot sector's code, and the core image into the gap behind it: both look for each other where they are by default.
pub(super) fn install(tree: &Path, disk: &Path) -> Result<()> {
    let boot = fs_err::read(tree.join(MODULES).join("boot.img"))?;
    let core = fs_err::read(tree.join(CORE))?;
    ensure!(
        boot.len() as u64 == SECTOR && core.len() as u64 <= START - SECTOR,
        "GRUB's images have other sizes than expected"
    );
    let mut file = fs_err::OpenOptions::new().write(true).open(disk)?;
    // The partition table begins behind the first 440 bytes.
    file.write_all(&boot[..440])?;
    file.seek(SeekFrom::Start(SECTOR))?;
    file.write_all(&core)?;
    Ok(())
}
