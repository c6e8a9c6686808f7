//! Every service in a process of its own, on PostgreSQL, with two gateways.

use anyhow::{Result, ensure};
use pavior::starter::Databases;
use pavior_proto::pavior::catalog::v1 as catalog;
use pavior_proto::pavior::catalog::v1::template_service_client::TemplateServiceClient;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::identity::v1::identity_service_client::IdentityServiceClient;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db;
use pavior_tests::{Person, Processes, details};
use tonic::Code;

use crate::main_job;

const SERVICES: [&str; 4] = ["audit", "catalog", "policy", "provisioning"];

struct Split {
    processes: Processes,
    databases: Vec<(&'static str, db::TestDb)>,
}

impl Split {
    /// Starts five services and a second gateway; nothing when there is no PostgreSQL.
    async fn start() -> Result<Option<Self>> {
        let mut databases = Vec::new();
        for role in SERVICES {
            let Some(database) = db::postgres().await else { return Ok(None) };
            databases.push((role, database));
        }
        let Some(projects) = db::postgres().await else { return Ok(None) };
        let processes = Processes::new(&[("drivers.postgres_url", &projects.url)])?;
        let keys = processes.data().join("keys");
        pavior::serve::generate_keys(&keys)?;
        databases.push(("projects", projects));
        let mut split = Self { processes, databases };
        for role in SERVICES {
            split.start_service(role)?;
        }
        for gateway in ["gateway", "gateway-2"] {
            split.start_role(gateway, "gateway", Vec::new())?;
        }
        split.processes.load_starter_kit(Databases::Postgres).await?;
        Ok(Some(split))
    }

    fn start_service(&mut self, role: &'static str) -> Result<()> {
        let url = self.databases.iter().find(|(name, _)| *name == role).map(|(_, db)| db.url.clone());
        let extra = vec![(format!("{role}.database.url"), url.unwrap_or_default())];
        self.start_role(role, role, extra)
    }

