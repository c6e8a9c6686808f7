//! A rule that tests for an attribute that nothing has would never match, or always.

use pavior_proto::pavior::policy::v1 as pb;
use pavior_testkit::assert_problem;
use pavior_testkit::db::both;
use tonic::Code;

use crate::fixture::Fixture;

#[tokio::test]
async fn an_attribute_that_nothing_has_is_not_tested_for() {
    both(|db| async {
        let f = Fixture::new(db).await;
        let guardrail = pb::PolicyType::Guardrail;
        for hidden in [
            r#"unless { context has environment_class && context.environment_class == "production" }"#,
            r#"when { (resource has environment_class) || context.approved }"#,
            r#"when { !(context has environment_class) }"#,
            r#"when { context.approved || (context has parameters.environment_class) }"#,
        ] {
            let policy =
                f.policy("p", guardrail, &format!("forbid (principal, action, resource) {hidden};")).await;
            let error = assert_problem(policy, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
            let unknown = "`has environment_class` is never true: no attribute is called so";
            assert!(error.violations.iter().any(|v| v.description == unknown), "{hidden}: {error:?}");
        }
    })
    .await;
}
