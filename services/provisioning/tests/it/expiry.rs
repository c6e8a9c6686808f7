//! Only an environment whose time is over now is taken down for it, whatever was seen of its timer before.

use std::sync::Arc;
use std::time::Duration;

use pavior_proto::pavior::provisioning::v1 as pb;
use pavior_testkit::db::both;
use pavior_testkit::wait_for;
use sea_orm::ConnectionTrait;
use tokio::sync::Semaphore;
use tonic::Code;

use crate::fixture::*;

const LIMIT: Duration = Duration::from_secs(60);

fn name(id: &str) -> String {
    format!("{HELLO}/environments/{id}")
}

async fn make(f: &Fixture, id: &str) {
    let mut request = environment_request(id);
    request.environment.as_mut().unwrap().environment_class_id = "preview".into();
    let made = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(made).await), None);
}

async fn delete(f: &Fixture, id: &str) {
    let request = pb::DeleteEnvironmentRequest { name: name(id), ..Default::default() };
    let deleted = f.projects().delete_environment(f.call(request)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(deleted).await), None);
}

async fn prolong(f: &Fixture, id: &str) {
    let ttl = pb::environment::Expiration::Ttl(prost_types::Duration { seconds: 3_600, nanos: 0 });
    let request = pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment { name: name(id), expiration: Some(ttl), ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["ttl".into()] }),
        ..Default::default()
    };
    let updated = f.projects().update_environment(f.call(request)).await.unwrap().into_inner();
    assert_eq!(problem(&f.wait(updated).await), None);
}

/// The time of every one of them is over, in this order.
async fn let_expire(f: &Fixture, ids: &[&str]) {
    let due: String =
        ids.iter().enumerate().map(|(due, id)| format!(" WHEN '{}' THEN {}", name(id), due + 1)).collect();
    let sql = format!("UPDATE timer SET due = CASE subject{due} ELSE due END");
    f.store
        .upkeep::<(), pavior_store::StoreError, _>("a test", move |tx| {
            let sql = sql.clone();
            Box::pin(async move {
                tx.execute_unprepared(&sql).await?;
                Ok(())
            })
        })
        .await
        .unwrap();
}

async fn gone(f: &Fixture, id: &str) {
    wait_for(id, LIMIT, async || {
        let get = pb::GetEnvironmentRequest { name: name(id), ..Default::default() };
        match f.projects().get_environment(f.call(get)).await {
            Err(status) if status.code() == Code::NotFound => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_prolonged_or_made_anew_while_the_expirer_was_busy_stands() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let ids = ["first", "prolonged", "anew", "last"];
        for id in ids {
            make(&f, id).await;
        }
        // All four are found to be due; the question about the first takes its time.
        let gate = Arc::new(Semaphore::new(0));
        f.peers.state().gate = Some(gate.clone());
        let_expire(&f, &ids).await;
        wait_for("the question", LIMIT, async || match &f.peers.state().gate {
            None => Ok(()),
            Some(_) => Err("not asked"),
        })
        .await;
        prolong(&f, "prolonged").await;
        delete(&f, "anew").await;
        make(&f, "anew").await;
        gate.add_permits(1);
        gone(&f, "first").await;
        gone(&f, "last").await;
        for id in ["prolonged", "anew"] {
            let environment = f.environment(id).await;
            assert_eq!(
                (environment.state(), environment.active_operation.as_str()),
                (pb::environment::State::Active, ""),
                "{id}"
            );
            assert!(f.driver.live().contains(&format!("{}/resources/database", name(id))), "{id}");
        }
    })
    .await;
}

/// What an environment says of its end.
async fn expires(f: &Fixture, id: &str) -> Option<i64> {
    match f.environment(id).await.expiration? {
        pb::environment::Expiration::ExpireTime(time) => Some(time.seconds),
        pb::environment::Expiration::Ttl(ttl) => panic!("{ttl:?} is for requests only"),
    }
}

async fn update(
    f: &Fixture,
    path: &str,
    expiration: Option<pb::environment::Expiration>,
) -> Result<(), pavior_rpc::problem::Decoded> {
    let request = pb::UpdateEnvironmentRequest {
        environment: Some(pb::Environment { name: name("staging"), expiration, ..Default::default() }),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.into()] }),
        ..Default::default()
    };
    match f.projects().update_environment(f.call(request)).await {
        Ok(updated) => {
            assert_eq!(problem(&f.wait(updated.into_inner()).await), None);
            Ok(())
        }
        Err(status) => Err(pavior_rpc::problem::from_status(&status)),
    }
}

