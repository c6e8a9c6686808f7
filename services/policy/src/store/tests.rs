//! The queries, on both databases.

use std::sync::Arc;

use pavior_auth::{InternalSigner, Permit, ServiceIdentity};
use pavior_core::principal::EVERYONE;
use pavior_resource::{Keeping, ListQuery, Rows, Stored, Table};
use pavior_store::{Store, StoreError};
use pavior_testkit::db::both;
use pavior_testkit::{Clock as _, IdGen as _, ManualClock, SeededIds};
use time::{Duration, OffsetDateTime};

use sea_orm::ConnectionTrait as _;

use super::*;
use crate::domain::action::Pattern;
use crate::domain::annotation::Level;
use crate::domain::approval::{ApprovalFields, CastVote, Choice, Requirement, State, Vote};
use crate::domain::combine::{Effect, Reason};
use crate::domain::decision::DecisionFields;
use crate::domain::input::Stage;
use crate::domain::role::RoleFields;
use crate::domain::role_binding::{Member, Reach, RoleBindingFields};

struct Fixture {
    store: Store,
    ids: SeededIds,
    clock: Arc<ManualClock>,
    identity: ServiceIdentity,
}

impl Fixture {
    async fn new(db: &pavior_testkit::db::TestDb) -> Self {
        let store = db.connect().await;
        crate::migrate(&store).await.unwrap();
        let clock = Arc::new(ManualClock::default());
        let identity = ServiceIdentity::new(
            "policy",
            InternalSigner::generate().unwrap(),
            clock.clone(),
            Arc::new(SeededIds::new(1)),
        );
        Self { store, ids: SeededIds::new(7), clock, identity }
    }

    fn permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.identity.authority(), organization)
    }

    fn stored<T>(&self, organization: &str, id: &str, spec: T) -> Stored<T> {
        self.clock.advance(std::time::Duration::from_secs(1));
        Stored::new(organization, id, self.ids.uuid(), self.clock.now(), spec)
    }

    async fn insert<T: Table>(&self, stored: &Stored<T>) -> Result<(), StoreError> {
        let permit = self.permit(&stored.organization);
        let work = (permit, stored.clone());
        self.store
            .upkeep("a test", move |tx| {
                let (permit, stored) = work.clone();
                Box::pin(async move { Rows::new(tx).insert(&permit, &stored).await })
            })
            .await
    }
}

fn role(display_name: &str) -> RoleFields {
    let actions = vec![Pattern::All, Pattern::Prefix("catalog.".into())];
    RoleFields { display_name: display_name.into(), description: "d".into(), actions }
}

#[tokio::test]
async fn resources_are_kept_by_organization() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let (one, other) = (f.stored("acme", "dev", role("One")), f.stored("other", "dev", role("Other")));
        f.insert(&one).await.unwrap();
        f.insert(&other).await.unwrap();
        assert!(f.insert(&f.stored("acme", "dev", role("Again"))).await.unwrap_err().is_unique());
        let db = f.store.read();
        assert_eq!(
            Rows::new(db).find::<RoleFields>(&f.permit("acme"), "", "dev").await.unwrap(),
            Some(one.clone())
        );
        assert_eq!(Rows::new(db).find::<RoleFields>(&f.permit("third"), "", "dev").await.unwrap(), None);
        assert_eq!(Rows::new(db).count::<RoleFields>(&f.permit("acme")).await.unwrap(), 1);
        assert_eq!(Rows::new(db).all::<RoleFields>(&f.permit("other")).await.unwrap(), vec![other.clone()]);
        // A row of another organization is written by no permit.
        let result = f
            .store
            .upkeep("a test", {
                let permit = f.permit("acme");
                move |tx| {
                    let (permit, other) = (permit.clone(), other.clone());
                    Box::pin(async move {
                        Rows::new(tx)
                            .delete(&permit, &other, OffsetDateTime::UNIX_EPOCH, Keeping::days(1, 1))
                            .await
                    })
                }
            })
            .await;
        assert!(matches!(result, Err(StoreError::Corrupt(_))), "{result:?}");
    })
    .await;
}

