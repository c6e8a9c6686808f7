//! Entities of resources: what provisioning makes for a project, and takes away with it. Only those, so that whoever
//! holds provisioning's key changes nothing else in the catalog.

use pavior_auth::Permit;
use pavior_resource::crud::delete;
use pavior_resource::{ChangeContext, Create, Delete, Done, Error as ResourceError, Update, Work, run};
use prost::Message;

use super::App;
use super::entities::{EntityView, create_entity, update_entity};
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Fields as _, Stored};
use crate::error::Error;

/// The annotation that says which resource an entity belongs to.
const RESOURCE: &str = "pavior.dev/resource";
/// The annotation that holds the key of the call that made it.
const KEY: &str = "pavior.dev/key";

/// Most dependents that are told: those of the same project are among them, and go with it.
const TOLD: u64 = 1_000;

/// What to register.
#[derive(Debug)]
pub(crate) struct Register {
    pub(crate) id: String,
    pub(crate) fields: EntityFields,
    pub(crate) resource: String,
    pub(crate) key: String,
}

/// What to take back.
#[derive(Debug)]
pub(crate) struct Unregister {
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) id: String,
    pub(crate) resource: String,
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

    /// The first entities, by name, for whose sake the entity of a resource is not deleted.
    pub(crate) async fn dependents_of(
        &self,
        permit: &Permit,
        kind: &str,
        id: &str,
        resource: &str,
    ) -> Result<Vec<String>, Error> {
        let key = EntityKey::new(kind, id);
        let found = self.read().entities_by_key(permit, std::slice::from_ref(&key)).await?;
        if !found.first().is_some_and(|there| is_of(there, resource)) {
            return Ok(Vec::new());
        }
        let dependents = self.read().dependents(permit, &key, TOLD).await?;
        Ok(dependents.into_iter().map(|key| key.name(permit.organization())).collect())
    }
}

fn is_of(entity: &Stored<EntityFields>, resource: &str) -> bool {
    entity.fields.annotations.get(RESOURCE).is_some_and(|own| own == resource)
}

async fn register(work: &Work<'_, App>, command: &Register) -> Result<Done<EntityView>, Error> {
    let Register { id, fields, resource, key } = command;
    let mut wanted = fields.clone();
    wanted.annotations.insert(RESOURCE.to_owned(), resource.clone());
    wanted.annotations.insert(KEY.to_owned(), key.clone());
    match work.find::<EntityFields>(&wanted.kind, id).await? {
        None => create_entity(work, &Create { id: id.clone(), fields: wanted }).await,
        Some(there) if is_of(&there, resource) => {
            // What people have added to it stays.
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
            update_entity(work, &Update { parent, id: id.clone(), name, etag: String::new() }, merge).await
        }
        Some(there) => {
            Err(ResourceError::AlreadyExists { kind: EntityFields::TYPE, name: there.name() }.into())
        }
    }
}

async fn unregister(work: &Work<'_, App>, command: &Unregister) -> Result<Done<()>, Error> {
    let Unregister { name, kind, id, resource } = command;
    let there = work.find::<EntityFields>(kind, id).await?;
    if !there.is_some_and(|there| is_of(&there, resource)) {
        return Ok(Done::unchanged(()));
    }
    let (parent, id, name) = (kind.clone(), id.clone(), name.clone());
    let command = Delete { parent, id, name, etag: String::new(), allow_missing: true };
    let Done { value: _, entries } = delete::<EntityFields>(work, &command).await?;
    Ok(Done { value: (), entries })
}
