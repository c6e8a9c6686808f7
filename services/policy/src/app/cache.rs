//! The compiled policies of organizations, cached until they change.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use moka::future::Cache;
use pavior_auth::{Permit, SystemAuthority};
use pavior_core::clock::Clock;
use pavior_core::digest::{canonical_json, sha256_digest, sha256_hex};
use pavior_resource::{Rows, Stored};
use pavior_store::Store;
use serde_json::json;
use time::{Duration, OffsetDateTime};
use tokio::sync::Mutex;

use super::sources::Sources;
use crate::domain::engine::{Binding, BoundPolicy, Compilation};
use crate::domain::input::INSTALLATION;
use crate::domain::policy::PolicyFields;
use crate::domain::policy_binding::{Mode, PolicyBindingFields};
use crate::domain::policy_revision::PolicyRevisionFields;
use crate::domain::role::{Role, RoleFields};
use crate::domain::role_binding::{RoleBinding, RoleBindingFields};
use crate::domain::role_index::RoleIndex;
use crate::domain::schema::PolicySchema;
use crate::error::Error;
use crate::store;

/// Part of the digest, because another version of the engine may decide otherwise.
const ENGINE: &str = "cedar-4.14";

#[derive(Debug, Default)]
struct Slot {
    known: arc_swap::ArcSwapOption<Known>,
    loading: Mutex<()>,
}

#[derive(Debug)]
struct Known {
    compilation: Arc<Compilation>,
    /// The revision in the database from which it was compiled.
    revision: i64,
    /// The value of `generation` when it was last compared with the database.
    generation: u64,
    at: OffsetDateTime,
}

/// Compilations of organizations.
///
/// A change made by this process counts `generation` up, so that the next decision reads the revision in the database;
/// changes made by other replicas are seen after at most `max_age`.
#[derive(Clone)]
pub(crate) struct Compilations {
    store: Store,
    schema: Arc<PolicySchema>,
    sources: Sources,
    authority: SystemAuthority,
    clock: Arc<dyn Clock>,
    max_age: Duration,
    generation: Arc<AtomicU64>,
    slots: Cache<String, Arc<Slot>>,
}

impl std::fmt::Debug for Compilations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Compilations").field("generation", &self.generation).finish_non_exhaustive()
    }
}

