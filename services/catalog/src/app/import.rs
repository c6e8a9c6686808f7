//! Importing documents in the form of Backstage's `catalog-info.yaml`: all of them, or none.

use pavior_core::{Fault, annotation};
use std::collections::{BTreeMap, BTreeSet};

use jsonschema::{Draft, PatternOptions, Validator};
use pavior_auth::Permit;
use pavior_core::audit::Affected;
use pavior_proto::pavior::catalog::v1::{CreateEntityRequest, UpdateEntityRequest};
use pavior_proto::pavior::governance::internal::v1 as pb;
use pavior_proto::shape::Request as _;
use pavior_resource::facts::{facts_of_target, group_or_nobody};
use pavior_resource::{AuditEntry, ChangeContext, Done, Work, run, unfit};
use pavior_rpc::facts::still_hold;
use prost::Message;

use super::import_document::{
    ImportCounts, ImportDocument, MAX_VIOLATIONS, Read, documents_invalid, entities, read_blocking,
};
use super::import_member::import_members;
use super::{App, db};
use crate::domain::backstage::ImportedEntity;
use crate::domain::entity::Edge;
use crate::domain::reference::EntityKey;
use crate::domain::{EntityFields, Fields as _, KindFields, Stored, Violations, violation_path};
use crate::error::Error;
use crate::json::json;
use crate::store::{Existing, Upsert};

/// The type of what entities are imported into.
const ORGANIZATION: &str = "identity.pavior.dev/Organization";
/// Most entities that one audit record names.
const ENTITIES_PER_RECORD: usize = 100;

/// What an import would do to entities of the same owner.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct OwnerChange {
    /// Whether the entities exist.
    pub(crate) exists: bool,
    /// The group that owns them now; empty when none does.
    pub(crate) before: String,
    /// The group that is to own them; empty for none.
    pub(crate) after: String,
}

impl From<OwnerChange> for pb::OwnerChange {
    fn from(OwnerChange { exists, before, after }: OwnerChange) -> Self {
        let action = if exists { UpdateEntityRequest::ACTION } else { CreateEntityRequest::ACTION };
        Self {
            action: action.to_owned(),
            r#type: EntityFields::TYPE.to_owned(),
            moves: exists && before != after,
            owner: before,
            new_owner: after,
        }
    }
}

impl App {
    /// What an import of these documents would do to owners, each once.
    pub(crate) async fn owner_changes(
        &self,
        permit: &Permit,
        documents: Vec<ImportDocument>,
    ) -> Result<BTreeSet<OwnerChange>, Error> {
        let read = read_blocking(documents, permit.organization()).await?;
        let read = entities(&read);
        let db = self.read();
        let kinds: BTreeSet<String> = read.iter().map(|(_, entity)| entity.fields.kind.clone()).collect();
        let kinds: Vec<String> = kinds.into_iter().collect();
        let kinds = db.find_many::<KindFields>(permit, "", &kinds).await?;
        let kinds: BTreeMap<&str, &KindFields> =
            kinds.iter().map(|kind| (kind.id.as_str(), &kind.fields)).collect();
        let keys: Vec<EntityKey> = read.iter().map(|(_, entity)| entity.key()).collect();
        let existing = db.existing_entities(permit, &keys).await?;
        Ok(owner_changes(permit.organization(), &read, &kinds, &existing))
    }

    /// Imports documents.
    pub(crate) async fn import<M: Message + Default + 'static>(
        &self,
        context: &ChangeContext,
        encode: fn(&ImportCounts) -> M,
        documents: Vec<ImportDocument>,
    ) -> Result<M, Error> {
        let read = read_blocking(documents, context.permit.organization()).await?;
        run(self, context, encode, read, |work, read| Box::pin(import(work, read))).await
    }
}

