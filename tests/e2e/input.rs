//! Bad input: every mistake gets an answer that names it, nothing half-done remains, and nothing is ever INTERNAL.

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply::{self, Source};
use pavior::cli::client::request_id;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::{Embedded, Person, details};
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_refused_and_named() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (system.person("alice")?, system.person("pia")?);
    parameters(&alice).await?;
    names(&alice).await?;
    repeated_requests(&alice).await?;
    policies(&pia).await?;
    templates(&pia).await?;
    filters(&alice).await?;
    tokens(&system).await?;
    applying_twice_changes_nothing(&system).await?;
    system.stop().await
}

/// Checks code and reason, and that the answer is no INTERNAL with another name.
fn refused<T: std::fmt::Debug>(
    answer: Result<tonic::Response<T>, Status>,
    code: Code,
    reason: &str,
) -> Result<tonic_types::ErrorDetails> {
    let status = match answer {
        Ok(answer) => anyhow::bail!("accepted: {answer:?}"),
        Err(status) => status,
    };
    let (found, errors) = details(&status);
    ensure!((status.code(), found.as_str()) == (code, reason), "{found} {status}");
    Ok(errors)
}

fn fields(errors: &tonic_types::ErrorDetails) -> Vec<String> {
    errors
        .bad_request()
        .map(|b| b.field_violations.iter().map(|v| v.field.clone()).collect())
        .unwrap_or_default()
}

async fn parameters(alice: &Person) -> Result<()> {
    let mut request = alice.project("wrong");
    let parameters = serde_json::json!({ "language": "cobol", "database_size": 7, "surprise": true });
    request.project.as_mut().context("a project")?.parameters =
        Some(pavior_rpc::convert::to_struct(&parameters)?);
    let errors =
        refused(alice.projects().create_project(request).await, Code::InvalidArgument, "INVALID_FIELD")?;
    let named = fields(&errors);
    for field in ["project.parameters.language", "project.parameters.database_size"] {
        ensure!(named.iter().any(|n| n == field), "{field} is not named in {named:?}");
    }
    let mut request = alice.project("wrong");
    request.project.as_mut().context("a project")?.parameters = None;
    let errors =
        refused(alice.projects().create_project(request).await, Code::InvalidArgument, "INVALID_FIELD")?;
    ensure!(fields(&errors).iter().any(|f| f.starts_with("project.parameters")), "{:?}", fields(&errors));
    Ok(())
}

async fn names(alice: &Person) -> Result<()> {
    for id in ["Upper", "-x", "a/b", "x".repeat(64).as_str(), "ünï"] {
        let answer = alice.projects().create_project(alice.project(id)).await;
        refused(answer, Code::InvalidArgument, "INVALID_FIELD").with_context(|| id.to_owned())?;
    }
    let parent = "organizations/acme".to_owned();
    let request = pb::ListProjectsRequest { parent: parent.clone(), page_size: -1, ..Default::default() };
    refused(alice.projects().list_projects(request).await, Code::InvalidArgument, "INVALID_FIELD")?;
    let request = pb::ListProjectsRequest { parent, page_token: "nonsense".to_owned(), ..Default::default() };
    refused(alice.projects().list_projects(request).await, Code::InvalidArgument, "INVALID_PAGE_TOKEN")?;
    let mut request = alice.project("no-uuid");
    request.request_id = "not a uuid".to_owned();
    let errors =
        refused(alice.projects().create_project(request).await, Code::InvalidArgument, "INVALID_FIELD")?;
    ensure!(fields(&errors) == ["request_id"], "{:?}", fields(&errors));
    Ok(())
}

async fn repeated_requests(alice: &Person) -> Result<()> {
    let request = alice.project("once");
    let first = alice.projects().create_project(request.clone()).await?.into_inner();
    let second = alice.projects().create_project(request.clone()).await?.into_inner();
    ensure!(first.name == second.name, "{} is not {}", first.name, second.name);
    let other = pb::CreateProjectRequest { request_id: request.request_id, ..alice.project("twice") };
    refused(alice.projects().create_project(other).await, Code::InvalidArgument, "REQUEST_ID_REUSED")?;
    alice.finish(&first).await?;
    refused(
        alice.projects().create_project(alice.project("once")).await,
        Code::AlreadyExists,
        "RESOURCE_ALREADY_EXISTS",
    )?;
    Ok(())
}

