//! A running audit service and the clients of it.

use std::sync::Arc;
use std::time::Duration;

use pavior_audit::{Config, Deps};
use pavior_audit_verifier::{Report, verify_database};
use pavior_auth::Permit;
use pavior_core::audit::{
    self as audit_words, Affected, AuditClass, AuditEvent, Cause, Change, Code, DecisionRef, Effect, Outcome,
    PrincipalKind, PrincipalRef,
};
use pavior_core::digest::sha256_digest;
use pavior_core::principal::INSTALLATION;
use pavior_proto::pavior::audit::internal::v1 as recorder_pb;
use pavior_proto::pavior::audit::internal::v1::recorder_service_client::RecorderServiceClient;
use pavior_proto::pavior::audit::v1 as pb;
use pavior_proto::pavior::audit::v1::audit_service_client::AuditServiceClient;
use pavior_rpc::server::Drain;
use pavior_rpc::{StackOptions, Transport, audit, local};
use pavior_runtime::{HealthCheck, Severity};
use pavior_testkit::db::TestDb;
use pavior_testkit::{ManualClock, ServiceHarness, meter};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Status};
use uuid::Uuid;

/// The service as one caller sees it.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    audit: AuditServiceClient<Transport>,
    recorder: RecorderServiceClient<Transport>,
}

impl Client {
    pub(crate) async fn append_records(
        &mut self,
        request: Request<recorder_pb::AppendRecordsRequest>,
    ) -> Result<tonic::Response<recorder_pb::AppendRecordsResponse>, Status> {
        self.recorder.append_records(request).await
    }

    pub(crate) async fn get_producer_state(
        &mut self,
        request: Request<recorder_pb::GetProducerStateRequest>,
    ) -> Result<tonic::Response<recorder_pb::ProducerState>, Status> {
        self.recorder.get_producer_state(request).await
    }
}

impl std::ops::Deref for Client {
    type Target = AuditServiceClient<Transport>;

    fn deref(&self) -> &Self::Target {
        &self.audit
    }
}

impl std::ops::DerefMut for Client {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.audit
    }
}

/// What outlives a restart: the database, the key, the identities of the peers.
pub(crate) struct Fixture {
    pub(crate) db: TestDb,
    pub(crate) folder: tempfile::TempDir,
    pub(crate) clock: Arc<ManualClock>,
    harness: ServiceHarness,
}

/// A service that runs.
pub(crate) struct Running {
    transport: Transport,
    pub(crate) drain: Drain,
    checks: Vec<HealthCheck>,
    cancel: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Fixture {
    pub(crate) fn new(db: TestDb) -> Self {
        let harness = ServiceHarness::new(pavior_audit::ROLE, &["catalog", "policy", "provisioning"]);
        let folder = tempfile::tempdir().unwrap();
        Self { db, folder, clock: harness.clock.clone(), harness }
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            database: self.db.config(),
            signing_key_file: Some(self.folder.path().join("keys/audit.pem")),
            ..Config::default()
        }
    }

    pub(crate) async fn start(&self) -> Running {
        self.start_with(self.config()).await.unwrap()
    }

    pub(crate) async fn start_with(&self, config: Config) -> anyhow::Result<Running> {
        let drain = Drain::default();
        let store = pavior_store::Store::connect(&config.database, pavior_audit::ROLE).await?;
        let deps = Deps { store, clock: self.clock.clone(), meter: meter() };
        let component = pavior_audit::build(config, deps).await?;
        let options = StackOptions {
            max_concurrency: 4_096,
            max_message_bytes: pavior_audit::MAX_REQUEST_BYTES,
            drain: drain.clone(),
            ..StackOptions::default()
        };
        let cancel = CancellationToken::new();
        let tasks = component.tasks.into_iter().map(|task| {
            let run = (task.run)(cancel.clone());
            tokio::spawn(async move { run.await.unwrap() })
        });
        let tasks = tasks.collect();
        let transport = local(self.harness.stack(component.routes, options));
        Ok(Running { transport, drain, checks: component.checks, cancel, tasks })
    }

