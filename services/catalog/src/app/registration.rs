//! Entities of resources: what provisioning makes for a project, and takes away with it. Only those, so that whoever
//! holds provisioning's key changes nothing else in the catalog.

use pavior_auth::Permit;
use pavior_core::annotation;
use pavior_resource::crud::{self, LOOK_FOR, refuse_dependents};
use pavior_resource::{
    AuditEntry, ChangeContext, Create, Done, Error as ResourceError, Rules as _, Update, Work, run,
};
use prost::Message;

use super::entity::{EntityView, create_entity, view};
use super::{App, db};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Fields as _, Stored};
use crate::error::Error;

/// Most dependents that are listed. Those of the same project are among them, and are deleted with it.
const MAX_LISTED: u64 = 1_000;

/// What to register.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) id: String,
    pub(crate) fields: EntityFields,
    pub(crate) resource: String,
    pub(crate) key: String,
    pub(crate) declaration: String,
    /// One that was made with another key is not taken over.
    pub(crate) create: bool,
    /// The uid of the very one that is brought up to date; empty where it is not known.
    pub(crate) uid: String,
}

/// The entity of a resource, as it was registered last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Registered {
    pub(crate) name: String,
    pub(crate) uid: String,
    pub(crate) resource: String,
    pub(crate) key: String,
    pub(crate) declaration: String,
}

/// What to unregister.
#[derive(Debug)]
pub(crate) struct Unregister {
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) resource: String,
    /// The uid of the very one that is meant; empty where it is not known.
    pub(crate) uid: String,
    /// The key that it was made with; empty for whatever key.
    pub(crate) key: String,
}

impl App {
    /// Makes the entity of a resource, or brings it up to date.
    pub(crate) async fn register_entity<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&EntityView) -> M,
        command: Register,
    ) -> Result<M, Error> {
        run(self, context, encode, command, |work, command| Box::pin(register(work, command))).await
    }

    /// Deletes the entity of a resource, if it is there.
    pub(crate) async fn unregister_entity(
        &self,
        context: &ChangeContext,
        command: Unregister,
    ) -> Result<(), Error> {
        let done: fn(&()) = |()| ();
        run(self, context, done, command, |work, command| Box::pin(unregister(work, command))).await
    }

    /// The first entities, by name, for whose sake the entity of a resource is not deleted: those of the same owner. One
    /// team must not be able to keep another from taking its own project down.
    pub(crate) async fn dependents_of(
        &self,
        permit: &Permit,
        kind: &str,
        id: &str,
        resource: &str,
        uid: &str,
    ) -> Result<Vec<String>, Error> {
        let key = EntityKey::new(kind, id);
        let found = self.read().entities_by_key(permit, std::slice::from_ref(&key)).await?;
        let Some(there) = found.first().filter(|there| is_of(there, resource) && is_one(there, uid)) else {
            return Ok(Vec::new());
        };
        let owner = Some(there.fields.owner.as_str());
        let dependents = self.read().dependents(permit, &key, owner, MAX_LISTED).await?;
        Ok(dependents.into_iter().map(|key| key.name(permit.organization())).collect())
    }

    /// A part of the entities of resources, those of all organizations, in order of their names.
    pub(crate) async fn registered(&self, after: &str, limit: u64) -> Result<Vec<Registered>, Error> {
        let found = self.read().managed_unscoped(after, limit).await?;
        let registered = found.into_iter().map(|(name, uid, annotations)| {
            let annotation = |key| annotations.get(key).cloned().unwrap_or_default();
            Registered {
                name,
                uid: uid.to_string(),
                resource: annotation(annotation::RESOURCE),
                key: annotation(annotation::KEY),
                declaration: annotation(annotation::DECLARATION),
            }
        });
        Ok(registered.collect())
    }
}

fn is_of(entity: &Stored<EntityFields>, resource: &str) -> bool {
    entity.fields.managed_by() == Some(resource)
}

/// Whether it was made by the calls with this key.
fn made_with(entity: &Stored<EntityFields>, key: &str) -> bool {
    entity.fields.annotations.get(annotation::KEY).is_some_and(|made| made == key)
}

/// Whether it is the one of this uid, where that is known.
fn is_one(entity: &Stored<EntityFields>, uid: &str) -> bool {
    uid.is_empty() || entity.uid.to_string() == uid
}

async fn register(work: &Work<'_, App>, command: &Register) -> Result<Done<EntityView>, Error> {
    let Register { id, fields, resource, key, declaration, create, uid } = command;
    let mut wanted = fields.clone();
    wanted.annotations.insert(annotation::RESOURCE.to_owned(), resource.clone());
    wanted.annotations.insert(annotation::KEY.to_owned(), key.clone());
    if !declaration.is_empty() {
        wanted.annotations.insert(annotation::DECLARATION.to_owned(), declaration.clone());
    }
    match work.find::<EntityFields>(&wanted.kind, id).await? {
        None => create_entity(work, &Create { id: id.clone(), fields: wanted }).await,
        Some(there)
            if is_of(&there, resource) && (made_with(&there, key) || !create && is_one(&there, uid)) =>
        {
            // That of the call that made it stays.
            wanted.annotations.remove(annotation::KEY);
            // Labels, tags, links and annotations that people added are kept.
            let merge = move |there: &Stored<EntityFields>| {
                let mut annotations = there.fields.annotations.clone();
                annotations.extend(wanted.annotations.clone());
                let EntityFields { display_name, description, owner, spec, .. } = wanted.clone();
                Ok(EntityFields {
                    display_name,
                    description,
                    owner,
                    spec,
                    annotations,
                    ..there.fields.clone()
                })
            };
            let (parent, name) = (there.fields.kind.clone(), there.name());
            let update = Update { parent, id: id.clone(), name, etag: String::new() };
            view(work, crud::update(work, &update, merge).await?).await
        }
        Some(there) => {
            Err(ResourceError::AlreadyExists { kind: EntityFields::TYPE, name: there.name() }.into())
        }
    }
}

async fn unregister(work: &Work<'_, App>, command: &Unregister) -> Result<Done<()>, Error> {
    let Unregister { kind, id, resource, uid, key } = command;
    let there = work.find::<EntityFields>(kind, id).await?;
    let meant = |there: &Stored<EntityFields>| {
        is_of(there, resource) && is_one(there, uid) && (key.is_empty() || made_with(there, key))
    };
    let Some(there) = there.filter(meant) else {
        return Ok(Done::unchanged(()));
    };
    // Relations that entities of other owners declare to it stay, and are unresolved from now on.
    let (key, owner) = (EntityKey::new(kind.as_str(), id.as_str()), Some(there.fields.owner.as_str()));
    let dependents = db(work).dependents(work.permit, &key, owner, LOOK_FOR).await?;
    let dependents = dependents.into_iter().map(|key| key.name(&there.organization)).collect();
    refuse_dependents(&there, dependents)?;
    work.end(&there).await?;
    EntityFields::written(work, Some(&there), None).await?;
    Ok(Done::new((), AuditEntry::of(Some(&there), None)))
}