async fn policies(pia: &Person) -> Result<()> {
    let policy = |source: &str| policy::CreatePolicyRequest {
        parent: "organizations/acme".to_owned(),
        policy_id: "bad".to_owned(),
        policy: Some(policy::Policy {
            policy_type: policy::PolicyType::Guardrail as i32,
            source: source.to_owned(),
            ..Default::default()
        }),
        request_id: request_id(),
        validate_only: false,
    };
    let nested = format!(
        "forbid (principal, action, resource) when {{ {}true{} }};",
        "(".repeat(300),
        ")".repeat(300)
    );
    let typo = r#"forbid (principal, action, resource) when { context.enviroment_class == "production" };"#;
    let unknown = r#"@id("x") @surprise("y") forbid (principal, action, resource);"#;
    let too_long = format!("// {}\nforbid (principal, action, resource);", "x".repeat(20_000));
    for source in ["", "nonsense", &nested, typo, unknown, &too_long] {
        let status = pia.policies().create_policy(policy(source)).await.unwrap_err();
        let start: String = source.chars().take(60).collect();
        ensure!(status.code() == Code::InvalidArgument, "{start}: {status}");
    }
    Ok(())
}

async fn templates(pia: &Person) -> Result<()> {
    let create = |document: String| catalog::CreateTemplateVersionRequest {
        parent: "organizations/acme/templates/web-service".to_owned(),
        template_version: Some(catalog::TemplateVersion { document, ..Default::default() }),
        request_id: request_id(),
        ..Default::default()
    };
    let cyclic = "template: web-service\nversion: 9.0.0\nproject:\n  a: { type: git-repository, inputs: { skeleton: \
                  \"${{ resources.b.path }}\" } }\n  b: { type: git-repository, inputs: { skeleton: \"${{ \
                  resources.a.path }}\" } }\n";
    let unknown = "template: web-service\nversion: 9.0.0\nproject:\n  a: { type: spaceship, inputs: {} }\n";
    let deep = format!(
        "template: web-service\nversion: 9.0.0\nproject: {}{}\n",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let expression = format!(
        "template: web-service\nversion: 9.0.0\nproject:\n  a: {{ type: git-repository, inputs: {{ skeleton: \"${{{{ {}1{} }}}}\" }} }}\n",
        "(".repeat(5_000),
        ")".repeat(5_000)
    );
    for document in [": : :", "- a\n- b", cyclic, unknown, &deep, &expression] {
        let answer = pia.templates().create_template_version(create(document.to_owned())).await;
        let status = answer.err().with_context(|| format!("accepted: {document:.60}"))?;
        ensure!(status.code() == Code::InvalidArgument, "{document:.60}: {status}");
        ensure!(!details(&status).0.is_empty(), "{document:.60}: {status}");
    }
    // A version does not change.
    let name = "organizations/acme/templates/web-service/versions/1.0.0".to_owned();
    let known = pia
        .templates()
        .get_template_version(catalog::GetTemplateVersionRequest { name, ..Default::default() })
        .await?
        .into_inner();
    let changed = format!("{}# changed\n", known.document);
    let answer = pia.templates().create_template_version(create(changed)).await;
    refused(answer, Code::FailedPrecondition, "VERSION_IMMUTABLE")?;
    Ok(())
}

async fn filters(alice: &Person) -> Result<()> {
    let list = |filter: String| catalog::ListEntitiesRequest {
        parent: "organizations/acme/kinds/-".to_owned(),
        filter,
        ..Default::default()
    };
    for filter in ["(((", "nonsense = 1", "AND", "owner = ", &"(".repeat(1_000), &"x".repeat(100_000)] {
        let answer = alice.catalog().list_entities(list(filter.to_owned())).await;
        refused(answer, Code::InvalidArgument, "INVALID_FILTER").with_context(|| format!("{filter:.20}"))?;
    }
    let huge = alice.catalog().list_entities(list("x".repeat(5 << 20))).await;
    refused(huge, Code::ResourceExhausted, "MESSAGE_TOO_LARGE")?;
    Ok(())
}

async fn tokens(system: &Embedded) -> Result<()> {
    let valid = pavior::quickstart::mint(system.data(), "alice", "acme", &[], time::Duration::hours(1))?;
    let expired = pavior::quickstart::mint(system.data(), "alice", "acme", &[], time::Duration::hours(-1))?;
    let (head, rest) = valid.split_once('.').context("a token has three parts")?;
    let unsigned = valid.rsplit_once('.').context("a token has three parts")?.0;
    for token in [
        None,
        Some(String::new()),
        Some("nonsense".to_owned()),
        Some(expired),
        Some(format!("{unsigned}.")),
        Some(format!("{head}x.{rest}")),
    ] {
        let nobody = Person::with_token(&system.system().server(), token.clone(), "acme")?;
        let answer = nobody.platform().who_am_i(platform::WhoAmIRequest {}).await;
        refused(answer, Code::Unauthenticated, "UNAUTHENTICATED").with_context(|| format!("{token:?}"))?;
    }
    Ok(())
}

async fn applying_twice_changes_nothing(system: &Embedded) -> Result<()> {
    let documents: Vec<Source> = pavior::starter::documents(pavior::starter::Databases::Sqlite)?;
    let operator = system.person(pavior::serve::DEV_OPERATOR)?;
    let counts = apply::apply(&operator, &documents, |_, _| {}).await?;
    ensure!(counts.keys().all(|change| *change == apply::Change::Unchanged), "{counts:?}");
    Ok(())
}
