//! Kernel settings: those that a node cannot be without, and files of others that are read after ours at boot and take back
//! what a node needs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::finding::Finding;
use crate::checks::CheckName;
use crate::context::Context;
use crate::host::Host;

/// Directories of sysctl.d(5): of files of the same name the one in the first directory counts, and files are read in the
/// order of their names, whatever the directory.
const DIRECTORIES: &[&str] = &["/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d"];
/// The file of the step `host-settings`. What is read before it does not count.
const OURS: &str = "99-sealift.conf";
/// Set by ufw when it starts, after all others.
const UFW: &str = "/etc/ufw/sysctl.conf";

/// A value that a node cannot live with.
struct Harm {
    key: &'static str,
    is_harmful: fn(&str) -> bool,
    /// What has to be there.
    needed: &'static str,
    /// The node does not work with it; else it works worse.
    fatal: bool,
    /// No setting of ours: it counts wherever it is set.
    anywhere: bool,
}

const fn fatal(key: &'static str, is_harmful: fn(&str) -> bool, needed: &'static str) -> Harm {
    Harm { key, is_harmful, needed, fatal: true, anywhere: false }
}

const fn worse(key: &'static str, is_harmful: fn(&str) -> bool, needed: &'static str) -> Harm {
    Harm { fatal: false, ..fatal(key, is_harmful, needed) }
}

const HARMS: &[Harm] = &[
    fatal("net.ipv4.ip_forward", |value| value == "0", "1: packets of pods are routed"),
    // Setting it sets ip_forward too (ip-sysctl.rst of the kernel).
    fatal("net.ipv4.conf.all.forwarding", |value| value == "0", "1: packets of pods are routed"),
    fatal("net.bridge.bridge-nf-call-iptables", |value| value == "0", "1: services work between pods of one host"),
    fatal("vm.overcommit_memory", |value| value == "2", "1: Go programs reserve far more memory than they use"),
    fatal("vm.panic_on_oom", |value| value != "0", "0: a pod without memory must not take the host down"),
    Harm {
        anywhere: true,
        ..fatal("kernel.modules_disabled", |value| value != "0", "0: modules are loaded when they are needed")
    },
    worse("net.ipv4.conf.all.rp_filter", |value| value == "1", "2: answers may leave by another interface"),
    worse("kernel.panic", |value| value == "0", "10: a kernel that has panicked reboots"),
    worse("kernel.panic_on_oops", |value| value == "0", "1: the kubelet's default"),
];

/// All findings of this file; for hosts that run pods.
pub(super) fn look(context: &Context<'_>) -> Result<Vec<Finding>> {
    let mut findings = vec![forwarding(context)];
    findings.extend(missing(context));
    findings.extend(taken_back(context)?);
    Ok(findings)
}

/// Without it no packet of a pod leaves the host.
fn forwarding(context: &Context<'_>) -> Finding {
    let (name, key) = (CheckName::Sysctls, "net.ipv4.ip_forward");
    let (facts, subject) = (context.facts, "sysctls");
    if facts.writable_sysctls.contains(key) {
        return Finding::good(name, subject, format!("{key} can be set"));
    }
    let needed = "it, to route packets of pods";
    if facts.container.is_some() {
        let advice = "let the machine give this container a /proc/sys/net of its own";
        return Finding::limit(name, subject, format!("{key} cannot be set here"), needed, advice);
    }
    let advice = "use a kernel with IPv4 forwarding, and a writable /proc/sys";
    Finding::refused(name, subject, format!("{key} cannot be set"), needed, advice)
}

/// The kubelet reads its own list when it starts, and ends when one cannot be read (`setupKernelTunables`).
fn missing(context: &Context<'_>) -> Option<Finding> {
    let (facts, name) = (context.facts, CheckName::Sysctls);
    if facts.missing_sysctls.is_empty() {
        return None;
    }
    let found = format!("no {}", facts.missing_sysctls.join(", "));
    let needed = "them: the kubelet does not start without";
    Some(Finding::refused(name, "sysctls of the kernel", found, needed, "use a kernel of the distribution"))
}

/// One line of a file.
#[derive(Clone, Debug)]
struct Line {
    file: PathBuf,
    number: usize,
    value: String,
}

