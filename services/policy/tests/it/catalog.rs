//! The peers: a catalog that knows nothing but its directory, and an audit service that only takes records.

use std::sync::{Arc, Mutex};

use pavior_proto::pavior::audit::internal::v1::{AppendRecordsRequest, AppendRecordsResponse};
use pavior_proto::pavior::identity::internal::v1::directory::{GroupParent, Membership};
use pavior_proto::pavior::identity::internal::v1::{Directory, GetDirectoryRequest};
use pavior_testkit::fake::Fake;
use tonic::Status;

pub(crate) const APPEND: &str = "/pavior.audit.internal.v1.RecorderService/AppendRecords";
const DIRECTORY: &str = "/pavior.identity.internal.v1.DirectoryService/GetDirectory";

#[derive(Debug, Default)]
pub(crate) struct State {
    pub(crate) full_answers: usize,
    pub(crate) directory: Directory,
}

#[derive(Debug, Clone)]
pub(crate) struct Catalog {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) fake: Fake,
}

impl Default for Catalog {
    fn default() -> Self {
        let this = Self { state: Arc::default(), fake: Fake::default() };
        let state = this.state.clone();
        this.fake.on(DIRECTORY, move |request| state.lock().unwrap().answer(request));
        this
    }
}

impl Catalog {
    /// Members as `("alice", ["payments"])`, parents as `("core", "payments")`.
    pub(crate) fn set(&self, revision: &str, members: &[(&str, &[&str])], parents: &[(&str, &str)]) {
        let group = |id: &str| format!("organizations/acme/groups/{id}");
        let memberships = members.iter().map(|(user, groups)| Membership {
            member: format!("organizations/acme/users/{user}"),
            groups: groups.iter().map(|id| group(id)).collect(),
        });
        let groups =
            parents.iter().map(|(id, parent)| GroupParent { group: group(id), parent_group: group(parent) });
        self.state.lock().unwrap().directory = Directory {
            revision: revision.into(),
            unchanged: false,
            memberships: memberships.collect(),
            groups: groups.collect(),
            current: true,
            outdated: String::new(),
        };
    }

    /// Whether the catalog's database is known to be current, and why it is an older copy.
    pub(crate) fn copy(&self, current: bool, why: &str) {
        let directory = &mut self.state.lock().unwrap().directory;
        (directory.current, directory.outdated) = (current, why.to_owned());
    }
}

impl State {
    fn answer(&mut self, request: GetDirectoryRequest) -> Result<Directory, Status> {
        if request.organization != "organizations/acme" {
            return Err(Status::not_found("no such organization"));
        }
        if request.known_revision == self.directory.revision {
            let revision = request.known_revision;
            let Directory { current, outdated, .. } = self.directory.clone();
            return Ok(Directory { revision, unchanged: true, current, outdated, ..Directory::default() });
        }
        self.full_answers += 1;
        Ok(self.directory.clone())
    }
}

/// An audit service that takes everything.
pub(crate) fn audit() -> Fake {
    let fake = Fake::default();
    fake.on(APPEND, |request: AppendRecordsRequest| {
        let acknowledged_sequence = request.events.last().map(|event| event.sequence).unwrap_or_default();
        Ok(AppendRecordsResponse { acknowledged_sequence })
    });
    fake
}
