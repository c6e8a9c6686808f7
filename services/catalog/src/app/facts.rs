//! What policy needs to know about the resources of the catalog.

use pavior_resource::keeps;

use super::App;
use crate::domain::{
    EntityFields, GroupFields, KindFields, MembershipFields, OrganizationFields, ResourceDefinitionFields,
    ResourceTypeFields, TemplateFields, UserFields, VersionFields,
};

keeps!(
    App: OrganizationFields,
    GroupFields,
    MembershipFields,
    UserFields,
    KindFields,
    EntityFields,
    TemplateFields,
    VersionFields,
    ResourceTypeFields,
    ResourceDefinitionFields,
);
