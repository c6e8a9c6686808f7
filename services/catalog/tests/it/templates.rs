//! Golden paths: publishing, versions, channels.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_testkit::db;
use serde_json::json;
use tonic::Code;

use crate::support::{World, mask};
use pavior_testkit::{assert_problem, fields};

pub(crate) const GOOD: &str = include_str!("fixtures/web-service.yaml");
pub(crate) const PARENT: &str = "organizations/acme/templates/web-service";

pub(crate) async fn world(db: pavior_testkit::db::TestDb) -> World {
    let world = World::ready(db).await;
    let size = json!({"type": "object", "additionalProperties": false, "properties": {"size": {"enum": ["small", "large"]}}});
    world
        .resource_type(
            "git-repository",
            json!({"type": "object", "required": ["skeleton"]}),
            &["path", "url"],
        )
        .await;
    world.resource_type("ci-pipeline", json!({}), &[]).await;
    world.resource_type("sql-database", size, &["url"]).await;
    world.resource_type("workload", json!({}), &["url"]).await;
    let request = pb::CreateTemplateRequest {
        parent: "organizations/acme".into(),
        template_id: "web-service".into(),
        template: Some(pb::Template { display_name: "Web service".into(), ..Default::default() }),
        ..Default::default()
    };
    world.client.templates.clone().create_template(world.alice(request)).await.unwrap();
    world
}

pub(crate) fn create(document: &str) -> pb::CreateTemplateVersionRequest {
    pb::CreateTemplateVersionRequest {
        parent: PARENT.into(),
        template_version: Some(pb::TemplateVersion { document: document.into(), ..Default::default() }),
        ..Default::default()
    }
}

pub(crate) fn point(channel: &str, version: &str) -> pb::MoveTemplateChannelRequest {
    let template_version =
        if version.is_empty() { String::new() } else { format!("{PARENT}/versions/{version}") };
    let (name, channel_id) = (PARENT.into(), channel.into());
    pb::MoveTemplateChannelRequest { name, channel_id, template_version, ..Default::default() }
}

