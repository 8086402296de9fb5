//! Which kernel modules a set of kernel packages brings: as files, or built into the kernel.
//!
//! Read from the packages' own file lists, `modules.builtin` and the kernel's configuration. Module names are canonical: the
//! kernel takes `-` and `_` for the same, and so do we (`_`).

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use serde::{Deserialize, Serialize};

/// Bytes of a kernel's configuration or list of built-in modules at most; real ones have some 300 KiB.
const TEXT_LIMIT: u64 = 4 << 20;

/// Which option of the kernel's configuration builds a module: what Kubernetes, container runtimes and network add-ons ask for.
/// Asked when `modules.builtin` does not list the module. Source: the kernel's Makefiles (fs, net, drivers/net).
const OPTIONS: [(&str, &str); 66] = [
    ("br_netfilter", "BRIDGE_NETFILTER"),
    ("bridge", "BRIDGE"),
    ("dummy", "DUMMY"),
    ("ip6_tables", "IP6_NF_IPTABLES"),
    ("ip6table_filter", "IP6_NF_FILTER"),
    ("ip6table_mangle", "IP6_NF_MANGLE"),
    ("ip6table_nat", "IP6_NF_NAT"),
    ("ip_set", "IP_SET"),
    ("ip_set_bitmap_port", "IP_SET_BITMAP_PORT"),
    ("ip_set_hash_ip", "IP_SET_HASH_IP"),
    ("ip_set_hash_ipport", "IP_SET_HASH_IPPORT"),
    ("ip_set_hash_ipportip", "IP_SET_HASH_IPPORTIP"),
    ("ip_set_hash_ipportnet", "IP_SET_HASH_IPPORTNET"),
    ("ip_set_hash_net", "IP_SET_HASH_NET"),
    ("ip_tables", "IP_NF_IPTABLES"),
    ("ip_vs", "IP_VS"),
    ("ip_vs_dh", "IP_VS_DH"),
    ("ip_vs_lblc", "IP_VS_LBLC"),
    ("ip_vs_lc", "IP_VS_LC"),
    ("ip_vs_mh", "IP_VS_MH"),
    ("ip_vs_nq", "IP_VS_NQ"),
    ("ip_vs_rr", "IP_VS_RR"),
    ("ip_vs_sed", "IP_VS_SED"),
    ("ip_vs_sh", "IP_VS_SH"),
    ("ip_vs_wlc", "IP_VS_WLC"),
    ("ip_vs_wrr", "IP_VS_WRR"),
    ("ipip", "NET_IPIP"),
    ("ipt_REJECT", "IP_NF_TARGET_REJECT"),
    ("iptable_filter", "IP_NF_FILTER"),
    ("iptable_mangle", "IP_NF_MANGLE"),
    ("iptable_nat", "IP_NF_NAT"),
    ("iptable_raw", "IP_NF_RAW"),
    ("nf_conntrack", "NF_CONNTRACK"),
    ("nf_nat", "NF_NAT"),
    ("nf_tables", "NF_TABLES"),
    ("nft_chain_nat", "NFT_NAT"),
    ("nft_compat", "NFT_COMPAT"),
    ("nft_ct", "NFT_CT"),
    ("nft_fib", "NFT_FIB"),
    ("nft_fib_inet", "NFT_FIB_INET"),
    ("nft_fib_ipv4", "NFT_FIB_IPV4"),
    ("nft_fib_ipv6", "NFT_FIB_IPV6"),
    ("nft_hash", "NFT_HASH"),
    ("nft_limit", "NFT_LIMIT"),
    ("nft_log", "NFT_LOG"),
    ("nft_masq", "NFT_MASQ"),
    ("nft_nat", "NFT_NAT"),
    ("nft_numgen", "NFT_NUMGEN"),
    ("nft_redir", "NFT_REDIR"),
    ("nft_reject", "NFT_REJECT"),
    ("nft_reject_inet", "NFT_REJECT_INET"),
    ("overlay", "OVERLAY_FS"),
    ("veth", "VETH"),
    ("vxlan", "VXLAN"),
    ("wireguard", "WIREGUARD"),
    ("x_tables", "NETFILTER_XTABLES"),
    ("xt_MASQUERADE", "NETFILTER_XT_TARGET_MASQUERADE"),
    ("xt_addrtype", "NETFILTER_XT_MATCH_ADDRTYPE"),
    ("xt_comment", "NETFILTER_XT_MATCH_COMMENT"),
    ("xt_conntrack", "NETFILTER_XT_MATCH_CONNTRACK"),
    ("xt_mark", "NETFILTER_XT_MARK"),
    ("xt_multiport", "NETFILTER_XT_MATCH_MULTIPORT"),
    ("xt_nat", "NETFILTER_XT_NAT"),
    ("xt_set", "NETFILTER_XT_SET"),
    ("xt_statistic", "NETFILTER_XT_MATCH_STATISTIC"),
    ("xt_tcpudp", "NETFILTER_XTABLES"),
];

