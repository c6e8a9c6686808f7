//! Channels of golden paths: moved and removed by verbs of their own.

use pavior_proto::pavior::catalog::v1 as pb;
use pavior_rpc::convert::to_timestamp;
use pavior_testkit::{Clock as _, db};
use serde_json::json;
use tonic::{Code, Response, Status};

use crate::support::{World, mask, uuid};
use crate::templates::{GOOD, PARENT, create, point, world};
use pavior_testkit::{assert_problem, fields};

const MOVER: &str = "organizations/acme/users/alice";

type Answer = Result<Response<pb::Template>, Status>;

fn remove(channel: &str) -> pb::RemoveTemplateChannelRequest {
    pb::RemoveTemplateChannelRequest { name: PARENT.into(), channel_id: channel.into(), ..Default::default() }
}

async fn moved(world: &World, request: pb::MoveTemplateChannelRequest) -> Answer {
    world.client.templates.clone().move_template_channel(world.alice(request)).await
}

async fn removed(world: &World, request: pb::RemoveTemplateChannelRequest) -> Answer {
    world.client.templates.clone().remove_template_channel(world.alice(request)).await
}

/// With the versions 1.0.0 and 1.1.0.
async fn published(db: db::TestDb) -> World {
    let world = world(db).await;
    for version in ["1.0.0", "1.1.0"] {
        let document = GOOD.replace("version: 1.0.0", &format!("version: {version}"));
        let request = world.alice(create(&document));
        world.client.templates.clone().create_template_version(request).await.unwrap();
    }
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_says_where_it_points_who_moved_it_and_when() {
    db::both(|db| async {
        let world = published(db).await;
        let channel = |version: &str, world: &World| pb::template::Channel {
            template_version: format!("{PARENT}/versions/{version}"),
            move_time: Some(to_timestamp(world.clock.now())),
            mover: MOVER.to_owned(),
        };
        world.later();
        let first = moved(&world, point("stable", "1.0.0")).await.unwrap().into_inner();
        assert_eq!(first.channels, [("stable".to_owned(), channel("1.0.0", &world))].into());
        let told = world.audited().await.pop().unwrap();
        assert_eq!(told.action, "catalog.templates.moveChannel");
        let change = told.change.unwrap();
        assert_eq!(change.before.unwrap()["channels"], json!({}));
        let kept = json!({
            "stable": { "templateVersion": "1.0.0", "moveTime": "2026-01-01T00:00:01Z", "mover": MOVER },
        });
        assert_eq!(change.after.unwrap()["channels"], kept);

        // Where it points already it is not moved, and nothing is told.
        let events = world.audited().await.len();
        let before = world.clock.now();
        world.later();
        assert_eq!(moved(&world, point("stable", "1.0.0")).await.unwrap().into_inner(), first);
        assert_eq!(first.channels["stable"].move_time, Some(to_timestamp(before)));
        assert_eq!(world.audited().await.len(), events);
        let second = moved(&world, point("stable", "1.1.0")).await.unwrap().into_inner();
        assert_eq!(second.channels["stable"], channel("1.1.0", &world));
        let get = pb::GetTemplateRequest { name: PARENT.into() };
        let shown = world.client.templates.clone().get_template(world.alice(get)).await.unwrap();
        assert_eq!(shown.into_inner(), second);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_moved_by_its_own_verb_alone() {
    db::both(|db| async {
        let world = published(db).await;
        let version = format!("{PARENT}/versions/1.1.0");
        let channel = pb::template::Channel { template_version: version.clone(), ..Default::default() };
        let update = pb::UpdateTemplateRequest {
            template: Some(pb::Template {
                name: PARENT.into(),
                channels: [("stable".to_owned(), channel)].into(),
                ..Default::default()
            }),
            update_mask: mask(&["channels"]),
            ..Default::default()
        };
        let updated = world.client.templates.clone().update_template(world.alice(update)).await;
        assert!(updated.unwrap().into_inner().channels.is_empty(), "it is set by the server");
        let stale = pb::MoveTemplateChannelRequest { etag: "other".into(), ..point("stable", "1.1.0") };
        assert_problem(moved(&world, stale).await, Code::Aborted, "ETAG_MISMATCH", &[]);
        let done = moved(&world, point("stable", "1.1.0")).await.unwrap().into_inner();
        assert_eq!((&done.channels["stable"].template_version, &done.latest_version), (&version, &version));
        let missing = moved(&world, point("stable", "9.0.0")).await;
        let error = assert_problem(missing, Code::FailedPrecondition, "REFERENCE_NOT_FOUND", &[]);
        assert_eq!(error.preconditions[0].subject, format!("{PARENT}/versions/9.0.0"));
        for (channel, version, field) in [
            ("latest", "1.0.0", "channel_id"),
            ("A", "1.0.0", "channel_id"),
            ("", "1.0.0", "channel_id"),
            ("beta", "stable", "template_version"),
            ("beta", "", "template_version"),
        ] {
            let error = assert_problem(
                moved(&world, point(channel, version)).await,
                Code::InvalidArgument,
                "INVALID_FIELD",
                &[],
            );
            assert_eq!(fields(&error), [field], "{channel}");
        }
        for foreign in ["acme/templates/other", "other/templates/web-service"] {
            let template_version = format!("organizations/{foreign}/versions/1.0.0");
            let foreign = pb::MoveTemplateChannelRequest { template_version, ..point("beta", "") };
            let error =
                assert_problem(moved(&world, foreign).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&error), ["template_version"]);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_golden_path_has_a_bounded_number_of_channels() {
    db::both(|db| async {
        let world = published(db).await;
        for n in 0..32 {
            moved(&world, point(&format!("channel-{n}"), "1.0.0")).await.unwrap();
        }
        let error = assert_problem(
            moved(&world, point("one-more", "1.0.0")).await,
            Code::InvalidArgument,
            "INVALID_FIELD",
            &[],
        );
        assert_eq!(
            (error.violations[0].field.as_str(), error.violations[0].reason.as_str()),
            ("channel_id", "TOO_MANY")
        );
        let why = "would be one more than the 32 that a golden path may have";
        assert_eq!(error.violations[0].description, why);
        // Those that are there go on to be moved.
        moved(&world, point("channel-31", "1.1.0")).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_channel_is_removed_where_it_is() {
    db::both(|db| async {
        let world = published(db).await;
        for channel in ["beta", "stable"] {
            moved(&world, point(channel, "1.0.0")).await.unwrap();
        }
        let events = world.audited().await.len();
        let looked = pb::RemoveTemplateChannelRequest { validate_only: true, ..remove("stable") };
        let shown = removed(&world, looked).await.unwrap().into_inner();
        assert_eq!(shown.channels.keys().collect::<Vec<_>>(), ["beta"]);
        let stale = pb::RemoveTemplateChannelRequest { etag: "other".into(), ..remove("stable") };
        assert_problem(removed(&world, stale).await, Code::Aborted, "ETAG_MISMATCH", &[]);
        assert_eq!(world.audited().await.len(), events, "nothing was changed yet");

        let request = pb::RemoveTemplateChannelRequest { request_id: uuid(), ..remove("stable") };
        let gone = removed(&world, request.clone()).await.unwrap().into_inner();
        assert_eq!(gone.channels.keys().collect::<Vec<_>>(), ["beta"]);
        let told = world.audited().await.pop().unwrap();
        assert_eq!(told.action, "catalog.templates.removeChannel");
        let (before, after) =
            told.change.map(|change| (change.before.unwrap(), change.after.unwrap())).unwrap();
        assert_eq!(before["channels"]["stable"]["templateVersion"], "1.0.0");
        assert!(after["channels"].get("stable").is_none() && after["channels"].get("beta").is_some());
        assert_eq!(removed(&world, request).await.unwrap().into_inner(), gone, "asked again");

        let error = assert_problem(
            removed(&world, remove("stable")).await,
            Code::NotFound,
            "RESOURCE_NOT_FOUND",
            &[],
        );
        assert_eq!(error.message, format!("template `{PARENT}` has no channel `stable`; it has `beta`"));
        assert_eq!(error.metadata["field"], "channel_id");
        assert_eq!(error.resource.unwrap().name, format!("{PARENT}/versions/stable"));
        let events = world.audited().await.len();
        let lenient = pb::RemoveTemplateChannelRequest { allow_missing: true, ..remove("stable") };
        assert_eq!(removed(&world, lenient).await.unwrap().into_inner(), gone);
        assert_eq!(world.audited().await.len(), events, "that was no change");
        let last = removed(&world, remove("beta")).await.unwrap().into_inner();
        assert!(last.channels.is_empty());
        let error =
            assert_problem(removed(&world, remove("beta")).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        assert!(error.message.ends_with("has no channel `beta`; it has none"), "{}", error.message);
        for channel in ["latest", "A", ""] {
            let answer = removed(&world, remove(channel)).await;
            assert_eq!(
                fields(&assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[])),
                ["channel_id"]
            );
        }
        // That a channel is not there may be as good; a golden path must be there.
        let nowhere = pb::RemoveTemplateChannelRequest {
            name: "organizations/acme/templates/none".into(),
            allow_missing: true,
            ..remove("stable")
        };
        let error = assert_problem(removed(&world, nowhere).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        assert_eq!(error.resource.unwrap().name, "organizations/acme/templates/none");
    })
    .await;
}
