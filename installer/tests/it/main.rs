//! Integration tests of the installer that need no root.

mod flags;
mod manifests;
mod snapshots;
