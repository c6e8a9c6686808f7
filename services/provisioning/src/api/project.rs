//! What is said about a project, changed without an operation.

use pavior_auth::permit;
use pavior_core::Fault;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::ChangeContext;
use pavior_rpc::{Violations, mask, validate};
use prost_types::FieldMask;
use tonic::Request;

use super::{Answered, Api, convert, respond};
use crate::app::App;
use crate::app::project::{Description, check_labels};
use crate::domain::names;
use crate::domain::project::Project;
use crate::error::Result;

/// What a project keeps from its creation on, and where else it is said.
const KEPT: [(&str, &str); 3] = [
    ("owner", "is set by CreateProject, and a project keeps it"),
    ("template_version", "is set by CreateProject, and a project keeps it"),
    ("parameters", "are set by CreateProject; UpdateEnvironment changes those of an environment"),
];

impl Api {
    pub(super) async fn describe_project(
        &self,
        request: Request<pb::UpdateProjectRequest>,
    ) -> Answered<pb::Project> {
        type Asked = pb::UpdateProjectRequest;
        let (permit, request) = (permit(&request)?, request.into_inner());
        let context = ChangeContext::of(&permit, &request);
        validate::request(&request)?;
        let Asked { project, update_mask, .. } = request;
        let patch = project.unwrap_or_default();
        let described = async {
            App::name(&permit, Asked::ACTION, "project.name", &patch.name, names::PROJECT)?;
            // What is wrong with the mask is said whether the project exists or not.
            mask::Mask::resolve(update_mask.as_ref(), &patch)?;
            refuse_kept(update_mask.as_ref())?;
            let (name, etag) = (patch.name.clone(), patch.etag.clone());
            let merge = move |before: &Project| merged(before, &patch, update_mask.as_ref());
            let encode = |project: &Project| convert::project(project.clone());
            self.app.describe_project(&context, encode, Description { name, etag, merge }).await
        };
        respond(described.await)
    }
}

/// Refuses a mask that names what a project keeps.
fn refuse_kept(mask: Option<&FieldMask>) -> Result<()> {
    let mut violations = Violations::new();
    for path in mask.iter().flat_map(|mask| &mask.paths) {
        let first = path.split('.').next().unwrap_or_default();
        if let Some((_, why)) = KEPT.iter().find(|(field, _)| *field == first) {
            violations.add("update_mask", Fault::Immutable, format!("`{path}` {why}"));
        }
    }
    Ok(violations.into_result()?)
}

/// The project with what the update says about it. Other values for what it keeps are refused; whoever read the project
/// sends back those that it has.
fn merged(before: &Project, patch: &pb::Project, mask: Option<&FieldMask>) -> Result<Project> {
    let current = convert::project(before.clone());
    let merged = mask::merge(&current, patch, mask)?;
    let changed = [
        merged.owner != current.owner,
        merged.template_version != current.template_version,
        merged.parameters != current.parameters,
    ];
    let mut violations = Violations::new();
    violations.extend_under("project", validate::violations(&merged)?);
    for ((field, why), _) in KEPT.iter().zip(changed).filter(|(_, changed)| *changed) {
        violations.add(format!("project.{field}"), Fault::Immutable, *why);
    }
    let (display_name, labels) = (merged.display_name, merged.labels.into_iter().collect());
    check_labels(&labels, &mut violations);
    violations.into_result()?;
    Ok(Project { display_name, labels, ..before.clone() })
}
