//! Every query, on SQLite and on PostgreSQL.

mod deleted;
mod directory;

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::future::BoxFuture;
use pavior_auth::{InternalSigner, Permit, ServiceIdentity};
use pavior_core::filter::{Filter, order_by};
use pavior_core::principal::INSTALLATION;
use pavior_resource::{Keeping, ListError, ListQuery, Table};
use pavior_store::StoreError;
use pavior_testkit::db::{self, TestDb};
use pavior_testkit::{Clock, IdGen, ManualClock, SystemIds};
use serde_json::json;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::domain::entity::{Edge, SeenRelation};
use crate::domain::membership::Source;
use crate::domain::reference::EntityKey;
use crate::domain::resource_definition::Criteria;
use crate::domain::template::Channel;
use crate::domain::{
    EntityFields, GroupFields, KindFields, MembershipFields, OrganizationFields, ResourceDefinitionFields,
    ResourceTypeFields, Stored, TemplateFields, UserFields, VersionFields, builtin,
};

/// What is deleted is kept for a day.
const KEEPING: Keeping = Keeping { time: Duration::DAY, most: 10 };

/// Queries in a transaction.
type Tx<'a> = Db<'a, pavior_store::Tx>;

struct World {
    store: Store,
    clock: Arc<ManualClock>,
    identity: ServiceIdentity,
    _db: TestDb,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let clock = Arc::new(ManualClock::default());
        let signer = InternalSigner::generate().unwrap();
        let identity = ServiceIdentity::new("test", signer, clock.clone(), Arc::new(SystemIds));
        let store = db.connect().await;
        migrate(&store).await.unwrap();
        let world = Self { store, clock, identity, _db: db };
        for id in ["acme", "umbrella"] {
            let fields = OrganizationFields { display_name: id.to_owned() };
            let organization = world.stored(id, id, fields);
            let kinds: Vec<_> =
                builtin::kinds().into_iter().map(|(kind, fields)| world.stored(id, kind, fields)).collect();
            let platform = world.permit(INSTALLATION);
            let shared = Arc::new((platform, organization, kinds));
            world
                .tx(move |tx| {
                    let shared = shared.clone();
                    Box::pin(async move { tx.insert_organization(&shared.0, &shared.1, &shared.2).await })
                })
                .await;
        }
        world
    }

    fn read(&self) -> Reader<'_> {
        Db::new(self.store.read())
    }

    fn permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.identity.authority(), organization)
    }

    fn stored<F: crate::domain::Fields>(&self, organization: &str, id: &str, fields: F) -> Stored<F> {
        Stored::new(organization, id, SystemIds.uuid(), self.clock.now(), fields)
    }

    async fn tx<W>(&self, work: W)
    where
        W: for<'c> Fn(Tx<'c>) -> BoxFuture<'c, Result<(), StoreError>> + Send + Sync + 'static,
    {
        self.try_tx(work).await.unwrap();
    }

    async fn try_tx<W>(&self, work: W) -> Result<(), StoreError>
    where
        W: for<'c> Fn(Tx<'c>) -> BoxFuture<'c, Result<(), StoreError>> + Send + Sync + 'static,
    {
        self.store.upkeep("a test", move |tx| work(Db::new(tx))).await
    }

    async fn insert<T: Table>(&self, organization: &str, id: &str, fields: T) -> Stored<T> {
        let stored = self.stored(organization, id, fields);
        let shared = Arc::new((self.permit(organization), stored.clone()));
        self.tx(move |tx| {
            let shared = shared.clone();
            Box::pin(async move { tx.insert(&shared.0, &shared.1).await })
        })
        .await;
        stored
    }

    async fn find<T: Table>(&self, organization: &str, parent: &str, id: &str) -> Option<Stored<T>> {
        self.read().find::<T>(&self.permit(organization), parent, id).await.unwrap()
    }
}

