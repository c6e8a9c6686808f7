//! People are asked.

use pavior_proto::google::longrunning as lro;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db::both;
use serde_json::json;

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
