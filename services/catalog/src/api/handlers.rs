//! What the methods about resources have in common: check the request, call the use case, encode the answer.

use std::marker::PhantomData;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_core::page::PageTokens;
use pavior_core::principal::{RESERVED_ID, is_reserved};
use pavior_rpc::paging::Page;
use pavior_rpc::problem::Problem;
use pavior_rpc::{convert, digest, mask, validate};
use prost::{Message, Name};
use tonic::{Request, Response, Status};

use super::status::to_status;
use super::wire::{
    CreateRequest, DeleteRequest, ListRequest, Named, Scope, UpdateRequest, Wire, named, parent,
};
use crate::app::{Answer, App, Call, Create, Delete, Encode, ListAsked, Rules, Update, View};
use crate::domain::Stored;
use crate::error::Error;
use crate::json::Json;

/// A method, and the action that policy decided on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rpc {
    pub(super) method: &'static str,
    pub(super) action: &'static str,
}

/// The catalog on the wire. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    pub(super) app: App,
    pub(super) tokens: PageTokens,
    /// An answer is cut short before it is larger.
    pub(super) max_page_bytes: usize,
}

/// A page as it is answered.
pub(super) struct PageOf<M> {
    pub(super) items: Vec<M>,
    pub(super) next_page_token: String,
}

impl Api {
    pub(crate) fn new(app: App, tokens: PageTokens, max_page_bytes: usize) -> Self {
        Self { app, tokens, max_page_bytes }
    }

    pub(super) async fn create<T, R>(
        &self,
        request: Request<R>,
        rpc: Rpc,
    ) -> Result<Response<T::Message>, Status>
    where
        T: Wire + Rules,
        R: CreateRequest<Resource = T::Message>,
    {
        let (permit, request) = checked(request)?;
        let kind = parent::<T>(&permit, "parent", request.parent(), false, rpc.action)?;
        let id = request.id();
        check_id::<T>(id)?;
        let scope =
            Scope { organization: permit.organization(), parent: kind.as_deref().unwrap_or_default() };
        let message = request.resource().cloned().unwrap_or_default();
        let fields = T::decode(&message, scope, None)
            .map_err(|violations| to_status(Error::under(T::FIELD, violations), rpc.action))?;
        let command = Create { id: id.to_owned(), fields };
        representable(&request)?;
        let call = call(&permit, rpc, &request, request.request_id(), request.validate_only());
        let answer = self.app.create::<T>(call, encode_view::<T>, command).await;
        answered::<T>(answer, rpc)
    }

    pub(super) async fn update<T, R>(
        &self,
        request: Request<R>,
        rpc: Rpc,
    ) -> Result<Response<T::Message>, Status>
    where
        T: Wire + Rules,
        R: UpdateRequest<Resource = T::Message>,
    {
        let (permit, request) = checked(request)?;
        let patch = request.resource().cloned().unwrap_or_default();
        let field = format!("{}.name", T::FIELD);
        let Named { name, parent, id } = named::<T>(&permit, &field, T::message_name(&patch), rpc.action)?;
        let etag = T::etag(&patch).to_owned();
        let mask = request.update_mask().cloned();
        // An unknown path is an error whether the resource exists or not.
        mask::Mask::resolve(mask.as_ref(), &patch)?;
        let merge = move |stored: &Stored<T>| {
            let current = T::encode(&View { stored: stored.clone(), relations: Vec::new() });
            let merged = mask::merge(&current, &patch, mask.as_ref())
                .map_err(|problem| Error::Rejected(Box::new(problem)))?;
            let scope = Scope { organization: &stored.organization, parent: stored.fields.parent() };
            T::decode(&merged, scope, Some(&stored.fields))
                .map_err(|violations| Error::under(T::FIELD, violations))
        };
        representable(&request.without_mask())?;
        let call = call(&permit, rpc, &request, request.request_id(), request.validate_only());
        let command = Update { parent, id, name, etag, merge: Arc::new(merge) };
        let answer = self.app.update::<T>(call, encode_view::<T>, command).await;
        answered::<T>(answer, rpc)
    }

    pub(super) async fn delete<T, R>(&self, request: Request<R>, rpc: Rpc) -> Result<Response<()>, Status>
    where
        T: Wire + Rules,
        R: DeleteRequest,
    {
        let (permit, request) = checked(request)?;
        let Named { name, parent, id } = named::<T>(&permit, "name", request.name(), rpc.action)?;
        let (etag, allow_missing) = (request.etag().to_owned(), request.allow_missing());
        let command = Delete::<T> { parent, id, name, etag, allow_missing, of: PhantomData };
        let call = call(&permit, rpc, &request, request.request_id(), request.validate_only());
        self.app.delete(call, command).await.map_err(|error| to_status(error, rpc.action))?;
        Ok(Response::new(()))
    }

    pub(super) async fn get<T: Wire>(
        &self,
        permit: &Permit,
        name: &str,
        rpc: Rpc,
    ) -> Result<Response<T::Message>, Status> {
        let Named { name, parent, id } = named::<T>(permit, "name", name, rpc.action)?;
        let stored = self.app.get::<T>(permit, &parent, &id, &name).await;
        let stored = stored.map_err(|error| to_status(error, rpc.action))?;
        Ok(Response::new(T::encode(&View { stored, relations: Vec::new() })))
    }

