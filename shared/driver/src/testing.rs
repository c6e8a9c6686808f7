//! A driver that makes nothing, for tests and benches of the engine.
//!
//! [`FakeDriver`] keeps its world in memory and follows the contract: idempotent by key, fenced, observable. A test
//! scripts what happens to a step by name ([`FakeDriver::script`]) and afterwards asks what is live, how many effects
//! there were, and which calls came ([`FakeDriver::live`], [`FakeDriver::effects`], [`FakeDriver::calls`]).
//! Resources whose inputs hold `secret: true` get a secret output `password`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use serde_json::{Value, json};

use crate::{
    ActionSchema, ApplyRequest, ArtifactContent, CallContext, DestroyRequest, Driver, DriverInfo, Failure,
    FailureCode, Found, Health, InvokeRequest, ListRequest, ListResponse, Listed, LogStream, Lookup,
    Observation, ObserveRequest, Outcome, Paging, PlanRequest, PlanResponse, Progress, ReadArtifactRequest,
    Secrets, Sink, Success, TypeSchema, Undo, ValidateRequest, Violation, diff,
};

mod artifacts;
mod script;

pub use script::{Behaviour, Call, CallKind, Presence};

const AWAY: &str = "the driver's server is away";
const ACTIONS: [&str; 6] = ["run", "restart", "stop", "start", "rotate", "logs"];

#[derive(Debug, Clone)]
struct Thing {
    owner: String,
    inputs: Value,
    /// The key of the apply that it is what it is by, and the digest of what that declared.
    key: String,
    declaration_digest: String,
    /// It is there in part only, until it is applied again.
    broken: bool,
    /// All that is left of it is the driver's note, until it is applied again.
    hollow: bool,
}

#[derive(Default)]
struct World {
    things: BTreeMap<String, Thing>,
    /// What `reconcile` was told last.
    declared: Option<BTreeSet<String>>,
    created: HashMap<String, (String, Value)>,
    invoked: HashMap<String, Success>,
    scripts: HashMap<(CallKind, String), VecDeque<Behaviour>>,
    fences: HashMap<String, i64>,
    effects: u64,
    calls: Vec<Call>,
    next: u64,
    presence: Presence,
    /// Nothing is found by its key, as in a system that has names only.
    keyless: bool,
    asked: u64,
    artifacts: artifacts::Artifacts,
}

/// The scripted driver. Clones share one world.
#[derive(Clone)]
pub struct FakeDriver {
    id: String,
    types: Vec<String>,
    keep_calls: bool,
    world: Arc<Mutex<World>>,
}

impl std::fmt::Debug for FakeDriver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FakeDriver").field("id", &self.id).field("types", &self.types).finish_non_exhaustive()
    }
}

impl FakeDriver {
    /// A driver with this id that makes these types.
    #[must_use]
    pub fn new(id: &str, types: &[&str]) -> Self {
        Self {
            id: id.to_owned(),
            types: types.iter().map(|name| (*name).to_owned()).collect(),
            keep_calls: true,
            world: Arc::default(),
        }
    }

    /// The same driver without a journal of calls, for benches.
    #[must_use]
    pub fn without_journal(mut self) -> Self {
        self.keep_calls = false;
        self
    }

    /// What the next calls of `kind` for the step do, one behaviour each.
    pub fn script(&self, kind: CallKind, step: &str, behaviours: impl IntoIterator<Item = Behaviour>) {
        self.world().scripts.entry((kind, step.to_owned())).or_default().extend(behaviours);
    }

    /// How often it was asked whether it is there.
    pub fn asked(&self) -> u64 {
        self.world().asked
    }

    /// Takes the driver's server away, or brings it back.
    pub fn set_presence(&self, presence: Presence) {
        self.world().presence = presence;
    }

    /// From now on things are found by their identities only.
    pub fn forget_keys(&self) {
        self.world().keyless = true;
    }

    /// The highest fence that was seen for a resource is this one from now on.
    pub fn set_fence(&self, resource: &str, fence: i64) {
        self.world().fences.insert(resource.to_owned(), fence);
    }

    /// The next apply of the step fails for good.
    pub fn fail(&self, step: &str) {
        let message = format!("step `{step}` was told to fail");
        self.script(CallKind::Apply, step, [Behaviour::Fail { retryable: false, message }]);
    }

    /// Full resource names of what exists now, in order.
    #[must_use]
    pub fn live(&self) -> Vec<String> {
        let mut names: Vec<String> = self.world().things.values().map(|thing| thing.owner.clone()).collect();
        names.sort();
        names
    }

