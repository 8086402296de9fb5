//! The menu in `grub.cfg` as `grub-mkconfig` writes it: entries, submenus, and what is booted by default.

/// One kernel of the menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What `grub-reboot` takes: the ids of the submenus and of the entry, joined by `>`.
    pub id: String,
    /// Release of its kernel (`uname -r`).
    pub release: String,
    /// Its kernel as GRUB finds it.
    pub kernel: String,
    /// Arguments for the kernel.
    pub options: String,
}

/// What is booted when nobody chooses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Default {
    /// The environment block's `saved_entry`.
    Saved,
    /// As it is written in the menu: a number, an id, a title.
    Fixed(String),
}

/// The menu.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Menu {
    /// All kernels, in its order; those for repairs are left out.
    pub entries: Vec<Entry>,
    /// The default.
    pub default: Default,
    /// Whether it boots `next_entry` once, if there is one.
    pub once: bool,
}

impl Menu {
    /// Reads the text of a `grub.cfg`.
    pub fn parse(text: &str) -> Self {
        let mut entries = Vec::new();
        // One for each open brace: the id of a submenu or an entry, nothing for a function.
        let mut open: Vec<Option<String>> = Vec::new();
        let (mut default, mut once) = (Default::Fixed("0".to_owned()), false);
        for line in text.lines().map(str::trim) {
            if line == "}" {
                open.pop();
            } else if line.ends_with('{') && !line.starts_with('#') {
                open.push(id(line));
            } else if let Some(value) = line.strip_prefix("set default=") {
                match value.trim_matches('"') {
                    "${next_entry}" => once = true,
                    "${saved_entry}" => default = Default::Saved,
                    other => default = Default::Fixed(other.to_owned()),
                }
            } else if let Some(entry) = kernel(line, &open) {
                entries.push(entry);
            }
        }
        Self { entries, default, once }
    }

    /// The entry of a kernel release; of several the last one in the menu, which is the one that always means this release
    /// (the first one of all, `gnulinux-simple-…`, means the newest).
    pub fn of(&self, release: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.release == release)
    }

    /// The entry of an id.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }
}

/// `… $menuentry_id_option 'ID' {` or `… --id ID {`.
fn id(line: &str) -> Option<String> {
    if !line.starts_with("menuentry ") && !line.starts_with("submenu ") {
        return None;
    }
    let at = ["$menuentry_id_option ", "--id=", "--id "]
        .into_iter()
        .find_map(|flag| line.rfind(flag).map(|at| at + flag.len()))?;
    let rest = line[at..].trim_start();
    let id = match rest.chars().next()? {
        quote @ ('\'' | '"') => rest[1..].split(quote).next()?,
        _ => rest.split_whitespace().next()?,
    };
    (!id.is_empty() && id != "{").then(|| id.to_owned())
}

/// `linux /boot/vmlinuz-6.1.0-40-amd64 root=UUID=… ro quiet` inside an entry that has an id all the way.
fn kernel(line: &str, open: &[Option<String>]) -> Option<Entry> {
    let (command, rest) = line.split_once(char::is_whitespace)?;
    if !["linux", "linux16", "linuxefi"].contains(&command) || open.is_empty() {
        return None;
    }
    let ids: Vec<&str> = open.iter().map(Option::as_deref).collect::<Option<_>>()?;
    let (kernel, options) = rest.trim().split_once(char::is_whitespace).unwrap_or((rest.trim(), ""));
    let repair = options.split_whitespace().any(|word| matches!(word, "single" | "recovery"));
    let id = ids.join(">");
    if repair || id.contains("-recovery-") {
        return None;
    }
    Some(Entry { id, release: release(kernel)?, kernel: kernel.to_owned(), options: options.trim().to_owned() })
}

/// `/boot/vmlinuz-6.1.0-40-amd64` → `6.1.0-40-amd64`.
pub(super) fn release(kernel: &str) -> Option<String> {
    let name = kernel.rsplit('/').next()?;
    let release = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?;
    (!release.is_empty()).then(|| release.to_owned())
}
