//! The directory of an organization.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_and_its_revision() {
    db::both(|db| async {
        let world = World::new(db).await;
        let permit = world.permit("acme");
        world.insert("acme", "top", GroupFields::default()).await;
        world
            .insert("acme", "team", GroupFields { parent: Some("top".to_owned()), ..Default::default() })
            .await;
        world.insert("acme", "bob", UserFields::default()).await;
        world.insert("acme", "amy", UserFields::default()).await;
        let reader = world.read();
        let before = reader.directory_revision(&permit).await.unwrap().unwrap();
        assert_eq!(reader.directory_revision(&world.permit("none")).await.unwrap(), None);
        let made = [("team", "bob"), ("top", "bob"), ("top", "amy")]
            .map(|(group, user)| world.stored("acme", user, membership(group, user, Source::Api)));
        let shared = Arc::new((permit.clone(), made.clone()));
        world
            .tx(move |tx| {
                let shared = shared.clone();
                Box::pin(async move {
                    let (permit, made) = &*shared;
                    assert!(tx.lock_organization(permit).await?);
                    tx.insert_memberships(permit, made).await?;
                    tx.delete_all(permit, &made[1..2], OffsetDateTime::UNIX_EPOCH, KEEPING).await?;
                    tx.bump_directory(permit).await
                })
            })
            .await;
        assert_ne!(reader.directory_revision(&permit).await.unwrap().unwrap(), before);
        let directory = reader.directory(&permit).await.unwrap();
        assert_eq!(
            directory.memberships,
            [
                ("organizations/acme/users/amy".to_owned(), vec!["top".to_owned()]),
                ("organizations/acme/users/bob".to_owned(), vec!["team".to_owned()]),
            ]
        );
        assert_eq!(directory.groups, [("team".to_owned(), Some("top".to_owned())), ("top".to_owned(), None)]);
        assert_eq!(reader.child_groups(&permit, "top", 5).await.unwrap(), ["team"]);
        let (top, bob) = ("top".to_owned(), "organizations/acme/users/bob".to_owned());
        let among = async |permit: &Permit, groups: &[String], members: &[String]| {
            let found = reader.memberships_among(permit, groups, members).await.unwrap();
            found.into_iter().map(|one| format!("{}/{}", one.fields.group, one.id)).collect::<Vec<_>>()
        };
        let (top, bob) = (std::slice::from_ref(&top), std::slice::from_ref(&bob));
        assert_eq!(among(&permit, top, &[]).await, ["top/amy"]);
        assert_eq!(among(&permit, &[], bob).await, ["team/bob"]);
        assert_eq!(among(&permit, top, bob).await, ["team/bob", "top/amy"]);
        for (side, one, has) in [(Side::Member, bob, 1), (Side::Group, top, 1)] {
            assert_eq!(reader.memberships_of(&permit, side, &one[0]).await.unwrap(), has);
            assert_eq!(reader.with_more_than(&permit, side, one, 0).await.unwrap(), one);
            assert!(reader.with_more_than(&permit, side, one, has).await.unwrap().is_empty());
        }
        assert_eq!(reader.group_parents(&permit).await.unwrap().len(), 2);
        let other = world.permit("umbrella");
        assert_eq!(
            reader.directory(&other).await.unwrap(),
            DirectoryRows { memberships: vec![], groups: vec![] }
        );
        assert!(among(&other, top, bob).await.is_empty());
        assert_eq!(reader.memberships_of(&other, Side::Member, &bob[0]).await.unwrap(), 0);
        let refused = reader.organizations_page(&permit, None, &query()).await.unwrap_err();
        assert!(refused.to_string().contains("under a permit for `acme`"), "{refused}");
        let all = reader.organizations_page(&world.permit(INSTALLATION), None, &query()).await.unwrap();
        assert_eq!(all.rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["acme", "umbrella"]);
    })
    .await;
}
