//! What every change and every resource of the catalog must keep to.

use futures::future::{BoxFuture, LocalBoxFuture};
use pavior_auth::{Grant, INTERNAL_TOKEN};
use pavior_core::audit::{DecisionRef, Effect};
use pavior_proto::pavior::catalog::v1 as pb;
use pavior_proto::pavior::governance::internal::v1 as facts_pb;
use pavior_proto::pavior::identity::v1 as identity_pb;
use pavior_rpc::facts::fingerprint;
use pavior_rpc::governance;
use pavior_testkit::conformance::{self, Existing, Sample, Subject};
use pavior_testkit::repeat::{Ask, Case, check};
use pavior_testkit::{db, dynamic};
use prost::Message as _;
use serde_json::{Value as Json, json};
use tonic::Code;

use crate::support::{World, create_component, principal, uuid};
use pavior_testkit::{assert_problem, fields};

const ROLE: &str = "catalog";
const ACME: &str = "organizations/acme";
const GOOD: &str = include_str!("fixtures/web-service.yaml");

/// Every resource of the service.
fn samples() -> Vec<Sample> {
    fn names(_id: &str) -> [Json; 2] {
        ["A", "B"].map(|text| json!({ "displayName": text }))
    }
    let of = |message, forms| Sample { message, parent: ACME.to_owned(), forms };
    vec![
        of("Group", names),
        of("User", names),
        of("Kind", names),
        Sample {
            message: "Entity",
            parent: format!("{ACME}/kinds/component"),
            forms: |_| {
                ["service", "website"]
                    .map(|kind| json!({ "spec": { "type": kind, "lifecycle": "production" } }))
            },
        },
        of("Template", names),
        of("ResourceType", names),
        // No two may match the same.
        of("ResourceDefinition", |id| {
            ["sqlite-database", "postgres-database"].map(|driver| {
                json!({
                    "resourceType": format!("{ACME}/resourceTypes/cache"),
                    "driverId": driver,
                    "matchCriteria": [{ "environmentClassId": id }],
                })
            })
        }),
    ]
}

/// Some of each resource that has not all of the standard methods.
async fn existing(ask: &Ask<'_>) -> Vec<Existing> {
    let (group, template) = (format!("{ACME}/groups/crew"), format!("{ACME}/templates/web-service"));
    let user = |id: &str| format!("{ACME}/users/{id}");
    let version = |document: &str| json!({ "parent": template, "templateVersion": { "document": document } });
    let member = |id: &str| json!({ "parent": group, "membership": { "member": user(id) } });
    for (method, request) in [
        ("CreateGroup", json!({ "parent": ACME, "groupId": "crew", "group": {} })),
        ("CreateUser", json!({ "parent": ACME, "userId": "ann", "user": {} })),
        ("CreateUser", json!({ "parent": ACME, "userId": "ben", "user": {} })),
        ("CreateMembership", member("ann")),
        ("CreateMembership", member("ben")),
        ("CreateTemplate", json!({ "parent": ACME, "templateId": "web-service", "template": {} })),
        ("CreateTemplateVersion", version(GOOD)),
        ("CreateTemplateVersion", version(&GOOD.replace("version: 1.0.0", "version: 1.1.0"))),
    ] {
        let made = ask(dynamic::method_of(ROLE, method), request).await;
        made.unwrap_or_else(|status| panic!("{method}: {status:?}"));
    }
    let of = |message, parent: &str, collection: &str, ids: [&str; 3]| {
        let [one, two, missing] = ids.map(|id| format!("{collection}/{id}"));
        Existing { message, parent: parent.to_owned(), names: vec![one, two], missing }
    };
    let (memberships, versions) = (format!("{group}/memberships"), format!("{template}/versions"));
    vec![
        Existing {
            message: "Organization",
            parent: String::new(),
            names: vec![ACME.to_owned()],
            missing: "organizations/nowhere".to_owned(),
        },
        of("Membership", &group, &memberships, ["ann", "ben", "nobody"]),
        of("TemplateVersion", &template, &versions, ["1.0.0", "1.1.0", "7.0.0"]),
    ]
}

