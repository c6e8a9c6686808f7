//! What reading a resource must keep to, for every resource that can be got or listed.

use std::collections::BTreeSet;

use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use super::{Declared, Part, Subject};
use crate::{assert_problem, dynamic, fields};

/// Some of a resource that are there, in an order that does not matter.
#[derive(Debug, Clone)]
pub struct Existing {
    /// The name of its message, `AuditRecord`.
    pub message: &'static str,
    /// What they are listed in; empty for what is in nothing.
    pub parent: String,
    /// Their names: one, or several for what can be listed.
    pub names: Vec<String>,
    /// A name as good as theirs that nothing has; empty for what always exists.
    pub missing: String,
}

/// A resource whose reads are checked.
pub(super) struct Reads<'s, 'a> {
    pub(super) subject: &'s Subject<'a>,
    pub(super) declared: &'s Declared,
    pub(super) existing: Existing,
}

impl Reads<'_, '_> {
    pub(super) async fn check(&self, part: Part) {
        match part {
            Part::NotFound => self.what_is_missing_is_named().await,
            Part::BadNames => self.bad_names_are_refused().await,
            Part::ForeignGet => self.gets_stay_within_the_organization().await,
            Part::Pages => self.pages_hold_everything_once().await,
            Part::PageSizes => self.page_sizes_are_bounded().await,
            Part::PageTokens => self.tokens_are_of_one_list().await,
            Part::Filters => self.unknown_fields_are_refused("filter", "nothing_of_the_kind = 1").await,
            Part::Orders => self.unknown_fields_are_refused("orderBy", "nothing_of_the_kind").await,
            Part::ForeignList => self.lists_stay_within_the_organization().await,
            Part::ReadMasks => self.masks_leave_out_what_they_do_not_name().await,
            Part::Totals => self.totals_are_told_when_asked_for().await,
            Part::Updates => self.updates_are_changes().await,
            Part::PageInserts => self.pages_hold_under_inserts().await,
            Part::UnknownFields => self.unknown_fields_are_ignored().await,
            change => panic!("{change:?} is no part of reading"),
        }
    }

    async fn get(&self, name: &str) -> Result<Json, Status> {
        (self.subject.ask)(self.declared.get.clone().unwrap(), json!({ "name": name })).await
    }

    fn list_request(&self, more: Json) -> Json {
        let mut request = more;
        let field = self.declared.parent_field();
        if !field.is_empty() {
            request[field] = self.existing.parent.clone().into();
        }
        request
    }

    async fn list(&self, more: Json) -> Result<Json, Status> {
        (self.subject.ask)(self.declared.list.clone().unwrap(), self.list_request(more)).await
    }

    async fn listed(&self, more: Json) -> (Vec<String>, String) {
        let told = format!("{} {more}", self.declared.message);
        let page = self.list(more).await.unwrap_or_else(|status| panic!("{told}: {status:?}"));
        let items = page[&self.declared.items].as_array().cloned().unwrap_or_default();
        let names = items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
        (names, page["nextPageToken"].as_str().unwrap_or_default().to_owned())
    }

