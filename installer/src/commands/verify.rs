//! `installer verify`: the whole bundle, to its last byte, without any effect on the host.

use anyhow::Result;
use bundle::Discard;
use serde_json::json;

use super::prepare::open;
use crate::cli::Verify;
use crate::host::Host;
use crate::output::Output;
use crate::report::Exit;
use crate::store::{classify, size};

/// Checks signatures, metadata, every blob, every file of every layer, and that nothing else is there.
pub fn verify(host: &Host, arguments: &Verify, output: &Output) -> Result<Exit> {
    crate::engine::stop_on_signals()?;
    let start = host.monotonic();
    let opened = open(host, &arguments.source)?;
    let (release, signers) = (opened.stream.release().clone(), opened.stream.signers().to_vec());
    let index = opened.stream.index_digest();
    let images = opened.stream.images().len();
    let summary = opened.stream.unpack(&mut Discard).map_err(classify)?;
    let milliseconds = u64::try_from(host.monotonic().saturating_sub(start).as_millis()).unwrap_or(u64::MAX).max(1);
    // Megabytes a second are bytes a microsecond.
    let rate = summary.bundle_size / milliseconds / 1000;
    if output.is_json() {
        output.json(&json!({
            "name": release.name, "version": release.version, "architecture": release.architecture,
            "sequence": release.sequence, "created": release.created, "index": index, "signers": signers,
            "images": images, "files": summary.files, "bytes": summary.bundle_size,
            "milliseconds": milliseconds, "megabytes_per_second": rate,
        }));
        return Ok(Exit::Done);
    }
    output.line(&format!(
        "{} {} ({}), sequence {}, created {}",
        release.name, release.version, release.architecture, release.sequence, release.created
    ));
    output.line(&format!("index {index}\nsigned by {}", signers.join(", ")));
    output.line(&format!(
        "verified: {} components, {} files, {} in {}.{:03} s ({rate} MB/s)",
        images,
        summary.files,
        size(summary.bundle_size),
        milliseconds / 1000,
        milliseconds % 1000
    ));
    Ok(Exit::Done)
}
