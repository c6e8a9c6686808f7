//! Which message is which resource, and what the requests about resources have in common.

use pavior_auth::Permit;
use pavior_core::ResourceName;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_rpc::problem::Problem;
use prost::{Message, Name};
use prost_types::FieldMask;

use crate::app::{Table, View};
use crate::domain::Violations;

/// Where a resource is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    pub(super) organization: &'a str,
    /// The kind of an entity, the template of a version; empty otherwise.
    pub(super) parent: &'a str,
}

/// A resource with its message.
pub(super) trait Wire: Table {
    type Message: Message + Name + Default + Clone + Send + Sync + 'static;
    /// `organizations/{organization}/groups/{group}`
    const PATTERN: &'static str;
    /// The field of a create request that holds the id.
    const ID_FIELD: &'static str;
    /// The collection of the resource above it, if that is not the organization.
    const PARENT: &'static str = "";

    fn encode(view: &View<Self>) -> Self::Message;

    /// The fields of a message. What the server alone sets comes from `before`.
    fn decode(message: &Self::Message, scope: Scope<'_>, before: Option<&Self>) -> Result<Self, Violations>;

    fn etag(message: &Self::Message) -> &str;

    fn message_name(message: &Self::Message) -> &str;
}

/// A resource name of a request, in the organization of the permit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) name: String,
    /// See [`Scope::parent`].
    pub(super) parent: String,
    pub(super) id: String,
}

/// Reads the name of a resource.
pub(super) fn named<T: Wire>(
    permit: &Permit,
    field: &str,
    name: &str,
    action: &str,
) -> Result<Named, Problem> {
    let parsed = parse(permit, field, name, T::PATTERN, action)?;
    Ok(Named {
        parent: parsed.get(T::PARENT).unwrap_or_default().to_owned(),
        id: parsed.id().to_owned(),
        name: parsed.to_string(),
    })
}

/// Reads the name of what a resource is made or listed in: the id of the kind or template, else nothing. `None` for
/// the wildcard `-`, where it is allowed.
pub(super) fn parent<T: Wire>(
    permit: &Permit,
    field: &str,
    name: &str,
    wildcard: bool,
    action: &str,
) -> Result<Option<String>, Problem> {
    let pattern = T::PATTERN.rsplit_once('/').and_then(|(rest, _)| rest.rsplit_once('/'));
    let pattern = pattern.map(|(rest, _)| rest).unwrap_or_default();
    if let Some(organization) = name.strip_suffix("/-").and_then(|rest| rest.strip_suffix(T::PARENT))
        && wildcard
        && !T::PARENT.is_empty()
    {
        let organization = organization.trim_end_matches('/');
        parse(permit, field, organization, "organizations/{organization}", action)?;
        return Ok(None);
    }
    let parsed = parse(permit, field, name, pattern, action)?;
    Ok(Some(parsed.get(T::PARENT).unwrap_or_default().to_owned()))
}

/// Reads a name and demands that the call is confined to its organization.
pub(super) fn parse(
    permit: &Permit,
    field: &str,
    name: &str,
    pattern: &str,
    action: &str,
) -> Result<ResourceName, Problem> {
    let parsed = ResourceName::parse_as(name, pattern);
    let parsed = parsed.map_err(|error| Problem::invalid_field(field, error.to_string()))?;
    if parsed.organization() == permit.organization() {
        return Ok(parsed);
    }
    Err(Problem::permission_denied(action, name))
}

/// A request that creates.
pub(super) trait CreateRequest: Message + Name {
    type Resource;
    fn parent(&self) -> &str;
    fn id(&self) -> &str;
    fn resource(&self) -> Option<&Self::Resource>;
    fn request_id(&self) -> &str;
    fn validate_only(&self) -> bool;
}

