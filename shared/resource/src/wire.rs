//! The standard methods on the wire: check the request, do the work, encode the answer.

use pavior_auth::Permit;
use pavior_core::Fault;
use pavior_core::id::validate_new_id;
use pavior_core::page::PageTokens;
use pavior_core::resource::{Ended, Stored, Violation, Violations};
use pavior_proto::shape::{self, CreateRequest, DeleteRequest, GetRequest, ListRequest, UpdateRequest};
use pavior_rpc::mask::ReadMask;
use pavior_rpc::paging::Page;
use pavior_rpc::problem::Problem;
use pavior_rpc::{convert, validate};
use pavior_store::TxFuture;
use prost::{Message, Name};
use prost_types::Timestamp;
use serde_json::Value as Json;
use time::OffsetDateTime;
use tonic::{Request, Response, Status};

use crate::change::{commit, once};
use crate::crud::{self, Create, Delete, ErrorOf};
use crate::error::{Error, bracketed, field_violations};
use crate::message::{Scope, Wire, representable};
use crate::names::{Named, collection_of, name, parent};
use crate::patch::Patch;
use crate::table::list::ListQuery;
use crate::{ChangeContext, Done, Kernel, Service, Work};

/// What a handler gives.
pub type Answer<M> = Result<Response<M>, Status>;

/// Answers a standard `Create`.
///
/// # Errors
/// Those of [`crud::create`], and every malformed field of the request.
pub async fn create<T, R>(service: &T::Service, request: Request<R>) -> Answer<T::Message>
where
    T: Wire,
    R: CreateRequest<Resource = T::Message>,
{
    create_with(service, request, T::encode, |work, command| Box::pin(crud::create(work, command))).await
}

/// As [`create`], with other work or another answer.
///
/// # Errors
/// Those of `work`, and every malformed field of the request.
pub async fn create_with<T, R, V, W>(
    service: &T::Service,
    request: Request<R>,
    encode: fn(&V) -> T::Message,
    work: W,
) -> Answer<T::Message>
where
    T: Wire,
    R: CreateRequest<Resource = T::Message>,
    V: Send + 'static,
    W: for<'c> Fn(&'c Work<'c, T::Service>, &'c Create<T>) -> TxFuture<'c, Done<V>, ErrorOf<T>>
        + Send
        + Sync
        + 'static,
{
    const { assert!(same(T::TYPE, <T::Message as shape::Resource>::TYPE), "the type is that of the message") };
    const { assert!(same(T::SINGULAR, R::FIELD), "the noun is that of the field") };
    let (permit, request) = opened(request)?;
    let context = ChangeContext::of(&permit, &request);
    let answer = once(service, &context, async {
        let command = read_create::<T, R>(service, &permit, &request)?;
        commit(service, &context, encode, command, work).await
    });
    respond(answer.await)
}

/// Answers a standard `Update`. With `allow_missing`, what is not there is made.
///
/// # Errors
/// Those of [`crud::update`], and malformed fields of the request.
pub async fn update<T, R>(service: &T::Service, request: Request<R>) -> Answer<T::Message>
where
    T: Wire,
    R: UpdateRequest<Resource = T::Message>,
{
    update_with(service, request, T::encode, |work, patch: &Patch<T>| {
        let merge = move |before: Option<&Stored<T>>| patch.merged(work, before);
        Box::pin(crud::upsert(work, &patch.update, patch.allow_missing, merge))
    })
    .await
}

/// As [`update`], with other work or another answer.
///
/// # Errors
/// Those of `work`, and malformed fields of the request.
pub async fn update_with<T, R, V, W>(
    service: &T::Service,
    request: Request<R>,
    encode: fn(&V) -> T::Message,
    work: W,
) -> Answer<T::Message>
where
    T: Wire,
    R: UpdateRequest<Resource = T::Message>,
    V: Send + 'static,
    W: for<'c> Fn(&'c Work<'c, T::Service>, &'c Patch<T>) -> TxFuture<'c, Done<V>, ErrorOf<T>>
        + Send
        + Sync
        + 'static,
{
    let (permit, request) = opened(request)?;
    let of = ChangeContext::of(&permit, &request);
    // Whether it is there decided what policy was asked.
    let context = ChangeContext { facts: of.facts || request.allow_missing(), ..of };
    let answer = once(service, &context, async {
        let patch = Patch::<T>::read(&permit, &request)?;
        commit(service, &context, encode, patch, work).await
    });
    respond(answer.await)
}

