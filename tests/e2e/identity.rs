//! Who somebody is: agents and the people behind them, administrators by their full names, issuers within their bounds,
//! and things that go from one owner to another.

use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::client::request_id;
use pavior::cli::progress;
use pavior_auth::{DevClaims, DevIssuer};
use pavior_core::clock::SystemClock;
use pavior_core::id_gen::SystemIds;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::identity::v1 as identity;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1::OperationMetadata;
use pavior_proto::pavior::provisioning::v1::operation_metadata::State;
use pavior_tests::{Embedded, Person, details};
use prost_types::FieldMask;
use tonic::Code;

/// Somebody with a token of the development issuer that says whatever it is told to.
fn with(system: &Embedded, claims: DevClaims) -> Result<Person> {
    let directory = pavior::serve::dev_issuer_directory(system.data());
    let issuer = DevIssuer::open(&directory, Arc::new(SystemClock), Arc::new(SystemIds))?;
    let token = issuer.mint(&claims, time::Duration::hours(1))?;
    Person::with_token(&system.system().server(), Some(token), "acme")
}

fn claims(organization: &str, subject: &str, kind: &str, on_behalf_of: &str) -> DevClaims {
    DevClaims {
        subject: subject.to_owned(),
        organization: organization.to_owned(),
        kind: kind.to_owned(),
        on_behalf_of: on_behalf_of.to_owned(),
        ..DevClaims::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_issuer_speaks_for_whom_it_may_and_for_no_part_of_the_platform() -> Result<()> {
    let system = Embedded::start().await?;
    for (organization, subject, kind, accepted) in [
        ("acme", "alice", "user", true),
        (INSTALLATION, "operator", "user", true),
        // The operator is the platform's own: the same subject elsewhere is nobody.
        ("acme", "operator", "user", false),
        ("globex", "operator", "user", false),
        // Not one of its organizations, whether or not there is one of that name.
        ("globex", "mallory", "user", false),
        (INSTALLATION, "alice", "user", false),
        ("acme", "provisioning", "service", false),
        ("acme", "gateway", "agent", false),
        (INSTALLATION, "provisioning", "service", false),
    ] {
        let who = with(&system, claims(organization, subject, kind, ""))?;
        let answer = who.platform().who_am_i(platform::WhoAmIRequest {}).await;
        let code = answer.as_ref().map_or_else(tonic::Status::code, |_| Code::Ok);
        let wanted = if accepted { Code::Ok } else { Code::Unauthenticated };
        ensure!(code == wanted, "{kind} {subject} of {organization}: {answer:?}");
        let admin =
            answer.ok().and_then(|answer| answer.into_inner().principal).map(|who| who.installation_operator);
        ensure!(admin.unwrap_or_default() == (accepted && subject == "operator"), "{subject}");
    }
    system.stop().await
}

/// Lets the agent `bot` do what platform engineers do.
async fn trust_bot(pia: &Person) -> Result<()> {
    let binding = policy::RoleBinding {
        role: "organizations/acme/roles/platform-engineer".to_owned(),
        members: vec!["organizations/acme/agents/bot".to_owned()],
        ..Default::default()
    };
    let request = policy::CreateRoleBindingRequest {
        parent: "organizations/acme".to_owned(),
        role_binding_id: "bot".to_owned(),
        role_binding: Some(binding),
        request_id: request_id(),
        ..Default::default()
    };
    pia.access().create_role_binding(request).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_approves_what_the_own_agent_asked_for() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (system.person("alice")?, system.person("pia")?);
    alice.create_project("robotic").await?;
    trust_bot(&pia).await?;

    let alone = with(&system, claims("acme", "bot", "agent", ""))?;
    let status =
        alone.projects().create_environment(alone.environment("robotic", "production")).await.unwrap_err();
    let (reason, errors) = details(&status);
    ensure!((status.code(), reason.as_str()) == (Code::FailedPrecondition, "GUARDRAIL_DENIED"), "{status}");
    let rules = errors.precondition_failure().context("no rule is named")?;
    let rule = rules.violations.iter().find(|rule| rule.subject == "builtin.nobody-behind");
    ensure!(rule.is_some_and(|rule| rule.description.contains("`act`")), "{rules:?}");

    let bot = with(&system, claims("acme", "bot", "agent", "pia"))?;
    let request = bot.environment("robotic", "production");
    let operation = bot.projects().create_environment(request).await?.into_inner();
    let waiting = |operation: &_| {
        progress::rests(operation)
            || progress::metadata(operation).is_ok_and(|m| m.state() == State::AwaitingApproval)
    };
    let operation = bot.until(&operation.name, waiting).await?;
    let metadata: OperationMetadata = progress::metadata(&operation)?;
    ensure!(metadata.state() == State::AwaitingApproval, "{:?}", metadata.state());
    for approver in [&pia, &bot] {
        let vote = policy::ApproveApprovalRequest {
            name: metadata.approval.clone(),
            reason: "looks good to me".to_owned(),
            plan_digest: metadata.plan_digest.clone(),
            request_id: request_id(),
        };
        let status = approver.approvals().approve_approval(vote).await.unwrap_err();
        let (reason, _) = details(&status);
        let wanted = (Code::FailedPrecondition, "APPROVER_NOT_ELIGIBLE");
        ensure!((status.code(), reason.as_str()) == wanted, "{status}");
    }
    system.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entity_is_given_to_no_team_that_could_not_have_made_it() -> Result<()> {
    let system = Embedded::start().await?;
    let alice = system.person("alice")?;
    let spec = serde_json::json!({ "type": "service", "lifecycle": "production" });
    let create = |owner: &str| catalog::CreateEntityRequest {
        parent: "organizations/acme/kinds/component".to_owned(),
        entity_id: "till".to_owned(),
        entity: Some(catalog::Entity {
            owner: owner.to_owned(),
            spec: pavior_rpc::convert::to_struct(&spec).ok(),
            ..Default::default()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let (own, foreign) = ("organizations/acme/groups/storefront", "organizations/acme/groups/payments");
    let status = alice.catalog().create_entity(create(foreign)).await.unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "made for another team: {status}");
    let made = alice.catalog().create_entity(create(own)).await?.into_inner();
    let update = |change: &dyn Fn(&mut catalog::Entity), path: &str| {
        let mut entity = catalog::Entity { name: made.name.clone(), ..Default::default() };
        change(&mut entity);
        let update_mask = Some(FieldMask { paths: vec![path.to_owned()] });
        catalog::UpdateEntityRequest {
            entity: Some(entity),
            update_mask,
            request_id: request_id(),
            ..Default::default()
        }
    };
    for owner in [foreign, "", "organizations/acme/users/alice"] {
        let request = update(&|entity| entity.owner = owner.to_owned(), "owner");
        let status = alice.catalog().update_entity(request).await.unwrap_err();
        ensure!(status.code() == Code::PermissionDenied, "given to `{owner}`: {status}");
    }
    let request = update(&|entity| entity.owner = own.to_owned(), "owner");
    alice.catalog().update_entity(request).await?;
    let claim = |entity: &mut catalog::Entity| {
        let resource = "organizations/acme/projects/other/resources/x".to_owned();
        entity.annotations = [("pavior.dev/resource".to_owned(), resource)].into();
    };
    let status = alice.catalog().update_entity(update(&claim, "annotations")).await.unwrap_err();
    let (reason, errors) = details(&status);
    ensure!((status.code(), reason.as_str()) == (Code::InvalidArgument, "INVALID_FIELD"), "{status}");
    let fields = errors.bad_request().context("no field is named")?;
    ensure!(fields.field_violations[0].field == "entity.annotations.pavior.dev/resource", "{fields:?}");
    system.stop().await
}

/// What a membership gives, it gives at once; who belongs to what is said by memberships alone.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_made_a_member_is_one() -> Result<()> {
    let system = Embedded::start().await?;
    let (bob, pia) = (system.person("bob")?, system.person("pia")?);
    let group = "organizations/acme/groups/storefront";
    let create = || catalog::CreateEntityRequest {
        parent: "organizations/acme/kinds/system".to_owned(),
        entity_id: "till".to_owned(),
        entity: Some(catalog::Entity { owner: group.to_owned(), ..Default::default() }),
        request_id: request_id(),
        ..Default::default()
    };
    let groups = async |person: &Person| {
        let me = person.platform().who_am_i(platform::WhoAmIRequest {}).await?.into_inner();
        anyhow::Ok(me.groups)
    };
    let payments = "organizations/acme/groups/payments";
    ensure!(groups(&bob).await? == [payments]);
    let status = bob.catalog().create_entity(create()).await.unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "{status}");
    let member = || identity::CreateMembershipRequest {
        parent: group.to_owned(),
        membership: Some(identity::Membership {
            member: "organizations/acme/users/bob".to_owned(),
            ..Default::default()
        }),
        request_id: request_id(),
        ..Default::default()
    };
    let status = bob.identity().create_membership(member()).await.unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "nobody makes himself a member: {status}");
    let membership = pia.identity().create_membership(member()).await?.into_inner();
    ensure!(groups(&bob).await? == [payments, group]);
    bob.catalog().create_entity(create()).await?;

    let end = identity::DeleteMembershipRequest {
        name: membership.name,
        request_id: request_id(),
        ..Default::default()
    };
    pia.identity().delete_membership(end).await?;
    ensure!(groups(&bob).await? == [payments]);
    system.stop().await
}
