//! Publishing a version of a golden path.

use std::collections::{BTreeMap, BTreeSet};

use super::crud::event;
use super::{Answer, App, Call, Done, Encode, View, Work};
use crate::domain::resource_type::properties;
use crate::domain::template::{TypeContract, channel_problem, parse};
use crate::domain::{
    Resource as _, ResourceTypeFields, Stored, TemplateFields, VersionFields, Violations, version,
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
    pub(crate) async fn publish(
        &self,
        call: Call,
        encode: Encode<View<VersionFields>>,
        command: Publish,
    ) -> Result<Answer<View<VersionFields>>, Error> {
        self.change(call, encode, command, |work, command| {
            Box::pin(async move {
                let done = publish(&work, &command).await?;
                Ok((work, done))
            })
        })
        .await
    }
}

async fn publish(work: &Work<'_>, command: &Publish) -> Result<Done<View<VersionFields>>, Error> {
    let Publish { template, document, channels } = command;
    check_channels(channels)?;
    let found = work.tx.find::<TemplateFields>(&work.permit, "", template).await?;
    let before = found.ok_or_else(|| Error::NotFound {
        kind: TemplateFields::SINGULAR,
        name: TemplateFields::default().name(work.permit.organization(), template),
    })?;
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
    let mut events = Vec::new();
    let stored = match work.tx.find::<VersionFields>(&work.permit, template, &id).await? {
        Some(existing) if existing.fields.digest == digest => existing,
        Some(existing) => {
            let digest = existing.fields.digest.clone();
            return Err(Error::VersionImmutable { name: existing.name(), digest });
        }
        None => {
            let stored = Stored::new(organization, &id, work.ids.uuid(), work.now, fields);
            work.tx.insert(&work.permit, &stored).await?;
            let used: BTreeSet<String> = types.keys().cloned().collect();
            work.tx.insert_version_types(&work.permit, &stored, &used).await?;
            events.push(event(None, Some(&stored)));
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
        changed.check(organization, template).into_result().map_err(|v| Error::under("", v))?;
        let after = before.next(work.now, changed);
        work.tx.update(&work.permit, &after).await?;
        events.push(event(Some(&before), Some(&after)));
    }
    Ok(Done { value: View::plain(stored), events })
}

async fn published_before(
    work: &Work<'_>,
    template: &str,
    digest: &str,
    version: &str,
) -> Result<Option<Stored<VersionFields>>, Error> {
    let found = work.tx.find::<VersionFields>(&work.permit, template, version).await?;
    Ok(found.filter(|found| found.fields.digest == digest))
}

fn check_channels(channels: &[String]) -> Result<(), Error> {
    let mut violations = Violations::new();
    for (index, channel) in channels.iter().enumerate() {
        violations.check(&format!("channels.{index}"), channel_problem(channel));
    }
    violations.into_result().map_err(|v| Error::under("", v))
}

/// The types that a document names, of those that exist.
async fn contracts(
    work: &Work<'_>,
    types: BTreeSet<String>,
) -> Result<BTreeMap<String, TypeContract>, Error> {
    let ids: Vec<String> = types.into_iter().filter(|id| pavior_core::validate_id(id).is_ok()).collect();
    let found = work.tx.find_many::<ResourceTypeFields>(&work.permit, "", &ids).await?;
    let contract = |found: Stored<ResourceTypeFields>| {
        let outputs = properties(&found.fields.output_schema);
        let outputs = outputs.map(|names| names.into_iter().map(str::to_owned).collect());
        (found.id, TypeContract { input_schema: found.fields.input_schema, outputs })
    };
    Ok(found.into_iter().map(contract).collect())
}