fn owner_changes(
    organization: &str,
    read: &[(&str, &ImportedEntity)],
    kinds: &BTreeMap<&str, &KindFields>,
    existing: &BTreeMap<EntityKey, Existing>,
) -> BTreeSet<OwnerChange> {
    let changes = read.iter().filter_map(|(_, entity)| {
        let fields = &entity.fields;
        // The import is refused as a whole when a kind does not exist.
        let kind = kinds.get(fields.kind.as_str())?;
        let within = fields.owner_within(organization, kind).map(|(_, owner)| owner);
        let before = existing.get(&entity.key());
        Some(OwnerChange {
            exists: before.is_some(),
            before: before.map_or("", |before| group_or_nobody(&before.owner)).to_owned(),
            after: group_or_nobody(within.as_deref().unwrap_or(&fields.owner)).to_owned(),
        })
    });
    changes.collect()
}

/// A kind with its schema ready to check many specs.
struct Checker {
    fields: KindFields,
    validator: Option<Validator>,
}

impl Checker {
    fn new(fields: KindFields) -> Self {
        let options = PatternOptions::regex().size_limit(1024 * 1024);
        let options =
            jsonschema::options().with_draft(Draft::Draft202012).offline().with_pattern_options(options);
        // A schema that does not compile here is checked by `validate`, which reports what is wrong.
        let validator = options.build(fields.spec_schema.value()).ok();
        Self { fields, validator }
    }

    fn check(&self, fields: &EntityFields, violations: &mut Violations) {
        if self.validator.as_ref().is_some_and(|validator| validator.is_valid(&fields.spec)) {
            return;
        }
        for problem in pavior_expr::schema::validate(self.fields.spec_schema.value(), &fields.spec) {
            violations.add(violation_path("spec", &problem.path), Fault::Schema, problem.message);
        }
    }
}

async fn import(work: &Work<'_, App>, read: &[Read]) -> Result<Done<ImportCounts>, Error> {
    let described = entities(read);
    let (checked, kinds) = check(work, &described).await?;
    let keys: Vec<EntityKey> =
        checked.iter().map(|(id, fields, _)| EntityKey::new(&*fields.kind, id.as_str())).collect();
    let existing = db(work).existing_entities(work.permit, &keys).await?;
    if !work.permit.facts().is_empty() {
        let kinds = kinds.iter().map(|(id, kind)| (id.as_str(), &kind.fields)).collect();
        let changes = owner_changes(work.permit.organization(), &described, &kinds, &existing);
        let mut facts = facts_of_target::<App>(work.tx, work.permit).await?.unwrap_or_default();
        facts.owner_changes = changes.into_iter().map(Into::into).collect();
        still_hold(work.permit.facts(), &facts).map_err(pavior_resource::Error::Problem)?;
    }
    let mut counts = ImportCounts::default();
    let mut writes: Vec<(Upsert, BTreeSet<Edge>)> = Vec::new();
    let mut changes = Vec::new();
    let mut managed = Vec::new();
    let organization = work.permit.organization();
    for ((id, mut fields, edges), key) in checked.into_iter().zip(&keys) {
        fields
            .annotations
            .extend(existing.get(key).map(|before| before.reserved.clone()).unwrap_or_default());
        let digest = fields.digest();
        let before = match existing.get(key) {
            Some(before) if before.digest == digest => {
                counts.unchanged += 1;
                continue;
            }
            Some(before) => {
                if let Some(resource) = before.reserved.get(annotation::RESOURCE) {
                    managed.push((key.name(organization), resource.clone()));
                }
                counts.updated += 1;
                Some(before)
            }
            None => {
                counts.created += 1;
                None
            }
        };
        let stored = upsert(work, organization, &id, fields, before);
        changes.push((stored.name(), before.map(|before| before.digest.clone()), digest));
        writes.push((stored, edges));
    }
    if !managed.is_empty() {
        return Err(Error::Managed(managed));
    }
    write(work, &writes).await?;
    let mut entries = import_members(work, read, &mut counts).await?;
    entries.extend(changes.chunks(ENTITIES_PER_RECORD).map(|chunk| record(work, chunk)));
    Ok(Done { value: counts, entries })
}

fn upsert(
    work: &Work<'_, App>,
    organization: &str,
    id: &str,
    fields: EntityFields,
    before: Option<&Existing>,
) -> Upsert {
    let mut stored = Stored::new(organization, id, work.uuid(), work.now, fields);
    if let Some(Existing { uid, revision, create_time, digest: _, owner: _, reserved: _ }) = before {
        stored.uid = *uid;
        stored.revision = revision + 1;
        stored.create_time = *create_time;
    }
    stored
}

