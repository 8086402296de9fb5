//! Small whole bundles, good and hostile, for the tests of all crates.
