//! Roles, role bindings, policies and policy bindings: what is the same for all of them.

use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::filter::{Filter, order_by};
use pavior_core::page::PageTokens;
use pavior_core::{ResourceName, validate_id};
use pavior_proto::pavior::governance::v1::ResourceFacts;
use pavior_rpc::paging::Page;
use pavior_rpc::{ErrorReason, Problem, Violations, convert};
use pavior_store::Tx;
use prost::Message;
use prost_types::FieldMask;
use serde_json::Value as Json;

use super::App;
use super::codec::{Codec, Decoding, name_of};
use super::write::{Call, Changed, Happened};
use crate::domain::record::Stored;
use crate::error::Error;
use crate::store::{self, ListError, Listing, Table};

/// What a list asks for, as on the wire.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ListArgs<'a> {
    pub(crate) parent: &'a str,
    pub(crate) page_size: i32,
    pub(crate) page_token: &'a str,
    pub(crate) filter: &'a str,
    pub(crate) order_by: &'a str,
}

/// Parses the filter and the order of a list.
pub(crate) fn listing(args: &ListArgs<'_>) -> Result<Listing, Problem> {
    let refuse = |field: &str, error: &dyn std::fmt::Display| {
        Problem::invalid_reason(ErrorReason::InvalidFilter, field, error.to_string())
    };
    let filter = Filter::parse(args.filter).map_err(|error| refuse("filter", &error))?;
    let order = order_by(args.order_by).map_err(|error| refuse("order_by", &error))?;
    Ok(Listing { filter, order })
}

/// What a list that cannot be made is to its caller.
pub(crate) fn list_problem(error: ListError) -> Error {
    match error {
        ListError::Filter(error) => {
            Problem::invalid_reason(ErrorReason::InvalidFilter, "filter", error.to_string()).into()
        }
        ListError::Order(error) => {
            Problem::invalid_reason(ErrorReason::InvalidFilter, "order_by", error.to_string()).into()
        }
        ListError::Position(error) => {
            Problem::invalid_reason(ErrorReason::InvalidPageToken, "page_token", error.to_string()).into()
        }
        ListError::Store(error) => error.into(),
    }
}

/// Cuts rows, each with its place in the order, to the page, and gives the token of the next one.
pub(crate) fn close<M: Message>(page: &Page, tokens: &PageTokens, rows: &mut Vec<(M, Json)>) -> String {
    page.close_within(tokens, rows, |(wire, _)| wire.encoded_len(), |(_, place)| place.clone())
}

/// The organization of a parent, `organizations/{organization}`.
pub(crate) fn parent(name: &str, field: &str) -> Result<String, Problem> {
    ResourceName::parse_as(name, "organizations/{organization}")
        .map(|name| name.organization().to_owned())
        .map_err(|error| Problem::invalid_field(field, error.to_string()))
}

/// Organization and id of a resource's name.
pub(crate) fn name<T: Table>(name: &str, field: &str) -> Result<(String, String), Problem> {
    let pattern = format!("organizations/{{organization}}/{}/{{id}}", T::COLLECTION);
    let parsed = ResourceName::parse_as(name, &pattern);
    let parsed = parsed.map_err(|error| Problem::invalid_field(field, error.to_string()))?;
    Ok((parsed.organization().to_owned(), parsed.id().to_owned()))
}

fn not_found<T: Table>(organization: &str, id: &str) -> Error {
    Error::NotFound { kind: T::KIND, name: name_of::<T>(organization, id) }
}

fn wire_json<T: Codec>(stored: &Stored<T>) -> Result<serde_json::Value, Error> {
    convert::to_json(&T::encode(stored)).map_err(|error| Error::Bug(error.to_string()))
}

fn check_etag<T>(stored: &Stored<T>, etag: &str) -> Result<(), Error> {
    let current = stored.etag();
    if etag.is_empty() || etag == current { Ok(()) } else { Err(Error::EtagMismatch { current }) }
}

/// What an update asks for.
#[derive(Debug, Clone)]
pub(crate) struct Patch<T: Codec> {
    pub(crate) name: String,
    pub(crate) etag: String,
    pub(crate) wire: T::Wire,
    pub(crate) mask: Option<FieldMask>,
    /// The path of the resource in the request.
    pub(crate) path: &'static str,
}

