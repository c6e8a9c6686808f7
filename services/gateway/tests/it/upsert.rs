//! Updates that make what is not there are decided on as creations, too.

use pavior_proto::pavior::catalog::v1::{Entity, UpdateEntityRequest};
use pavior_proto::pavior::governance::internal::v1::{GetResourceFactsRequest, ResourceFacts};
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::identity::v1::{Group, UpdateGroupRequest};
use pavior_proto::pavior::policy::internal::v1::DecideRequest;
use pavior_rpc::facts::fingerprint;
use pavior_testkit::assert_problem;
use tonic::Code;

use crate::governance::deny;
use crate::harness::{DECIDE, ENTITY, FACTS, World, allow};

const KIND: &str = "organizations/acme/kinds/component";
const PAYMENTS: &str = "organizations/acme/groups/payments";
const UPDATE_ENTITY: &str = "/pavior.catalog.v1.CatalogService/UpdateEntity";
const UPDATE_GROUP: &str = "/pavior.identity.v1.IdentityService/UpdateGroup";

/// The catalog has the entity, or nothing but its kind.
fn facts(exists: bool) -> ResourceFacts {
    let (name, kind) = if exists { (ENTITY, "Entity") } else { (KIND, "Kind") };
    let owner = if exists { PAYMENTS.to_owned() } else { String::new() };
    let r#type = format!("catalog.pavior.dev/{kind}");
    ResourceFacts { name: name.to_owned(), exists, r#type, owner, ..Default::default() }
}

async fn world(exists: bool) -> World {
    let world = World::new().await;
    world.fake("catalog").on(FACTS, move |_: GetResourceFactsRequest| Ok(facts(exists)));
    world.fake("catalog").on(UPDATE_ENTITY, |_: UpdateEntityRequest| Ok(Entity::default()));
    world.fake("catalog").on(UPDATE_GROUP, |_: UpdateGroupRequest| Ok(Group::default()));
    world
}

fn update(owner: &str, paths: &[&str]) -> UpdateEntityRequest {
    let paths = paths.iter().map(|path| (*path).to_owned()).collect();
    UpdateEntityRequest {
        entity: Some(Entity { name: ENTITY.to_owned(), owner: owner.to_owned(), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths }),
        allow_missing: true,
        ..Default::default()
    }
}

/// Action, resource, its owner, who is to own it, and whether it moves.
type Asked = (String, String, String, String, bool);

fn questions(world: &World) -> Vec<Asked> {
    let asked = world.fake("policy").calls(DECIDE).into_iter().map(|call| {
        let DecideRequest { action, resource, context, .. } = call.decode();
        let (facts, context) = (resource.unwrap(), context.unwrap());
        (action, facts.name, facts.owner, context.new_owner, context.moves_owner)
    });
    asked.collect()
}

fn asked(action: &str, resource: &str, owner: &str, new_owner: &str, moves: bool) -> Asked {
    let [action, resource, owner, new_owner] = [action, resource, owner, new_owner].map(str::to_owned);
    (action, resource, owner, new_owner, moves)
}

#[tokio::test]
async fn what_is_missing_is_created_by_whoever_may_create_it_for_its_owner() {
    let world = world(false).await;
    let mut client = world.catalog("alice", "acme").await;
    // The mask does not matter to what is made.
    client.update_entity(update(PAYMENTS, &["spec"])).await.unwrap();
    let wanted = ["catalog.entities.create", "catalog.entities.update"];
    assert_eq!(questions(&world), wanted.map(|action| asked(action, KIND, "", PAYMENTS, false)));
    let create: DecideRequest = world.fake("policy").calls(DECIDE).remove(0).decode();
    assert_eq!(create.resource.unwrap().r#type, "catalog.pavior.dev/Kind");
    // The service looks whether it still is missing when it makes it.
    let permit = world.fake("catalog").calls(UPDATE_ENTITY).pop().unwrap().permit.unwrap();
    assert_eq!(permit.facts(), fingerprint(&facts(false)));
}

#[tokio::test]
async fn what_exists_is_updated_by_whoever_may_update_it() {
    let world = world(true).await;
    let mut client = world.catalog("alice", "acme").await;
    client.update_entity(update("", &["spec"])).await.unwrap();
    client
        .update_entity(UpdateEntityRequest { allow_missing: false, ..update("", &["spec"]) })
        .await
        .unwrap();
    let update = || asked("catalog.entities.update", ENTITY, PAYMENTS, "", false);
    assert_eq!(questions(&world), [update(), update()]);
}

#[tokio::test]
async fn without_the_right_to_create_nothing_reaches_the_service() {
    let world = world(false).await;
    world.decide(|request| match request.action.ends_with(".create") {
        true => Ok(deny(&[])),
        false => Ok(allow()),
    });
    let mut client = world.catalog("alice", "acme").await;
    let refused = client.update_entity(update(PAYMENTS, &["*"])).await;
    let metadata = [("action", "catalog.entities.create"), ("field", "entity.owner")];
    let problem = assert_problem(refused, Code::PermissionDenied, "ACCESS_DENIED", &metadata);
    assert!(problem.message.contains(&format!("denied on resource '{KIND}'")), "{}", problem.message);
    assert!(world.fake("catalog").calls(UPDATE_ENTITY).is_empty());
    // Whoever does not ask for it is told by the service that there is none.
    let plain = UpdateEntityRequest { allow_missing: false, ..update(PAYMENTS, &["*"]) };
    client.update_entity(plain).await.unwrap();
}

/// Otherwise nobody is asked about groups, as policy needs nothing but their names.
#[tokio::test]
async fn the_service_is_asked_whether_it_exists_where_that_matters() {
    let world = world(false).await;
    let mut client = IdentityServiceClient::new(world.caller("alice", "acme").await);
    let name = "organizations/acme/groups/new".to_owned();
    let group = Some(Group { name: name.clone(), ..Default::default() });
    let update = UpdateGroupRequest { group, ..Default::default() };
    client.update_group(update.clone()).await.unwrap();
    assert!(world.fake("catalog").calls(FACTS).is_empty());
    assert_eq!(questions(&world), [asked("identity.groups.update", &name, "", "", false)]);
    client.update_group(UpdateGroupRequest { allow_missing: true, ..update }).await.unwrap();
    let question: GetResourceFactsRequest = world.fake("catalog").calls(FACTS).remove(0).decode();
    assert_eq!(question.name, name);
    let create = asked("identity.groups.create", "organizations/acme", "", "", false);
    assert_eq!(questions(&world)[1], create);
}
