//! Versions of golden paths on the wire.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::{Answer, ChangeContext, Named, Scope, Wire, get_with, name, read_request, respond};
use pavior_rpc::convert::to_timestamp;
use pavior_rpc::problem::Problem;
use tonic::Request;

use super::Api;
use super::convert::to_pb_struct;
use crate::app::{App, CreateVersion};
use crate::domain::{Stored, TemplateFields, VersionFields, Violations};
use crate::error::Error;

impl Wire for VersionFields {
    type Message = pb::TemplateVersion;

    fn encode(stored: &Stored<Self>) -> pb::TemplateVersion {
        let Self { template: _, document, digest, parameter_schema, environment_classes, content } =
            stored.fields.clone();
        pb::TemplateVersion {
            name: stored.name(),
            uid: stored.uid.to_string(),
            document,
            digest,
            parameter_schema_json: parameter_schema.text(),
            environment_class_ids: environment_classes,
            content: to_pb_struct(&content),
            create_time: Some(to_timestamp(stored.create_time)),
        }
    }

    fn decode(
        _message: &pb::TemplateVersion,
        _scope: &Scope<'_, App>,
        _before: Option<&Self>,
        violations: &mut Violations,
    ) -> Option<Self> {
        violations.add("", Fault::Conflict, "a version is read from its document");
        None
    }
}

impl Api {
    pub(super) async fn version(
        &self,
        request: Request<pb::GetTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        type Asked = pb::GetTemplateVersionRequest;
        get_with(request, async |permit: &Permit, request: &Asked| {
            let Named { name, parent, id } =
                name::<VersionFields>(permit, "name", &request.name, Asked::ACTION)?;
            let stored = self.app.get_version(permit, &parent, &id, &name).await?;
            Ok::<_, Error>(VersionFields::encode(&stored))
        })
        .await
    }

    pub(super) async fn create_version(
        &self,
        request: Request<pb::CreateTemplateVersionRequest>,
    ) -> Answer<pb::TemplateVersion> {
        let (permit, request) = read_request(request)?;
        let action = pb::CreateTemplateVersionRequest::ACTION;
        let named = name::<TemplateFields>(&permit, "parent", &request.parent, action);
        let template = named.map_err(Problem::from)?.id;
        let context = ChangeContext::of(&permit, &request);
        let pb::CreateTemplateVersionRequest { template_version_id: id, template_version, .. } = request;
        let document = template_version.unwrap_or_default().document;
        let command = CreateVersion { template, id, document };
        respond(self.app.create_version(&context, VersionFields::encode, command).await)
    }
}