    async fn what_is_missing_is_named(&self) {
        for name in &self.existing.names {
            let found = self.get(name).await.unwrap_or_else(|status| panic!("{name}: {status:?}"));
            assert_eq!(found["name"], name.as_str());
        }
        let name = &self.existing.missing;
        let problem = assert_problem(self.get(name).await, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        let resource = problem.resource.unwrap_or_else(|| panic!("{name}: no resource is named"));
        assert_eq!((&resource.name, &resource.r#type), (name, &self.declared.r#type));
    }

    async fn bad_names_are_refused(&self) {
        let good = &self.existing.names[0];
        let organization = good.split('/').take(2).collect::<Vec<_>>().join("/");
        for name in [String::new(), "x".to_owned(), format!("{organization}/nothings/x"), format!("{good}/x")]
        {
            let problem = assert_problem(self.get(&name).await, Code::InvalidArgument, "INVALID_FIELD", &[]);
            assert_eq!(fields(&problem), ["name"], "{name}: {problem:?}");
        }
    }

    /// Whether it exists or not, the answer is the same.
    async fn gets_stay_within_the_organization(&self) {
        let existing = &self.existing;
        let names = [&existing.names[0], &existing.missing].into_iter().filter(|name| !name.is_empty());
        let mut answers = BTreeSet::new();
        for name in names {
            let get = self.declared.get.clone().unwrap();
            let answer = (self.subject.outsider)(get, json!({ "name": name })).await;
            let problem = assert_problem(answer, Code::PermissionDenied, "ACCESS_DENIED", &[]);
            answers.insert(problem.message.replace(name.as_str(), "…"));
        }
        assert_eq!(answers.len(), 1, "{answers:?}");
    }

    async fn lists_stay_within_the_organization(&self) {
        let list = self.declared.list.clone().unwrap();
        let answer = (self.subject.outsider)(list, self.list_request(json!({}))).await;
        if self.declared.parent_field().is_empty() {
            let told = answer.map(|page| page.to_string()).unwrap_or_default();
            let leaked = self.existing.names.iter().find(|name| told.contains(&format!("\"{name}\"")));
            assert_eq!(leaked, None, "{told}");
        } else {
            assert_problem(answer, Code::PermissionDenied, "ACCESS_DENIED", &[]);
        }
    }

    /// Everything, one a page, with what `between` does after the first page. Nothing comes twice, and what exists comes.
    async fn paged(&self, between: impl AsyncFnOnce()) -> Vec<String> {
        let (mut found, mut token) = self.listed(json!({ "pageSize": 1 })).await;
        between().await;
        while !token.is_empty() {
            let (names, next) = self.listed(json!({ "pageSize": 1, "pageToken": token })).await;
            assert!(names.len() <= 1, "{names:?}");
            found.extend(names);
            token = next;
        }
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{found:?}");
        for name in &self.existing.names {
            assert!(distinct.contains(name), "{name}: {found:?}");
        }
        found
    }

    async fn pages_hold_under_inserts(&self) {
        let before = self.paged(async || ()).await.len();
        self.paged(async || (self.subject.insert)(self.existing.message).await).await;
        assert!(self.paged(async || ()).await.len() > before, "no {} was made", self.declared.message);
    }

    async fn unknown_fields_are_ignored(&self) {
        let of_a_newer_client = |mut request: Json| {
            request[dynamic::UNKNOWN_FIELDS] = true.into();
            request
        };
        if let Some(get) = &self.declared.get {
            let request = json!({ "name": self.existing.names[0] });
            let plain = (self.subject.ask)(get.clone(), request.clone()).await.unwrap();
            let newer = (self.subject.ask)(get.clone(), of_a_newer_client(request)).await.unwrap();
            assert_eq!(newer, plain);
        }
        if self.declared.list.is_some() {
            let plain = self.listed(json!({})).await.0;
            assert_eq!(self.listed(of_a_newer_client(json!({}))).await.0, plain);
        }
    }

    async fn pages_hold_everything_once(&self) {
        let found = self.paged(async || ()).await;
        let (page, _) = self.listed(json!({ "pageSize": 0 })).await;
        assert!(found.starts_with(&page), "{page:?} are not the first of {found:?}");
    }

    async fn page_sizes_are_bounded(&self) {
        for size in [0, 1_000_000] {
            assert!(!self.listed(json!({ "pageSize": size })).await.0.is_empty(), "{size}");
        }
        let answer = self.list(json!({ "pageSize": -1 })).await;
        let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(fields(&problem), ["page_size"]);
    }

    async fn tokens_are_of_one_list(&self) {
        let refused = async |request: Json| {
            let answer = self.list(request).await;
            let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_PAGE_TOKEN", &[]);
            assert_eq!(fields(&problem), ["page_token"]);
        };
        refused(json!({ "pageToken": "x" })).await;
        let (_, token) = self.listed(json!({ "pageSize": 1 })).await;
        let several = !token.is_empty();
        assert!(several || self.existing.names.len() == 1, "{} has no second page", self.declared.message);
        // The same list with another filter is another list.
        if several && self.declared.lists_by("filter") {
            let filter = self.declared.some_filter(&self.existing.names[0]);
            refused(json!({ "pageSize": 1, "pageToken": token, "filter": filter })).await;
        }
    }

    async fn masks_leave_out_what_they_do_not_name(&self) {
        let name = &self.existing.names[0];
        let get =
            self.declared.get.clone().filter(|get| get.input().get_field_by_name("read_mask").is_some());
        if let Some(get) = get {
            let get = |mask: &str| (self.subject.ask)(get.clone(), json!({ "name": name, "readMask": mask }));
            assert_eq!(get("name").await.unwrap(), json!({ "name": name }));
            assert_eq!(get("*").await.unwrap(), self.get(name).await.unwrap());
            self.refuses_masks(get("name,naem").await);
        }
        if self.declared.lists_by("read_mask") {
            let page = self.list(json!({ "readMask": "name" })).await.unwrap();
            for item in page[&self.declared.items].as_array().unwrap() {
                assert_eq!(item.as_object().unwrap().keys().collect::<Vec<_>>(), ["name"]);
            }
            self.refuses_masks(self.list(json!({ "readMask": "naem" })).await);
        }
    }

    fn refuses_masks(&self, answer: Result<Json, Status>) {
        let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FIELD", &[]);
        let [violation] = problem.violations.as_slice() else { panic!("{problem:?}") };
        assert_eq!((violation.field.as_str(), violation.reason.as_str()), ("read_mask", "UNKNOWN"));
        // It says what may have been meant.
        assert!(violation.description.contains("`name`"), "{violation:?}");
    }

    async fn totals_are_told_when_asked_for(&self) {
        let all = self.list(json!({})).await.unwrap();
        assert_eq!(all["totalSize"], Json::Null);
        assert_eq!(all["nextPageToken"], Json::Null, "one page holds them all");
        let count = all[&self.declared.items].as_array().unwrap().len();
        let page = self.list(json!({ "pageSize": 1, "returnTotalSize": true })).await.unwrap();
        assert_eq!(
            (&page["totalSize"], page[&self.declared.items].as_array().unwrap().len()),
            (&json!(count), 1)
        );
        if self.declared.lists_by("filter") {
            let filter = self.declared.no_filter();
            let none = self.list(json!({ "filter": filter, "returnTotalSize": true })).await.unwrap();
            assert_eq!(none["totalSize"], json!(0));
        }
    }

    /// What operations make is created and deleted by them; what is said about it is changed as anything else is.
    async fn updates_are_changes(&self) {
        let name = &self.existing.names[0];
        let method = dynamic::method_of(self.subject.role, &format!("Update{}", self.declared.message));
        let field = &self.declared.singular;
        let request = |shown: &str, etag: &str, more: Json| {
            let mut request = more;
            request[field] = json!({ "name": name, "etag": etag, "displayName": shown });
            request
        };
        let update = |request: Json| (self.subject.ask)(method.clone(), request);
        update(request("one", "", json!({}))).await.unwrap();
        let before = self.get(name).await.unwrap();
        let etag = before["etag"].as_str().unwrap();
        assert_eq!(update(request("one", etag, json!({}))).await.unwrap(), before, "nothing changes");

        // A dry run leaves nothing, its request id included.
        let events = (self.subject.audited)().await.len();
        let id = uuid::Uuid::new_v4().to_string();
        let shown =
            update(request("another", etag, json!({ "requestId": id, "validateOnly": true }))).await.unwrap();
        assert_ne!(shown["etag"], before["etag"]);
        assert_eq!(self.get(name).await.unwrap(), before);
        assert_eq!((self.subject.audited)().await.len(), events, "a dry run is no change");

        let changed = update(request("another", etag, json!({ "requestId": id }))).await.unwrap();
        assert_eq!(self.get(name).await.unwrap(), changed);
        assert_ne!(changed["etag"], before["etag"]);
        // The same again is answered as at first, and another request is not.
        assert_eq!(update(request("another", etag, json!({ "requestId": id }))).await.unwrap(), changed);
        let reused = update(request("one", etag, json!({ "requestId": id }))).await;
        assert_problem(reused, Code::InvalidArgument, "REQUEST_ID_REUSED", &[]);
        let current = changed["etag"].as_str().unwrap();
        let stale = update(request("one", etag, json!({}))).await;
        assert_problem(stale, Code::Aborted, "ETAG_MISMATCH", &[("currentEtag", current)]);
        let told = (self.subject.audited)().await.split_off(events);
        let [event] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(event.action, dynamic::action(&method));
        let target = event.target.as_ref().unwrap();
        assert_eq!((&target.name, &target.r#type), (name, &self.declared.r#type));
        let change = event.change.as_ref().unwrap();
        assert!(change.before.is_some() && change.after.is_some() && change.before != change.after);

        let mut missing = request("one", "", json!({}));
        missing[field]["name"] = json!(self.existing.missing);
        let refused = update(missing.clone()).await;
        assert_problem(refused, Code::NotFound, "RESOURCE_NOT_FOUND", &[]);
        missing["updateMask"] = json!("nothingOfTheKind");
        let refused = update(missing).await;
        let problem = assert_problem(refused, Code::InvalidArgument, "INVALID_FIELD", &[]);
        assert_eq!(fields(&problem), ["update_mask"]);
        let foreign = (self.subject.outsider)(method.clone(), request("one", "", json!({}))).await;
        assert_problem(foreign, Code::PermissionDenied, "ACCESS_DENIED", &[]);
    }

    async fn unknown_fields_are_refused(&self, field: &str, text: &str) {
        for text in [text, "(("] {
            let answer = self.list(json!({ field: text })).await;
            let problem = assert_problem(answer, Code::InvalidArgument, "INVALID_FILTER", &[]);
            let want = if field == "filter" { "filter" } else { "order_by" };
            assert_eq!(fields(&problem), [want], "{} {text}", self.declared.message);
        }
    }
}