    pub(super) async fn list<T, R>(&self, request: Request<R>, rpc: Rpc) -> Result<PageOf<T::Message>, Status>
    where
        T: Wire,
        R: ListRequest,
    {
        let (permit, request) = checked(request)?;
        let parent = parent::<T>(&permit, "parent", request.parent(), false, rpc.action)?;
        let page = self.open(&request, rpc)?;
        let asked = asked(&request, parent.as_deref(), &page);
        let listing =
            self.app.list::<T>(&permit, asked).await.map_err(|error| to_status(error, rpc.action))?;
        let views = listing.rows.into_iter().map(|stored| View { stored, relations: Vec::new() });
        Ok(self.close::<T>(&page, views.collect(), &listing.positions))
    }

    pub(super) fn open<R: ListRequest>(&self, request: &R, rpc: Rpc) -> Result<Page, Problem> {
        let args = [rpc.method, request.parent(), request.filter(), request.order_by()];
        Page::open(&self.tokens, request.page_size(), request.page_token(), &args)
    }

    /// Encodes a page, which ends early when it would be too large to send.
    pub(super) fn close<T: Wire>(
        &self,
        page: &Page,
        views: Vec<View<T>>,
        positions: &[Json],
    ) -> PageOf<T::Message> {
        let size = usize::try_from(page.size).unwrap_or(usize::MAX);
        let rows = views.len();
        let mut bytes = 0;
        let mut items = Vec::new();
        for view in views.iter().take(size) {
            let item = T::encode(view);
            bytes += item.encoded_len();
            if bytes > self.max_page_bytes && !items.is_empty() {
                break;
            }
            items.push(item);
        }
        let last = items.len().checked_sub(1).and_then(|last| positions.get(last));
        let next_page_token = match last {
            Some(position) if items.len() < rows => page.token(&self.tokens, position),
            _ => String::new(),
        };
        PageOf { items, next_page_token }
    }
}

/// The permit, and the message once its shape has been checked.
pub(super) fn checked<R: Message + Name>(request: Request<R>) -> Result<(Permit, R), Status> {
    let permit = pavior_auth::permit(&request)?;
    let request = request.into_inner();
    validate::request(&request)?;
    Ok((permit, request))
}

/// What is asked of a list.
pub(super) fn asked<'a, R: ListRequest>(
    request: &'a R,
    parent: Option<&'a str>,
    page: &Page,
) -> ListAsked<'a> {
    ListAsked {
        parent,
        filter: request.filter(),
        order_by: request.order_by(),
        limit: page.limit(),
        after: page.after.clone(),
    }
}

/// What is known of a call that changes something.
pub(super) fn call<R: Message + Name>(
    permit: &Permit,
    rpc: Rpc,
    request: &R,
    request_id: &str,
    validate_only: bool,
) -> Call {
    Call {
        permit: permit.clone(),
        method: rpc.method,
        action: rpc.action,
        request_id: request_id.to_owned(),
        request_hash: digest::of(request).to_vec(),
        validate_only,
        operation: None,
        encode_facts: super::facts::bytes,
    }
}

/// What has no JSON form, such as a number that is not a number, could not be kept.
fn representable<R: Message + Name>(request: &R) -> Result<(), Problem> {
    let refuse = |error| Problem::invalid_field(R::NAME, format!("cannot be written as JSON: {error}"));
    convert::to_json(request).map(drop).map_err(refuse)
}

fn encode_view<T: Wire>(view: &View<T>) -> Vec<u8> {
    T::encode(view).encode_to_vec()
}

pub(super) fn encoder<T: Wire>() -> Encode<View<T>> {
    encode_view::<T>
}

/// The answer to a change, or the first answer to the same request.
pub(super) fn answered<T: Wire>(
    answer: Result<Answer<View<T>>, Error>,
    rpc: Rpc,
) -> Result<Response<T::Message>, Status> {
    match answer.map_err(|error| to_status(error, rpc.action))? {
        Answer::New(view) => Ok(Response::new(T::encode(&view))),
        Answer::Again(bytes) => again(&bytes).map(Response::new),
    }
}

pub(super) fn again<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|error| Problem::internal(error).into())
}

/// An id that a caller chose; an empty one is made by the server.
pub(super) fn check_id<T: Wire>(id: &str) -> Result<(), Problem> {
    if id.is_empty() {
        return Ok(());
    }
    let checked = match T::ID_FIELD {
        "user_id" => pavior_core::name::validate_id_in("users", id),
        _ => pavior_core::validate_id(id),
    };
    checked.map_err(|error| Problem::invalid_field(T::ID_FIELD, error.to_string()))?;
    // Whoever is called like a part of the platform would be taken for it.
    if matches!(T::ID_FIELD, "user_id" | "group_id") && is_reserved(id) {
        return Err(Problem::invalid_field(T::ID_FIELD, format!("`{id}` {RESERVED_ID}")));
    }
    Ok(())
}
