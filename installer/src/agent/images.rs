//! Image presence. A kubelet before 1.29 does not know containerd's "pinned" mark and may collect a bundle's images as
//! garbage; without a registry nobody could bring them back. They are imported again from the store.

use bundle::Image;

/// The first minor version of the kubelet that leaves pinned images alone (sig-release notes of 1.29).
const KNOWS_PINNED: u32 = 29;

/// Whether the generation's kubelet may throw images away.
pub fn must_be_kept(images: &[Image]) -> bool {
    let kubelet = images.iter().find(|image| image.component.name.as_str() == "kubelet");
    kubelet.is_some_and(|kubelet| forgets(kubelet.component.version.as_str()))
}

fn forgets(version: &str) -> bool {
    let minor = version.split('.').nth(1).and_then(|minor| minor.parse::<u32>().ok());
    minor.is_some_and(|minor| minor < KNOWS_PINNED)
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_old_kubelets_need_it() {
        for (version, expected) in [("1.20.2", true), ("1.28.15", true), ("1.29.0", false), ("1.37.1", false)] {
            assert_eq!(super::forgets(version), expected, "{version}");
        }
    }
}
