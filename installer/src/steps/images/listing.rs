//! What containerd already has: the tables of `ctr images list` and `ctr images check`.
//!
//! Columns are separated by blanks; a reference never holds one, so the first columns are safe to split. Only complete
//! images count as present: an import that was cut leaves the name but not all content.

use std::collections::BTreeMap;

/// One image as containerd knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Known {
    /// Digest of the manifest or index it names.
    pub(super) digest: String,
    /// All content is there and unpacked (`ctr images check`).
    pub(super) complete: bool,
    /// It carries the label that keeps it from garbage collection.
    pub(super) pinned: bool,
}

/// Reads `ctr images list` (`REF TYPE DIGEST SIZE PLATFORMS LABELS`) and `ctr images check`
/// (`REF TYPE DIGEST STATUS SIZE UNPACKED`, where STATUS is `complete (3/3)`).
pub(super) fn parse(list: &str, check: &str) -> BTreeMap<String, Known> {
    let complete: BTreeMap<&str, bool> = check
        .lines()
        .filter_map(|line| {
            let reference = line.split_whitespace().next()?;
            let good = line.split_whitespace().any(|word| word == "complete") && line.trim_end().ends_with("true");
            Some((reference, good))
        })
        .collect();
    list.lines()
        .filter_map(|line| {
            let mut words = line.split_whitespace();
            let reference = words.next()?;
            let digest = words.nth(1)?;
            if !digest.starts_with("sha256:") {
                return None;
            }
            let known = Known {
                digest: digest.to_owned(),
                complete: complete.get(reference).copied().unwrap_or(false),
                pinned: line.contains("io.cri-containerd.pinned=pinned"),
            };
            Some((reference.to_owned(), known))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // As printed by ctr 1.6.20.
    const LIST: &str = "\
REF                        TYPE                                       DIGEST                                                                  SIZE      PLATFORMS   LABELS
registry.k8s.io/pause:3.9  application/vnd.oci.image.manifest.v1+json sha256:aaaa 308.2 KiB linux/amd64 io.cri-containerd.image=managed,io.cri-containerd.pinned=pinned
docker.io/library/x:1      application/vnd.oci.image.manifest.v1+json sha256:bbbb 1.0 MiB   linux/amd64 -
";
    const CHECK: &str = "\
REF                        TYPE                                       DIGEST      STATUS         SIZE            UNPACKED
registry.k8s.io/pause:3.9  application/vnd.oci.image.manifest.v1+json sha256:aaaa complete (3/3) 308 KiB/308 KiB true
docker.io/library/x:1      application/vnd.oci.image.manifest.v1+json sha256:bbbb incomplete (1/3) 1 KiB/1.0 MiB false
";

    #[test]
    fn only_complete_images_are_present() {
        let known = parse(LIST, CHECK);
        assert_eq!(known.len(), 2);
        let pause = &known["registry.k8s.io/pause:3.9"];
        assert!(pause.complete && pause.pinned && pause.digest == "sha256:aaaa");
        assert!(!known["docker.io/library/x:1"].complete);
    }

    #[test]
    fn an_image_that_the_check_does_not_name_is_not_complete() {
        assert!(!parse(LIST, "").values().any(|known| known.complete));
        assert!(parse("", "").is_empty());
    }
}
