//! A change that is asked for again under its request id, through the whole system.

use anyhow::{Result, ensure};
use pavior::cli::client::request_id;
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_tests::{Embedded, details};
use tonic::Code;

const STOREFRONT: &str = "organizations/acme/groups/storefront";

fn entity(id: &str, owner: &str) -> pb::CreateEntityRequest {
    let spec = serde_json::json!({ "type": "service", "lifecycle": "production" });
    pb::CreateEntityRequest {
        parent: "organizations/acme/kinds/component".to_owned(),
        entity_id: id.to_owned(),
        entity: Some(pb::Entity {
            owner: owner.to_owned(),
            spec: pavior_rpc::convert::to_struct(&spec).ok(),
            ..Default::default()
        }),
        request_id: request_id(),
        validate_only: false,
    }
}

/// Alice may because her team owns it. That it is gone, or somebody else's by now, is the doing of the first call.
#[tokio::test(flavor = "multi_thread")]
async fn whoever_may_because_they_own_the_target_may_ask_again_when_it_is_gone() -> Result<()> {
    let system = Embedded::start().await?;
    let (alice, pia) = (system.person("alice")?, system.person("pia")?);
    let made = alice.catalog().create_entity(entity("cart", STOREFRONT)).await?.into_inner();
    let delete =
        pb::DeleteEntityRequest { name: made.name.clone(), request_id: request_id(), ..Default::default() };
    alice.catalog().delete_entity(delete.clone()).await?;
    alice.catalog().delete_entity(delete.clone()).await?;
    let shouted = pb::DeleteEntityRequest { request_id: delete.request_id.to_uppercase(), ..delete.clone() };
    alice.catalog().delete_entity(shouted).await?;

    // Somebody else makes one of the same name: it stays, and who has nothing to do with it may do nothing to it.
    pia.catalog().create_entity(entity("cart", "organizations/acme/groups/platform")).await?;
    alice.catalog().delete_entity(delete.clone()).await?;
    let get = pb::GetEntityRequest { name: made.name.clone(), ..Default::default() };
    let theirs = alice.catalog().get_entity(get).await?.into_inner();
    ensure!(theirs.owner.ends_with("/platform"), "{theirs:?}");
    for other in [
        pb::DeleteEntityRequest { request_id: request_id(), ..delete.clone() },
        pb::DeleteEntityRequest { validate_only: true, ..delete.clone() },
    ] {
        let status = alice.catalog().delete_entity(other).await.unwrap_err();
        ensure!(status.code() == Code::PermissionDenied, "{status}");
    }
    // The id opens nothing else.
    let another = pia.catalog().create_entity(entity("till", "organizations/acme/groups/platform")).await?;
    let name = another.into_inner().name;
    let status =
        alice.catalog().delete_entity(pb::DeleteEntityRequest { name, ..delete.clone() }).await.unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "{status}");
    let other = pb::DeleteEntityRequest { allow_missing: true, ..delete };
    let status = alice.catalog().delete_entity(other).await.unwrap_err();
    ensure!(details(&status).0 == "REQUEST_ID_REUSED", "{status}");
    system.stop().await
}