/// Answers a standard `Delete` with the resource as it was and the times of its end; with an empty message when there was none and that is
/// allowed.
///
/// # Errors
/// Those of [`crud::delete`], and malformed fields of the request.
pub async fn delete<T, R>(service: &T::Service, request: Request<R>) -> Answer<T::Message>
where
    T: Wire,
    R: DeleteRequest<Response = T::Message>,
{
    delete_with::<T, _, _, _>(service, request, gone::<T>, |work, command| {
        Box::pin(crud::delete::<T>(work, command))
    })
    .await
}

/// As [`delete`], with other work or another answer.
///
/// # Errors
/// Those of `work`, and malformed fields of the request.
pub async fn delete_with<T, R, V, W>(
    service: &T::Service,
    request: Request<R>,
    encode: fn(&Option<V>) -> T::Message,
    work: W,
) -> Answer<T::Message>
where
    T: Wire,
    R: DeleteRequest<Response = T::Message>,
    V: Send + 'static,
    W: for<'c> Fn(&'c Work<'c, T::Service>, &'c Delete) -> TxFuture<'c, Done<Option<V>>, ErrorOf<T>>
        + Send
        + Sync
        + 'static,
{
    let (permit, request) = opened(request)?;
    let context = ChangeContext::of(&permit, &request);
    let answer = once(service, &context, async {
        validate::request(&request).map_err(Error::from)?;
        let Named { name, parent, id } = name::<T>(&permit, "name", request.name(), R::ACTION)?;
        let (etag, allow_missing) = (request.etag().to_owned(), request.allow_missing());
        let command = Delete { parent, id, name, etag, allow_missing };
        commit(service, &context, encode, command, work).await
    });
    respond(answer.await)
}

/// A resource that was deleted, as it was; an empty message when there was none.
pub fn gone<T: Wire>(gone: &Option<Stored<T>>) -> T::Message {
    gone.as_ref().map(T::encode).unwrap_or_default()
}

/// Answers a standard `Get`.
///
/// # Errors
/// NOT_FOUND, and malformed fields of the request.
pub async fn get<T, R>(service: &T::Service, request: Request<R>) -> Answer<T::Message>
where
    T: Wire,
    R: GetRequest,
{
    get_with(request, async |permit: &Permit, request: &R| {
        let Named { name, parent, id } = name::<T>(permit, "name", request.name(), R::ACTION)?;
        let stored = crud::get::<T>(service, permit, &parent, &id, &name).await?;
        Ok::<_, Error>(T::encode(&stored))
    })
    .await
}

/// As [`get`], where the resource is found in another way.
///
/// # Errors
/// Those of `find`, and malformed fields of the request.
pub async fn get_with<R, M, E>(
    request: Request<R>,
    find: impl AsyncFnOnce(&Permit, &R) -> Result<M, E>,
) -> Answer<M>
where
    R: shape::Request,
    M: Message + Name + Default,
    E: From<Error> + Into<Problem>,
{
    let (permit, request) = read_request(request)?;
    let found = async {
        let fields = ReadMask::of::<M>(request.read_mask()).map_err(Error::from)?;
        let found = find(&permit, &request).await?;
        Ok::<_, E>(fields.select(found).map_err(Error::from)?)
    };
    respond(found.await)
}

/// Answers a standard `List`.
///
/// # Errors
/// A filter, an order or a page token that cannot be used, and malformed fields of the request.
pub async fn list<T, R>(service: &T::Service, request: Request<R>) -> Answer<R::Response>
where
    T: Wire,
    R: ListRequest<Resource = T::Message>,
{
    list_below::<T, R>(service, request, false).await
}