async fn write(work: &Work<'_, App>, writes: &[(Upsert, BTreeSet<Edge>)]) -> Result<(), Error> {
    if writes.is_empty() {
        return Ok(());
    }
    let entities: Vec<Upsert> = writes.iter().map(|(stored, _)| stored.clone()).collect();
    db(work).upsert_entities(work.permit, &entities).await?;
    let replaced: Vec<_> =
        entities.iter().filter(|stored| stored.revision > 1).map(|stored| stored.uid).collect();
    db(work).clear_declared(work.permit, &replaced).await?;
    let declared: Vec<_> = writes.iter().map(|(stored, edges)| (stored, edges)).collect();
    Ok(db(work).insert_declared(work.permit, &declared).await?)
}

type CheckedEntity = (String, EntityFields, BTreeSet<Edge>);

/// Checks each document against its kind. All problems are told at once.
async fn check(
    work: &Work<'_, App>,
    described: &[(&str, &ImportedEntity)],
) -> Result<(Vec<CheckedEntity>, BTreeMap<String, Checker>), Error> {
    let organization = work.permit.organization();
    let kinds: BTreeSet<String> = described.iter().map(|(_, entity)| entity.fields.kind.clone()).collect();
    let kinds: Vec<String> = kinds.into_iter().collect();
    let kinds = work.rows().find_many::<KindFields>(work.permit, "", &kinds).await?;
    let kinds: BTreeMap<String, Checker> =
        kinds.into_iter().map(|kind| (kind.id, Checker::new(kind.fields))).collect();
    let mut violations = Violations::new();
    let mut checked = Vec::with_capacity(described.len());
    for (path, ImportedEntity { id, fields }) in described {
        let mut fields = fields.clone();
        let Some(kind) = kinds.get(&fields.kind) else {
            violations.add(
                violation_path(path, "kind"),
                Fault::NotFound,
                format!("kind `{}` does not exist", fields.kind),
            );
            continue;
        };
        let mut found = Violations::new();
        fields.adopt_owner(organization, &kind.fields);
        kind.check(&fields, &mut found);
        for violation in unfit(organization, id, &fields)? {
            found.add(in_document(&violation.path), violation.fault, violation.message);
        }
        match fields.edges(organization, id, &kind.fields) {
            Ok(edges) => checked.push((id.clone(), fields, edges)),
            Err(more) => found.extend_under("", more),
        }
        violations.extend_under(path, found);
        if violations.len() >= MAX_VIOLATIONS {
            break;
        }
    }
    violations.into_result().map_err(documents_invalid)?;
    Ok((checked, kinds))
}

/// Where a field of an entity stands in a document, in which indices and keys are parts like any other.
fn in_document(path: &str) -> String {
    let path = path.replace('[', ".").replace([']', '`'], "");
    match path.as_str() {
        "display_name" => "metadata.title".to_owned(),
        "spec" | "origin" => path,
        "owner" => "spec.owner".to_owned(),
        other => format!("metadata.{other}"),
    }
}

/// One audit record for many entities: which, and the digest of what each was and is.
fn record(work: &Work<'_, App>, changes: &[(String, Option<String>, String)]) -> AuditEntry {
    let before: BTreeMap<&str, &str> =
        changes.iter().filter_map(|(name, before, _)| Some((name.as_str(), before.as_deref()?))).collect();
    let after: BTreeMap<&str, &str> =
        changes.iter().map(|(name, _, after)| (name.as_str(), after.as_str())).collect();
    let name = format!("organizations/{}", work.permit.organization());
    let entities = changes.iter().map(|(entity, _, _)| Affected::new(EntityFields::TYPE, entity));
    AuditEntry {
        plan_digest: None,
        refused: None,
        target: Affected::new(ORGANIZATION, &name),
        affected: entities.collect(),
        summary: format!("imported {} entities into `{name}`", changes.len()),
        before: Some(json!({ "digests": before })),
        after: Some(json!({ "digests": after })),
    }
}
