//! A GRUB of a few lines over a directory: makes menus as `grub-mkconfig` does, and boots as GRUB does.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;
use crate::host::Reply;

const UUID: &str = "0c8a4a2e-6f0e-4d6c-8a54-0e2b6f3c7d11";

/// GRUB on the disk of a test host.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    root: PathBuf,
}

impl Simulated {
    /// Puts GRUB on a host; kernels are the `vmlinuz-…` in its `/boot`.
    pub(crate) fn install(host: &Host) -> Self {
        let grub = Self { root: host.real_path(Path::new("/")) };
        for tool in ["grub-reboot", "grub-set-default", "grub-editenv", "grub-probe", "update-grub"] {
            grub.put(&format!("usr/sbin/{tool}"), "");
        }
        grub.put("etc/default/grub", "GRUB_DEFAULT=0\nGRUB_TIMEOUT=5\nGRUB_CMDLINE_LINUX_DEFAULT=\"quiet\"\n");
        grub.update();
        let answer = |prefix: &str, act: fn(&Self, &[&str])| {
            let grub = grub.clone();
            host.fake().answer(prefix, move |command| {
                let line = command.line();
                act(&grub, &line.split(' ').collect::<Vec<_>>());
                Reply::ok("")
            });
        };
        answer("grub-set-default ", |grub, words| grub.set("saved_entry", Some(words[1])));
        answer("grub-reboot ", |grub, words| grub.set("next_entry", Some(words[1])));
        answer("grub-editenv ", |grub, words| grub.set(words[3], None));
        answer("update-grub", |grub, _| grub.update());
        host.fake().on("grub-probe --target=abstraction /boot/grub", Reply::ok("\n"));
        host.fake().on("grub-probe --target=fs /boot/grub", Reply::ok("ext2\n"));
        grub
    }

    pub(crate) fn put(&self, path: &str, text: &str) {
        let path = self.root.join(path);
        fs_err::create_dir_all(path.parent().unwrap()).unwrap();
        fs_err::write(path, text).unwrap();
    }

    fn text(&self, path: &str) -> String {
        fs_err::read_to_string(self.root.join(path)).unwrap_or_default()
    }

