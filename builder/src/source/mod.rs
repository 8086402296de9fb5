//! Where artifacts come from: one file a kind of source.

pub mod apt;
pub mod checksums;
pub mod https;
mod openpgp;
pub mod registry;
pub mod rpm_md;

use crate::failure::Failure;

/// Refuses where an index says that a file lies if that leads out of the repository. It may be longer than what a layer takes: nobody
/// but the repository's server sees it.
fn check_location(location: &str) -> anyhow::Result<()> {
    let good = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(|letter: char| letter.is_control());
    if location.split('/').all(good) && !location.contains(['?', '#', '\\']) {
        return Ok(());
    }
    Err(Failure::new(format!("the location `{}` leads out of the repository", location.escape_debug())).into())
}
