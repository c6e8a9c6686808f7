//! Secrets are what the engine sealed, and go where a driver takes them: by no parameter, template or driver anywhere else.

use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_rpc::convert::to_struct;
use pavior_testkit::db::{both, sqlite};
use serde_json::{Value, json};
use tonic::Code;

use crate::fixture::*;

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

/// The fields that are refused when the project is made from the fixture's template with this change.
async fn refused_fields(f: &Fixture, change: impl Fn(&mut Value)) -> Vec<String> {
    let mut wanted = content();
    change(&mut wanted);
    f.peers.state().content = wanted;
    let decoded = refused(f.projects().create_project(f.call(hello())).await);
    assert_eq!((decoded.code, decoded.reason.as_str()), (Code::InvalidArgument, "INVALID_FIELD"));
    decoded.violations.into_iter().map(|violation| violation.field).collect()
}

#[tokio::test]
async fn a_template_gives_secrets_to_no_input_that_takes_none() {
    let f = Fixture::new(sqlite()).await;
    for secret in [
        "${{ resources.vault.password }}",
        "pre-${{ resources.vault.password | upper }}-post",
        "${{ resources.vault }}",
        "${{ resources }}",
        "${{ resources['vault']['password'] }}",
    ] {
        let fields = refused_fields(&f, |content| {
            content["project"]["vault"] = json!({ "type": "sql-database", "inputs": { "secret": true } });
            content["project"]["entry"]["inputs"]["spec"]["note"] = json!(secret);
        })
        .await;
        assert_eq!(fields, ["resources.entry.inputs.spec.note"], "{secret}");
    }
    let fields = refused_fields(&f, |content| {
        content["project"]["vault"] = json!({ "type": "sql-database", "inputs": { "secret": true } });
        content["project"]["entry"]["inputs"]["id"] = json!("${{ resources.vault.password }}");
        content["project"]["entry"]["inputs"]["labels"] = json!({ "a": "${{ resources.vault.password }}" });
    })
    .await;
    assert_eq!(fields, ["resources.entry.inputs.id", "resources.entry.inputs.labels.a"]);
    assert_eq!((f.driver.effects(), f.peers.state().entities.len()), (0, 0));
}

#[tokio::test]
async fn what_looks_like_a_secret_is_refused_at_the_door() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        // A reference that exists, as anybody may read it.
        let name = format!("{HELLO}/environments/development/resources/database");
        let shown = f
            .projects()
            .get_resource(f.call(pb::GetResourceRequest { name, ..Default::default() }))
            .await
            .unwrap()
            .into_inner();
        let outputs = pavior_rpc::convert::from_struct(&shown.outputs.unwrap());
        assert_eq!(outputs["password"], json!(null));
        let stolen = json!({ "$secret": shown.output_secrets["/password"].reference });

        let mut request = hello();
        request.project_id = "thief".into();
        request.project.as_mut().unwrap().parameters =
            to_struct(&json!({"language": "rust", "size": stolen})).ok();
        let decoded = refused(f.projects().create_project(f.call(request)).await);
        assert_eq!(decoded.violations[0].field, "project.parameters.size");

        let mut request = environment_request("staging");
        request.environment.as_mut().unwrap().parameters = to_struct(&json!({"size": [stolen]})).ok();
        let decoded = refused(f.projects().create_environment(f.call(request)).await);
        assert_eq!(decoded.violations[0].field, "environment.parameters.size.0");
    })
    .await;
}

#[tokio::test]
async fn a_secret_that_is_used_is_nowhere_in_the_clear() {
    let f = Fixture::new(sqlite()).await;
    f.project().await;
    let workload = format!("{HELLO}/environments/development/resources/workload");
    let given = f.driver.inputs_of(&workload).unwrap();
    let secret = given["variables"]["URL"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("s3cret-of-"), "the driver got it: {given}");
    let raw = f.raw();
    assert!(contains(&raw, "development.workload"), "the database is read as it is");
    assert!(!contains(&raw, &secret), "the database holds it in the clear");
    let state = f.peers.state();
    assert!(state.records.iter().all(|record| !record.contains(&secret)), "the audit log holds it");
    assert!(state.entities.values().all(|entity| !format!("{entity:?}").contains(&secret)));
}
