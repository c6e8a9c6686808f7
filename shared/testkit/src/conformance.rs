//! What every resource must keep to, whatever it is and whichever service keeps it: the parts that its methods call for.

mod declared;
mod deleted;
mod missing;
mod read;

use std::collections::BTreeSet;

use futures::future::LocalBoxFuture;
use pavior_core::audit::{self, AuditEvent};
use pavior_rpc::problem::{Decoded, from_status};
use prost_reflect::MethodDescriptor;
use serde_json::{Value as Json, json};
use tonic::{Code, Status};

use crate::dynamic;
use crate::repeat::{Ask, Case};
use declared::{Declared, resources};
use read::Reads;

pub use declared::{Part, table};
pub use read::Existing;

/// A resource, with what it takes to make some of it.
#[derive(Debug, Clone)]
pub struct Sample {
    /// The name of its message, `RoleBinding`.
    pub message: &'static str,
    /// What it is made in.
    pub parent: String,
    /// Two forms of one that is called so.
    pub forms: fn(&str) -> [Json; 2],
}

/// A service with its resources, in an organization that holds none of them yet.
pub struct Subject<'a> {
    /// Its role, `catalog`.
    pub role: &'static str,
    /// All of its resources that have the five standard methods.
    pub samples: Vec<Sample>,
    /// Some of each of the others.
    pub existing: Vec<Existing>,
    /// Calls a method as somebody of the organization who may.
    pub ask: &'a Ask<'a>,
    /// Calls a method as somebody who may, in another organization.
    pub outsider: &'a Ask<'a>,
    /// Makes one more of the resources of this message, where it can be listed but not created by a standard method.
    pub insert: &'a (dyn Fn(&'static str) -> LocalBoxFuture<'a, ()> + 'a),
    /// The audit events so far.
    pub audited: &'a (dyn Fn() -> LocalBoxFuture<'a, Vec<AuditEvent>> + 'a),
}

impl Sample {
    fn declared(&self, role: &str) -> Declared {
        resources(role).remove(self.message).unwrap_or_else(|| panic!("{role} has no {}", self.message))
    }

    /// `resourceType`, as JSON has it.
    fn field(&self) -> String {
        let mut field = self.message.to_owned();
        field[..1].make_ascii_lowercase();
        field
    }

    fn create(&self, id: &str, form: &Json) -> Json {
        let field = self.field();
        json!({ "parent": self.parent, format!("{field}Id"): id, field: form })
    }

    fn change(&self, name: &str, form: &Json, etag: &str) -> Json {
        let mut form = form.clone();
        form["name"] = name.into();
        form["etag"] = etag.into();
        json!({ self.field(): form })
    }

    /// The repetitions of its changes, under names that begin with `round`.
    pub fn cases(&self, role: &str, round: &str) -> Vec<Case> {
        let plural = self.declared(role).plural;
        let method = |verb: &str| -> &'static str { format!("{verb}{}", self.message).leak() };
        let [create, update, delete] = ["Create", "Update", "Delete"].map(method);
        let [a, b, c] = ["a", "b", "c"].map(|letter| format!("{round}-{letter}"));
        let name = |id: &str| format!("{}/{plural}/{id}", self.parent);
        let gone = |id: &str| vec![(delete, json!({ "name": name(id) }))];
        let [form, other] = (self.forms)(round);
        vec![
            Case {
                method: create,
                before: Vec::new(),
                request: self.create(&a, &form),
                other: self.create(&a, &other),
                gone: gone(&a),
            },
            Case {
                method: update,
                before: vec![(create, self.create(&b, &form))],
                request: self.change(&name(&b), &other, ""),
                other: self.change(&name(&b), &form, ""),
                gone: gone(&b),
            },
            Case {
                method: delete,
                before: vec![(create, self.create(&c, &form))],
                request: json!({ "name": name(&c) }),
                other: json!({ "name": name(&c), "allowMissing": true }),
                gone: Vec::new(),
            },
        ]
    }
}