/// The dependencies of the cache.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) store: Store,
    pub(crate) schema: Arc<PolicySchema>,
    pub(crate) sources: Sources,
    pub(crate) authority: SystemAuthority,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Compilations {
    /// An empty cache.
    pub(crate) fn new(parts: Parts, max_age_ms: u64, organizations: u64) -> Self {
        let Parts { store, schema, sources, authority, clock } = parts;
        let max_age = Duration::milliseconds(i64::try_from(max_age_ms).unwrap_or(i64::MAX));
        let slots = Cache::new(organizations);
        Self { store, schema, sources, authority, clock, max_age, generation: Arc::default(), slots }
    }

    /// Reports a change made by this process.
    pub(crate) fn touch(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// The current compilation of an organization.
    pub(crate) async fn get(&self, organization: &str) -> Result<Arc<Compilation>, Error> {
        let slot = match self.slots.get(organization).await {
            Some(slot) => slot,
            None => self.slots.get_with(organization.to_owned(), async { Arc::default() }).await,
        };
        if let Some(fresh) = self.fresh(&slot) {
            return Ok(fresh);
        }
        let _loading = slot.loading.lock().await;
        if let Some(fresh) = self.fresh(&slot) {
            return Ok(fresh);
        }
        // Read before the database, so that a change that commits after this makes the new entry stale.
        let (generation, at) = (self.generation.load(Ordering::Acquire), self.clock.now());
        let permit = Permit::for_system(&self.authority, organization);
        let revision = match organization {
            INSTALLATION => 0,
            _ => store::read_revision(self.store.read(), &permit).await?,
        };
        let compilation = match slot.known.load_full() {
            Some(known) if known.revision == revision => known.compilation.clone(),
            _ => Arc::new(self.compile(&permit).await?),
        };
        let known = Known { compilation: compilation.clone(), revision, generation, at };
        slot.known.store(Some(Arc::new(known)));
        Ok(compilation)
    }

    fn fresh(&self, slot: &Slot) -> Option<Arc<Compilation>> {
        let known = slot.known.load();
        let known = known.as_ref()?;
        let age = self.clock.now() - known.at;
        let current = known.generation == self.generation.load(Ordering::Acquire);
        (current && age >= Duration::ZERO && age < self.max_age).then(|| known.compilation.clone())
    }

    async fn compile(&self, permit: &Permit) -> Result<Compilation, Error> {
        let rows = Rows::new(self.store.read());
        let roles = rows.all::<RoleFields>(permit).await?;
        let role_bindings = rows.all::<RoleBindingFields>(permit).await?;
        let policies = rows.all::<PolicyFields>(permit).await?;
        let policy_bindings = rows.all::<PolicyBindingFields>(permit).await?;
        let digest = self.digest(&roles, &role_bindings, &policies, &policy_bindings);
        let mut bound = Vec::with_capacity(policies.len());
        for policy in policies {
            let mut in_force = BTreeMap::<i64, Vec<Binding>>::new();
            for binding in policy_bindings.iter().map(|binding| &binding.fields) {
                if binding.policy == policy.id && binding.mode != Mode::Off {
                    let revision = binding.text_revision.unwrap_or(policy.fields.text_revision);
                    in_force.entry(revision).or_default().push(to_binding(binding));
                }
            }
            for (revision, bindings) in in_force {
                bound.push(self.bound(permit, &policy, revision, bindings).await?);
            }
        }
        let roles = roles.into_iter().map(|stored| Role { id: stored.id, actions: stored.fields.actions });
        let index = RoleIndex::new(roles, role_bindings.into_iter().map(to_role_binding));
        Ok(Compilation::new(self.schema.clone(), permit.organization(), digest, index, bound)?)
    }

    /// A revision of a policy with its bindings. A missing revision denies everything in its scope.
    async fn bound(
        &self,
        permit: &Permit,
        policy: &Stored<PolicyFields>,
        revision: i64,
        bindings: Vec<Binding>,
    ) -> Result<BoundPolicy, Error> {
        let (id, kind) = (policy.id.clone(), policy.fields.kind);
        let source = if revision == policy.fields.text_revision {
            Ok(policy.fields.source.clone())
        } else {
            let rows = Rows::new(self.store.read());
            let found = rows.find::<PolicyRevisionFields>(permit, &id, &revision.to_string()).await?;
            found.map(|found| found.fields.source).ok_or_else(|| vec!["the revision is gone".to_owned()])
        };
        let checked = match source {
            Ok(source) => self.sources.check(permit.organization(), kind, &source).await,
            Err(problems) => Err(problems),
        };
        if let Err(problems) = &checked {
            tracing::error!(
                organization = permit.organization(),
                policy = id,
                revision,
                ?problems,
                "a stored policy is no longer valid, so everything in its scope is denied"
            );
        }
        let policy = checked.map_err(|problems| problems.join("; "));
        Ok(BoundPolicy { id, revision, kind, policy, bindings })
    }

    /// SHA-256 over the policies, roles and bindings; independent of the order in which they were written.
    fn digest(
        &self,
        roles: &[Stored<RoleFields>],
        role_bindings: &[Stored<RoleBindingFields>],
        policies: &[Stored<PolicyFields>],
        policy_bindings: &[Stored<PolicyBindingFields>],
    ) -> String {
        let texts = |patterns: &[crate::domain::action::Pattern]| {
            patterns.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let members = |binding: &Stored<RoleBindingFields>| {
            binding.fields.members.iter().map(|member| member.name(&binding.organization)).collect::<Vec<_>>()
        };
        let everything = json!({
            "engine": ENGINE,
            "schema": sha256_hex(self.schema.text.as_bytes()),
            "roles": roles.iter().map(|r| json!([r.id, texts(&r.fields.actions)])).collect::<Vec<_>>(),
            "role_bindings": role_bindings
                .iter()
                .map(|b| json!([b.id, b.fields.role, members(b), b.fields.project, b.fields.reach.name()]))
                .collect::<Vec<_>>(),
            "policies": policies
                .iter()
                .map(|p| json!([p.id, p.fields.kind.name(), p.fields.digest, p.fields.text_revision]))
                .collect::<Vec<_>>(),
            "policy_bindings": policy_bindings
                .iter()
                .map(|b| {
                    let PolicyBindingFields { policy, projects, environment_class_ids, mode, text_revision } =
                        &b.fields;
                    json!([b.id, policy, projects, environment_class_ids, format!("{mode:?}"), text_revision])
                })
                .collect::<Vec<_>>(),
        });
        sha256_digest(&canonical_json(&everything))
    }
}

fn to_binding(fields: &PolicyBindingFields) -> Binding {
    let PolicyBindingFields { policy: _, projects, environment_class_ids, mode, text_revision: _ } = fields;
    Binding {
        projects: projects.iter().cloned().collect(),
        environment_class_ids: environment_class_ids.iter().cloned().collect(),
        mode: *mode,
    }
}

fn to_role_binding(stored: Stored<RoleBindingFields>) -> RoleBinding {
    let RoleBindingFields { role, members, project, reach } = stored.fields;
    RoleBinding { id: stored.id, role, members: members.into_iter().collect(), project, reach }
}