/// Kernels by release (`uname -r`).
pub type Kernels = BTreeMap<String, Kernel>;

/// What packages bring of one kernel release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kernel {
    /// Whether the kernel itself (`vmlinuz`) is there.
    pub image: bool,
    /// Modules as files.
    pub modules: BTreeSet<String>,
    /// Modules that `modules.builtin` lists.
    pub builtin: BTreeSet<String>,
    /// Options of [`OPTIONS`] that the configuration sets, with `y` or `m`; `None` if no package brings the configuration.
    pub options: Option<BTreeMap<String, char>>,
}

/// How a kernel comes to a module, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// A file.
    Module,
    /// Part of the kernel.
    Builtin,
    /// Not there: why, for people.
    Absent(String),
}

/// The name by which the kernel knows a module.
pub fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What a file of a package is to a kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Image,
    Module(String),
    Builtin,
    Configuration,
    /// It belongs to this kernel and decides nothing.
    Other,
}

/// The release that a path belongs to and what it is; `None` for what belongs to no kernel.
fn part(path: &str) -> Option<(&str, Part)> {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    if let Some(file) = path.strip_prefix("boot/") {
        let image = file.strip_prefix("vmlinuz-").or_else(|| file.strip_prefix("vmlinux-"));
        let configuration = || file.strip_prefix("config-").map(|release| (release, Part::Configuration));
        return image.map(|release| (release, Part::Image)).or_else(configuration);
    }
    let (release, file) = path.strip_prefix("lib/modules/")?.split_once('/')?;
    let name = file.rsplit('/').next().unwrap_or(file);
    let module = ["", ".xz", ".zst", ".gz"].iter().find_map(|end| name.strip_suffix(end)?.strip_suffix(".ko"));
    Some(match (file, module) {
        ("vmlinuz", _) => (release, Part::Image),
        ("config", _) => (release, Part::Configuration),
        ("modules.builtin", _) => (release, Part::Builtin),
        (_, Some(module)) => (release, Part::Module(canonical(module))),
        _ => (release, Part::Other),
    })
}

/// Takes in one file of a package, or a link, which has no content.
pub fn add(kernels: &mut Kernels, path: &str, content: Option<&mut dyn Read>) -> std::io::Result<()> {
    let Some((release, part)) = part(path) else { return Ok(()) };
    let kernel = kernels.entry(release.to_owned()).or_default();
    match (part, content) {
        (Part::Image, _) => kernel.image = true,
        (Part::Module(name), _) => drop(kernel.modules.insert(name)),
        (Part::Builtin, Some(content)) => {
            let text = text(content)?;
            let names = text.lines().filter_map(|line| line.rsplit('/').next()?.strip_suffix(".ko"));
            kernel.builtin.extend(names.map(canonical));
        }
        (Part::Configuration, Some(content)) => kernel.options = Some(configuration(&text(content)?)),
        (Part::Other | Part::Builtin | Part::Configuration, _) => {}
    }
    Ok(())
}

fn text(content: &mut dyn Read) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    content.take(TEXT_LIMIT).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The options of [`OPTIONS`] that are set, `CONFIG_VXLAN=m`.
fn configuration(text: &str) -> BTreeMap<String, char> {
    let set = text.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("CONFIG_")?.split_once('=')?;
        let value = match value {
            "y" => 'y',
            "m" => 'm',
            _ => return None,
        };
        OPTIONS.iter().any(|(_, option)| *option == name).then(|| (name.to_owned(), value))
    });
    set.collect()
}

/// Puts together what several packages bring.
pub fn merge(kernels: &mut Kernels, more: &Kernels) {
    for (release, part) in more {
        let kernel = kernels.entry(release.clone()).or_default();
        kernel.image |= part.image;
        kernel.modules.extend(part.modules.iter().cloned());
        kernel.builtin.extend(part.builtin.iter().cloned());
        if let Some(options) = &part.options {
            kernel.options.get_or_insert_default().extend(options.iter().map(|(name, value)| (name.clone(), *value)));
        }
    }
}

