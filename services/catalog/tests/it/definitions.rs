//! Resource types and definitions, and matching.

use pavior_proto::google::r#type::Money;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::resource_definition::MatchCriteria;
use pavior_store::StoreError;
use pavior_testkit::db;
use sea_orm::ConnectionTrait as _;
use serde_json::json;
use tonic::Code;

use crate::support::{World, mask, object};
use pavior_testkit::{assert_problem, fields};

fn definition(id: &str, criteria: Vec<MatchCriteria>) -> pb::CreateResourceDefinitionRequest {
    pb::CreateResourceDefinitionRequest {
        parent: "organizations/acme".into(),
        resource_definition_id: id.into(),
        resource_definition: Some(pb::ResourceDefinition {
            resource_type: "organizations/acme/resourceTypes/sql-database".into(),
            driver_id: "sqlite-database".into(),
            driver_inputs: Some(object(json!({"size": "${{ inputs.size }}"}))),
            match_criteria: criteria,
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn class(class: &str) -> MatchCriteria {
    MatchCriteria { environment_class_id: class.into(), ..Default::default() }
}

fn context(
    resource: &str,
    class: &str,
    resource_type: &str,
) -> pb::match_resource_definitions_request::Context {
    pb::match_resource_definitions_request::Context {
        resource_type: format!("organizations/acme/resourceTypes/{resource_type}"),
        resource_id: resource.into(),
        project: "organizations/acme/projects/shop".into(),
        environment_class_id: class.into(),
        project_labels: [("tier".to_owned(), "gold".to_owned())].into(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_most_specific_definition_wins() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.resource_type("sql-database", json!({}), &["url"]).await;
        world.resource_type("cache", json!({}), &[]).await;
        let project_labels = [("tier".to_owned(), "gold".to_owned())].into();
        for (id, criteria) in [
            ("default", vec![]),
            ("prod", vec![class("production"), class("staging")]),
            ("prod-gold", vec![MatchCriteria { project_labels, ..class("production") }]),
            ("ledger", vec![MatchCriteria { resource_id: "ledger".into(), ..Default::default() }]),
        ] {
            client
                .resource_types
                .create_resource_definition(world.alice(definition(id, criteria)))
                .await
                .unwrap();
        }
        let contexts = vec![
            context("db", "development", "sql-database"),
            context("db", "staging", "sql-database"),
            context("db", "production", "sql-database"),
            context("ledger", "production", "sql-database"),
            context("db", "", "sql-database"),
            context("x", "production", "cache"),
            context("x", "production", "queue"),
        ];
        let request = pb::MatchResourceDefinitionsRequest { parent: "organizations/acme".into(), contexts };
        let matches = client
            .resource_types
            .match_resource_definitions(world.alice(request))
            .await
            .unwrap()
            .into_inner()
            .matches;
        let found: Vec<String> = matches
            .iter()
            .map(|m| {
                m.resource_definition
                    .as_ref()
                    .map(|d| d.name.rsplit('/').next().unwrap().to_owned())
                    .unwrap_or_default()
            })
            .collect();
        assert_eq!(found, ["default", "prod", "prod-gold", "ledger", "default", "", ""]);
        assert!(
            matches[2].explanation.contains("`prod-gold` applies to environment class `production`"),
            "{}",
            matches[2].explanation
        );
        assert!(matches[2].explanation.contains("more specific than `prod`"), "{}", matches[2].explanation);
        assert_eq!(matches[5].explanation, "no resource definition of type `cache` matches");
        assert!(matches[5].resource_type.is_some() && matches[6].resource_type.is_none());
        assert_eq!(matches[6].explanation, "resource type `queue` does not exist");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ambiguous_definitions_are_refused_when_they_are_written() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.resource_type("sql-database", json!({}), &["url"]).await;
        client
            .resource_types
            .create_resource_definition(world.alice(definition("a", vec![class("production")])))
            .await
            .unwrap();
        let answer = client
            .resource_types
            .create_resource_definition(
                world.alice(definition("b", vec![class("staging"), class("production")])),
            )
            .await;
        let error = assert_problem(answer, Code::FailedPrecondition, "AMBIGUOUS_DEFINITION", &[]);
        assert_eq!(error.metadata["other"], "organizations/acme/resourceDefinitions/a");
        assert!(error.preconditions[0].description.contains("environment class `production`"));
        client
            .resource_types
            .create_resource_definition(world.alice(definition("b", vec![class("staging")])))
            .await
            .unwrap();
        let update = pb::UpdateResourceDefinitionRequest {
            resource_definition: Some(pb::ResourceDefinition {
                name: "organizations/acme/resourceDefinitions/b".into(),
                match_criteria: vec![class("production")],
                ..Default::default()
            }),
            update_mask: mask(&["match_criteria"]),
            ..Default::default()
        };
        assert_problem(
            client.resource_types.update_resource_definition(world.alice(update.clone())).await,
            Code::FailedPrecondition,
            "AMBIGUOUS_DEFINITION",
            &[],
        );
        let delete = pb::DeleteResourceDefinitionRequest {
            name: "organizations/acme/resourceDefinitions/a".into(),
            ..Default::default()
        };
        client.resource_types.delete_resource_definition(world.alice(delete)).await.unwrap();
        client.resource_types.update_resource_definition(world.alice(update)).await.unwrap();
    })
    .await;
}

/// None that could tie is written; a database that holds such a pair all the same is not left to chance.
#[tokio::test(flavor = "multi_thread")]
async fn definitions_that_tie_are_ambiguous_when_they_are_matched() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.resource_type("sql-database", json!({}), &["url"]).await;
        world.resource_type("cache", json!({}), &[]).await;
        for (id, criteria) in
            [("wide", vec![]), ("a", vec![class("production")]), ("b", vec![class("staging")])]
        {
            let request = world.alice(definition(id, criteria));
            client.resource_types.create_resource_definition(request).await.unwrap();
        }
        let matched = async |contexts| {
            let request =
                pb::MatchResourceDefinitionsRequest { parent: "organizations/acme".into(), contexts };
            let mut resource_types = world.client.resource_types.clone();
            resource_types.match_resource_definitions(world.alice(request)).await
        };
        let ask = || vec![context("x", "production", "cache"), context("db", "production", "sql-database")];
        assert_eq!(matched(ask()).await.unwrap().into_inner().matches.len(), 2);
        let same = "UPDATE resource_definitions SET match_criteria = \
                    (SELECT match_criteria FROM resource_definitions WHERE id = 'a') WHERE id = 'b'";
        world
            .store
            .upkeep("a test", move |tx| {
                Box::pin(async move { Ok::<_, StoreError>(tx.execute_unprepared(same).await.map(drop)?) })
            })
            .await
            .unwrap();
        let error =
            assert_problem(matched(ask()).await, Code::FailedPrecondition, "AMBIGUOUS_DEFINITION", &[]);
        assert_eq!(error.message, "several resource definitions match `contexts[1]` equally well");
        assert_eq!(error.metadata["field"], "contexts[1]");
        let told: Vec<(&str, &str)> =
            error.preconditions.iter().map(|p| (p.subject.as_str(), p.description.as_str())).collect();
        let hint = "applies to environment class `production`; make one of them more specific";
        let wanted = ["a", "b"].map(|id| (format!("organizations/acme/resourceDefinitions/{id}"), hint));
        assert_eq!(told, wanted.each_ref().map(|(name, hint)| (name.as_str(), *hint)));
        // What is asked for elsewhere is not concerned.
        let elsewhere =
            matched(vec![context("db", "development", "sql-database")]).await.unwrap().into_inner();
        assert!(elsewhere.matches[0].explanation.starts_with("`wide` applies to everything"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_costs_nothing_is_not_what_nobody_knows_the_cost_of() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        world.resource_type("sql-database", json!({}), &["url"]).await;
        let money = |units, nanos| Money { currency_code: "USD".into(), units, nanos };
        let get = |name: &str| {
            world.alice(pb::GetResourceDefinitionRequest { name: name.into(), ..Default::default() })
        };
        for (id, cost, kept) in [
            ("unknown", None, json!(null)),
            ("free", Some(money(0, 0)), json!("0.00 USD")),
            ("dear", Some(money(12, 500_000_000)), json!("12.50 USD")),
        ] {
            let mut request = definition(id, vec![class(id)]);
            request.resource_definition.as_mut().unwrap().monthly_cost.clone_from(&cost);
            let made = client.resource_types.create_resource_definition(world.alice(request)).await;
            let made = made.unwrap().into_inner();
            assert_eq!(made.monthly_cost, cost, "{id}");
            let shown = client.resource_types.get_resource_definition(get(&made.name)).await.unwrap();
            assert_eq!(shown.into_inner(), made);
            let told = world.audited().await.pop().unwrap().change.unwrap().after.unwrap();
            assert_eq!(told["monthlyCost"], kept, "{id}");
        }
        // One becomes the other by an update that names the field.
        let name = "organizations/acme/resourceDefinitions/free";
        for cost in [None, Some(money(0, 0))] {
            let changed =
                pb::ResourceDefinition { name: name.into(), monthly_cost: cost, ..Default::default() };
            let update = pb::UpdateResourceDefinitionRequest {
                resource_definition: Some(changed),
                update_mask: mask(&["monthly_cost"]),
                ..Default::default()
            };
            let wanted = update.resource_definition.as_ref().unwrap().monthly_cost.clone();
            let updated =
                client.resource_types.update_resource_definition(world.alice(update)).await.unwrap();
            assert_eq!(updated.into_inner().monthly_cost, wanted);
            let shown = client.resource_types.get_resource_definition(get(name)).await.unwrap().into_inner();
            assert_eq!(shown.monthly_cost, wanted);
        }
        for (cost, field) in [
            (Money { currency_code: String::new(), ..money(0, 0) }, "monthly_cost.currency_code"),
            (Money { currency_code: "EUR".into(), ..money(0, 0) }, "monthly_cost.currency_code"),
            (money(-1, 0), "monthly_cost"),
        ] {
            let mut request = definition("odd", vec![class("odd")]);
            request.resource_definition.as_mut().unwrap().monthly_cost = Some(cost);
            let answer = client.resource_types.create_resource_definition(world.alice(request)).await;
            let error = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&error), [format!("resource_definition.{field}")]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_writers_cannot_make_an_ambiguity_together() {
    db::both(|db| async {
        let world = World::ready(db).await;
        world.resource_type("sql-database", json!({}), &["url"]).await;
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..6 {
            let mut client = world.client.clone();
            let request = world.alice(definition(&format!("d-{n}"), vec![]));
            tasks.spawn(
                async move { client.resource_types.create_resource_definition(request).await.is_ok() },
            );
        }
        let mut made = 0;
        while let Some(done) = tasks.join_next().await {
            made += usize::from(done.unwrap());
        }
        assert_eq!(made, 1);
    })
    .await;
}

#[tokio::test]
async fn bad_types_and_definitions_are_refused() {
    let world = World::ready(db::sqlite()).await;
    let mut client = world.client.clone();
    let answer = client.resource_types.create_resource_definition(world.alice(definition("a", vec![]))).await;
    let error = assert_problem(answer, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
    assert_eq!(error.preconditions[0].subject, "organizations/acme/resourceTypes/sql-database");
    let mut bad = definition("a", vec![class("Prod")]);
    let inner = bad.resource_definition.as_mut().unwrap();
    inner.driver_id = "Post gres".into();
    inner.driver_inputs = Some(object(json!({"a": ["${{ secrets.x }}"], "b": "${{ 1 + }}"})));
    let error = assert_problem(
        client.resource_types.create_resource_definition(world.alice(bad.clone())).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(
        fields(&error),
        [
            "resource_definition.driver_id",
            "resource_definition.match_criteria[0].environment_class_id",
            "resource_definition.driver_inputs.b",
        ]
    );
    let inner = bad.resource_definition.as_mut().unwrap();
    inner.driver_id = String::new();
    inner.resource_type = String::new();
    let error = assert_problem(
        client.resource_types.create_resource_definition(world.alice(bad)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    let wanted = ["match_criteria[0].environment_class_id", "resource_type", "driver_id", "driver_inputs.b"];
    assert_eq!(fields(&error), wanted.map(|field| format!("resource_definition.{field}")));
    let request = pb::CreateResourceTypeRequest {
        parent: "organizations/acme".into(),
        resource_type_id: "t".into(),
        resource_type: Some(pb::ResourceType {
            input_schema_json: json!({"type": 7}).to_string(),
            output_schema_json: json!({"properties": {"url": {}}}).to_string(),
            secret_outputs: vec!["password".into()],
            ..Default::default()
        }),
        ..Default::default()
    };
    let error = assert_problem(
        client.resource_types.create_resource_type(world.alice(request)).await,
        Code::InvalidArgument,
        "INVALID_FIELD",
        &[],
    );
    assert_eq!(fields(&error), ["resource_type.input_schema_json.type", "resource_type.secret_outputs[0]"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_type_in_use_cannot_be_deleted() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let mut client = world.client.clone();
        let made = world.resource_type("sql-database", json!({}), &["url"]).await;
        client.resource_types.create_resource_definition(world.alice(definition("a", vec![]))).await.unwrap();
        let delete = pb::DeleteResourceTypeRequest { name: made.name.clone(), ..Default::default() };
        let error = assert_problem(
            client.resource_types.delete_resource_type(world.alice(delete.clone())).await,
            Code::FailedPrecondition,
            "HAS_DEPENDENTS",
            &[],
        );
        assert_eq!(error.preconditions[0].subject, "organizations/acme/resourceDefinitions/a");
        let list = pb::ListResourceDefinitionsRequest {
            parent: "organizations/acme".into(),
            filter: format!("resource_type = \"{}\" AND driver_id:sqlite", made.name),
            ..Default::default()
        };
        let listed =
            client.resource_types.list_resource_definitions(world.alice(list)).await.unwrap().into_inner();
        assert_eq!(listed.resource_definitions.len(), 1);
        let gone = pb::DeleteResourceDefinitionRequest {
            name: "organizations/acme/resourceDefinitions/a".into(),
            ..Default::default()
        };
        client.resource_types.delete_resource_definition(world.alice(gone)).await.unwrap();
        client.resource_types.delete_resource_type(world.alice(delete)).await.unwrap();
        let list = pb::ListResourceTypesRequest { parent: "organizations/acme".into(), ..Default::default() };
        assert_eq!(
            client
                .resource_types
                .list_resource_types(world.alice(list))
                .await
                .unwrap()
                .into_inner()
                .resource_types
                .len(),
            0
        );
    })
    .await;
}