fn taken_back(context: &Context<'_>) -> Result<Vec<Finding>> {
    let (host, inside) = (context.host, context.facts.container.is_some());
    let (mut last, mut anywhere) = (BTreeMap::new(), BTreeMap::new());
    for (name, file) in files(host)? {
        // What cannot be read (a directory of that name) sets nothing either.
        let bytes = host.read(&host.resolve(&file)?).ok().flatten().unwrap_or_default();
        for (key, line) in assignments(&file, &String::from_utf8_lossy(&bytes)) {
            if name.as_str() > OURS {
                last.insert(key.clone(), line.clone());
            }
            anywhere.insert(key, line);
        }
    }
    // The settings of a container's machine are the machine's.
    let harms = HARMS.iter().filter(|harm| !inside || harm.key.starts_with("net."));
    let found = harms.filter_map(|harm| {
        let lines = if harm.anywhere { &anywhere } else { &last };
        let line = lines.get(harm.key).filter(|line| (harm.is_harmful)(&line.value))?;
        Some(finding(harm, line, inside))
    });
    Ok(found.collect())
}

fn finding(harm: &Harm, line: &Line, inside: bool) -> Finding {
    let subject = format!("sysctl `{}`", harm.key);
    let when = if harm.anywhere { "at boot" } else { "at boot, after Sealift's file" };
    let found = format!("line {} of `{}` sets it to {} {when}", line.number, line.file.display(), line.value);
    let advice = format!("take that line out, or set it to {}", harm.needed.split(':').next().unwrap_or_default());
    if harm.fatal && !inside {
        return Finding::refused(CheckName::Sysctls, subject, found, harm.needed, advice);
    }
    Finding::limit(CheckName::Sysctls, subject, found, harm.needed, advice)
}

/// The files in the order in which they are read, with the names that make the order.
fn files(host: &Host) -> Result<Vec<(String, PathBuf)>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in DIRECTORIES {
        for name in host.list(Path::new(directory))? {
            let path = Path::new(directory).join(&name);
            if name != OURS && path.extension().is_some_and(|extension| extension == "conf") {
                found.entry(name).or_insert(path);
            }
        }
    }
    let mut files: Vec<(String, PathBuf)> = found.into_iter().collect();
    let settings = host.read_text(Path::new("/etc/ufw/ufw.conf"))?.unwrap_or_default();
    if settings.lines().any(|line| line.trim() == "ENABLED=yes") {
        files.push(("~ufw".to_owned(), PathBuf::from(UFW)));
    }
    Ok(files)
}

/// `key = value` lines of sysctl.d(5): `-` in front ignores errors, `/` separates like `.`, and `*` stands for any part.
fn assignments(file: &Path, text: &str) -> Vec<(String, Line)> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with(['#', ';']));
    let mut found = Vec::new();
    for (index, line) in lines {
        let Some((key, value)) = line.trim().trim_start_matches('-').split_once('=') else { continue };
        let line = || Line { file: file.to_owned(), number: index + 1, value: value.trim().to_owned() };
        let key = key.trim().replace('/', ".");
        if key.contains('*') {
            let matching = HARMS.iter().filter(|harm| matches(&key, harm.key));
            found.extend(matching.map(|harm| (harm.key.to_owned(), line())));
        } else {
            found.push((key, line()));
        }
    }
    found
}

