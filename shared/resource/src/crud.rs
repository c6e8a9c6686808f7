//! Create, get, list, update and delete, over the rules of a type of resource.

use pavior_auth::Permit;
use pavior_core::resource::Stored;
use pavior_store::StoreError;

use crate::change::{Done, Work};
use crate::error::field_of;
use crate::etag::check_etag;
use crate::table::list::{ListQuery, Listing};
use crate::table::{Rows, Table};
use crate::{AuditEntry, Error, Keeps, Service};

/// Most dependents that an error names.
pub const MAX_NAMED: usize = 20;
/// So many are looked for, to know whether there are more.
pub const LOOK_FOR: u64 = 21;

/// What else holds for a type of resource when it changes.
pub trait Rules: Table {
    /// The service that keeps it, and says so to policy.
    type Service: Service + Keeps<Self>;

    /// Whether the change fits to what else is stored.
    fn admit(
        _work: &Work<'_, Self::Service>,
        _before: Option<&Stored<Self>>,
        _after: &Stored<Self>,
    ) -> impl Future<Output = Result<(), ErrorOf<Self>>> + Send {
        std::future::ready(Ok(()))
    }

    /// What else is written with it. `after` is `None` when it was deleted.
    fn written(
        _work: &Work<'_, Self::Service>,
        _before: Option<&Stored<Self>>,
        _after: Option<&Stored<Self>>,
    ) -> impl Future<Output = Result<(), ErrorOf<Self>>> + Send {
        std::future::ready(Ok(()))
    }

    /// The names of the first of those that refer to it; with any it cannot be deleted.
    fn dependents(
        _work: &Work<'_, Self::Service>,
        _stored: &Stored<Self>,
    ) -> impl Future<Output = Result<Vec<String>, ErrorOf<Self>>> + Send {
        std::future::ready(Ok(Vec::new()))
    }
}

/// The error of the service that keeps a resource.
pub type ErrorOf<T> = <<T as Rules>::Service as Service>::Error;

/// What to create.
#[derive(Debug, Clone)]
pub struct Create<T> {
    /// Made by the server when empty.
    pub id: String,
    /// Its fields.
    pub fields: T,
}

/// What to update. What it becomes is said beside it.
#[derive(Debug, Clone)]
pub struct Update {
    /// The id of the resource above, other than the organization.
    pub parent: String,
    /// Its id.
    pub id: String,
    /// Its resource name.
    pub name: String,
    /// Which revision of it; empty for any.
    pub etag: String,
}

/// What to delete.
#[derive(Debug, Clone)]
pub struct Delete {
    /// The id of the resource above, other than the organization.
    pub parent: String,
    /// Its id.
    pub id: String,
    /// Its resource name.
    pub name: String,
    /// Which revision of it; empty for any.
    pub etag: String,
    /// That it is not there is as good.
    pub allow_missing: bool,
}

/// Creates a resource.
///
/// # Errors
/// Malformed fields, a resource of the same name, and those of [`Rules::admit`].
pub async fn create<T: Rules>(
    work: &Work<'_, T::Service>,
    command: &Create<T>,
) -> Result<Done<Stored<T>>, ErrorOf<T>> {
    let uid = work.uuid();
    let id = match command.id.as_str() {
        // The last part of the UUID is random.
        "" => format!("{}-{}", T::SINGULAR.replace(' ', "-"), &uid.simple().to_string()[20..]),
        id => id.to_owned(),
    };
    let stored = Stored::new(work.permit.organization(), &id, uid, work.now, command.fields.clone());
    checked(&stored)?;
    let name = stored.name();
    // Looked for first: on PostgreSQL a failed insert ends the transaction.
    if work.find::<T>(stored.fields.parent(), &id).await?.is_some() {
        return Err(Error::AlreadyExists { kind: T::TYPE, name }.into());
    }
    T::admit(work, None, &stored).await?;
    work.rows().insert(work.permit, &stored).await.map_err(|error| unique::<T>(error, &name))?;
    T::written(work, None, Some(&stored)).await?;
    let entry = AuditEntry::of(None, Some(&stored));
    Ok(Done::new(stored, entry))
}

fn checked<T: Table>(stored: &Stored<T>) -> Result<(), Error> {
    let Stored { organization, id, fields, .. } = stored;
    fields.check(organization, id).into_result().map_err(|v| Error::under(&field_of::<T>(), v))
}

