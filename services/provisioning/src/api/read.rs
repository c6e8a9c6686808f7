//! The standard reads: `Get` and `List` of what operations change.

use pavior_auth::Permit;
use pavior_proto::shape::{GetRequest, ListRequest};
use pavior_resource::{Answer, close, get_with, list_query, open_page, read_request, respond};
use prost::{Message, Name};
use tonic::Request;

use crate::app::{App, Readable};
use crate::error::Error;

/// Answers a standard `Get`.
pub(super) async fn get<R: GetRequest, T: Readable, M: Message + Name + Default>(
    app: &App,
    request: Request<R>,
    encode: fn(T) -> M,
) -> Answer<M> {
    get_with(request, async |permit: &Permit, request: &R| {
        let name = T::named(permit, R::ACTION, request.name())?;
        Ok::<_, Error>(encode(T::get(app, permit, &name).await?))
    })
    .await
}

/// Answers a standard `List`.
pub(super) async fn list<R: ListRequest, T: Readable>(
    app: &App,
    request: Request<R>,
    encode: fn(T) -> R::Resource,
) -> Answer<R::Response> {
    let (permit, request) = read_request(request)?;
    let listed = async {
        let parent = T::below(&permit, R::ACTION, request.parent())?;
        let page = open_page(&app.kernel.tokens, &request)?;
        let query = list_query(&request, None, &page)?;
        let found = T::list(app, &permit, &parent, &query).await?;
        let rows = found.rows.into_iter().map(|(row, position)| (encode(row), position)).collect();
        Ok::<_, Error>(close::<R>(&app.kernel, &page, rows, found.total)?)
    };
    respond(listed.await)
}
