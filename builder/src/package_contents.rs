//! What is inside an OS package that the bundle carries: its files, and the parts of a kernel.
//!
//! Reading a kernel package takes seconds, and a package with one digest never changes: what was found is kept in the cache by
//! that digest (`contents/HEX.json`). An entry that cannot be read is made anew.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::Context as _;
use bundle::Digest;
use serde::{Deserialize, Serialize};

use crate::archive::{self, MemberKind};
use crate::cache::{self, Cache};
use crate::kernel_modules::{self, Kernels};

/// Raised whenever the same package gives another entry.
const GENERATION: u32 = 1;

/// The contents of one package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contents {
    generation: u32,
    /// Paths of programs and libraries (everything below `bin`, `sbin`, `lib`, `lib64` and `usr`'s and `opt`, but no kernel
    /// modules), relative to the root; links count.
    pub files: BTreeSet<String>,
    /// Parts of kernels.
    pub kernels: Kernels,
}

/// What `package` holds, a file of the cache called `file_name` upstream.
pub fn of(cache: &Cache, package: &Digest, file_name: &str) -> anyhow::Result<Contents> {
    let entry = cache.contents(package);
    let known = fs_err::read(&entry).ok().and_then(|bytes| serde_json::from_slice::<Contents>(&bytes).ok());
    if let Some(contents) = known.filter(|contents| contents.generation == GENERATION) {
        return Ok(contents);
    }
    let contents = read(&cache.path(package), file_name, package)?;
    let bytes = serde_json::to_vec(&contents).context("describing the package as JSON")?;
    // Only speed is lost if it cannot be kept, for example because another builder writes the same entry now.
    let _ = cache::write_atomic(&entry, &bytes, 0o644);
    Ok(contents)
}

fn read(path: &Path, file_name: &str, digest: &Digest) -> anyhow::Result<Contents> {
    let mut contents = Contents { generation: GENERATION, ..Contents::default() };
    archive::walk(path, file_name, digest, &mut |member, content| {
        match member.kind {
            MemberKind::Regular => kernel_modules::add(&mut contents.kernels, &member.path, Some(content))?,
            MemberKind::Symlink(_) | MemberKind::HardLink(_) => {
                kernel_modules::add(&mut contents.kernels, &member.path, None)?;
            }
            MemberKind::Other => return Ok(()),
        }
        if is_kept(&member.path) {
            contents.files.insert(member.path.clone());
        }
        Ok(())
    })?;
    Ok(contents)
}

fn is_kept(path: &str) -> bool {
    let path = path.strip_prefix("usr/").unwrap_or(path);
    let (top, rest) = path.split_once('/').unwrap_or((path, ""));
    ["bin", "sbin", "lib", "lib64", "local", "libexec", "opt"].contains(&top)
        && !(top == "lib" && rest.starts_with("modules/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A .deb whose data archive is a plain tar with these files.
    fn deb(files: &[(&str, &str)]) -> Vec<u8> {
        let mut data = tar::Builder::new(Vec::new());
        for (path, content) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            data.append_data(&mut header, path, content.as_bytes()).unwrap();
        }
        let data = data.into_inner().unwrap();
        let mut package = ar::Builder::new(Vec::new());
        let header = |name: &str, size: usize| ar::Header::new(name.as_bytes().to_vec(), size as u64);
        package.append(&header("debian-binary", 4), &b"2.0\n"[..]).unwrap();
        package.append(&header("data.tar", data.len()), &data[..]).unwrap();
        package.into_inner().unwrap()
    }

    #[test]
    fn a_package_is_read_once() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::open(Some(&directory.path().join("cache"))).unwrap();
        let bytes = deb(&[
            ("usr/sbin/nft", "#!"),
            ("usr/lib/x86_64-linux-gnu/libnftables.so.1", "x"),
            ("usr/share/doc/nft/copyright", "x"),
            ("lib/modules/6.1/kernel/vxlan.ko", "x"),
        ]);
        let digest = Digest::of(&bytes);
        fs_err::write(cache.path(&digest), &bytes).unwrap();
        let contents = of(&cache, &digest, "x_1_amd64.deb").unwrap();
        assert_eq!(
            contents.files.iter().map(String::as_str).collect::<Vec<_>>(),
            ["usr/lib/x86_64-linux-gnu/libnftables.so.1", "usr/sbin/nft"]
        );
        assert!(contents.kernels["6.1"].modules.contains("vxlan"));

        fs_err::remove_file(cache.path(&digest)).unwrap();
        assert_eq!(of(&cache, &digest, "x_1_amd64.deb").unwrap(), contents, "the entry is enough");
        fs_err::write(cache.contents(&digest), b"{").unwrap();
        assert!(of(&cache, &digest, "x_1_amd64.deb").is_err(), "a damaged entry is not believed");
        fs_err::write(cache.path(&digest), b"another").unwrap();
        assert!(of(&cache, &digest, "x_1_amd64.deb").is_err(), "nor is a changed package");
        fs_err::write(cache.path(&digest), &bytes).unwrap();
        assert_eq!(of(&cache, &digest, "x_1_amd64.deb").unwrap(), contents);
    }
}
