//! Approvals: from the question to the execution.

use pavior_core::PrincipalKind;
use pavior_core::audit::{self, Status as Ended};
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::policy::internal::v1 as decision_pb;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::{both, sqlite};
use pb::Effect;
use pb::PolicyType::Guardrail;
use pb::approval::State;
use pb::role_binding::Reach;
use tonic::{Code, Status};

use crate::fixture::{ACME, CREATE, Fixture, question, user};

fn ask(digest: &str, quorum: i32) -> decision_pb::CreateApprovalRequest {
    let requirement =
        pb::ApprovalRequirement { quorum, group: format!("{ACME}/groups/platform"), ..Default::default() };
    decision_pb::CreateApprovalRequest {
        parent: ACME.into(),
        approval: Some(pb::Approval {
            action: CREATE.into(),
            resource: format!("{ACME}/projects/hello/environments/production"),
            operation: format!("{ACME}/operations/op1"),
            plan: format!("{ACME}/plans/p1"),
            plan_digest: digest.into(),
            summary: "create production".into(),
            requirements: vec![requirement],
            ..Default::default()
        }),
        ..Default::default()
    }
}

impl Fixture {
    pub(crate) async fn ask(&self, who: &str, digest: &str, quorum: i32) -> pb::Approval {
        let call = self.internal(who, ask(digest, quorum));
        self.operation_approvals().create_approval(call).await.unwrap().into_inner()
    }

    async fn approve(&self, who: &str, name: &str, digest: &str) -> Result<pb::Approval, Status> {
        let request = pb::ApproveApprovalRequest {
            name: name.into(),
            reason: "fine".into(),
            plan_digest: digest.into(),
            ..Default::default()
        };
        let call = self.call(who, "policy.approvals.approve", request);
        Ok(self.approvals().approve_approval(call).await?.into_inner())
    }

    async fn look(&self, name: &str) -> pb::Approval {
        let request = pb::GetApprovalRequest { name: name.into() };
        let call = self.call("bob", "policy.approvals.get", request);
        self.approvals().get_approval(call).await.unwrap().into_inner()
    }
}

#[tokio::test]
async fn an_approval_lets_exactly_its_plan_through() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["groups/everyone"], Reach::All).await;
        let text = r#"@approve("1 of group:platform") forbid (principal, action, resource);"#;
        f.policy("p", Guardrail, text).await.unwrap();
        f.enforce("p", "p").await;
        let request = f.ask("alice", "d1", 1).await;
        assert_eq!(
            (request.state(), request.requester.as_str()),
            (State::Pending, "organizations/acme/users/alice")
        );
        let mut execution = question("alice", CREATE);
        execution.stage = decision_pb::DecisionStage::Execution.into();
        execution.approval = request.name.clone();
        let effect =
            async |request: &decision_pb::DecideRequest| f.decide(request.clone()).await.unwrap().effect();
        assert_eq!(effect(&execution).await, Effect::RequireApproval);
        let approved = f.approve("bob", &request.name, "d1").await.unwrap();
        assert_eq!((approved.state(), approved.votes.len()), (State::Approved, 1));
        assert_eq!(
            (approved.votes[0].reason.as_str(), approved.votes[0].plan_digest.as_str()),
            ("fine", "d1")
        );
        assert_eq!(f.look(&request.name).await, approved);
        assert_eq!(effect(&execution).await, Effect::Allow);
        let mut changed = execution.clone();
        changed.context.as_mut().unwrap().plan_digest = "d2".into();
        assert_eq!(effect(&changed).await, Effect::RequireApproval);
        let cancel = decision_pb::CancelApprovalRequest {
            name: request.name.clone(),
            invalidated: true,
            reason: "changed".into(),
        };
        let void = f.operation_approvals().cancel_approval(f.own(cancel.clone())).await.unwrap().into_inner();
        assert_eq!(void.state(), State::Invalidated);
        assert_eq!(effect(&execution).await, Effect::RequireApproval);
        let again = f.operation_approvals().cancel_approval(f.own(cancel)).await.unwrap().into_inner();
        assert_eq!(again, void);
        let told: Vec<_> = f.audited().await.into_iter().map(|event| event.action).collect();
        assert_eq!(
            told[told.len() - 3..],
            ["policy.approvals.create", "policy.approvals.approve", "policy.approvals.cancel"]
        );
    })
    .await;
}

