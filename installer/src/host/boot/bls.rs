//! Boot loader entries as Enterprise Linux and Fedora have them (Boot Loader Specification, type 1): one file a kernel, whose
//! name is its id.

use std::path::Path;

use anyhow::Result;

use super::menu::{Entry, System, release};
use super::{ENTRIES, Host};

/// All kernels, those for repairs left out, sorted by id.
pub(super) fn entries(host: &Host) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for name in host.list(Path::new(ENTRIES))? {
        let Some(id) = name.strip_suffix(".conf") else { continue };
        let text = host.read_text(&Path::new(ENTRIES).join(&name))?.unwrap_or_default();
        entries.extend(parse(id, &text));
    }
    Ok(entries)
}

fn parse(id: &str, text: &str) -> Option<Entry> {
    let value = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.trim().split_once(char::is_whitespace));
        lines.find_map(|(found, value)| (found == key).then(|| value.trim().to_owned()))
    };
    let kernel = value("linux")?;
    // `vmlinuz-0-rescue-…` boots for repairs.
    let release = value("version").or_else(|| release(&kernel)).filter(|release| !release.contains("rescue"))?;
    let options = value("options").unwrap_or_default();
    Some(Entry { id: id.to_owned(), release, kernel, options, system: System::Unknown })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_file() {
        let text = "title Rocky Linux (5.14.0-503.11.1.el9_5.x86_64) 9.5 (Blue Onyx)\nversion 5.14.0-503.11.1.el9_5.x86_64\n\
            linux /vmlinuz-5.14.0-503.11.1.el9_5.x86_64\ninitrd /initramfs-5.14.0-503.11.1.el9_5.x86_64.img $tuned_initrd\n\
            options root=/dev/mapper/rl-root ro crashkernel=1G-4G:192M\ngrub_users $grub_users\n";
        let entry = parse("3f1c-5.14.0-503.11.1.el9_5.x86_64", text).unwrap();
        assert_eq!(entry.release, "5.14.0-503.11.1.el9_5.x86_64");
        assert_eq!(entry.options, "root=/dev/mapper/rl-root ro crashkernel=1G-4G:192M");
        let rescue = text.replace("5.14.0-503.11.1.el9_5.x86_64", "0-rescue-3f1c");
        assert_eq!(parse("3f1c-0-rescue", &rescue), None);
        assert_eq!(parse("x", "title nothing\n"), None);
    }
}