/// What a failed insert of a resource of this name is.
pub fn unique<T: Table>(error: StoreError, name: &str) -> Error {
    if error.is_unique() {
        return Error::AlreadyExists { kind: T::TYPE, name: name.to_owned() };
    }
    error.into()
}

/// Changes a resource into what `merge` makes of it. Nothing is written when nothing changes.
///
/// # Errors
/// A resource that does not exist, an etag that is not the current one, malformed fields, and those of
/// [`Rules::admit`].
pub async fn update<T: Rules>(
    work: &Work<'_, T::Service>,
    command: &Update,
    merge: impl Fn(&Stored<T>) -> Result<T, ErrorOf<T>> + Send + Sync,
) -> Result<Done<Stored<T>>, ErrorOf<T>> {
    let Update { parent, id, name, etag } = command;
    let before = work.get::<T>(parent, id, name).await?;
    check_etag(etag, before.etag())?;
    let after = before.next(work.now, merge(&before)?);
    checked(&after)?;
    if after.fields == before.fields {
        return Ok(Done::unchanged(before));
    }
    T::admit(work, Some(&before), &after).await?;
    work.rows().update(work.permit, &after).await?;
    T::written(work, Some(&before), Some(&after)).await?;
    let entry = AuditEntry::of(Some(&before), Some(&after));
    Ok(Done::new(after, entry))
}

/// As [`update`]; a resource that is not there is made where `allow_missing` says so and no revision of it is named.
/// `merge` then gets nothing, and gives the fields of the new one.
///
/// # Errors
/// Those of [`update`] and of [`create`].
pub async fn upsert<T: Rules>(
    work: &Work<'_, T::Service>,
    command: &Update,
    allow_missing: bool,
    merge: impl Fn(Option<&Stored<T>>) -> Result<T, ErrorOf<T>> + Send + Sync,
) -> Result<Done<Stored<T>>, ErrorOf<T>> {
    let Update { parent, id, etag, .. } = command;
    if allow_missing && etag.is_empty() && work.find::<T>(parent, id).await?.is_none() {
        return create(work, &Create { id: id.clone(), fields: merge(None)? }).await;
    }
    update(work, command, |before| merge(Some(before))).await
}

/// Deletes a resource that nothing refers to. Gives it as it was, with the times of its end; nothing when there was none
/// and that is allowed.
///
/// # Errors
/// A resource that does not exist, an etag that is not the current one, and dependents.
pub async fn delete<T: Rules>(
    work: &Work<'_, T::Service>,
    command: &Delete,
) -> Result<Done<Option<Stored<T>>>, ErrorOf<T>> {
    let Delete { parent, id, name, etag, allow_missing } = command;
    let Some(before) = work.find::<T>(parent, id).await? else {
        if *allow_missing {
            return Ok(Done::unchanged(None));
        }
        return Err(Error::not_found::<T>(name).into());
    };
    check_etag(etag, before.etag())?;
    refuse_dependents(&before, T::dependents(work, &before).await?)?;
    let ended = work.end(&before).await?;
    T::written(work, Some(&before), None).await?;
    let entry = AuditEntry::of(Some(&before), None);
    Ok(Done::new(Some(ended), entry))
}

/// Returns a resource.
///
/// # Errors
/// NOT_FOUND, and the database's.
pub async fn get<T: Rules>(
    service: &T::Service,
    permit: &Permit,
    parent: &str,
    id: &str,
    name: &str,
) -> Result<Stored<T>, Error> {
    let rows = Rows::new(service.kernel().store.read());
    rows.find(permit, parent, id).await?.ok_or_else(|| Error::not_found::<T>(name))
}

/// Lists resources.
///
/// # Errors
/// A filter, an order or a position that cannot be used, and the database's.
pub async fn list<T: Rules>(
    service: &T::Service,
    permit: &Permit,
    query: &ListQuery,
) -> Result<Listing<T>, Error> {
    Ok(Rows::new(service.kernel().store.read()).page(permit, query).await?)
}

/// Fails when there are dependents, naming the first of them.
///
/// # Errors
/// HAS_DEPENDENTS.
pub fn refuse_dependents<T: Table>(stored: &Stored<T>, mut dependents: Vec<String>) -> Result<(), Error> {
    if dependents.is_empty() {
        return Ok(());
    }
    let more = dependents.len() > MAX_NAMED;
    dependents.truncate(MAX_NAMED);
    Err(Error::HasDependents { name: stored.name(), dependents, more })
}
