//! Use cases. Each plans, asks policy, and writes once; the engine does the rest.

pub(crate) mod admission;
pub(crate) mod approval;
pub(crate) mod artifact;
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
mod ground;
pub(crate) mod operation;
mod orphan;
pub(crate) mod peers;
pub(crate) mod pipeline;
pub(crate) mod plan;
pub(crate) mod planning;
pub(crate) mod project;
pub(crate) mod push;
mod repair;
pub(crate) mod resource;
pub(crate) mod response;
pub(crate) mod submit;
pub(crate) mod watch;

use pavior_core::{Fault, ResourceName, etag};
use std::sync::Arc;

use pavior_auth::{Permit, ServiceIdentity};
use pavior_proto::pavior::provisioning::v1::plan::Intent;
use pavior_resource::{Kernel, ListQuery};
use pavior_rpc::Problem;
use uuid::Uuid;

use crate::config::Config;
use crate::domain::names::{self, Parent};
use crate::domain::plan::Plan;
use crate::engine::Engine;
use crate::error::Result;
use crate::store::{Db, Page};
use plan::KeptPlan;
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
    pub(crate) kernel: Kernel,
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
    Kept(Box<KeptPlan>),
    /// There is nothing to do, as was allowed.
    Nothing,
}

impl<T> Page<T> {
    /// The same page of what `views` makes of all its rows at once, in their order.
    pub(crate) async fn of<U>(self, views: impl AsyncFnOnce(Vec<T>) -> Result<Vec<U>>) -> Result<Page<U>> {
        let (rows, positions): (Vec<_>, Vec<_>) = self.rows.into_iter().unzip();
        let rows = views(rows).await?.into_iter().zip(positions).collect();
        Ok(Page { rows, total: self.total })
    }
}

/// What is read by its name, or in a list. What changes it is an operation.
pub(crate) trait Readable: Sized {
    /// The pattern of its names.
    const PATTERN: &'static str;

    /// Parses one of its names, and checks that the permit reaches it.
    fn named(permit: &Permit, action: &str, name: &str) -> Result<ResourceName> {
        App::name(permit, action, "name", name, Self::PATTERN)
    }

    /// Parses the name of what it is listed in, likewise, where `-` may stand for all.
    fn below(permit: &Permit, action: &str, parent: &str) -> Result<Parent> {
        App::parent(permit, action, parent, names::parent(Self::PATTERN))
    }

    /// The one of this name.
    fn get(app: &App, permit: &Permit, name: &ResourceName) -> impl Future<Output = Result<Self>> + Send;

    /// Those in a parent, which must exist.
    fn list(
        app: &App,
        permit: &Permit,
        parent: &Parent,
        query: &ListQuery,
    ) -> impl Future<Output = Result<Page<Self>>> + Send;
}

impl App {
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
        Ok(pavior_resource::parse(permit, field, name, pattern, action)?)
    }

    /// Parses the name of what something is listed in: one thing of the given form, or all that a `-` stands for.
    pub(crate) fn parent(permit: &Permit, action: &str, name: &str, pattern: &'static str) -> Result<Parent> {
        let parent = Parent::parse(name, pattern)
            .map_err(|error| Problem::invalid_field("parent", Fault::Pattern, error.to_string()))?;
        Self::permitted(permit, action, parent.organization(), name)?;
        Ok(parent)
    }

    /// Fails when the project that a list lies in does not exist.
    pub(crate) async fn project_of(&self, permit: &Permit, parent: &Parent) -> Result<()> {
        match parent.project() {
            Some(project) => self.db.project(permit, &project).await.map(drop),
            None => Ok(()),
        }
    }

    /// The id that the caller chose, or one made here.
    pub(crate) fn id(&self, chosen: &str, prefix: &str) -> String {
        if chosen.is_empty() {
            let random = self.db.ids.uuid().simple().to_string();
            return format!("{prefix}-{}", random.get(20..).unwrap_or_default());
        }
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