    /// A request of a service as itself, for an organization.
    pub(crate) fn request<T>(&self, role: &str, organization: &str, message: T) -> Request<T> {
        let identity = self.harness.identity(role);
        identity.request(&Permit::for_system(&identity.authority(), organization), message)
    }

    /// A caller's way to the service.
    pub(crate) fn transport(&self, running: &Running, role: &str) -> Transport {
        pavior_testkit::governed(self.harness.identity(role), running.transport.clone(), pavior_audit::ROLE)
    }

    pub(crate) fn client(&self, running: &Running, role: &str) -> Client {
        let transport = self.transport(running, role);
        Client {
            audit: AuditServiceClient::new(transport.clone()).max_decoding_message_size(8 * 1024 * 1024),
            recorder: RecorderServiceClient::new(transport),
        }
    }

    /// What an outbox ships through.
    pub(crate) fn sink(&self, running: &Running, role: &str) -> audit::AuditSink {
        audit::AuditSink::new(self.harness.signed_by(role, running.transport.clone()), &meter())
    }

    /// Appends events to the log of one organization under a producer's next numbers.
    pub(crate) async fn append(
        &self,
        client: &mut Client,
        role: &str,
        epoch: &str,
        events: Vec<(&str, i64, AuditEvent)>,
    ) -> Result<tonic::Response<recorder_pb::AppendRecordsResponse>, Status> {
        let message = batch(role, epoch, events);
        client.append_records(self.request(role, INSTALLATION, message)).await
    }

    /// `count` records for a log, numbered on from `first`.
    pub(crate) async fn fill(&self, client: &mut Client, log: &str, first: i64, count: i64) {
        let mut next = first;
        while next < first + count {
            let end = (next + 500).min(first + count);
            let events = (next..end).map(|n| (log, n, event(log, n))).collect();
            let answer = self.append(client, "catalog", "e1", events).await.unwrap();
            assert_eq!(answer.into_inner().acknowledged_sequence, end - 1);
            next = end;
        }
    }

    pub(crate) async fn checkpoint(&self, client: &mut Client, log: &str) -> pb::AuditCheckpoint {
        let message = pb::GetAuditCheckpointRequest { name: format!("organizations/{log}/auditCheckpoint") };
        client.get_audit_checkpoint(self.request("gateway", log, message)).await.unwrap().into_inner()
    }

    pub(crate) async fn list(
        &self,
        client: &mut Client,
        log: &str,
        message: pb::ListAuditRecordsRequest,
    ) -> Result<pb::ListAuditRecordsResponse, Status> {
        let message = pb::ListAuditRecordsRequest { parent: format!("organizations/{log}"), ..message };
        client
            .list_audit_records(self.request("gateway", log, message))
            .await
            .map(tonic::Response::into_inner)
    }

    /// Every record of a log, by pages.
    pub(crate) async fn all(&self, client: &mut Client, log: &str, filter: &str) -> Vec<pb::AuditRecord> {
        let (mut found, mut page_token) = (Vec::new(), String::new());
        loop {
            let message = pb::ListAuditRecordsRequest {
                page_size: 300,
                page_token,
                filter: filter.into(),
                ..Default::default()
            };
            let page = self.list(client, log, message).await.unwrap();
            found.extend(page.audit_records);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return found;
            }
        }
    }
}

impl Running {
    /// What degrades the service, in the words that operators are told.
    pub(crate) async fn degraded(&self) -> Vec<String> {
        let mut found = Vec::new();
        for check in &self.checks {
            if let Err(why) = check.ask().await {
                assert_eq!(check.severity, Severity::Degrades, "{}: {why}", check.name);
                found.push(why);
            }
        }
        found
    }