    /// Inputs of the live thing that belongs to this resource name.
    #[must_use]
    pub fn inputs_of(&self, resource: &str) -> Option<Value> {
        self.world().things.values().find(|thing| thing.owner == resource).map(|thing| thing.inputs.clone())
    }

    /// Removes the thing behind the platform's back, as drift would.
    pub fn vanish(&self, resource: &str) {
        self.world().things.retain(|_, thing| thing.owner != resource);
    }

    /// Lets the thing be there in part only, as a process that was killed, until it is applied again.
    pub fn break_down(&self, resource: &str) {
        self.world().things.values_mut().filter(|thing| thing.owner == resource).for_each(|thing| {
            thing.broken = true;
        });
    }

    /// Lets nothing be left of the thing but what the driver has noted of it, until it is applied again.
    pub fn hollow_out(&self, resource: &str) {
        self.world().things.values_mut().filter(|thing| thing.owner == resource).for_each(|thing| {
            (thing.broken, thing.hollow) = (true, true);
        });
    }

    /// The identities that `reconcile` was told of last; nothing before the first time.
    pub fn declared(&self) -> Option<BTreeSet<String>> {
        self.world().declared.clone()
    }

    /// How many times the world changed: creates, updates, destroys and actions, without repetitions.
    #[must_use]
    pub fn effects(&self) -> u64 {
        self.world().effects
    }

    /// Every call so far, in order.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.world().calls.clone()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, kind: CallKind, context: &CallContext) -> Result<Behaviour, Failure> {
        let mut world = self.world();
        if self.keep_calls {
            world.calls.push(Call::new(kind, context));
        }
        match world.presence {
            Presence::There => {}
            Presence::Refuses => return Err(Failure::new(FailureCode::Unavailable, AWAY)),
            Presence::Silent => return Ok(Behaviour::Unknown { effect: false }),
        }
        if kind != CallKind::Observe {
            let seen = world.fences.entry(context.resource.clone()).or_insert(context.fence);
            if context.fence < *seen {
                return Err(Failure::new(FailureCode::Fenced, format!("fence {seen} was seen already")));
            }
            *seen = context.fence;
        }
        let script = world.scripts.get_mut(&(kind, context.step.clone()));
        Ok(script.and_then(VecDeque::pop_front).unwrap_or(Behaviour::Succeed))
    }

    async fn wait(
        &self,
        behaviour: &Behaviour,
        context: &CallContext,
        sink: &dyn Sink,
    ) -> Result<(), Failure> {
        let cancelled = || Failure::new(FailureCode::Cancelled, "cancelled");
        match behaviour {
            Behaviour::Gate(gate) => tokio::select! {
                permit = gate.acquire() => {
                    if let Ok(permit) = permit {
                        permit.forget();
                    }
                    Ok(())
                }
                () = context.cancel.cancelled() => Err(cancelled()),
            },
            Behaviour::UntilCancelled => {
                context.cancel.cancelled().await;
                Err(cancelled())
            }
            Behaviour::Log(lines) => {
                for line in lines {
                    sink.log(LogStream::Stdout, format!("{line}\n").as_bytes()).await;
                }
                Ok(())
            }
            Behaviour::Chatter { rounds, lines } => {
                for round in 0..*rounds {
                    let text: String = (0..*lines).map(|line| format!("{round}.{line}\n")).collect();
                    sink.log(LogStream::Stdout, text.as_bytes()).await;
                    sink.checkpoint(json!({ "round": round })).await?;
                }
                Ok(())
            }
            Behaviour::Take(time) => tokio::select! {
                () = tokio::time::sleep(*time) => Ok(()),
                () = context.cancel.cancelled() => Err(cancelled()),
            },
            Behaviour::Refuse(code) => Err(Failure::new(*code, "told to refuse")),
            Behaviour::LeaveParts(code) => {
                Err(Failure::new(*code, "told to leave parts").with_partial(crate::Partial::default()))
            }
            Behaviour::Busy(time) => {
                Err(Failure::new(FailureCode::Unavailable, "told to be busy").with_retry_delay(*time))
            }
            Behaviour::Fail { retryable, message } => Err(Failure {
                retryable: *retryable,
                ..Failure::new(FailureCode::WorkFailed, message.clone())
            }),
            Behaviour::Succeed | Behaviour::FailPartially { .. } | Behaviour::Unknown { .. } => Ok(()),
        }
    }

    fn success(world: &World, identity: &str) -> Success {
        let inputs = world.things.get(identity).map(|thing| thing.inputs.clone()).unwrap_or_default();
        let mut secrets = Secrets::new();
        if inputs.get("secret") == Some(&Value::Bool(true)) {
            secrets = secrets.with("password", format!("s3cret-of-{identity}"));
        }
        Success {
            identity: identity.to_owned(),
            outputs: json!({ "id": identity, "url": format!("fake://{identity}"), "inputs": inputs }),
            secrets,
            state: json!({ "identity": identity }),
        }
    }

    fn make(&self, context: &CallContext, request: &ApplyRequest) -> Result<Success, Failure> {
        let mut world = self.world();
        let key = context.idempotency_key.clone();
        if let Some((identity, inputs)) = world.created.get(&key).cloned() {
            if inputs != request.inputs {
                let message = "the idempotency key was used with other inputs";
                return Err(Failure::new(FailureCode::InvalidArgument, message));
            }
            if world.things.get(&identity).is_some_and(|thing| thing.key == key) {
                return Ok(Self::success(&world, &identity));
            }
        }
        let identity = match &request.prior {
            Some(prior) if !prior.identity.is_empty() => prior.identity.clone(),
            _ => {
                world.next += 1;
                format!("{}-{}", self.id, world.next)
            }
        };
        world.effects += 1;
        world.created.insert(key.clone(), (identity.clone(), request.inputs.clone()));
        let thing = Thing {
            owner: context.resource.clone(),
            inputs: request.inputs.clone(),
            key,
            declaration_digest: request.declaration_digest.clone(),
            broken: false,
            hollow: false,
        };
        world.things.insert(identity.clone(), thing);
        Ok(Self::success(&world, &identity))
    }

    fn find(world: &World, lookup: &Lookup) -> Option<String> {
        match lookup {
            Lookup::Identity(identity) => world.things.contains_key(identity).then(|| identity.clone()),
            Lookup::Key(_) if world.keyless => None,
            Lookup::Key(key) => {
                let identity = world.created.get(key).map(|(identity, _)| identity.clone())?;
                world.things.contains_key(&identity).then_some(identity)
            }
        }
    }
}

