//! Reading the documents of an import.

use std::collections::BTreeMap;

use pavior_core::Fault;
use pavior_rpc::problem::Problem;

use crate::domain::backstage::{self, ImportedEntity};
use crate::domain::reference::EntityKey;
use crate::domain::{Violation, Violations, violation_path};
use crate::error::Error;

/// Most violations that an import tells at once.
pub(super) const MAX_VIOLATIONS: usize = 100;

/// A text with documents, and its origin.
#[derive(Debug, Clone)]
pub(crate) struct ImportDocument {
    pub(crate) origin: String,
    pub(crate) content: String,
}

/// What an import did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct ImportCounts {
    pub(crate) created: usize,
    pub(crate) updated: usize,
    pub(crate) unchanged: usize,
}

/// A document that was read, with its place in the request.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) path: String,
    pub(super) imported: backstage::Imported,
}

/// The entities among what was read, with the places of their documents.
pub(super) fn entities(read: &[Read]) -> Vec<(&str, &ImportedEntity)> {
    let entities = read.iter().filter_map(|Read { path, imported }| match imported {
        backstage::Imported::Entity(entity) => Some((path.as_str(), &**entity)),
        backstage::Imported::Group(_) | backstage::Imported::User(_) => None,
    });
    entities.collect()
}

/// Reads documents on a thread of its own: megabytes of YAML would block an executor thread.
pub(super) async fn read_blocking(
    documents: Vec<ImportDocument>,
    organization: &str,
) -> Result<Vec<Read>, Error> {
    let organization = organization.to_owned();
    let read = tokio::task::spawn_blocking(move || read_all(&documents, &organization)).await;
    read.map_err(|error| pavior_resource::Error::Problem(Problem::internal(error)))?
}

fn read_all(documents: &[ImportDocument], organization: &str) -> Result<Vec<Read>, Error> {
    let mut violations = Violations::new();
    let mut found = Vec::new();
    let mut places: BTreeMap<EntityKey, String> = BTreeMap::new();
    for (index, document) in documents.iter().enumerate() {
        let at = format!("documents[{index}].content");
        if document.content.contains('\0') {
            violations.add(at, Fault::Pattern, "must not hold the character NUL");
            continue;
        }
        let parsed = match pavior_expr::yaml::parse_documents(&document.content) {
            Ok(parsed) => parsed,
            Err(error) => {
                violations.add(at, Fault::Syntax, format!("is not valid YAML: {error}"));
                continue;
            }
        };
        let several = parsed.len() > 1;
        for (number, value) in parsed.iter().enumerate() {
            let path = if several { format!("{at}[{number}]") } else { at.clone() };
            match backstage::read(value, organization, &document.origin) {
                Err(problems) => violations.extend_under(&path, problems),
                Ok(imported) => {
                    if let Some(first) = places.insert(imported.key(), path.clone()) {
                        let message = format!("is about the same as `{first}`");
                        violations.add(violation_path(&path, "metadata.name"), Fault::Duplicate, message);
                    }
                    found.push(Read { path, imported });
                }
            }
        }
        if violations.len() >= MAX_VIOLATIONS {
            break;
        }
    }
    violations.into_result().map_err(documents_invalid)?;
    Ok(found)
}

pub(super) fn documents_invalid(violations: Violations) -> Error {
    let mut violations: Vec<Violation> = violations.into_vec();
    violations.truncate(MAX_VIOLATIONS);
    Error::Document(violations)
}
