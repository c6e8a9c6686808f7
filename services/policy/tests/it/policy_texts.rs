//! Texts of policies: checked, kept as revisions, put back, and bound.

use pavior_core::digest::sha256_digest;
use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use prost_types::FieldMask;
use tonic::Code;

use crate::fixture::{ACME, CREATE, Fixture, question};

#[tokio::test]
async fn a_policy_is_checked_before_it_is_kept() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let guardrail = pb::PolicyType::Guardrail;
        let nested = format!(
            "forbid (principal, action, resource) when {{ {}true{} }};",
            "(".repeat(300),
            ")".repeat(300)
        );
        for (source, part) in [
            (nested.as_str(), "nested deeper than 32"),
            ("forbid (principal, action, resource", "syntax"),
            ("@nope(\"x\") forbid (principal, action, resource);", "unknown annotation `@nope`"),
            ("permit (principal, action, resource);", "`forbid` rules only"),
            ("forbid (principal, action, resource) when { context.size == 1 };", "size"),
        ] {
            let error = assert_problem(
                f.policy("p", guardrail, source).await,
                Code::InvalidArgument,
                "INVALID_DOCUMENT",
                &[],
            );
            assert_eq!(error.violations[0].field, "policy.source");
            assert!(error.violations.iter().any(|v| v.description.contains(part)), "{part} in {error:?}");
        }
        let former = r#"@message("{context.environment_class}") forbid (principal, action, resource)
            when { context has environment_class && context.environment_class == "production" };"#;
        let policy = f.policy("p", guardrail, former).await;
        let error = assert_problem(policy, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        let told: Vec<_> = error.violations.iter().map(|violation| violation.description.as_str()).collect();
        assert!(
            told.contains(&"`environment_class` is not known: the field is `environment_class_id`"),
            "{told:?}"
        );
        assert!(f.audited().await.is_empty());
        let made = f.policy("p", guardrail, "forbid (principal, action, resource);").await.unwrap();
        assert_eq!(made.digest, sha256_digest(made.source.as_bytes()));
        let update = |patch: pb::Policy, mask: &[&str]| {
            let paths = mask.iter().map(|path| (*path).to_owned()).collect();
            let policy = Some(pb::Policy { name: made.name.clone(), ..patch });
            let request = pb::UpdatePolicyRequest {
                policy,
                update_mask: Some(FieldMask { paths }),
                ..Default::default()
            };
            f.call("root", "policy.policies.update", request)
        };
        let broken = pb::Policy { source: nested.clone(), ..Default::default() };
        assert_problem(
            f.policies().update_policy(update(broken, &["source"])).await,
            Code::InvalidArgument,
            "INVALID_DOCUMENT",
            &[],
        );
        let moved = pb::Policy { policy_type: pb::PolicyType::Access.into(), ..Default::default() };
        let error = assert_problem(
            f.policies().update_policy(update(moved, &["policy_type"])).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(error.violations[0].field.as_str(), "policy_type", "{error:?}");
        let better = pb::Policy {
            source: "@id(\"x\") forbid (principal, action, resource);".into(),
            ..Default::default()
        };
        let changed = f.policies().update_policy(update(better, &["source"])).await.unwrap().into_inner();
        assert_ne!(changed.digest, made.digest);
    })
    .await;
}

const FORBID: &str = "forbid (principal, action, resource);";

impl Fixture {
    async fn rewrite(&self, policy: &str, source: &str) -> pb::Policy {
        let policy = pb::Policy {
            name: format!("{ACME}/policies/{policy}"),
            source: source.into(),
            ..Default::default()
        };
        let request = pb::UpdatePolicyRequest { policy: Some(policy), ..Default::default() };
        let call = self.call("root", "policy.policies.update", request);
        self.policies().update_policy(call).await.unwrap().into_inner()
    }

    async fn revisions(&self, policy: &str) -> Vec<pb::PolicyRevision> {
        let parent = format!("{ACME}/policies/{policy}");
        let request = pb::ListPolicyRevisionsRequest { parent, ..Default::default() };
        let call = self.call("root", "policy.policyRevisions.list", request);
        self.policies().list_policy_revisions(call).await.unwrap().into_inner().policy_revisions
    }

    async fn roll_back(&self, policy: &str, revision_id: &str) -> Result<pb::Policy, tonic::Status> {
        let request = pb::RollbackPolicyRequest {
            name: format!("{ACME}/policies/{policy}"),
            revision_id: revision_id.into(),
            ..Default::default()
        };
        let call = self.call("root", "policy.policies.rollback", request);
        Ok(self.policies().rollback_policy(call).await?.into_inner())
    }
}

