//! What drivers have against what is recorded, as messages.

use pavior_auth::Permit;
use pavior_driver::Health;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::validate;

use super::Api;
use crate::app::diagnosis::{Condition, Diagnosis, Finding, Kind};
use crate::error::Result;

impl Api {
    pub(crate) async fn diagnosis(
        &self,
        permit: &Permit,
        request: pb::DiagnoseResourcesRequest,
    ) -> Result<pb::DiagnoseResourcesResponse> {
        validate::request(&request)?;
        let Diagnosis { findings, truncated, drivers } = self.app.diagnose(permit, &request.parent).await?;
        Ok(pb::DiagnoseResourcesResponse {
            findings: findings.into_iter().map(finding).collect(),
            truncated,
            drivers: drivers.into_iter().map(condition).collect(),
        })
    }
}

fn finding(finding: Finding) -> pb::ResourceFinding {
    use pb::resource_finding::Kind as PbKind;
    let Finding { kind, driver, identity, resource_type, organization, resource } = finding;
    let advice = kind.advice().to_owned();
    let kind = match kind {
        Kind::Orphan => PbKind::Orphan,
        Kind::Missing => PbKind::Missing,
        Kind::Driverless => PbKind::Driverless,
        Kind::Different => PbKind::Different,
    };
    let organization = format!("organizations/{organization}");
    pb::ResourceFinding {
        kind: kind.into(),
        driver_id: driver,
        identity,
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
