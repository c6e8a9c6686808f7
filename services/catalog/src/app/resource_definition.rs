//! Resource definitions, and which of them a resource gets.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use pavior_auth::Permit;
use pavior_resource::{Error as ResourceError, Rules, Work};

use super::{App, db};
use crate::domain::resource_definition::{Context, Criteria, ambiguity, best_criteria};
use crate::domain::{ResourceDefinitionFields, ResourceTypeFields, Stored};
use crate::error::Error;

impl Rules for ResourceDefinitionFields {
    type Service = App;

    async fn admit(
        work: &Work<'_, App>,
        _before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> Result<(), Error> {
        let resource_type = &after.fields.resource_type;
        if work.find::<ResourceTypeFields>("", resource_type).await?.is_none() {
            let name = format!("organizations/{}/resourceTypes/{resource_type}", after.organization);
            return Err(ResourceError::missing::<Self>([("resource_type".to_owned(), name)]).into());
        }
        let types = std::slice::from_ref(resource_type);
        for other in db(work).definitions_of(work.permit, types).await? {
            if other.id != after.id
                && let Some(context) = ambiguity(&after.fields, &other.fields)
            {
                return Err(Error::Ambiguous { other: other.name(), context });
            }
        }
        Ok(())
    }
}

/// The definition that matches a context.
#[derive(Debug, Clone)]
pub(crate) struct Match {
    pub(crate) definition: Option<Stored<ResourceDefinitionFields>>,
    pub(crate) resource_type: Option<Stored<ResourceTypeFields>>,
    /// Why it was chosen, as text for people.
    pub(crate) explanation: String,
}

impl App {
    /// Says which definition would make each of some resources: two queries, however many there are.
    pub(crate) async fn match_definitions(
        &self,
        permit: &Permit,
        contexts: &[Context],
    ) -> Result<Vec<Match>, Error> {
        let types: BTreeSet<&str> = contexts.iter().map(|context| context.resource_type.as_str()).collect();
        let types: Vec<String> = types.into_iter().map(str::to_owned).collect();
        let reader = self.read();
        let found = reader.find_many::<ResourceTypeFields>(permit, "", &types).await?;
        let found: BTreeMap<String, _> = found.into_iter().map(|one| (one.id.clone(), one)).collect();
        let definitions = reader.definitions_of(permit, &types).await?;
        let matches = contexts.iter().enumerate();
        matches.map(|(index, context)| pick(index, context, &found, &definitions)).collect()
    }
}

/// The match of the context at `index` in the request.
fn pick(
    index: usize,
    context: &Context,
    types: &BTreeMap<String, Stored<ResourceTypeFields>>,
    definitions: &[Stored<ResourceDefinitionFields>],
) -> Result<Match, Error> {
    let Some(resource_type) = types.get(&context.resource_type) else {
        let explanation = format!("resource type `{}` does not exist", context.resource_type);
        return Ok(Match { definition: None, resource_type: None, explanation });
    };
    let of_type = definitions.iter().filter(|d| d.fields.resource_type == context.resource_type);
    let mut matching: Vec<(Criteria, &Stored<ResourceDefinitionFields>)> =
        of_type.filter_map(|d| Some((best_criteria(&d.fields, context)?, d))).collect();
    matching.sort_by_key(|(criteria, _)| Reverse(criteria.specificity()));
    let resource_type = Some(resource_type.clone());
    let Some((criteria, best)) = matching.first() else {
        let explanation = format!("no resource definition of type `{}` matches", context.resource_type);
        return Ok(Match { definition: None, resource_type, explanation });
    };
    let best_of = |(other, _): &&(Criteria, _)| other.specificity() == criteria.specificity();
    let tied = matching.iter().take_while(best_of).map(|(criteria, one)| (one.name(), criteria.describe()));
    let tied: Vec<(String, String)> = tied.collect();
    if tied.len() > 1 {
        // Writes refuse definitions that tie. If two do all the same, the choice must not depend on their order.
        return Err(Error::Tied { field: format!("contexts[{index}]"), definitions: tied });
    }
    let mut explanation = format!("`{}` applies to {}", best.id, criteria.describe());
    if let Some((next, other)) = matching.get(1) {
        explanation.push_str(&format!(
            "; more specific than `{}`, which applies to {}",
            other.id,
            next.describe()
        ));
    }
    Ok(Match { definition: Some((*best).clone()), resource_type, explanation })
}
