//! Annotations of entities of the catalog that the platform sets, and nobody else may.

/// The resource of a project that an entity is made for, by resource name.
pub const RESOURCE: &str = "pavior.dev/resource";
/// The key of the call that made it.
pub const KEY: &str = "pavior.dev/key";
/// The digest of what its resource declares.
pub const DECLARATION: &str = "pavior.dev/declaration";
