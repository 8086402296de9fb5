//! Addons: Kubernetes objects from pinned YAML, the images they need, and the values in them that each cluster decides.
//!
//! The YAML is upstream's and is not trusted beyond its digest: reading it is bounded and never panics. What is guaranteed: every
//! image that the objects name is in the bundle or was declared needless by name, and every patch has been tried.

pub mod objects;
pub mod yaml;