#[tokio::test]
async fn each_text_of_a_policy_is_a_revision_and_can_be_put_back() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        let made = f.policy("p", pb::PolicyType::Guardrail, FORBID).await.unwrap();
        assert_eq!(made.revision, format!("{ACME}/policies/p/revisions/1"));
        let other = format!("@id(\"other\") {FORBID}");
        f.advance(1);
        assert_eq!(f.rewrite("p", &other).await.revision, format!("{ACME}/policies/p/revisions/2"));
        // The same text, or another name to show, is no revision.
        assert!(f.rewrite("p", &other).await.revision.ends_with("/2"));
        f.advance(1);
        let back = f.roll_back("p", "1").await.unwrap();
        assert_eq!((back.source.as_str(), back.digest.as_str()), (FORBID, made.digest.as_str()));
        let kept = f.revisions("p").await;
        let told: Vec<(&str, &str)> =
            kept.iter().map(|one| (one.name.rsplit('/').next().unwrap(), one.source.as_str())).collect();
        assert_eq!(told, [("3", FORBID), ("2", other.as_str()), ("1", FORBID)]);
        assert!(kept.iter().all(|one| one.author == format!("{ACME}/users/root")), "{kept:?}");
        let get = pb::GetPolicyRevisionRequest { name: kept[1].name.clone(), ..Default::default() };
        let call = f.call("root", "policy.policyRevisions.get", get);
        assert_eq!(f.policies().get_policy_revision(call).await.unwrap().into_inner(), kept[1]);
        let error = assert_problem(f.roll_back("p", "9").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let resource = error.resource.unwrap();
        assert_eq!(
            (resource.r#type.as_str(), resource.name),
            ("policy.pavior.dev/PolicyRevision", format!("{ACME}/policies/p/revisions/9"))
        );
        assert_eq!(
            assert_problem(f.roll_back("nope", "1").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[])
                .resource
                .unwrap()
                .r#type,
            "policy.pavior.dev/Policy"
        );
        let last = f.audited().await.pop().unwrap();
        assert_eq!(last.action, "policy.policies.rollback");

        // A policy of the same name begins anew.
        let delete = pb::DeletePolicyRequest { name: made.name.clone(), ..Default::default() };
        f.policies().delete_policy(f.call("root", "policy.policies.delete", delete)).await.unwrap();
        f.policy("p", pb::PolicyType::Guardrail, &other).await.unwrap();
        assert_eq!(f.revisions("p").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_binding_stays_with_its_revision_or_follows_the_latest() {
    both(|db| async move {
        let f = Fixture::new(db).await;
        f.role("dev", &["provisioning.*"]).await;
        f.bind("dev", "dev", &["users/alice"], pb::role_binding::Reach::All).await;
        f.policy("p", pb::PolicyType::Guardrail, &format!("@id(\"first\") {FORBID}")).await.unwrap();
        let binding = f.enforce("holds", "p").await;
        let denied = async || {
            let decision = f.decide(question("alice", CREATE)).await.unwrap();
            decision.reasons.iter().map(|r| (r.rule_id.clone(), r.revision.clone())).collect::<Vec<_>>()
        };
        let said = |id: &str, revision: u32| {
            vec![(id.to_owned(), format!("{ACME}/policies/p/revisions/{revision}"))]
        };
        assert_eq!(denied().await, said("first", 1));
        let pin = async |revision_id: &str| {
            let policy_binding = Some(pb::PolicyBinding {
                name: binding.name.clone(),
                revision_id: revision_id.into(),
                ..Default::default()
            });
            let update_mask = Some(FieldMask { paths: vec!["revision_id".into()] });
            let request =
                pb::UpdatePolicyBindingRequest { policy_binding, update_mask, ..Default::default() };
            let call = f.call("root", "policy.policyBindings.update", request);
            f.policies().update_policy_binding(call).await.map(|answer| answer.into_inner())
        };
        assert_eq!(pin("1").await.unwrap().revision_id, "1");
        f.advance(1);
        f.rewrite("p", &format!("@id(\"second\") {FORBID}")).await;
        f.advance(1);
        assert_eq!(denied().await, said("first", 1));
        // The limit of the fixture keeps three, and the one that is named.
        for at in 0..3 {
            f.rewrite("p", &format!("@id(\"more-{at}\") {FORBID}")).await;
            f.advance(1);
        }
        let kept = f.revisions("p").await;
        let ids: Vec<&str> = kept.iter().map(|one| one.name.rsplit('/').next().unwrap()).collect();
        assert_eq!(ids, ["5", "4", "3", "1"]);
        assert_eq!(denied().await, said("first", 1));
        assert_eq!(pin("").await.unwrap().revision_id, "");
        assert_eq!(denied().await, said("more-2", 5));
        let error = assert_problem(pin("2").await, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
        assert_eq!(error.metadata["field"], "policy_binding.revision_id");
        let error = assert_problem(pin("latest").await, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(error.violations[0].field.as_str(), "policy_binding.revision_id");
    })
    .await;
}