#[tokio::test]
async fn only_the_next_revision_is_written() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let one = f.stored("acme", "dev", role("One"));
        f.insert(&one).await.unwrap();
        let write = async |revision: i64| {
            let work = (f.permit("acme"), Stored { revision, fields: role("Two"), ..one.clone() });
            f.store
                .upkeep("a test", move |tx| {
                    let (permit, changed) = work.clone();
                    Box::pin(async move { Rows::new(tx).update(&permit, &changed).await })
                })
                .await
        };
        assert!(matches!(write(3).await, Err(StoreError::Concurrent)));
        write(2).await.unwrap();
        assert!(matches!(write(2).await, Err(StoreError::Concurrent)));
        let rows = Rows::new(f.store.read());
        let now = rows.find::<RoleFields>(&f.permit("acme"), "", "dev").await.unwrap().unwrap();
        assert_eq!((now.revision, now.fields.display_name.as_str()), (2, "Two"));
    })
    .await;
}

#[tokio::test]
async fn pages_follow_the_order_and_the_filter() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        for id in ["c", "a", "d", "b"] {
            let spec = RoleBindingFields {
                role: if id < "c" { "x" } else { "y" }.into(),
                members: vec![Member::Group(EVERYONE.into()), Member::Group("g".into())],
                project: (id == "a").then(|| "hello".into()),
                reach: if id == "b" { Reach::Owned } else { Reach::All },
            };
            f.insert(&f.stored("acme", id, spec)).await.unwrap();
        }
        let list = async |filter: &str, order: &str| {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let query = ListQuery::new(None, filter, order, 2, after).unwrap();
                let (rows, permit) = (Rows::new(f.store.read()), f.permit("acme"));
                let page = rows.page::<RoleBindingFields>(&permit, &query).await.unwrap();
                let Some(last) = page.positions.last() else { return found.join("") };
                after = Some(last.clone());
                found.extend(page.rows.into_iter().map(|stored| stored.id));
            }
        };
        assert_eq!(list("", "").await, "abcd");
        assert_eq!(list("", "name desc").await, "dcba");
        assert_eq!(list("", "create_time").await, "cadb");
        assert_eq!(list("", "create_time desc, name").await, "bdac");
        assert_eq!(list("role = \"organizations/acme/roles/y\"", "").await, "cd");
        assert_eq!(list("scope = \"organizations/acme/projects/hello\"", "").await, "a");
        let bindings = role_bindings_of(f.store.read(), &f.permit("acme"), "x").await.unwrap();
        assert_eq!(bindings, ["a", "b"]);
    })
    .await;
}

#[tokio::test]
async fn an_unknown_text_in_an_enum_column_is_an_error() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let fields = RoleBindingFields {
            role: "dev".into(),
            members: vec![Member::Group(EVERYONE.into())],
            project: None,
            reach: Reach::Owned,
        };
        f.insert(&f.stored("acme", "one", fields)).await.unwrap();
        let corrupt = f.store.upkeep("a test", |tx| {
            Box::pin(async move {
                tx.execute_unprepared("UPDATE role_bindings SET reach = 'REACH_NOWHERE'").await?;
                Ok::<_, StoreError>(())
            })
        });
        corrupt.await.unwrap();
        let rows = Rows::new(f.store.read());
        let error = rows.find::<RoleBindingFields>(&f.permit("acme"), "", "one").await.unwrap_err();
        assert_eq!(error.kind(), pavior_store::ErrorKind::Corrupt, "{error:?}");
        let problem = pavior_rpc::Problem::from(crate::Error::from(error));
        assert_eq!(problem.code, tonic::Code::Internal);
        assert!(problem.message.starts_with("internal error, reference `"), "{}", problem.message);
    })
    .await;
}

