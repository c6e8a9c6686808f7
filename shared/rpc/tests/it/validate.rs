use std::collections::HashMap;

use pavior_proto::pavior::audit::internal::v1::*;
use pavior_proto::pavior::audit::v1::*;
use pavior_proto::pavior::catalog::v1::entity::Link;
use pavior_proto::pavior::catalog::v1::*;
use pavior_proto::pavior::provisioning::v1::*;
use pavior_rpc::validate;
use prost_types::FieldMask;

fn found<M: prost::Message + prost::Name>(request: &M) -> Vec<(String, String)> {
    let list = validate::violations(request).unwrap().into_vec();
    list.into_iter().map(|violation| (violation.field, violation.reason)).collect()
}

fn pairs(want: &[(&str, &str)]) -> Vec<(String, String)> {
    want.iter().map(|(field, reason)| ((*field).to_owned(), (*reason).to_owned())).collect()
}

#[test]
fn all_violations_are_named_with_their_paths() {
    let request = CreateEntityRequest {
        parent: String::new(),
        request_id: "0190b0b0-0000-7000-8000-000000000000".into(),
        entity: Some(Entity {
            display_name: "a\0b".into(),
            labels: HashMap::from([("a/b".into(), "\0".into())]).into_iter().collect(),
            links: vec![Link { url: "https://x".into(), ..Link::default() }, Link::default()],
            // Set by the server, so not looked at.
            origin: "\0".into(),
            ..Entity::default()
        }),
        ..CreateEntityRequest::default()
    };
    let mut found = found(&request);
    found.sort();
    let want = pairs(&[
        ("entity.display_name", "PATTERN"),
        ("entity.labels.`a/b`", "PATTERN"),
        ("entity.links[1].url", "REQUIRED"),
        ("parent", "REQUIRED"),
        ("request_id", "PATTERN"),
    ]);
    assert_eq!(found, want);
    let problem = validate::request(&request).unwrap_err();
    assert_eq!((problem.code, problem.violations.len()), (tonic::Code::InvalidArgument, 5));
}

#[test]
fn valid_requests_pass() {
    let request = GetAuditRecordRequest { name: "x".into() };
    validate::request(&request).unwrap();
    assert_eq!(found(&GetAuditRecordRequest::default()), pairs(&[("name", "REQUIRED")]));
    let list = ListAuditRecordsRequest { parent: "p".into(), page_size: 1000, ..Default::default() };
    validate::request(&list).unwrap();
    let with_id = CreateEntityRequest {
        parent: "p".into(),
        entity: Some(Entity::default()),
        request_id: "F47AC10B-58CC-4372-A567-0E02B2C3D479".into(),
        ..Default::default()
    };
    assert_eq!(found(&with_id), pairs(&[]));
}

#[test]
fn negative_page_size_and_unknown_enum_numbers_are_violations() {
    let list = ListAuditRecordsRequest { parent: "p".into(), page_size: -1, ..Default::default() };
    assert_eq!(found(&list), pairs(&[("page_size", "OUT_OF_RANGE")]));
    let event = |class| AppendRecordsRequest {
        producer: Some(Producer { service: "s".into(), epoch: "e".into(), ..Default::default() }),
        events: vec![SequencedEvent {
            organization: "o".into(),
            sequence: 1,
            event: Some(AuditEvent { audit_class: class, ..Default::default() }),
        }],
    };
    assert_eq!(found(&event(3)), pairs(&[]));
    for number in [4, -1, i32::MAX] {
        assert_eq!(found(&event(number)), pairs(&[("events[0].event.audit_class", "UNKNOWN")]), "{number}");
    }
}