#[tokio::test]
async fn the_end_of_an_environment_is_said_as_a_time_and_taken_back() {
    use pb::environment::Expiration::{ExpireTime, Ttl};
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        let at = |seconds: i64| prost_types::Timestamp { seconds, nanos: 0 };
        let now = time::OffsetDateTime::now_utc().unix_timestamp();
        let mut request = environment_request("staging");
        request.environment.as_mut().unwrap().expiration = Some(ExpireTime(at(now + 7_200)));
        let made = f.projects().create_environment(f.call(request)).await.unwrap().into_inner();
        assert_eq!(problem(&f.wait(made).await), None);
        assert_eq!(expires(&f, "staging").await, Some(now + 7_200));
        // A change of something else leaves it.
        update(&f, "display_name", None).await.unwrap();
        assert_eq!(expires(&f, "staging").await, Some(now + 7_200));
        update(&f, "expire_time", Some(ExpireTime(at(now + 9_000)))).await.unwrap();
        assert_eq!(expires(&f, "staging").await, Some(now + 9_000));
        let soon = update(&f, "expire_time", Some(ExpireTime(at(now + 5)))).await.unwrap_err();
        assert_eq!(
            (soon.code, soon.violations[0].field.as_str()),
            (Code::InvalidArgument, "environment.expire_time")
        );
        // Either field of the two may be named.
        update(&f, "ttl", None).await.unwrap();
        assert_eq!(expires(&f, "staging").await, None);
        let ttl = prost_types::Duration { seconds: 600, nanos: 0 };
        update(&f, "expire_time", Some(Ttl(ttl))).await.unwrap();
        assert!(expires(&f, "staging").await.unwrap() >= now + 600);
    })
    .await;
}

#[tokio::test]
async fn one_that_may_not_be_taken_down_is_told_of() {
    both(|db| async {
        let f = Fixture::new(db).await;
        f.project().await;
        make(&f, "kept").await;
        f.decide("provisioning.environments.delete", serde_json::json!({ "effect": "EFFECT_DENY" }));
        let sql = format!(
            "UPDATE timer SET due = 1 WHERE subject = '{0}'; UPDATE environment SET expire_time = '2001-01-01 00:00:00+00:00' WHERE name = '{0}'",
            name("kept")
        );
        f.store
            .upkeep::<(), pavior_store::StoreError, _>("a test", move |tx| {
                let sql = sql.clone();
                Box::pin(async move {
                    tx.execute_unprepared(&sql).await?;
                    Ok(())
                })
            })
            .await
            .unwrap();
        wait_for("the finding", LIMIT, async || {
            let request =
                pb::DiagnoseResourcesRequest { parent: "organizations/acme".into(), ..Default::default() };
            let told = f.projects().diagnose_resources(f.call(request)).await.unwrap().into_inner();
            let found: Vec<_> = told.findings.iter().map(|one| (one.kind(), one.resource.clone())).collect();
            if found != [(pb::resource_finding::Kind::Overdue, name("kept"))] {
                return Err(format!("{found:?}"));
            }
            let advice = &told.findings[0].advice;
            if advice.contains("give the environment a later end") { Ok(()) } else { Err(advice.clone()) }
        })
        .await;
    })
    .await;
}