/// As [`list`], where `-` stands for every resource above (AIP-159).
///
/// # Errors
/// As [`list`].
pub async fn list_across<T, R>(service: &T::Service, request: Request<R>) -> Answer<R::Response>
where
    T: Wire,
    R: ListRequest<Resource = T::Message>,
{
    list_below::<T, R>(service, request, true).await
}

async fn list_below<T, R>(service: &T::Service, request: Request<R>, wildcard: bool) -> Answer<R::Response>
where
    T: Wire,
    R: ListRequest<Resource = T::Message>,
{
    let (permit, request) = read_request(request)?;
    let kernel = service.kernel();
    let listed = async {
        let parent = parent::<T>(&permit, "parent", request.parent(), wildcard, R::ACTION)?;
        let page = open_page(&kernel.tokens, &request)?;
        let listing = crud::list::<T>(service, &permit, &list_query(&request, parent, &page)?).await?;
        let rows = listing.rows.iter().map(T::encode).zip(listing.positions).collect();
        close::<R>(kernel, &page, rows, listing.total)
    };
    respond(listed.await)
}

/// The answer of a handler.
// A `Status` is what handlers return; boxing it here would only move the cost to each of them.
#[allow(clippy::result_large_err)]
pub fn respond<M, E: Into<Problem>>(result: Result<M, E>) -> Answer<M> {
    result.map(Response::new).map_err(|error| error.into().into())
}

#[allow(clippy::result_large_err)]
fn opened<R>(request: Request<R>) -> Result<(Permit, R), Status> {
    Ok((pavior_auth::permit(&request)?, request.into_inner()))
}

/// The permit, and the message once its shape has been checked.
///
/// # Errors
/// INVALID_ARGUMENT with every malformed field.
#[allow(clippy::result_large_err)]
pub fn read_request<R: Message + Name>(request: Request<R>) -> Result<(Permit, R), Status> {
    let (permit, request) = opened(request)?;
    validate::request(&request)?;
    Ok((permit, request))
}

/// Every malformed field of the request at once.
fn read_create<T, R>(service: &T::Service, permit: &Permit, request: &R) -> Result<Create<T>, Error>
where
    T: Wire,
    R: CreateRequest<Resource = T::Message>,
{
    let mut violations = validate::violations(request)?.into_vec();
    let mut add = |found: Vec<Violation>| {
        let known: Vec<String> = violations.iter().map(|violation| violation.field.clone()).collect();
        let found = field_violations(found, bracketed).into_iter();
        violations.extend(found.filter(|violation| !known.contains(&violation.field)));
    };
    let parent = match parent::<T>(permit, "parent", request.parent(), false, R::ACTION) {
        Ok(parent) => parent.unwrap_or_default(),
        Err(Error::Invalid(found)) => {
            add(found);
            String::new()
        }
        Err(other) => return Err(other),
    };
    add(new_id_problems::<T, R>(request.id()));
    let scope = Scope { service, organization: permit.organization(), parent: &parent };
    let mut found = Violations::new();
    let fields = match request.resource() {
        Some(message) => T::decode(message, &scope, None, &mut found),
        None => {
            found.add("", Fault::Required, "is required");
            None
        }
    };
    // What could not be understood is left out of the fields, and not to be complained about again.
    let unfit = fields.iter().flat_map(|fields| fields.check(scope.organization, request.id()));
    let unfit: Vec<Violation> = unfit.filter(|unfit| found.iter().all(|known| apart(known, unfit))).collect();
    let mut under = Violations::new();
    under.extend_under(R::FIELD, found.into_vec().into_iter().chain(unfit));
    add(under.into_vec());
    match fields {
        Some(fields) if violations.is_empty() => {
            representable(request)?;
            Ok(Create { id: request.id().to_owned(), fields })
        }
        _ => Err(Problem::invalid(violations).into()),
    }
}

/// Whether one is about neither the other's field nor a part of it.
fn apart(a: &Violation, b: &Violation) -> bool {
    let first =
        |violation: &Violation| violation.path.split(['.', '[']).next().unwrap_or_default().to_owned();
    first(a) != first(b)
}

