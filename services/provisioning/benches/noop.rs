//! What the engine itself costs: three steps one after the other that do nothing, on SQLite with `synchronous=FULL`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use pavior_core::clock::SystemClock;
use pavior_core::id_gen::SystemIds;
use pavior_core::principal::{Principal, PrincipalKind};
use pavior_driver::testing::FakeDriver;
use pavior_driver::{Driver, Registry};
use pavior_provisioning::Config;
use pavior_provisioning::domain::plan::{Action, Change, Kind, Plan, Spec};
use pavior_provisioning::engine::Engine;
use pavior_provisioning::engine::seal::SealingKey;
use pavior_provisioning::store::{Accepted, Admission, Db, Makes, NewOperation, NewProject, Ownership, Seen};
use pavior_store::outbox::Limits;
use pavior_testkit::db::sqlite;
use serde_json::json;
use time::OffsetDateTime;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

fn operation(number: u64) -> NewOperation {
    let target = format!("organizations/acme/projects/p{number}");
    let change = |index: usize| Change {
        step: format!("s{index}"),
        resource: format!("{target}/resources/s{index}"),
        resource_type: "organizations/acme/resourceTypes/thing".into(),
        resource_definition: String::new(),
        driver: "fake".into(),
        driver_version: "1.0.0".into(),
        action: Action::Create,
        fields: vec![],
        depends_on: (index > 0).then(|| format!("s{}", index - 1)).into_iter().collect(),
        undoable: true,
        monthly_cost: String::new(),
        spec: Spec {
            resource_id: format!("s{index}"),
            type_id: "thing".into(),
            inputs: json!({}),
            driver_inputs: json!({}),
            scope: json!({"project": {"id": "p", "name": target}}),
            ..Spec::default()
        },
        entry: None,
        drift: None,
    };
    let now = OffsetDateTime::now_utc();
    let name = "organizations/acme/users/alice";
    let mut plan = Plan {
        id: Uuid::now_v7(),
        organization: "acme".into(),
        kind: Kind::CreateProject,
        action: "provisioning.projects.create".into(),
        target: target.clone(),
        changes: (0..3).map(change).collect(),
        monthly_cost_before: String::new(),
        monthly_cost_after: String::new(),
        template_version: String::new(),
        parameters: json!({}),
        settings: json!({}),
        requester: name.into(),
        author: String::new(),
        summary: String::new(),
        create_time: now,
        expire_time: now,
        digest: String::new(),
        questions: vec![],
        answers: vec![],
        decision: json!(null),
    };
    plan.digest = plan.compute_digest();
    NewOperation {
        of_kept_plan: false,
        id: Uuid::now_v7(),
        plan,
        principal: Principal {
            kind: PrincipalKind::User,
            name: name.into(),
            organization: "acme".into(),
            subject: "alice".into(),
            groups: vec![],
            email: None,
            display_name: None,
            installation_operator: false,
            on_behalf_of: None,
        },
        key: None,
        request_digest: pavior_core::digest::Digest::of(b""),
        facts: vec![],
        admission: Admission::Run,
        deadline_micros: 60_000_000,
        undo_micros: 60_000_000,
        ownership: Ownership::default(),
        makes: Makes {
            project: Some(NewProject {
                display_name: String::new(),
                owner: String::new(),
                labels: Default::default(),
            }),
            ..Makes::default()
        },
        seen: Seen::new(),
        due: None,
        engine_version: "1",
    }
}

async fn carried_out(db: &Db, engine: &Engine, number: u64) -> Duration {
    let start = Instant::now();
    let mut changes = engine.changes();
    let Ok(Accepted::Fresh(view)) = db.accept_unscoped(operation(number)).await else {
        unreachable!("a new operation")
    };
    engine.wake();
    loop {
        let op = db.operation_by_id_unscoped(view.op.id).await.expect("readable").expect("there");
        if op.state.as_str() == "SUCCEEDED" {
            return start.elapsed();
        }
        let _ = changes.recv().await;
    }
}

fn three_steps(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("runtime");
    let file = sqlite();
    let (db, engine, cancel) = runtime.block_on(async {
        let store = file.connect().await;
        pavior_provisioning::migrate(&store).await.expect("migrated");
        let db = Db::new(store, Arc::new(SystemClock), Arc::new(SystemIds), "bench", Limits::default());
        db.history().set(None);
        let driver = FakeDriver::new("fake", &["thing"]).without_journal();
        let registry = Registry::new([Arc::new(driver) as Arc<dyn Driver>]);
        let meter = opentelemetry::global::meter("bench");
        let engine = Engine::new(db.clone(), registry, SealingKey::new([1; 32]), Config::default(), &meter);
        let cancel = CancellationToken::new();
        tokio::spawn({
            let (engine, cancel) = (engine.clone(), cancel.clone());
            async move { engine.run(cancel).await }
        });
        (db, engine, cancel)
    });
    let mut number = 0;
    criterion.bench_function("three no-op steps, SQLite FULL", |bencher| {
        bencher.iter_custom(|iterations| {
            let mut total = Duration::ZERO;
            for _ in 0..iterations {
                number += 1;
                total += runtime.block_on(carried_out(&db, &engine, number));
            }
            total
        });
    });
    cancel.cancel();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(Duration::from_secs(5));
    targets = three_steps
}
criterion_main!(benches);