    /// Releases in `/boot`, newest first as `version_sort -r` has them.
    fn kernels(&self) -> Vec<String> {
        let names = fs_err::read_dir(self.root.join("boot")).unwrap().map(|entry| entry.unwrap().file_name());
        let mut found: Vec<String> =
            names.filter_map(|name| Some(name.to_str()?.strip_prefix("vmlinuz-")?.to_owned())).collect();
        let key = |release: &String| {
            let numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse::<u32>().ok());
            numbers.collect::<Vec<_>>()
        };
        found.sort_by_key(|release| std::cmp::Reverse(key(release)));
        found
    }

    /// What `update-grub` does.
    pub(crate) fn update(&self) {
        let mut default = "0".to_owned();
        let ours = self.text("etc/default/grub.d/99-sealift.cfg");
        for line in self.text("etc/default/grub").lines().chain(ours.lines()) {
            if let Some(value) = line.strip_prefix("GRUB_DEFAULT=") {
                default = if value == "saved" { "${saved_entry}".to_owned() } else { value.to_owned() };
            }
        }
        let mut text = format!(
            "if [ -s $prefix/grubenv ]; then\n  set have_grubenv=true\n  load_env\nfi\nif [ \"${{next_entry}}\" ] ; then\n   \
             set default=\"${{next_entry}}\"\n   set next_entry=\n   save_env next_entry\n   set boot_once=true\nelse\n   \
             set default=\"{default}\"\nfi\n\nfunction savedefault {{\n  if [ -z \"${{boot_once}}\" ]; then\n    \
             saved_entry=\"${{chosen}}\"\n    save_env saved_entry\n  fi\n}}\n"
        );
        let further = ours.lines().find_map(|line| line.strip_prefix("GRUB_CMDLINE_LINUX=\"$GRUB_CMDLINE_LINUX "));
        let further = further.map(|text| format!(" {}", text.trim_end_matches('"'))).unwrap_or_default();
        let body = |indent: &str, release: &str, options: &str| {
            format!(
                "{indent}\tload_video\n{indent}\tif [ x$feature_platform_search_hint = xy ]; then\n{indent}\t  search \
                 --no-floppy --fs-uuid --set=root {UUID}\n{indent}\tfi\n{indent}\tlinux\t/boot/vmlinuz-{release} \
                 root=UUID={UUID} ro {options}{further}\n{indent}\tinitrd\t/boot/initrd.img-{release}\n{indent}}}\n"
            )
        };
        let class = "--class debian --class gnu-linux --class gnu --class os $menuentry_id_option";
        for (index, release) in self.kernels().iter().enumerate() {
            if index == 0 {
                let _ = writeln!(text, "menuentry 'Debian GNU/Linux' {class} 'gnulinux-simple-{UUID}' {{");
                text += &body("", release, "quiet");
                let _ = writeln!(
                    text,
                    "submenu 'Advanced options for Debian GNU/Linux' $menuentry_id_option 'gnulinux-advanced-{UUID}' {{"
                );
            }
            let title = format!("Debian GNU/Linux, with Linux {release}");
            let _ = writeln!(text, "\tmenuentry '{title}' {class} 'gnulinux-{release}-advanced-{UUID}' {{");
            text += &body("\t", release, "quiet");
            let _ =
                writeln!(text, "\tmenuentry '{title} (recovery mode)' {class} 'gnulinux-{release}-recovery-{UUID}' {{");
            text += &body("\t", release, "single");
        }
        self.put("boot/grub/grub.cfg", &(text + "}\n"));
    }

    /// What `grub-editenv` does.
    fn set(&self, name: &str, value: Option<&str>) {
        let text = self.text("boot/grub/grubenv");
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.starts_with(&format!("{name}=")))
            .map(str::to_owned)
            .collect();
        lines.extend(value.map(|value| format!("{name}={value}")));
        lines.push(String::new());
        let mut text = format!(
            "# GRUB Environment Block
{}",
            lines.join(
                "
"
            )
        );
        text += &"#".repeat(1024 - text.len());
        self.put("boot/grub/grubenv", &text);
    }

    /// Boots as GRUB does: once what is next, else the default. Gives the release.
    pub(crate) fn boot(&self) -> String {
        let menu = Menu::parse(&self.text("boot/grub/grub.cfg"));
        let environment = Environment::parse(self.text("boot/grub/grubenv").as_bytes()).unwrap_or_default();
        let first = menu.entries.first().unwrap();
        let by_id = |id: &str| menu.entry(id).unwrap_or(first);
        let entry = match (environment.next(), &menu.default, environment.saved()) {
            (Some(next), _, _) if menu.once => {
                self.set("next_entry", None);
                by_id(next)
            }
            (_, Default::Saved, Some(saved)) => by_id(saved),
            _ => first,
        };
        entry.release.clone()
    }
}

fn host() -> (tempfile::TempDir, Host, Simulated) {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    for release in ["6.1.0-40-amd64", "6.12.57+deb12-amd64"] {
        host.write(&Path::new("/boot").join(format!("vmlinuz-{release}")), b"x", 0o644).unwrap();
    }
    host.fake().on("sync", Reply::ok(""));
    let grub = Simulated::install(&host);
    (directory, host, grub)
}

#[test]
fn the_entry_of_a_kernel_is_the_one_that_always_means_it() {
    let (_directory, host, _) = host();
    let grub = Grub::find(&host).unwrap().unwrap();
    let menu = grub.menu(&host).unwrap();
    assert_eq!((&menu.default, menu.once), (&Default::Fixed("0".to_owned()), true));
    let id = |release: &str| format!("gnulinux-advanced-{UUID}>gnulinux-{release}-advanced-{UUID}");
    for release in ["6.1.0-40-amd64", "6.12.57+deb12-amd64"] {
        assert_eq!(menu.of(release).unwrap().id, id(release));
    }
    assert_eq!(menu.entries[0].id, format!("gnulinux-simple-{UUID}"), "what is booted by default comes first");
    assert_eq!(menu.entries.len(), 3, "no entry for repairs");
    assert_eq!(menu.of("6.1.0"), None);
    assert_eq!(menu.entries[1].options, format!("root=UUID={UUID} ro quiet"));
}

