//! Templates, and the reading of their versions.

use pavior_auth::Permit;
use pavior_resource::crud::{self, LOOK_FOR};
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::App;
use crate::domain::template::LATEST;
use crate::domain::{Stored, TemplateFields, VersionFields, version};
use crate::error::Error;

impl Rules for TemplateFields {
    type Service = App;

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let versions = work.rows().ids_below::<VersionFields>(work.permit, &stored.id, LOOK_FOR).await?;
        Ok(versions.into_iter().map(|version| format!("{}/versions/{version}", stored.name())).collect())
    }
}

impl Rules for VersionFields {
    type Service = App;
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
}
