//! The menu in `grub.cfg` as `grub-mkconfig` writes it: entries, submenus, and what is booted by default.
//!
//! Conditions are not worked out but for one kind: a default that is set only while a variable of the environment block has a
//! value (`08_fallback_counting` of Enterprise Linux and Fedora: `boot_counter`). Any other default is taken for the default,
//! so that a menu that is not understood is refused, never pinned.

use std::collections::BTreeSet;

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
    /// Whose system it boots.
    pub system: System,
}

/// Whose system an entry boots: menus have those of other systems on the same disks too (`30_os-prober`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// The one that runs.
    Own,
    /// Another one.
    Other,
    /// Nothing says so.
    Unknown,
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
    /// Defaults that hold only while a variable of the environment block has a value: variable, default.
    pub conditional: Vec<(String, String)>,
    /// How often the default is set without such a condition: once in a menu to which nobody has added anything.
    pub settled: usize,
}

impl Menu {
    /// Reads the text of a `grub.cfg`.
    pub fn parse(text: &str) -> Self {
        let mut entries = Vec::new();
        // One for each open brace: the id of a submenu or an entry, nothing for a function.
        let mut open: Vec<Option<String>> = Vec::new();
        let mut script = Script::default();
        for line in text.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
            if line == "}" {
                open.pop();
            } else if line.ends_with('{') {
                open.push(id(line));
            } else if let Some(entry) = kernel(line, &open) {
                entries.push(entry);
            } else {
                line.split(';').for_each(|statement| script.read(statement.trim()));
            }
        }
        script.finish(entries)
    }

    /// The entry of a kernel release on this system; of several the last one in the menu, which is the one that always means
    /// this release (the first one of all, `gnulinux-simple-…`, means the newest). None as well when there are several and
    /// nothing says which of them is this system's.
    pub fn of(&self, release: &str) -> Option<&Entry> {
        let found = || self.entries.iter().rev().filter(|entry| entry.release == release);
        if let Some(own) = found().find(|entry| entry.system == System::Own) {
            return Some(own);
        }
        let mut unknown = found().filter(|entry| entry.system == System::Unknown);
        let last = unknown.next()?;
        unknown.all(|entry| entry.root() == last.root()).then_some(last)
    }

    /// The entry of an id.
    pub fn entry(&self, id: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.id == id)
    }
}

impl Entry {
    /// Its root file system, as its arguments have it: `UUID=…`, `/dev/mapper/…`, and the subvolume.
    pub fn root(&self) -> (Option<&str>, Option<&str>) {
        root_of(&self.options)
    }
}

/// `root=` and `rootflags=subvol=` of a kernel's arguments; the last of each counts.
pub(super) fn root_of(arguments: &str) -> (Option<&str>, Option<&str>) {
    let last = |key: &str| arguments.split_whitespace().filter_map(|word| word.strip_prefix(key)).next_back();
    let subvolume = last("rootflags=").and_then(|flags| flags.split(',').find_map(|flag| flag.strip_prefix("subvol=")));
    (last("root="), subvolume.map(|name| name.trim_start_matches('/')))
}

/// What the statements outside of entries set.
#[derive(Debug, Default)]
struct Script {
    /// One for each open `if`: the variable that must have a value for its branch, as far as that is all it takes.
    branches: Vec<Option<String>>,
    /// Every `set default=`: the variable it depends on, the value.
    defaults: Vec<(Option<String>, String)>,
    /// Variables that the menu itself gives a value: whether they have one is not up to the environment block alone.
    assigned: BTreeSet<String>,
}

impl Script {
    fn read(&mut self, statement: &str) {
        let statement = statement.strip_prefix("then ").map_or(statement, str::trim_start);
        let statement = statement.strip_prefix("set ").map_or(statement, str::trim_start);
        if let Some(condition) = statement.strip_prefix("if ") {
            self.branches.push(needed(condition));
        } else if let Some(condition) = statement.strip_prefix("elif ") {
            self.branches.pop();
            self.branches.push(needed(condition));
        } else if let Some(rest) = statement.strip_prefix("else") {
            self.branches.pop();
            self.branches.push(None);
            if let Some(rest) = rest.strip_prefix(' ') {
                self.read(rest.trim());
            }
        } else if statement == "fi" {
            self.branches.pop();
        } else if let Some((name, value)) = statement.split_once('=') {
            self.assign(name, value.trim_matches(['"', '\'']));
        }
    }