fn entity(kind: &str) -> EntityFields {
    EntityFields {
        kind: kind.to_owned(),
        display_name: "Shown".to_owned(),
        description: "What it is".to_owned(),
        labels: [("tier".to_owned(), "gold".to_owned())].into(),
        annotations: [("a/b".to_owned(), "1".to_owned())].into(),
        tags: vec!["java".to_owned()],
        links: vec![crate::domain::entity::Link { url: "https://x".to_owned(), ..Default::default() }],
        owner: "organizations/acme/groups/team".to_owned(),
        spec: json!({"type": "service", "n": 1.5, "list": [1, null, true]}),
        origin: "file:x".to_owned(),
    }
}

fn resource_type() -> ResourceTypeFields {
    ResourceTypeFields {
        display_name: "Type".to_owned(),
        description: String::new(),
        input_schema: json!({"type": "object", "properties": {"b": {}, "a": {}}}).into(),
        output_schema: json!({"properties": {"url": {}}}).into(),
        secret_outputs: vec!["url".to_owned()],
    }
}

fn definition(criteria: Vec<Criteria>) -> ResourceDefinitionFields {
    ResourceDefinitionFields {
        display_name: String::new(),
        description: "d".to_owned(),
        resource_type: "db".to_owned(),
        driver: "sqlite".to_owned(),
        driver_inputs: json!({"a": "${{ inputs.b }}"}),
        match_criteria: criteria,
        monthly_cost: Some("12.50 USD".parse().unwrap()),
    }
}

fn version(template: &str) -> VersionFields {
    VersionFields {
        template: template.to_owned(),
        document: "template: x".to_owned(),
        digest: pavior_core::digest::sha256_digest(b"template: x"),
        parameter_schema: json!({"type": "object", "required": [], "properties": {}}).into(),
        environment_classes: vec!["zeta".to_owned(), "alpha".to_owned()],
        content: json!({"template": "x"}),
    }
}

