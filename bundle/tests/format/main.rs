//! One integration binary for the format.

mod bytes;
mod golden;
mod museum;
mod random;
mod roundtrip;
mod signatures;
