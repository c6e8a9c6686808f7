//! What create, get, list, update and delete of every resource have in common.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;

use pavior_auth::Permit;
use pavior_store::StoreError;

use super::{Answer, App, Call, Done, Encode, Event, ListAsked, Work, dependents_of};
use crate::domain::Stored;
use crate::domain::entity::SeenRelation;
use crate::error::Error;
use crate::store::{Listing, Table};

/// Most dependents that an error names.
pub(super) const MAX_NAMED: usize = 20;
/// So many are looked for, to know whether there are more.
pub(super) const LOOK_FOR: u64 = 21;

/// A resource as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View<T> {
    pub(crate) stored: Stored<T>,
    /// Only entities have any.
    pub(crate) relations: Vec<SeenRelation>,
}

impl<T> View<T> {
    pub(super) fn plain(stored: Stored<T>) -> Self {
        Self { stored, relations: Vec::new() }
    }
}

/// What to create.
#[derive(Debug, Clone)]
pub(crate) struct Create<T> {
    /// Made by the server when empty.
    pub(crate) id: String,
    pub(crate) fields: T,
}

/// What a resource becomes; made by the wire side, which knows masks.
pub(crate) type Merge<T> = Arc<dyn Fn(&Stored<T>) -> Result<T, Error> + Send + Sync>;

/// What to update.
pub(crate) struct Update<T> {
    pub(crate) parent: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) etag: String,
    pub(crate) merge: Merge<T>,
}

impl<T> fmt::Debug for Update<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Update").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What to delete.
#[derive(Debug, Clone)]
pub(crate) struct Delete<T> {
    pub(crate) parent: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) etag: String,
    pub(crate) allow_missing: bool,
    pub(crate) of: PhantomData<fn() -> T>,
}

/// What is special about a resource when it changes.
pub(crate) trait Rules: Table {
    /// The field of requests that holds the resource; the path of violations begins with it.
    const FIELD: &'static str;

    /// Fills in what the server decides before the fields are checked.
    fn complete(
        _work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        _after: &mut Stored<Self>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Whether the change fits to what else the catalog holds.
    fn admit(
        work: &Work<'_>,
        before: Option<&Stored<Self>>,
        after: &Stored<Self>,
    ) -> impl Future<Output = Result<(), Error>> + Send;

    /// What else is written with it. `after` is `None` when it was deleted.
    fn written(
        _work: &Work<'_>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        async { Ok(()) }
    }

    /// Who needs it; the names of the first of them.
    fn dependents(
        work: &Work<'_>,
        stored: &Stored<Self>,
    ) -> impl Future<Output = Result<Vec<String>, Error>> + Send;

    /// As it is shown.
    fn view(
        _work: &Work<'_>,
        stored: Stored<Self>,
    ) -> impl Future<Output = Result<View<Self>, Error>> + Send {
        async move { Ok(View::plain(stored)) }
    }
}

impl App {
    /// Creates a resource.
    pub(crate) async fn create<T: Rules>(
        &self,
        call: Call,
        encode: Encode<View<T>>,
        command: Create<T>,
    ) -> Result<Answer<View<T>>, Error> {
        self.change(call, encode, command, |work, command| {
            Box::pin(async move {
                let done = create(&work, &command).await?;
                Ok((work, done))
            })
        })
        .await
    }

    /// Changes a resource.
    pub(crate) async fn update<T: Rules>(
        &self,
        call: Call,
        encode: Encode<View<T>>,
        command: Update<T>,
    ) -> Result<Answer<View<T>>, Error> {
        self.change(call, encode, command, |work, command| {
            Box::pin(async move {
                let done = update(&work, &command).await?;
                Ok((work, done))
            })
        })
        .await
    }

    /// Deletes a resource.
    pub(crate) async fn delete<T: Rules>(&self, call: Call, command: Delete<T>) -> Result<(), Error> {
        let empty: Encode<()> = |()| Vec::new();
        let answer = self.change(call, empty, command, |work, command| {
            Box::pin(async move {
                let done = delete(&work, &command).await?;
                Ok((work, done))
            })
        });
        answer.await.map(|_| ())
    }

    /// Returns a resource.
    pub(crate) async fn get<T: Table>(
        &self,
        permit: &Permit,
        parent: &str,
        id: &str,
        name: &str,
    ) -> Result<Stored<T>, Error> {
        let found = self.store.read().find::<T>(permit, parent, id).await?;
        found.ok_or_else(|| Error::NotFound { kind: T::SINGULAR, name: name.to_owned() })
    }

