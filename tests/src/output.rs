//! What the `bed` program says to a person; nothing else prints.

use std::fmt::Display;
use std::io::Write as _;

/// One line on standard output. A closed pipe is not worth an error.
pub fn say(line: impl Display) {
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}

/// A heading.
pub fn heading(text: &str) {
    say(format_args!("\n== {text}"));
}

/// A table of names and values.
pub fn table(rows: &[(String, String)]) {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    for (name, value) in rows {
        say(format_args!("  {name:width$}  {value}"));
    }
}
