//! # pavior-resource
//!
//! Owns what a resource of a service is and how it changes: create, get, list, update and delete with etag, field
//! mask, request id, dry run, filter, order, pages and audit record. A service declares its resources, and says what
//! else holds for them.
//!
//! It must never hold a rule of one service, run a query without a permit, or commit a change without its audit
//! record.
//!
//! Entry points: [`Service`] for a service; [`Fields`], [`Table`], [`Rules`] and [`Wire`] for a resource, one in each
//! layer, and [`keeps`] for all of a service; [`create`], [`get`], [`list`], [`update`] and [`delete`] for the handlers of its standard methods; [`run`]
//! for other changes.

mod audit;
mod change;
pub mod crud;
mod error;
mod etag;
pub mod facts;
mod message;
mod names;
mod patch;
mod row;
mod table;
mod tasks;
mod wire;

use std::sync::Arc;

use pavior_core::clock::Clock;
use pavior_core::id_gen::IdGen;
use pavior_core::page::PageTokens;
use pavior_rpc::problem::Problem;
use pavior_store::outbox::OutboxContext;
use pavior_store::{Retryable, Store, Tx};

pub use audit::{AuditEntry, record};
pub use change::{ChangeContext, Done, Work, once, run};
pub use crud::{Create, Delete, Rules, Update};
pub use error::{Error, bracketed, field_violations};
pub use etag::check_etag;
pub use facts::{Keeper, Keeps};
pub use message::{Scope, Wire, decode, unfit};
pub use names::{Named, id_of, name, parent, parse};
pub use patch::Patch;
pub use pavior_core::resource::{Fields, Stored, Violation, Violations};
pub use table::deleted::{self, Keeping, Purge};
pub use table::list::{ListError, ListQuery, Listing};
pub use table::{CHUNK, Key, Rows, Table, all_set, confined, fields_of, stored_time};
pub use tasks::sweeper;

// What `keeps` names.
#[doc(hidden)]
pub use pavior_auth::Permit;
#[doc(hidden)]
pub use pavior_core::ResourceName;
#[doc(hidden)]
pub use pavior_proto::pavior::governance::internal::v1::ResourceFacts;
#[doc(hidden)]
pub use pavior_store::StoreError;
#[doc(hidden)]
pub use table::ConnectionTrait;
pub use wire::{
    Answer, close, close_cut, create, create_with, delete, delete_with, end_times, get, get_with, gone, list,
    list_across, list_query, open_page, read_request, respond, times, update, update_with,
};

/// What every service has to keep resources.
#[derive(Debug, Clone)]
pub struct Kernel {
    /// Its database.
    pub store: Store,
    /// Who appends to the outbox, and within which limits.
    pub outbox: OutboxContext,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where ids come from.
    pub ids: Arc<dyn IdGen>,
    /// Makes and reads page tokens.
    pub tokens: PageTokens,
    /// A page ends before it is larger.
    pub max_page_bytes: usize,
    /// How long what is deleted is kept.
    pub keeping: Keeping,
}

/// A service that keeps resources. Cheap to clone.
pub trait Service: Clone + Send + Sync + 'static {
    /// Everything that can go wrong in it.
    type Error: From<Error> + From<StoreError> + Into<Problem> + Retryable + Send + 'static;

    /// Its database and the rest.
    fn kernel(&self) -> &Kernel;

    /// Keeps other changes of the organization waiting until the transaction ends, so that what is checked in it still
    /// holds when it commits.
    fn lock(tx: &Tx, permit: &Permit) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// What policy needs to know of the target of the call, before it changes; nothing where there is no target.
    fn facts(
        &self,
        tx: &Tx,
        permit: &Permit,
    ) -> impl Future<Output = Result<Option<ResourceFacts>, Self::Error>> + Send;
}
