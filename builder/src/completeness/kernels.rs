//! Kernel modules that components need must come with the kernel of every promised distribution: the bundle's, or else the
//! distribution's own as its base states it. A kernel in the bundle is one kernel, and whole.

use std::collections::BTreeMap;

use super::Piece;
use super::problem::Problem;
use super::target::Target;
use crate::kernel_modules::{Kernels, Presence, canonical};

pub(super) fn problems(pieces: &[Piece], targets: &[Target]) -> Vec<Problem> {
    let mut needed: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for piece in pieces {
        for module in piece.component.modules.iter().chain(&piece.modules_on_demand) {
            needed.entry(canonical(module)).or_default().push(piece.component.name.as_str());
        }
    }
    let mut problems = Vec::new();
    for target in targets {
        problems.extend(target.kernels.iter().filter_map(|(component, kernels)| not_one_kernel(component, kernels)));
        for (module, users) in &needed {
            problems.extend(absent(module, users, target));
        }
    }
    problems
}

fn absent(module: &str, users: &[&str], target: &Target) -> Vec<Problem> {
    let mut users: Vec<String> = users.iter().map(|user| format!("`{user}`")).collect();
    users.dedup();
    let (who, on) = (users.join(", "), target.name());
    if target.kernels.is_empty() {
        let missing = format!("the kernel module `{module}`, which {on}'s own kernel does not have");
        let remedy = format!(
            "add `[kernel.{on}]` with a kernel that has it, or, if the distribution's does, add it to `modules` in `bases/{on}.toml`"
        );
        return if target.base.has_module(module) { Vec::new() } else { vec![Problem::written(who, missing, remedy)] };
    }
    let mut problems = Vec::new();
    // Which of several kernels would be asked? They are a problem of their own.
    for (component, kernels) in target.kernels.iter().filter(|(_, kernels)| kernels.len() == 1) {
        for (release, kernel) in kernels {
            if let Presence::Absent(why) = kernel.presence(module) {
                let missing =
                    format!("the kernel module `{module}`, which `{component}` does not bring for {release} ({why})");
                let remedy =
                    format!("add the package that has it to `install` of `[kernel.{on}]`, or take another kernel");
                problems.push(Problem::content(&who, missing, remedy));
            }
        }
    }
    problems
}

fn not_one_kernel(component: &str, kernels: &Kernels) -> Option<Problem> {
    let releases: Vec<&str> = kernels.keys().map(String::as_str).collect();
    let (missing, remedy) = match (&releases[..], kernels.values().next()) {
        ([], _) => ("a kernel: its packages hold none".to_owned(), "name the kernel's image package in `install`"),
        ([_], Some(kernel)) if kernel.image => return None,
        ([release], _) => (
            format!("the kernel itself: no package holds `vmlinuz` of {release}"),
            "name the kernel's image package in `install`",
        ),
        _ => (
            format!("one kernel, but its packages are for {}", releases.join(", ")),
            "name packages of one release (`uname -r`) only: image, modules and headers",
        ),
    };
    Some(Problem::content(format!("`{component}`"), missing, remedy))
}

#[cfg(test)]
mod tests {
    use super::super::fake;
    use super::*;
    use crate::kernel_modules::Kernel;

    fn texts(pieces: &[Piece], target: &Target) -> Vec<String> {
        problems(pieces, std::slice::from_ref(target)).iter().map(ToString::to_string).collect()
    }

    fn users() -> [Piece; 2] {
        let mut kubelet = fake::program("kubelet", &[]);
        kubelet.component.modules = vec!["overlay".into()];
        let mut proxy = fake::program("kube-proxy", &[]);
        proxy.component.modules = vec!["nf-conntrack".into(), "overlay".into()];
        proxy.modules_on_demand = vec!["ip_vs".into()];
        [kubelet, proxy]
    }

    #[test]
    fn without_a_kernel_of_its_own_the_base_decides() {
        let mut target = fake::target();
        let found = texts(&users(), &target);
        assert_eq!(found.len(), 1, "{found:#?}");
        assert!(
            found[0].starts_with("`kube-proxy` needs the kernel module `ip_vs`, which debian-12's own kernel"),
            "{found:#?}"
        );
        assert!(found[0].contains("`[kernel.debian-12]`") && found[0].contains("`bases/debian-12.toml`"), "{found:#?}");
        target.base.modules.extend(["ip_vs".to_owned()]);
        assert_eq!(texts(&users(), &target), Vec::<String>::new());
        target.base.modules.remove("overlay");
        assert!(texts(&users(), &target)[0].starts_with("`kubelet`, `kube-proxy` needs the kernel module `overlay`"));
    }

    #[test]
    fn a_kernel_of_the_bundle_has_the_modules_and_is_whole() {
        let mut kernel = Kernel { image: true, ..Kernel::default() };
        kernel.modules.extend(["overlay", "nf_conntrack"].map(str::to_owned));
        kernel.options = Some([("IP_VS".to_owned(), 'm')].into());
        let mut target = fake::target();
        let with = |target: &mut Target, kernels: &[(&str, &Kernel)]| {
            let kernels = kernels.iter().map(|(release, kernel)| ((*release).to_owned(), (*kernel).clone())).collect();
            target.kernels.insert("kernel-debian-12".into(), kernels);
        };
        with(&mut target, &[("6.1.0-56-amd64", &kernel)]);
        let found = texts(&users(), &target);
        assert_eq!(found.len(), 1, "{found:#?}");
        for part in
            ["`ip_vs`, which `kernel-debian-12` does not bring for 6.1.0-56-amd64", "CONFIG_IP_VS=m", "`install`"]
        {
            assert!(found[0].contains(part), "{part} in {found:#?}");
        }
        kernel.options = Some([("IP_VS".to_owned(), 'y')].into());
        with(&mut target, &[("6.1.0-56-amd64", &kernel)]);
        assert_eq!(texts(&users(), &target), Vec::<String>::new(), "built in");

        with(&mut target, &[("6.1.0-56-amd64", &kernel), ("6.1.0-57-amd64", &kernel)]);
        assert!(texts(&[], &target)[0].contains("one kernel, but its packages are for 6.1.0-56-amd64, 6.1.0-57-amd64"));
        with(&mut target, &[("6.1.0-56-amd64", &Kernel { image: false, ..kernel })]);
        assert!(texts(&[], &target)[0].contains("no package holds `vmlinuz` of 6.1.0-56-amd64"));
        with(&mut target, &[]);
        assert!(texts(&[], &target)[0].contains("its packages hold none"));
    }
}
