//! What policy is asked about an import, which does to many things at once what other calls do to one.

use pavior_core::Fault;
use pavior_proto::pavior::catalog::v1::import_entities_request::Document;
use pavior_proto::pavior::catalog::v1::{ImportEntitiesRequest, ImportEntitiesResponse};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, OwnerChange, ResourceFacts};
use pavior_proto::pavior::policy::internal::v1::DecideRequest;
use pavior_proto::pavior::policy::v1::PolicyType;
use pavior_rpc::Problem;
use pavior_rpc::problem::from_status;
use prost::Message as _;
use tonic::Code;

use crate::governance::deny;
use crate::harness::{DECIDE, FACTS, World, allow};

const IMPORT: &str = "/pavior.catalog.v1.CatalogService/ImportEntities";

#[tokio::test]
async fn what_an_import_amounts_to_is_asked_as_if_nobody_owned_it() {
    let world = World::new().await;
    world.fake("catalog").on(IMPORT, |_: ImportEntitiesRequest| Ok(ImportEntitiesResponse::default()));
    world.fake("catalog").on(FACTS, |_: GetResourceFactsRequest| Ok(ResourceFacts::default()));
    let mut client = world.catalog("alice", "acme").await;
    let import = || ImportEntitiesRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    client.import_entities(import()).await.unwrap();
    let asked: Vec<DecideRequest> =
        world.fake("policy").calls(DECIDE).into_iter().map(|call| call.decode()).collect();
    let actions: Vec<&str> = asked.iter().map(|question| question.action.as_str()).collect();
    assert_eq!(
        actions,
        [
            "catalog.entities.create",
            "catalog.entities.update",
            "identity.groups.create",
            "identity.groups.update",
            "identity.memberships.create",
            "identity.memberships.delete",
            "identity.users.create",
            "identity.users.update",
            "catalog.entities.import",
        ]
    );
    assert!(
        asked[1].context.as_ref().unwrap().moves_owner && !asked[8].context.as_ref().unwrap().moves_owner
    );
    // Whoever may not do one of them does none.
    world.decide(|question| match question.action.as_str() {
        "identity.groups.update" => Ok(deny(&[("own-teams", PolicyType::Access, "not your team")])),
        _ => Ok(allow()),
    });
    let status = client.import_entities(import()).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(from_status(&status).metadata["action"], "identity.groups.update");
    assert_eq!(world.fake("catalog").calls(IMPORT).len(), 1);
}

#[tokio::test]
async fn policy_is_asked_about_every_owner_within_an_import() {
    let world = World::new().await;
    let group = |id: &str| format!("organizations/acme/groups/{id}");
    world.fake("catalog").on(IMPORT, |_: ImportEntitiesRequest| Ok(ImportEntitiesResponse::default()));
    world.fake("catalog").on(FACTS, move |request: GetResourceFactsRequest| {
        let import = ImportEntitiesRequest::decode(request.message.as_slice()).unwrap();
        let change = |action: &str, owner: String, new_owner: String| OwnerChange {
            action: format!("catalog.entities.{action}"),
            r#type: "catalog.pavior.dev/Entity".to_owned(),
            moves: action == "update" && owner != new_owner,
            owner,
            new_owner,
        };
        let mut owner_changes = vec![change("update", group("storefront"), group("payments"))];
        owner_changes.resize(import.documents.len(), change("create", String::new(), group("storefront")));
        Ok(ResourceFacts { name: request.name, owner_changes, ..Default::default() })
    });
    let mut client = world.catalog("alice", "acme").await;
    let import = |documents: usize| ImportEntitiesRequest {
        parent: "organizations/acme".to_owned(),
        documents: vec![Document::default(); documents],
        ..Default::default()
    };
    client.import_entities(import(2)).await.unwrap();
    let asked: Vec<DecideRequest> =
        world.fake("policy").calls(DECIDE).into_iter().skip(9).map(|call| call.decode()).collect();
    let asked = asked.into_iter().map(|question| {
        let (resource, context) = (question.resource.unwrap(), question.context.unwrap());
        assert_eq!(resource.r#type, "catalog.pavior.dev/Entity");
        (question.action, resource.owner, context.new_owner, context.moves_owner)
    });
    let (update, create) = ("catalog.entities.update".to_owned(), "catalog.entities.create".to_owned());
    let group = |id: &str| format!("organizations/acme/groups/{id}");
    assert_eq!(
        asked.collect::<Vec<_>>(),
        [
            (update, group("storefront"), group("payments"), true),
            (create, String::new(), group("storefront"), false)
        ]
    );
    assert_eq!(world.fake("catalog").calls(IMPORT)[0].permit.as_ref().unwrap().facts().len(), 32);
    // Whoever may not write for one of them imports nothing.
    let storefront = group("storefront");
    world.decide(move |question| match question.context.unwrap_or_default().new_owner == storefront {
        true => Ok(deny(&[("own-teams", PolicyType::Access, "not your team")])),
        false => Ok(allow()),
    });
    let status = client.import_entities(import(2)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    assert_eq!(from_status(&status).metadata["action"], "catalog.entities.create");
    world.decide(|_| Ok(allow()));
    let status = client.import_entities(import(201)).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert!(from_status(&status).violations[0].description.contains("more than 200"), "{status:?}");
    assert_eq!(world.fake("catalog").calls(IMPORT).len(), 1);
    // What is wrong with the documents is told as it is.
    world.fake("catalog").on(FACTS, |_: GetResourceFactsRequest| {
        Err::<ResourceFacts, _>(
            Problem::invalid_field("documents[0].content", Fault::Syntax, "is not valid YAML").into(),
        )
    });
    let status = client.import_entities(import(1)).await.unwrap_err();
    assert_eq!(from_status(&status).violations[0].field, "documents[0].content");
    // Without an answer nothing is imported.
    world
        .fake("catalog")
        .on(FACTS, |_: GetResourceFactsRequest| Err::<ResourceFacts, _>(Problem::internal("broken").into()));
    let status = client.import_entities(import(1)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(world.fake("catalog").calls(IMPORT).len(), 1);
}
