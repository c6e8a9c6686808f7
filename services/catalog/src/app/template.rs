//! Golden paths, and the channels that point at their versions.

use pavior_core::Fault;
use pavior_resource::crud::{self, LOOK_FOR};
use pavior_resource::{ChangeContext, Done, Error as ResourceError, Rules, Update, Violation, Work, run};
use prost::Message;

use super::App;
use crate::domain::template::{Channel, MAX_CHANNELS};
use crate::domain::{Fields as _, Stored, TemplateFields, VersionFields};
use crate::error::Error;

impl Rules for TemplateFields {
    type Service = App;

    async fn dependents(work: &Work<'_, App>, stored: &Stored<Self>) -> Result<Vec<String>, Error> {
        let versions = work.rows().ids_below::<VersionFields>(work.permit, &stored.id, LOOK_FOR).await?;
        Ok(versions.into_iter().map(|version| format!("{}/versions/{version}", stored.name())).collect())
    }
}

/// A channel and the version that it is to point at.
#[derive(Debug, Clone)]
pub(crate) struct MoveChannel {
    pub(crate) template: String,
    pub(crate) channel: String,
    /// The id of the version.
    pub(crate) version: String,
    pub(crate) etag: String,
}

/// A channel to remove.
#[derive(Debug, Clone)]
pub(crate) struct RemoveChannel {
    pub(crate) template: String,
    pub(crate) channel: String,
    pub(crate) etag: String,
    /// A channel that does not exist is no error.
    pub(crate) allow_missing: bool,
}

impl App {
    /// Points a channel at a version.
    pub(crate) async fn move_channel<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<TemplateFields>) -> M,
        command: MoveChannel,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(move_channel(work, command))).await
    }

    /// Removes a channel.
    pub(crate) async fn remove_channel<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&Stored<TemplateFields>) -> M,
        command: RemoveChannel,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(remove_channel(work, command))).await
    }
}

/// The resource name of a template.
pub(super) fn name_of(work: &Work<'_, App>, template: &str) -> String {
    TemplateFields::default().name(work.permit.organization(), template)
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
            // Unchanged: the time and the mover of the first move are kept.
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
