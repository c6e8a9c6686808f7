//! People are asked.

use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::Problem;
use pavior_rpc::problem::{from_rpc_status, reason_name};
use pavior_testkit::db::both;
use serde_json::json;
use tonic::Code;

use crate::fixture::*;

#[tokio::test]
async fn people_are_asked_and_their_answer_is_followed() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let approvals =
            json!([{"quorum": 1, "group": "organizations/acme/groups/platform", "ruleIds": ["p"]}]);
        f.decide(
            "provisioning.environments.create",
            json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals }),
        );
        let asked = f.begin_environment("staging").await;
        let waiting = metadata(&asked);
        assert_eq!(waiting.state(), pb::operation_metadata::State::AwaitingApproval);
        let environment = f.environment("staging").await;
        assert_eq!(
            (environment.state(), environment.active_operation.as_str()),
            (pb::environment::State::AwaitingApproval, asked.name.as_str())
        );
        let effects = f.driver.effects();
        {
            let mut state = f.peers.state();
            let approval = state.approvals.get_mut(&waiting.approval).unwrap();
            assert_eq!(approval.plan_digest, waiting.plan_digest);
            approval.state = 2;
        }
        let done = f.wait(asked).await;
        assert_eq!(problem(&done), None);
        assert!(f.driver.effects() > effects);
        assert_eq!(f.environment("staging").await.state(), pb::environment::State::Active);
        let stage = f.peers.state().questions.last().unwrap().stage;
        assert_eq!(stage, 3, "asked once more before it began");

        let mut request = environment_request("second");
        request.environment.as_mut().unwrap().environment_class_id = "preview".into();
        let asked = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
        f.peers.state().approvals.get_mut(&metadata(&asked).approval).unwrap().state = 3;
        let done = f.wait(asked).await;
        assert!(problem(&done).unwrap().starts_with("NOT_APPROVED"), "{:?}", problem(&done));
        let name = format!("{HELLO}/environments/second");
        let gone = f
            .projects()
            .get_environment(f.call(pb::GetEnvironmentRequest { name, ..Default::default() }))
            .await;
        assert_eq!(refused(gone).reason, "RESOURCE_NOT_FOUND");

        let asked = f.begin_environment("preview").await;
        f.operations()
            .cancel_operation(f.call(lro::CancelOperationRequest { name: asked.name.clone() }))
            .await
            .unwrap();
        let approval = metadata(&asked).approval;
        let done = f.wait(asked).await;
        assert!(problem(&done).unwrap().starts_with("CANCELLED"));
        pavior_testkit::wait_for("people to be told", std::time::Duration::from_secs(60), async || {
            match f.peers.state().approvals[&approval].state {
                5 => Ok(()),
                state => Err(state),
            }
        })
        .await;
    })
    .await;
}

/// Whoever looks at an operation that cannot ask people yet is told why, until it can.
#[tokio::test]
async fn what_keeps_people_from_being_asked_is_told() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let approvals = json!([{"quorum": 1, "group": format!("{ACME}/groups/platform"), "ruleIds": ["p"]}]);
        let answer = json!({ "effect": "EFFECT_REQUIRE_APPROVAL", "requirements": approvals });
        f.decide("provisioning.environments.create", answer);
        for (id, problem, said) in [
            ("first", Problem::unavailable("it is away"), "policy does not answer"),
            ("second", Problem::restore_needed("it is older"), "it is older"),
        ] {
            f.peers.state().away = Some(problem.clone());
            let mut request = environment_request(id);
            request.environment.as_mut().unwrap().environment_class_id = "preview".into();
            let waits = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
            let about = metadata(&waits);
            assert_eq!((waits.done, about.state()), (false, pb::operation_metadata::State::Checking));
            let told = from_rpc_status(&about.error.unwrap());
            assert_eq!((told.code, told.reason.as_str()), (Code::Unavailable, reason_name(problem.reason)));
            assert!(told.message.starts_with("not begun yet: "), "{}", told.message);
            assert!(told.message.contains(said), "{}", told.message);

            let asked = async |noted: bool| {
                pavior_testkit::wait_for("people", std::time::Duration::from_secs(60), async || {
                    let get = lro::GetOperationRequest { name: waits.name.clone() };
                    let seen = f.operations().get_operation(f.call(get)).await.unwrap().into_inner();
                    let about = metadata(&seen);
                    let asked = about.state() == pb::operation_metadata::State::AwaitingApproval;
                    if asked && about.error.is_some() == noted { Ok(about) } else { Err(about) }
                })
                .await
            };
            f.peers.state().away = None;
            asked(false).await;
            // Nor can their answer be heard.
            f.peers.state().away = Some(problem.clone());
            assert_eq!(from_rpc_status(&asked(true).await.error.unwrap()), told);
            f.peers.state().away = None;
            asked(false).await;
            // What it waited for once is not what ends it.
            let cancel = lro::CancelOperationRequest { name: waits.name.clone() };
            f.operations().cancel_operation(f.call(cancel)).await.unwrap();
            let ended = f.wait(waits).await;
            assert!(status(&ended).is_some_and(|status| status.message.starts_with("cancelled by")));
        }
    })
    .await;
}