/// One more of what stands in the lists of the suite.
async fn insert(world: &World, message: &str) {
    let member = json!({ "member": format!("{ACME}/users/cyd") });
    let document = GOOD.replace("version: 1.0.0", "version: 1.2.0");
    let requests = match message {
        "Organization" => {
            vec![("CreateOrganization", json!({ "organizationId": "newer", "organization": {} }))]
        }
        "Membership" => vec![
            ("CreateUser", json!({ "parent": ACME, "userId": "cyd", "user": {} })),
            ("CreateMembership", json!({ "parent": format!("{ACME}/groups/crew"), "membership": member })),
        ],
        "TemplateVersion" => {
            let (parent, version) =
                (format!("{ACME}/templates/web-service"), json!({ "document": document }));
            vec![("CreateTemplateVersion", json!({ "parent": parent, "templateVersion": version }))]
        }
        other => panic!("{other}"),
    };
    for (name, request) in requests {
        let request = if message == "Organization" { world.root(request) } else { world.alice(request) };
        dynamic::call(world.signed.clone(), &dynamic::method_of(ROLE, name), request).await.unwrap();
    }
}

fn cases(round: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = samples().iter().flat_map(|sample| sample.cases(ROLE, round)).collect();
    let organization = |text: &str| {
        json!({
            "organizationId": format!("org-{round}"),
            "organization": { "displayName": text },
        })
    };
    cases.push(Case {
        method: "CreateOrganization",
        before: Vec::new(),
        request: organization("A"),
        other: organization("B"),
        gone: Vec::new(),
    });
    cases.extend(memberships(round));
    let import = |kind: &str| {
        let content = format!(
            "apiVersion: backstage.io/v1alpha1\nkind: Component\nmetadata: {{ name: imported-{round} }}\n\
             spec: {{ type: {kind}, lifecycle: production, owner: one }}\n"
        );
        json!({ "parent": ACME, "documents": [{ "origin": "test", "content": content }] })
    };
    let imported = format!("{ACME}/kinds/component/entities/imported-{round}");
    cases.push(Case {
        method: "ImportEntities",
        before: Vec::new(),
        request: import("service"),
        other: import("website"),
        gone: vec![("DeleteEntity", json!({ "name": imported }))],
    });
    let number = round.len();
    let create = |title: &str| {
        let document =
            GOOD.replace("version: 1.0.0", &format!("version: 1.{number}.{}", round.as_bytes()[0]));
        let document = document.replace("title: Web service", &format!("title: {title}"));
        json!({ "parent": format!("{ACME}/templates/web-service"), "templateVersion": { "document": document } })
    };
    cases.push(Case {
        method: "CreateTemplateVersion",
        before: Vec::new(),
        request: create("A"),
        other: create("B"),
        gone: Vec::new(),
    });
    let template = format!("{ACME}/templates/web-service");
    let document = GOOD.replace("version: 1.0.0", "version: 9.0.0");
    let published = || {
        let version = json!({ "parent": template, "templateVersion": { "document": document } });
        ("CreateTemplateVersion", version)
    };
    let version = format!("{template}/versions/9.0.0");
    let point = |id: String| json!({ "name": template, "channelId": id, "templateVersion": version });
    let remove = |id: &str| json!({ "name": template, "channelId": format!("{id}-{round}") });
    cases.push(Case {
        method: "MoveTemplateChannel",
        before: vec![published()],
        request: point(format!("channel-{round}")),
        other: point(format!("other-{round}")),
        gone: vec![("RemoveTemplateChannel", remove("channel"))],
    });
    let mut lenient = remove("gone");
    lenient["allowMissing"] = true.into();
    cases.push(Case {
        method: "RemoveTemplateChannel",
        before: vec![published(), ("MoveTemplateChannel", point(format!("gone-{round}")))],
        request: remove("gone"),
        other: lenient,
        gone: Vec::new(),
    });
    cases
}