#[tokio::test]
async fn four_eyes_and_distinct_eligible_people() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let request = f.ask("bob", "d1", 2).await;
        let refused = async |who: &str| {
            assert_problem(
                f.approve(who, &request.name, "").await,
                Code::FailedPrecondition,
                "APPROVER_NOT_ELIGIBLE",
                &[],
            );
        };
        refused("bob").await;
        refused("alice").await;
        let events = f.audited().await;
        let told: Vec<_> = events[events.len() - 2..]
            .iter()
            .map(|event| (event.principal.name.as_str(), event.outcome.status, event.outcome.reason.as_str()))
            .collect();
        let denied = |who| (who, Ended::Denied, "APPROVER_NOT_ELIGIBLE");
        assert_eq!(told, [denied("organizations/acme/users/bob"), denied("organizations/acme/users/alice")]);
        assert_eq!(events.last().unwrap().target.as_ref().unwrap().name, request.name);
        assert_problem(
            f.approve("carol", &request.name, "d9").await,
            Code::FailedPrecondition,
            "PLAN_STALE",
            &[],
        );
        assert_eq!(f.approve("carol", &request.name, "").await.unwrap().state(), State::Pending);
        refused("carol").await;
        f.catalog.set("2", &[("carol", &["platform"]), ("dave", &["platform"])], &[]);
        f.advance(1);
        assert_eq!(f.approve("dave", &request.name, "").await.unwrap().state(), State::Approved);
        assert_problem(
            f.approve("erin", &request.name, "").await,
            Code::FailedPrecondition,
            "INVALID_STATE",
            &[],
        );
    })
    .await;
}

#[tokio::test]
async fn the_human_behind_an_agent_cannot_approve() {
    let f = Fixture::new(sqlite()).await;
    let mut agent = user("bot");
    agent.kind = PrincipalKind::Agent;
    agent.name = format!("{ACME}/agents/bot");
    agent.on_behalf_of = Some(user("bob").name);
    let call = f.signed(&f.provisioning, &agent, "", ask("d1", 1));
    let request = f.operation_approvals().create_approval(call).await.unwrap().into_inner();
    assert_problem(
        f.approve("bob", &request.name, "").await,
        Code::FailedPrecondition,
        "APPROVER_NOT_ELIGIBLE",
        &[],
    );
    agent.on_behalf_of = Some(user("carol").name);
    agent.groups = vec!["platform".into()];
    let vote = pb::ApproveApprovalRequest { name: request.name.clone(), ..Default::default() };
    let call = f.signed(&f.gateway, &agent, "policy.approvals.approve", vote);
    assert_problem(
        f.approvals().approve_approval(call).await,
        Code::FailedPrecondition,
        "APPROVER_NOT_ELIGIBLE",
        &[],
    );
    assert_eq!(f.approve("carol", &request.name, "").await.unwrap().state(), State::Approved);
}

#[tokio::test]
async fn the_author_of_a_plan_that_somebody_else_carries_out_cannot_approve() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let mut asked = ask("d1", 1);
        asked.approval.as_mut().unwrap().author = user("carol").name;
        f.catalog.set("2", &[("bob", &["platform"]), ("carol", &["platform"]), ("dave", &["platform"])], &[]);
        f.advance(1);
        let call = f.internal("bob", asked);
        let request = f.operation_approvals().create_approval(call).await.unwrap().into_inner();
        assert_eq!(request.author, user("carol").name);
        for voter in ["bob", "carol"] {
            assert_problem(
                f.approve(voter, &request.name, "").await,
                Code::FailedPrecondition,
                "APPROVER_NOT_ELIGIBLE",
                &[],
            );
        }
        assert_eq!(f.approve("dave", &request.name, "").await.unwrap().state(), State::Approved);
    })
    .await;
}