    fn start_role(&mut self, name: &str, role: &str, mut extra: Vec<(String, String)>) -> Result<()> {
        let keys = self.processes.data().join("keys");
        let private = keys.join("private").join(role);
        extra.push(("internal.private_key_dir".to_owned(), private.display().to_string()));
        for peer in SERVICES {
            if let Ok(address) = self.processes.address(peer) {
                extra.push((format!("peers.{peer}"), format!("http://{address}")));
            }
        }
        let extra: Vec<(&str, String)> =
            extra.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        self.processes.start(name, &[role], &extra)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_over_six_processes_on_postgresql() -> Result<()> {
    let Some(mut split) = Split::start().await? else { return Ok(()) };
    main_job::tell(&|name| split.processes.person(name)).await?;
    direct_calls_are_refused(&split).await?;
    policy_down_and_up(&mut split).await?;
    let audit = split.databases.iter().find(|(name, _)| *name == "audit").map(|(_, db)| db.url.clone());
    let report = pavior_audit_verifier::verify_database(&audit.unwrap_or_default(), None).await?;
    ensure!(report.records() > 50, "{report:?}");
    for name in ["gateway", "gateway-2", "provisioning", "policy", "catalog", "audit"] {
        split.processes.stop(name)?;
    }
    Ok(())
}

/// A service lets nobody in but those who bring a token that a service of this system has signed.
async fn direct_calls_are_refused(split: &Split) -> Result<()> {
    let address = format!("http://{}", split.processes.address("catalog")?);
    let channel = tonic::transport::Endpoint::from_shared(address)?.connect().await?;
    let request =
        || identity_pb::ListUsersRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    let status = IdentityServiceClient::new(channel.clone()).list_users(request()).await.unwrap_err();
    ensure!(status.code() == Code::Unauthenticated, "without a token: {status}");

    // A token that is well made, but signed by a key that nobody knows.
    let other = tempfile::tempdir()?;
    pavior::serve::generate_keys(other.path())?;
    let key = std::fs::read_to_string(other.path().join("private/gateway/gateway.pem"))?;
    let signer = pavior_auth::InternalSigner::from_pem(&key)?;
    let clock = std::sync::Arc::new(pavior_core::clock::SystemClock);
    let ids = std::sync::Arc::new(pavior_core::id_gen::SystemIds);
    let forger = pavior_auth::ServiceIdentity::new("gateway", signer, clock, ids);
    let address = format!("http://{}", split.processes.address("catalog")?);
    let transport = forger.transport(pavior_rpc::remote(&address, None), "catalog");
    let permit = pavior_auth::Permit::for_system(&forger.authority(), "acme");
    let status = IdentityServiceClient::new(transport)
        .list_users(forger.request(&permit, request()))
        .await
        .unwrap_err();
    ensure!(status.code() == Code::Unauthenticated, "with a forged token: {status}");

    provisioning_alone_writes_nobodys_directory(split, &address).await?;

    // A token from outside is no internal token.
    let outside = Person::new(&address, split.processes.data(), "alice", "acme")?;
    let status = outside.identity().list_users(request()).await.unwrap_err();
    ensure!(status.code() == Code::Unauthenticated, "with a caller's token: {status}");
    Ok(())
}

/// Whoever has provisioning's key may register the entities of its resources, and nothing else in the catalog.
async fn provisioning_alone_writes_nobodys_directory(split: &Split, address: &str) -> Result<()> {
    let key = split.processes.data().join("keys/private/provisioning/provisioning.pem");
    let signer = pavior_auth::InternalSigner::from_pem(&std::fs::read_to_string(key)?)?;
    let clock = std::sync::Arc::new(pavior_core::clock::SystemClock);
    let ids = std::sync::Arc::new(pavior_core::id_gen::SystemIds);
    let thief = pavior_auth::ServiceIdentity::new("provisioning", signer, clock, ids);
    let transport = thief.transport(pavior_rpc::remote(address, None), "catalog");
    let directory = IdentityServiceClient::new(transport.clone());
    let mut templates = TemplateServiceClient::new(transport);
    let permit = pavior_auth::Permit::for_system(&thief.authority(), "acme");
    let user = identity_pb::CreateUserRequest {
        parent: "organizations/acme".to_owned(),
        user_id: "mallory".to_owned(),
        user: Some(identity_pb::User::default()),
        ..Default::default()
    };
    let membership = identity_pb::CreateMembershipRequest {
        parent: "organizations/acme/groups/platform".to_owned(),
        membership: Some(identity_pb::Membership {
            member: "organizations/acme/users/alice".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let group = identity_pb::UpdateGroupRequest {
        group: Some(identity_pb::Group {
            name: "organizations/acme/groups/platform".to_owned(),
            parent_group: "organizations/acme/groups/engineering".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let version = catalog::CreateTemplateVersionRequest {
        parent: "organizations/acme/templates/web-service".to_owned(),
        ..Default::default()
    };
    let refused = [
        directory.clone().create_user(thief.request(&permit, user)).await.unwrap_err(),
        directory.clone().create_membership(thief.request(&permit, membership)).await.unwrap_err(),
        directory.clone().update_group(thief.request(&permit, group)).await.unwrap_err(),
        templates.create_template_version(thief.request(&permit, version)).await.unwrap_err(),
    ];
    for status in refused {
        let reason = details(&status).0;
        let wanted = (Code::PermissionDenied, "CALLER_NOT_ALLOWED");
        ensure!((status.code(), reason.as_str()) == wanted, "{status}");
    }
    Ok(())
}

/// Without policy nothing is changed; with it again, everything works, and nobody was restarted.
async fn policy_down_and_up(split: &mut Split) -> Result<()> {
    let alice = split.processes.person("alice")?;
    let port = split.processes.address("policy")?;
    split.processes.kill("policy")?;
    let status = alice.projects().create_project(alice.project("closed")).await.unwrap_err();
    ensure!(status.code() == Code::Unavailable, "{status}");
    ensure!(!details(&status).0.is_empty(), "{status}");

    let url = split.databases.iter().find(|(name, _)| *name == "policy").map(|(_, db)| db.url.clone());
    let extra =
        vec![("policy.database.url".to_owned(), url.unwrap_or_default()), ("listen.policy".to_owned(), port)];
    split.start_role("policy", "policy", extra)?;
    let request = pb::ListProjectsRequest { parent: "organizations/acme".to_owned(), ..Default::default() };
    alice.projects().list_projects(request).await?;
    alice.create_project("open").await?;
    Ok(())
}
