//! The groups of principals, from the directory of the catalog.

use std::sync::Arc;

use moka::future::Cache;
use pavior_auth::{Permit, ServiceIdentity};
use pavior_core::clock::Clock;
use pavior_proto::pavior::identity::internal::v1 as directory_pb;
use pavior_proto::pavior::identity::internal::v1::GetDirectoryRequest;
use pavior_proto::pavior::identity::internal::v1::directory_service_client::DirectoryServiceClient;
use pavior_rpc::{Problem, RetrySafe, Transport};
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use crate::domain::directory::{Copy, Directory};
use crate::domain::input::INSTALLATION;
use crate::error::Error;

/// One organization's directory with the time at which it was current.
#[derive(Debug, Default)]
struct Slot {
    known: arc_swap::ArcSwapOption<Known>,
    fetching: Mutex<()>,
}

#[derive(Debug)]
struct Known {
    directory: Arc<Directory>,
    at: OffsetDateTime,
}

/// Directories of organizations, not older than a limit.
#[derive(Clone)]
pub(crate) struct Directories {
    identity: ServiceIdentity,
    client: DirectoryServiceClient<Transport>,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    slots: Cache<String, Arc<Slot>>,
}

impl std::fmt::Debug for Directories {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Directories").field("max_age", &self.max_age).finish_non_exhaustive()
    }
}

impl Directories {
    /// Directories from the catalog behind `transport`.
    pub(crate) fn new(
        identity: ServiceIdentity,
        transport: Transport,
        clock: Arc<dyn Clock>,
        max_age_ms: u64,
        organizations: u64,
    ) -> Self {
        let client = DirectoryServiceClient::new(identity.transport(transport, "catalog"))
            .max_decoding_message_size(64 * 1024 * 1024);
        let max_age = Duration::milliseconds(i64::try_from(max_age_ms).unwrap_or(i64::MAX));
        Self { identity, client, clock, max_age, slots: Cache::new(organizations) }
    }

    /// The directory of an organization. One that the catalog does not know has nobody in it.
    ///
    /// # Errors
    /// When what is known is too old and the catalog does not answer.
    pub(crate) async fn get(&self, organization: &str) -> Result<Arc<Directory>, Error> {
        if organization == INSTALLATION {
            return Ok(Arc::new(Directory::of_nobody()));
        }
        let slot = match self.slots.get(organization).await {
            Some(slot) => slot,
            None => self.slots.get_with(organization.to_owned(), async { Arc::default() }).await,
        };
        if let Some(fresh) = self.fresh(&slot) {
            return Ok(fresh);
        }
        let _fetching = slot.fetching.lock().await;
        if let Some(fresh) = self.fresh(&slot) {
            return Ok(fresh);
        }
        self.renew(organization, &slot).await
    }

    /// The directory of an organization as it is now.
    ///
    /// # Errors
    /// When the catalog does not answer.
    pub(crate) async fn current(&self, organization: &str) -> Result<Arc<Directory>, Error> {
        if organization == INSTALLATION {
            return Ok(Arc::new(Directory::of_nobody()));
        }
        let slot = self.slots.get_with(organization.to_owned(), async { Arc::default() }).await;
        let asked = self.clock.now();
        let _fetching = slot.fetching.lock().await;
        // Many who ask at a time are answered by one who began to ask after them.
        let since = |known: &&Arc<Known>| known.at > asked && known.at <= self.clock.now();
        if let Some(known) = slot.known.load().as_ref().filter(since) {
            return Ok(known.directory.clone());
        }
        self.renew(organization, &slot).await
    }

    async fn renew(&self, organization: &str, slot: &Slot) -> Result<Arc<Directory>, Error> {
        let at = self.clock.now();
        let known = slot.known.load_full().map(|known| known.directory.clone());
        let directory = self.fetch(organization, known).await?;
        slot.known.store(Some(Arc::new(Known { directory: directory.clone(), at })));
        Ok(directory)
    }

    fn fresh(&self, slot: &Slot) -> Option<Arc<Directory>> {
        let known = slot.known.load();
        let known = known.as_ref()?;
        let age = self.clock.now() - known.at;
        (age >= Duration::ZERO && age < self.max_age).then(|| known.directory.clone())
    }

    async fn fetch(
        &self,
        organization: &str,
        known: Option<Arc<Directory>>,
    ) -> Result<Arc<Directory>, Error> {
        let permit = Permit::for_system(&self.identity.authority(), organization);
        let mut request = self.identity.request(
            &permit,
            GetDirectoryRequest {
                organization: format!("organizations/{organization}"),
                known_revision: known.as_ref().map(|known| known.revision.clone()).unwrap_or_default(),
            },
        );
        request.extensions_mut().insert(RetrySafe);
        match self.client.clone().get_directory(request).await {
            Ok(answer) => match (answer.into_inner(), known) {
                (answer, Some(known)) if answer.unchanged => Ok(still(known, copy_of(&answer))),
                (answer, _) => Ok(Arc::new(decode(answer))),
            },
            Err(status) if status.code() == tonic::Code::NotFound => Ok(Arc::new(Directory::of_nobody())),
            Err(status) => {
                Err(Error::DirectoryUnavailable(Box::new(Problem::from_dependency("catalog", &status))))
            }
        }
    }
}

fn id(name: &str) -> String {
    name.rsplit('/').next().unwrap_or(name).to_owned()
}

fn copy_of(answer: &directory_pb::Directory) -> Copy {
    match (answer.current, answer.outdated.as_str()) {
        (true, _) => Copy::Current,
        (false, "") => Copy::Unknown,
        (false, why) => Copy::Older(why.to_owned()),
    }
}

/// A directory that has not changed; whether it is an older copy may be known by now, or mended.
fn still(known: Arc<Directory>, copy: Copy) -> Arc<Directory> {
    match known.copy == copy {
        true => known,
        false => Arc::new(Directory { copy, ..Directory::clone(&known) }),
    }
}

fn decode(answer: directory_pb::Directory) -> Directory {
    let copy = copy_of(&answer);
    let directory_pb::Directory { revision, memberships, groups, .. } = answer;
    let memberships =
        memberships.into_iter().map(|directory_pb::directory::Membership { member, groups }| {
            (member, groups.iter().map(|group| id(group)).collect())
        });
    let parents = groups.into_iter().filter(|group| !group.parent_group.is_empty());
    Directory {
        revision,
        memberships: memberships.collect(),
        parents: parents.map(|group| (id(&group.group), id(&group.parent_group))).collect(),
        copy,
    }
}