#[tokio::test]
async fn revisions_count_changes() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        for (organization, want) in [("acme", 1), ("acme", 2), ("other", 1)] {
            let permit = f.permit(organization);
            f.store
                .upkeep("a test", move |tx| {
                    let permit = permit.clone();
                    Box::pin(async move { bump_revision(tx, &permit).await })
                })
                .await
                .unwrap();
            assert_eq!(read_revision(f.store.read(), &f.permit(organization)).await.unwrap(), want);
        }
        assert_eq!(read_revision(f.store.read(), &f.permit("third")).await.unwrap(), 0);
    })
    .await;
}

fn approval(f: &Fixture) -> ApprovalFields {
    ApprovalFields {
        state: State::Pending,
        requester: "organizations/acme/users/alice".into(),
        on_behalf_of: Some("organizations/acme/users/bob".into()),
        author: "organizations/acme/users/carol".into(),
        action: "a.b.c".into(),
        resource: "organizations/acme".into(),
        operation: "organizations/acme/operations/1".into(),
        plan: "organizations/acme/plans/1".into(),
        plan_digest: "d1".into(),
        summary: "s".into(),
        requirements: vec![Requirement {
            group: "platform".into(),
            quorum: 2,
            rule_ids: vec!["p".into()],
            ttl_seconds: Some(60),
        }],
        votes: vec![],
        expire_time: f.clock.now() + Duration::seconds(60),
        end_reason: String::new(),
    }
}

#[tokio::test]
async fn approvals_and_votes_come_back_as_they_were() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let mut stored = f.stored("acme", "one", approval(&f));
        let vote = Vote {
            voter: "organizations/acme/users/carol".into(),
            choice: Choice::Approve,
            groups: ["platform".into()].into(),
        };
        let cast = CastVote { vote, reason: "ok".into(), vote_time: f.clock.now(), plan_digest: "d1".into() };
        let permit = f.permit("acme");
        let work = (permit.clone(), stored.clone(), cast.clone());
        f.store
            .upkeep("a test", move |tx| {
                let (permit, stored, cast) = work.clone();
                Box::pin(async move {
                    Rows::new(tx).insert(&permit, &stored).await?;
                    insert_vote(tx, &permit, &stored, &cast).await
                })
            })
            .await
            .unwrap();
        let foreign = with_votes(f.store.read(), &f.permit("other"), vec![stored.clone()]).await;
        assert!(matches!(foreign, Err(StoreError::Corrupt(_))), "{foreign:?}");
        stored.fields.votes.push(cast);
        let db = f.store.read();
        assert_eq!(approval_by_id(db, &permit, "one").await.unwrap(), Some(stored.clone()));
        assert_eq!(approval_by_id(db, &f.permit("other"), "one").await.unwrap(), None);
        let same = approval_for_plan(db, &permit, "organizations/acme/operations/1", "d1").await.unwrap();
        assert_eq!(same.map(|found| found.uid), Some(stored.uid));
        assert!(due_approvals(db, &permit, f.clock.now(), 10).await.unwrap().is_empty());
        let later = f.clock.now() + Duration::seconds(61);
        assert_eq!(due_approvals(db, &permit, later, 10).await.unwrap(), ["one"]);
        assert_eq!(due_organizations_unscoped(db, later).await.unwrap(), ["acme"]);
        let mut ended = Stored { revision: 2, ..stored.clone() };
        ended.fields.state = State::Expired;
        let write = async || {
            let work = (permit.clone(), ended.clone());
            f.store
                .upkeep("a test", move |tx| {
                    let (permit, ended) = work.clone();
                    Box::pin(async move { Rows::new(tx).update(&permit, &ended).await })
                })
                .await
        };
        write().await.unwrap();
        assert!(matches!(write().await, Err(StoreError::Concurrent)));
        let ids = ["one".to_owned(), "two".to_owned()];
        let found = approvals_by_ids(f.store.read(), &permit, &ids).await.unwrap();
        assert_eq!(found.values().map(|one| one.fields.state).collect::<Vec<_>>(), [State::Expired]);
    })
    .await;
}