/// The group and the users are made with their ids of this round.
fn memberships(round: &str) -> [Case; 2] {
    let (group, other) = (format!("{ACME}/groups/of-{round}"), format!("{ACME}/groups/beside-{round}"));
    let user = |n: usize| format!("{ACME}/users/member-{round}-{n}");
    let create = |group: &str, n: usize| json!({ "parent": group, "membership": { "member": user(n) } });
    let name = |n: usize| format!("{group}/memberships/member-{round}-{n}");
    let made = |what: &'static str, id: &str| {
        let (method, field, id_field) = match what {
            "group" => ("CreateGroup", "group", "groupId"),
            _ => ("CreateUser", "user", "userId"),
        };
        (method, json!({ "parent": ACME, id_field: id, field: { "displayName": "X" } }))
    };
    let mut before = vec![made("group", &format!("of-{round}")), made("group", &format!("beside-{round}"))];
    before.extend((1..=2).map(|n| made("user", &format!("member-{round}-{n}"))));
    [
        Case {
            method: "CreateMembership",
            before,
            request: create(&group, 1),
            other: create(&other, 1),
            gone: vec![("DeleteMembership", json!({ "name": name(1) }))],
        },
        Case {
            method: "DeleteMembership",
            before: vec![("CreateMembership", create(&group, 2))],
            request: json!({ "name": name(2) }),
            other: json!({ "name": name(2), "allowMissing": true }),
            gone: Vec::new(),
        },
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_done_once_for_each_request_id() {
    db::both(|db| async {
        let world = World::ready(db).await;
        for id in ["git-repository", "ci-pipeline", "sql-database", "workload", "cache"] {
            world.resource_type(id, json!({}), &["url", "path"]).await;
        }
        let request = pb::CreateTemplateRequest {
            parent: ACME.into(),
            template_id: "web-service".into(),
            template: Some(pb::Template { display_name: "Web service".into(), ..Default::default() }),
            ..Default::default()
        };
        world.client.templates.clone().create_template(world.alice(request)).await.unwrap();
        let ask = |method: dynamic::MethodDescriptor, json: Json| {
            let (signed, root) = (world.signed.clone(), method.name() == "CreateOrganization");
            let request = if root { world.root(json) } else { world.alice(json) };
            let task = tokio::spawn(async move { dynamic::call(signed, &method, request).await });
            Box::pin(async move { task.await.unwrap() }) as BoxFuture<'_, _>
        };
        check(ROLE, cases, &ask).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_resource_keeps_to_what_all_resources_do() {
    db::both(|db| async {
        let world = World::ready(db).await;
        for id in ["git-repository", "ci-pipeline", "sql-database", "workload", "cache"] {
            world.resource_type(id, json!({}), &["url", "path"]).await;
        }
        let ask = |organization: &'static str| {
            let world = &world;
            move |method: dynamic::MethodDescriptor, json: Json| {
                let root = organization == "acme" && method.name() == "ListOrganizations";
                let request = if root { world.root(json) } else { world.in_org(organization, json) };
                let signed = world.signed.clone();
                Box::pin(async move { dynamic::call(signed, &method, request).await }) as BoxFuture<'_, _>
            }
        };
        let audited = || Box::pin(world.audited()) as LocalBoxFuture<'_, _>;
        let (insider, outsider) = (ask("acme"), ask("umbrella"));
        let existing = existing(&insider).await;
        let insert = |message: &'static str| Box::pin(insert(&world, message)) as LocalBoxFuture<'_, _>;
        let (ask, outsider, audited) = (&insider, &outsider, &audited);
        let subject =
            Subject { role: ROLE, samples: samples(), existing, ask, outsider, insert: &insert, audited };
        conformance::check(&subject).await;
    })
    .await;
}

/// A call as the gateway passes it on: with the resource that was decided on.
fn passed_on<T>(world: &World, resource: &str, method: &str, message: T) -> tonic::Request<T> {
    decided_on(world, resource, method, "", message)
}

/// The same with what stands for the facts that were decided on.
fn decided_on<T>(world: &World, resource: &str, method: &str, facts: &str, message: T) -> tonic::Request<T> {
    let alice = principal("acme", "alice");
    let decision = DecisionRef { decision: "d".into(), effect: Effect::Allow, ..DecisionRef::default() };
    let grant = Grant {
        audience: pavior_catalog::ROLE,
        method,
        principal: &alice,
        organization: "acme",
        action: &governance::rule(method).unwrap().action,
        resource,
        decision: Some(&decision),
        facts,
        request_id: "r",
    };
    let token = world.identity.mint(&grant).unwrap();
    let mut request = tonic::Request::new(message);
    request.metadata_mut().insert(INTERNAL_TOKEN, token.to_str().unwrap().parse().unwrap());
    request
}

#[tokio::test(flavor = "multi_thread")]
async fn facts_of_a_repetition_are_those_of_the_first_call() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let team = world.group("acme", "team", "").await;
        let mut request = create_component("acme", "cart", json!({}));
        request.entity.as_mut().unwrap().owner = team.name.clone();
        let entity =
            world.client.catalog.clone().create_entity(world.alice(request)).await.unwrap().into_inner();
        let method = "/pavior.catalog.v1.CatalogService/DeleteEntity".to_owned();
        let request_id = uuid();
        let facts = |name: &str, method: &str, request_id: &str, who: &str| {
            let ask = facts_pb::GetResourceFactsRequest {
                name: name.to_owned(),
                request_id: request_id.to_owned(),
                method: method.to_owned(),
                principal: format!("{ACME}/users/{who}"),
                message: Vec::new(),
            };
            let (mut client, ask) = (world.facts.clone(), world.alice(ask));
            async move { client.get_resource_facts(ask).await.unwrap().into_inner() }
        };
        let now = facts(&entity.name, &method, &request_id, "alice").await;
        assert_eq!((now.exists, now.owner.as_str()), (true, team.name.as_str()));
        let delete = pb::DeleteEntityRequest {
            name: entity.name.clone(),
            request_id: request_id.clone(),
            ..Default::default()
        };
        let delete = passed_on(&world, &entity.name, &method, delete);
        world.bare.catalog.clone().delete_entity(delete).await.unwrap();
        assert_eq!(facts(&entity.name, &method, &request_id.to_uppercase(), "alice").await, now);
        // For whoever else asks, for another method, another id or another resource, it is gone.
        let other = format!("{ACME}/kinds/component/entities/other");
        let create = "/pavior.catalog.v1.CatalogService/CreateEntity".to_owned();
        for (name, method, id, who) in [
            (&entity.name, &method, &request_id, "bob"),
            (&entity.name, &create, &request_id, "alice"),
            (&entity.name, &method, &uuid(), "alice"),
            (&other, &method, &request_id, "alice"),
        ] {
            let gone = facts(name, method, id, who).await;
            assert_eq!((gone.exists, gone.owner.as_str()), (false, ""), "{name} {method} {id} {who}");
        }
        let kept = std::time::Duration::from_secs(24 * 3_600);
        world.clock.advance(kept + std::time::Duration::from_secs(1));
        assert!(!facts(&entity.name, &method, &request_id, "alice").await.exists);
    })
    .await;
}

