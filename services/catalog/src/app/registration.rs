//! Entities of resources: what provisioning makes for a project, and takes away with it. Only those, so that whoever
//! holds provisioning's key changes nothing else in the catalog.

use std::marker::PhantomData;
use std::sync::Arc;

use super::crud::{create, delete, update};
use super::{Answer, App, Call, Create, Delete, Done, Encode, Update, View, Work};
use crate::domain::{EntityFields, Resource as _, Stored};
use crate::error::Error;

/// The annotation that says which resource an entity belongs to.
const RESOURCE: &str = "pavior.dev/resource";
/// The annotation that holds the key of the call that made it.
const KEY: &str = "pavior.dev/key";

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
    pub(crate) async fn register_entity(
        &self,
        call: Call,
        encode: Encode<View<EntityFields>>,
        command: Register,
    ) -> Result<Answer<View<EntityFields>>, Error> {
        self.change(call, encode, command, |work, command| {
            Box::pin(async move {
                let done = register(&work, &command).await?;
                Ok((work, done))
            })
        })
        .await
    }

    /// Deletes the entity of a resource, if it is there.
    pub(crate) async fn unregister_entity(&self, call: Call, command: Unregister) -> Result<(), Error> {
        let empty: Encode<()> = |()| Vec::new();
        let answer = self.change(call, empty, command, |work, command| {
            Box::pin(async move {
                let done = unregister(&work, &command).await?;
                Ok((work, done))
            })
        });
        answer.await.map(|_| ())
    }
}

fn is_of(entity: &Stored<EntityFields>, resource: &str) -> bool {
    entity.fields.annotations.get(RESOURCE).is_some_and(|own| own == resource)
}

async fn register(work: &Work<'_>, command: &Register) -> Result<Done<View<EntityFields>>, Error> {
    let Register { id, fields, resource, key } = command;
    let mut wanted = fields.clone();
    wanted.annotations.insert(RESOURCE.to_owned(), resource.clone());
    wanted.annotations.insert(KEY.to_owned(), key.clone());
    match work.tx.find::<EntityFields>(&work.permit, &wanted.kind, id).await? {
        None => create(work, &Create { id: id.clone(), fields: wanted }).await,
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
            let merge = Arc::new(merge);
            update(work, &Update { parent, id: id.clone(), name, etag: String::new(), merge }).await
        }
        Some(there) => Err(Error::AlreadyExists { kind: EntityFields::SINGULAR, name: there.name() }),
    }
}

async fn unregister(work: &Work<'_>, command: &Unregister) -> Result<Done<()>, Error> {
    let Unregister { name, kind, id, resource } = command;
    let there = work.tx.find::<EntityFields>(&work.permit, kind, id).await?;
    if !there.is_some_and(|there| is_of(&there, resource)) {
        return Ok(Done { value: (), events: Vec::new() });
    }
    let (parent, id, name) = (kind.clone(), id.clone(), name.clone());
    delete::<EntityFields>(
        work,
        &Delete { parent, id, name, etag: String::new(), allow_missing: true, of: PhantomData },
    )
    .await
}