/// Checks every resource of a role.
pub async fn check<'a>(subject: &'a Subject<'a>) {
    let resources = resources(subject.role);
    let declared: BTreeSet<&str> = resources.keys().map(String::as_str).collect();
    let samples = subject.samples.iter().map(|sample| sample.message);
    let covered: BTreeSet<&str> =
        samples.chain(subject.existing.iter().map(|existing| existing.message)).collect();
    assert_eq!(covered, declared, "each resource needs a sample, or some that exist");
    for existing in &subject.existing {
        let declared = &resources[existing.message];
        assert!(!declared.changes, "{} can be changed: it needs a sample", declared.message);
        let reads = Reads { subject, declared, existing: existing.clone() };
        for part in declared.parts() {
            reads.check(part).await;
        }
    }
    for sample in &subject.samples {
        let declared = &resources[sample.message];
        let one = One { subject, sample, declared };
        one.changes().await;
        if declared.parts().contains(&Part::AllowMissing) {
            one.missing_ones_are_made_where_that_is_allowed().await;
        }
        if declared.parts().contains(&Part::Deleted) {
            one.what_is_deleted_is_listed_when_asked_for().await;
        }
        let ids = ["read-a", "read-b"];
        for id in ids {
            one.make(id).await;
        }
        let existing = Existing {
            message: sample.message,
            parent: sample.parent.clone(),
            names: ids.map(|id| one.name(id)).to_vec(),
            missing: one.name("nobody"),
        };
        let reads = Reads { subject, declared, existing };
        let changes = [Part::Changes, Part::AllowMissing, Part::Deleted];
        for part in declared.parts().into_iter().filter(|part| !changes.contains(part)) {
            reads.check(part).await;
        }
        for id in ids {
            one.remove(&one.name(id)).await;
        }
    }
}

struct One<'s, 'a> {
    subject: &'s Subject<'a>,
    sample: &'s Sample,
    declared: &'s Declared,
}

type Answered = Result<Json, Status>;

impl One<'_, '_> {
    async fn changes(&self) {
        self.has_an_id_without_one().await;
        self.dry_runs_leave_nothing().await;
        self.etags_are_of_one_revision().await;
        self.masks_are_read_first().await;
        self.names_to_show_are_counted_in_characters().await;
        self.pages_hold_under_inserts().await;
        self.unknown_fields_are_ignored().await;
        self.changes_are_recorded().await;
        self.other_organizations_are_told_nothing().await;
    }

    fn method(&self, verb: &str) -> MethodDescriptor {
        match verb {
            "List" => self.declared.list.clone().unwrap(),
            verb => dynamic::method_of(self.subject.role, &format!("{verb}{}", self.sample.message)),
        }
    }

    async fn call(&self, verb: &str, request: Json) -> Answered {
        (self.subject.ask)(self.method(verb), request).await
    }

    async fn done(&self, verb: &str, request: Json) -> Json {
        let told = format!("{verb}{} {request}", self.sample.message);
        self.call(verb, request).await.unwrap_or_else(|status| panic!("{told}: {status:?}"))
    }

    fn refused(&self, what: &str, answer: Answered, code: Code, reason: &str) -> Decoded {
        let status = match answer {
            Ok(answer) => panic!("{} {what}: {answer}", self.sample.message),
            Err(status) => status,
        };
        let error = from_status(&status);
        let found = (status.code(), error.reason.as_str());
        assert_eq!(found, (code, reason), "{} {what}: {error:?}", self.sample.message);
        error
    }

    fn name(&self, id: &str) -> String {
        format!("{}/{}/{id}", self.sample.parent, self.declared.plural)
    }

    fn form(&self, id: &str) -> Json {
        (self.sample.forms)(id)[0].clone()
    }

    async fn make(&self, id: &str) -> Json {
        self.done("Create", self.sample.create(id, &self.form(id))).await
    }