impl App {
    /// A resource.
    pub(crate) async fn get<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        full: &str,
    ) -> Result<T::Wire, Error> {
        let (organization, id) = name::<T>(full, "name")?;
        Self::permitted(permit, &organization, call, full)?;
        let found = store::by_id::<T>(self.store.read(), permit, &id).await?;
        found.map(|stored| T::encode(&stored)).ok_or_else(|| not_found::<T>(&organization, &id))
    }

    /// A page of resources with the token of the next one.
    pub(crate) async fn list<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        args: ListArgs<'_>,
    ) -> Result<(Vec<T::Wire>, String), Error> {
        let organization = parent(args.parent, "parent")?;
        Self::permitted(permit, &organization, call, args.parent)?;
        let bound = [call.action, args.parent, args.filter, args.order_by];
        let page = Page::open(&self.tokens, args.page_size, args.page_token, &bound)?;
        let listing = listing(&args)?;
        let (db, backend) = (self.store.read(), self.store.backend());
        let rows = store::page::<T>(db, backend, permit, &listing, page.after.as_ref(), page.limit()).await;
        let rows = rows.map_err(list_problem)?;
        let mut rows: Vec<_> =
            rows.iter().map(|stored| (T::encode(stored), listing.position(stored))).collect();
        let next = close(&page, &self.tokens, &mut rows);
        Ok((rows.into_iter().map(|(wire, _)| wire).collect(), next))
    }

    /// Adds a resource. Without an id the server makes one.
    pub(crate) async fn create<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        organization: &str,
        id: &str,
        spec: T,
    ) -> Result<T::Wire, Error> {
        Self::permitted(permit, organization, call, &format!("organizations/{organization}"))?;
        self.check_text(permit.organization(), &spec).await?;
        let (uid, now) = (self.ids.uuid(), self.clock.now());
        let id = if id.is_empty() { uid.to_string() } else { id.to_owned() };
        let organization = organization.to_owned();
        let stored = Stored { uid, organization, id, revision: 1, create_time: now, update_time: now, spec };
        let (app, action) = (self.clone(), call.action);
        let (stored, permit_) = (Arc::new(stored), permit.clone());
        self.write(permit, call, move |tx| {
            let (app, stored, permit) = (app.clone(), stored.clone(), permit_.clone());
            Box::pin(async move { app.create_in(tx, &permit, action, &stored).await })
        })
        .await
    }

    async fn create_in<T: Codec>(
        &self,
        tx: &Tx,
        permit: &Permit,
        action: &'static str,
        stored: &Stored<T>,
    ) -> Result<Changed<T::Wire>, Error> {
        store::bump_revision(tx, permit).await?;
        let name = name_of::<T>(&stored.organization, &stored.id);
        if store::by_id::<T>(tx, permit, &stored.id).await?.is_some() {
            return Err(Error::AlreadyExists { kind: T::KIND, name });
        }
        let limit = T::limit(&self.config);
        if store::count::<T>(tx, permit).await? >= limit {
            return Err(Error::Quota { kind: T::KINDS, limit });
        }
        stored.spec.check_references(tx, permit).await?;
        store::insert(tx, permit, stored).await?;
        let after = Some(wire_json(stored)?);
        let (kind, verb) = (T::TYPE, "created");
        let happened = Happened { action, kind, name, verb, before: None, after, plan_digest: None };
        Ok((T::encode(stored), Some(self.event(permit, happened))))
    }

    /// Changes the fields of a resource that a mask names.
    pub(crate) async fn update<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        patch: Patch<T>,
    ) -> Result<T::Wire, Error> {
        let (organization, id) = name::<T>(&patch.name, &format!("{}.name", patch.path))?;
        Self::permitted(permit, &organization, call, &patch.name)?;
        // Before the transaction, in which nothing must take long; what is found there is checked again, from memory.
        if let Some(current) = store::by_id::<T>(self.store.read(), permit, &id).await? {
            self.check_text(permit.organization(), &self.merged(&current, &patch)?).await?;
        }
        let (app, patch, permit_, action) = (self.clone(), Arc::new(patch), permit.clone(), call.action);
        let id: Arc<str> = id.into();
        self.write(permit, call, move |tx| {
            let (app, patch, permit, id) = (app.clone(), patch.clone(), permit_.clone(), id.clone());
            Box::pin(async move { app.update_in(tx, &permit, action, &id, &patch).await })
        })
        .await
    }

    async fn update_in<T: Codec>(
        &self,
        tx: &Tx,
        permit: &Permit,
        action: &'static str,
        id: &str,
        patch: &Patch<T>,
    ) -> Result<Changed<T::Wire>, Error> {
        store::bump_revision(tx, permit).await?;
        let current = store::by_id::<T>(tx, permit, id).await?;
        let current = current.ok_or_else(|| not_found::<T>(permit.organization(), id))?;
        check_etag(&current, &patch.etag)?;
        let spec = self.merged(&current, patch)?;
        if spec == current.spec {
            return Ok((T::encode(&current), None));
        }
        self.check_text(permit.organization(), &spec).await?;
        spec.check_references(tx, permit).await?;
        let (revision, update_time) = (current.revision + 1, self.clock.now());
        let changed = Stored { revision, update_time, spec, ..current.clone() };
        if !store::update(tx, permit, &changed).await? {
            return Err(Error::EtagMismatch { current: current.etag() });
        }
        let name = name_of::<T>(&current.organization, id);
        let (before, after) = (Some(wire_json(&current)?), Some(wire_json(&changed)?));
        let (kind, verb) = (T::TYPE, "updated");
        let happened = Happened { action, kind, name, verb, before, after, plan_digest: None };
        Ok((T::encode(&changed), Some(self.event(permit, happened))))
    }

    fn merged<T: Codec>(&self, current: &Stored<T>, patch: &Patch<T>) -> Result<T, Error> {
        let merged = pavior_rpc::mask::merge(&T::encode(current), &patch.wire, patch.mask.as_ref())?;
        let decoding =
            Decoding { organization: &current.organization, actions: &self.schema.actions, path: patch.path };
        let mut violations = Violations::new();
        let spec = T::decode(&merged, decoding, &mut violations);
        violations.into_result()?;
        spec.ok_or_else(|| Error::Bug("a message without violations was not decoded".to_owned()))
    }

    /// Removes a resource that nothing refers to.
    pub(crate) async fn delete<T: Codec>(
        &self,
        permit: &Permit,
        call: &Call,
        full: &str,
        etag: &str,
        allow_missing: bool,
    ) -> Result<(), Error> {
        let (organization, id) = name::<T>(full, "name")?;
        Self::permitted(permit, &organization, call, full)?;
        let (app, permit_, action) = (self.clone(), permit.clone(), call.action);
        let (id, etag): (Arc<str>, Arc<str>) = (id.into(), etag.into());
        self.write(permit, call, move |tx| {
            let (app, permit, id, etag) = (app.clone(), permit_.clone(), id.clone(), etag.clone());
            Box::pin(async move { app.delete_in::<T>(tx, &permit, action, &id, &etag, allow_missing).await })
        })
        .await
    }

    async fn delete_in<T: Codec>(
        &self,
        tx: &Tx,
        permit: &Permit,
        action: &'static str,
        id: &str,
        etag: &str,
        allow_missing: bool,
    ) -> Result<Changed<()>, Error> {
        store::bump_revision(tx, permit).await?;
        let Some(current) = store::by_id::<T>(tx, permit, id).await? else {
            return if allow_missing {
                Ok(((), None))
            } else {
                Err(not_found::<T>(permit.organization(), id))
            };
        };
        check_etag(&current, etag)?;
        let name = name_of::<T>(permit.organization(), id);
        let dependents = T::dependents(tx, permit, id).await?;
        if !dependents.is_empty() {
            return Err(Error::HasDependents { name, dependents });
        }
        store::delete(tx, permit, &current).await?;
        let before = Some(wire_json(&current)?);
        let (kind, verb) = (T::TYPE, "deleted");
        let happened = Happened { action, kind, name, verb, before, after: None, plan_digest: None };
        Ok(((), Some(self.event(permit, happened))))
    }

    async fn check_text<T: Codec>(&self, organization: &str, spec: &T) -> Result<(), Error> {
        let Some((kind, text)) = spec.text() else { return Ok(()) };
        self.sources
            .check(organization, kind, text)
            .await
            .map(|_| ())
            .map_err(|problems| Error::InvalidPolicy { problems })
    }
}

/// Checks the id that a caller chose for a new resource.
pub(crate) fn check_new_id(id: &str, field: &str, violations: &mut Violations) {
    if !id.is_empty() {
        violations.check(field, validate_id(id));
    }
}

/// The facts of something that belongs to nobody in particular.
pub(crate) fn plain_facts(name: String, exists: bool, kind: &str) -> ResourceFacts {
    ResourceFacts { name, exists, r#type: kind.to_owned(), ..ResourceFacts::default() }
}