    fn assign(&mut self, name: &str, value: &str) {
        let mut needed = self.branches.iter().flatten();
        if name == "default" {
            let variable = needed.find(|variable| *variable != "next_entry").cloned();
            self.defaults.push((variable, value.to_owned()));
        } else if !value.is_empty() && !name.contains(char::is_whitespace) && needed.all(|variable| variable != name) {
            self.assigned.insert(name.to_owned());
        }
    }

    fn finish(self, entries: Vec<Entry>) -> Menu {
        let default = Default::Fixed("0".to_owned());
        let mut menu = Menu { entries, default, once: false, conditional: Vec::new(), settled: 0 };
        for (variable, value) in self.defaults {
            if let Some(variable) = variable.filter(|variable| !self.assigned.contains(variable)) {
                menu.conditional.push((variable, value));
            } else if value == "${next_entry}" {
                menu.once = true;
            } else {
                menu.settled += 1;
                menu.default = if value == "${saved_entry}" { Default::Saved } else { Default::Fixed(value) };
            }
        }
        menu
    }
}

/// The variable without which a condition cannot hold: `[ "${x}" ]`, `[ -n "${x}" -a … ]`.
fn needed(condition: &str) -> Option<String> {
    let test = condition.trim().strip_prefix('[')?.strip_suffix(']')?;
    if test.contains(" -o ") {
        return None;
    }
    let test = test.trim();
    let test = test.strip_prefix("-n ").map_or(test, str::trim_start);
    let (name, rest) = test.strip_prefix("\"${")?.split_once("}\"")?;
    let rest = rest.trim_start();
    (rest.is_empty() || rest.starts_with("-a ")).then(|| name.to_owned())
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
    let (kernel, options) = (kernel.to_owned(), options.trim().to_owned());
    Some(Entry { id, release: release(&kernel)?, kernel, options, system: System::Unknown })
}

/// `/boot/vmlinuz-6.1.0-40-amd64` → `6.1.0-40-amd64`.
pub(super) fn release(kernel: &str) -> Option<String> {
    let name = kernel.rsplit('/').next()?;
    let release = name.strip_prefix("vmlinuz-").or_else(|| name.strip_prefix("vmlinux-"))?;
    (!release.is_empty()).then(|| release.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_that_the_environment_block_decides_about_is_set_apart() {
        let counting = ("boot_counter".to_owned(), "1".to_owned());
        let next = "if [ \"${next_entry}\" ] ; then\n set default=\"${next_entry}\"\nelse\n set default=\"${saved_entry}\"\nfi\n";
        for (more, default, conditional) in [
            ("", Default::Saved, None),
            // As `08_fallback_counting` writes it.
            (
                "if [ -n \"${boot_counter}\" -a \"${boot_success}\" = \"0\" ]; then\n  if  [ \"${boot_counter}\" = \"0\" -o \
              \"${boot_counter}\" = \"-1\" ]; then\n    set default=1\n    set boot_counter=-1\n  else\n    decrement \
              boot_counter\n  fi\n  save_env boot_counter\nfi\n",
                Default::Saved,
                Some(counting),
            ),
            ("set default=2\n", Default::Fixed("2".to_owned()), None),
            ("if [ x$a = xy ]; then set default=3; fi\n", Default::Fixed("3".to_owned()), None),
            ("if [ -n \"${a}\" -o -n \"${b}\" ]; then set default=4; fi\n", Default::Fixed("4".to_owned()), None),
            ("if [ \"${a}\" ]; then true; else set default=5; fi\n", Default::Fixed("5".to_owned()), None),
            // The menu itself sets it.
            ("set a=1\nif [ \"${a}\" ]; then set default=6; fi\n", Default::Fixed("6".to_owned()), None),
            ("# set default=7\nif [ \"${a}\" ]; then if [ x = x ]; then insmod x; fi; fi\n", Default::Saved, None),
        ] {
            let menu = Menu::parse(&format!("{next}{more}"));
            assert!(menu.once, "{more}");
            assert_eq!((menu.default, menu.conditional), (default, conditional.into_iter().collect()), "{more}");
        }
    }
}
