//! Whether the boot menu can be pinned at all: asked before anything is changed.

use std::path::Path;

use anyhow::Result;

use super::menu::Default;
use super::{Grub, Host, further_settings, setting_in};
use crate::facts::which;

impl Grub {
    /// Why this menu cannot be made to boot the running kernel by default and another one once; `None` when it can. Asked
    /// before anything is changed.
    pub fn unfit(&self, host: &Host, running: &str, ours: &str) -> Result<Option<String>> {
        let (menu, config) = (self.menu(host)?, self.config());
        let config = config.display();
        if menu.of(running).is_none() {
            let several = menu.entries.iter().any(|entry| entry.release == running);
            let why = if several { "only entries that may be another system's" } else { "no entry with an id" };
            return Ok(Some(format!("`{config}` has {why} for the running Linux {running}")));
        }
        let environment = self.environment(host)?;
        let set = |variable: &str| environment.get(variable).is_some_and(|value| !value.is_empty());
        if let Some((variable, value)) = menu.conditional.iter().find(|(variable, _)| set(variable)) {
            return Ok(Some(format!("`{config}` boots `{value}` while `{variable}` is set in its environment block")));
        }
        if self.entries || menu.default == Default::Saved {
            // Not made anew by pinning, so it must be right as it is.
            return Ok(match (&menu.default, menu.once) {
                (Default::Saved, true) => None,
                (Default::Saved, false) => Some(format!("`{config}` does not boot `next_entry`")),
                (Default::Fixed(found), _) => Some(format!("`{config}` boots `{found}`, whatever is saved")),
            });
        }
        if menu.settled > 1 {
            let what = "by somebody else's lines, which pinning would not change";
            return Ok(Some(format!("`{config}` sets its default {} times, {what}", menu.settled)));
        }
        let mkconfig = which(host, &format!("{}-mkconfig", self.prefix))?;
        let script = mkconfig.map(|path| host.read_text(&path)).transpose()?.flatten();
        if script.is_some_and(|script| !script.is_empty() && !script.contains("default/grub.d")) {
            return Ok(Some(format!("`{}-mkconfig` of this distribution does not read {ours}", self.prefix)));
        }
        overruled(host, ours)
    }
}

/// A file of settings that is read after ours and says otherwise.
fn overruled(host: &Host, ours: &str) -> Result<Option<String>> {
    for path in further_settings(host)?.into_iter().filter(|path| path.as_path() > Path::new(ours)) {
        if setting_in(host, &path, "GRUB_DEFAULT")?.is_some_and(|value| value != "saved") {
            return Ok(Some(format!("`{}` sets GRUB_DEFAULT, and is read after {ours}", path.display())));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RELEASE: &str = "5.14.0-503.11.1.el9_5.x86_64";
    const OURS: &str = "/etc/default/grub.d/99-sealift.cfg";

    fn host() -> (tempfile::TempDir, Host) {
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        let put = |path: &str, text: &str| host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        put("/usr/sbin/grub2-reboot", "");
        put("/usr/sbin/grub2-mkconfig", "#!/bin/sh\n. /etc/default/grub\n");
        put("/etc/default/grub", "GRUB_DEFAULT=saved\nGRUB_ENABLE_BLSCFG=true\n");
        put("/boot/grub2/grub.cfg", include_str!("fixtures/enterprise-linux.cfg"));
        let entry =
            format!("title x\nversion {RELEASE}\nlinux /vmlinuz-{RELEASE}\noptions root=/dev/mapper/rl-root ro\n");
        put(&format!("/boot/loader/entries/3f1c-{RELEASE}.conf"), &entry);
        put("/proc/cmdline", "root=/dev/mapper/rl-root ro\n");
        (dir, host)
    }

    fn unfit(host: &Host) -> Option<String> {
        Grub::find(host).unwrap().unwrap().unfit(host, RELEASE, OURS).unwrap()
    }

    #[test]
    fn the_stock_menu_of_enterprise_linux_can_be_pinned() {
        let (_dir, host) = host();
        assert_eq!(unfit(&host), None);
    }

    #[test]
    fn a_menu_that_would_not_follow_is_said_beforehand() {
        let environment = |line: &str| {
            let text = format!("# GRUB Environment Block\n{line}\n");
            let hashes = "#".repeat(1024 - text.len());
            text + &hashes
        };
        let stock = include_str!("fixtures/enterprise-linux.cfg");
        for (path, text, expected) in [
            (
                "/boot/grub2/grub.cfg",
                stock.replace("default=\"${saved_entry}\"", "default=\"0\""),
                "boots `0`, whatever",
            ),
            ("/boot/grub2/grub.cfg", stock.replace("default=\"${next_entry}\"", "x=y"), "does not boot `next_entry`"),
            ("/boot/grub2/grubenv", environment("boot_counter=2"), "boots `1` while `boot_counter` is set"),
            ("/boot/grub2/custom.cfg", "set default=4\n".to_owned(), "boots `4`, whatever"),
            ("/etc/default/grub", "GRUB_DEFAULT=0\n".to_owned(), "no entry with an id"),
            ("/proc/cmdline", "root=/dev/mapper/other ro\n".to_owned(), ""),
        ] {
            let (_dir, host) = host();
            host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
            let found = unfit(&host).unwrap_or_default();
            assert!(found.contains(expected), "{path}: {found}");
            assert_eq!(found.is_empty(), expected.is_empty(), "{path}: {found}");
        }
    }

    #[test]
    fn settings_that_are_not_read_or_overruled_are_said_beforehand() {
        let (_dir, host) = host();
        let put = |path: &str, text: &str| host.write(Path::new(path), text.as_bytes(), 0o644).unwrap();
        put("/etc/default/grub", "GRUB_DEFAULT=0\n");
        let entry = format!(
            "set default=\"0\"\nmenuentry 'x' --id 'x' {{\n linux /vmlinuz-{RELEASE} root=/dev/mapper/rl-root\n}}\n"
        );
        put("/boot/grub2/grub.cfg", &entry);
        assert_eq!(unfit(&host).unwrap(), format!("`grub2-mkconfig` of this distribution does not read {OURS}"));
        put("/usr/sbin/grub2-mkconfig", "for x in /etc/default/grub.d/*.cfg; do . $x; done\n");
        put("/etc/default/grub.d/10-cloud.cfg", "GRUB_DEFAULT=1\n");
        assert_eq!(unfit(&host), None);
        put("/boot/grub2/custom.cfg", "set default=2\n");
        assert!(unfit(&host).unwrap().contains("sets its default 2 times"));
        put("/boot/grub2/custom.cfg", "");
        put("/etc/default/grub.d/99-zz.cfg", "GRUB_DEFAULT=1\n");
        assert_eq!(
            unfit(&host).unwrap(),
            format!("`/etc/default/grub.d/99-zz.cfg` sets GRUB_DEFAULT, and is read after {OURS}")
        );
    }
}
