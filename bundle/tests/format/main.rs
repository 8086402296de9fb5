//! One integration binary for the format.

mod museum;
mod roundtrip;