/// Between the decision and the change somebody else may give the entity to another group.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_decided_on_facts_that_have_changed_is_refused() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let (mine, theirs) = (world.group("acme", "mine", "").await, world.group("acme", "theirs", "").await);
        let mut request = create_component("acme", "cart", json!({}));
        request.entity.as_mut().unwrap().owner = mine.name.clone();
        let mut catalog = world.client.catalog.clone();
        let mut entity = catalog.create_entity(world.alice(request)).await.unwrap().into_inner();
        let [delete, import] = ["DeleteEntity", "ImportEntities"]
            .map(|method| format!("/pavior.catalog.v1.CatalogService/{method}"));
        let document = pb::import_entities_request::Document {
            origin: "test".to_owned(),
            content: "{apiVersion: backstage.io/v1alpha1, kind: Component, metadata: {name: cart}, \
                      spec: {type: service, lifecycle: production, owner: mine}}"
                .to_owned(),
        };
        let imports = pb::ImportEntitiesRequest {
            parent: ACME.to_owned(),
            documents: vec![document],
            ..Default::default()
        };
        let facts = async |name: &str, method: &str, message: Vec<u8>| {
            let ask = facts_pb::GetResourceFactsRequest {
                name: name.to_owned(),
                method: method.to_owned(),
                message,
                ..Default::default()
            };
            let facts = world.facts.clone().get_resource_facts(world.alice(ask)).await.unwrap();
            fingerprint(facts.get_ref())
        };
        let of_delete = facts(&entity.name, &delete, Vec::new()).await;
        let of_import = facts(ACME, &import, imports.encode_to_vec()).await;

        entity.owner.clone_from(&theirs.name);
        let update = pb::UpdateEntityRequest { entity: Some(entity.clone()), ..Default::default() };
        catalog.update_entity(world.alice(update)).await.unwrap();

        let mut bare = world.bare.catalog.clone();
        let remove = pb::DeleteEntityRequest { name: entity.name.clone(), ..Default::default() };
        let call = decided_on(&world, &entity.name, &delete, &of_delete, remove.clone());
        assert_problem(bare.delete_entity(call).await, Code::Aborted, "FACTS_CHANGED", &[]);
        let call = decided_on(&world, ACME, &import, &of_import, imports.clone());
        assert_problem(bare.import_entities(call).await, Code::Aborted, "FACTS_CHANGED", &[]);

        let of_import = facts(ACME, &import, imports.encode_to_vec()).await;
        bare.import_entities(decided_on(&world, ACME, &import, &of_import, imports)).await.unwrap();
        let of_delete = facts(&entity.name, &delete, Vec::new()).await;
        bare.delete_entity(decided_on(&world, &entity.name, &delete, &of_delete, remove)).await.unwrap();
    })
    .await;
}

