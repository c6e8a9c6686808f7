//! Rules between crates, over Cargo's own metadata.

use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::sources::root;

/// A crate and those of ours that it depends on outside of tests.
pub(crate) type Graph = Vec<(String, Vec<String>)>;

const SERVICES: [&str; 7] = [
    "pavior-audit",
    "pavior-audit-verifier",
    "pavior-catalog",
    "pavior-drivers",
    "pavior-gateway",
    "pavior-policy",
    "pavior-provisioning",
];

/// What each shared crate may know; services may know all of these and no other service.
fn allowed(name: &str) -> Option<&'static [&'static str]> {
    Some(match name {
        "pavior-core" | "pavior-proto" | "pavior-files" | "pavior-audit-verifier" => &[],
        "pavior-expr" => &["pavior-core"],
        "pavior-rpc" => &["pavior-core", "pavior-proto"],
        "pavior-auth" => &["pavior-core", "pavior-proto", "pavior-rpc"],
        "pavior-store" => &["pavior-core", "pavior-files"],
        "pavior-driver" => &["pavior-core"],
        "pavior-driver-grpc" => &["pavior-core", "pavior-driver", "pavior-proto", "pavior-rpc"],
        "pavior-runtime" => &["pavior-core", "pavior-rpc"],
        "pavior-relay" => &["pavior-core", "pavior-rpc", "pavior-runtime", "pavior-store"],
        "pavior-resource" => &[
            "pavior-core",
            "pavior-proto",
            "pavior-rpc",
            "pavior-auth",
            "pavior-store",
            "pavior-runtime",
            "pavior-relay",
        ],
        "pavior-drivers" => &["pavior-core", "pavior-driver", "pavior-expr", "pavior-files"],
        "pavior-gateway" => &["pavior-core", "pavior-proto", "pavior-rpc", "pavior-auth", "pavior-runtime"],
        "pavior-audit" | "pavior-catalog" | "pavior-policy" | "pavior-provisioning" => &[
            "pavior-core",
            "pavior-proto",
            "pavior-rpc",
            "pavior-auth",
            "pavior-store",
            "pavior-runtime",
            "pavior-relay",
            "pavior-resource",
            "pavior-expr",
            "pavior-driver",
            "pavior-files",
        ],
        _ => return None,
    })
}

/// Reads the graph of the workspace.
pub(crate) fn workspace() -> Graph {
    let metadata = MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .other_options(["--offline".to_owned()])
        .exec()
        .expect("cargo metadata works");
    metadata
        .workspace_packages()
        .into_iter()
        .map(|package| {
            let ours = package
                .dependencies
                .iter()
                .filter(|d| d.kind != DependencyKind::Development && d.path.is_some())
                .map(|d| d.name.to_string())
                .collect();
            (package.name.to_string(), ours)
        })
        .collect()
}

/// Dependencies that must not be.
pub(crate) fn forbidden_edges(graph: &Graph) -> Vec<String> {
    let mut offences = Vec::new();
    for (name, dependencies) in graph {
        for dependency in dependencies {
            let allowed = match allowed(name) {
                Some(list) => list.contains(&dependency.as_str()),
                // The binary, the tests, and the test kit, which knows every shared crate.
                None => name != "pavior-testkit" || !SERVICES.contains(&dependency.as_str()),
            };
            if !allowed {
                offences.push(format!("{name} → {dependency}"));
            }
        }
    }
    offences
}

/// Crates without inherited lints, or whose documentation does not begin their root file.
pub(crate) fn unkempt() -> Vec<String> {
    let mut offences = Vec::new();
    for folder in ["shared", "services"] {
        for entry in std::fs::read_dir(root().join(folder)).expect("the folder is there") {
            let dir = entry.expect("the folder can be read").path();
            let Ok(manifest) = std::fs::read_to_string(dir.join("Cargo.toml")) else { continue };
            if !manifest.contains("[lints]\nworkspace = true") {
                offences.push(format!("{}: lints", dir.display()));
            }
            let lib = std::fs::read_to_string(dir.join("src/lib.rs")).unwrap_or_default();
            if !lib.starts_with("//! ") || !lib.contains("Entry points:") && !lib.contains("Entry point:") {
                offences.push(format!("{}: crate documentation", dir.display()));
            }
        }
    }
    offences
}
