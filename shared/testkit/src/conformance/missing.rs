//! Updates that make what is not there (AIP-134).

use serde_json::json;
use tonic::Code;

use super::One;
use crate::dynamic;

impl One<'_, '_> {
    pub(super) async fn missing_ones_are_made_where_that_is_allowed(&self) {
        let [form, other] = (self.sample.forms)("missing");
        let (name, second) = (self.name("missing"), self.name("missing-too"));
        let update = |name: &str, etag: &str| {
            let mut request = self.sample.change(name, &form, etag);
            request["allowMissing"] = true.into();
            request
        };
        let events = (self.subject.audited)().await.len();
        // A revision of what is not there is a mistake.
        let answer = self.call("Update", update(&name, "some-etag")).await;
        self.refused("missing, of a revision", answer, Code::NotFound, "RESOURCE_NOT_FOUND");
        let foreign = (self.subject.outsider)(self.method("Update"), update(&name, "")).await;
        self.refused("missing, from outside", foreign, Code::PermissionDenied, "ACCESS_DENIED");
        let mut unknown = update(&name, "");
        unknown["updateMask"] = "nothingOfTheKind".into();
        let answer = self.call("Update", unknown).await;
        self.refused("missing, with an unknown path", answer, Code::InvalidArgument, "INVALID_FIELD");
        let mut dry = update(&name, "");
        dry["validateOnly"] = true.into();
        assert_eq!(self.done("Update", dry).await["name"], name);
        let get = self.call("Get", json!({ "name": name })).await;
        self.refused("after a dry run", get, Code::NotFound, "RESOURCE_NOT_FOUND");
        assert_eq!((self.subject.audited)().await.len(), events, "nothing was changed");

        let mut request = update(&name, "");
        request["requestId"] = uuid::Uuid::new_v4().to_string().into();
        let made = self.done("Update", request.clone()).await;
        assert_eq!((&made["name"], made["uid"].is_string()), (&json!(name), true));
        assert_eq!(self.done("Update", request).await, made, "the same again is answered as at first");
        assert_eq!(self.done("Get", json!({ "name": name })).await, made);
        assert_eq!(self.done("Update", update(&name, "")).await, made, "one that is there is updated");
        let told = (self.subject.audited)().await.split_off(events);
        let [event] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!(event.action, dynamic::action(&self.method("Update")));
        let change = event.change.as_ref().unwrap();
        assert!(change.before.is_none() && change.after.is_some(), "it was made: {change:?}");
        self.done("Update", self.sample.change(&name, &other, made["etag"].as_str().unwrap())).await;
        self.remove(&name).await;

        // All fields of a new one are taken, whatever the mask says.
        let mut masked = update(&second, "");
        masked["updateMask"] = form.as_object().unwrap().keys().next().unwrap().clone().into();
        let made = self.done("Update", masked).await;
        self.remove(&second).await;
        let created = self.done("Create", self.sample.create("missing-too", &form)).await;
        let [created, masked] = [created, made].map(|mut resource| {
            let fields = resource.as_object_mut().unwrap();
            fields.retain(|field, _| form.get(field).is_some());
            resource
        });
        assert_eq!(masked, created);
        self.remove(&second).await;
    }
}
