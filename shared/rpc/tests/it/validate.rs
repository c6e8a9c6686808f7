use std::collections::HashMap;

use pavior_proto::pavior::audit::internal::v1::*;
use pavior_proto::pavior::audit::v1::*;
use pavior_proto::pavior::catalog::v1::entity::Link;
use pavior_proto::pavior::catalog::v1::*;
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
    assert!(validate::request(&request).is_ok());
    assert_eq!(found(&GetAuditRecordRequest::default()), pairs(&[("name", "REQUIRED")]));
    let list = ListAuditRecordsRequest { parent: "p".into(), page_size: 1000, ..Default::default() };
    assert!(validate::request(&list).is_ok());
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
    let entity = Entity { tags: vec!["t".into(); 10_001], ..Default::default() };
    let request = CreateEntityRequest {
        parent: "x".repeat(validate::MAX_TEXT_BYTES + 1),
        entity: Some(entity),
        ..Default::default()
    };
    assert_eq!(found(&request), pairs(&[("parent", "TOO_LONG"), ("entity.tags", "TOO_MANY")]));
    let nul = Entity { tags: vec!["\0".into(); 500], ..Default::default() };
    let request = CreateEntityRequest { parent: "p".into(), entity: Some(nul), ..Default::default() };
    assert_eq!(found(&request).len(), 100);
}
