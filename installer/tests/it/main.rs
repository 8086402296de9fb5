//! Integration tests of the installer that need no root.

mod flags;
mod host;
mod install;
mod manifests;
mod snapshots;
