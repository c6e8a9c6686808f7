//! Nobody sees what is not theirs: not another system in the same process, not another organization.

use anyhow::{Result, ensure};
use pavior::cli::apply::Source;
use pavior::starter::{self, Databases};
use pavior_proto::pavior::audit::v1 as audit;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_proto::pavior::platform::v1 as platform;
use pavior_proto::pavior::policy::v1 as policy;
use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_tests::{Embedded, Person};
use tonic::{Code, Status};

#[tokio::test(flavor = "multi_thread")]
async fn two_systems_in_one_process_do_not_see_each_other() -> Result<()> {
    let (one, two) = tokio::try_join!(Embedded::start(), Embedded::start())?;
    one.person("alice")?.create_project("only-here").await?;
    let name = "organizations/acme/projects/only-here".to_owned();
    let status = two
        .person("alice")?
        .projects()
        .get_project(pb::GetProjectRequest { name, ..Default::default() })
        .await
        .unwrap_err();
    ensure!(status.code() == Code::NotFound, "{status}");
    // A token of one system is nothing to the other.
    let stranger = Person::new(&two.system().server(), one.data(), "alice", "acme")?;
    let status = stranger.platform().who_am_i(platform::WhoAmIRequest {}).await.unwrap_err();
    ensure!(status.code() == Code::Unauthenticated, "{status}");
    one.stop().await?;
    two.stop().await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_organization_gets_nothing_of_another() -> Result<()> {
    let system = Embedded::with(|config| {
        config.development.organizations.push("globex".to_owned());
        Ok(())
    })
    .await?;
    system.apply(&starter::documents(Databases::Sqlite)?).await?;
    let alice = system.person("alice")?;
    let operation = alice.projects().create_project(alice.project("secret-plan")).await?.into_inner();
    alice.finish(&operation).await?;
    let globex = Source {
        origin: "globex".to_owned(),
        text: "type: identity.pavior.dev/Organization\nname: organizations/globex\n".to_owned(),
    };
    system.apply(&[globex]).await?;
    let mallory = system.person_of("mallory", "globex")?;
    let acme = || "organizations/acme".to_owned();
    let refusals: Vec<Status> = vec![
        mallory
            .projects()
            .get_project(pb::GetProjectRequest {
                name: "organizations/acme/projects/secret-plan".to_owned(),
                ..Default::default()
            })
            .await
            .unwrap_err(),
        mallory
            .projects()
            .list_projects(pb::ListProjectsRequest { parent: acme(), ..Default::default() })
            .await
            .unwrap_err(),
        mallory
            .operation_service()
            .watch_operation(pb::WatchOperationRequest { name: operation.name.clone(), ..Default::default() })
            .await
            .unwrap_err(),
        mallory
            .identity()
            .list_users(identity_pb::ListUsersRequest { parent: acme(), ..Default::default() })
            .await
            .unwrap_err(),
        mallory
            .policies()
            .list_policies(policy::ListPoliciesRequest { parent: acme(), ..Default::default() })
            .await
            .unwrap_err(),
        mallory
            .audit()
            .list_audit_records(audit::ListAuditRecordsRequest { parent: acme(), ..Default::default() })
            .await
            .unwrap_err(),
    ];
    for status in refusals {
        ensure!(status.code() == Code::PermissionDenied, "{status}");
        ensure!(
            !status.message().contains("secret-plan") || status.message().contains("might not exist"),
            "{status}"
        );
    }
    // What does not exist looks just the same.
    let absent = "organizations/acme/projects/absent".to_owned();
    let status = mallory
        .projects()
        .get_project(pb::GetProjectRequest { name: absent, ..Default::default() })
        .await
        .unwrap_err();
    ensure!(status.code() == Code::PermissionDenied, "{status}");
    system.stop().await
}
