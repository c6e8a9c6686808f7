//! Versions of golden paths, and the channels that point at them.

use std::collections::{BTreeMap, BTreeSet};

use pavior_core::Fault;
use pavior_resource::{
    AuditEntry, ChangeContext, Done, Error as ResourceError, Update, Violation, Work, crud, run,
};
use prost::Message;

use super::{App, db};
use crate::domain::resource_type::properties;
use crate::domain::template::{Channel, MAX_CHANNELS, TypeContract, parse};
use crate::domain::{Fields as _, ResourceTypeFields, Stored, TemplateFields, VersionFields, version};
use crate::error::Error;

/// The field of a request that holds the document.
const DOCUMENT: &str = "template_version";

/// A version to create.
#[derive(Debug, Clone)]
pub(crate) struct CreateVersion {
    pub(crate) template: String,
    /// Empty for that of the document.
    pub(crate) id: String,
    pub(crate) document: String,
}

/// Where a channel is to point.
#[derive(Debug, Clone)]
pub(crate) struct MoveChannel {
    pub(crate) template: String,
    pub(crate) channel: String,
    /// The id of the version.
    pub(crate) version: String,
    pub(crate) etag: String,
}

/// Which channel is to go.
#[derive(Debug, Clone)]
pub(crate) struct RemoveChannel {
    pub(crate) template: String,
    pub(crate) channel: String,
    pub(crate) etag: String,
    /// That it is not there is as good.
    pub(crate) allow_missing: bool,
}

impl App {
    /// Creates a version. The same document again changes nothing.
    pub(crate) async fn create_version<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<VersionFields>) -> M,
        command: CreateVersion,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(create_version(work, command))).await
    }

    /// Points a channel at a version.
    pub(crate) async fn move_channel<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<TemplateFields>) -> M,
        command: MoveChannel,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(move_channel(work, command))).await
    }

    /// Takes a channel away.
    pub(crate) async fn remove_channel<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<TemplateFields>) -> M,
        command: RemoveChannel,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(remove_channel(work, command))).await
    }
}

fn name_of(work: &Work<'_, App>, template: &str) -> String {
    TemplateFields::default().name(work.permit.organization(), template)
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
    // Types may have changed since; a document that was accepted under its version stays accepted.
    let (id, fields) = match checked {
        Ok(checked) => checked,
        Err(violations) => match made_before(work, template, &digest, &parsed.version()).await? {
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

async fn move_channel(
    work: &Work<'_, App>,
    command: &MoveChannel,
) -> Result<Done<Stored<TemplateFields>>, Error> {
    let MoveChannel { template, channel, version, etag } = command;
    let name = name_of(work, template);
    if work.find::<VersionFields>(template, version).await?.is_none() {
        let missing = format!("{name}/versions/{version}");
        return Err(ResourceError::ReferenceNotFound(vec![("template_version".to_owned(), missing)]).into());
    }
    let update = Update { parent: String::new(), id: template.clone(), name, etag: etag.clone() };
    crud::update(work, &update, |stored: &Stored<TemplateFields>| {
        let mut fields = stored.fields.clone();
        match fields.channels.get(channel) {
            // It was moved there by whoever did so first.
            Some(there) if there.version == *version => return Ok(fields),
            None if fields.channels.len() >= MAX_CHANNELS => {
                let message =
                    format!("would be one more than the {MAX_CHANNELS} that a golden path may have");
                let path = "channel_id".to_owned();
                return Err(
                    ResourceError::Invalid(vec![Violation { path, fault: Fault::TooMany, message }]).into()
                );
            }
            Some(_) | None => {}
        }
        let mover = work.permit.principal().name.clone();
        let moved = Channel { version: version.clone(), move_time: work.now, mover };
        fields.channels.insert(channel.clone(), moved);
        Ok(fields)
    })
    .await
}

async fn remove_channel(
    work: &Work<'_, App>,
    command: &RemoveChannel,
) -> Result<Done<Stored<TemplateFields>>, Error> {
    let RemoveChannel { template, channel, etag, allow_missing } = command;
    let name = name_of(work, template);
    let update = Update { parent: String::new(), id: template.clone(), name, etag: etag.clone() };
    crud::update(work, &update, |stored: &Stored<TemplateFields>| {
        let mut fields = stored.fields.clone();
        match fields.channels.remove(channel) {
            Some(_) => Ok(fields),
            None if *allow_missing => Ok(fields),
            None => Err(Error::NoChannel {
                template: stored.name(),
                channel: channel.clone(),
                channels: fields.channels.into_keys().collect(),
            }),
        }
    })
    .await
}

/// What is wrong with the document of a request.
fn refused(violations: Vec<Violation>) -> Error {
    let under = violations
        .into_iter()
        .map(|violation| Violation { path: format!("{DOCUMENT}.{}", violation.path), ..violation });
    Error::Document(under.collect())
}

async fn made_before(
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