/// Whether a pattern means a key, part by part.
fn matches(pattern: &str, key: &str) -> bool {
    let (mut pattern, mut key) = (pattern.split('.'), key.split('.'));
    loop {
        match (pattern.next(), key.next()) {
            (None, None) => return true,
            (Some(part), Some(found)) if part == "*" || part == found => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::preflight::Verdict;
    use crate::steps::tests::Bed;

    fn found(files: &[(&str, &str)], links: &[(&str, &str)], container: bool) -> Vec<(Verdict, String)> {
        let mut bed = Bed::new();
        bed.facts.container = container.then(|| "lxc".to_owned());
        for (path, text) in files {
            bed.put(path, text);
        }
        for (path, target) in links {
            bed.host.symlink(Path::new(path), Path::new(target)).unwrap();
        }
        let findings = taken_back(&bed.context()).unwrap();
        findings.into_iter().map(|finding| (finding.verdict, finding.found)).collect()
    }

    #[test]
    fn who_takes_a_setting_back_is_named() {
        for (path, text, expected) in [
            ("/etc/sysctl.d/99-zz.conf", "\nnet.ipv4.ip_forward = 0\n", Some((Verdict::Refused, "line 2"))),
            ("/run/sysctl.d/99-zz.conf", "-net/ipv4/conf/all/forwarding=0\n", Some((Verdict::Refused, "line 1"))),
            (
                "/usr/lib/sysctl.d/99-zz.conf",
                "vm.overcommit_memory=2\n",
                Some((Verdict::Refused, "to 2 at boot, after")),
            ),
            ("/etc/sysctl.d/99-zz.conf", "net.ipv4.conf.*.rp_filter = 1\n", Some((Verdict::Limit, "to 1"))),
            ("/etc/sysctl.d/99-zz.conf", "kernel.panic=0\n", Some((Verdict::Limit, "to 0"))),
            ("/etc/sysctl.d/99-zz.conf", "net.bridge.bridge-nf-call-iptables=0\n", Some((Verdict::Refused, "to 0"))),
            ("/etc/sysctl.d/10-hard.conf", "kernel.modules_disabled=1\n", Some((Verdict::Refused, "to 1 at boot"))),
            // Read before ours, as we want it, a comment, no `.conf`, nothing that harms.
            ("/etc/sysctl.d/10-router.conf", "net.ipv4.ip_forward = 0\n", None),
            ("/etc/sysctl.d/99-zz.conf", "net.ipv4.ip_forward = 0\nnet.ipv4.ip_forward = 1\n", None),
            ("/etc/sysctl.d/99-zz.conf", "# net.ipv4.ip_forward = 0\n", None),
            ("/etc/sysctl.d/99-zz.conf.bak", "net.ipv4.ip_forward = 0\n", None),
            ("/etc/sysctl.d/99-zz.conf", "net.ipv4.conf.*.log_martians = 1\n", None),
        ] {
            let found = found(&[(path, text)], &[], false);
            assert_eq!(found.len(), usize::from(expected.is_some()), "{path} {text} {found:?}");
            let Some((verdict, part)) = expected else { continue };
            assert!(found[0].0 == verdict && found[0].1.contains(part) && found[0].1.contains(path), "{found:?}");
        }
    }

    #[test]
    fn files_are_read_as_systemd_does() {
        let off = "net.ipv4.ip_forward = 0\n";
        // The same name in a directory that comes first takes its place; a link to /dev/null takes it away.
        assert!(
            found(&[("/usr/lib/sysctl.d/99-zz.conf", off), ("/etc/sysctl.d/99-zz.conf", "")], &[], false).is_empty()
        );
        let masked =
            found(&[("/usr/lib/sysctl.d/99-zz.conf", off)], &[("/etc/sysctl.d/99-zz.conf", "/dev/null")], false);
        assert!(masked.is_empty());
        // `/etc/sysctl.conf` counts where a link leads to it.
        assert!(found(&[("/etc/sysctl.conf", off)], &[], false).is_empty());
        let linked = found(&[("/etc/sysctl.conf", off)], &[("/etc/sysctl.d/99-sysctl.conf", "../sysctl.conf")], false);
        assert!(linked[0].1.contains("99-sysctl.conf"), "{linked:?}");
        // ufw sets its own when it starts.
        let ufw = (UFW, "net/ipv4/ip_forward=0\n");
        assert_eq!(found(&[ufw, ("/etc/ufw/ufw.conf", "ENABLED=yes\n")], &[], false).len(), 1);
        assert!(found(&[ufw, ("/etc/ufw/ufw.conf", "ENABLED=no\n")], &[], false).is_empty());
    }

    #[test]
    fn a_container_is_not_refused_for_what_is_its_machines() {
        let files = [("/etc/sysctl.d/99-zz.conf", "net.ipv4.ip_forward=0\nvm.overcommit_memory=2\n")];
        let found = found(&files, &[], true);
        assert_eq!(found.iter().map(|(verdict, _)| *verdict).collect::<Vec<_>>(), [Verdict::Limit]);
    }
}
