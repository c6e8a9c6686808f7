//! pavior-tests: tests that no single crate can own. The library holds what they share: whole systems, and people who
//! call them.
//!
//! Owns the ways of running a whole system for a test; must never be a dependency of anything but tests and benches.
//! Entry points: [`Embedded`] (everything in this process), [`Processes`] (the real binary, in one process or apart),
//! [`Person`] (a caller with a token).

mod embedded;
mod person;
mod processes;

pub use embedded::Embedded;
pub use person::{Person, details};
pub use processes::{Processes, binary};

/// The starter kit's golden path.
pub const TEMPLATE: &str = "organizations/acme/templates/web-service/versions/stable";

/// The folder of the starter kit.
pub fn starter() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/starter")
}

/// Lets a driver have something that no resource declares, as after a restore. Returns the driver's name of it.
pub fn orphan(data: &std::path::Path, resource: &str) -> anyhow::Result<String> {
    let identity = "forgotten-0123456789abcdef";
    let name = format!("{}.json", pavior_core::digest::sha256_hex(identity.as_bytes()));
    let record = serde_json::json!({
        "identity": identity, "organization": "acme", "resource": resource, "resource_type": "ci-pipeline",
        "created_by": "old/main/1", "keys": [], "ready": true, "data": {},
    });
    std::fs::write(data.join("platform/drivers/pipeline/things").join(name), record.to_string())?;
    Ok(identity.to_owned())
}
