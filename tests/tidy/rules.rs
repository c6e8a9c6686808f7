//! Rules over the text of the sources.

use pavior_proto::DESCRIPTORS;
use prost_reflect::DescriptorPool;

use crate::sources::Source;

/// True when `word` stands in `line` as a path's first segment, as in `use tonic;` or `tonic::Status`.
fn names(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line.get(..at).and_then(|s| s.chars().next_back());
        let after = line.get(at + word.len()..).unwrap_or_default();
        !before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':' || c == '"')
            && (after.starts_with("::") || (line.trim_start().starts_with("use ") && after.starts_with(';')))
    })
}

fn offence(source: &Source, number: usize, what: &str) -> String {
    format!("{}:{number}: {what}", source.path)
}

/// The layer of a service's file: the first folder below `src`.
fn layer(path: &str) -> Option<(&str, &str)> {
    let rest = path.strip_prefix("services/")?;
    let (service, rest) = rest.split_once("/src/")?;
    let folder = rest.split_once('/').map_or_else(|| rest.trim_end_matches(".rs"), |(folder, _)| folder);
    Some((service, folder))
}

/// Who may import whom within a service, and where the wire and the database may be named.
pub(crate) fn layers(source: &Source) -> Vec<String> {
    if source.is_test() {
        return Vec::new();
    }
    let mut offences = Vec::new();
    for (number, line) in source.code() {
        let mut forbid = |words: &[&str], why: &str| {
            if words.iter().any(|word| names(line, word)) {
                offences.push(offence(source, number, why));
            }
        };
        match layer(&source.path) {
            Some((_, "domain")) => {
                forbid(&["tonic", "prost", "prost_types", "sea_orm", "tokio", "serde"], "domain is pure");
                forbid(&["crate::store", "crate::api", "crate::app"], "domain knows no other layer");
            }
            Some((_, "api")) => forbid(&["crate::store", "sea_orm"], "the wire side does not know the store"),
            Some((_, "store")) => {
                forbid(
                    &["tonic", "prost", "prost_types", "pavior_proto", "pavior_rpc"],
                    "the store does not know the wire",
                );
            }
            Some(("gateway" | "portal", _)) => forbid(&["sea_orm", "pavior_store"], "it keeps no data"),
            Some(("pavior", _)) => forbid(&["sea_orm"], "the database belongs to the stores"),
            Some(("drivers", "database")) => {}
            Some((_, _)) => {
                forbid(&["sea_orm"], "the database belongs to the store");
                if line.contains("tonic::Status") {
                    offences.push(offence(source, number, "a gRPC status belongs to the wire side"));
                }
            }
            None => {
                let stores = ["shared/store/", "shared/resource/src/table/", "shared/resource/src/table.rs"];
                let is_store = stores.iter().any(|store| source.path.starts_with(store));
                if !is_store {
                    forbid(&["sea_orm"], "the database belongs to the store");
                }
            }
        }
    }
    offences
}

/// The wall clock, random ids and the environment come from `core` and `runtime`; the command line may read its own.
pub(crate) fn ambient(source: &Source) -> Vec<String> {
    let exempt = ["shared/core/", "shared/runtime/", "services/pavior/", "shared/proto/build/"];
    if source.is_test() || exempt.iter().any(|prefix| source.path.starts_with(prefix)) {
        return Vec::new();
    }
    let forbidden = [
        "SystemTime::now",
        "OffsetDateTime::now",
        "UtcDateTime::now",
        "Uuid::now_v7",
        "Uuid::new_v4",
        "env::var",
        "env::vars",
    ];
    source
        .code()
        .flat_map(|(number, line)| {
            forbidden
                .iter()
                .filter(move |word| line.contains(**word))
                .map(move |word| offence(source, number, word))
        })
        .collect()
}

/// Statics whose value can change after their first use.
pub(crate) fn mutable_statics(source: &Source) -> Vec<String> {
    source
        .code()
        .filter(|(_, line)| {
            let line = line.trim_start();
            (line.starts_with("static ")
                || line.starts_with("pub static ")
                || line.starts_with("pub(crate) static "))
                && ["Mutex<", "RwLock<", "RefCell<", "Cell<", "Atomic", "ArcSwap"]
                    .iter()
                    .any(|t| line.contains(t))
        })
        .map(|(number, line)| offence(source, number, line.trim()))
        .collect()
}

/// Markers of unfinished work, and tests that do not run.
pub(crate) fn unfinished(source: &Source) -> Vec<String> {
    if source.path.starts_with("tests/tidy/") {
        return Vec::new();
    }
    let markers = ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"];
    source
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| markers.iter().any(|marker| line.contains(marker)))
        .map(|(number, line)| offence(source, number + 1, line.trim()))
        .collect()
}

/// Files in which nobody would find anything.
pub(crate) fn too_long(source: &Source) -> Vec<String> {
    let lines = source.text.lines().count();
    if lines > 600 { vec![format!("{}: {lines}", source.path)] } else { Vec::new() }
}

/// RPCs of ours without the governance option.
pub(crate) fn ungoverned() -> Vec<String> {
    let pool = DescriptorPool::decode(DESCRIPTORS).expect("the descriptors decode");
    let rule = pool.get_extension_by_name("pavior.governance.v1.rule").expect("the option is there");
    pool.services()
        .filter(|service| {
            service.package_name().starts_with("pavior.") && service.package_name() != "pavior.driver.v1"
        })
        .flat_map(|service| service.methods().collect::<Vec<_>>())
        .filter(|method| !method.options().has_extension(&rule))
        .map(|method| method.full_name().to_owned())
        .collect()
}
