//! What is deleted and still kept.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};

use super::One;

impl One<'_, '_> {
    /// The deletion says when it was and until when it is kept. Lists tell of it where that is asked for, filtered, ordered
    /// and paged with what is there; and its name is free.
    pub(super) async fn what_is_deleted_is_listed_when_asked_for(&self) {
        let name = self.name("ended");
        let mut uids = Vec::new();
        for _ in 0..2 {
            let made = self.make("ended").await;
            assert_eq!((&made["deleteTime"], &made["purgeTime"]), (&Json::Null, &Json::Null), "{made}");
            let gone = self.done("Delete", json!({ "name": name })).await;
            assert_eq!(gone["uid"], made["uid"], "{gone}");
            let [deleted, purged] = ["deleteTime", "purgeTime"].map(|field| gone[field].as_str());
            assert!(deleted.is_some() && deleted < purged, "{gone}");
            uids.push(made["uid"].clone());
        }
        let made = self.make("ended").await;
        let mine = |items: Vec<Json>| -> Vec<Json> {
            items.into_iter().filter(|item| item["name"] == name.as_str()).collect()
        };
        let there = mine(self.listed(json!({})).await);
        assert_eq!(there.len(), 1, "{there:?}");
        assert_eq!(there[0]["uid"], made["uid"]);
        let all = mine(self.listed(json!({ "showDeleted": true, "pageSize": 1 })).await);
        let told: BTreeSet<(String, bool)> = all
            .iter()
            .map(|item| {
                (item["uid"].to_string(), item["deleteTime"].is_string() && item["purgeTime"].is_string())
            })
            .collect();
        let mut expected: BTreeSet<(String, bool)> = uids.iter().map(|uid| (uid.to_string(), true)).collect();
        expected.insert((made["uid"].to_string(), false));
        assert_eq!(told, expected, "{all:?}");
        assert_eq!(all.len(), told.len(), "each comes once: {all:?}");
        let created = made["createTime"].as_str().unwrap();
        for (filter, expected) in
            [(format!("create_time <= \"{created}\""), 3), (self.declared.no_filter().to_owned(), 0)]
        {
            let some = json!({ "showDeleted": true, "filter": filter, "orderBy": "create_time desc" });
            let filtered = mine(self.listed(some).await);
            assert_eq!(filtered.len(), expected, "{filter}: {filtered:?}");
        }
        self.remove(&name).await;
    }

    /// Everything that a list gives, page by page.
    async fn listed(&self, request: Json) -> Vec<Json> {
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let mut request = request.clone();
            request["parent"] = self.sample.parent.clone().into();
            request["pageToken"] = token.into();
            let page = self.done("List", request).await;
            found.extend(page[&self.declared.items].as_array().cloned().unwrap_or_default());
            token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                return found;
            }
        }
    }
}
