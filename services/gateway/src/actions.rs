//! What could be done with a resource, as policy is asked about it.

use std::collections::{BTreeMap, BTreeSet};

use pavior_proto::pavior::platform::v1::ListAllowedActionsResponse;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;

use crate::routes::RouteTable;

/// The actions of a resource, apart by who can say now whether they are allowed.
pub(crate) struct Actions {
    /// Decided as they are, with those that others amount to.
    plain: BTreeSet<String>,
    /// Decided over a plan that is yet to be made.
    planned: BTreeSet<String>,
    /// Those of the resource itself, each with the further ones that it amounts to.
    own: BTreeMap<String, BTreeSet<String>>,
}

impl Actions {
    /// What could be done with the resource of a name.
    pub(crate) fn about(table: &RouteTable, name: &str) -> Self {
        let mut found = Self { plain: BTreeSet::new(), planned: BTreeSet::new(), own: BTreeMap::new() };
        for method in table.methods_on(name) {
            let side = if method.plan_follows { &mut found.planned } else { &mut found.plain };
            side.insert(method.action.clone());
            found.plain.extend(method.amounts_to.iter().cloned());
            found.own.entry(method.action.clone()).or_default().extend(method.amounts_to.iter().cloned());
        }
        let Self { plain, planned, .. } = &mut found;
        plain.retain(|action| !planned.contains(action));
        found
    }

    /// Whether nothing could be done.
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }

    /// The part of the question to policy that is about actions.
    pub(crate) fn question(&self) -> decision_pb::ListAllowedActionsRequest {
        decision_pb::ListAllowedActionsRequest {
            actions: self.plain.iter().cloned().collect(),
            planned_actions: self.planned.iter().cloned().collect(),
            ..Default::default()
        }
    }

    /// What is listed after policy's answer: of the resource's own actions, those that are allowed with all that they
    /// amount to.
    pub(crate) fn listed(
        &self,
        answer: decision_pb::ListAllowedActionsResponse,
    ) -> ListAllowedActionsResponse {
        let allowed: BTreeSet<&String> = answer.actions.iter().chain(&answer.planned_actions).collect();
        let listed = self.own.iter().filter(|(action, amounts_to)| {
            allowed.contains(action) && amounts_to.iter().all(|action| allowed.contains(action))
        });
        let (planned_actions, actions) =
            listed.map(|(action, _)| action.clone()).partition(|action| self.planned.contains(action));
        ListAllowedActionsResponse { actions, planned_actions, changes_refused: answer.changes_refused }
    }
}
