//! One integration binary for the format.

// Clippy allows these in tests, but not in functions that tests share.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod bytes;
mod golden;
mod museum;
mod random;
mod roundtrip;
mod signatures;
