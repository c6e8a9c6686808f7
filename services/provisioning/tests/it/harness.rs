//! An engine over a scripted driver, with operations made by hand.

use std::sync::Arc;
use std::time::Duration;

use pavior_core::audit::{PrincipalKind as ActingKind, PrincipalRef};
use pavior_core::clock::{Clock, SystemClock};
use pavior_core::digest::Digest;
use pavior_core::id_gen::SystemIds;
use pavior_core::principal::Principal;
use pavior_driver::Registry;
use pavior_driver::testing::FakeDriver;
use pavior_provisioning::Config;
use pavior_provisioning::domain::operation::StateChange;
use pavior_provisioning::domain::plan::{Action, Artifact, Change, Kind, Plan, Spec};
use pavior_provisioning::domain::teardown;
use pavior_provisioning::engine::seal::SealingKey;
use pavior_provisioning::engine::{Engine, Faults};
use pavior_provisioning::store::migration::Migrator;
use pavior_provisioning::store::{
    Accepted, Admission, Caller, Db, Makes, NewOperation, NewProject, OperationView, Ownership, Seen,
};
use pavior_store::outbox::Limits;
use pavior_testkit::db::TestDb;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use pavior_provisioning::store::{Checked, TakeUp};

/// The states of an operation that has ended.
const ENDS: [&str; 4] = ["SUCCEEDED", "COMPENSATED", "STUCK", "DENIED"];
pub(crate) const CANCEL: &str = "provisioning.operations.cancel";
pub(crate) const RETRY: &str = "provisioning.operations.retry";
pub(crate) const PROJECT: &str = "organizations/acme/projects/p";

pub(crate) fn alice() -> Principal {
    pavior_testkit::user("acme", "alice")
}

/// Alice, asking for something without a gateway.
pub(crate) fn by_alice(action: &str) -> Caller {
    Caller::new(alice(), action)
}

/// Whoever runs `pavior restore`.
pub(crate) fn restorer() -> PrincipalRef {
    PrincipalRef::new(ActingKind::Operator, "os:root")
}

pub(crate) fn quick() -> Config {
    Config {
        // Longer than a busy machine lets anybody wait.
        lease_ms: 3_000,
        poll_ms: 30,
        backoff_ms: 2,
        max_backoff_ms: 10,
        cancel_grace_ms: 200,
        max_attempts: 4,
        max_undo_attempts: 3,
        log_flush_ms: 5,
        ..Config::default()
    }
}

/// A world of one driver.
pub(crate) struct World {
    pub(crate) db: Db,
    pub(crate) driver: FakeDriver,
    pub(crate) engine: Engine,
    cancel: CancellationToken,
    running: Option<tokio::task::JoinHandle<()>>,
    _file: Arc<TestDb>,
}

impl World {
    pub(crate) async fn new(file: TestDb) -> Self {
        Self::with(file, quick(), None).await
    }

    pub(crate) async fn with(file: TestDb, config: Config, faults: Option<Faults>) -> Self {
        Self::at(file, Arc::new(SystemClock), config, faults).await
    }

    /// With a clock of the test's own.
    pub(crate) async fn at(
        file: TestDb,
        clock: Arc<dyn Clock>,
        config: Config,
        faults: Option<Faults>,
    ) -> Self {
        let db = Self::database(&file, clock, Limits::default()).await;
        let driver = FakeDriver::new("fake", &["thing", "ci-pipeline", "workload"]);
        Self::over(db, driver, config, faults, Arc::new(file))
    }

    /// With an outbox that takes no more than this.
    pub(crate) async fn bounded(file: TestDb, limits: Limits) -> Self {
        let db = Self::database(&file, Arc::new(SystemClock), limits).await;
        let driver = FakeDriver::new("fake", &["thing", "ci-pipeline", "workload"]);
        Self::over(db, driver, quick(), None, Arc::new(file))
    }

    async fn database(file: &TestDb, clock: Arc<dyn Clock>, limits: Limits) -> Db {
        let store = file.connect().await;
        pavior_store::migrate::<Migrator>(&store).await.unwrap();
        let db = Db::new(store, clock, Arc::new(SystemIds), "test", limits);
        db.history().set(None);
        db
    }

