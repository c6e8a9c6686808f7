//! The directory of users and groups, for policy decisions.

use pavior_auth::Permit;
use pavior_resource::Error as ResourceError;

use super::App;
use crate::domain::OrganizationFields;
use crate::error::Error;
use crate::store::DirectoryRows;

/// The directory at a revision.
#[derive(Debug, Clone)]
pub(crate) struct Directory {
    pub(crate) revision: String,
    /// `None` when the caller has this revision already.
    pub(crate) rows: Option<DirectoryRows>,
}

impl App {
    /// Returns the directory, or nothing when the caller has it already.
    pub(crate) async fn directory(&self, permit: &Permit, known: &str) -> Result<Directory, Error> {
        let reader = self.read();
        // The revision is read first: a change between the two reads is then read again by the next call, never missed.
        let name = format!("organizations/{}", permit.organization());
        let revision = reader.directory_revision(permit).await?;
        let revision = revision.ok_or_else(|| ResourceError::not_found::<OrganizationFields>(&name))?;
        let rows = if revision == known { None } else { Some(reader.directory(permit).await?) };
        Ok(Directory { revision, rows })
    }
}
