//! What a user or an attacker of the builder would notice: whole commands, a misbehaving server, a signed local archive.

#![expect(clippy::unwrap_used, clippy::disallowed_methods, reason = "tests")]

mod addon;
mod apt;
mod build;
mod checksums;
mod complete;
mod download;
#[path = "../../src/elf/forged.rs"]
mod forged;
mod inside;
mod lock;
mod network;
mod pick;
mod proxy;
mod registry;
mod releases;
mod robust;
mod rpm;
mod rpm_yard;
mod server;
mod workshop;
