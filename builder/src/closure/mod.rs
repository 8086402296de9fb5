//! OS package closures: what must come with the packages that a manifest asks for, given what targets have anyway.

pub mod deb;
pub mod rpm;
