//! The audit service away and back, and what is refused so that its records can always be delivered.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use pavior::cli::apply;
use pavior::cli::client::request_id;
use pavior::serve::{Config, DEV_OPERATOR, Role, System};
use pavior::starter::{self, Databases};
use pavior_proto::pavior::audit::v1::{AuditRecord, ListAuditRecordsRequest};
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::catalog::v1::catalog_service_client::CatalogServiceClient;
use pavior_rpc::convert::to_struct;
use pavior_tests::{Person, details};
use serde_json::{Value, json};
use tonic::{Code, Status};

const ENTITIES: usize = 120;
const BYTES: usize = 240_000;

/// The audit service in a system of its own, and everything else in another.
struct Apart {
    data: tempfile::TempDir,
    audit: Option<System>,
    rest: System,
    listener: std::net::SocketAddr,
}

impl Apart {
    async fn start() -> Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let data = pavior_files::temporary_directory("pavior-e2e-")?;
        let keys = data.path().join("keys");
        pavior::serve::generate_keys(&keys)?;
        let together = keys.join("together");
        std::fs::create_dir(&together)?;
        for role in Role::ALL {
            let file = format!("{}.pem", role.name());
            std::fs::copy(keys.join("private").join(role.name()).join(&file), together.join(&file))?;
        }
        let audit = System::start(Self::config(data.path())?, &[Role::Audit]).await?;
        let listener = audit.address("audit");
        let mut config = Self::config(data.path())?;
        config.peers.insert("audit".to_owned(), format!("http://{listener}"));
        let roles = [Role::Catalog, Role::Policy, Role::Provisioning, Role::Gateway];
        let rest = System::start(config, &roles).await?;
        let apart = Self { data, audit: Some(audit), rest, listener };
        let documents = starter::documents(Databases::Sqlite)?;
        apply::apply(&*apart.person(DEV_OPERATOR)?, &documents, |_, _| {}).await?;
        Ok(apart)
    }

    fn config(data: &Path) -> Result<Config> {
        let mut config = Config::embedded(data, &pavior_tests::binary()?)?;
        config.drivers.skeleton_roots = vec![pavior_tests::starter().join("skeletons").canonicalize()?];
        config.internal.private_key_dir = Some(data.join("keys").join("together"));
        Ok(config)
    }

    fn person(&self, name: &str) -> Result<Person> {
        Person::new(&self.rest.server(), self.data.path(), name, starter::ORGANIZATION)
    }

    async fn audit_leaves(&mut self) -> Result<()> {
        self.audit.take().context("the audit service runs")?.stop().await
    }

    async fn audit_returns(&mut self) -> Result<()> {
        let mut config = Self::config(self.data.path())?;
        config.listen.audit = self.listener;
        self.audit = Some(System::start(config, &[Role::Audit]).await?);
        Ok(())
    }

    /// Stops both, and verifies the log, which has more records than so many.
    async fn stop(self, records: usize) -> Result<()> {
        self.rest.stop().await?;
        if let Some(audit) = self.audit {
            audit.stop().await?;
        }
        let database = pavior::serve::database_file(self.data.path(), "audit");
        let report = pavior_audit_verifier::verify_database(&database.display().to_string(), None).await?;
        ensure!(report.records() > records as u64, "{report:?}");
        Ok(())
    }
}

fn entity(id: &str, spec: &Value) -> pb::CreateEntityRequest {
    pb::CreateEntityRequest {
        parent: "organizations/acme/kinds/system".to_owned(),
        entity_id: id.to_owned(),
        entity: Some(pb::Entity {
            owner: "organizations/acme/groups/storefront".to_owned(),
            spec: to_struct(spec).ok(),
            ..pb::Entity::default()
        }),
        request_id: request_id(),
        ..Default::default()
    }
}

/// Objects in one another.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({ "n": 1 }), |inner, _| json!({ "a": inner }))
}

/// Every record of an action.
async fn records(person: &Person, action: &str) -> Result<Vec<AuditRecord>> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAuditRecordsRequest {
            parent: "organizations/acme".to_owned(),
            filter: format!("event.action = \"{action}\""),
            page_size: 1_000,
            page_token,
            ..Default::default()
        };
        let page = person.audit().list_audit_records(request).await?.into_inner();
        found.extend(page.audit_records);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