/// Whoever may only update does not create what was deleted since the decision, and the other way round.
#[tokio::test(flavor = "multi_thread")]
async fn whether_it_is_there_is_looked_at_again_before_it_is_made_or_changed() {
    db::both(|db| async {
        let world = World::ready(db).await;
        let method = "/pavior.identity.v1.IdentityService/UpdateGroup";
        let name = format!("{ACME}/groups/team");
        let group =
            identity_pb::Group { name: name.clone(), display_name: "Team".into(), ..Default::default() };
        let update =
            identity_pb::UpdateGroupRequest { group: Some(group), allow_missing: true, ..Default::default() };
        let facts = async || {
            let ask = facts_pb::GetResourceFactsRequest { name: name.clone(), ..Default::default() };
            fingerprint(world.facts.clone().get_resource_facts(world.alice(ask)).await.unwrap().get_ref())
        };
        let mut identity = world.bare.identity.clone();
        let mut call = async |facts: &str| {
            identity.update_group(decided_on(&world, &name, method, facts, update.clone())).await
        };
        let absent = facts().await;
        call(&absent).await.unwrap();
        let present = facts().await;
        assert_ne!(present, absent);
        assert_problem(call(&absent).await, Code::Aborted, "FACTS_CHANGED", &[]);
        call(&present).await.unwrap();
        let delete = identity_pb::DeleteGroupRequest { name: name.clone(), ..Default::default() };
        world.client.identity.clone().delete_group(world.alice(delete)).await.unwrap();
        assert_problem(call(&present).await, Code::Aborted, "FACTS_CHANGED", &[]);
        // A name that nothing new can have is refused at the name.
        let group = identity_pb::Group { name: format!("{ACME}/groups/everyone"), ..Default::default() };
        let reserved = identity_pb::UpdateGroupRequest { group: Some(group), ..update.clone() };
        let refused = world.client.identity.clone().update_group(world.alice(reserved)).await;
        let problem = assert_problem(refused, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(fields(&problem), ["group.name"]);
    })
    .await;
}
