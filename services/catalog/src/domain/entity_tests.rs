use super::*;
use crate::domain::builtin;

fn kind(id: &str) -> KindFields {
    builtin::kinds().into_iter().find(|(other, _)| *other == id).unwrap().1
}

fn entity(spec: Json) -> EntityFields {
    EntityFields { kind: "component".to_owned(), spec, ..EntityFields::default() }
}

fn seen(edges: &BTreeSet<Edge>) -> Vec<String> {
    edges.iter().map(|e| format!("{} {}:{}", e.relation, e.target.kind, e.target.id)).collect()
}

#[test]
fn a_spec_declares_relations() {
    let fields = entity(json!({
        "type": "service", "lifecycle": "production", "owner": "team-a", "system": "shop",
        "providesApis": ["cart-api", "api:default/cart-api"], "consumesApis": ["payments/pay"],
        "dependsOn": ["resource:cart-db", "Component:stock"], "subcomponentOf": "suite",
    }));
    assert_eq!(
        seen(&fields.edges("acme", "cart", &kind("component")).unwrap()),
        [
            "consumesApi api:payments-pay",
            "dependsOn component:stock",
            "dependsOn resource:cart-db",
            "ownedBy group:team-a",
            "partOf component:suite",
            "partOf system:shop",
            "providesApi api:cart-api",
        ]
    );
}

#[test]
fn the_envelope_s_owner_wins_over_the_spec_s() {
    let mut fields = entity(json!({"owner": "user:frank.tiernan"}));
    fields.adopt_owner("acme", &kind("component"));
    assert_eq!(fields.owner, "organizations/acme/users/frank.tiernan");
    assert_eq!(seen(&fields.edges("acme", "x", &kind("component")).unwrap()), ["ownedBy user:frank.tiernan"]);
    fields.owner = "organizations/acme/groups/team-b".to_owned();
    fields.adopt_owner("acme", &kind("component"));
    assert_eq!(seen(&fields.edges("acme", "x", &kind("component")).unwrap()), ["ownedBy group:team-b"]);
}

#[test]
fn bad_references_are_all_named() {
    let fields = entity(json!({
        "system": 7, "dependsOn": ["ok", 3, "component:a b", "component:me"],
        "providesApis": ["organizations/other/kinds/api/entities/x"],
    }));
    let violations = fields.edges("acme", "me", &kind("component")).unwrap_err();
    let paths: Vec<&str> = violations.iter().map(|v| v.path.as_str()).collect();
    assert_eq!(
        paths,
        ["spec.system", "spec.providesApis.0", "spec.dependsOn.1", "spec.dependsOn.2", "spec.dependsOn.3"]
    );
}

#[test]
fn an_entity_declares_a_bounded_number_of_relations() {
    let declared = |apis: usize| {
        let apis: Vec<String> = (0..apis).map(|n| format!("api-{n}")).collect();
        let fields = entity(json!({ "owner": "team-a", "providesApis": apis, "dependsOn": ["a b"] }));
        fields.edges("acme", "cart", &kind("component")).unwrap_err().into_vec()
    };
    let said = |found: Vec<crate::domain::Violation>| {
        found.into_iter().map(|one| (one.path, one.fault)).collect::<Vec<_>>()
    };
    // The owner is one of them.
    assert_eq!(said(declared(MAX_DECLARED - 1)), [("spec.dependsOn.0".to_owned(), Fault::Pattern)]);
    let beyond = declared(MAX_DECLARED);
    assert_eq!(beyond[0].message, "an entity declares at most 1000 relations, its owner among them");
    assert_eq!(said(beyond), [("spec.providesApis".to_owned(), Fault::TooMany)]);
}

#[test]
fn owners_table() {
    for (text, name) in [
        ("team-a", Some("organizations/acme/groups/team-a")),
        ("group:default/Team_A", Some("organizations/acme/groups/team-a")),
        ("user:default/frank.tiernan", Some("organizations/acme/users/frank.tiernan")),
        ("organizations/acme/groups/x", Some("organizations/acme/groups/x")),
        ("organizations/other/groups/x", None),
        ("system:shop", None),
        // What everybody owned would be open to everybody.
        ("everyone", None),
        ("organizations/acme/groups/everyone", None),
        ("a b", None),
    ] {
        assert_eq!(owner_from_reference(text, "acme", None).as_deref(), name, "{text}");
    }
}

#[test]
fn the_digest_is_of_the_content_only() {
    let mut a = entity(json!({"type": "x", "n": 1}));
    let mut b = entity(json!({"n": 1, "type": "x"}));
    b.origin = "file:elsewhere".to_owned();
    assert_eq!(a.digest(), b.digest());
    a.labels.insert("tier".to_owned(), "gold".to_owned());
    assert_ne!(a.digest(), b.digest());
}

#[test]
fn bad_envelopes_are_refused_with_paths() {
    let mut fields = entity(json!({"x": "\0"}));
    fields.links = vec![Link { url: "javascript:alert(1)".to_owned(), ..Link::default() }];
    fields.owner = "organizations/other/groups/x".to_owned();
    let paths: Vec<String> = fields.check("acme", "x").into_iter().map(|v| v.path).collect();
    assert_eq!(paths, ["links.0.url", "owner", "spec"]);
}

#[test]
fn links_survive_being_kept() {
    let links = vec![Link { url: "https://x".to_owned(), title: "X".to_owned(), ..Link::default() }];
    assert_eq!(links_from_json(&links_to_json(&links)), Some(links));
    assert_eq!(links_from_json(&json!([{"url": 1}])), None);
}