async fn version(world: &World, id: &str) -> Result<tonic::Response<pb::TemplateVersion>, tonic::Status> {
    let request =
        pb::GetTemplateVersionRequest { name: format!("{PARENT}/versions/{id}"), ..Default::default() };
    world.client.templates.clone().get_template_version(world.alice(request)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_are_created_once_and_found_by_channel() {
    db::both(|db| async {
        let world = world(db).await;
        let mut client = world.client.clone();
        let first =
            client.templates.create_template_version(world.alice(create(GOOD))).await.unwrap().into_inner();
        assert_eq!(first.name, format!("{PARENT}/versions/1.0.0"));
        assert_eq!(first.environment_class_ids, ["development", "staging", "production"]);
        assert_eq!(first.digest, pavior_core::digest::sha256_digest(GOOD.as_bytes()));
        let schema: serde_json::Value = serde_json::from_str(&first.parameter_schema_json).unwrap();
        assert_eq!(schema["required"], json!(["language"]));
        let told: Vec<serde_json::Value> =
            world.audited().await.into_iter().filter_map(|event| event.change?.after).collect();
        let of_version = json!({
            "template": "web-service", "digest": first.digest, "environmentClassIds": first.environment_class_ids,
        });
        assert!(told.contains(&of_version), "{told:#?}");
        let content = pavior_rpc::convert::from_struct(first.content.as_ref().unwrap());
        assert_eq!(content["environments"]["production"]["resources"]["database"]["inputs"]["size"], "large");

        let events = world.audited().await.len();
        world.later();
        let again =
            client.templates.create_template_version(world.alice(create(GOOD))).await.unwrap().into_inner();
        assert_eq!(again, first);
        assert_eq!(world.audited().await.len(), events, "creating the same again is no change");
        let other = GOOD.replace("Web service", "Another");
        let error = assert_problem(
            client.templates.create_template_version(world.alice(create(&other))).await,
            Code::FailedPrecondition,
            "VERSION_IMMUTABLE", &[]);
        assert_eq!(error.metadata["publishedDigest"], first.digest);

        for (id, channel) in [("1.10.0", ""), ("1.2.0", "stable"), ("2.0.0-rc.1", "beta")] {
            let document = GOOD.replace("version: 1.0.0", &format!("version: {id}"));
            client.templates.create_template_version(world.alice(create(&document))).await.unwrap();
            if !channel.is_empty() {
                let moved = client.templates.move_template_channel(world.alice(point(channel, id))).await;
                let channels = moved.unwrap().into_inner().channels;
                assert_eq!(channels[channel].template_version, format!("{PARENT}/versions/{id}"));
            }
        }
        for (id, wanted) in
            [("latest", "1.10.0"), ("stable", "1.2.0"), ("beta", "2.0.0-rc.1"), ("1.0.0", "1.0.0")]
        {
            assert_eq!(
                version(&world, id).await.unwrap().into_inner().name,
                format!("{PARENT}/versions/{wanted}")
            );
        }
        assert_problem(version(&world, "nightly").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        assert_problem(version(&world, "3.0.0").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let list = |order_by: &str| pb::ListTemplateVersionsRequest {
            parent: PARENT.into(),
            order_by: order_by.into(),
            page_size: 3,
            ..Default::default()
        };
        let ids = |page: &pb::ListTemplateVersionsResponse| {
            page.template_versions
                .iter()
                .map(|v| v.name.rsplit('/').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let page = client.templates.list_template_versions(world.alice(list(""))).await.unwrap().into_inner();
        assert_eq!(ids(&page), ["2.0.0-rc.1", "1.10.0", "1.2.0"]);
        let rest = pb::ListTemplateVersionsRequest { page_token: page.next_page_token, ..list("") };
        assert_eq!(
            ids(&client.templates.list_template_versions(world.alice(rest)).await.unwrap().into_inner()),
            ["1.0.0"]
        );
        let page =
            client.templates.list_template_versions(world.alice(list("version"))).await.unwrap().into_inner();
        assert_eq!(ids(&page), ["1.0.0", "1.2.0", "1.10.0"]);
    })
    .await;
}

#[tokio::test]
async fn templates_with_versions_and_types_in_use_stay() {
    let world = world(db::sqlite()).await;
    let mut client = world.client.clone();
    client.templates.create_template_version(world.alice(create(GOOD))).await.unwrap();
    let delete = pb::DeleteTemplateRequest { name: PARENT.into(), ..Default::default() };
    let error = assert_problem(
        client.templates.delete_template(world.alice(delete)).await,
        Code::FailedPrecondition,
        "HAS_DEPENDENTS",
        &[],
    );
    assert_eq!(error.preconditions[0].subject, format!("{PARENT}/versions/1.0.0"));
    let delete = pb::DeleteResourceTypeRequest {
        name: "organizations/acme/resourceTypes/sql-database".into(),
        ..Default::default()
    };
    let error = assert_problem(
        client.resource_types.delete_resource_type(world.alice(delete)).await,
        Code::FailedPrecondition,
        "HAS_DEPENDENTS",
        &[],
    );
    assert_eq!(error.preconditions[0].subject, format!("{PARENT}/versions/1.0.0"));
}

#[tokio::test]
async fn a_document_stays_accepted_when_its_types_change() {
    let world = world(db::sqlite()).await;
    let mut client = world.client.clone();
    client.templates.create_template_version(world.alice(create(GOOD))).await.unwrap();
    let update = pb::UpdateResourceTypeRequest {
        resource_type: Some(pb::ResourceType {
            name: "organizations/acme/resourceTypes/git-repository".into(),
            input_schema_json: json!({"type": "object", "required": ["owner"]}).to_string(),
            ..Default::default()
        }),
        update_mask: mask(&["input_schema_json"]),
        ..Default::default()
    };
    client.resource_types.update_resource_type(world.alice(update)).await.unwrap();
    client.templates.create_template_version(world.alice(create(GOOD))).await.unwrap();
    let next = GOOD.replace("version: 1.0.0", "version: 1.0.1");
    let answer = client.templates.create_template_version(world.alice(create(&next))).await;
    assert_eq!(
        fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[])),
        ["template_version.document.project.repository.inputs.owner"]
    );
}

/// Bad documents with the places that must be named; each is the good one with one thing replaced.
#[tokio::test(flavor = "multi_thread")]
async fn bad_documents_are_refused_with_their_paths() {
    let world = world(db::sqlite()).await;
    let corpus: Vec<(String, Vec<&str>)> = corpus();
    assert!(corpus.len() >= 25);
    for (document, wanted) in corpus {
        let answer =
            world.client.templates.clone().create_template_version(world.alice(create(&document))).await;
        let error = assert_problem(answer, Code::InvalidArgument, "INVALID_DOCUMENT", &[]);
        let wanted: Vec<String> = wanted.iter().map(|path| format!("template_version.{path}")).collect();
        assert_eq!(fields(&error), wanted, "{document}");
    }
    let list = pb::ListTemplateVersionsRequest { parent: PARENT.into(), ..Default::default() };
    let left =
        world.client.templates.clone().list_template_versions(world.alice(list)).await.unwrap().into_inner();
    assert!(left.template_versions.is_empty(), "nothing half-done remains");
}

fn corpus() -> Vec<(String, Vec<&'static str>)> {
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        GOOD.replacen(from, to, 1)
    };
    let project = "document.project";
    assert_eq!(project.len(), 16);
    let mut corpus = vec![
        ("[]".to_owned(), vec!["document"]),
        ("template: [".to_owned(), vec!["document"]),
        ("a: 1\na: 2".to_owned(), vec!["document"]),
        (format!("x: {}", "[".repeat(10_000)), vec!["document"]),
        ("a: &a { b: *a }".to_owned(), vec!["document"]),
        ("{}".to_owned(), vec!["document.template", "document.version"]),
    ];
    for (from, to, path) in [
        ("template: web-service", "template: worker", "document.template"),
        ("version: 1.0.0", "version: v1", "document.version"),
        ("version: 1.0.0", "version: 1", "document.version"),
        ("title: Web service", "name: Web service", "document.name"),
        ("type: object", "type: string", "document.parameters.type"),
        ("enum: [rust, python]", "enum: rust", "document.parameters.properties.language.enum"),
        // As it stands it would come back as another number.
        ("default: small", "default: 9007199254740993", "document.parameters.properties.size.default"),
        ("default: small", "default: tiny", "document.parameters.properties.size.default"),
        ("required: [language]", "required: [tongue]", "document.parameters.required.0"),
        ("type: git-repository", "type: svn", "document.project.repository.type"),
        ("skeleton:", "skeletons:", "document.project.repository.inputs.skeleton"),
        ("parameters.language", "parameters.tongue", "document.project.repository.inputs.skeleton"),
        ("resources.repository.path", "resources.repo.path", "document.project.pipeline.inputs.repository"),
        (
            "resources.repository.path",
            "resources.repository.size",
            "document.project.pipeline.inputs.repository",
        ),
        ("run: make test", "run: \"${{ artifact.path }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ environment.id }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ env.HOME }}\"", "document.project.pipeline.inputs.steps.0.run"),
        ("run: make test", "run: \"${{ project.id + }}\"", "document.project.pipeline.inputs.steps.0.run"),
        (
            "run: make test",
            "run: \"${{ resources[parameters.size].url }}\"",
            "document.project.pipeline.inputs.steps.0.run",
        ),
        ("run: make test", "run: \"${{ resources.pipeline.x }}\"", "document.project.pipeline"),
        ("create: with_project", "create: always", "document.environments.development.create"),
        ("ttl: 8h", "ttl: 8 hours", "document.environments.development.ttl"),
        ("ttl: 8h", "lifetime: 8h", "document.environments.development.lifetime"),
        ("type: sql-database", "type: mongo", "document.environments.development.resources.database.type"),
        ("artifact: app", "artifact: web", "document.environments.development.workload.artifact"),
        ("artifact: app", "image: app", "document.environments.development.workload.image"),
        ("artifact.path", "artifact.size", "document.environments.development.workload.inputs.command.0"),
        (
            "resources.database.url",
            "resources.database.password",
            "document.environments.development.workload.inputs.variables.DATABASE_URL",
        ),
        ("extends: development", "extends: testing", "document.environments.staging.extends"),
        ("size: large", "size: huge", "document.environments.production.resources.database.inputs.size"),
        ("allow: [sql-database]", "allow: [queue]", "document.extensions.allow.0"),
    ] {
        corpus.push((with(from, to), vec![path]));
    }

    corpus
}

#[tokio::test]
async fn other_versions_and_absent_templates_are_refused() {
    let world = world(db::sqlite()).await;
    let mut client = world.client.clone();
    let other = pb::CreateTemplateVersionRequest { template_version_id: "1.0.1".into(), ..create(GOOD) };
    let answer = client.templates.create_template_version(world.alice(other)).await;
    assert_eq!(
        fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
        ["template_version_id"]
    );
    let absent = pb::CreateTemplateVersionRequest {
        parent: "organizations/acme/templates/none".into(),
        ..create(GOOD)
    };
    assert_problem(
        client.templates.create_template_version(world.alice(absent)).await,
        Code::NotFound,
        "RESOURCE_NOT_FOUND",
        &[],
    );
    let answer = client.templates.create_template_version(world.alice(create(""))).await;
    assert_eq!(
        fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
        ["template_version.document"]
    );
    let dry = pb::CreateTemplateVersionRequest { validate_only: true, ..create(GOOD) };
    client.templates.create_template_version(world.alice(dry)).await.unwrap();
    assert_problem(version(&world, "1.0.0").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
    assert_problem(version(&world, "latest").await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
    let said = pb::CreateTemplateVersionRequest { template_version_id: "1.0.0".into(), ..create(GOOD) };
    client.templates.create_template_version(world.alice(said)).await.unwrap();
}
