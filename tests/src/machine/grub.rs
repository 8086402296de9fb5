//! GRUB on a disk image without booting it: Debian's own tools, told what they would find on the machine.
//!
//! `grub-install` and `grub-probe` look at real devices, which the tree of an image does not have. What they would say is known: one disk
//! with a DOS partition table and one ext4 partition. `grub.cfg` is then what `update-grub` writes, with the ids that it will have later.
//!
//! The same disk boots by BIOS and, with a small EFI system partition beside it, by UEFI.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Result, ensure};

use super::disk::{START, UUID};
use crate::process::Process;

const SECTOR: u64 = 512;
const BIOS: &str = "i386-pc";
const UEFI: &str = "x86_64-efi";
const CORE: &str = "boot/grub/i386-pc/core.img";
/// What UEFI starts from a disk that it knows nothing of.
const LOADER: &str = "boot/grub/x86_64-efi/bootx64.efi";

/// Puts GRUB's modules, core image and menu into a tree.
pub(super) fn prepare(tree: &Path) -> Result<()> {
    for platform in [BIOS, UEFI] {
        let modules = tree.join("boot/grub").join(platform);
        fs_err::create_dir_all(&modules)?;
        for entry in fs_err::read_dir(tree.join("usr/lib/grub").join(platform))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "mod" || extension == "lst")
                && let Some(name) = path.file_name()
            {
                fs_err::copy(&path, modules.join(name))?;
            }
        }
    }
    let inside = |program: &str| Process::new("chroot").arg(tree).arg(program);
    inside("grub-editenv").args(["/boot/grub/grubenv", "create"]).run()?;
    let core = format!("/{CORE}");
    inside("grub-mkimage")
        .args(["-O", BIOS, "-p", "(hd0,msdos1)/boot/grub", "-o", &core, "biosdisk", "part_msdos", "ext2"])
        .run()?;
    // Which disk is the first is the firmware's affair, so it is looked for.
    fs_err::write(
        tree.join("boot/grub/esp.cfg"),
        format!("search --fs-uuid --set=root {UUID}\nset prefix=($root)/boot/grub\n"),
    )?;
    let loader = format!("/{LOADER}");
    inside("grub-mkimage")
        .args(["-O", UEFI, "-p", "/boot/grub", "-c", "/boot/grub/esp.cfg", "-o", &loader])
        .args(["part_msdos", "ext2", "fat", "search", "search_fs_uuid", "normal", "configfile"])
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
    let boot = fs_err::read(tree.join("usr/lib/grub").join(BIOS).join("boot.img"))?;
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

/// An EFI system partition, a disk of its own, with GRUB where UEFI looks for it by default.
pub(super) fn esp(tree: &Path, disk: &Path) -> Result<()> {
    Process::new("mkfs.vfat").args(["-n", "ESP", "-C"]).arg(disk).arg("8192").run()?;
    Process::new("mmd").arg("-i").arg(disk).args(["::EFI", "::EFI/BOOT"]).run()?;
    Process::new("mcopy").arg("-i").arg(disk).arg(tree.join(LOADER)).arg("::EFI/BOOT/BOOTX64.EFI").run()?;
    Ok(())
}