fn after(record: &AuditRecord) -> Result<Value> {
    let change = record.event.as_ref().and_then(|event| event.change.as_ref()).context("a change")?;
    Ok(serde_json::from_slice(&change.after)?)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_made_while_the_audit_service_is_away_is_recorded_whole_when_it_is_back() -> Result<()> {
    let mut apart = Apart::start().await?;
    let pia = apart.person("pia")?;
    let spec = json!({ "text": "x".repeat(BYTES) });
    let before = records(&pia, "catalog.entities.create").await?.len();
    apart.audit_leaves().await?;
    for number in 0..ENTITIES {
        pia.catalog().create_entity(entity(&format!("large-{number}"), &spec)).await?;
    }
    apart.audit_returns().await?;
    let limit = std::time::Duration::from_secs(60);
    let recorded = tokio::time::timeout(limit, async {
        loop {
            // Away is no answer; it comes back.
            if let Ok(recorded) = records(&pia, "catalog.entities.create").await
                && recorded.len() >= before + ENTITIES
            {
                return recorded;
            }
            tokio::task::yield_now().await;
        }
    });
    let recorded = recorded.await.context("the records arrive")?;
    ensure!(recorded.len() == before + ENTITIES, "{} records", recorded.len());
    let mut names = std::collections::BTreeSet::new();
    for record in recorded.iter().skip(before) {
        let event = record.event.as_ref().context("an event")?;
        names.insert(event.target.as_ref().context("a target")?.name.clone());
        let text = after(record)?["spec"]["text"].as_str().map(str::len);
        ensure!(text == Some(BYTES), "the record holds the entity whole: {text:?}");
    }
    ensure!(names.len() == ENTITIES, "each entity has one record");
    apart.stop(ENTITIES).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nests_too_deep_is_refused_at_every_door_and_nothing_is_written() -> Result<()> {
    let apart = Apart::start().await?;
    let pia = apart.person("pia")?;
    let refused = |status: Status| -> Result<()> {
        let (reason, details) = details(&status);
        ensure!(status.code() == Code::InvalidArgument && reason == "INVALID_FIELD", "{status:?}");
        let violation = details.bad_request().and_then(|bad| bad.field_violations.first()).cloned();
        let violation = violation.context("a violation")?;
        ensure!(violation.field == "entity.spec", "{violation:?}");
        ensure!(violation.description.contains("32 levels"), "{violation:?}");
        let limit = details.error_info().and_then(|info| info.metadata.get("limitLevels").cloned());
        ensure!(limit.as_deref() == Some("32"), "{limit:?}");
        Ok(())
    };
    for levels in [33, 100] {
        refused(pia.catalog().create_entity(entity("deep", &nested(levels))).await.unwrap_err())?;
    }

    // Straight to the service, as the gateway would call it.
    let key = std::fs::read_to_string(apart.data.path().join("keys/private/gateway/gateway.pem"))?;
    let signer = pavior_auth::InternalSigner::from_pem(&key)?;
    let (clock, ids) = (Arc::new(pavior_core::clock::SystemClock), Arc::new(pavior_core::id_gen::SystemIds));
    let gateway = pavior_auth::ServiceIdentity::new("gateway", signer, clock, ids);
    let address = format!("http://{}", apart.rest.address("catalog"));
    let transport = pavior_testkit::governed(&gateway, pavior_rpc::remote(&address, None), "catalog");
    let permit = pavior_auth::Permit::for_system(&gateway.authority(), "acme");
    let mut direct = CatalogServiceClient::new(transport);
    for levels in [33, 100] {
        let request = gateway.request(&permit, entity("deep", &nested(levels)));
        refused(direct.create_entity(request).await.unwrap_err())?;
    }

    let name = "organizations/acme/kinds/system/entities/deep".to_owned();
    let status =
        pia.catalog().get_entity(pb::GetEntityRequest { name, ..Default::default() }).await.unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    // The deepest that is let in is kept, recorded and read again.
    pia.catalog().create_entity(entity("deep", &nested(32))).await?;
    let name = "organizations/acme/kinds/system/entities/deep".to_owned();
    let made =
        pia.catalog().get_entity(pb::GetEntityRequest { name, ..Default::default() }).await?.into_inner();
    ensure!(made.spec == to_struct(&nested(32)).ok(), "{made:?}");
    let recorded = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        loop {
            let recorded = records(&pia, "catalog.entities.create").await?;
            if let Some(record) =
                recorded.into_iter().find(|r| after(r).is_ok_and(|a| a["spec"]["a"].is_object()))
            {
                return anyhow::Ok(record);
            }
            tokio::task::yield_now().await;
        }
    });
    ensure!(after(&recorded.await??)?["spec"] == nested(32));
    apart.stop(1).await
}
