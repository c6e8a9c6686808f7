//! Use cases. Each plans, asks policy, and writes once; the engine does the rest.

pub(crate) mod admission;
pub(crate) mod approval;
pub(crate) mod decision;
pub(crate) mod deletion;
pub(crate) mod deployment;
pub(crate) mod diagnosis;
pub(crate) mod drift;
pub(crate) mod driver;
pub(crate) mod entity_driver;
pub(crate) mod environment;
pub(crate) mod expiry;
pub(crate) mod facts;
pub(crate) mod operation;
pub(crate) mod peers;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod planning;
pub(crate) mod project;
pub(crate) mod push;
pub(crate) mod resource;
pub(crate) mod response;
pub(crate) mod submit;
pub(crate) mod watch;

use pavior_core::Fault;
use std::sync::Arc;

use pavior_auth::{Permit, ServiceIdentity};
use pavior_core::page::PageTokens;
use pavior_core::{ResourceName, etag};
use pavior_proto::pavior::provisioning::v1::plan::Intent;
use pavior_rpc::paging::Page;
use pavior_rpc::{Problem, Violations};
use uuid::Uuid;

use crate::config::Config;
use crate::domain::plan::Plan;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::store::{self, Db, Listing, StoredPlan};
use response::OperationAnswer;

/// Everything that use cases need. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct App {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) db: Db,
    pub(crate) engine: Engine,
    pub(crate) config: Config,
    pub(crate) tokens: PageTokens,
    pub(crate) peers: peers::Peers,
    pub(crate) identity: ServiceIdentity,
    pub(crate) conditions: driver::Conditions,
}

impl std::ops::Deref for App {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

/// A change as it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct ChangeContext {
    /// Who may.
    pub(crate) permit: Permit,
    /// The action that policy decides on.
    pub(crate) action: &'static str,
    /// The caller's id of the request; empty when none was given.
    pub(crate) request_id: String,
    /// The full name of the method.
    pub(crate) method: String,
    /// SHA-256 over the request.
    pub(crate) hash: [u8; 32],
    /// What is to come of it.
    pub(crate) goal: Goal,
    /// The digest of the plan that was seen; empty when none is named.
    pub(crate) plan_digest: String,
    /// Why the service itself asks, when nobody else does.
    pub(crate) due: Option<Due>,
}

/// What is to come of a change.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Goal {
    /// It is carried out.
    Apply,
    /// Its plan, which is looked at and forgotten.
    ValidateOnly,
    /// Its plan, which is kept with this.
    Keep(Box<Intent>),
    /// A kept plan is carried out.
    Execute {
        /// Its id.
        id: uuid::Uuid,
        /// The person who had it kept, by resource name; empty for nobody.
        author: String,
    },
}

/// A timer that is due, as far as was seen: whether it still is, is for the transaction to say that accepts what it is
/// for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Due {
    /// The timer.
    pub(crate) timer: uuid::Uuid,
    /// What that means, for people.
    pub(crate) why: &'static str,
}

/// What is answered to it.
#[derive(Debug)]
pub(crate) enum Answer {
    /// An operation that was begun, now or when the same request came first.
    Operation(Box<OperationAnswer>),
    /// The plan of a `validate_only` call.
    Plan(Box<Plan>),
    /// A plan that is kept.
    Kept(Box<StoredPlan>),
    /// There is nothing to do, as was allowed.
    Nothing,
}

/// What is asked of a list, as it came in.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListQuery {
    pub(crate) parent: String,
    pub(crate) page_size: i32,
    pub(crate) page_token: String,
    pub(crate) filter: String,
    pub(crate) order_by: String,
}

/// A page of a list.
#[derive(Debug)]
pub(crate) struct Listed<T> {
    pub(crate) items: Vec<T>,
    pub(crate) next_page_token: String,
}

impl App {
    /// A page of a list. Its token is bound to the method and to what is asked.
    async fn list<T>(
        &self,
        method: &str,
        query: ListQuery,
        read: impl AsyncFnOnce(&Db, &Listing) -> Result<store::Page<T>>,
    ) -> Result<Listed<T>> {
        let ListQuery { parent, page_size, page_token, filter, order_by } = query;
        let args = [method, &parent, &filter, &order_by];
        let page = Page::open(&self.tokens, page_size, &page_token, &args)?;
        let limit = page.limit();
        let listing = Listing { after: page.after.clone(), parent, filter, order_by, limit };
        let mut rows = read(&self.db, &listing).await?.rows;
        let next_page_token = page.close(&self.tokens, &mut rows, |(_, position)| position.clone());
        Ok(Listed { items: rows.into_iter().map(|(row, _)| row).collect(), next_page_token })
    }

    /// Refuses a name of another organization.
    pub(crate) fn permitted(permit: &Permit, action: &str, organization: &str, name: &str) -> Result<()> {
        if permit.organization() == organization {
            return Ok(());
        }
        Err(Problem::permission_denied(action, name).into())
    }

    /// Parses a name of the given form and checks that the permit reaches it.
    pub(crate) fn name(
        permit: &Permit,
        action: &str,
        field: &str,
        name: &str,
        pattern: &str,
    ) -> Result<ResourceName> {
        let parsed = ResourceName::parse_as(name, pattern)
            .map_err(|error| Error::from(Problem::invalid_field(field, Fault::Pattern, error.to_string())))?;
        Self::permitted(permit, action, parsed.organization(), name)?;
        Ok(parsed)
    }

    /// The id that the caller chose, or one made here.
    pub(crate) fn id(&self, chosen: &str, prefix: &str, field: &str, violations: &mut Violations) -> String {
        if chosen.is_empty() {
            let random = self.db.ids.uuid().simple().to_string();
            return format!("{prefix}-{}", random.get(20..).unwrap_or_default());
        }
        violations.check(field, Fault::Pattern, pavior_core::name::validate_id(chosen));
        chosen.to_owned()
    }

    /// The service's own permit in an organization.
    pub(crate) fn own_permit(&self, organization: &str) -> Permit {
        Permit::for_system(&self.identity.authority(), organization)
    }
}

/// The etag of a row.
pub(crate) fn etag_of(uid: Uuid, revision: i64) -> String {
    etag::etag(uid, revision)
}

/// Refuses a stale etag; an empty one is any.
pub(crate) fn check_etag(given: &str, uid: Uuid, revision: i64) -> Result<()> {
    let current = etag_of(uid, revision);
    if given.is_empty() || given == current { Ok(()) } else { Err(Error::EtagMismatch { current }) }
}

/// Checks what is common to things that people name and label.
pub(crate) fn check_display_name(field: &str, name: &str, violations: &mut Violations) {
    if name.chars().count() > 256 {
        violations.add(field, Fault::TooLong, "is longer than 256 characters");
    }
}
