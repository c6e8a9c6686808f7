//! Publishing a version of a golden path.

use std::collections::{BTreeMap, BTreeSet};

use pavior_resource::{AuditEntry, ChangeContext, Done, Error as ResourceError, Work, run};
use prost::Message;

use super::{App, db};
use crate::domain::resource_type::properties;
use crate::domain::template::{TypeContract, channel_problem, parse};
use crate::domain::{
    Fields as _, ResourceTypeFields, Stored, TemplateFields, VersionFields, Violations, version,
};
use crate::error::Error;

/// What to publish.
#[derive(Debug, Clone)]
pub(crate) struct Publish {
    pub(crate) template: String,
    pub(crate) document: String,
    pub(crate) channels: Vec<String>,
}

impl App {
    /// Publishes a version. The same document again changes nothing but channels.
    pub(crate) async fn publish<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<VersionFields>) -> M,
        command: Publish,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(publish(work, command))).await
    }
}

async fn publish(work: &Work<'_, App>, command: &Publish) -> Result<Done<Stored<VersionFields>>, Error> {
    let Publish { template, document, channels } = command;
    check_channels(channels)?;
    let found = work.find::<TemplateFields>("", template).await?;
    let name = TemplateFields::default().name(work.permit.organization(), template);
    let before = found.ok_or_else(|| ResourceError::not_found::<TemplateFields>(&name))?;
    let parsed = parse(document).map_err(|v| Error::Document(v.into_vec()))?;
    let types = contracts(work, parsed.types()).await?;
    let checked = parsed.check(template, &types);
    let digest = pavior_core::digest::sha256_hex(document.as_bytes());
    // Types may have changed since; a document that was accepted under its version stays accepted.
    let (id, fields) = match checked {
        Ok(checked) => checked,
        Err(violations) => match published_before(work, template, &digest, &parsed.version()).await? {
            Some(version) => (version.id, version.fields),
            None => return Err(Error::Document(violations.into_vec())),
        },
    };
    let organization = work.permit.organization();
    let mut entries = Vec::new();
    let stored = match work.find::<VersionFields>(template, &id).await? {
        Some(existing) if existing.fields.digest == digest => existing,
        Some(existing) => {
            let digest = existing.fields.digest.clone();
            return Err(Error::VersionImmutable { name: existing.name(), digest });
        }
        None => {
            let stored = Stored::new(organization, &id, work.uuid(), work.now, fields);
            work.rows().insert(work.permit, &stored).await?;
            let used: BTreeSet<String> = types.keys().cloned().collect();
            db(work).insert_version_types(work.permit, &stored, &used).await?;
            entries.push(AuditEntry::of(None, Some(&stored)));
            stored
        }
    };
    let mut changed = before.fields.clone();
    for channel in channels {
        changed.channels.insert(channel.clone(), id.clone());
    }
    let newest =
        version::latest([before.fields.latest_version.as_str(), &id].into_iter().filter(|v| !v.is_empty()));
    changed.latest_version = newest.unwrap_or_default().to_owned();
    if changed != before.fields {
        changed.check(organization, template).into_result().map_err(|v| ResourceError::under("", v))?;
        let after = before.next(work.now, changed);
        work.rows().update(work.permit, &after).await?;
        entries.push(AuditEntry::of(Some(&before), Some(&after)));
    }
    Ok(Done { value: stored, entries })
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

fn check_channels(channels: &[String]) -> Result<(), Error> {
    let mut violations = Violations::new();
    for (index, channel) in channels.iter().enumerate() {
        violations.check(&format!("channels.{index}"), channel_problem(channel));
    }
    Ok(violations.into_result().map_err(|v| ResourceError::under("", v))?)
}

/// The types that a document names, of those that exist.
async fn contracts(
    work: &Work<'_, App>,
    types: BTreeSet<String>,
) -> Result<BTreeMap<String, TypeContract>, Error> {
    let ids: Vec<String> = types.into_iter().filter(|id| pavior_core::validate_id(id).is_ok()).collect();
    let found = work.rows().find_many::<ResourceTypeFields>(work.permit, "", &ids).await?;
    let contract = |found: Stored<ResourceTypeFields>| {
        let outputs = properties(&found.fields.output_schema);
        let outputs = outputs.map(|names| names.into_iter().map(str::to_owned).collect());
        (found.id, TypeContract { input_schema: found.fields.input_schema, outputs })
    };
    Ok(found.into_iter().map(contract).collect())
}
