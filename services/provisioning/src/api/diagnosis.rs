//! What drivers have against what is recorded, as messages.

use pavior_auth::Permit;
use pavior_driver::Health;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::paging::Page;
use pavior_rpc::validate;
use serde_json::json;

use super::Api;
use crate::app::diagnosis::{Condition, Diagnosis, Finding, Kind, Place};
use crate::error::{Error, Result};

impl Api {
    pub(crate) async fn diagnosis(
        &self,
        permit: &Permit,
        request: pb::DiagnoseResourcesRequest,
    ) -> Result<pb::DiagnoseResourcesResponse> {
        validate::request(&request)?;
        let pb::DiagnoseResourcesRequest { parent, page_size, page_token } = &request;
        let page =
            Page::open(&self.app.kernel.tokens, *page_size, page_token, &["DiagnoseResources", parent])?;
        let after = page.after.clone().map(serde_json::from_value::<Place>).transpose();
        let after = after.map_err(|_| Error::Corrupt("the place in a page token".to_owned()))?;
        let limit = usize::try_from(page.limit()).unwrap_or(usize::MAX);
        let diagnosis = self.app.diagnose(permit, parent, after.as_ref(), limit).await?;
        let Diagnosis { mut findings, drivers } = diagnosis;
        let next_page_token =
            page.close(&self.app.kernel.tokens, &mut findings, |finding| json!(finding.place()));
        Ok(pb::DiagnoseResourcesResponse {
            findings: findings.into_iter().map(finding).collect(),
            next_page_token,
            drivers: drivers.into_iter().map(condition).collect(),
        })
    }
}

fn finding(finding: Finding) -> pb::ResourceFinding {
    use pb::resource_finding::Kind as PbKind;
    let Finding { kind, driver, identity, resource_type, organization, resource } = finding;
    let advice = kind.advice().to_owned();
    let kind = match kind {
        Kind::Orphaned => PbKind::Orphaned,
        Kind::Missing => PbKind::Missing,
        Kind::Driverless => PbKind::Driverless,
        Kind::Drifted => PbKind::Drifted,
        Kind::Overdue => PbKind::Overdue,
    };
    let organization = format!("organizations/{organization}");
    pb::ResourceFinding {
        kind: kind.into(),
        driver_id: driver,
        external_id: identity,
        resource_type_id: resource_type,
        organization,
        resource,
        advice,
    }
}

fn condition(condition: Condition) -> pb::DriverCondition {
    use pb::driver_condition::State;
    let Condition { driver, health, compared, count } = condition;
    let (state, message) = match health {
        Health::Ok => (State::Ok, String::new()),
        Health::Degraded(what) => (State::Degraded, what),
        Health::Down(why) => (State::Down, why),
    };
    let resource_count = i32::try_from(count).unwrap_or(i32::MAX);
    pb::DriverCondition { driver_id: driver, state: state.into(), message, compared, resource_count }
}