/// A request that updates.
pub(super) trait UpdateRequest: Message + Name {
    type Resource;
    fn resource(&self) -> Option<&Self::Resource>;
    fn update_mask(&self) -> Option<&FieldMask>;
    /// Without the mask, whose paths do not all have a JSON form.
    #[must_use]
    fn without_mask(&self) -> Self;
    fn request_id(&self) -> &str;
    fn validate_only(&self) -> bool;
}

/// A request that deletes.
pub(super) trait DeleteRequest: Message + Name {
    fn name(&self) -> &str;
    fn etag(&self) -> &str;
    fn allow_missing(&self) -> bool;
    fn request_id(&self) -> &str;
    fn validate_only(&self) -> bool;
}

/// A request that lists.
pub(super) trait ListRequest: Message + Name {
    fn parent(&self) -> &str;
    fn page_size(&self) -> i32;
    fn page_token(&self) -> &str;
    fn filter(&self) -> &str;
    fn order_by(&self) -> &str;
}

macro_rules! requests {
    ($($message:ident: $create:ident, $update:ident, $delete:ident, $list:ident, $field:ident, $id:ident;)*) => {$(
        impl CreateRequest for pb::$create {
            type Resource = pb::$message;
            fn parent(&self) -> &str { &self.parent }
            fn id(&self) -> &str { &self.$id }
            fn resource(&self) -> Option<&pb::$message> { self.$field.as_ref() }
            fn request_id(&self) -> &str { &self.request_id }
            fn validate_only(&self) -> bool { self.validate_only }
        }
        impl UpdateRequest for pb::$update {
            type Resource = pb::$message;
            fn resource(&self) -> Option<&pb::$message> { self.$field.as_ref() }
            fn update_mask(&self) -> Option<&FieldMask> { self.update_mask.as_ref() }
            fn without_mask(&self) -> Self { Self { update_mask: None, ..self.clone() } }
            fn request_id(&self) -> &str { &self.request_id }
            fn validate_only(&self) -> bool { self.validate_only }
        }
        impl DeleteRequest for pb::$delete {
            fn name(&self) -> &str { &self.name }
            fn etag(&self) -> &str { &self.etag }
            fn allow_missing(&self) -> bool { self.allow_missing }
            fn request_id(&self) -> &str { &self.request_id }
            fn validate_only(&self) -> bool { self.validate_only }
        }
        impl_list!($list);
    )*};
}

macro_rules! impl_list {
    ($list:ident) => {
        impl ListRequest for pb::$list {
            fn parent(&self) -> &str {
                &self.parent
            }
            fn page_size(&self) -> i32 {
                self.page_size
            }
            fn page_token(&self) -> &str {
                &self.page_token
            }
            fn filter(&self) -> &str {
                &self.filter
            }
            fn order_by(&self) -> &str {
                &self.order_by
            }
        }
    };
}

requests! {
    Group: CreateGroupRequest, UpdateGroupRequest, DeleteGroupRequest, ListGroupsRequest, group, group_id;
    User: CreateUserRequest, UpdateUserRequest, DeleteUserRequest, ListUsersRequest, user, user_id;
    Kind: CreateKindRequest, UpdateKindRequest, DeleteKindRequest, ListKindsRequest, kind, kind_id;
    Entity: CreateEntityRequest, UpdateEntityRequest, DeleteEntityRequest, ListEntitiesRequest, entity, entity_id;
    Template: CreateTemplateRequest, UpdateTemplateRequest, DeleteTemplateRequest, ListTemplatesRequest, template,
        template_id;
    ResourceType: CreateResourceTypeRequest, UpdateResourceTypeRequest, DeleteResourceTypeRequest,
        ListResourceTypesRequest, resource_type, resource_type_id;
    ResourceDefinition: CreateResourceDefinitionRequest, UpdateResourceDefinitionRequest,
        DeleteResourceDefinitionRequest, ListResourceDefinitionsRequest, resource_definition, resource_definition_id;
}
impl_list!(ListTemplateVersionsRequest);
