//! What policy needs to know about the resources of its own service.

use pavior_resource::keeps;

use super::App;
use crate::domain::approval::ApprovalFields;
use crate::domain::decision::DecisionFields;
use crate::domain::policy::PolicyFields;
use crate::domain::policy_binding::PolicyBindingFields;
use crate::domain::policy_revision::PolicyRevisionFields;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::RoleBindingFields;

keeps!(
    App: RoleFields,
    RoleBindingFields,
    PolicyFields,
    PolicyRevisionFields,
    PolicyBindingFields,
    ApprovalFields,
    DecisionFields,
);
