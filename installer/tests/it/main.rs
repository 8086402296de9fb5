//! Integration tests of the installer that need no root.
#![expect(clippy::unwrap_used, reason = "tests: helpers outside of #[test] functions, too")]

mod background;
mod flags;
mod host;
mod install;
mod manifests;
mod reset;
mod settings;
mod snapshots;
