use proptest::prelude::*;

use super::*;

fn criteria(resource: &str, project: &str, class: &str, labels: &[(&str, &str)]) -> Criteria {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    Criteria {
        resource_id: some(resource),
        project: some(project),
        environment_class: some(class),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
    }
}

fn definition(match_criteria: Vec<Criteria>) -> ResourceDefinitionFields {
    ResourceDefinitionFields {
        display_name: String::new(),
        description: String::new(),
        resource_type: "sql-database".to_owned(),
        driver: "sqlite-database".to_owned(),
        driver_inputs: json!({}),
        match_criteria,
        monthly_cost: None,
    }
}

#[test]
fn the_order_of_specificity() {
    let p = "organizations/acme/projects/shop";
    let ascending = [
        criteria("", "", "", &[]),
        criteria("", "", "", &[("tier", "gold")]),
        criteria("", "", "", &[("tier", "gold"), ("zone", "eu")]),
        criteria("", "", "production", &[]),
        criteria("", "", "production", &[("tier", "gold")]),
        criteria("", p, "", &[("tier", "gold")]),
        criteria("", p, "production", &[]),
        criteria("db", "", "", &[]),
        criteria("db", p, "production", &[("tier", "gold")]),
    ];
    assert!(ascending.windows(2).all(|pair| pair[0].specificity() < pair[1].specificity()));
    let context = Context {
        resource_type: "sql-database".to_owned(),
        resource_id: "db".to_owned(),
        project: p.to_owned(),
        environment_class: "production".to_owned(),
        labels: [("tier".to_owned(), "gold".to_owned()), ("zone".to_owned(), "eu".to_owned())].into(),
    };
    assert!(ascending.iter().all(|criteria| criteria.matches(&context)));
    let best = best_criteria(&definition(ascending.to_vec()), &context).unwrap();
    assert_eq!(best, ascending[8]);
}

#[test]
fn ambiguity_table() {
    let p = "organizations/acme/projects/shop";
    let ambiguous = [
        (vec![], vec![]),
        (vec![], vec![criteria("", "", "", &[])]),
        (vec![criteria("", "", "production", &[])], vec![criteria("", "", "production", &[])]),
        (vec![criteria("", "", "", &[("a", "1")])], vec![criteria("", "", "", &[("b", "1")])]),
        (vec![criteria("db", p, "", &[])], vec![criteria("x", "", "", &[]), criteria("db", p, "", &[])]),
    ];
    for (a, b) in ambiguous {
        assert!(ambiguity(&definition(a.clone()), &definition(b.clone())).is_some(), "{a:?} {b:?}");
    }
    let clear = [
        (vec![], vec![criteria("", "", "production", &[])]),
        (vec![criteria("", "", "staging", &[])], vec![criteria("", "", "production", &[])]),
        (vec![criteria("", "", "", &[("a", "1")])], vec![criteria("", "", "", &[("a", "2")])]),
        (vec![criteria("db", "", "", &[])], vec![criteria("", p, "", &[])]),
        (vec![criteria("", "", "", &[("a", "1")])], vec![criteria("", "", "", &[("a", "1"), ("b", "2")])]),
    ];
    for (a, b) in clear {
        assert_eq!(ambiguity(&definition(a.clone()), &definition(b.clone())), None, "{a:?} {b:?}");
    }
    let mut other = definition(vec![]);
    other.resource_type = "cache".to_owned();
    assert_eq!(ambiguity(&definition(vec![]), &other), None);
}

#[test]
fn bad_definitions_are_refused_with_paths() {
    let mut bad = definition(vec![
        criteria("db", "organizations/other/projects/x", "", &[]),
        criteria("", "shop", "", &[]),
    ]);
    bad.driver_inputs = json!({"a": {"url": "${{ resources.db.url }}"}, "ok": "${{ inputs.x }}", "out": "${{ project.resources.db.url }}"});
    let mut paths: Vec<String> = bad.check("acme", "d").into_iter().map(|v| v.path).collect();
    paths.sort();
    assert_eq!(
        paths,
        ["driver_inputs.a.url", "driver_inputs.out", "match_criteria.0.project", "match_criteria.1.project",]
    );
}

fn any_criteria() -> impl Strategy<Value = Criteria> {
    let labels = prop::collection::btree_map("[ab]", "[12]", 0..3);
    (prop::option::of("[xy]"), prop::option::of("[pq]"), prop::option::of("[cd]"), labels).prop_map(
        |(resource_id, project, environment_class, labels)| Criteria {
            resource_id,
            project,
            environment_class,
            labels,
        },
    )
}

proptest! {
    #[test]
    fn definitions_that_are_not_ambiguous_never_tie(
        a in prop::collection::vec(any_criteria(), 0..3),
        b in prop::collection::vec(any_criteria(), 0..3),
        resource_id in "[xy]", project in "[pq]", environment_class in "[cd]",
        labels in prop::collection::btree_map("[ab]", "[12]", 0..3),
    ) {
        let (a, b) = (definition(a), definition(b));
        let context = Context { resource_type: "sql-database".to_owned(), resource_id, project, environment_class, labels };
        prop_assert_eq!(ambiguity(&a, &b).is_some(), ambiguity(&b, &a).is_some());
        if ambiguity(&a, &b).is_none()
            && let (Some(one), Some(other)) = (best_criteria(&a, &context), best_criteria(&b, &context))
        {
            prop_assert_ne!(one.specificity(), other.specificity());
        }
    }
}