#[test]
fn a_real_menu_is_read() {
    // Made by `update-grub` on a Debian 12 machine (grub-pc 2.06-13+deb12u2), whole.
    let menu = Menu::parse(include_str!("fixtures/debian-12.cfg"));
    let uuid = "5ea11f70-0000-4000-8000-000000000001";
    let release = "6.1.0-50-amd64";
    let ids: Vec<&str> = menu.entries.iter().map(|entry| entry.id.as_str()).collect();
    let advanced = format!("gnulinux-advanced-{uuid}>gnulinux-{release}-advanced-{uuid}");
    assert_eq!(ids, [format!("gnulinux-simple-{uuid}"), advanced]);
    assert_eq!(menu.of(release).unwrap().options, "root=/dev/vda1 ro console=ttyS0,115200 net.ifnames=1");
    assert_eq!((menu.default, menu.once), (Default::Fixed("0".to_owned()), true));
}

#[test]
fn an_entry_is_booted_once_and_the_default_after_it() {
    let (_directory, host, simulated) = host();
    let grub = Grub::find(&host).unwrap().unwrap();
    let id = grub.menu(&host).unwrap().of("6.1.0-40-amd64").unwrap().id.clone();
    assert_eq!(simulated.boot(), "6.12.57+deb12-amd64");
    grub.boot_once(&host, &id).unwrap();
    assert_eq!([simulated.boot(), simulated.boot()], ["6.1.0-40-amd64", "6.12.57+deb12-amd64"]);
    grub.set_default(&host, &id).unwrap();
    assert_eq!(simulated.boot(), "6.12.57+deb12-amd64", "the menu does not ask for the saved one");
    host.fake().on("grub-reboot", Reply::ok(""));
    let error = grub.boot_once(&host, &id).unwrap_err().to_string();
    assert!(error.contains("grubenv` says nothing for next_entry"), "{error}");
}

#[test]
fn where_grub_cannot_write_it_says_so() {
    let (_directory, host, _) = host();
    let grub = Grub::find(&host).unwrap().unwrap();
    assert_eq!(grub.obstacle(&host).unwrap(), None);
    for (abstraction, fs, expected) in [
        ("lvm\n", "ext2\n", Some("lvm")),
        ("diskfilter mdraid1x\n", "ext2\n", Some("diskfilter")),
        ("\n", "btrfs\n", Some("btrfs")),
        ("\n", "zfs\n", Some("zfs")),
        ("\n", "xfs\n", None),
    ] {
        host.fake().on("grub-probe --target=abstraction /boot/grub", Reply::ok(abstraction));
        host.fake().on("grub-probe --target=fs /boot/grub", Reply::ok(fs));
        let found = grub.obstacle(&host).unwrap();
        let expected = expected.map(|what| format!("GRUB cannot write to /boot/grub ({what})"));
        assert_eq!(found, expected);
    }
}

#[test]
fn the_last_setting_counts() {
    let (_directory, host, simulated) = host();
    assert_eq!(setting(&host, "GRUB_DEFAULT", &[]).unwrap().as_deref(), Some("0"));
    simulated.put("etc/default/grub.d/10-cloud.cfg", "# x\nexport GRUB_DEFAULT=\"saved\"\n");
    simulated.put("etc/default/grub.d/note.txt", "GRUB_DEFAULT=9\n");
    assert_eq!(setting(&host, "GRUB_DEFAULT", &[]).unwrap().as_deref(), Some("saved"));
    let without = setting(&host, "GRUB_DEFAULT", &["/etc/default/grub.d/10-cloud.cfg"]).unwrap();
    assert_eq!(without.as_deref(), Some("0"));
    assert_eq!(setting(&host, "GRUB_SAVEDEFAULT", &[]).unwrap(), None);
}

