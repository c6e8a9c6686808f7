//! Templates, and the reading of their versions.

use pavior_auth::Permit;

use super::crud::{LOOK_FOR, Rules};
use super::{App, Work};
use crate::domain::template::LATEST;
use crate::domain::{Resource as _, Stored, TemplateFields, VersionFields, version};
use crate::error::Error;

impl Rules for TemplateFields {
    const FIELD: &'static str = "template";

    async fn admit(
        work: &Work<'_>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        if before.is_some_and(|before| before.fields.channels == after.fields.channels) {
            return Ok(());
        }
        let channels = &after.fields.channels;
        let versions: Vec<String> = channels.values().cloned().collect();
        let exist = work.tx.existing_versions(&work.permit, &after.id, &versions).await?;
        let missing: Vec<_> = channels
            .iter()
            .filter(|(_, version)| !exist.contains(*version))
            .map(|(channel, version)| {
                (format!("template.channels.{channel}"), format!("{}/versions/{version}", after.name()))
            })
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(Error::ReferenceNotFound(missing)) }
    }

    async fn dependents(work: &Work<'_>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let versions = work.tx.ids_below::<VersionFields>(&work.permit, &stored.id, LOOK_FOR).await?;
        Ok(versions.into_iter().map(|version| format!("{}/versions/{version}", stored.name())).collect())
    }
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
        let not_found = || Error::NotFound { kind: VersionFields::SINGULAR, name: name.to_owned() };
        if version::is_version(id) {
            return self.get::<VersionFields>(permit, template, id, name).await;
        }
        let found = self.store.read().find::<TemplateFields>(permit, "", template).await?;
        let fields = found.ok_or_else(not_found)?.fields;
        let resolved = match id {
            LATEST => Some(&fields.latest_version).filter(|version| !version.is_empty()),
            channel => fields.channels.get(channel),
        };
        let resolved = resolved.ok_or_else(not_found)?;
        self.get::<VersionFields>(permit, template, resolved, name).await
    }
}