#[tokio::test]
async fn a_service_that_asks_in_its_own_name_says_for_whom() {
    let f = Fixture::new(sqlite()).await;
    let mut service = user("x");
    service.kind = PrincipalKind::Service;
    service.name = "organizations/pavior/services/provisioning".into();
    service.organization = INSTALLATION.into();
    let call = f.signed(&f.provisioning, &service, "", ask("d1", 1));
    let error = assert_problem(
        f.operation_approvals().create_approval(call).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(error.violations[0].field.as_str(), "approval.requester");
    let mut named = ask("d1", 1);
    named.approval.as_mut().unwrap().requester = user("bob").name;
    let call = f.signed(&f.provisioning, &service, "", named);
    let request = f.operation_approvals().create_approval(call).await.unwrap().into_inner();
    assert_problem(
        f.approve("bob", &request.name, "").await,
        Code::FailedPrecondition,
        "APPROVER_NOT_ELIGIBLE",
        &[],
    );
    assert_eq!(f.approve("carol", &request.name, "").await.unwrap().state(), State::Approved);
}

#[tokio::test]
async fn one_denial_ends_it() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let request = f.ask("alice", "d1", 2).await;
        f.approve("bob", &request.name, "").await.unwrap();
        // Who may not say yes may not say no.
        for who in ["alice", "erin"] {
            let deny = pb::DenyApprovalRequest { name: request.name.clone(), ..Default::default() };
            let call = f.call(who, "policy.approvals.deny", deny);
            assert_problem(
                f.approvals().deny_approval(call).await,
                Code::FailedPrecondition,
                "APPROVER_NOT_ELIGIBLE",
                &[],
            );
        }
        let deny =
            pb::DenyApprovalRequest { name: request.name.clone(), reason: "no".into(), ..Default::default() };
        let call = f.call("carol", "policy.approvals.deny", deny);
        let denied = f.approvals().deny_approval(call).await.unwrap().into_inner();
        assert_eq!((denied.state(), denied.votes.len()), (State::Denied, 2));
        let list = |filter: &str| {
            let request =
                pb::ListApprovalsRequest { parent: ACME.into(), filter: filter.into(), ..Default::default() };
            f.call("bob", "policy.approvals.list", request)
        };
        for (filter, want) in [
            ("state = DENIED", 1),
            ("state = STATE_PENDING", 0),
            ("requester = \"organizations/acme/users/alice\"", 1),
        ] {
            let found = f.approvals().list_approvals(list(filter)).await.unwrap().into_inner();
            assert_eq!(found.approvals.len(), want, "{filter}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_newest_are_listed_first() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let mut names = Vec::new();
        for digest in ["d1", "d2", "d3"] {
            names.push(f.ask("alice", digest, 1).await.name);
            f.advance(1);
        }
        let list = async |page_token: String, order: &str| {
            let request = pb::ListApprovalsRequest {
                parent: ACME.into(),
                page_size: 2,
                page_token,
                order_by: order.into(),
                ..Default::default()
            };
            let call = f.call("bob", "policy.approvals.list", request);
            let page = f.approvals().list_approvals(call).await.unwrap().into_inner();
            let found: Vec<String> = page.approvals.into_iter().map(|approval| approval.name).collect();
            (found, page.next_page_token)
        };
        let (first, token) = list(String::new(), "").await;
        assert_eq!(first, [names[2].clone(), names[1].clone()]);
        assert_eq!(list(token, "").await, (vec![names[0].clone()], String::new()));
        assert_eq!(list(String::new(), "create_time").await.0, names[..2]);
    })
    .await;
}

#[tokio::test]
async fn time_ends_it_whoever_looks() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let request = f.ask("alice", "d1", 1).await;
        f.ship().await;
        f.advance(24 * 3_600 - 1);
        assert_eq!(f.look(&request.name).await.state(), State::Pending);
        f.advance(1);
        let error = assert_problem(
            f.approve("bob", &request.name, "").await,
            Code::FailedPrecondition,
            "INVALID_STATE",
            &[],
        );
        assert_eq!(error.metadata["state"], "EXPIRED");
        assert_eq!(f.look(&request.name).await.state(), State::Expired);
        let last = f.audited().await.pop().unwrap();
        assert_eq!(
            (last.action.as_str(), last.principal.name.as_str()),
            ("policy.approvals.expire", "organizations/pavior/services/policy")
        );
    })
    .await;
}

#[tokio::test]
async fn without_an_audit_trail_nothing_changes_but_time_goes_on() {
    let f = Fixture::new(sqlite()).await;
    let request = f.ask("alice", "d1", 1).await;
    f.advance(24 * 3_600);
    assert_problem(
        f.operation_approvals().create_approval(f.internal("alice", ask("d2", 1))).await,
        Code::Unavailable,
        "AUDIT_UNAVAILABLE",
        &[],
    );
    assert_eq!(f.look(&request.name).await.state(), State::Expired);
    assert_problem(f.approve("bob", &request.name, "").await, Code::FailedPrecondition, "INVALID_STATE", &[]);
    assert_eq!(f.audited().await.len(), 1);
}

#[tokio::test]
async fn an_agent_asks_for_its_person_who_then_cannot_vote_or_not_at_all() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        f.catalog.set("2", &[("pia", &["platform"]), ("bob", &["platform"])], &[]);
        let mut bot = user("bot");
        bot.kind = PrincipalKind::Agent;
        bot.name = format!("{ACME}/agents/bot");
        let alone = f.signed(&f.provisioning, &bot, "", ask("d1", 1));
        let error = assert_problem(
            f.operation_approvals().create_approval(alone).await,
            Code::FailedPrecondition,
            "APPROVER_NOT_ELIGIBLE",
            &[],
        );
        assert!(error.message.contains("acts for nobody"), "{}", error.message);
        bot.on_behalf_of = Some(user("pia").name);
        let call = f.signed(&f.provisioning, &bot, "", ask("d1", 1));
        let request = f.operation_approvals().create_approval(call).await.unwrap().into_inner();
        assert_problem(
            f.approve("pia", &request.name, "d1").await,
            Code::FailedPrecondition,
            "APPROVER_NOT_ELIGIBLE",
            &[],
        );
        assert_eq!(f.approve("bob", &request.name, "d1").await.unwrap().state(), State::Approved);
        let asked = f.audited().await.remove(0);
        assert_eq!((asked.principal.kind, asked.principal.name), (audit::PrincipalKind::Agent, bot.name));
        assert_eq!(asked.principal.on_behalf_of, user("pia").name);
        assert_eq!(asked.principal.via, "organizations/pavior/services/provisioning");
    })
    .await;
}

