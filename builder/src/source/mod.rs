//! Where artifacts come from: one file a kind of source.

pub mod apt;
pub mod checksums;
pub mod https;
mod openpgp;
pub mod registry;
pub mod rpm_md;

use crate::failure::Failure;

/// Longest name that a file can have.
const NAME: usize = 255;

/// Refuses where an index says that a file lies if that leads out of the repository, or if it is no path: it is asked of the server,
/// written into the lock, and its last part is the file's name in the bundle.
fn check_location(location: &str) -> anyhow::Result<()> {
    let good = |part: &str| {
        !matches!(part, "" | "." | "..") && part.len() <= NAME && !part.contains(|letter: char| letter.is_control())
    };
    if location.split('/').all(good) && !location.contains(['?', '#', '\\']) {
        return Ok(());
    }
    let shown: String = location.chars().take(100).collect();
    let text = format!("the location `{}` is none in the repository", shown.escape_debug());
    Err(Failure::new(text)
        .hint("it has an empty part, `.`, `..`, a letter that no path has, or more than 255 bytes in a part")
        .into())
}