    /// Lists resources.
    pub(crate) async fn list<T: Table>(
        &self,
        permit: &Permit,
        asked: ListAsked<'_>,
    ) -> Result<Listing<T>, Error> {
        Ok(self.store.read().page::<T>(permit, &asked.query()?).await?)
    }
}

pub(super) async fn create<T: Rules>(work: &Work<'_>, command: &Create<T>) -> Result<Done<View<T>>, Error> {
    let uid = work.ids.uuid();
    let id = match command.id.as_str() {
        // The last part of the UUID is random.
        "" => format!("{}-{}", T::SINGULAR.replace(' ', "-"), &uid.simple().to_string()[20..]),
        id => id.to_owned(),
    };
    let organization = work.permit.organization();
    let mut stored = Stored::new(organization, &id, uid, work.now, command.fields.clone());
    T::complete(work, None, &mut stored).await?;
    stored.fields.check(organization, &id).into_result().map_err(|v| Error::under(T::FIELD, v))?;
    let name = stored.name();
    // Looked for first: on PostgreSQL a failed insert ends the transaction.
    if work.tx.find::<T>(&work.permit, stored.fields.parent(), &id).await?.is_some() {
        return Err(Error::AlreadyExists { kind: T::SINGULAR, name });
    }
    T::admit(work, None, &stored).await?;
    work.tx.insert(&work.permit, &stored).await.map_err(|error| unique::<T>(error, &name))?;
    T::written(work, None, Some(&stored)).await?;
    let events = vec![event(None, Some(&stored))];
    Ok(Done { value: T::view(work, stored).await?, events })
}

fn unique<T: Table>(error: StoreError, name: &str) -> Error {
    if error.is_unique() {
        return Error::AlreadyExists { kind: T::SINGULAR, name: name.to_owned() };
    }
    error.into()
}

pub(super) async fn update<T: Rules>(work: &Work<'_>, command: &Update<T>) -> Result<Done<View<T>>, Error> {
    let Update { parent, id, name, etag, merge } = command;
    let found = work.tx.find::<T>(&work.permit, parent, id).await?;
    let before = found.ok_or_else(|| Error::NotFound { kind: T::SINGULAR, name: name.clone() })?;
    check_etag(&before, etag)?;
    let mut after = before.next(work.now, merge(&before)?);
    T::complete(work, Some(&before), &mut after).await?;
    after.fields.check(&after.organization, id).into_result().map_err(|v| Error::under(T::FIELD, v))?;
    if after.fields == before.fields {
        return Ok(Done { value: T::view(work, before).await?, events: Vec::new() });
    }
    T::admit(work, Some(&before), &after).await?;
    work.tx.update(&work.permit, &after).await?;
    T::written(work, Some(&before), Some(&after)).await?;
    let events = vec![event(Some(&before), Some(&after))];
    Ok(Done { value: T::view(work, after).await?, events })
}

pub(super) async fn delete<T: Rules>(work: &Work<'_>, command: &Delete<T>) -> Result<Done<()>, Error> {
    let Delete { parent, id, name, etag, allow_missing, of: _ } = command;
    let Some(before) = work.tx.find::<T>(&work.permit, parent, id).await? else {
        if *allow_missing {
            return Ok(Done { value: (), events: Vec::new() });
        }
        return Err(Error::NotFound { kind: T::SINGULAR, name: name.clone() });
    };
    check_etag(&before, etag)?;
    dependents_of(&before, T::dependents(work, &before).await?, MAX_NAMED)?;
    work.tx.delete(&work.permit, &before).await?;
    T::written(work, Some(&before), None).await?;
    Ok(Done { value: (), events: vec![event(Some(&before), None)] })
}

/// An empty etag means that the last write wins.
fn check_etag<T: Table>(stored: &Stored<T>, etag: &str) -> Result<(), Error> {
    let current = stored.etag();
    if etag.is_empty() || etag == current { Ok(()) } else { Err(Error::EtagMismatch { current }) }
}

/// The audit record of a change of one resource.
pub(super) fn event<T: Table>(before: Option<&Stored<T>>, after: Option<&Stored<T>>) -> Event {
    let name = before.or(after).map(Stored::name).unwrap_or_default();
    let verb = match (before, after) {
        (None, _) => "created",
        (Some(_), Some(_)) => "updated",
        (Some(_), None) => "deleted",
    };
    let snapshot = |stored: &Stored<T>| stored.fields.snapshot();
    Event {
        object_type: T::TYPE,
        summary: format!("{verb} {} `{name}`", T::SINGULAR),
        name,
        before: before.map(snapshot),
        after: after.map(snapshot),
    }
}
