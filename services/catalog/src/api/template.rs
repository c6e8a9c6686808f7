//! Golden paths on the wire, and the channels that point at their versions.

use pavior_auth::Permit;
use pavior_core::{Fault, ResourceName};
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{Answer, ChangeContext, Scope, Wire, end_times, name, read_request, respond, times};
use pavior_rpc::convert::to_timestamp;
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use crate::app::{App, MoveChannel, RemoveChannel};
use crate::domain::template::{Channel, channel_problem};
use crate::domain::version::is_version;
use crate::domain::{Stored, TemplateFields, VersionFields, Violations};

impl Wire for TemplateFields {
    type Message = pb::Template;

    fn encode(stored: &Stored<Self>) -> pb::Template {
        let (create_time, update_time) = times(stored);
        let (delete_time, purge_time) = end_times(stored);
        let Self { display_name, description, channels, latest_version } = stored.fields.clone();
        let name = stored.name();
        let version = |id: String| format!("{name}/versions/{id}");
        let channel = |channel: Channel| pb::template::Channel {
            template_version: version(channel.version),
            move_time: Some(to_timestamp(channel.move_time)),
            mover: channel.mover,
        };
        let channels = channels.into_iter().map(|(id, kept)| (id, channel(kept))).collect();
        let latest_version = if latest_version.is_empty() { latest_version } else { version(latest_version) };
        pb::Template {
            uid: stored.uid.to_string(),
            etag: stored.etag(),
            display_name,
            delete_time,
            purge_time,
            create_time,
            update_time,
            description,
            channels,
            latest_version,
            name,
        }
    }

    fn decode(
        message: &pb::Template,
        _scope: &Scope<'_, App>,
        before: Option<&Self>,
        _violations: &mut Violations,
    ) -> Option<Self> {
        let pb::Template {
            name: _,
            uid: _,
            etag: _,
            display_name,
            create_time: _,
            delete_time: _,
            purge_time: _,
            update_time: _,
            description,
            channels: _,
            latest_version: _,
        } = message;
        let TemplateFields { channels, latest_version, .. } = before.cloned().unwrap_or_default();
        Some(Self {
            display_name: display_name.clone(),
            description: description.clone(),
            channels,
            latest_version,
        })
    }
}

impl Api {
    pub(super) async fn move_channel(
        &self,
        request: Request<pb::MoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        let (permit, request) = read_request(request)?;
        let action = pb::MoveTemplateChannelRequest::ACTION;
        let context = ChangeContext::of(&permit, &request);
        let pb::MoveTemplateChannelRequest { name, channel_id, template_version, etag, .. } = request;
        let (template, channel) = channel_of(&permit, &name, channel_id, action)?;
        let version = of_template(&permit, &template, &template_version, action)?;
        let command = MoveChannel { template, channel, version, etag };
        respond(self.app.move_channel(&context, TemplateFields::encode, command).await)
    }

    pub(super) async fn remove_channel(
        &self,
        request: Request<pb::RemoveTemplateChannelRequest>,
    ) -> Answer<pb::Template> {
        let (permit, request) = read_request(request)?;
        let action = pb::RemoveTemplateChannelRequest::ACTION;
        let context = ChangeContext::of(&permit, &request);
        let pb::RemoveTemplateChannelRequest { name, channel_id, etag, allow_missing, .. } = request;
        let (template, channel) = channel_of(&permit, &name, channel_id, action)?;
        let command = RemoveChannel { template, channel, etag, allow_missing };
        respond(self.app.remove_channel(&context, TemplateFields::encode, command).await)
    }
}

/// The ids of a template and of one of its channels.
fn channel_of(
    permit: &Permit,
    template: &str,
    channel: String,
    action: &str,
) -> Result<(String, String), Problem> {
    let template = name::<TemplateFields>(permit, "name", template, action).map_err(Problem::from)?.id;
    channel_problem(&channel)
        .map_err(|problem| Problem::invalid_field("channel_id", Fault::Pattern, problem))?;
    Ok((template, channel))
}

/// The id of a version of this template, from its name; the name of a channel is refused.
fn of_template(permit: &Permit, template: &str, version: &str, action: &str) -> Result<String, Problem> {
    const FIELD: &str = "template_version";
    // It is named by the request, not worked on: one of another organization is a wrong value, and no denial.
    if ResourceName::parse(version).is_ok_and(|name| name.organization() != permit.organization()) {
        return Err(Problem::invalid_field(
            FIELD,
            Fault::Conflict,
            format!("`{version}` is not a version of `{template}`"),
        ));
    }
    let named = name::<VersionFields>(permit, FIELD, version, action).map_err(Problem::from)?;
    if named.parent != template {
        return Err(Problem::invalid_field(
            FIELD,
            Fault::Conflict,
            format!("`{version}` is not a version of `{template}`"),
        ));
    }
    if !is_version(&named.id) {
        return Err(Problem::invalid_field(
            FIELD,
            Fault::Pattern,
            format!("`{}` is not a version such as `1.2.0`", named.id),
        ));
    }
    Ok(named.id)
}