#[test]
fn update_requires_only_what_the_mask_names_and_the_name() {
    let update = |paths: Option<&[&str]>, name: &str, links| UpdateEntityRequest {
        entity: Some(Entity { name: name.into(), links, ..Default::default() }),
        update_mask: paths
            .map(|paths| FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    let bad = || vec![Link::default()];
    assert_eq!(found(&update(None, "n", vec![])), pairs(&[]));
    assert_eq!(found(&update(None, "", vec![])), pairs(&[("entity.name", "REQUIRED")]));
    assert_eq!(found(&update(None, "n", bad())), pairs(&[("entity.links[0].url", "REQUIRED")]));
    for mask in [&["links"][..], &["*"][..]] {
        assert_eq!(found(&update(Some(mask), "n", bad())), pairs(&[("entity.links[0].url", "REQUIRED")]));
    }
    assert_eq!(found(&update(Some(&["description"]), "n", bad())), pairs(&[]));
}

#[test]
fn too_many_and_too_long_are_violations() {
    let request = CreateEntityRequest {
        parent: "x".repeat(validate::MAX_TEXT_BYTES + 1),
        entity: Some(Entity::default()),
        ..Default::default()
    };
    assert_eq!(found(&request), pairs(&[("parent", "TOO_LONG")]));
    // A list without a rule of its own.
    let documents = |content: &str, count: usize| ImportEntitiesRequest {
        parent: "p".into(),
        documents: vec![
            import_entities_request::Document { content: content.into(), ..Default::default() };
            count
        ],
        ..Default::default()
    };
    assert_eq!(found(&documents("x", 10_001)), pairs(&[("documents", "TOO_MANY")]));
    assert_eq!(found(&documents("\0", 500)).len(), 100);
}

#[test]
fn the_rules_of_the_protos_hold_for_elements_keys_and_values() {
    let text = |text: &str| text.to_owned();
    let entity = Entity {
        display_name: "ä".repeat(200),
        labels: [(text("team"), "x".repeat(257)), (text("a b"), text("y"))].into(),
        annotations: [(text("a b"), text("any\ntext")), (text("k"), text("\0"))].into(),
        tags: vec![text("ok"), text("a b"), "ü".repeat(63), "ü".repeat(64)],
        links: vec![Link {
            url: text("https://x"),
            title: "x".repeat(201),
            icon: text("a\tb"),
            ..Link::default()
        }],
        ..Entity::default()
    };
    let request = CreateEntityRequest {
        parent: "p".into(),
        entity_id: "Not-an-id".into(),
        entity: Some(entity),
        ..Default::default()
    };
    let mut found = found(&request);
    found.sort();
    let want = pairs(&[
        ("entity.annotations.`a b`", "PATTERN"),
        ("entity.annotations.k", "PATTERN"),
        ("entity.labels.`a b`", "PATTERN"),
        ("entity.labels.team", "TOO_LONG"),
        ("entity.links[0].icon", "PATTERN"),
        ("entity.links[0].title", "TOO_LONG"),
        ("entity.tags[1]", "PATTERN"),
        ("entity.tags[3]", "PATTERN"),
        ("entity_id", "PATTERN"),
    ]);
    assert_eq!(found, want);
    let problem = validate::request(&request).unwrap_err();
    let told = |field: &str| {
        problem.violations.iter().find(|one| one.field == field).map(|one| one.description.as_str())
    };
    assert_eq!(told("entity.labels.team"), Some("must have at most 256 characters"));
    assert_eq!(told("entity.labels.`a b`"), Some("must be 1 to 128 letters, digits or `-_./`"));
    assert_eq!(
        told("entity.tags[1]"),
        Some("must be 1 to 63 characters without spaces or invisible formatting")
    );
}

#[test]
fn lists_and_maps_have_as_many_elements_as_their_rules_say() {
    let with = |count: usize| CreateEntityRequest {
        parent: "p".into(),
        entity: Some(Entity {
            tags: vec!["t".into(); count],
            labels: (0..count).map(|n| (format!("k{n}"), String::new())).collect(),
            ..Entity::default()
        }),
        ..Default::default()
    };
    assert_eq!(found(&with(64)), pairs(&[]));
    let mut beyond = found(&with(65));
    beyond.sort();
    assert_eq!(beyond, pairs(&[("entity.labels", "TOO_MANY"), ("entity.tags", "TOO_MANY")]));
}

#[test]
fn an_update_is_held_to_rules_in_what_its_mask_names() {
    let update = |paths: &[&str]| UpdateEntityRequest {
        entity: Some(Entity {
            name: "n".into(),
            display_name: "x".repeat(201),
            labels: [("team".to_owned(), "x".repeat(257)), ("tier".to_owned(), "\n".to_owned())].into(),
            ..Entity::default()
        }),
        update_mask: Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() }),
        ..Default::default()
    };
    let name = ("entity.display_name", "TOO_LONG");
    let (team, tier) = (("entity.labels.team", "TOO_LONG"), ("entity.labels.tier", "PATTERN"));
    for (paths, want) in [
        (&[][..], &[name, team, tier][..]),
        (&["*"], &[name, team, tier]),
        (&["display_name"], &[name]),
        (&["labels.tier"], &[tier]),
        (&["description"], &[]),
    ] {
        let mut found = found(&update(paths));
        found.sort();
        assert_eq!(found, pairs(want), "{paths:?}");
    }
}

#[test]
fn one_field_of_a_oneof_can_be_required() {
    let plan = |request| CreatePlanRequest {
        parent: "p".into(),
        plan: Some(Plan { intent: Some(plan::Intent { request }), ..Default::default() }),
        ..Default::default()
    };
    assert_eq!(found(&plan(None)), pairs(&[("plan.intent.request", "REQUIRED")]));
    let run = RunPipelineRequest { name: "n".into(), plan_digest: "sha256:0".into(), ..Default::default() };
    let intent = plan(Some(plan::intent::Request::RunPipeline(run)));
    assert_eq!(found(&intent), pairs(&[("plan.intent.run_pipeline.plan_digest", "PATTERN")]));
}

#[test]
fn durations_have_bounds() {
    let lasting = |seconds| CreateEnvironmentRequest {
        parent: "p".into(),
        environment: Some(Environment {
            expiration: Some(environment::Expiration::Ttl(prost_types::Duration { seconds, nanos: 0 })),
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(found(&lasting(60)), pairs(&[]));
    for seconds in [-1, 0, 59, i64::MAX] {
        let request = lasting(seconds);
        assert_eq!(found(&request), pairs(&[("environment.ttl", "OUT_OF_RANGE")]), "{seconds}");
        let problem = validate::request(&request).unwrap_err();
        assert_eq!(problem.violations[0].description, "must be between 60s and 3162240000s");
    }
}