#[async_trait]
impl Driver for FakeDriver {
    fn info(&self) -> DriverInfo {
        let schema = |id: &String| TypeSchema {
            id: id.clone(),
            inputs: json!({"type": "object"}),
            outputs: json!({"type": "object", "properties": {"id": {"type": "string"}, "url": {"type": "string"}}}),
            secret_outputs: vec!["password".to_owned()],
            immutable: vec!["/immutable".to_owned()],
            actions: ACTIONS
                .map(|name| ActionSchema {
                    name: name.to_owned(),
                    description: "does nothing".to_owned(),
                    arguments: json!({"type": "object"}),
                    outputs: json!({"type": "object"}),
                })
                .to_vec(),
            undo: Undo::Destroy,
            secret_inputs: vec!["/*".to_owned()],
        };
        DriverInfo {
            id: self.id.clone(),
            version: "1.0.0".to_owned(),
            types: self.types.iter().map(schema).collect(),
        }
    }

    async fn validate(&self, request: ValidateRequest) -> Result<Value, Vec<Violation>> {
        if request.inputs.is_object() {
            return Ok(request.inputs);
        }
        Err(vec![Violation { path: String::new(), message: "inputs must be an object".to_owned() }])
    }

    async fn plan(&self, request: PlanRequest) -> Result<PlanResponse, Failure> {
        let prior = request.prior.as_ref().map(|prior| &prior.inputs);
        Ok(diff(prior, request.desired.as_ref(), &["/immutable".to_owned()]))
    }

    async fn apply(&self, context: &CallContext, request: ApplyRequest, sink: &dyn Sink) -> Outcome {
        let behaviour = match self.enter(CallKind::Apply, context) {
            Ok(behaviour) => behaviour,
            Err(failure) => return failure.into(),
        };
        sink.progress(Progress::message("making")).await;
        if let Err(failure) = self.wait(&behaviour, context, sink).await {
            return failure.into();
        }
        if let Behaviour::Unknown { effect: false } = behaviour {
            return Outcome::Unknown { message: "told not to know".to_owned() };
        }
        match (self.make(context, &request), behaviour) {
            (Ok(_), Behaviour::Unknown { .. }) => Outcome::Unknown { message: "told not to know".to_owned() },
            (Ok(success), Behaviour::FailPartially { message }) => {
                let partial = crate::Partial { identity: Some(success.identity), state: success.state };
                Failure::new(FailureCode::WorkFailed, message).with_partial(partial).into()
            }
            (result, _) => result.into(),
        }
    }

