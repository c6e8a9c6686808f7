//! Versions of golden paths.

use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_resource::{
    AuditEntry, ChangeContext, Done, Error as ResourceError, Rules, Violation, Work, crud, run,
};
use prost::Message;

use super::template::name_of;
use super::{App, db};
use crate::domain::resource_type::properties;
use crate::domain::template::{LATEST, TypeContract, parse};
use crate::domain::{ResourceTypeFields, Stored, TemplateFields, VersionFields, version};
use crate::error::Error;

/// The field of a request that holds the document.
const DOCUMENT: &str = "template_version";

impl Rules for VersionFields {
    type Service = App;
}

/// A version to create.
#[derive(Debug, Clone)]
pub(crate) struct CreateVersion {
    pub(crate) template: String,
    /// Empty for that of the document.
    pub(crate) id: String,
    pub(crate) document: String,
}

impl App {
    /// Returns a version by its number, by the name of a channel, or by `latest`.
    pub(crate) async fn get_version(
        &self,
        permit: &Permit,
        template: &str,
        id: &str,
        name: &str,
    ) -> Result<Stored<VersionFields>, Error> {
        let not_found = || ResourceError::not_found::<VersionFields>(name);
        if version::is_version(id) {
            return Ok(crud::get(self, permit, template, id, name).await?);
        }
        let found = self.read().find::<TemplateFields>(permit, "", template).await?;
        let fields = found.ok_or_else(not_found)?.fields;
        let resolved = match id {
            LATEST => Some(&fields.latest_version).filter(|version| !version.is_empty()),
            channel => fields.channels.get(channel).map(|channel| &channel.version),
        };
        let resolved = resolved.ok_or_else(not_found)?;
        Ok(crud::get(self, permit, template, resolved, name).await?)
    }

    /// Creates a version. The same document again changes nothing.
    pub(crate) async fn create_version<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<VersionFields>) -> M,
        command: CreateVersion,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(create_version(work, command))).await
    }
}

async fn create_version(
    work: &Work<'_, App>,
    command: &CreateVersion,
) -> Result<Done<Stored<VersionFields>>, Error> {
    let CreateVersion { template, id: wanted, document } = command;
    let found = work.find::<TemplateFields>("", template).await?;
    let name = name_of(work, template);
    let before = found.ok_or_else(|| ResourceError::not_found::<TemplateFields>(&name))?;
    let parsed = parse(document).map_err(|v| refused(v.into_vec()))?;
    let types = contracts(work, parsed.types()).await?;
    let checked = parsed.check(template, &types);
    let digest = pavior_core::digest::sha256_digest(document.as_bytes());
    // Types may have changed since; a document that was published under this version is accepted again.
    let (id, fields) = match checked {
        Ok(checked) => checked,
        Err(violations) => match published_before(work, template, &digest, &parsed.version()).await? {
            Some(version) => (version.id, version.fields),
            None => return Err(refused(violations.into_vec())),
        },
    };
    if !wanted.is_empty() && *wanted != id {
        let message = format!("is not the version of the document, `{id}`");
        let path = "template_version_id".to_owned();
        return Err(ResourceError::Invalid(vec![Violation { path, fault: Fault::Conflict, message }]).into());
    }
    let stored = match work.find::<VersionFields>(template, &id).await? {
        Some(existing) if existing.fields.digest == digest => return Ok(Done::unchanged(existing)),
        Some(existing) => {
            let digest = existing.fields.digest.clone();
            return Err(Error::VersionImmutable { name: existing.name(), digest });
        }
        None => Stored::new(work.permit.organization(), &id, work.uuid(), work.now, fields),
    };
    work.rows().insert(work.permit, &stored).await?;
    let used: BTreeSet<String> = types.keys().cloned().collect();
    db(work).insert_version_types(work.permit, &stored, &used).await?;
    let mut entries = vec![AuditEntry::of(None, Some(&stored))];
    let known = [before.fields.latest_version.as_str(), &id].into_iter().filter(|v| !v.is_empty());
    let latest_version = version::latest(known).unwrap_or_default().to_owned();
    if latest_version != before.fields.latest_version {
        let after = before.next(work.now, TemplateFields { latest_version, ..before.fields.clone() });
        work.rows().update(work.permit, &after).await?;
        entries.push(AuditEntry::of(Some(&before), Some(&after)));
    }
    Ok(Done { value: stored, entries })
}

/// What is wrong with the document of a request.
fn refused(violations: Vec<Violation>) -> Error {
    let under = violations
        .into_iter()
        .map(|violation| Violation { path: format!("{DOCUMENT}.{}", violation.path), ..violation });
    Error::Document(under.collect())
}

async fn published_before(
    work: &Work<'_, App>,
    template: &str,
    digest: &str,
    version: &str,
) -> Result<Option<Stored<VersionFields>>, Error> {
    let found = work.find::<VersionFields>(template, version).await?;
    Ok(found.filter(|found| found.fields.digest == digest))
}

/// The types that a document names, of those that exist.
async fn contracts(
    work: &Work<'_, App>,
    types: BTreeSet<String>,
) -> Result<BTreeMap<String, TypeContract>, Error> {
    let ids: Vec<String> = types.into_iter().filter(|id| pavior_core::validate_id(id).is_ok()).collect();
    let found = work.rows().find_many::<ResourceTypeFields>(work.permit, "", &ids).await?;
    let contract = |found: Stored<ResourceTypeFields>| {
        let outputs = properties(found.fields.output_schema.value());
        let outputs = outputs.map(|names| names.into_iter().map(str::to_owned).collect());
        (found.id, TypeContract { input_schema: found.fields.input_schema.value().clone(), outputs })
    };
    Ok(found.into_iter().map(contract).collect())
}