    fn over(db: Db, driver: FakeDriver, config: Config, faults: Option<Faults>, file: Arc<TestDb>) -> Self {
        let registry = Registry::new([Arc::new(driver.clone()) as Arc<dyn pavior_driver::Driver>]);
        let engine = Engine::with_faults(
            db.clone(),
            registry,
            SealingKey::new([1; 32]),
            config,
            &opentelemetry::global::meter("test"),
            faults,
        );
        let cancel = CancellationToken::new();
        let running = tokio::spawn({
            let (engine, cancel) = (engine.clone(), cancel.clone());
            async move { engine.run(cancel).await }
        });
        Self { db, driver, engine, cancel, running: Some(running), _file: file }
    }

    /// The same database and the same outside world, with a new worker.
    pub(crate) async fn restarted(mut self) -> Self {
        if let Some(running) = self.running.take() {
            self.cancel.cancel();
            running.await.unwrap();
        }
        Self::over(self.db.clone(), self.driver.clone(), quick(), None, self._file.clone())
    }

    /// Asks the worker to stop in an orderly way. What is returned ends when it has.
    pub(crate) fn stop(&mut self) -> tokio::task::JoinHandle<()> {
        self.cancel.cancel();
        self.running.take().unwrap()
    }

    /// Waits for the worker to die by itself.
    pub(crate) async fn died(&mut self) {
        let running = self.running.take().unwrap();
        tokio::time::timeout(Duration::from_secs(90), running)
            .await
            .expect("the worker did not die")
            .unwrap();
        assert!(self.engine.is_dead());
    }

    pub(crate) async fn start(&self, plan: Plan) -> Uuid {
        let new = new_operation(plan);
        match self.db.accept_unscoped(new).await.unwrap() {
            Accepted::Fresh(view) => {
                self.engine.wake();
                view.op.id
            }
            Accepted::Replayed(_) | Accepted::Nothing => panic!("no request id was given"),
        }
    }

    pub(crate) async fn view(&self, id: Uuid) -> OperationView {
        let op = self.db.operation_by_id_unscoped(id).await.unwrap().unwrap();
        self.db.view_unscoped(op).await.unwrap()
    }

    pub(crate) async fn wait(&self, id: Uuid, states: &[&str]) -> OperationView {
        let until = tokio::time::Instant::now() + Duration::from_secs(90);
        let mut changes = self.engine.changes();
        loop {
            let view = self.view(id).await;
            if states.contains(&view.op.state.as_str()) {
                return view;
            }
            assert!(tokio::time::Instant::now() < until, "still {} with {:?}", view.op.state, shown(&view));
            let _ = tokio::time::timeout(Duration::from_millis(20), changes.recv()).await;
        }
    }

    pub(crate) async fn ended(&self, id: Uuid) -> OperationView {
        self.wait(id, &ENDS).await
    }

    /// Returns when so much has happened in an operation, or it has ended: a moment that no clock chooses.
    pub(crate) async fn happened(&self, changes: &mut Receiver<Uuid>, id: Uuid, much: u64) {
        let mut seen = 0;
        while seen < much {
            match tokio::time::timeout(Duration::from_millis(20), changes.recv()).await {
                Ok(Ok(of)) => seen += u64::from(of == id),
                Ok(Err(RecvError::Lagged(_))) => {}
                Ok(Err(RecvError::Closed)) => return,
                // Nothing happens to what has ended.
                Err(_) if ENDS.contains(&self.view(id).await.op.state.as_str()) => return,
                Err(_) => {}
            }
        }
    }

