//! Kernel modules: what is loaded, built in or loadable, how module files are compressed, and which drivers are not the
//! kernel's own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Result;

use super::Modules;
use super::tools::which;
use crate::host::{Command, Host};

/// A symbol of the kernel image that tells that a module is built in, where no module directory says so.
const BUILTIN_SYMBOLS: &[(&str, &str)] = &[
    ("bridge", "br_dev_setup"),
    ("br_netfilter", "br_nf_pre_routing"),
    ("veth", "veth_newlink"),
    ("vxlan", "vxlan_setup"),
    ("overlay", "ovl_init_fs_context"),
    ("nf_conntrack", "nf_conntrack_in"),
    ("nf_nat", "nf_nat_inet_fn"),
    ("nf_tables", "nft_do_chain"),
    ("ip_tables", "ipt_do_table"),
    ("ip_set", "ip_set_add"),
    ("ip_vs", "ip_vs_conn_in_get"),
];

pub(super) fn modules(host: &Host, kernel: &str, container: bool) -> Result<Modules> {
    let text = |path: &Path| -> Result<String> { Ok(host.read_text(path)?.unwrap_or_default()) };
    let directory = Path::new("/lib/modules").join(kernel);
    let loaded = text(Path::new("/proc/modules"))?;
    let builtin = text(&directory.join("modules.builtin"))?;
    let files = text(&directory.join("modules.dep"))?;
    let symbols = text(Path::new("/proc/kallsyms"))?;
    // A container could load modules only with rights over the whole machine; those are the machine's to load.
    let can_load = !container && !files.is_empty() && which(host, "modprobe")?.is_some();
    let mut present: BTreeSet<String> =
        loaded.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    present.extend(builtin.lines().filter_map(module_name));
    present.extend(parse_symbols(&symbols));
    let loadable = if can_load {
        files
            .lines()
            .filter_map(|line| module_name(line.split(':').next()?))
            .filter(|name| !present.contains(name))
            .collect()
    } else {
        BTreeSet::new()
    };
    let (compression, unreadable) = compression(host, &files);
    let directory = host.exists(&directory)?;
    Ok(Modules { present, loadable, can_load, compression, unreadable, directory })
}

/// How module files are compressed (`xz`), and whether the host's modprobe was built without that.
fn compression(host: &Host, files: &str) -> (Option<String>, bool) {
    let first = files.lines().find_map(|line| line.split(':').next()?.split_once(".ko."));
    let Some((_, ending)) = first else { return (None, false) };
    let said = host.try_run(&Command::new("modprobe").arg("--version")).map(|finished| finished.text());
    (Some(ending.to_owned()), said.is_ok_and(|said| lacks(&said, ending)))
}

/// `kmod version 30\n+ZSTD +XZ -ZLIB +LIBCRYPTO`: the second line says what kmod can read.
fn lacks(said: &str, ending: &str) -> bool {
    let feature = match ending {
        "gz" => "-ZLIB",
        "xz" => "-XZ",
        "zst" => "-ZSTD",
        _ => return false,
    };
    said.split_whitespace().any(|word| word == feature)
}

/// `kernel/net/netfilter/ipvs/ip_vs.ko.xz` → `ip_vs`.
fn module_name(path: &str) -> Option<String> {
    let name = path.trim().rsplit('/').next()?.split(".ko").next()?;
    (!name.is_empty()).then(|| name.replace('-', "_"))
}

/// Features whose symbols the kernel has; those of loaded modules end in ` [module]` and count as well.
fn parse_symbols(kallsyms: &str) -> BTreeSet<String> {
    let wanted: BTreeMap<&str, &str> = BUILTIN_SYMBOLS.iter().map(|(module, symbol)| (*symbol, *module)).collect();
    let symbols = kallsyms.lines().filter_map(|line| line.split_whitespace().nth(2));
    symbols.filter_map(|symbol| Some((*wanted.get(symbol)?).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_features_are_found_by_symbol() {
        let symbols = "0000 t br_dev_setup\n0000 T nft_do_chain\t[nf_tables]\n0000 t ip_vs_something\n";
        assert_eq!(parse_symbols(symbols), BTreeSet::from(["bridge".to_owned(), "nf_tables".to_owned()]));
        assert_eq!(module_name("kernel/net/netfilter/ipvs/ip-vs.ko.xz: a b").as_deref(), Some("ip_vs"));
    }

    #[test]
    fn module_files_may_be_compressed_in_a_way_that_modprobe_cannot_read() {
        let said = "kmod version 30\n+ZSTD +XZ -ZLIB +LIBCRYPTO -EXPERIMENTAL\n";
        assert!(lacks(said, "gz") && !lacks(said, "xz") && !lacks(said, "zst"));
        let dir = tempfile::tempdir().unwrap();
        let host = Host::under(dir.path());
        host.fake().on("modprobe --version", crate::host::Reply::ok(said));
        for (ending, expected) in [
            ("", (None, false)),
            (".xz", (Some("xz"), false)),
            (".zst", (Some("zst"), false)),
            (".gz", (Some("gz"), true)),
        ] {
            let files = format!("kernel/fs/overlayfs/overlay.ko{ending}: kernel/x.ko{ending}\n");
            host.write(Path::new("/usr/sbin/modprobe"), b"", 0o755).unwrap();
            host.write(Path::new("/lib/modules/6.1.0/modules.dep"), files.as_bytes(), 0o644).unwrap();
            let found = modules(&host, "6.1.0", false).unwrap();
            assert!(found.available("overlay"), "{ending}");
            assert_eq!((found.compression.as_deref(), found.unreadable), expected);
        }
        assert!(!modules(&host, "6.2.0", false).unwrap().directory, "the modules of another kernel");
    }
}
