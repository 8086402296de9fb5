//! Runs steps: capture, check, apply, check again.

use std::sync::atomic::{AtomicBool, Ordering};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Whether the operator or the system asked the program to stop; waits end and no further step begins.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}
