use std::collections::HashMap;

use pavior_proto::pavior::catalog::v1::Entity;
use pavior_proto::pavior::catalog::v1::entity::Link;
use pavior_rpc::convert::to_struct;
use pavior_rpc::mask::{Mask, ReadMask, map_after, merge};
use prost_types::FieldMask;
use serde_json::json;

fn mask(paths: &[&str]) -> Option<FieldMask> {
    Some(FieldMask { paths: paths.iter().map(|path| (*path).to_owned()).collect() })
}

fn labels(pairs: &[(&str, &str)]) -> HashMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn current() -> Entity {
    Entity {
        name: "organizations/acme/kinds/component/entities/web".into(),
        uid: "u".into(),
        etag: "\"1\"".into(),
        display_name: "Web".into(),
        description: "old".into(),
        labels: labels(&[("team", "pay"), ("a/b", "1")]).into_iter().collect(),
        links: vec![Link { url: "x".into(), ..Link::default() }],
        spec: to_struct(&json!({"replicas": 1, "tier": "x"})).ok(),
        origin: "git".into(),
        ..Entity::default()
    }
}

#[test]
fn a_map_after_an_update_is_what_the_merge_makes_of_it() {
    let before = labels(&[("a", "1"), ("b.c/d", "2")]);
    for (patch, paths) in [
        (labels(&[]), vec![]),
        (labels(&[("x", "9")]), vec![]),
        (labels(&[("x", "9")]), vec!["*"]),
        (labels(&[]), vec!["labels"]),
        (labels(&[("a", "9"), ("x", "9")]), vec!["labels.a"]),
        (labels(&[]), vec!["labels.`b.c/d`", "labels.nothing"]),
        (labels(&[("a", "9")]), vec!["display_name"]),
        (labels(&[("a", "9")]), vec!["labels.a", "labels", "owner"]),
    ] {
        let entity =
            |labels: &HashMap<String, String>| Entity { labels: labels.clone(), ..Default::default() };
        let merged = merge(&entity(&before), &entity(&patch), mask(&paths).as_ref()).unwrap();
        assert_eq!(map_after(&before, patch, &paths, "labels"), merged.labels, "{paths:?}");
    }
}

#[test]
fn without_a_mask_populated_fields_are_taken() {
    let patch = Entity {
        name: "other".into(),
        description: "new".into(),
        uid: "forged".into(),
        ..Default::default()
    };
    let merged = merge(&current(), &patch, None).unwrap();
    assert_eq!(merged, Entity { description: "new".into(), ..current() });
    assert_eq!(Mask::resolve(None, &patch).unwrap().paths(), ["description"]);
    assert_eq!(merge(&current(), &Entity::default(), mask(&[]).as_ref()).unwrap(), current());
}

#[test]
fn a_mask_sets_and_clears_what_it_names() {
    let patch = Entity {
        labels: labels(&[("team", "core"), ("new", "2")]).into_iter().collect(),
        spec: to_struct(&json!({"replicas": 3})).ok(),
        ..Default::default()
    };
    let paths =
        mask(&["description", "labels.team", "labels.`a/b`", "spec.replicas", "uid", "name", "origin"]);
    let merged = merge(&current(), &patch, paths.as_ref()).unwrap();
    let want = Entity {
        description: String::new(),
        labels: labels(&[("team", "core")]).into_iter().collect(),
        spec: to_struct(&json!({"replicas": 3, "tier": "x"})).ok(),
        ..current()
    };
    assert_eq!(merged, want);
}

#[test]
fn star_replaces_all_but_what_the_server_sets() {
    let patch = Entity { display_name: "W".into(), ..Default::default() };
    let merged = merge(&current(), &patch, mask(&["*"]).as_ref()).unwrap();
    let want = Entity {
        name: current().name,
        uid: "u".into(),
        etag: "\"1\"".into(),
        origin: "git".into(),
        display_name: "W".into(),
        ..Default::default()
    };
    assert_eq!(merged, want);
}

#[test]
fn every_unknown_path_is_named() {
    let bad = ["nope", "labels.a.b", "links.url", "display_name.x", "", "labels.`a", "displayName", "a..b"];
    let problem = merge(&current(), &Entity::default(), mask(&bad).as_ref()).unwrap_err();
    assert_eq!(problem.violations.len(), bad.len());
    assert!(problem.violations.iter().all(|violation| violation.field == "update_mask"));
    assert!(merge(&current(), &Entity::default(), mask(&["*", "labels"]).as_ref()).is_err());
    let text = |path: &str| {
        let problem = merge(&current(), &Entity::default(), mask(&[path]).as_ref()).unwrap_err();
        problem.violations[0].description.clone()
    };
    let nearest = |path: &str, field: &str| {
        let start =
            format!("path `{path}` does not name a field that can be updated; what can is `{field}`, ");
        assert!(text(path).starts_with(&start), "{}", text(path));
    };
    nearest("displayName", "display_name");
    nearest("onwer", "owner");
}

#[test]
fn covers_knows_parts_and_wholes() {
    let mask = Mask::resolve(mask(&["labels.team", "spec"]).as_ref(), &Entity::default()).unwrap();
    for (path, want) in
        [("labels", true), ("labels.team", true), ("labels.x", false), ("spec.a", true), ("tags", false)]
    {
        assert_eq!(mask.covers(path), want, "{path}");
    }
}

#[test]
fn an_answer_has_the_fields_that_are_wanted_and_no_others() {
    let selected =
        |paths: &[&str]| ReadMask::of::<Entity>(mask(paths).as_ref()).unwrap().select(current()).unwrap();
    for all in [&[] as &[&str], &["*"]] {
        assert_eq!(selected(all), current());
    }
    assert_eq!(ReadMask::of::<Entity>(None).unwrap().select(current()).unwrap(), current());
    let want = Entity {
        name: current().name,
        labels: labels(&[("a/b", "1")]).into_iter().collect(),
        spec: to_struct(&json!({"tier": "x"})).ok(),
        links: current().links,
        ..Entity::default()
    };
    assert_eq!(
        selected(&["name", "labels.`a/b`", "labels.none", "spec.tier", "links", "update_time.seconds"]),
        want
    );
    // A path that stands twice, or within another one, changes nothing; so many as nobody needs are refused.
    assert_eq!(selected(&["spec.tier", "spec", "spec", "name"]).spec, current().spec);
    let paths: Vec<String> = (0..101).map(|number| format!("labels.l{number}")).collect();
    let problem = ReadMask::of::<Entity>(Some(&FieldMask { paths })).unwrap_err();
    let told = &problem.violations[0];
    assert_eq!((told.field.as_str(), told.reason.as_str()), ("read_mask", "TOO_MANY"));
    assert_eq!(told.description, "must have at most 100 paths");
    // What names nothing is an error, each path with what it may have meant.
    let problem = ReadMask::of::<Entity>(mask(&["naem", "name", "links.url", "*"]).as_ref()).unwrap_err();
    let told: Vec<_> =
        problem.violations.iter().map(|found| (found.field.as_str(), found.reason.as_str())).collect();
    assert_eq!(told, [("read_mask", "UNKNOWN"), ("read_mask", "UNKNOWN"), ("read_mask", "CONFLICT")]);
    assert!(problem.violations[0].description.contains("`name`"), "{problem:?}");
}
