//! RPM packages from repositories with rpm-md metadata (createrepo_c(8)), named by `.repo` files.
//!
//! The chain: key of the repository → repomd.xml (checked by gpgv) → primary.xml (digest in repomd.xml) → package (digest
//! in primary.xml, goes into the lock). Addresses of repositories stay on this machine.

pub mod repo_files;