fn decision(f: &Fixture, organization: &str, effect: Effect) -> Stored<DecisionFields> {
    let reason = Reason {
        revision: "organizations/acme/policies/x/revisions/2".into(),
        level: Some(Level::Soft),
        ..Reason::built_in("x", "no")
    };
    let fields = DecisionFields {
        principal: "organizations/acme/users/alice".into(),
        on_behalf_of: None,
        action: "a".into(),
        resource: "organizations/acme/projects/hello".into(),
        stage: Stage::Plan,
        effect,
        reasons: vec![reason.clone()],
        warnings: vec![],
        shadow: vec![reason],
        requirements: vec![Requirement {
            group: "platform".into(),
            quorum: 2,
            rule_ids: vec!["x".into()],
            ttl_seconds: Some(60),
        }],
        granting_roles: vec!["organizations/acme/roles/dev".into()],
        policy_error: true,
        input_digest: "i".into(),
        plan_digest: "d".into(),
        policies_digest: "pr".into(),
        directory_version: "dr".into(),
    };
    let uid = f.ids.uuid();
    Stored::new(organization, &uid.to_string(), uid, f.clock.now(), fields)
}

async fn insert(f: &Fixture, decisions: Vec<Stored<DecisionFields>>) {
    let decisions = Arc::new(decisions);
    f.store
        .upkeep("a test", move |tx| {
            let decisions = decisions.clone();
            Box::pin(async move { insert_decisions_unscoped(tx, &decisions).await })
        })
        .await
        .unwrap();
}

async fn sweep(f: &Fixture, organization: Option<&'static str>, until: OffsetDateTime) -> bool {
    let done =
        f.store.upkeep("a test", move |tx| Box::pin(sweep_decisions_unscoped(tx, organization, until)));
    done.await.unwrap()
}

#[tokio::test]
async fn decisions_are_kept_until_they_are_old() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let kept = decision(&f, "acme", Effect::Deny);
        insert(&f, vec![kept.clone()]).await;
        // Whether a commit has held is not always known: then a batch comes again, and must not stop what comes after it.
        let next = decision(&f, "acme", Effect::Deny);
        insert(&f, vec![kept.clone(), next.clone()]).await;
        let rows = Rows::new(f.store.read());
        let both = [kept.id.clone(), next.id.clone()];
        let written = rows.find_many::<DecisionFields>(&f.permit("acme"), "", &both).await.unwrap();
        assert_eq!(written.len(), 2);
        let found = async |organization: &str| {
            let rows = Rows::new(f.store.read());
            rows.find::<DecisionFields>(&f.permit(organization), "", &kept.id).await.unwrap()
        };
        assert!(!sweep(&f, None, f.clock.now() - Duration::seconds(1)).await);
        assert_eq!(found("acme").await, Some(kept.clone()));
        assert_eq!(found("other").await, None);
        assert!(!sweep(&f, Some("other"), f.clock.now()).await);
        assert_eq!(found("acme").await, Some(kept.clone()));
        assert!(!sweep(&f, None, f.clock.now()).await);
        assert_eq!(found("acme").await, None);
    })
    .await;
}

#[tokio::test]
async fn the_oldest_decisions_of_crowded_organizations_go() {
    both(|db| async move {
        let f = Fixture::new(&db).await;
        let mut all = Vec::new();
        for _ in 0..3 {
            all.push(decision(&f, "acme", Effect::Allow));
            all.push(decision(&f, "other", Effect::Deny));
            f.clock.advance(std::time::Duration::from_secs(1));
        }
        all.push(decision(&f, "acme", Effect::Allow));
        insert(&f, all.clone()).await;
        let crowded = crowded_unscoped(f.store.read(), 3).await.unwrap();
        assert_eq!(crowded, [("acme".to_owned(), all[0].create_time)]);
        assert!(!sweep(&f, Some("acme"), all[0].create_time).await);
        let rows = Rows::new(f.store.read());
        assert_eq!(rows.count::<DecisionFields>(&f.permit("acme")).await.unwrap(), 3);
        assert_eq!(rows.count::<DecisionFields>(&f.permit("other")).await.unwrap(), 3);
        assert_eq!(crowded_unscoped(f.store.read(), 3).await.unwrap(), []);
    })
    .await;
}