    /// Waits until nothing degrades the service any more.
    pub(crate) async fn well(&self) {
        pavior_testkit::wait_for("a service that is well", Duration::from_secs(20), async || {
            match self.degraded().await {
                found if found.is_empty() => Ok(()),
                found => Err(found),
            }
        })
        .await;
    }

    /// As a process that gets SIGTERM: what waits is written.
    pub(crate) async fn stop(self) {
        self.drain.begin();
        self.cancel.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }
}

impl Running {
    /// Stops, and proves what the service has written.
    pub(crate) async fn proven(self, fixture: &Fixture) -> Report {
        self.stop().await;
        verify_database(&fixture.db.url, None).await.unwrap()
    }

    /// As a process that is killed.
    pub(crate) async fn crash(self) {
        for task in self.tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

pub(crate) fn batch(
    service: &str,
    epoch: &str,
    events: Vec<(&str, i64, AuditEvent)>,
) -> recorder_pb::AppendRecordsRequest {
    let events = events.into_iter().map(|(organization, sequence, event)| recorder_pb::SequencedEvent {
        organization: organization.to_owned(),
        sequence,
        event: Some(audit::encode(event)),
    });
    recorder_pb::AppendRecordsRequest {
        producer: Some(recorder_pb::Producer {
            service: service.into(),
            instance: "i1".into(),
            epoch: epoch.into(),
        }),
        events: events.collect(),
    }
}

/// An event that differs with `n` in everything that can be looked for.
pub(crate) fn event(log: &str, n: i64) -> AuditEvent {
    let who = if n % 2 == 0 { "alice" } else { "bob" };
    let principal = PrincipalRef {
        on_behalf_of: if n % 11 == 0 { format!("organizations/{log}/users/carol") } else { String::new() },
        via: pavior_core::principal::service_name("provisioning"),
        ..PrincipalRef::new(PrincipalKind::User, format!("organizations/{log}/users/{who}"))
    };
    let id = Uuid::from_u128(0x0190_0000_0000_7000_8000_0000_0000_0000 + n as u128);
    let time = time::macros::datetime!(2026-03-01 10:00 UTC) + time::Duration::seconds(n);
    let action = format!("catalog.components.{}", if n % 3 == 0 { "create" } else { "get" });
    let denied = n % 10 == 0;
    AuditEvent {
        audit_class: if n % 3 == 0 { AuditClass::Required } else { AuditClass::BestEffort },
        target: Some(Affected {
            r#type: "catalog.pavior.dev/Component".into(),
            name: format!("organizations/{log}/components/c{}", n % 7),
            project: if n % 5 == 0 { format!("organizations/{log}/projects/hello") } else { String::new() },
        }),
        affected: vec![Affected::new(
            "catalog.pavior.dev/Component",
            format!("organizations/{log}/components/other"),
        )],
        cause: Cause {
            call_id: format!("call-{n}"),
            request_id: format!("request-{n}"),
            trace_id: String::new(),
            operation: if n % 4 == 0 {
                format!("organizations/{log}/operations/four")
            } else {
                String::new()
            },
        },
        decision: Some(DecisionRef {
            decision: format!("d{n}"),
            effect: if denied { Effect::Deny } else { Effect::Allow },
            policies_digest: sha256_digest(b"policies"),
            rule_ids: vec!["p1".into()],
            approvals: vec![],
        }),
        outcome: Outcome {
            duration: Some(Duration::from_millis(3)),
            ..match denied {
                true => Outcome::error(audit_words::Status::Denied, Code::PermissionDenied, "ACCESS_DENIED"),
                false => Outcome::ok(audit_words::Status::Succeeded),
            }
        },
        change: (n % 3 == 0).then(|| Change {
            request_digest: sha256_digest(b"request"),
            after: Some(serde_json::json!({"replicas": n, "text": "ünï\n"})),
            ..Change::default()
        }),
        summary: format!("{who} did {n}"),
        ..AuditEvent::new(id, time, &action, principal)
    }
}