#[tokio::test]
async fn an_operation_asks_once_about_a_plan() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let (one, same) = tokio::join!(f.ask("alice", "d1", 1), f.ask("alice", "d1", 1));
        assert_eq!(one, same);
        let other = f.ask("alice", "d2", 1).await;
        assert_ne!(one.name, other.name);
        let names = vec![other.name.clone(), one.name.clone()];
        let request = decision_pb::BatchGetApprovalsRequest { parent: ACME.into(), names };
        let found = f.operation_approvals().batch_get_approvals(f.own(request)).await.unwrap().into_inner();
        assert_eq!(found.approvals, [other, one]);
        let mut bad = ask("d3", 0);
        bad.approval.as_mut().unwrap().requirements[0].group = "organizations/other/groups/platform".into();
        let error = assert_problem(
            f.operation_approvals().create_approval(f.internal("alice", bad)).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(error.violations.len(), 2);
    })
    .await;
}

#[tokio::test]
async fn whoever_asks_says_what_for() {
    let f = Fixture::new(sqlite()).await;
    let mut empty = ask("d1", 1);
    empty.approval = Some(pb::Approval::default());
    let error = assert_problem(
        f.operation_approvals().create_approval(f.internal("alice", empty)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    let told: Vec<_> = error.violations.iter().map(|v| format!("{}: {}", v.field, v.description)).collect();
    let wanted = ["action", "resource", "operation", "plan", "plan_digest", "requirements"]
        .map(|field| format!("approval.{field}: is required"));
    assert_eq!(told, wanted);
}

#[tokio::test]
async fn everybody_may_be_asked() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let mut asked = ask("d1", 1);
        asked.approval.as_mut().unwrap().requirements[0].group = format!("{ACME}/groups/everyone");
        let call = f.internal("alice", asked);
        let request = f.operation_approvals().create_approval(call).await.unwrap().into_inner();
        assert_problem(
            f.approve("alice", &request.name, "").await,
            Code::FailedPrecondition,
            "APPROVER_NOT_ELIGIBLE",
            &[],
        );
        assert_eq!(f.approve("erin", &request.name, "").await.unwrap().state(), State::Approved);
    })
    .await;
}

#[tokio::test]
async fn votes_at_the_same_time_are_all_counted() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let people = ["p1", "p2", "p3", "p4"];
        let members: Vec<(&str, &[&str])> = people.iter().map(|id| (*id, &["platform"][..])).collect();
        f.catalog.set("2", &members, &[]);
        let request = f.ask("alice", "d1", 4).await;
        let votes = people.map(|who| f.approve(who, &request.name, "d1"));
        for vote in futures::future::join_all(votes).await {
            vote.unwrap();
        }
        let done = f.look(&request.name).await;
        assert_eq!((done.state(), done.votes.len()), (State::Approved, 4));
    })
    .await;
}

#[tokio::test]
async fn a_vote_is_repeatable() {
    let f = Fixture::new(sqlite()).await;
    let request = f.ask("alice", "d1", 2).await;
    let vote = pb::ApproveApprovalRequest {
        name: request.name.clone(),
        request_id: "0e3f1a52-5a3c-4d0e-9a52-5a3c4d0e9a52".into(),
        ..Default::default()
    };
    let call = || f.call("bob", "policy.approvals.approve", vote.clone());
    let first = f.approvals().approve_approval(call()).await.unwrap().into_inner();
    assert_eq!(f.approvals().approve_approval(call()).await.unwrap().into_inner(), first);
}

/// An older copy knows too few approvals: that one is missing in it ends nothing.
#[tokio::test]
async fn what_an_older_copy_lacks_is_not_told_as_gone() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let made = f.ask("alice", "d1", 1).await;
        let names = || decision_pb::BatchGetApprovalsRequest {
            parent: ACME.into(),
            names: vec![made.name.clone(), format!("{ACME}/approvals/gone")],
        };
        let get = || async { f.operation_approvals().batch_get_approvals(f.own(names())).await };
        assert_problem(get().await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let older = pavior_store::outbox::Difference::OlderEpoch { epoch: None, recorded: 7 }.of("policy");
        f.store.history().set(Some(older));
        assert_problem(get().await, Code::Unavailable, "RESTORE_NEEDED", &[]);
    })
    .await;
}