    async fn observe(&self, context: &CallContext, request: ObserveRequest) -> Observation {
        match self.enter(CallKind::Observe, context) {
            Ok(Behaviour::Unknown { .. } | Behaviour::Fail { .. }) => {
                return Observation::Indeterminate { message: "told not to know".to_owned() };
            }
            Err(failure) => return Observation::Indeterminate { message: failure.message },
            Ok(_) => {}
        }
        let world = self.world();
        let other = |identity: &String| matches!(&request.lookup, Lookup::Key(key) if world.things.get(identity).is_some_and(|thing| thing.key != *key));
        let found = Self::find(&world, &request.lookup).filter(|identity| !other(identity));
        match found.and_then(|identity| world.things.get(&identity).map(|thing| (identity, thing))) {
            Some((identity, thing)) if thing.broken => Observation::Partial {
                identity: Some(identity),
                state: Value::Null,
                message: "told to be broken".to_owned(),
            },
            Some((identity, thing)) => {
                let declaration_digest = thing.declaration_digest.clone();
                Observation::Found(Found {
                    declaration_digest,
                    ..Found::from(Self::success(&world, &identity))
                })
            }
            None => Observation::Absent,
        }
    }

    async fn destroy(&self, context: &CallContext, request: DestroyRequest, sink: &dyn Sink) -> Outcome {
        let behaviour = match self.enter(CallKind::Destroy, context) {
            Ok(behaviour) => behaviour,
            Err(failure) => return failure.into(),
        };
        if let Err(failure) = self.wait(&behaviour, context, sink).await {
            return failure.into();
        }
        let unknown = Outcome::Unknown { message: "told not to know".to_owned() };
        if let Behaviour::Unknown { effect: false } = behaviour {
            return unknown;
        }
        let mut world = self.world();
        if let Some(identity) = Self::find(&world, &request.lookup) {
            world.things.remove(&identity);
            world.effects += 1;
        }
        if let Behaviour::Unknown { .. } = behaviour {
            return unknown;
        }
        Outcome::Succeeded(Success::default())
    }

    async fn invoke(&self, context: &CallContext, request: InvokeRequest, sink: &dyn Sink) -> Outcome {
        let behaviour = match self.enter(CallKind::Invoke, context) {
            Ok(behaviour) => behaviour,
            Err(failure) => return failure.into(),
        };
        if let Err(failure) = self.wait(&behaviour, context, sink).await {
            return failure.into();
        }
        if let Behaviour::Unknown { .. } = behaviour {
            return Outcome::Unknown { message: "told not to know".to_owned() };
        }
        if !ACTIONS.contains(&request.action.as_str()) {
            return Outcome::failed(FailureCode::Unsupported, format!("no action `{}`", request.action));
        }
        let mut world = self.world();
        if !world.things.contains_key(&request.identity) {
            return Outcome::failed(FailureCode::NotFound, format!("`{}` does not exist", request.identity));
        }
        if let Some(first) = world.invoked.get(&context.idempotency_key) {
            return Outcome::Succeeded(first.clone());
        }
        world.effects += 1;
        let success = Success {
            outputs: json!({ "action": request.action, "arguments": request.arguments }),
            ..Self::success(&world, &request.identity)
        };
        world.invoked.insert(context.idempotency_key.clone(), success.clone());
        Outcome::Succeeded(success)
    }

    async fn list(&self, request: ListRequest) -> Result<ListResponse, Failure> {
        let paging = Paging::new([0; 32], &self.id);
        let after = paging.after(&request)?;
        let world = self.world();
        let kind = self.types.first().cloned().unwrap_or_default();
        let there = world.things.iter().filter(|(_, thing)| !thing.hollow);
        let listed = there.filter(|(identity, _)| **identity > after).map(|(identity, thing)| {
            let made = world.created.iter().find(|(_, (made, _))| made == identity);
            Listed {
                identity: identity.clone(),
                resource_type: kind.clone(),
                organization: thing.owner.split('/').nth(1).unwrap_or_default().to_owned(),
                resource: thing.owner.clone(),
                key: made.map(|(key, _)| key.clone()).unwrap_or_default(),
                declaration_digest: thing.declaration_digest.clone(),
            }
        });
        Ok(paging.page(&request, listed))
    }

    async fn read_artifact(&self, request: ReadArtifactRequest) -> Result<ArtifactContent, Failure> {
        self.world().artifacts.read(request)
    }

    async fn reconcile(&self, declared: &BTreeSet<String>) {
        self.world().declared = Some(declared.clone());
    }

    async fn health(&self) -> Health {
        let mut world = self.world();
        world.asked += 1;
        match world.presence {
            Presence::There => Health::Ok,
            Presence::Refuses | Presence::Silent => Health::Down(AWAY.to_owned()),
        }
    }
}
