use super::*;
use proptest::prelude::*;

fn parse(text: &str) -> Result<Imported, Violations> {
    read(&pavior_expr::yaml::parse(text).unwrap(), "acme", "file:x")
}

#[test]
fn a_component_as_it_is_found_in_the_wild() {
    let imported = parse(
        r#"
apiVersion: backstage.io/v1alpha1
kind: Component
metadata:
  name: Cart_Service
  namespace: Payments
  description: |
    Holds carts.
  labels: { tier: 1, internal: true }
  annotations:
    github.com/project-slug: acme/cart
    backstage.io/techdocs-ref: dir:.
  tags: [java, java, 8]
  links:
    - url: https://dashboard.example.com
      title: Dashboard
  uid: ignored
spec:
  type: service
  lifecycle: production
  owner: user:frank.tiernan
"#,
    )
    .unwrap();
    let Imported::Entity(imported) = imported else { panic!("{imported:?}") };
    assert_eq!(imported.id, "payments-cart-service");
    let fields = imported.fields;
    assert_eq!((fields.kind.as_str(), fields.display_name.as_str()), ("component", "Cart_Service"));
    assert_eq!(fields.labels["tier"], "1");
    assert_eq!(fields.labels["internal"], "true");
    assert_eq!(fields.annotations[NAMESPACE_ANNOTATION], "payments");
    assert_eq!(fields.tags, ["java", "8"]);
    assert_eq!(fields.links[0].title, "Dashboard");
    assert_eq!(fields.origin, "file:x");
}

#[test]
fn a_document_names_a_bounded_number_of_others() {
    let group = |members: usize| {
        let members: Vec<String> = (0..members).map(|n| format!("user-{n}")).collect();
        parse(&format!(
            "{{apiVersion: backstage.io/v1alpha1, kind: Group, metadata: {{name: team-a}}, \
             spec: {{type: team, children: [], members: [{}]}}}}",
            members.join(", ")
        ))
    };
    let Imported::Group(taken) = group(MAX_DECLARED).unwrap() else { panic!("not a group") };
    assert_eq!(taken.members.len(), MAX_DECLARED);
    let violations: Vec<_> = group(MAX_DECLARED + 1).unwrap_err().into_iter().collect();
    assert_eq!(violations.len(), 1, "{violations:?}");
    assert_eq!(
        (violations[0].path.as_str(), violations[0].fault, violations[0].message.as_str()),
        ("spec.members", Fault::TooMany, "must name at most 1000")
    );
}

#[test]
fn groups_and_users_are_no_entities() {
    let group = parse(
        "{apiVersion: backstage.io/v1alpha1, kind: Group, metadata: {name: team-a, title: Team A}, \
         spec: {type: team, parent: acme-corp, children: [team-b], members: [alice, user:default/Bob.B, alice]}}",
    )
    .unwrap();
    assert_eq!(group.key(), EntityKey::new("group", "team-a"));
    assert_eq!(
        group,
        Imported::Group(ImportedGroup {
            id: "team-a".into(),
            fields: GroupFields {
                display_name: "Team A".into(),
                description: String::new(),
                parent: Some("acme-corp".into()),
            },
            children: vec!["team-b".into()],
            members: vec!["alice".into(), "bob.b".into()],
        })
    );
    let user = parse(
        "{apiVersion: backstage.io/v1alpha1, kind: User, metadata: {name: Bob.B}, \
         spec: {profile: {displayName: Bob, email: bob@example.com}, memberOf: [team-a, payments/core]}}",
    )
    .unwrap();
    assert_eq!(user.key(), EntityKey::new("user", "bob.b"));
    assert_eq!(
        user,
        Imported::User(ImportedUser {
            id: "bob.b".into(),
            fields: UserFields { display_name: "Bob".into(), email: "bob@example.com".into() },
            groups: vec!["payments-core".into(), "team-a".into()],
        })
    );
}

#[test]
fn bad_documents_are_refused_with_paths() {
    for (text, wanted) in [
        ("[]", vec![""]),
        ("{}", vec!["kind", "metadata", "metadata.name"]),
        ("{apiVersion: v1, kind: Pod, metadata: {name: x}}", vec!["apiVersion", "kind"]),
        ("{apiVersion: scaffolder.backstage.io/v1beta3, kind: Template, metadata: {name: x}}", vec!["kind"]),
        (
            "{apiVersion: backstage.io/v1alpha1, kind: System, metadata: {name: 'a b', title: [], labels: 3, \
             tags: x, links: [1], annotations: {a: []}}, spec: 3, extra: 1}",
            vec![
                "extra",
                "metadata.annotations.a",
                "metadata.labels",
                "metadata.links",
                "metadata.name",
                "metadata.tags",
                "metadata.title",
                "spec",
            ],
        ),
        ("{apiVersion: backstage.io/v1alpha1, kind: User, metadata: {name: _x}}", vec!["metadata.name"]),
        (
            "{apiVersion: backstage.io/v1alpha1, kind: User, metadata: {name: policy}, \
             spec: {memberOf: [user:x, 'a b', 3]}}",
            vec!["metadata.name", "spec.memberOf.0", "spec.memberOf.1", "spec.memberOf.2"],
        ),
        (
            "{apiVersion: backstage.io/v1alpha1, kind: Group, metadata: {name: team}, \
             spec: {members: [component:x], parent: organizations/other/groups/x}}",
            vec!["spec.members.0", "spec.parent", "spec.type"],
        ),
    ] {
        let mut paths: Vec<String> = parse(text).unwrap_err().into_iter().map(|v| v.path).collect();
        paths.sort();
        assert_eq!(paths, wanted, "{text}");
    }
    let message = parse("{apiVersion: scaffolder.backstage.io/v1beta3, kind: Template, metadata: {name: x}}")
        .unwrap_err()
        .into_vec()
        .remove(0)
        .message;
    assert!(message.contains("CreateTemplateVersion"), "{message}");
}

proptest! {
    #[test]
    fn no_document_makes_it_panic(name in ".{0,30}", kind in "(Component|User|Group|.{0,5})", field in ".{0,20}") {
        let document = json!({
            "apiVersion": "backstage.io/v1alpha1", "kind": kind,
            "metadata": {"name": name}, "spec": {"memberOf": [field.clone()], "members": [field]},
        });
        let _ = read(&document, "acme", "");
    }
}