/// Insert, find, update, lost update, delete, for one table.
async fn life<T: Table>(world: &World, id: &str, fields: T, changed: T) {
    let parent = fields.parent().to_owned();
    let stored = world.insert("acme", id, fields).await;
    assert_eq!(world.find::<T>("acme", &parent, id).await.as_ref(), Some(&stored));
    assert_eq!(world.find::<T>("umbrella", &parent, id).await, None);
    let permit = world.permit("acme");
    let many =
        world.read().find_many::<T>(&permit, &parent, &[id.to_owned(), "none".to_owned()]).await.unwrap();
    assert_eq!(many, std::slice::from_ref(&stored));
    let twice = Arc::new((permit.clone(), world.stored("acme", id, stored.fields.clone())));
    let error: StoreError = world
        .try_tx(move |tx| {
            let twice = twice.clone();
            Box::pin(async move { tx.insert(&twice.0, &twice.1).await })
        })
        .await
        .unwrap_err();
    assert!(error.is_unique(), "{error:?}");
    world.clock.advance(std::time::Duration::from_secs(1));
    let next = stored.next(world.clock.now(), changed);
    let shared = Arc::new((permit, stored, next.clone(), world.permit("umbrella")));
    world
        .tx(move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                let (permit, stored, next, other) = &*shared;
                assert!(tx.update(other, next).await.is_err(), "another organization's permit");
                tx.update(permit, next).await?;
                let lost = tx.update(permit, next).await;
                assert!(matches!(lost, Err(StoreError::Concurrent)), "{lost:?}");
                let lost = tx.delete(permit, stored, OffsetDateTime::UNIX_EPOCH, KEEPING).await;
                assert!(matches!(lost, Err(StoreError::Concurrent)), "{lost:?}");
                Ok(())
            })
        })
        .await;
    assert_eq!(world.find::<T>("acme", &parent, id).await.as_ref(), Some(&next));
    let shared = Arc::new((world.permit("acme"), next.clone()));
    world
        .tx(move |tx| {
            let shared = shared.clone();
            Box::pin(async move {
                tx.delete(&shared.0, &shared.1, OffsetDateTime::UNIX_EPOCH, KEEPING).await.map(drop)
            })
        })
        .await;
    assert_eq!(world.find::<T>("acme", &parent, id).await, None);
    let with_deleted = ListQuery { deleted: true, ..query() };
    let kept = world.read().page::<T>(&world.permit("acme"), &with_deleted).await.unwrap().rows;
    let ended = Some(KEEPING.ended(OffsetDateTime::UNIX_EPOCH));
    assert!(kept.contains(&Stored { ended, ..next }), "{kept:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_read_as_they_were_written() {
    db::both(|db| async {
        let world = World::new(db).await;
        let group = |parent: Option<&str>| GroupFields {
            display_name: "G".to_owned(),
            description: "d".to_owned(),
            parent: parent.map(str::to_owned),
        };
        life(&world, "team", group(None), group(Some("top"))).await;
        let user = |email: &str| UserFields { display_name: "U".to_owned(), email: email.to_owned() };
        life(&world, "a.b@c", user("a@b"), user("")).await;
        let import = |group, member| membership("team", "a.b@c", Source::Import { group, member });
        life(&world, "a.b@c", import(true, false), import(false, true)).await;
        life(&world, "a.b@c", import(true, true), membership("team", "a.b@c", Source::Api)).await;
        let mut kind: KindFields = builtin::kinds().remove(0).1;
        kind.built_in = false;
        life(&world, "robot", kind.clone(), KindFields { description: "other".to_owned(), ..kind }).await;
        life(&world, "cart", entity("component"), EntityFields { spec: json!({}), ..entity("component") })
            .await;
        let (version_id, mover) = ("1.0.0".to_owned(), "organizations/acme/users/pia".to_owned());
        let channel = Channel { version: version_id, move_time: world.clock.now(), mover };
        let template =
            TemplateFields { channels: [("stable".to_owned(), channel)].into(), ..Default::default() };
        life(
            &world,
            "web",
            template.clone(),
            TemplateFields { latest_version: "1.0.0".to_owned(), ..template },
        )
        .await;
        life(&world, "db", resource_type(), ResourceTypeFields { secret_outputs: vec![], ..resource_type() })
            .await;
        let criteria = Criteria {
            environment_class: Some("prod".to_owned()),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..Default::default()
        };
        life(&world, "sqlite", definition(vec![]), definition(vec![criteria])).await;
        let costing = |cost: Option<&str>| ResourceDefinitionFields {
            monthly_cost: cost.map(|cost| cost.parse().unwrap()),
            ..definition(vec![])
        };
        life(&world, "free", costing(Some("0.00 USD")), costing(None)).await;
        let stored = world.insert("acme", "1.0.0", version("web")).await;
        assert_eq!(world.find::<VersionFields>("acme", "web", "1.0.0").await, Some(stored));
        assert_eq!(world.find::<VersionFields>("acme", "other", "1.0.0").await, None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_follow_each_other_in_every_order() {
    db::both(|db| async {
        let world = World::new(db).await;
        for (n, id) in ["c", "a", "e", "b", "d"].into_iter().enumerate() {
            world.clock.advance(std::time::Duration::from_millis(n as u64 % 2));
            let fields = GroupFields { display_name: format!("x{}", n % 2), ..Default::default() };
            world.insert("acme", id, fields).await;
        }
        world.insert("umbrella", "foreign", GroupFields::default()).await;
        let permit = world.permit("acme");
        for order in ["", "name desc", "create_time", "create_time desc, name"] {
            let mut query = ListQuery {
                parent: None,
                filter: Filter::parse("display_name = \"x*\"").unwrap(),
                order: order_by(order).unwrap(),
                limit: 100,
                after: None,
                count: false,
                deleted: false,
            };
            let whole = world.read().page::<GroupFields>(&permit, &query).await.unwrap();
            assert_eq!(whole.rows.len(), 5);
            query.limit = 2;
            let mut ids = Vec::new();
            loop {
                let page = world.read().page::<GroupFields>(&permit, &query).await.unwrap();
                ids.extend(page.rows.iter().map(|row| row.id.clone()));
                match page.positions.last() {
                    Some(last) => query.after = Some(last.clone()),
                    None => break,
                }
            }
            assert_eq!(ids, whole.rows.iter().map(|row| row.id.clone()).collect::<Vec<_>>(), "{order}");
        }
        for bad in [json!(null), json!(["a"]), json!([1, "x"]), json!({})] {
            let query = ListQuery {
                parent: None,
                filter: Filter::And(vec![]),
                order: vec![],
                limit: 2,
                after: Some(bad),
                count: false,
                deleted: false,
            };
            let error = world.read().page::<GroupFields>(&permit, &query).await.unwrap_err();
            assert!(matches!(error, ListError::Position(_)), "{error:?}");
        }
    })
    .await;
}

fn membership(group: &str, user: &str, source: Source) -> MembershipFields {
    MembershipFields { group: group.to_owned(), member: format!("organizations/acme/users/{user}"), source }
}

fn query() -> ListQuery {
    ListQuery {
        parent: None,
        filter: Filter::And(vec![]),
        order: vec![],
        limit: 10,
        after: None,
        count: false,
        deleted: false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn entities_relations_and_imports() {
    db::both(|db| async {
        let world = World::new(db).await;
        let permit = world.permit("acme");
        let a = world.stored("acme", "a", entity("component"));
        let b = world.stored("acme", "b", entity("system"));
        let edge = |kind: &str, id: &str| Edge {
            relation: "partOf".to_owned(),
            inverse: "hasPart".to_owned(),
            target: EntityKey::new(kind, id),
        };
        let edges: BTreeSet<Edge> =
            [edge("system", "b"), edge("system", "none"), edge("group", "team")].into();
        world.insert("acme", "team", GroupFields::default()).await;
        let shared = Arc::new((permit.clone(), a.clone(), b.clone(), edges));
        world
            .tx(move |tx| {
                let shared = shared.clone();
                Box::pin(async move {
                    let (permit, a, b, edges) = &*shared;
                    tx.upsert_entities(permit, &[a.clone(), b.clone()]).await?;
                    tx.insert_declared(permit, &[(a, edges), (b, &BTreeSet::new())]).await
                })
            })
            .await;
        let reader = world.read();
        let keys =
            [EntityKey::new("component", "a"), EntityKey::new("system", "b"), EntityKey::new("api", "a")];
        assert_eq!(reader.entities_by_key(&permit, &keys).await.unwrap().len(), 2);
        assert_eq!(reader.entities_by_key(&world.permit("umbrella"), &keys).await.unwrap(), []);
        let existing = reader.existing_entities(&permit, &keys).await.unwrap();
        assert_eq!(existing[&keys[0]].digest, a.fields.digest());
        let short = |r: &SeenRelation| format!("{} {} {}", r.relation, r.target.id, r.resolved);
        let own = reader.declared(&permit, &[a.uid, b.uid]).await.unwrap();
        let wanted = ["partOf team true", "partOf b true", "partOf none false"];
        assert_eq!(own[&a.uid].iter().map(short).collect::<Vec<_>>(), wanted);
        assert!(!own.contains_key(&b.uid));
        let both = async |permit: &Permit, entity, after: Option<&serde_json::Value>| {
            let found = reader.relations_after(permit, entity, after, 2).await.unwrap();
            found.into_iter().map(|(seen, at)| (short(&seen), at)).collect::<Vec<_>>()
        };
        let first = both(&permit, &a, None).await;
        assert_eq!(first.iter().map(|(seen, _)| seen.as_str()).collect::<Vec<_>>(), wanted[..2]);
        let rest = both(&permit, &a, Some(&first[1].1)).await;
        assert_eq!(rest.iter().map(|(seen, _)| seen.as_str()).collect::<Vec<_>>(), wanted[2..]);
        assert_eq!(
            both(&permit, &b, None).await,
            [("hasPart a true".to_owned(), json!(["hasPart", "component", "a"]))]
        );
        assert_eq!(both(&world.permit("umbrella"), &b, None).await, []);
        let bad = reader.relations_after(&permit, &a, Some(&json!(["partOf", 1])), 2).await.unwrap_err();
        assert!(matches!(bad, ListError::Position(_)), "{bad:?}");
        assert_eq!(reader.dependents(&permit, &keys[1], None, 5).await.unwrap(), [keys[0].clone()]);
        for (owner, wanted) in
            [(a.fields.owner.as_str(), &keys[..1]), ("organizations/acme/groups/other", &[])]
        {
            assert_eq!(reader.dependents(&permit, &keys[1], Some(owner), 5).await.unwrap(), wanted);
        }
        assert_eq!(
            reader.dependents(&permit, &EntityKey::new("group", "team"), None, 5).await.unwrap(),
            [keys[0].clone()]
        );
        assert_eq!(reader.ids_below::<EntityFields>(&permit, "component", 5).await.unwrap(), ["a"]);
        assert_eq!(reader.entities_of_kind(&permit, "component", "", 5).await.unwrap().len(), 1);
        assert_eq!(reader.entities_of_kind(&permit, "component", "a", 5).await.unwrap().len(), 0);

        let next =
            a.next(world.clock.now(), EntityFields { labels: Default::default(), ..entity("component") });
        let shared = Arc::new((permit.clone(), next.clone()));
        world
            .tx(move |tx| {
                let shared = shared.clone();
                Box::pin(async move {
                    let (permit, next) = &*shared;
                    tx.upsert_entities(permit, std::slice::from_ref(next)).await?;
                    tx.clear_declared(permit, &[next.uid]).await?;
                    tx.insert_declared(permit, &[(next, &BTreeSet::new())]).await
                })
            })
            .await;
        assert_eq!(world.find::<EntityFields>("acme", "component", "a").await, Some(next));
        assert!(reader.dependents(&permit, &keys[1], None, 5).await.unwrap().is_empty());
        let gold = ListQuery { filter: Filter::parse("labels.tier = gold").unwrap(), ..query() };
        let found = reader.page::<EntityFields>(&permit, &gold).await.unwrap();
        assert_eq!(found.rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["b"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn types_definitions_and_versions() {
    db::both(|db| async {
        let world = World::new(db).await;
        let permit = world.permit("acme");
        let db_type = world.insert("acme", "db", resource_type()).await;
        world.insert("acme", "one", definition(vec![])).await;
        world.insert("umbrella", "two", definition(vec![])).await;
        let published = world.insert("acme", "1.0.0", version("web")).await;
        let shared = Arc::new((permit.clone(), published));
        world
            .tx(move |tx| {
                let shared = shared.clone();
                Box::pin(async move {
                    tx.insert_version_types(&shared.0, &shared.1, &["db".to_owned()].into()).await?;
                    tx.insert_version_types(&shared.0, &shared.1, &BTreeSet::new()).await
                })
            })
            .await;
        let reader = world.read();
        let users = reader.users_of_type(&permit, &db_type, 5).await.unwrap();
        assert_eq!(
            users,
            ["organizations/acme/resourceDefinitions/one", "organizations/acme/templates/web/versions/1.0.0"]
        );
        let types = ["db".to_owned(), "cache".to_owned()];
        assert_eq!(reader.definitions_of(&permit, &types).await.unwrap().len(), 1);
        assert_eq!(reader.ids_below::<VersionFields>(&permit, "web", 5).await.unwrap(), ["1.0.0"]);
        assert!(
            reader.ids_below::<VersionFields>(&world.permit("umbrella"), "web", 5).await.unwrap().is_empty()
        );
    })
    .await;
}