    async fn remove(&self, name: &str) {
        self.done("Delete", json!({ "name": name })).await;
    }

    async fn has_an_id_without_one(&self) {
        let made = self.done("Create", self.sample.create("", &self.form("unnamed"))).await;
        let name = made["name"].as_str().unwrap();
        let id = name.strip_prefix(&self.name("")).unwrap();
        let mut prefix = String::new();
        for c in self.declared.singular.chars() {
            if c.is_ascii_uppercase() {
                prefix.push('-');
            }
            prefix.push(c.to_ascii_lowercase());
        }
        let random = id.strip_prefix(&format!("{prefix}-")).unwrap_or_else(|| panic!("{id}"));
        assert!(random.len() == 12 && random.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
        self.remove(name).await;
    }

    async fn dry_runs_leave_nothing(&self) {
        let before = (self.subject.audited)().await.len();
        let mut request = self.sample.create("dry", &self.form("dry"));
        request["requestId"] = uuid::Uuid::new_v4().to_string().into();
        request["validateOnly"] = true.into();
        let shown = self.done("Create", request.clone()).await;
        assert_eq!(shown["name"], self.name("dry"));
        let get = self.call("Get", json!({ "name": self.name("dry") })).await;
        self.refused("after a dry run", get, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert_eq!((self.subject.audited)().await.len(), before, "a dry run is no change");
        // Its request id is as good as new, also for another request.
        request["validateOnly"] = false.into();
        self.done("Create", request).await;
        self.remove(&self.name("dry")).await;
    }

    async fn etags_are_of_one_revision(&self) {
        let [form, other] = (self.sample.forms)("tagged");
        let made = self.make("tagged").await;
        let (name, etag) = (self.name("tagged"), made["etag"].as_str().unwrap());
        let same = self.done("Update", self.sample.change(&name, &form, etag)).await;
        assert_eq!(same["etag"], etag, "what does not change keeps its etag");
        let changed = self.done("Update", self.sample.change(&name, &other, etag)).await;
        assert_ne!(changed["etag"], etag);
        let stale = self.call("Update", self.sample.change(&name, &form, etag)).await;
        let error = self.refused("with an old etag", stale, Code::Aborted, "ETAG_MISMATCH");
        assert_eq!(error.metadata["currentEtag"], changed["etag"].as_str().unwrap());
        let stale = self.call("Delete", json!({ "name": name, "etag": etag })).await;
        self.refused("deleted with an old etag", stale, Code::Aborted, "ETAG_MISMATCH");
        self.remove(&name).await;
        let gone = self.call("Delete", json!({ "name": name })).await;
        self.refused("deleted twice", gone, Code::NotFound, "RESOURCE_NOT_FOUND");
        self.done("Delete", json!({ "name": name, "allowMissing": true })).await;
    }

    async fn masks_are_read_first(&self) {
        let mut request = self.sample.change(&self.name("nobody"), &self.form("nobody"), "");
        let missing = self.call("Update", request.clone()).await;
        self.refused("that does not exist", missing, Code::NotFound, "RESOURCE_NOT_FOUND");
        request["updateMask"] = "nothingOfTheKind".into();
        let unknown = self.call("Update", request).await;
        let error = self.refused("with an unknown path", unknown, Code::InvalidArgument, "INVALID_FIELD");
        assert_eq!(error.violations[0].field, "update_mask");
    }

    async fn names_to_show_are_counted_in_characters(&self) {
        if self.method("Create").output().get_field_by_name("display_name").is_none() {
            return;
        }
        let named = |text: String| {
            let mut form = self.form("shown");
            form["displayName"] = text.into();
            let mut request = self.sample.create("shown", &form);
            request["validateOnly"] = true.into();
            request
        };
        self.done("Create", named("ä".repeat(200))).await;
        for text in ["ä".repeat(201), "a\nb".to_owned()] {
            let answer = self.call("Create", named(text)).await;
            let error =
                self.refused("with a bad name to show", answer, Code::InvalidArgument, "INVALID_FIELD");
            let field = &error.violations[0].field;
            assert!(field.ends_with(".display_name"), "{field}");
        }
    }

    async fn pages_hold_under_inserts(&self) {
        for id in ["page-b", "page-d", "page-f"] {
            self.make(id).await;
        }
        let (mut found, mut token) = (Vec::new(), String::new());
        loop {
            let request = json!({ "parent": self.sample.parent, "pageSize": 2, "pageToken": token });
            let page = self.done("List", request).await;
            let items = page[&self.declared.items].as_array().cloned().unwrap_or_default();
            found.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
            if token.is_empty() {
                // Before what was given out, and after it.
                self.make("page-a").await;
                self.make("page-g").await;
            }
            token = page["nextPageToken"].as_str().unwrap_or_default().to_owned();
            if token.is_empty() {
                break;
            }
        }
        let distinct: BTreeSet<&String> = found.iter().collect();
        assert_eq!(distinct.len(), found.len(), "{found:?}");
        for id in ["page-b", "page-d", "page-f"] {
            assert!(found.contains(&self.name(id)), "{id}: {found:?}");
        }
        for id in ["a", "b", "d", "f", "g"] {
            self.remove(&self.name(&format!("page-{id}"))).await;
        }
    }

    async fn unknown_fields_are_ignored(&self) {
        let mut request = self.sample.create("newer", &self.form("newer"));
        request[dynamic::UNKNOWN_FIELDS] = true.into();
        let made = self.done("Create", request).await;
        assert_eq!(self.done("Get", json!({ "name": self.name("newer") })).await, made);
        let mut request = self.sample.change(&self.name("newer"), &self.form("newer"), "");
        request[dynamic::UNKNOWN_FIELDS] = true.into();
        assert_eq!(self.done("Update", request).await, made, "nothing that is known changes");
        self.done("Delete", json!({ "name": self.name("newer"), dynamic::UNKNOWN_FIELDS: true })).await;
    }

    async fn changes_are_recorded(&self) {
        let skipped = (self.subject.audited)().await.len();
        let name = self.name("told");
        self.make("told").await;
        let [_, other] = (self.sample.forms)("told");
        self.done("Update", self.sample.change(&name, &other, "")).await;
        self.remove(&name).await;
        let events = (self.subject.audited)().await.split_off(skipped);
        let verbs = ["Create", "Update", "Delete"];
        assert_eq!(events.len(), verbs.len(), "{events:?}");
        for (event, verb) in events.iter().zip(verbs) {
            assert_eq!(event.action, dynamic::action(&self.method(verb)));
            let target = event.target.as_ref().unwrap();
            assert_eq!((&target.name, &target.r#type), (&name, &self.declared.r#type));
            assert_eq!(
                (event.outcome.status, event.outcome.code),
                (audit::Status::Succeeded, audit::Code::Ok)
            );
            let change = event.change.as_ref().unwrap();
            assert!(pavior_core::digest::is_sha256_digest(&change.request_digest), "{change:?}");
            let told = (change.before.is_some(), change.after.is_some());
            assert_eq!(told, (verb != "Create", verb != "Delete"), "{verb}");
            assert!(event.principal.name.starts_with("organizations/") && !event.summary.is_empty());
        }
    }

    async fn other_organizations_are_told_nothing(&self) {
        self.make("ours").await;
        let calls = [
            ("Create", self.sample.create("theirs", &self.form("theirs"))),
            ("Update", self.sample.change(&self.name("ours"), &self.form("ours"), "")),
            ("Delete", json!({ "name": self.name("ours") })),
        ];
        for (verb, request) in calls {
            let answer = (self.subject.outsider)(self.method(verb), request).await;
            self.refused(&format!("{verb} from outside"), answer, Code::PermissionDenied, "ACCESS_DENIED");
        }
        self.remove(&self.name("ours")).await;
    }
}