/// What is wrong with an id that the caller chose; an empty one is made by the server.
fn new_id_problems<T: Wire, R: CreateRequest>(id: &str) -> Vec<Violation> {
    let checked = if id.is_empty() { Ok(()) } else { validate_new_id(collection_of::<T>(), id) };
    let fault = Fault::Pattern;
    checked
        .err()
        .map(|message| Violation { path: R::ID_FIELD.to_owned(), fault, message })
        .into_iter()
        .collect()
}

/// The page that a request asks for.
///
/// # Errors
/// INVALID_ARGUMENT for a size, a token or a mask that cannot be used.
pub fn open_page<R: ListRequest>(tokens: &PageTokens, request: &R) -> Result<Page, Problem> {
    let mut args = vec![R::PATH, request.parent(), request.filter(), request.order_by()];
    args.extend(request.show_deleted().then_some("show_deleted"));
    let page = Page::open(tokens, request.page_size(), request.page_token(), &args)?;
    Ok(page.with_fields(ReadMask::of::<R::Resource>(request.read_mask())?))
}

/// What a list request asks of a table.
///
/// # Errors
/// A filter or an order that cannot be read.
pub fn list_query<R: ListRequest>(
    request: &R,
    parent: Option<String>,
    page: &Page,
) -> Result<ListQuery, Error> {
    let (filter, order_by) = (request.filter(), request.order_by());
    let query = ListQuery::new(parent, filter, order_by, page.limit(), page.after.clone())?;
    Ok(ListQuery { count: request.return_total_size(), deleted: request.show_deleted(), ..query })
}

/// The answer to a list, which ends early when it would be too large to send. Rows come with their positions; `total` is
/// how many there are on all pages, when that was asked.
///
/// # Errors
/// INTERNAL for a resource without a descriptor.
pub fn close<R: ListRequest>(
    kernel: &Kernel,
    page: &Page,
    rows: Vec<(R::Resource, Json)>,
    total: Option<u64>,
) -> Result<R::Response, Error> {
    close_cut::<R>(kernel, page, rows, total, false)
}

/// As [`close`], where there is more behind the rows although they are fewer than were asked for when `cut` is true.
///
/// # Errors
/// As [`close`].
pub fn close_cut<R: ListRequest>(
    kernel: &Kernel,
    page: &Page,
    mut rows: Vec<(R::Resource, Json)>,
    total: Option<u64>,
    cut: bool,
) -> Result<R::Response, Error> {
    let bytes = |(message, _): &(R::Resource, Json)| message.encoded_len();
    let position = |(_, position): &(R::Resource, Json)| position.clone();
    let mut next = page.close_within(&kernel.tokens, &mut rows, kernel.max_page_bytes, bytes, position);
    if let (true, true, Some((_, last))) = (cut, next.is_empty(), rows.last()) {
        next = page.token(&kernel.tokens, last);
    }
    let total = total.map(|total| i32::try_from(total).unwrap_or(i32::MAX));
    let wanted = rows.into_iter().map(|(message, _)| page.fields.select(message));
    Ok(R::respond(wanted.collect::<Result<_, Problem>>()?, next, total))
}

/// The times of creation and of the last change.
pub fn times<F>(stored: &Stored<F>) -> (Option<Timestamp>, Option<Timestamp>) {
    (Some(convert::to_timestamp(stored.create_time)), Some(convert::to_timestamp(stored.update_time)))
}

/// The times of its deletion and until which it is kept, of what is deleted.
pub fn end_times<F>(stored: &Stored<F>) -> (Option<Timestamp>, Option<Timestamp>) {
    let time = |of: fn(&Ended) -> OffsetDateTime| stored.ended.as_ref().map(of).map(convert::to_timestamp);
    (time(|ended| ended.delete_time), time(|ended| ended.purge_time))
}

/// Equal, whether words are divided by spaces or underscores.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    if a.len() != b.len() {
        return false;
    }
    let mut at = 0;
    while at < a.len() {
        if a[at] != b[at] && !(a[at] == b' ' && b[at] == b'_') {
            return false;
        }
        at += 1;
    }
    true
}