impl Kernel {
    /// Whether and how a module is there.
    pub fn presence(&self, module: &str) -> Presence {
        let module = canonical(module);
        if self.modules.contains(&module) {
            return Presence::Module;
        }
        if self.builtin.contains(&module) {
            return Presence::Builtin;
        }
        let option = OPTIONS.iter().find(|(name, _)| *name == module).map(|(_, option)| *option);
        match (option, &self.options) {
            (Some(option), Some(set)) => match set.get(option) {
                Some('y') => Presence::Builtin,
                Some(_) => Presence::Absent(format!("CONFIG_{option}=m: it is in a package that is not here")),
                None => Presence::Absent(format!("CONFIG_{option} is not set: this kernel is built without it")),
            },
            (Some(_), None) => Presence::Absent("no file, and no configuration of the kernel to ask".into()),
            (None, _) => Presence::Absent("no file, not built in".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kernels(files: &[(&str, &str)]) -> Kernels {
        let mut kernels = Kernels::new();
        for (path, content) in files {
            add(&mut kernels, path, Some(&mut content.as_bytes())).unwrap();
        }
        kernels
    }

    #[test]
    fn packages_of_both_families_tell_their_modules() {
        let debian = kernels(&[
            ("boot/vmlinuz-6.1.0-56-amd64", "MZ"),
            (
                "boot/config-6.1.0-56-amd64",
                "CONFIG_OVERLAY_FS=y\nCONFIG_VXLAN=m\n# CONFIG_IP_VS is not set\nCONFIG_X=y\n",
            ),
            ("lib/modules/6.1.0-56-amd64/kernel/net/bridge/br_netfilter.ko", ""),
            ("usr/lib/modules/6.1.0-56-amd64/kernel/net/netfilter/nf-conntrack.ko.xz", ""),
            ("lib/modules/6.1.0-56-amd64/modules.builtin", "kernel/drivers/net/veth.ko\nkernel/fs/ext4/ext4.ko\n"),
            ("usr/share/doc/linux/vxlan.ko", ""),
        ]);
        let (release, kernel) = debian.first_key_value().unwrap();
        assert_eq!((release.as_str(), debian.len()), ("6.1.0-56-amd64", 1));
        assert!(kernel.image);
        assert_eq!(kernel.presence("br_netfilter"), Presence::Module);
        assert_eq!(kernel.presence("nf_conntrack"), Presence::Module, "`-` and `_` are the same, xz does not matter");
        assert_eq!(kernel.presence("veth"), Presence::Builtin, "modules.builtin");
        assert_eq!(kernel.presence("overlay"), Presence::Builtin, "the configuration");
        let absent = |kernel: &Kernel, module: &str, why: &str| match kernel.presence(module) {
            Presence::Absent(text) => assert!(text.contains(why), "{module}: {text}"),
            there => panic!("{module} is {there:?}"),
        };
        absent(kernel, "vxlan", "CONFIG_VXLAN=m: it is in a package that is not here");
        absent(kernel, "ip_vs", "CONFIG_IP_VS is not set");
        absent(kernel, "floppy", "no file");

        let el = kernels(&[
            ("lib/modules/5.14.0-570.el9.x86_64/vmlinuz", "MZ"),
            ("lib/modules/5.14.0-570.el9.x86_64/config", "CONFIG_BRIDGE=y\n"),
            ("lib/modules/5.14.0-570.el9.x86_64/kernel/fs/overlayfs/overlay.ko.zst", ""),
        ]);
        let kernel = &el["5.14.0-570.el9.x86_64"];
        assert!(kernel.image);
        assert_eq!(kernel.presence("overlay"), Presence::Module);
        assert_eq!(kernel.presence("bridge"), Presence::Builtin);

        let mut linked = debian.clone();
        add(&mut linked, "boot/config-6.1.0-56-amd64", None).unwrap();
        assert_eq!(linked, debian, "a link to the configuration says nothing");

        // Ubuntu splits image and modules; put together they are one kernel.
        let mut split = kernels(&[("boot/vmlinuz-6.8.0-1-generic", "MZ")]);
        merge(&mut split, &kernels(&[("lib/modules/6.8.0-1-generic/kernel/x/vxlan.ko.zst", "")]));
        assert_eq!(split.len(), 1);
        assert!(split["6.8.0-1-generic"].image);
        assert_eq!(split["6.8.0-1-generic"].presence("vxlan"), Presence::Module);
        absent(&split["6.8.0-1-generic"], "ip_vs", "no configuration of the kernel to ask");
    }

    #[test]
    fn the_table_names_each_module_once_and_in_order() {
        assert!(OPTIONS.windows(2).all(|pair| pair[0].0 < pair[1].0), "not sorted, or a module twice");
        assert!(OPTIONS.iter().all(|(module, _)| canonical(module) == *module));
    }
}