#[test]
fn enterprise_linux_has_its_entries_in_files() {
    let directory = tempfile::tempdir().unwrap();
    let host = Host::under(directory.path());
    let simulated = Simulated { root: directory.path().to_owned() };
    let release = "5.14.0-503.11.1.el9_5.x86_64";
    simulated.put("usr/sbin/grub2-reboot", "");
    simulated.put("etc/default/grub", "GRUB_DEFAULT=saved\nGRUB_ENABLE_BLSCFG=true\n");
    // The menu of grub2-mkconfig with BLS: no entry of its own.
    let menu = "if [ \"${next_entry}\" ] ; then\n   set default=\"${next_entry}\"\nelse\n   set default=\"${saved_entry}\"\nfi\n\
        insmod blscfg\nblscfg\n";
    simulated.put("boot/grub2/grub.cfg", menu);
    let entry =
        format!("title x\nversion {release}\nlinux /vmlinuz-{release}\ninitrd /initramfs-{release}.img\noptions ro\n");
    simulated.put(&format!("boot/loader/entries/3f1c-{release}.conf"), &entry);
    let grub = Grub::find(&host).unwrap().unwrap();
    assert!(grub.entries);
    let menu = grub.menu(&host).unwrap();
    assert_eq!((menu.default.clone(), menu.once), (Default::Saved, true));
    assert_eq!(menu.of(release).unwrap().id, format!("3f1c-{release}"));
}

#[test]
fn the_initramfs_must_have_the_drivers_of_the_root_file_system() {
    let (directory, host, simulated) = host();
    // A virtio disk: /dev/vda1 on ext4, as sysfs shows it.
    let device = "sys/devices/pci0000:00/0000:00:04.0/virtio1/block/vda";
    simulated.put(&format!("{device}/vda1/dev"), "254:1\n");
    for (module, state) in [("virtio_blk", true), ("virtio_pci", true), ("pcieport", false), ("ext4", true)] {
        simulated.put(&format!("sys/module/{module}/name"), "");
        if state {
            simulated.put(&format!("sys/module/{module}/initstate"), "live\n");
        }
    }
    let link = |at: &str, to: &str| {
        let at = directory.path().join(at);
        fs_err::create_dir_all(at.parent().unwrap()).unwrap();
        fs_err::os::unix::fs::symlink(to, at).unwrap();
    };
    link("sys/dev/block/254:1", &format!("/{device}/vda1"));
    link("sys/bus/virtio/drivers/virtio_blk/module", "/sys/module/virtio_blk");
    link("sys/bus/pci/drivers/virtio-pci/module", "/sys/module/virtio_pci");
    link("sys/devices/pci0000:00/0000:00:04.0/virtio1/driver", "/sys/bus/virtio/drivers/virtio_blk");
    link("sys/devices/pci0000:00/0000:00:04.0/driver", "/sys/bus/pci/drivers/virtio-pci");
    simulated.put("proc/self/mountinfo", "23 1 254:1 / / rw,relatime - ext4 /dev/vda1 rw\n");
    let drivers = root_drivers(&host).unwrap();
    assert_eq!(drivers.iter().map(String::as_str).collect::<Vec<_>>(), ["ext4", "virtio_blk", "virtio_pci"]);

    simulated.put("usr/bin/lsinitramfs", "");
    let list = ".\ninit\nusr/lib/modules/6.12/kernel/drivers/block/virtio_blk.ko.xz\nusr/lib/modules/6.12/kernel/fs/ext4/ext4.ko\n";
    host.fake().on("lsinitramfs /boot/initrd.img-6.12", Reply::ok(list));
    let files = Initramfs::read(&host, Path::new("/boot/initrd.img-6.12")).unwrap();
    assert!(files.has_init());
    assert_eq!(files.lacks(&drivers, ""), ["virtio_pci"]);
    assert_eq!(files.lacks(&drivers, "kernel/drivers/virtio/virtio-pci.ko\n"), [""; 0], "built in is as good");
}