    /// Everything that happened, as `step STATE`.
    pub(crate) async fn journal(&self, id: Uuid) -> Vec<String> {
        let events = self.db.events_unscoped(id, 0, 10_000).await.unwrap();
        for (index, event) in events.iter().enumerate() {
            assert_eq!(event.seq, index as i64 + 1, "events have no gap");
        }
        events
            .into_iter()
            .map(|event| match event.change {
                StateChange::Operation(state) => state.to_string(),
                StateChange::Step(step) => format!("{} {}", step.name, step.state),
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

pub(crate) fn shown(view: &OperationView) -> Vec<String> {
    view.steps.iter().map(|step| format!("{} {}", step.name, step.state)).collect()
}

pub(crate) fn resource(id: &str) -> String {
    format!("{PROJECT}/resources/{id}")
}

pub(crate) fn new_operation(plan: Plan) -> NewOperation {
    NewOperation {
        of_kept_plan: false,
        id: Uuid::now_v7(),
        makes: Makes {
            project: (plan.kind == Kind::CreateProject).then(|| NewProject {
                display_name: String::new(),
                owner: "organizations/acme/groups/g".into(),
                labels: Default::default(),
            }),
            ..Makes::default()
        },
        plan,
        principal: alice(),
        key: None,
        request_digest: Digest::of(b""),
        facts: vec![],
        admission: Admission::Run,
        deadline_micros: 60_000_000,
        undo_micros: 60_000_000,
        ownership: Ownership::default(),
        seen: Seen::new(),
        due: None,
        engine_version: "1",
    }
}

pub(crate) fn change(id: &str, action: Action, depends_on: &[&str], inputs: Value) -> Change {
    Change {
        step: if action == Action::Run { format!("{id}:run") } else { id.to_owned() },
        resource: resource(id),
        resource_type: "organizations/acme/resourceTypes/thing".into(),
        resource_definition: "organizations/acme/resourceDefinitions/thing".into(),
        driver: "fake".into(),
        driver_version: "1.0.0".into(),
        action,
        fields: vec![],
        depends_on: depends_on.iter().map(|dep| (*dep).to_owned()).collect(),
        undoable: action != Action::Delete,
        monthly_cost: String::new(),
        spec: Spec {
            resource_id: id.to_owned(),
            type_id: "thing".into(),
            inputs,
            driver_inputs: json!({}),
            scope: json!({"parameters": {}, "project": {"id": "p", "name": PROJECT}}),
            artifact: Artifact::None,
            ..Spec::default()
        },
        entry: None,
        drift: None,
    }
}

pub(crate) fn plan(kind: Kind, changes: Vec<Change>) -> Plan {
    let now = OffsetDateTime::now_utc();
    let mut plan = Plan {
        id: Uuid::now_v7(),
        organization: "acme".into(),
        kind,
        action: "provisioning.projects.create".into(),
        target: PROJECT.into(),
        changes,
        monthly_cost_before: String::new(),
        monthly_cost_after: String::new(),
        template_version: String::new(),
        parameters: json!({}),
        settings: json!({}),
        requester: alice().name,
        author: String::new(),
        summary: "a plan".into(),
        create_time: now,
        expire_time: now,
        digest: String::new(),
        questions: vec![],
        answers: vec![],
        decision: Value::Null,
    };
    plan.digest = plan.compute_digest();
    plan
}

/// `a` ← `b` ← `d`, `a` ← `c` ← `d`, and `e` alone. Each refers to what it depends on.
pub(crate) const DIAMOND: [(&str, &[&str]); 5] =
    [("a", &[]), ("b", &["a"]), ("c", &["a"]), ("d", &["b", "c"]), ("e", &[])];

pub(crate) fn graph(nodes: &[(&str, &[&str])]) -> Plan {
    let changes = nodes
        .iter()
        .map(|(id, deps)| {
            let from: Vec<Value> =
                deps.iter().map(|dep| json!(format!("${{{{ resources.{dep}.url }}}}"))).collect();
            change(id, Action::Create, deps, json!({"name": id, "from": from}))
        })
        .collect();
    plan(Kind::CreateProject, changes)
}

/// Takes everything down that is recorded.
pub(crate) async fn teardown_plan(world: &World) -> Plan {
    teardown_at(world, PROJECT).await
}

/// The same for a project that [`elsewhere`] made.
pub(crate) async fn teardown_of(world: &World, organization: &str, number: usize) -> Plan {
    let target = format!("organizations/{organization}/projects/p{number}");
    let mut plan = teardown_at(world, &target).await;
    (plan.organization, plan.target) = (organization.to_owned(), target);
    plan
}

async fn teardown_at(world: &World, project: &str) -> Plan {
    let rows =
        world.db.resources_in_scope_unscoped(project, &format!("{project}/resources/x")).await.unwrap();
    let recorded: Vec<teardown::Recorded> = rows
        .into_iter()
        .map(|row| teardown::Recorded {
            name: row.name,
            resource_type: row.resource_type,
            resource_definition: row.resource_definition,
            driver: row.driver,
            driver_version: row.driver_version,
            depends_on: row.depends_on,
            monthly_cost: row.monthly_cost,
            spec: row.spec,
            identity: row.identity,
        })
        .collect();
    plan(Kind::DestroyProject, teardown::plan(&recorded, &teardown::Holds::new()).unwrap())
}

/// The same plan for another project.
pub(crate) fn elsewhere(mut plan: Plan, organization: &str, number: usize) -> Plan {
    let target = format!("organizations/{organization}/projects/p{number}");
    for change in &mut plan.changes {
        change.resource = change.resource.replace(PROJECT, &target);
    }
    plan.organization = organization.to_owned();
    plan.target = target;
    plan
}
